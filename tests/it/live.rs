//! Server-sent events, scopes of tokens, sessions, and the `cache` command.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    daemon::{Daemon, INSTANCE},
    http,
    redis::Redis,
    stream::{Event, Stream},
    wait_for, wait_until,
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const OTHER: &str = "00000000-0000-4000-8000-00000000000a";
const ADMIN: &str = "admin-token-0123456789";
const READER: &str = "reader-token-0123456789";
const LIMIT: Duration = Duration::from_secs(20);

fn metrics(run: &str, epoch: u32) -> String {
    json!({"run_id": run, "epoch": epoch, "loss": 0.5, "timestamp": now()}).to_string()
}

fn now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}

fn epochs(event: &Event) -> Vec<u64> {
    event.data["rows"].as_array().unwrap().iter().map(|row| row["epoch"].as_u64().unwrap()).collect()
}

#[test]
fn a_stream_has_rows_as_they_are_stored_and_resumes_where_it_ended() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut stream = Stream::open(daemon.http_port(), &format!("?run_id={RUN}"), "");
    assert_eq!(stream.next("hello").data["resumed"], false);
    let mut client = redis.client();
    client.publish(TRAINING, metrics(OTHER, 1));
    assert_eq!(stream.next("activity").data["runs"], json!([OTHER]));
    client.publish(TRAINING, metrics(RUN, 7));
    let told = stream.next("metrics").data["rows"][0].clone();
    let place = stream.next("seen").id.unwrap();
    let stored = wait_for("the row", LIMIT, || {
        let range = daemon.get(&format!("/api/metrics/range?run_id={RUN}")).json();
        range["metrics"].get(0).cloned()
    });
    assert_eq!(told, stored);
    assert_eq!(stream.next("status").data["instance"], INSTANCE);
    drop(stream);
    client.publish(TRAINING, metrics(RUN, 8));
    thread::sleep(Duration::from_millis(100));
    let mut again = Stream::open(daemon.http_port(), "", &format!("Last-Event-ID: {place}\r\n"));
    assert_eq!(again.next("hello").data["resumed"], true);
    assert_eq!(epochs(&again.next("metrics")), [8]);
    daemon.post("/api/control", &json!({"command": "flush", "id": "f1"}));
    let receipt = again.next("receipt").data;
    assert_eq!((&receipt["id"], &receipt["outcome"]), (&json!("f1"), &json!("done")));
}

#[test]
fn a_message_is_in_the_stream_within_two_hundred_milliseconds() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut stream = Stream::open(daemon.http_port(), "", "");
    let mut client = redis.client();
    let publisher = thread::spawn(move || {
        for epoch in 0..1_500 {
            client.publish(TRAINING, metrics(RUN, epoch));
            thread::sleep(Duration::from_millis(2));
        }
    });
    let (mut late, mut seen) = (Vec::new(), 0);
    while seen < 1_500 {
        let event = stream.next("metrics");
        let at = now();
        assert_eq!(event.data["skipped"], 0);
        for row in event.data["rows"].as_array().unwrap() {
            let sent: jiff::Timestamp = row["timestamp"].as_str().unwrap().parse().unwrap();
            late.push(at - sent.as_microsecond() as f64 / 1e6);
            seen += 1;
        }
    }
    publisher.join().unwrap();
    late.sort_by(f64::total_cmp);
    let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
    println!("publish to stream: p50 {:.0} ms, p99 {:.0} ms", p50 * 1e3, p99 * 1e3);
    assert!(p99 < 0.2, "p99 {p99} s");
}

