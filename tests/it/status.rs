//! `status`: the verdict on a daemon, and a lag that is true while rows wait.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    support::{
        daemon::Daemon,
        http,
        process::Process,
        redis::{Options, Redis},
        resp, wait_for, wait_until,
    },
    tools::{LIMIT, TRAINING, metrics, stderr},
};

const ROWS: &str = "SELECT count(*) FROM training_metrics";

/// Exit status and output of `status`.
fn verdict(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.command(&[&["status"], arguments].concat());
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the daemon's key in Redis gives this verdict.
#[track_caller]
fn wait_verdict(daemon: &Daemon, begins: &str, code: i32) -> String {
    let mut last = (None, String::new());
    wait_until(begins, LIMIT, || {
        last = verdict(daemon, &[]);
        last.1.starts_with(begins)
    });
    assert_eq!(last.0, Some(code), "{}", last.1);
    last.1
}

/// The lag in the status and in the metrics, both of at least so many seconds.
#[track_caller]
fn wait_lag(daemon: &Daemon, seconds: f64) -> f64 {
    wait_for("the lag", LIMIT, || {
        let status = daemon.get("/api/status").json()["lag_seconds"].as_f64()?;
        let metric = daemon.metric("cascor_writer_lag_seconds")?;
        (status >= seconds && metric >= seconds).then_some(metric)
    })
}

#[test]
fn a_killed_daemon_gives_no_answer_while_its_status_is_still_there_and_an_idle_one_is_well() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    wait_verdict(&daemon, "test: OK - ", 0);
    thread::sleep(Duration::from_secs(6));
    let asked = Instant::now();
    assert_eq!(verdict(&daemon, &[]).0, Some(0), "idle");
    assert!(asked.elapsed() < Duration::from_secs(4), "nothing is waited for: {:?}", asked.elapsed());
    daemon.kill9();
    let killed = Instant::now();
    wait_verdict(&daemon, "test: NO ANSWER - last sign of life ", 1);
    let took = killed.elapsed();
    assert!((3..12).contains(&took.as_secs()), "{took:?}");
    let shown: Value = serde_json::from_str(&verdict(&daemon, &["--json"]).1).unwrap();
    assert_eq!((&shown["test"]["phase"], &shown["test"]["verdict"]["ok"]), (&json!("running"), &json!(false)));
    assert!(shown["test"]["age_seconds"].as_f64() >= Some(5.0), "{shown}");
    daemon.launch();
    daemon.wait_ready();
    wait_verdict(&daemon, "test: OK - ", 0);
}

#[test]
fn a_pause_is_in_the_status_before_its_next_tick() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    wait_verdict(&daemon, "test: OK - ", 0);
    let mut client = redis.client();
    let delays: Vec<Duration> = (0..16)
        .map(|round| {
            let paused = round % 2 == 0;
            let sent = Instant::now();
            client.publish("cascor:control", if paused { "pause" } else { "resume" });
            wait_until("the status", LIMIT, || {
                client.get_json("cascor:ingest:test").is_some_and(|status| status["paused"] == paused)
            });
            sent.elapsed()
        })
        .collect();
    // With the ticks alone, a second apart, half of them would be late.
    let soon = delays.iter().filter(|delay| **delay < Duration::from_millis(500)).count();
    assert!(soon >= 14, "{delays:?}");
}

#[test]
fn lag_grows_while_paused_and_while_the_store_is_away_and_the_verdict_says_why() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    client.publish(TRAINING, metrics(0));
    daemon.wait_rows(ROWS, 1);
    wait_until("no lag", LIMIT, || {
        let shown = wait_verdict(&daemon, "test: OK - receiving ", 0);
        shown.contains("/s, lag 0.0 s") && shown.lines().count() == 1
    });

    daemon.succeed(&["control", "pause", "--wait"]);
    let published = Instant::now();
    client.publish(TRAINING, metrics(1));
    client.publish(TRAINING, metrics(2));
    let first = wait_lag(&daemon, 1.0);
    assert!(first < 20.0, "{first}");
    let later = wait_lag(&daemon, first + 2.0);
    let shown = wait_verdict(&daemon, "test: PAUSED - received and spooled, but not stored; receiving ", 1);
    assert!(shown.contains("records wait") && shown.contains("  remedy: cascor-ingest control resume --target test"));
    let lag = daemon.get("/api/status").json()["lag_seconds"].as_f64().unwrap();
    assert!(lag >= later, "{lag} {later}");
    // What is flushed is stored; what comes after it is held again.
    daemon.succeed(&["control", "flush", "--wait"]);
    daemon.wait_rows(ROWS, 3);
    // The record of the flush itself is held, too; it is younger.
    wait_until("less lag after the flush", LIMIT, || {
        daemon.metric("cascor_writer_lag_seconds").unwrap() < published.elapsed().as_secs_f64() - 2.0
    });
    client.publish(TRAINING, metrics(3));
    wait_lag(&daemon, 1.0);
    daemon.succeed(&["control", "resume", "--wait"]);
    daemon.wait_rows(ROWS, 4);
    wait_until("no lag", LIMIT, || daemon.metric("cascor_writer_lag_seconds") == Some(0.0));
    wait_verdict(&daemon, "test: OK - ", 0);

    let blocker = rusqlite::Connection::open(daemon.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    client.publish(TRAINING, metrics(4));
    let first = wait_lag(&daemon, 1.0);
    wait_lag(&daemon, first + 2.0);
    let shown = wait_verdict(&daemon, "test: HELD - the store is away, ", 1);
    assert!(shown.contains("  remedy: "), "{shown}");
    // Held and paused: the worse first, none forgotten.
    daemon.succeed(&["control", "pause", "--wait"]);
    wait_until("both", LIMIT, || {
        let (code, shown) = verdict(&daemon, &[]);
        code == Some(1) && shown.starts_with("test: HELD") && shown.contains("control resume")
    });
    blocker.execute_batch("ROLLBACK").unwrap();
    daemon.succeed(&["control", "resume", "--wait"]);
    daemon.wait_rows(ROWS, 5);
    wait_verdict(&daemon, "test: OK - ", 0);
}

