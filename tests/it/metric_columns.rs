//! Extra metrics, whatever their names: columns of a CSV file, aggregates and curves, on both stores.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    api::both,
    support::{
        cassandra::python,
        daemon::{Builder, Daemon},
        http,
        redis::Redis,
        skip, wait_until,
    },
};

pub const TRAINING: &str = "cascor:training";
pub const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(60);
const ROWS: i64 = 40;
/// Names as trainers may choose them: also names of columns, formulas, a line break, and one that is empty.
const NAMES: [&str; 13] = [
    "",
    "=SUM(A1)",
    "'=SUM(A1)",
    "a,b",
    "dot.ted",
    "epoch",
    "extra",
    "extra.epoch",
    " lead",
    "line\nbreak",
    "say \"ü\"",
    "step",
    "学習率",
];

pub fn ready(builder: Builder) -> Daemon {
    let mut daemon = builder.prepare();
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    daemon
}

/// The value of a metric in a row, as the JSON of Python has it; `None`: the row lacks it.
pub fn value(name: usize, row: i64) -> Option<String> {
    match (name as i64 + row) % 11 {
        0 => None,
        1 => Some("NaN".into()),
        2 => Some("Infinity".into()),
        3 => Some("-Infinity".into()),
        _ => Some(format!("{}", row as f64 + name as f64 / 16.0 + 0.03)),
    }
}

/// Rows `from..to` of a run, a second apart, with these metrics beside a loss.
pub fn publish(redis: &Redis, run: &str, start: i64, names: &[&str], rows: std::ops::Range<i64>) {
    let mut client = redis.client();
    for row in rows {
        let mut message = format!("{{\"run_id\":\"{run}\",\"timestamp\":{},\"loss\":0.5,\"seq\":{row}", start + row);
        for (n, name) in names.iter().enumerate() {
            // A fraction belongs to the metric beside the column; other values of these names are of the column alone.
            let of_column = matches!(*name, "epoch" | "step");
            if let Some(value) = value(n, row).filter(|text| !of_column || text.parse::<f64>().unwrap().is_finite()) {
                message.push_str(&format!(",{}:{value}", json!(name)));
            }
        }
        client.publish(TRAINING, message + "}");
    }
}

pub fn wait_rows(daemon: &Daemon, run: &str, rows: i64, names: usize) {
    wait_until("every row and name", LIMIT, || {
        let answer = daemon.get(&format!("/api/runs/{run}?limit=0")).json();
        answer["metric_count"] == rows && answer["metric_names"].as_array().map(Vec::len) == Some(names)
    });
}

pub fn export(daemon: &Daemon, query: &str) -> http::Response {
    let path = format!("/api/export?{query}");
    let answer = http::send(daemon.http_port(), "GET", &path, &[("TE", "trailers")], "").unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    assert_eq!(answer.header("x-checksum-xxh3").unwrap().len(), 16, "it has an end");
    answer
}

/// The head and the rows of a CSV file, as Python reads them.
pub fn records(csv: &str) -> (Vec<String>, Vec<Map<String, Value>>) {
    let script = "import csv, io, json, sys
csv.field_size_limit(1 << 30)
records = list(csv.reader(io.StringIO(sys.stdin.buffer.read().decode('utf-8-sig'), newline='')))
head, rows = records[0], records[1:]
assert len(set(head)) == len(head), 'a column is there twice'
assert all(len(row) == len(head) for row in rows), 'rows have as many cells as the head'
json.dump([head, [dict(zip(head, row)) for row in rows]], sys.stdout)";
    let mut process = Command::new(python().unwrap())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let text = csv.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "Python does not read it");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn label(name: &str) -> String {
    if ["epoch", "extra", "extra.epoch", "step"].contains(&name) { format!("extra.{name}") } else { name.to_owned() }
}

