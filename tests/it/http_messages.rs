//! `POST /api/messages`: what it takes, what it refuses, and that what it has acknowledged is never lost and never there twice.

use std::{
    collections::BTreeSet,
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    api::both,
    serve::serve,
    support::{daemon::Daemon, http, redis::Redis, sqlite, wait_until},
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
const ROWS: &str = "SELECT count(*) FROM training_metrics";

fn send(daemon: &Daemon, body: impl AsRef<[u8]>) -> http::Response {
    http::send(daemon.http_port(), "POST", "/api/messages", &[], body).unwrap()
}

/// Sends messages that are all accepted.
#[track_caller]
fn taken(daemon: &Daemon, body: impl AsRef<[u8]>, accepted: u64) {
    let answer = send(daemon, body);
    assert_eq!((answer.status, answer.json()), (200, json!({"accepted": accepted, "rejected": []})));
}

/// A message with a time of its own.
fn metrics(n: u64) -> String {
    let at = (jiff::Timestamp::now().as_second() / 86_400 * 86_400 - 86_400) * 1_000;
    format!("{{\"run_id\":\"{RUN}\",\"timestamp\":{},\"epoch\":{n},\"loss\":0.5}}", at + n.cast_signed())
}

fn lines(numbers: impl Iterator<Item = u64>) -> String {
    numbers.map(|n| metrics(n) + "\n").collect()
}

/// A map of one epoch in MessagePack.
fn packed(n: u8) -> Vec<u8> {
    let at = jiff::Timestamp::now().as_second() as u32 / 86_400 * 86_400 - 43_200 + u32::from(n);
    let mut map = b"\x84\xa6run_id\xd9\x24".to_vec();
    map.extend_from_slice(RUN.as_bytes());
    map.extend_from_slice(b"\xa9timestamp\xce");
    map.extend_from_slice(&at.to_be_bytes());
    map.extend_from_slice(b"\xa5epoch\xcc");
    map.push(n);
    map.extend_from_slice(b"\xa4loss\xcb\x7f\xf8\0\0\0\0\0\0");
    map
}

fn rows(daemon: &Daemon) -> Value {
    daemon.get(&format!("/api/runs/{RUN}?limit=0")).json()["metric_count"].clone()
}

#[test]
fn every_form_of_a_body_is_stored_as_if_published() {
    both("every_form_of_a_body_is_stored_as_if_published", |builder, redis| {
        let mut daemon = builder.prepare();
        if daemon.uses_cassandra() {
            daemon.apply_schema();
        }
        daemon.launch();
        daemon.wait_ready();
        let bodies = [
            (metrics(0).into_bytes(), 1),
            (format!("\u{feff}{}\r\n\r\n{}", metrics(1), metrics(2)).into_bytes(), 2),
            (format!("[{},\n {}, {}]", metrics(3), metrics(4), metrics(5)).into_bytes(), 3),
            (packed(10), 1),
            ([packed(11), packed(12)].concat(), 2),
            ([b"\x92".to_vec(), packed(13), packed(14)].concat(), 2),
            (b"[]".to_vec(), 0),
        ];
        for (body, messages) in &bodies {
            taken(&daemon, body, *messages);
        }
        wait_until("every row", LIMIT, || rows(&daemon) == 11);
        // The same bytes again, by HTTP in another form and by Redis, are the same rows.
        for (body, messages) in &bodies {
            taken(&daemon, body, *messages);
        }
        let each: Vec<Vec<u8>> = (0..6).map(|n| metrics(n).into_bytes()).chain((10..15).map(packed)).collect();
        for message in &each {
            taken(&daemon, message, 1);
            redis.client().command_bytes(&[b"PUBLISH", TRAINING.as_bytes(), message]).unwrap();
        }
        taken(&daemon, metrics(6), 1);
        wait_until("the last row", LIMIT, || rows(&daemon) == 12);
        let page = daemon.get(&format!("/api/metrics/range?run_id={RUN}&order=asc")).json();
        let epochs: Vec<_> = page["metrics"].as_array().unwrap().iter().map(|row| row["epoch"].clone()).collect();
        assert_eq!(json!(epochs), json!([0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14]));
        assert_eq!(page["metrics"][11]["non_finite"], json!(["train_loss"]), "NaN stays");
        // Without an id a message belongs to the open run of the channel, whoever opened it.
        taken(&daemon, json!({"type": "training_start"}).to_string(), 1);
        redis.client().publish(TRAINING, json!({"epoch": 0, "loss": 1}).to_string());
        taken(&daemon, "{\"epoch\":1,\"loss\":1}\n{\"epoch\":1,\"loss\":1}\n", 2);
        wait_until("a run of three rows", LIMIT, || {
            let runs = daemon.get("/api/runs").json();
            let open = runs["runs"].as_array().unwrap().iter().find(|run| run["run_id"] != RUN).cloned();
            open.is_some_and(|run| {
                let path = format!("/api/runs/{}?limit=0", run["run_id"].as_str().unwrap());
                daemon.get(&path).json()["metric_count"] == 3
            })
        });
    });
}

#[test]
fn a_bad_message_is_a_dead_letter_and_its_neighbours_are_rows() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("limits.message", "\"4KiB\"").start_ready();
    let deep = format!("{{\"epoch\":1,\"a\":{}{}}}", "[".repeat(80), "]".repeat(80));
    let large = format!("{{\"epoch\":1,\"loss\":1,\"text\":\"{}\"}}", "x".repeat(5_000));
    let wrong: [(&[u8], &str); 7] = [
        (b"{\"epoch\": 1, \"loss\": }", "malformed_json"),
        (b"{\"epoch\": 1, \"text\": \"\xc3\"}", "malformed_json"),
        (deep.as_bytes(), "too_deep"),
        (large.as_bytes(), "too_large"),
        (b"[1]", "not_an_object"),
        (b"{\"a\": \"b\"}", "unknown_shape"),
        (b"{\"run_id\": [7], \"epoch\": 1, \"loss\": 1}", "invalid_field"),
    ];
    let mut body = metrics(0).into_bytes();
    for (n, (message, _)) in (1..).zip(wrong) {
        body = [&body, &b"\n"[..], message, b"\n", metrics(n).as_bytes()].concat();
    }
    let answer = send(&daemon, body);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(8)), "{}", answer.body);
    let rejected: Vec<_> = answer.json()["rejected"].as_array().unwrap().clone();
    let said: Vec<_> =
        rejected.iter().map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    let expected: Vec<_> = (0..).zip(wrong).map(|(n, (_, reason))| (2 * n + 1, reason)).collect();
    assert_eq!(said, expected);
    assert!(rejected[6]["detail"].as_str().unwrap().contains("run_id"), "{}", answer.body);
    daemon.wait_rows(ROWS, 8);
    let letters = || daemon.succeed(&["deadletter", "list", "--json"]);
    wait_until("the dead letters", LIMIT, || {
        let letters = letters();
        wrong.iter().all(|(_, reason)| letters.contains(reason))
    });
    assert!(letters().contains(TRAINING), "on the channel of the message: {}", letters());
}