#[test]
fn lag_is_true_after_a_restart_within_a_pause() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    wait_verdict(&daemon, "test: OK", 0);
    daemon.succeed(&["control", "pause", "--wait"]);
    redis.client().publish(TRAINING, metrics(0));
    wait_lag(&daemon, 0.5);
    daemon.restart();
    let lag = wait_lag(&daemon, 1.0);
    wait_lag(&daemon, lag + 1.0);
    assert_eq!(daemon.get("/api/status").json()["paused"], true);
}

#[test]
fn the_status_has_a_rate_a_verdict_in_json_and_its_fields_on_request() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    for seq in 0..200 {
        client.publish(TRAINING, metrics(seq));
    }
    let rate = || daemon.get("/api/status").json()["received_per_second"].as_f64().unwrap();
    wait_until("a rate", LIMIT, || rate() > 5.0);
    wait_until("no rate once the messages are past", LIMIT, || rate() == 0.0);
    wait_verdict(&daemon, "test: OK", 0);
    let all: Value = serde_json::from_str(&daemon.succeed(&["status", "--json"])).unwrap();
    assert_eq!(
        (&all["test"]["verdict"]["ok"], &all["test"]["verdict"]["state"]),
        (&json!(true), &json!("OK")),
        "{all}"
    );
    assert_eq!((&all["test"]["counters"]["received"], &all["orphaned_spools"]), (&json!(200), &json!([])), "{all}");
    let (code, shown) = verdict(&daemon, &["-v"]);
    assert!(code == Some(0) && shown.contains("spool.capacity_bytes") && shown.starts_with("test: OK"), "{shown}");
    for (arguments, code, error) in [
        (&["nosuch"][..], 1, "no daemon `nosuch`"),
        (&["--look-in", "/nowhere/at/all"], 1, "no directory `/nowhere/at/all`"),
        (&["--watch", "0"], 2, "more than 0"),
        (&["--watch", "soon"], 2, "more than 0"),
    ] {
        let output = daemon.command(&[&["status"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(stderr(&output).contains(error), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_daemon_that_has_lost_redis_says_so_by_http() {
    let mut redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    assert_eq!(verdict(&daemon, &["--url", &url]).0, Some(0));
    redis.kill();
    wait_until("not subscribed", LIMIT, || {
        let (code, shown) = verdict(&daemon, &["--url", &url]);
        code == Some(1)
            && shown.starts_with("test: NOT SUBSCRIBED - does not receive `cascor:")
            && shown.contains("start Redis")
    });
    // Without Redis the daemon of this machine is asked, unless another Redis is named.
    let away = daemon.command(&["status"]);
    assert!(away.status.code() == Some(1) && stderr(&away).contains("start Redis there"), "{}", stderr(&away));
    assert!(stderr(&away).contains(&format!("the daemon at {url} was asked instead")), "{}", stderr(&away));
    assert!(String::from_utf8_lossy(&away.stdout).starts_with("test: NOT SUBSCRIBED - "), "{away:?}");
    for not_asked in [&["--url", ""][..], &["--redis-url", "redis://127.0.0.1:1/0"], &["other"]] {
        let (code, shown) = verdict(&daemon, not_asked);
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{not_asked:?}");
    }
}

#[test]
fn a_daemon_whose_status_a_full_redis_does_not_take_is_asked_itself_and_says_why_its_stream_is_not_read() {
    let redis = Redis::with(Options { more: vec!["--maxmemory", "1"], ..Options::default() });
    let stream = "cascor:training:stream";
    let mut daemon = Daemon::on(&redis).set("redis.streams", format!("[{stream:?}]")).start();
    daemon.wait_http("/api/status", 200);
    daemon.wait_log("not reading a stream");
    let full = daemon.command(&["status"]);
    let shown = String::from_utf8_lossy(&full.stdout);
    let begins = format!("test: NOT READING - does not read the stream `{stream}`: Redis answers: OOM ");
    assert!(shown.starts_with(&begins) && shown.contains(": this Redis is full; raise its `maxmemory`"), "{shown}");
    assert!(shown.contains("remedy: correct what this error names"), "{shown}");
    assert!(
        stderr(&full).contains("this Redis is full, and takes no status: raise its `maxmemory`"),
        "{}",
        stderr(&full)
    );
    assert!(stderr(&full).contains("was asked instead"), "{}", stderr(&full));
    redis.client().command(&["CONFIG", "SET", "maxmemory", "0"]);
    let shown = wait_verdict(&daemon, "test: OK", 0);
    assert!(!shown.contains("lost"), "{shown}");
}

#[test]
fn a_status_from_before_redis_was_full_does_not_hide_the_daemon() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let of_redis = ["status", "--redis-url", &redis.url()];
    wait_until("its status", LIMIT, || daemon.command(&of_redis).status.success());
    redis.client().command(&["CONFIG", "SET", "maxmemory", "1"]);
    // It would expire after 15 seconds.
    wait_until("the old status is gone", Duration::from_secs(5), || {
        redis.client().command(&["EXISTS", "cascor:ingest:test"]) == resp::Value::Integer(0)
    });
    let full = daemon.command(&["status"]);
    let of_redis_alone = stderr(&daemon.command(&of_redis));
    assert!(of_redis_alone.contains("this Redis is full") && of_redis_alone.contains("--url"), "{of_redis_alone}");
    let shown = String::from_utf8_lossy(&full.stdout);
    assert!(shown.starts_with("test: OK - ") && stderr(&full).contains("was asked instead"), "{full:?}");
    assert!(
        shown.contains("latest keys are not written: Redis answers: OOM ") && shown.contains("`maxmemory`"),
        "{shown}"
    );
    redis.client().command(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_until("a good status", LIMIT, || {
        let well = daemon.command(&of_redis);
        well.status.success() && !String::from_utf8_lossy(&well.stdout).contains("latest keys")
    });
}

#[test]
fn an_api_without_a_daemon_is_no_daemon() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).prepare();
    daemon.succeed(&["schema", "apply"]);
    let _served = Process::spawn(&mut daemon.prepared(&["serve"]), &daemon.state_dir().join("serve.log"));
    wait_until("the API", LIMIT, || http::get(daemon.http_port(), "/readyz").is_ok_and(|answer| answer.status == 200));
    let asked = daemon.command(&["status"]);
    assert_eq!((asked.status.code(), String::from_utf8_lossy(&asked.stdout).as_ref()), (Some(1), ""));
    assert!(stderr(&asked).contains("no daemon has reported its status"), "{}", stderr(&asked));
}

#[test]
fn a_watched_status_goes_on_line_by_line_and_ends_quietly_with_its_reader() {
    let mut redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let mut command = daemon.prepared(&["status", "--watch", "300ms", "--url", &url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!((0..3).all(|_| lines.next().unwrap().starts_with("test: OK - ")), "no escape sequences in a pipe");
    redis.kill();
    assert!(lines.by_ref().take(200).any(|line| line.starts_with("test: NOT SUBSCRIBED")));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "a closed pipe is no error");
}

#[test]
fn a_watched_daemon_that_goes_away_is_reported_and_watched_on() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    wait_verdict(&daemon, "test: OK", 0);
    let mut child = daemon.prepared(&["status", "--watch=1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("test: OK"));
    daemon.terminate();
    assert!(lines.by_ref().take(100).any(|line| line.contains("no daemon has reported its status")));
    daemon.launch();
    daemon.wait_ready();
    assert!(lines.by_ref().take(100).any(|line| line.starts_with("test: OK")));
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0), "a closed pipe is no error");
}

#[test]
fn a_status_after_a_receipt_shows_what_the_command_did() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    wait_verdict(&daemon, "test: OK", 0);
    for _ in 0..3 {
        for (command, begins, code) in [("pause", "test: PAUSED", Some(1)), ("resume", "test: OK", Some(0))] {
            daemon.succeed(&["control", command, "--wait"]);
            let (exit, shown) = verdict(&daemon, &[]);
            assert!(exit == code && shown.starts_with(begins), "{command}: {shown}");
        }
    }
}