/// A value of a query with every byte percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn every_name_is_a_column_and_a_field() {
    if python().is_none() {
        return skip("every_name_is_a_column_and_a_field", "CASCOR_TEST_PYTHON is not set");
    }
    both("every_name_is_a_column_and_a_field", |builder, redis| {
        let daemon = ready(builder);
        let start = jiff::Timestamp::now().as_second() - 3_600;
        publish(redis, RUN, start, &NAMES, 0..ROWS);
        wait_rows(&daemon, RUN, ROWS, NAMES.len());
        let names = daemon.get(&format!("/api/runs/{RUN}?limit=0")).json()["metric_names"].clone();
        let mut sorted = NAMES.to_vec();
        sorted.sort_unstable();
        assert_eq!(names, json!(sorted));
        let raw = export(&daemon, &format!("run_id={RUN}&raw=true"));
        let (head, rows) = records(&raw.body);
        let labels: Vec<_> = sorted.iter().map(|name| label(name)).collect();
        assert_eq!(head[13..], [labels, vec!["rest_json".into(), "extra".into()]].concat());
        for (n, name) in NAMES.iter().enumerate() {
            for (row, cells) in (0..).zip(&rows) {
                let of_column = matches!(*name, "epoch" | "step");
                let expected = value(n, row).filter(|text| !of_column || text.parse::<f64>().unwrap().is_finite());
                let cell = cells[&label(name)].as_str().unwrap();
                let same =
                    |text: &String| cell.parse::<f64>().unwrap().to_bits() == text.parse::<f64>().unwrap().to_bits();
                assert!(expected.as_ref().map_or(cell.is_empty(), same), "{name:?} {row}: {cell} {expected:?}");
            }
        }
        assert!(rows.iter().all(|cells| cells["extra"] == ""));
        // For a spreadsheet the same, but for the two formulas.
        let (quoted, of_quoted) = records(&export(&daemon, &format!("run_id={RUN}&bom=true")).body);
        let changed: Vec<_> = head.iter().zip(&quoted).filter(|(raw, quoted)| raw != quoted).collect();
        let mark = |name: &str| (name.to_owned(), format!("'{name}"));
        assert_eq!(
            changed.into_iter().map(|(raw, quoted)| (raw.clone(), quoted.clone())).collect::<Vec<_>>(),
            ["'=SUM(A1)", "=SUM(A1)"].map(mark)
        );
        assert_eq!(of_quoted[5]["学習率"], rows[5]["学習率"]);
        let fixed = export(&daemon, &format!("run_id={RUN}&columns=fixed"));
        assert!(fixed.body.lines().next().unwrap().ends_with(",phase,seq,extra,rest_json"), "{}", fixed.body);
        let (_, fixed) = records(&fixed.body);
        let extra: Value = serde_json::from_str(fixed[5]["extra"].as_str().unwrap()).unwrap();
        assert_eq!(extra["学習率"].as_f64(), rows[5]["学習率"].as_str().unwrap().parse().ok());
        curves(&daemon, &sorted);
        unknown(&daemon);
    });
}