#[test]
fn what_is_too_much_or_broken_off_is_not_taken_at_all() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.max_messages_body", "\"2MiB\"").start_ready();
    let tiny = "{\"epoch\":1}\n".repeat(100_000);
    let large = format!("{}\n{{\"type\":\"note\",\"text\":\"{}\"}}", metrics(0), "x".repeat(2 << 20));
    for (body, key) in [(tiny, "http.max_messages`"), (large, "http.max_messages_body")] {
        let answer = send(&daemon, &body);
        assert!(answer.status == 413 && answer.body.contains(key), "{} {}", answer.status, answer.body);
        // The same without a declared length.
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let port = daemon.http_port();
        let headers = [("Transfer-Encoding", "chunked"), ("Content-Length", "")];
        // The server may close before all is sent.
        if let Ok(answer) = http::send(port, "POST", "/api/messages", &headers[..1], &chunked) {
            assert!(matches!(answer.status, 400 | 413), "{} {}", answer.status, answer.body);
        }
    }
    let packed = http::send(daemon.http_port(), "POST", "/api/messages", &[("Content-Encoding", "gzip")], "x").unwrap();
    assert_eq!(packed.status, 415, "{}", packed.body);
    assert_eq!((send(&daemon, "").status, send(&daemon, " \n").status), (400, 400));
    let unknown = http::send(daemon.http_port(), "POST", "/api/messages?chanel=x", &[], metrics(0)).unwrap();
    assert!(unknown.status == 400 && unknown.body.contains("chanel"), "{}", unknown.body);
    // A client that goes away in the middle, with a declared length and in chunks.
    for head in ["Content-Length: 9999\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n4000\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.http_port())).unwrap();
        let start = format!("POST /api/messages HTTP/1.1\r\nHost: localhost\r\n{head}{}", lines(0..9));
        stream.write_all(start.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    taken(&daemon, metrics(50), 1);
    daemon.wait_rows(ROWS, 1);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(sqlite::count(&daemon.database(), ROWS), 1, "only the last");
    assert_eq!(daemon.metric("cascor_intake_events_total"), Some(1.0));
}

#[test]
fn an_acknowledged_message_survives_kill9_and_is_there_once() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4_u64 {
        // Held, the rows are in the spool alone.
        if round % 2 == 1 {
            assert_eq!(daemon.post("/api/control", &json!({"command": "pause"})).json()["outcome"], "done");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, port) = (Arc::clone(&stop), daemon.http_port());
        let sender = thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let from = round * 100_000 + n * 40;
                let answer = http::send(port, "POST", "/api/messages", &[], lines(from..from + 40));
                match answer {
                    Ok(answer) if answer.status == 200 => acknowledged.extend(from..from + 40),
                    _ => break,
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
            acknowledged
        });
        thread::sleep(Duration::from_millis(200 + 70 * round));
        if round == 3 {
            // Right behind the last answer.
            stop.store(true, Ordering::Relaxed);
            acknowledged.extend(sender.join().unwrap());
            daemon.kill9();
        } else {
            daemon.kill9();
            acknowledged.extend(sender.join().unwrap());
        }
        daemon.launch();
        daemon.wait_ready();
        assert_eq!(daemon.post("/api/control", &json!({"command": "resume"})).json()["outcome"], "done");
    }
    assert!(acknowledged.len() > 400, "{} messages", acknowledged.len());
    // What was not acknowledged is sent again, and so is what was.
    for from in acknowledged.iter().step_by(40) {
        taken(&daemon, lines(*from..*from + 40), 40);
    }
    let (file, expected) = (daemon.database(), acknowledged.len() as i64);
    let epochs = || -> BTreeSet<u64> {
        let rows = sqlite::rows(&file, "SELECT epoch FROM training_metrics");
        rows.iter().map(|row| row["epoch"].as_u64().unwrap()).collect()
    };
    wait_until("every acknowledged row", LIMIT, || epochs().is_superset(&acknowledged));
    wait_until("each of them once", LIMIT, || {
        sqlite::count(&file, ROWS) == epochs().len() as i64 && sqlite::count(&file, ROWS) >= expected
    });
    let gaps = "SELECT count(*) FROM ingest_gaps WHERE reason = 'spool_full'";
    assert_eq!(sqlite::count(&file, gaps), 0);
}

