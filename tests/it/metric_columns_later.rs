//! Metrics that come after the head of a CSV file was written, on both stores.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Map, Value, json};

use crate::{
    api::both,
    metric_columns::{RUN, TRAINING, export, publish, ready, records, value, wait_rows},
    support::{cassandra::python, daemon::Daemon, redis::Redis, skip},
};

const OTHER: &str = "6f0c853b-6794-4685-b2f5-43019da8836c";

#[test]
fn a_continued_export_keeps_its_columns() {
    if python().is_none() {
        return skip("a_continued_export_keeps_its_columns", "CASCOR_TEST_PYTHON is not set");
    }
    both("a_continued_export_keeps_its_columns", |builder, redis| {
        let daemon = ready(builder);
        let start = jiff::Timestamp::now().as_second() - 3_600;
        publish(redis, RUN, start, &["b", "=d"], 0..10);
        publish(redis, OTHER, start, &["b", "z"], 0..10);
        wait_rows(&daemon, RUN, 10, 2);
        wait_rows(&daemon, OTHER, 10, 2);
        let runs = format!("run_id={OTHER}&run_id={RUN}");
        let begun = export(&daemon, &runs);
        let (union, rows) = records(&begun.body);
        assert_eq!((&union[13..], rows.len()), (&["'=d", "b", "z", "rest_json", "extra"].map(str::to_owned)[..], 20));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.csv");
        let [name, url] = [file.to_str().unwrap().to_owned(), format!("http://127.0.0.1:{}", daemon.http_port())];
        daemon.succeed(&["export", RUN, "-o", &name]);
        let head = fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
        let fixed = folder.path().join("fixed.csv");
        daemon.succeed(&["export", RUN, "-o", fixed.to_str().unwrap(), "--columns", "fixed"]);

        publish(redis, RUN, start, &["a", "b", "c,\"", "=d", "zz"], 10..20);
        wait_rows(&daemon, RUN, 20, 5);
        // By HTTP, after the trailer's cursor.
        let cursor = begun.header("x-cursor").unwrap();
        let rest = export(&daemon, &format!("{runs}&cursor={cursor}"));
        let (joined, rows) = records(&(begun.body.clone() + &rest.body));
        assert_eq!((joined, rows.len()), (union, 30));
        check_later_names(&rows[20..]);
        for refused in ["&columns=fixed", "x"] {
            let answer = daemon.get(&format!("/api/export?{runs}&cursor={cursor}{refused}"));
            assert_eq!(answer.status, 400, "{}", answer.body);
        }
        // A cursor without columns continues the fixed ones, as files of earlier versions have them.
        let bare: Vec<_> = cursor.splitn(4, '.').take(3).collect();
        let rest = export(&daemon, &format!("{runs}&cursor={}", bare.join(".")));
        assert!(rest.body.lines().all(|line| line.ends_with("}\",")), "{}", rest.body);
        // On the command line, by the columns of the file.
        daemon.succeed(&["export", RUN, "-o", &name, "--resume", "--url", &url]);
        let resumed = fs::read_to_string(&file).unwrap();
        assert_eq!(resumed.lines().next(), Some(&*head));
        let (_, rows) = records(&resumed);
        assert_eq!(rows.len(), 20);
        check_later_names(&rows[10..]);
        let refused = daemon.command(&["export", RUN, "-o", &name, "--resume", "--columns", "fixed"]);
        assert!(refused.status.code() == Some(1) && fs::read_to_string(&file).unwrap() == resumed);
        daemon.succeed(&["export", RUN, "-o", fixed.to_str().unwrap(), "--resume"]);
        let expected = export(&daemon, &format!("run_id={RUN}&columns=fixed")).body;
        assert!(fs::read_to_string(&fixed).unwrap() == expected, "the old form stays");
        // A file that begins at a cursor has no head; its side file has the columns.
        let tail = folder.path().join("tail.csv");
        let tail = tail.to_str().unwrap();
        let of_first = export(&daemon, &format!("run_id={RUN}&end_time={}", start + 11));
        daemon.succeed(&["export", RUN, "-o", tail, "--cursor", of_first.header("x-cursor").unwrap()]);
        publish(redis, RUN, start, &["new"], 20..22);
        wait_rows(&daemon, RUN, 22, 6);
        daemon.succeed(&["export", RUN, "-o", tail, "--resume"]);
        let (_, rows) = records(&(of_first.body + &fs::read_to_string(tail).unwrap()));
        assert!(rows.len() == 22 && rows[21]["extra"].as_str().unwrap().contains("\"new\""), "{:?}", rows[21]);
    });
}

/// Rows 10 to 19 in a file whose columns are `=d` and `b`.
fn check_later_names(rows: &[Map<String, Value>]) {
    for (row, cells) in (10..).zip(rows) {
        let text = |name: &str| cells[name].as_str().unwrap();
        let number = |n: usize| value(n, row).unwrap_or_default();
        assert_eq!((text("b"), text("'=d")), (&*number(1), &*number(3)), "{cells:?}");
        let extra: Map<String, Value> = serde_json::from_str(text("extra")).unwrap_or_default();
        let expected = [("a", 0), ("c,\"", 2), ("zz", 4)].into_iter().filter(|(_, n)| value(*n, row).is_some());
        assert_eq!(extra.keys().collect::<Vec<_>>(), expected.map(|(name, _)| name).collect::<Vec<_>>(), "{extra:?}");
    }
}

#[test]
fn names_that_come_while_an_export_runs_stay_in_its_last_column() {
    if python().is_none() {
        return skip("names_that_come_while_an_export_runs_stay_in_its_last_column", "CASCOR_TEST_PYTHON is not set");
    }
    let redis = Redis::start();
    let daemon = ready(Daemon::on(&redis));
    let start = jiff::Timestamp::now().as_second() - 20_000;
    // More text than the buffers of a socket hold.
    let text = "x".repeat(16 << 10);
    let mut client = redis.client();
    let mut add = |n: i64, name: &str| {
        let mut message = json!({"run_id": RUN, "timestamp": start + n, "loss": 0.5, "text": text});
        message[name] = json!(n);
        client.publish(TRAINING, message.to_string());
    };
    (0..1_500).for_each(|n| add(n, "early"));
    wait_rows(&daemon, RUN, 1_500, 1);
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.http_port())).unwrap();
    let request = format!("GET /api/export?run_id={RUN}&trailer=line HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 100];
    stream.read_exact(&mut answer).unwrap();
    add(1_500, "late");
    wait_rows(&daemon, RUN, 1_501, 2);
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let (rows, trailer) = body.rsplit_once("# {").unwrap();
    assert!(trailer.contains("\"rows\":1501"), "{trailer}");
    let (head, rows) = records(rows);
    assert_eq!(head[13..], ["early", "rest_json", "extra"].map(str::to_owned));
    assert_eq!((&rows[1_499]["early"], &rows[1_499]["extra"]), (&json!("1499.0"), &json!("")));
    assert_eq!((&rows[1_500]["early"], &rows[1_500]["extra"]), (&json!(""), &json!("{\"late\":1500.0}")));
}
