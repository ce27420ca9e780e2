//! Hostile HTTP clients beside a training run: nothing is lost, nothing is late, and whoever operates the daemon gets an answer.

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

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
/// Events a second, in groups.
const RATE: u64 = 500;
const GROUP: u64 = 5;
const SLOW: usize = 500;
/// How long is looked at what there is without and with the attack.
const SPAN: Duration = Duration::from_secs(4);
/// Beyond twice the time without: other tests run beside this one.
const FLOOR: f64 = 0.02;
/// An operator waits no longer.
const ANSWER: Duration = Duration::from_secs(2);
const MOST_KIB: u64 = 128 << 10;
/// Connections, segments, the store: with 256 connections the daemon has no more files open than this.
const MOST_FILES: usize = 400;

/// Publishes until told to stop; how many that were.
fn train(redis: &Redis, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let mut client = redis.client();
    thread::spawn(move || {
        let (began, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let group: Vec<_> = (sent..sent + GROUP)
                .map(|n| json!({"run_id": RUN, "seq": n, "epoch": n, "loss": 0.5, "timestamp": micros()}).to_string())
                .collect();
            assert_eq!(client.publish_all(TRAINING, &group).unwrap(), GROUP.cast_signed(), "the daemon listens");
            sent += GROUP;
            thread::sleep(Duration::from_secs_f64(sent as f64 / RATE as f64).saturating_sub(began.elapsed()));
        }
        sent
    })
}

fn micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Seconds from receipt to disk, p99 over a span, in which the operator asks again and again; and the slowest answer.
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
    (histogram::quantile(&before, &after, "cascor_intake_durable_seconds", 0.99), slowest)
}

#[test]
fn slow_clients_and_endless_bodies_do_not_touch_ingestion() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let trainer = train(&redis, Arc::clone(&stop));
    thread::sleep(Duration::from_secs(1));
    let mut within = false;
    // Other tests may disturb a span; three in a row they do not.
    for _ in 0..3 {
        let (quiet, _) = observed(&daemon);
        let attack = attack::Attack::start(daemon.http_port(), SLOW);
        let (attacked, slowest) = observed(&daemon);
        // Only root may look at the files of a process that no debugger of its user may look into.
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
    assert!(within, "durable late under attack: see above");
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
    // Bodies that do not end keep their requests unanswered until the time is up.
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
    // What is too large by its own word is refused before it is sent.
    let huge = http::send(port, "POST", "/api/runs", &[("Content-Length", "1073741824")], "").unwrap();
    assert!(huge.status == 413 && huge.json()["detail"].as_str().unwrap().contains("http.body"), "{}", huge.body);
}
