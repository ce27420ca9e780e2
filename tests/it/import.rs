//! `import`: tables of metrics and messages, twice, and an export that comes back as it was.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    api::both,
    serve::serve,
    support::{daemon::Daemon, http, redis::Redis, sqlite, wait_for, wait_until},
};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
const ROWS: &str = "SELECT count(*) FROM training_metrics";

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Imports a file that is accepted whole. Returns how many runs were ended.
#[track_caller]
fn imported(daemon: &Daemon, arguments: &[&str], accepted: u64) -> u64 {
    let output = daemon.command(&[&["import", "--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let mut report = json_of(&output);
    let ended = report["ended"].take().as_u64().unwrap();
    let expected = json!({"read": accepted, "accepted": accepted, "refused": 0, "ended": null, "problems": []});
    assert_eq!(report, expected, "{arguments:?}");
    ended
}

/// The path of a file with this content.
fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Messages whose rows have every kind of value that a row can have.
fn unusual() -> Vec<String> {
    let start = jiff::Timestamp::now().as_second() - 3_600;
    let rows = [
        r#""epoch":1,"loss":NaN,"accuracy":Infinity,"val_loss":-Infinity,"val_acc":0.30000000000000004,"lr":5e-324"#,
        r#""epoch":2,"loss":-0.5,"phase":"a \"b\", c\nd","seq":7,"hidden_units":3,"step":9"#,
        r#""epoch":3,"loss":1,"phase":"""#,
        r#""epoch":4,"loss":1,"phase":"=1+1","text":"=2""#,
        r#""epoch":5,"loss":1,"phase":"12","grad":NaN,"norm":1e300,"f1,macro \"x\"":0.5,"inf":Infinity"#,
        r#""epoch":0.33,"global_step":3000000000,"loss":1,"hidden_units":4000000000"#,
        r#""epoch":6,"loss":1,"big":123456789012345678901234567890,"exact":9007199254740993"#,
        r#""data":{"epoch":7,"loss":1,"type":"inner","note":"n","train":{"f1":0.5,"why":"x"},"list":[1,{"a":2}]}"#,
        r#""epoch":8,"loss":1,"data":{"time":"946684800"},"config":{"lr":0.1},"created_at":7"#,
        r#""epoch":9,"loss":1,"data":{"grad":1,"note":"inner"},"grad":2,"note":"outer""#,
        r#""epoch":10,"loss":"a word","val_loss":1,"accuracy":null,"ok":true"#,
        r#""epoch":11,"loss":1,"a":{"b":{"c":{"d":{"e":{"f":1}}}}},"ü":"\u00fc \ud83d\ude00""#,
    ];
    (0..)
        .zip(rows)
        .map(|(n, fields)| {
            format!("{{\"type\":\"metrics\",\"run_id\":\"{RUN}\",\"timestamp\":{}.25,{fields}}}", start + n)
        })
        .collect()
}

/// The rows of a run, without what an import gives anew.
fn rows(daemon: &Daemon, run: &str) -> Vec<Value> {
    let answer = daemon.get(&format!("/api/export?run_id={run}&format=ndjson"));
    let mut rows: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|name, _| name != "event_id" && name != "run_id");
    }
    rows
}

/// A CSV text without its second and third columns.
fn without_ids(csv: &str) -> String {
    // Only phases have line ends; those lines begin with no run id.
    let cut = |line: &str| match line.splitn(4, ',').collect::<Vec<_>>().as_slice() {
        [run, time, id, rest] if id.parse::<i64>().is_ok() => format!("{},{time},{rest}", &run[..0]),
        _ => line.to_owned(),
    };
    csv.lines().map(cut).collect::<Vec<_>>().join("\n")
}

fn started(daemon: Daemon) -> Daemon {
    let mut daemon = daemon;
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    daemon
}

#[test]
fn an_export_comes_back_as_it_was() {
    both("an_export_comes_back_as_it_was", |builder, _| {
        let source = started(builder.clone().prepare());
        let messages = unusual();
        let sent = http::send(source.http_port(), "POST", "/api/messages", &[], messages.join("\n")).unwrap();
        assert_eq!(sent.json()["accepted"], messages.len(), "{}", sent.body);
        wait_until("the rows", LIMIT, || rows(&source, RUN).len() == messages.len());
        let folder = tempfile::tempdir().unwrap();
        let files = [&[][..], &["--raw"], &["--bom"], &["--format", "ndjson"]].map(|more| {
            let name = format!("{}/export{}", folder.path().display(), more.concat());
            source.succeed(&[&["export", RUN, "-o", &name], more].concat());
            (name, more)
        });
        let other = Redis::start();
        let target = Daemon::on(&other).start_ready();
        for (n, (name, more)) in files.iter().enumerate() {
            let raw: Vec<&str> = more.iter().filter(|flag| **flag == "--raw").copied().collect();
            let run = ["", "a copy", "another", "a third"][n];
            let renamed: &[&str] = if run.is_empty() { &[] } else { &["--run", run] };
            for _ in 0..2 {
                imported(&target, &[&[name.as_str()][..], &raw, renamed].concat(), messages.len() as u64);
            }
            let id = if run.is_empty() { RUN.into() } else { cascor_ingest::event::run_id_from_text(run).to_string() };
            wait_until("the rows", LIMIT, || rows(&target, &id).len() >= messages.len());
            assert_eq!(rows(&target, &id), rows(&source, RUN), "{name}");
            if more.contains(&"ndjson") {
                continue;
            }
            let again = target.succeed(&[&["export", &id], *more].concat());
            assert_eq!(without_ids(&again), without_ids(&fs::read_to_string(name).unwrap()), "{name}");
        }
        target.wait_rows(ROWS, files.len() as i64 * messages.len() as i64);
    });
}

#[test]
fn a_table_without_times_gives_the_same_rows_each_time() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let folder = tempfile::tempdir().unwrap();
    // As Keras' CSVLogger writes it, pandas with its index, and W&B.
    let keras = write(
        folder.path(),
        "spiral one.csv",
        "epoch,accuracy,loss,lr,val_loss\n0,0.5,0.7,0.001,nan\n1,0.6,0.5,0.001,0.4\n",
    );
    let output = daemon.command(&["import", &keras]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "read 2, accepted 2, refused 0; 1 run ended as completed\n");
    assert!(stderr(&output).contains("the rows have no time") && stderr(&output).contains("--start"), "{output:?}");
    daemon.wait_rows("SELECT count(*) FROM training_runs WHERE run_name = 'spiral one' AND final_epoch = 1", 1);
    // Longer by now, and changed at another time: the run has begun when it has.
    fs::write(&keras, fs::read_to_string(&keras).unwrap() + "2,0.7,0.3,0.001,0.3\n").unwrap();
    let later = std::time::SystemTime::now() - Duration::from_secs(5_000);
    fs::File::open(&keras).unwrap().set_modified(later).unwrap();
    imported(&daemon, &[&keras], 3);
    daemon.wait_rows(ROWS, 3);
    let row = &sqlite::rows(&daemon.database(), "SELECT * FROM training_metrics WHERE epoch = 0")[0];
    assert_eq!(
        (&row["train_accuracy"], &row["learning_rate"], &row["val_loss"]),
        (&json!(0.5), &json!(0.001), &Value::Null)
    );
    assert!(row["non_finite"].as_str().unwrap().contains("val_loss"), "{row:?}");

    let pandas = write(folder.path(), "frame.csv", ",epoch,train/f1,note\n0,1,0.25,\"a, \"\"b\"\"\"\n1,2,,x\n");
    imported(&daemon, &[&pandas, "--run", "frame"], 2);
    let at = jiff::Timestamp::now().as_second() - 600;
    let wandb = write(folder.path(), "w.csv", format!("_step,_timestamp,train/loss,gnorm\n7,{at}.5,0.5,1.5\n"));
    for _ in 0..2 {
        imported(&daemon, &[&wandb], 1);
    }
    daemon.wait_rows(ROWS, 6);
    let row = wait_for("its row", LIMIT, || {
        sqlite::rows(&daemon.database(), "SELECT * FROM training_metrics WHERE step = 7").pop()
    });
    assert_eq!((&row["timestamp"], &row["train_loss"]), (&json!(at * 1_000_000 + 500_000), &json!(0.5)));
    assert_eq!(row["extra"], json!("{\"gnorm\":1.5}"));
    let row =
        &sqlite::rows(&daemon.database(), "SELECT * FROM training_metrics WHERE rest_json LIKE '%note%' AND epoch = 1")
            [0];
    assert_eq!(
        (&row["extra"], &row["rest_json"]),
        (&json!("{\"train/f1\":0.25}"), &json!("{\"note\":\"a, \\\"b\\\"\"}"))
    );
}

