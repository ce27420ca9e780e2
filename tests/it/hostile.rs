//! Hostile HTTP clients beside a training run: no message is lost or late, and the operator gets answers.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::support::{daemon::Daemon, http, redis::Redis, wait_until};

#[path = "../bench/attack.rs"]
mod attack;
#[path = "../bench/histogram.rs"]
mod histogram;

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
const SLOW: usize = 500;
/// Length of a measurement, without and with the attack.
const SPAN: Duration = Duration::from_secs(4);
/// Slack beyond twice the time without attack: other tests run beside this one.
const FLOOR: f64 = 0.02;
/// Longest answer time for the operator.
const ANSWER: Duration = Duration::from_secs(2);
const MOST_KIB: u64 = 128 << 10;
/// Open files of the daemon at most: 256 connections, segments, the store.
const MOST_FILES: usize = 400;

fn micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// p99 of seconds from receipt until written over a span, and the operator's slowest answer meanwhile.
fn observed(daemon: &Daemon) -> (f64, Duration) {
    let before = histogram::samples(&daemon.get("/metrics").body);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < SPAN {
        let asked = Instant::now();
        assert_eq!(daemon.get("/healthz").status, 200);
        slowest = slowest.max(asked.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    let after = histogram::samples(&daemon.get("/metrics").body);
    (histogram::quantile(&before, &after, "cascor_intake_written_seconds", 0.99), slowest)
}

#[test]
fn slow_clients_and_endless_bodies_do_not_delay_ingestion() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let trainer = redis
        .train(&stop, |n| json!({"run_id": RUN, "seq": n, "epoch": n, "loss": 0.5, "timestamp": micros()}).to_string());
    thread::sleep(Duration::from_secs(1));
    let mut within = false;
    // Other tests may disturb a span; a failure is three disturbed spans in a row.
    for _ in 0..3 {
        let (quiet, _) = observed(&daemon);
        let attack = attack::Attack::start(daemon.http_port(), SLOW);
        let (attacked, slowest) = observed(&daemon);
        // The process is not dumpable, so only root may read its /proc/PID/fd.
        let files = fs::read_dir(format!("/proc/{}/fd", daemon.process().id())).map_or(0, Iterator::count);
        let tally = attack.end();
        println!("p99 {quiet:.4} s, attacked {attacked:.4} s; /healthz at most {slowest:?}; {files} files; {tally:?}");
        assert!(slowest < ANSWER, "{slowest:?}");
        assert!(files < MOST_FILES, "{files} files open");
        assert!(tally.opened >= SLOW as u64 && tally.closed > 0 && tally.bodies >= 4, "no attack: {tally:?}");
        assert!(tally.longest < 32 << 20, "a body is cut off early: {tally:?}");
        within = attacked <= 2.0 * quiet + FLOOR;
        if within {
            break;
        }
    }
    assert!(within, "written late under attack: see above");
    stop.store(true, Ordering::Relaxed);
    let sent = trainer.join().unwrap();
    daemon.wait_rows("SELECT count(DISTINCT seq) FROM training_metrics", sent.cast_signed());
    let peak = daemon.process().resident_peak_kib();
    println!("{sent} events; {} MiB at most", peak >> 10);
    assert!(peak < MOST_KIB, "{} MiB", peak >> 10);
}

#[test]
fn probes_are_answered_while_every_connection_is_taken_by_a_request() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.connections", "4").set("http.request_timeout", "\"3s\"").start_ready();
    let port = daemon.http_port();
    // Endless bodies keep their requests unanswered until `http.request_timeout`.
    let mut slow: Vec<_> = (0..4)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(b"POST /api/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{").unwrap();
            client
        })
        .collect();
    wait_until("all of them to be taken", LIMIT, || http::get(port, "/api/runs").unwrap().status == 503);
    let full = http::get(port, "/api/runs").unwrap();
    assert!(full.json()["detail"].as_str().unwrap().contains("http.connections"), "{}", full.body);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(http::get(port, path).unwrap().status, 200, "{path}");
    }
    for client in &mut slow {
        let mut answer = String::new();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let _ = client.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("request_timeout"), "{answer}");
    }
    wait_until("room for all", LIMIT, || http::get(port, "/api/runs").unwrap().status == 200);
    // A body whose Content-Length is too large is refused before it is sent.
    let huge = http::send(port, "POST", "/api/runs", &[("Content-Length", "1073741824")], "").unwrap();
    assert!(huge.status == 413 && huge.json()["detail"].as_str().unwrap().contains("http.max_body"), "{}", huge.body);
}

/// A command in two pieces, the second a while after the first; the status of the answer.
fn in_pieces(port: u16, path: &str, headers: &str, body: [&str; 2], pause: Duration) -> u16 {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body[0].len() + body[1].len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
    client.write_all(format!("{head}Content-Length: {length}\r\n\r\n{}", body[0]).as_bytes()).unwrap();
    thread::sleep(pause);
    // A refused connection may be closed already.
    let _ = client.write_all(body[1].as_bytes());
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn a_body_without_a_token_has_lower_limits_of_size_and_time() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let (tokens, secret) = (dir.path().join("tokens"), "admin-token-0123456789");
    fs::write(&tokens, format!("ann admin {secret}\n")).unwrap();
    let limits = |builder: crate::support::daemon::Builder| {
        builder.set("http.anonymous_body", "\"2KiB\"").set("http.anonymous_body_timeout", "\"500ms\"")
    };
    let open = limits(Daemon::on(&redis)).start_ready();
    let closed = limits(Daemon::on(&redis))
        .set("instance", "\"closed\"")
        .set("http.tokens_file", format!("{:?}", tokens.display().to_string()))
        .start_ready();
    let bearer = format!("Bearer {secret}");
    let command = |bytes: usize| json!({"command": "status", "params": {"notes": "x".repeat(bytes)}}).to_string();
    let sign_in = |bytes: usize| json!({"token": format!("{secret}{}", " ".repeat(bytes))}).to_string();
    let post = |daemon: &Daemon, path: &str, headers: &[(&str, &str)], body: &str| {
        http::send(daemon.http_port(), "POST", path, headers, body).unwrap()
    };
    assert_eq!(post(&open, "/api/control", &[], &command(1_000)).status, 200);
    let large = post(&open, "/api/control", &[], &command(3_000));
    assert!(large.status == 413 && large.body.contains("http.anonymous_body"), "{}", large.body);
    let text = command(3_000);
    let head =
        "POST /api/control HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = TcpStream::connect(("127.0.0.1", open.http_port())).unwrap();
    client.write_all(format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(post(&closed, "/api/session", &[], &sign_in(1_000)).status, 201);
    assert_eq!(post(&closed, "/api/session", &[], &sign_in(3_000)).status, 413);
    // With a token `http.max_body` and `http.request_timeout` hold.
    assert_eq!(post(&closed, "/api/control", &[("Authorization", &bearer)], &command(50_000)).status, 200);
    let text = command(100);
    let body = [&text[..20], &text[20..]];
    let (soon, late) = (Duration::from_millis(50), Duration::from_millis(1_500));
    let token = format!("Authorization: {bearer}\r\n");
    for (daemon, path, headers, pause, status) in [
        (&open, "/api/control", "", soon, 200),
        (&open, "/api/control", "", late, 408),
        (&closed, "/api/session", "", late, 408),
        (&closed, "/api/control", "", late, 401),
        (&closed, "/api/control", token.as_str(), late, 200),
    ] {
        assert_eq!(in_pieces(daemon.http_port(), path, headers, body, pause), status, "{path} {headers} {pause:?}");
    }
}
