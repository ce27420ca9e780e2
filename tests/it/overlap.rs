//! Two daemons side by side: hand-overs without a gap, two writers of one file, and two daemons of one name.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    daemon::{Builder, Daemon},
    redis::Redis,
    resp::Resp,
    sqlite, wait_until,
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(60);
const RATE: u64 = 500;

/// Number of hand-overs: 10, or `CASCOR_TEST_HAND_OVERS`.
fn hand_overs() -> usize {
    std::env::var("CASCOR_TEST_HAND_OVERS").map_or(10, |number| number.parse().unwrap())
}

fn message(seq: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": now as u64,
           "data": {"epoch": seq, "train_loss": 0.25, "phase": "output"}})
    .to_string()
}

/// Publishes at a steady rate until stopped; returns the number of messages.
fn produce(port: u16, stop: Arc<AtomicBool>) -> u64 {
    let mut client = Resp::connect(port).unwrap();
    let (start, mut seq) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * RATE as f64) as u64;
        let messages: Vec<_> = (seq..due).map(message).collect();
        client.publish_all(TRAINING, &messages).unwrap();
        seq = due;
        thread::sleep(Duration::from_millis(2));
    }
    seq
}

fn instance(redis: &Redis, name: &str, database: &Path) -> Builder {
    Daemon::on(redis).set("instance", format!("{name:?}")).set("store.sqlite.path", format!("{database:?}"))
}

fn shared() -> (TempDir, PathBuf) {
    let dir = TempDir::with_prefix("cascor-shared").unwrap();
    let database = dir.path().join("cascor.db");
    (dir, database)
}

/// Lines of the log with level WARN or ERROR.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    daemon.log().lines().filter(bad).map(str::to_owned).collect()
}

fn gaps(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&daemon.succeed(&[&["gaps", "--json", "--limit", "1000"], arguments].concat())).unwrap()
}

#[test]
fn hand_overs_miss_nothing() {
    let hand_overs = hand_overs();
    let redis = Redis::start();
    let (_dir, database) = shared();
    let mut pair = [instance(&redis, "a", &database).start_ready(), instance(&redis, "b", &database).prepare()];
    let stop = Arc::new(AtomicBool::new(false));
    let producer = thread::spawn({
        let (port, stop) = (redis.port, Arc::clone(&stop));
        move || produce(port, stop)
    });
    let mut client = redis.client();
    let mut overlapped = Duration::ZERO;
    let mut longest = 0;
    for n in 0..hand_overs {
        let [old, new] = [n % 2, (n + 1) % 2];
        thread::sleep(Duration::from_millis(300));
        pair[new].launch();
        pair[new].wait_ready();
        let both = Instant::now();
        // Each under its own name, while both write the same latest keys.
        for (name, daemon) in ["a", "b"].iter().zip(&pair) {
            let process = daemon.get("/api/status").json()["process"].clone();
            // Until it writes its own, the status of its predecessor may be there.
            wait_until("its status", LIMIT, || {
                let status = client.get_json(&format!("cascor:ingest:{name}"));
                status.is_some_and(|status| status["instance"] == *name && status["process"] == process)
            });
        }
        assert!(client.get_json("cascor:metrics:latest").is_some(), "the newest values are there all the time");
        // Nor does the history begin anew, neither while both write it nor after. (It lacks what came between the last write
        // of the old one and the subscription of the new one.)
        let history = client.get_json("cascor:history:latest").map_or(0, |history| history.as_array().unwrap().len());
        assert!(2 * history >= longest, "{history} objects after {longest}");
        longest = longest.max(history);
        let status = pair[old].terminate();
        overlapped += both.elapsed();
        assert!(status.success(), "ended with {status}:\n{}", pair[old].log());
        assert!(client.get_json("cascor:metrics:latest").is_some(), "nobody deletes the newest values");
    }
    stop.store(true, Ordering::Relaxed);
    let published = producer.join().unwrap() as i64;
    let last = hand_overs % 2;
    wait_until("every message is a row", LIMIT, || {
        sqlite::count(&database, "SELECT count(DISTINCT seq) FROM training_metrics") == published
    });
    assert!(pair[last].terminate().success());
    let count = |sql: &str| sqlite::count(&database, sql);
    assert_eq!(count("SELECT count(*) FROM training_metrics"), published, "each is one row");
    assert_eq!(count("SELECT count(*) FROM training_metrics WHERE epoch <> seq OR train_loss <> 0.25"), 0);
    assert_eq!(count("SELECT count(*) FROM training_runs"), 1);
    assert_eq!(count("SELECT final_epoch FROM training_runs"), published - 1);
    assert_eq!(count("SELECT max(seq) - min(seq) + 1 FROM training_metrics"), published);

    // Each daemon records its own gaps; no row is missing.
    let found = gaps(&pair[last], &["--run", RUN]);
    assert_eq!((&found["missing"]["lost"], &found["missing"]["exact"]), (&json!(0), &json!(true)), "{found}");
    assert_eq!(found["missing"]["stored"], published, "{found}");
    let shown = pair[last].succeed(&["gaps", "--run", RUN]);
    assert!(shown.contains(&format!("{published} stored, 0 missing")), "{shown}");
    let rows = found["gaps"].as_array().unwrap();
    // The first start of each has nothing to report.
    assert_eq!(rows.iter().filter(|gap| gap["reason"] == "not_listening").count(), hand_overs - 1, "{found}");
    for gap in rows {
        assert!(["a", "b"].contains(&gap["instance"].as_str().unwrap()), "{gap}");
        assert!(["not_listening", "sequence"].contains(&gap["reason"].as_str().unwrap()), "{gap}");
    }
    for daemon in &pair {
        assert_eq!(
            complaints(daemon),
            Vec::<String>::new(),
            "two that write the same file do not get in each other's way"
        );
    }
    println!(
        "{published} published, {hand_overs} hand-overs, ready to ended {:?} each",
        overlapped / hand_overs as u32
    );
}