#[test]
fn a_stalled_client_learns_what_it_missed_and_delays_no_other() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.stream_buffer", "\"64KiB\"").set("http.streams", "1").start_ready();
    let mut stream = Stream::open(daemon.http_port(), "", "");
    stream.next("hello");
    assert_eq!(daemon.get("/api/stream").status, 429);
    let mut client = redis.client();
    let padding = "x".repeat(4_000);
    for epoch in 0..3_000 {
        if epoch % 10 == 0 {
            // Slow enough that the daemon's own buffers hold every message.
            thread::sleep(Duration::from_millis(10));
        }
        let message = json!({"run_id": RUN, "epoch": epoch, "loss": 0.5, "note": padding, "timestamp": now()});
        client.publish(TRAINING, message.to_string());
    }
    wait_until("every message", LIMIT, || daemon.metric("cascor_intake_events_total") == Some(3_000.0));
    let mut told = 0;
    while told < 3_000 {
        let event = stream.event();
        match event.name.as_str() {
            "metrics" => told += epochs(&event).len() as u64 + event.data["skipped"].as_u64().unwrap(),
            "skipped" => told += event.data["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(told, 3_000, "every event is sent or counted as skipped");
}

fn with_tokens(redis: &Redis, host: &'static str) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, format!("# ours\nann admin {ADMIN}\nbob read {READER}\n")).unwrap();
    let file = format!("{:?}", path.display().to_string());
    let daemon = Daemon::on(redis).listen_on(host).set("http.tokens_file", file).start_ready();
    (dir, daemon)
}

fn status(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    http::send(daemon.http_port(), method, path, headers, "{\"command\": \"status\"}").unwrap().status
}

#[test]
fn a_token_opens_what_its_scope_allows() {
    let redis = Redis::start();
    let (dir, mut daemon) = with_tokens(&redis, "0.0.0.0");
    let (ann, bob) = (format!("Bearer {ADMIN}"), format!("Bearer {READER}"));
    let with = |value: &str| vec![("Authorization".to_owned(), value.to_owned())];
    for (method, path, token, expected) in [
        ("GET", "/healthz", "", 200),
        ("GET", "/", "", 200),
        ("GET", "/api/runs", "", 401),
        ("GET", "/api/stream", "", 401),
        ("GET", "/api/runs", "Bearer nonsense", 401),
        ("GET", "/api/runs", READER, 401),
        ("GET", "/api/runs", &bob, 200),
        ("POST", "/api/control", &bob, 403),
        ("POST", "/api/control", &ann, 200),
    ] {
        let headers = if token.is_empty() { Vec::new() } else { with(token) };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(status(&daemon, method, path, &headers), expected, "{method} {path} {token}");
    }
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let secret = dir.path().join("secret");
    fs::write(&secret, format!("{READER}\n")).unwrap();
    let wrong = daemon.prepared(&["runs", "--url", &url]).env("CASCOR_INGEST_TOKEN", "nonsense").output().unwrap();
    assert!(!wrong.status.success());
    daemon.succeed(&["runs", "--url", &url, "--token-file", &secret.display().to_string()]);
    fs::write(dir.path().join("tokens"), format!("ann admin {ADMIN}\n")).unwrap();
    daemon.process().signal(Signal::HUP);
    wait_until("the token is gone", LIMIT, || status(&daemon, "GET", "/api/runs", &[("Authorization", &bob)]) == 401);
    assert_eq!(status(&daemon, "GET", "/api/runs", &[("Authorization", &ann)]), 200);
    fs::write(dir.path().join("tokens"), "broken").unwrap();
    daemon.process().signal(Signal::HUP);
    daemon.wait_log("line 1");
    assert_eq!(status(&daemon, "GET", "/api/runs", &[("Authorization", &ann)]), 200);
    assert!(!daemon.log().contains(ADMIN));
}

#[test]
fn a_session_is_kept_in_redis_and_may_write_only_from_the_dashboard() {
    let mut redis = Redis::start();
    let (_dir, daemon) = with_tokens(&redis, "127.0.0.1");
    let port = daemon.http_port();
    assert_eq!(status(&daemon, "POST", "/api/control", &[]), 401, "with tokens, commands need one on loopback, too");
    let wrong = http::post(port, "/api/session", &json!({"token": "wrong-token-0123456789"}).to_string()).unwrap();
    assert_eq!(wrong.status, 401);
    let signed = http::post(port, "/api/session", &json!({"token": ADMIN}).to_string()).unwrap();
    assert_eq!(signed.status, 201, "{}", signed.body);
    let (csrf, set) =
        (signed.json()["csrf"].as_str().unwrap().to_owned(), signed.header("set-cookie").unwrap().to_owned());
    for part in ["HttpOnly", "SameSite=Strict", "Max-Age=604800", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    let id = cookie.split(['=', '.']).nth(1).unwrap().to_owned();
    let key = format!("cascor:session:{id}");
    let kept = redis.client().command(&["GET", &key]).text().unwrap();
    assert!(!kept.contains(ADMIN) && !kept.contains(cookie.split('.').nth(1).unwrap()), "{kept}");
    let origin = format!("http://localhost:{port}");
    let host = format!("localhost:{port}");
    let as_ann = |more: &[(&'static str, &str)]| {
        let mut headers = vec![("Cookie", cookie.as_str()), ("Host", host.as_str())];
        headers.extend(more.iter().map(|(name, value)| (*name, *value)));
        status(&daemon, "POST", "/api/control", &headers)
    };
    assert_eq!(as_ann(&[]), 403, "no proof");
    assert_eq!(as_ann(&[("X-CSRF-Token", "wrong"), ("Origin", &origin)]), 403);
    assert_eq!(as_ann(&[("X-CSRF-Token", &csrf), ("Origin", "http://evil.example")]), 403);
    assert_eq!(as_ann(&[("X-CSRF-Token", &csrf), ("Origin", &origin)]), 200);
    redis.client().command(&["EXPIRE", &key, "100"]);
    thread::sleep(Duration::from_secs(6));
    let who = http::send(port, "GET", "/api/session", &[("Cookie", &cookie)], "").unwrap().json();
    assert_eq!((&who["name"], &who["scope"]), (&json!("ann"), &json!("admin")));
    let left: i64 = redis.client().command(&["TTL", &key]).integer().unwrap();
    assert!(left > 86_000, "used, it lasts on: {left}");
    redis.pause();
    assert_eq!(as_ann(&[("X-CSRF-Token", &csrf), ("Origin", &origin)]), 503);
    redis.resume();
    wait_until("Redis is back", LIMIT, || as_ann(&[("X-CSRF-Token", &csrf), ("Origin", &origin)]) == 200);
    let out = [("Cookie", cookie.as_str()), ("Host", &host), ("X-CSRF-Token", &csrf), ("Origin", &origin)];
    assert_eq!(status(&daemon, "DELETE", "/api/session", &out), 204);
    assert_eq!(as_ann(&[("X-CSRF-Token", &csrf), ("Origin", &origin)]), 401);
    redis.client().command(&["SET", &key, &kept]);
    assert_eq!(as_ann(&[("X-CSRF-Token", &csrf), ("Origin", &origin)]), 401, "written back, it stays signed out");
    wait_until("the counter", LIMIT, || daemon.metric("cascor_api_sessions_total{event=\"signed_out\"}") == Some(1.0));
    let log = daemon.log();
    assert!(log.contains("signed in") && log.contains("signed out") && log.contains("token=\"ann\""), "{log}");
    assert!(!log.contains(ADMIN));
}

#[test]
fn the_cache_is_read_and_cleared_and_nothing_else_is() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("latest.metrics_ttl", "\"60s\"").start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(RUN, 7));
    wait_until("the key", LIMIT, || client.command(&["EXISTS", "cascor:metrics:latest"]).integer() == Some(1));
    for key in ["other:metrics:latest", "cascor:session:abc", "cascorx:y"] {
        client.command(&["SET", key, "kept"]);
    }
    let shown: Value = serde_json::from_str(&daemon.succeed(&["cache", "get", "metrics:latest"])).unwrap();
    assert_eq!(shown["epoch"], 7);
    let hit = daemon.get("/api/metrics");
    assert_eq!(hit.header("x-cache-status"), Some("HIT"));
    assert!(daemon.metric("cascor_api_latest_hits_total").unwrap() >= 1.0);
    let deleted: Value =
        serde_json::from_str(&daemon.succeed(&["cache", "invalidate", "metrics:*", "--json"])).unwrap();
    assert_eq!(deleted["deleted"], 2, "of all runs, and of one");
    assert!(!daemon.command(&["cache", "get", "metrics:latest"]).status.success());
    daemon.succeed(&["cache", "clear"]);
    assert!(!daemon.command(&["cache", "get", "session:abc"]).status.success());
    for key in ["other:metrics:latest", "cascor:session:abc", "cascorx:y", "cascor:ingest:run:cascor:training"] {
        let there = client.command(&["EXISTS", key]).integer();
        assert!(there == Some(1) || key.contains("ingest"), "{key}");
    }
}