#[test]
fn what_is_refused_is_listed_with_its_line() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("limits.fields", "20").start_ready();
    let folder = tempfile::tempdir().unwrap();
    let at = jiff::Timestamp::now().as_second() - 600;
    let many: String = (0..30).map(|n| format!(",\"k{n}\":1")).collect();
    let messages = [
        format!("{{\"run_id\":\"{RUN}\",\"timestamp\":{at},\"epoch\":1,\"loss\":NaN}}"),
        "nonsense".into(),
        format!("{{\"timestamp\":{at},\"epoch\":2,\"loss\":1}}"),
        String::new(),
        format!("{{\"run_id\":\"{RUN}\",\"timestamp\":946684800,\"epoch\":2,\"loss\":1}}"),
        format!("{{\"run_id\":\"{RUN}\",\"timestamp\":{at},\"epoch\":3{many}}}"),
        format!("{{\"type\":\"training_end\",\"run_id\":\"{RUN}\",\"timestamp\":{at}}}"),
    ];
    let file = write(folder.path(), "messages.ndjson", messages.join("\n"));
    let output = daemon.command(&["import", &file, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = json_of(&output);
    assert_eq!(
        (&report["read"], &report["accepted"], &report["refused"]),
        (&json!(6), &json!(2), &json!(4)),
        "{report}"
    );
    let problems = report["problems"].as_array().unwrap();
    for ((line, why), problem) in
        [(2, "not_an_object"), (3, "--run"), (5, "10 years"), (6, "limits.fields")].iter().zip(problems)
    {
        assert_eq!(problem["line"], *line, "{report}");
        assert!(problem["reason"].as_str().unwrap().contains(why), "{problem}");
    }
    // The message was published, too, with the same bytes.
    redis.client().publish("cascor:training", &messages[0]);
    imported(&daemon, &[&write(folder.path(), "b.ndjson", &messages[2]), "--run", RUN], 1);
    daemon.wait_rows(ROWS, 2);
    daemon.wait_rows("SELECT count(*) FROM training_runs WHERE status = 'completed'", 1);

    let bad: String = (0..30).map(|n| format!("{n}\n")).collect();
    let csv = write(folder.path(), "bad.csv", format!("epoch,loss\n1,0.5\n{bad}2,0.25\n"));
    let output = daemon.command(&["import", &csv, "--start", &at.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("bad.csv, line 3: it has 1 cells; the header has 2") && said.contains("... and 10 more"),
        "{said}"
    );
    assert!(said.contains("30 of 32 were refused"), "{said}");
    daemon.wait_rows(ROWS, 4);
    for (name, text, why) in [
        ("empty.csv", "run_id\n", "none is named"),
        ("twice.csv", "loss,loss\n", "there twice"),
        ("array.json", "[{}]", "one a line"),
    ] {
        let output = daemon.command(&["import", &write(folder.path(), name, text)]);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(why), "{name}: {output:?}");
    }
    let open = daemon.command(&["import", &write(folder.path(), "open.csv", "loss,phase\n1,\"x\n")]);
    assert!(open.status.code() == Some(1) && stderr(&open).contains("line 2 is not closed"), "{open:?}");
    assert_eq!(daemon.command(&["import", "no-such.csv"]).status.code(), Some(1));
}

#[test]
fn a_pipe_and_a_compressed_file_are_read() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let table = "epoch,loss\n1,0.5\n2,0.25\n";
    let pipe = |arguments: &[&str]| {
        let mut command = daemon.prepared(&[&["import", "-"], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(table.as_bytes());
        child.wait_with_output().unwrap()
    };
    let unnamed = pipe(&["--start", "2026-01-01"]);
    assert!(unnamed.status.code() == Some(1) && stderr(&unnamed).contains("--run"), "{unnamed:?}");
    let untimed = pipe(&["--run", "piped"]);
    assert!(untimed.status.code() == Some(2) && stderr(&untimed).contains("--start"), "{untimed:?}");
    let start = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    for _ in 0..2 {
        assert!(pipe(&["--run", "piped", "--start", &start.to_string()]).status.success());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(table.as_bytes()).unwrap();
    imported(&daemon, &[&write(folder.path(), "packed.csv.gz", packed.finish().unwrap())], 2);
    daemon.wait_rows(ROWS, 4);
    daemon.wait_rows("SELECT count(*) FROM training_runs WHERE run_name IN ('piped', 'packed')", 2);
}

#[test]
fn a_daemon_that_takes_messages_is_needed_and_a_publish_token_is_enough() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens =
        write(folder.path(), "tokens", "ann admin admin-token-0123456789\nlab publish publish-token-0123456789\n");
    let own = write(folder.path(), "own", "lab publish publish-token-0123456789\n");
    let mut daemon = Daemon::on(&redis).set("http.tokens_file", format!("{tokens:?}")).prepare();
    let table = write(folder.path(), "t.csv", "epoch,loss\n1,0.5\n");
    let absent = daemon.command(&["import", &table]);
    assert!(absent.status.code() == Some(1) && stderr(&absent).contains("cascor-ingest run"), "{absent:?}");
    daemon.launch();
    daemon.wait_ready();
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    imported(&daemon, &[&table, "--url", &url, "--token-file", &own], 1);
    imported(&daemon, &[&table], 1);
    daemon.wait_rows(ROWS, 1);
    let (_served, port) = serve(&daemon);
    let refused =
        daemon.command(&["import", &table, "--url", &format!("http://127.0.0.1:{port}"), "--token-file", &own]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("send them to a daemon"), "{refused:?}");
}

#[test]
fn a_daemon_without_room_is_waited_for() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("spool.segment", "\"16KiB\"")
        .set("spool.capacity", "\"128KiB\"")
        .set("spool.memory", "\"64KiB\"")
        .start_ready();
    let folder = tempfile::tempdir().unwrap();
    imported(&daemon, &[&write(folder.path(), "first.csv", "epoch,loss\n1,0.5\n")], 1);
    daemon.wait_rows(ROWS, 1);
    let blocker = rusqlite::Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let table: String = (0..3_000).map(|n| format!("{n},0.5\n")).collect();
    let file = write(folder.path(), "long.csv", format!("epoch,loss\n{table}"));
    let import =
        daemon.prepared(&["import", &file, "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a full spool", LIMIT, || daemon.get("/readyz").status == 503);
    std::thread::sleep(Duration::from_secs(1));
    blocker.execute_batch("ROLLBACK").unwrap();
    let output = import.wait_with_output().unwrap();
    assert_eq!(json_of(&output)["accepted"], 3_000, "{output:?}");
    daemon.wait_rows(ROWS, 3_001);
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps"), 0);
}

#[test]
fn an_imported_run_has_ended_unless_it_goes_on() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let folder = tempfile::tempdir().unwrap();
    let at = jiff::Timestamp::now().as_second() - 3_600;
    let table = |rows: i64| -> String {
        let rows: String = (0..rows).map(|n| format!("{n},0.5,{}\n", at + n)).collect();
        format!("epoch,loss,timestamp\n{rows}")
    };
    let run = |name: &str| {
        let path = format!("/api/runs/{}?limit=0", cascor_ingest::event::run_id_from_text(name));
        daemon.get(&path).json()["run"].clone()
    };
    let ends = "SELECT count(*) FROM training_events WHERE type = 'training_end'";
    let file = write(folder.path(), "whole.csv", table(3));
    for _ in 0..2 {
        assert_eq!(imported(&daemon, &[&file], 3), 1);
    }
    wait_until("its end", LIMIT, || run("whole")["status"] == "completed");
    assert_eq!((&run("whole")["duration_seconds"], &run("whole")["final_epoch"]), (&json!(2), &json!(2)));
    for (n, status) in ["completed", "failed", "stopped"].into_iter().enumerate() {
        let told = daemon.succeed(&["import", &file, "--run", status, "--status", status]);
        assert_eq!(told, format!("read 3, accepted 3, refused 0; 1 run ended as {status}\n"));
        wait_until("its end", LIMIT, || run(status)["status"] == status);
        daemon.wait_rows(ends, 2 + n as i64);
    }
    // A file that has grown ends its run later.
    assert_eq!(imported(&daemon, &[&write(folder.path(), "whole.csv", table(5))], 5), 1);
    wait_until("its later end", LIMIT, || run("whole")["duration_seconds"] == 4);
    assert_eq!(run("whole")["status"], "completed");
    // What is left open, what its trainer still sends, and messages.
    assert_eq!(imported(&daemon, &[&file, "--run", "open", "--status", "running"], 5), 0);
    let live = json!({"run_id": "live", "epoch": 9, "loss": 0.1, "timestamp": at + 600}).to_string();
    redis.client().publish("cascor:training", live);
    wait_until("the live run", LIMIT, || run("live")["final_epoch"] == 9);
    assert_eq!(imported(&daemon, &[&file, "--run", "live"], 5), 0);
    let lines = format!("{{\"run_id\":\"lines\",\"epoch\":1,\"loss\":1,\"timestamp\":{at}}}\n");
    let lines = write(folder.path(), "lines.ndjson", lines);
    assert_eq!(imported(&daemon, &[&lines], 1), 0);
    wait_until("the rows", LIMIT, || {
        ["open", "live", "lines"].iter().all(|name| run(name)["last_event_time"].is_string())
    });
    for name in ["open", "live", "lines"] {
        assert!(["running", "stale"].contains(&run(name)["status"].as_str().unwrap()), "{name}: {}", run(name));
    }
    assert_eq!(imported(&daemon, &[&lines, "--status", "stopped"], 1), 1);
    wait_until("its end", LIMIT, || run("lines")["status"] == "stopped");
    // Nothing was accepted, so nothing ends.
    let refused = daemon.command(&["import", &write(folder.path(), "none.csv", "epoch,loss\n1\n"), "--json"]);
    assert_eq!(json_of(&refused)["ended"], 0, "{refused:?}");
    let exported = daemon.succeed(&["export", "whole", "--format", "ndjson"]);
    assert_eq!(imported(&daemon, &[&write(folder.path(), "export.ndjson", exported), "--run", "again"], 5), 1);
    wait_until("its end", LIMIT, || run("again")["status"] == "completed");
    let events = daemon.succeed(&["export", "whole", "--table", "training_events", "--format", "ndjson"]);
    let refused = daemon.command(&["import", &write(folder.path(), "events.ndjson", events)]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("holds no metrics"), "{refused:?}");
}