/// A hundred messages at a time, so that both have concurrent transactions.
#[test]
fn two_daemons_on_one_file_store_a_message_with_a_timestamp_once() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let mut pair = ["a", "b"].map(|name| instance(&redis, name, &database).start_ready());
    let mut client = redis.client();
    let published = 5_000;
    for first in (0..published).step_by(100) {
        let messages: Vec<_> = (first..first + 100).map(message).collect();
        assert_eq!(client.publish_all(TRAINING, &messages).unwrap(), 200, "both receive");
        thread::sleep(Duration::from_millis(20));
    }
    // Without a timestamp each receipt is a row, unless both receive the message in the same microsecond.
    let timeless = 20;
    for epoch in 0..timeless {
        let message =
            json!({"type": "metrics", "run_id": RUN, "data": {"epoch": epoch, "train_loss": 9.0}}).to_string();
        assert_eq!(client.publish(TRAINING, &message), 2);
        thread::sleep(Duration::from_millis(5));
    }
    wait_until("all are stored by both", LIMIT, || {
        pair.iter().all(|daemon| daemon.get("/api/status").json()["counters"]["rows"] == published + timeless)
    });
    let receipts = sqlite::count(&database, "SELECT count(*) FROM training_metrics WHERE train_loss = 9.0");
    assert!((timeless as i64 + 1..=2 * timeless as i64).contains(&receipts), "{receipts} rows");
    assert_eq!(sqlite::count(&database, "SELECT count(*) FROM training_metrics"), published as i64 + receipts);
    assert_eq!(sqlite::count(&database, "SELECT count(*) FROM training_runs"), 1);
    for daemon in &mut pair {
        let page = daemon.get("/metrics").body;
        let mut errors = page.lines().filter(|line| line.starts_with("cascor_store_errors_total{"));
        assert!(errors.all(|line| line.ends_with(" 0")), "no write failed: {page}");
        assert!(daemon.terminate().success());
        assert_eq!(complaints(daemon), Vec::<String>::new());
    }
}

/// Without an id the daemons decide which run an event belongs to: the new daemon continues the run of the old one.
#[test]
fn runs_without_an_id_go_on_across_hand_overs() {
    let redis = Redis::start();
    let (_dir, database) = shared();
    let mut pair = [instance(&redis, "a", &database).start_ready(), instance(&redis, "b", &database).prepare()];
    let mut client = redis.client();
    let mut published = 0;
    let mut publish = |epochs: std::ops::Range<u64>| {
        for epoch in epochs {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
            let message = json!({"type": "metrics", "timestamp": now, "data": {"epoch": epoch, "train_loss": 0.5}});
            assert!(client.publish(TRAINING, message.to_string()) > 0);
            published += 1;
            thread::sleep(Duration::from_millis(2));
        }
    };
    for n in 0..6u64 {
        let [old, new] = [n as usize % 2, (n as usize + 1) % 2];
        // A new run begins while one of them does not listen, and once while both do.
        publish(0..50);
        pair[new].launch();
        pair[new].wait_ready();
        publish(50..70);
        if n == 3 {
            publish(0..20);
        }
        assert!(pair[old].terminate().success());
        publish(70..100);
    }
    let rows = || sqlite::count(&database, "SELECT count(*) FROM training_metrics");
    wait_until("every message is a row", LIMIT, || rows() >= published);
    assert!(pair[0].terminate().success());
    assert_eq!(rows(), published, "none is two");
    let runs = sqlite::rows(&database, "SELECT run_id, count(*) AS n FROM training_metrics GROUP BY run_id ORDER BY n");
    let sizes: Vec<_> = runs.iter().map(|run| run["n"].as_i64().unwrap()).collect();
    assert_eq!(sizes, [50, 70, 100, 100, 100, 100, 100], "{runs:?}");
    assert_eq!(sqlite::count(&database, "SELECT count(*) FROM training_runs"), 7);
}

#[test]
fn two_daemons_of_one_name_warn_of_each_other_once() {
    let redis = Redis::start();
    let mut pair = ["one", "two"].map(|_| Daemon::on(&redis).start_ready());
    let warning = "another daemon runs under the same name";
    for daemon in &pair {
        daemon.wait_log(warning);
    }
    thread::sleep(Duration::from_secs(7));
    for daemon in &mut pair {
        assert_eq!(daemon.log().matches(warning).count(), 1, "{}", daemon.log());
        assert_eq!(daemon.metric("cascor_latest_name_conflict"), Some(1.0));
    }
    pair.iter_mut().for_each(Daemon::kill9);
    // A key left by a stopped daemon is no conflict.
    let mut again = Daemon::on(&redis).start_ready();
    thread::sleep(Duration::from_secs(8));
    assert!(!again.log().contains(warning), "{}", again.log());
    assert_eq!(again.metric("cascor_latest_name_conflict"), Some(0.0));
    assert!(again.terminate().success());
}