#[test]
fn without_room_the_answer_says_how_many_are_taken_and_the_rest_can_be_sent_again() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("spool.segment", "\"16KiB\"")
        .set("spool.capacity", "\"64KiB\"")
        .set("spool.memory", "\"32KiB\"")
        .start_ready();
    taken(&daemon, metrics(0), 1);
    daemon.wait_rows(ROWS, 1);
    let blocker = rusqlite::Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut sent, total) = (1, 1_500);
    let refused = loop {
        let answer = send(&daemon, lines(sent..sent + 300));
        match answer.status {
            200 => sent += 300,
            _ => break answer,
        }
        assert!(sent < total, "the spool is never full");
    };
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{}", refused.head);
    let said = refused.json();
    let count = said["taken"].as_u64().unwrap();
    assert!(count < 300 && said["accepted"] == count && said["rejected"] == json!([]), "{said}");
    // Refused at once from now on, without a gap.
    let again = send(&daemon, lines(sent + count..sent + 300));
    assert_eq!((again.status, &again.json()["taken"]), (503, &json!(0)), "{}", again.body);
    sent += count;
    blocker.execute_batch("ROLLBACK").unwrap();
    wait_until("the rest to be taken", LIMIT, || {
        while sent < total {
            let answer = send(&daemon, lines(sent..(sent + 300).min(total)));
            sent += answer.json()["taken"].as_u64().unwrap_or(0);
            match answer.status {
                200 => sent = (sent + 300).min(total),
                _ => return false,
            }
        }
        true
    });
    daemon.wait_rows(ROWS, total.cast_signed());
    assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps"), 0, "nothing is lost");
}

#[test]
fn a_process_without_a_pipeline_names_a_daemon() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let (_served, port) = serve(&daemon);
    let answer = http::send(port, "POST", "/api/messages", &[], metrics(0)).unwrap();
    assert!(answer.status == 503 && answer.body.contains("cascor-ingest run"), "{} {}", answer.status, answer.body);
}