/// Every metric has aggregates and a curve, under its label.
fn curves(daemon: &Daemon, names: &[&str]) {
    let ask = |path: String| {
        let answer = daemon.get(&path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    };
    let all = ask(format!("/api/runs/{RUN}/aggregates"));
    assert_eq!((&all["rows"], &all["fields_left_out"]), (&json!(ROWS), &json!(0)));
    let fields = all["fields"].as_object().unwrap();
    assert_eq!(fields.len(), names.len() + 9, "and every column with numbers: {:?}", fields.keys());
    for name in names {
        let (label, n) = (label(name), NAMES.iter().position(|known| known == name).unwrap());
        let finite =
            |row: &i64| value(n, *row).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
        let last = (0..ROWS).rev().find_map(|row| finite(&row)).unwrap();
        let field = &fields[&label];
        assert_eq!(field["max"].as_f64(), Some(last), "{label}: {field}");
        let count = (0..ROWS).filter(|row| finite(row).is_some()).count();
        assert_eq!(field["count"].as_u64().unwrap() - field["non_finite"].as_u64().unwrap(), count as u64, "{label}");
        assert_eq!(field["first_non_finite"].is_null(), matches!(*name, "epoch" | "step"), "{label}");
        let field = escaped(&label);
        if label.trim().is_empty() {
            continue;
        }
        assert_eq!(ask(format!("/api/runs/{RUN}/aggregates?field={field}"))["fields"][&label], fields[&label]);
        let curve = ask(format!("/api/metrics/range?run_id={RUN}&field={field}&max_points=5&by=time&order=asc"));
        let points = curve["metrics"].as_array().unwrap();
        let most = points.iter().filter_map(|point| point["spread"][&label]["max"].as_f64()).reduce(f64::max);
        assert!(most == Some(last) && points.iter().all(|point| point.get(&label).is_some()), "{label}: {curve}");
        let page = ask(format!("/api/metrics/range?run_id={RUN}&field={field}&limit=40"));
        let values = page["metrics"].as_array().unwrap().iter().filter_map(|row| row[&label].as_f64());
        assert_eq!((&page["fields"], values.count()), (&json!([label]), count), "{page}");
        let compared = ask(format!("/api/compare?run_id={RUN}&field={field}&by=time"));
        let curve = compared["curves"][0]["last"].as_array().unwrap().iter().filter(|value| value.is_f64());
        assert_eq!((&compared["field"], curve.count()), (&json!(label), count), "{label}");
    }
}

/// A name that is not there is an error that lists those that are.
fn unknown(daemon: &Daemon) {
    let compare = format!("/api/compare?run_id={RUN}");
    for path in [
        format!("/api/runs/{RUN}/aggregates?fields=loss,grad_nrom"),
        format!("/api/runs/{RUN}/growth?field=grad_nrom"),
        format!("/api/metrics/range?run_id={RUN}&field=grad_nrom"),
        format!("/api/metrics/range?run_id={RUN}&field=grad_nrom&max_points=10"),
        format!("{compare}&field=grad_nrom"),
    ] {
        let answer = daemon.get(&path);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 404, "{path}: {detail}");
        let listed = ["`grad_nrom`", "train_loss", "学習率", "extra.epoch", "a,b"];
        assert!(listed.iter().all(|name| detail.contains(name)), "{detail}");
    }
    let text = daemon.get(&format!("{compare}&field=phase"));
    assert!(text.status == 400 && text.body.contains("`phase` is text"), "{}", text.body);
    let refused = daemon.command(&["compare", RUN, "--field", "grad_nrom"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && error.contains("学習率"), "{error}");
}

#[test]
fn four_thousand_names_are_columns_in_little_memory() {
    if python().is_none() {
        return skip("four_thousand_names_are_columns_in_little_memory", "CASCOR_TEST_PYTHON is not set");
    }
    both("four_thousand_names_are_columns_in_little_memory", |builder, redis| {
        let mut daemon = ready(builder);
        let start = jiff::Timestamp::now().as_second() - 3_600;
        let mut client = redis.client();
        // In each row a half of the names, and at last ten too many.
        let mut add = |row: i64, names: std::ops::Range<i64>| {
            let mut message = json!({"run_id": RUN, "timestamp": start + row, "loss": 0.5});
            names.for_each(|n| message[format!("layer.{n:04}.grad_norm")] = json!(n as f64 + row as f64 / 1_024.0));
            client.publish(TRAINING, message.to_string());
        };
        for row in 0..60 {
            add(row, if row % 2 == 0 { 0..2_048 } else { 2_048..4_096 });
        }
        wait_rows(&daemon, RUN, 60, 4_096);
        add(60, 4_090..4_106);
        wait_rows(&daemon, RUN, 61, 4_096);
        let before = daemon.process().resident_peak_kib();
        let began = tokio::time::Instant::now();
        let whole = export(&daemon, &format!("run_id={RUN}"));
        let took = began.elapsed();
        let grown = (daemon.process().resident_peak_kib() - before) >> 10;
        println!("61 rows of 4,096 metrics: {took:?}, {} KiB, {grown} MiB more", whole.body.len() >> 10);
        assert!(grown < 64, "{grown} MiB");
        let (head, rows) = records(&whole.body);
        assert_eq!((head.len(), rows.len()), (13 + 4_096 + 2, 61));
        assert_eq!(rows[59]["layer.4095.grad_norm"], format!("{:?}", 4_095.0 + 59.0 / 1_024.0));
        let extra: Map<String, Value> = serde_json::from_str(rows[60]["extra"].as_str().unwrap()).unwrap();
        assert_eq!((extra.len(), rows[60]["layer.4090.grad_norm"].as_str().unwrap().is_empty()), (10, false));
        // The columns of a continued file fit the head of a request.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.csv");
        let url = format!("http://127.0.0.1:{}", daemon.http_port());
        fs::write(file.with_file_name("run.csv.part"), &whole.body[..whole.body.len() / 2]).unwrap();
        daemon.succeed(&["export", RUN, "-o", file.to_str().unwrap(), "--resume", "--url", &url]);
        assert!(fs::read_to_string(&file).unwrap() == whole.body);
        let all = daemon.get(&format!("/api/runs/{RUN}/aggregates")).json();
        assert_eq!(
            (&all["fields_left_out"], all["fields"].as_object().map(Map::len)),
            (&json!(4_096 + 9 - 256), Some(256))
        );
        let one = daemon.get(&format!("/api/runs/{RUN}/aggregates?field=layer.4095.grad_norm")).json();
        assert_eq!(one["fields"]["layer.4095.grad_norm"]["count"], 31);
        let beyond = daemon.get(&format!("/api/runs/{RUN}/aggregates?field=layer.4105.grad_norm")).json();
        assert_eq!(
            beyond["fields"]["layer.4105.grad_norm"]["count"], 1,
            "a name beyond those that are listed: {beyond}"
        );
    });
}
