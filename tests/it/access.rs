//! Servers that are absent, refuse the login or require TLS or a password; signals and ports of the operating system.

use std::{fs, net::TcpListener, process::Child, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    cassandra::{Cassandra, Cluster, python},
    daemon::Daemon,
    redis::{Options, Redis},
    skip, sqlite, wait_until,
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);
const COUNT: &str = "SELECT count(*) FROM training_metrics";

fn message(epoch: u32) -> String {
    json!({"run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string()
}

fn publish(redis: &Redis, channel: &str, epoch: u32) {
    assert_eq!(redis.client().publish(channel, message(epoch)), 1, "{channel}");
}

/// How long a condition takes to hold.
fn took(what: &str, condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    wait_until(what, LIMIT, condition);
    start.elapsed()
}

#[test]
fn redis_with_tls_of_a_private_authority_and_a_password() {
    let redis = Redis::with(Options { password: Some("open \"sesame\" 'é"), tls: true, more: vec![] });
    let mut daemon = Daemon::at(&redis.tls_url())
        .set("redis.tls.ca", format!("{:?}", redis.ca()))
        .env("REDIS_PASSWORD", "open \"sesame\" 'é")
        .start_ready();
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("open \"sesame\" 'é"));
}

#[test]
fn redis_with_tls_of_an_authority_of_the_system() {
    let redis = Redis::with(Options { tls: true, ..Options::default() });
    let authority = redis.ca().display().to_string();
    // By the URL, or by the key.
    let by_key = redis.tls_url().replacen("rediss://", "redis://", 1);
    for (url, enabled) in [(redis.tls_url(), "false"), (by_key, "true")] {
        let builder = Daemon::at(&url).set("redis.tls.enabled", enabled);
        let mut daemon = builder.clone().env("SSL_CERT_FILE", &authority).start_ready();
        assert!(daemon.terminate().success());
        // Without that authority the certificate is not trusted.
        let stranger = builder.prepare().command(&["status"]);
        let error = String::from_utf8_lossy(&stranger.stderr).into_owned();
        assert!(!stranger.status.success() && error.contains("an authority that is not trusted"), "{error}");
    }
}

#[test]
fn a_wrong_password_of_redis_is_named_until_it_is_corrected() {
    let redis = Redis::with(Options { password: Some("right"), ..Options::default() });
    let mut daemon = Daemon::on(&redis).env("REDIS_PASSWORD", "wrong-secret").start();
    daemon.wait_http("/readyz", 503);
    wait_until("the reason", LIMIT, || daemon.get("/api/status").body.contains("WRONGPASS"));
    assert!(!daemon.log().contains("wrong-secret"));
    redis.client().command(&["CONFIG", "SET", "requirepass", "wrong-secret"]);
    daemon.wait_ready();
    let mut client = crate::support::resp::Resp::connect(redis.port).unwrap();
    client.command(&["AUTH", "wrong-secret"]);
    assert_eq!(client.publish(TRAINING, message(1)), 1);
    daemon.wait_rows(COUNT, 1);
}

#[test]
fn a_channel_that_is_forbidden_is_named_and_the_others_work() {
    let redis = Redis::start();
    let rule = "ACL SETUSER me on >pw +@all ~* resetchannels &cascor:training &cascor:control*";
    redis.client().command(&rule.split(' ').collect::<Vec<_>>());
    let mut daemon = Daemon::on(&redis)
        .set("redis.username", "\"me\"")
        .set("redis.training_channels", "[\"cascor:training\", \"cascor:events\"]")
        .env("REDIS_PASSWORD", "pw")
        .start();
    wait_until("the subscription", LIMIT, || redis.subscribers(TRAINING) == 1);
    daemon.wait_http("/healthz", 200);
    wait_until("the refusal", LIMIT, || {
        daemon.get("/api/status").json()["redis"]["unproven"] == json!(["cascor:events"])
    });
    assert_eq!(daemon.get("/readyz").status, 503);
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    redis.client().command(&["ACL", "SETUSER", "me", "&cascor:events"]);
    daemon.wait_ready();
    publish(&redis, "cascor:events", 2);
    daemon.wait_rows(COUNT, 2);
}

#[test]
fn redis_may_be_absent_at_the_start_be_killed_and_be_flushed() {
    let mut redis = Redis::absent(Options::default());
    let mut daemon = Daemon::on(&redis).start();
    daemon.wait_http("/readyz", 503);
    daemon.wait_http("/healthz", 200);
    redis.launch();
    daemon.wait_ready();
    publish(&redis, TRAINING, 1);
    // Redis may have answered the publisher and be killed before it sends to the subscriber.
    daemon.wait_rows(COUNT, 1);
    redis.kill();
    thread::sleep(Duration::from_millis(700));
    redis.launch();
    // `launch` returns at the first answer.
    let after = took("the subscription", || redis.subscribers(TRAINING) == 1);
    assert!(after < Duration::from_millis(250), "{after:?}");
    publish(&redis, TRAINING, 2);
    let gaps = "SELECT count(*) FROM ingest_gaps WHERE reason = 'disconnected'";
    wait_until("a gap row", LIMIT, || sqlite::count(&daemon.database(), gaps) >= 1);
    redis.client().command(&["FLUSHALL"]);
    publish(&redis, TRAINING, 3);
    daemon.wait_rows(COUNT, 3);
}

#[test]
fn a_redis_that_stops_for_ten_seconds_loses_nothing_or_is_a_gap() {
    let mut redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    publish(&redis, TRAINING, 1);
    redis.pause();
    thread::sleep(Duration::from_secs(10));
    redis.resume();
    // Redis may still count the connection that the daemon gave up, and accept messages for it that are never read.
    let published = redis.client().publish(TRAINING, message(2));
    wait_until("its row, or a gap", LIMIT, || {
        sqlite::count(&daemon.database(), COUNT) == 2
            || sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps") >= 1
    });
    wait_until("the subscription", LIMIT, || redis.subscribers(TRAINING) == 1);
    assert!(published <= 2);
    publish(&redis, TRAINING, 3);
    wait_until("the row after it", LIMIT, || {
        sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics WHERE epoch = 3") == 1
    });
}

#[test]
fn cassandra_with_login_and_tls() {
    let name = "cassandra_with_login_and_tls";
    let Some(cluster) = Cluster::start(1, "127.0.32", 19_232, &["--auth", "--tls"]) else {
        return skip(name, "no Cassandra jars");
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis)
        .cassandra(&cluster.keyspace())
        .set("store.cassandra.tls.ca", format!("{:?}", cluster.ca()))
        .env("CASSANDRA_USERNAME", "cassandra")
        .env("CASSANDRA_PASSWORD", "cassandra")
        .prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_ready();
    publish(&redis, TRAINING, 1);
    wait_until("the row", LIMIT, || daemon.command(&["metrics", RUN, "--json"]).status.success());
    wait_until("the store's word", LIMIT, || daemon.get("/api/status").json()["spool"]["pending_records"] == 0);

    // With the system's authorities; no `tls.ca` is set.
    let builder = Daemon::on(&redis)
        .cassandra(&cluster.keyspace())
        .set("store.cassandra.tls.enabled", "true")
        .env("CASSANDRA_USERNAME", "cassandra")
        .env("CASSANDRA_PASSWORD", "cassandra");
    let known = builder.clone().env("SSL_CERT_FILE", cluster.ca().display().to_string()).prepare();
    assert!(known.succeed(&["schema", "plan"]).contains("CREATE KEYSPACE"), "it is a keyspace of its own");
    let stranger = builder.prepare().command(&["schema", "plan", "--wait", "3s"]);
    let error = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && error.contains("an authority that is not trusted"), "{error}");
}

#[test]
fn without_a_schema_the_daemon_keeps_everything_and_says_what_to_run() {
    let name = "without_a_schema_the_daemon_keeps_everything_and_says_what_to_run";
    let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
    if python().is_none() {
        return skip(name, "CASCOR_TEST_PYTHON is not set");
    }
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).cassandra(&cassandra).start_ready();
    publish(&redis, TRAINING, 1);
    daemon.wait_log("cascor-ingest schema apply");
    // The log line may precede the message.
    wait_until("the message in the spool", LIMIT, || {
        daemon.get("/api/status").json()["spool"]["pending_records"].as_u64().is_some_and(|pending| pending >= 1)
    });
    daemon.apply_schema();
    wait_until("the row", LIMIT, || cassandra.count(COUNT) == 1);
}

#[test]
fn every_problem_of_a_configuration_is_reported_at_once() {
    let redis = Redis::absent(Options::default());
    let daemon = Daemon::on(&redis)
        .set("no_such_key", "1")
        .set("spool.capacity", "\"many\"")
        .set("log.level", "\"loud=very\"")
        .prepare();
    let output = daemon.command(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8_lossy(&output.stderr);
    for key in ["no_such_key", "spool.capacity", "log.level"] {
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn sighup_changes_log_levels_and_lifetimes() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let file = daemon.config_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}log.level = \"nonsense=very\"\n")).unwrap();
    daemon.process().signal(Signal::HUP);
    daemon.wait_log("is not reloaded");
    fs::write(&file, format!("{text}log.level = \"debug\"\nlatest.metrics_ttl = \"1h\"\n")).unwrap();
    daemon.process().signal(Signal::HUP);
    daemon.wait_log("configuration is reloaded");
    let mut client = redis.client();
    client.publish(TRAINING, "[1]");
    daemon.wait_log("DEBUG");
    publish(&redis, TRAINING, 1);
    wait_until("the new lifetime", LIMIT, || {
        client.command(&["PTTL", "cascor:metrics:latest"]).integer() > Some(3_000_000)
    });
}

/// An SQLite path below a regular file: the store cannot be opened while that file exists.
fn without_store(redis: &Redis) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let blocker = dir.path().join("away");
    fs::write(&blocker, "").unwrap();
    let path = format!("{:?}", blocker.join("cascor.db"));
    let daemon = Daemon::on(redis).set("store.sqlite.path", path).start_ready();
    (dir, daemon)
}

#[test]
fn sigterm_without_a_store_ends_promptly_and_loses_nothing() {
    let redis = Redis::start();
    let (dir, mut daemon) = without_store(&redis);
    for epoch in 0..100 {
        publish(&redis, TRAINING, epoch);
    }
    let start = Instant::now();
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    fs::remove_file(dir.path().join("away")).unwrap();
    daemon.launch();
    let file = dir.path().join("away/cascor.db");
    wait_until("every row", LIMIT, || sqlite::count(&file, COUNT) == 100);
}

#[test]
fn two_signals_at_once_are_one_and_a_later_one_ends_at_once() {
    let mut redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    // As when the program that started it sends SIGTERM after Ctrl-C in their terminal.
    daemon.process().signal(Signal::INT);
    daemon.process().signal(Signal::TERM);
    assert_eq!(daemon.process().wait(LIMIT).code(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("stopped"), "{}", daemon.log());

    // A trainer that waits for Redis.
    let mut demo = daemon.prepared(&["demo", "--rate", "100"]).spawn().unwrap();
    let end = |demo: &Child| kill_process(Pid::from_child(demo), Signal::TERM).unwrap();
    wait_until("the demo", LIMIT, || redis.subscribers("cascor:control") == 1);
    thread::sleep(Duration::from_millis(500));
    redis.pause();
    thread::sleep(Duration::from_millis(200));
    end(&demo);
    thread::sleep(Duration::from_millis(1_500));
    assert!(demo.try_wait().unwrap().is_none(), "it waits for an answer");
    let start = Instant::now();
    end(&demo);
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    redis.resume();
}

#[test]
fn a_port_in_use_is_tried_again() {
    let redis = Redis::start();
    let builder = Daemon::on(&redis);
    let mut daemon = builder.prepare();
    let taken = TcpListener::bind(("127.0.0.1", daemon.http_port())).unwrap();
    daemon.launch();
    daemon.wait_log("HTTP does not listen");
    wait_until("the subscription", LIMIT, || redis.subscribers(TRAINING) == 1);
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    let told = |daemon: &Daemon| String::from_utf8(daemon.command(&["status"]).stdout).unwrap();
    let named = format!("test: NO HTTP - HTTP does not listen: 127.0.0.1:{} is in use by process", daemon.http_port());
    wait_until("the status", LIMIT, || told(&daemon).contains(&format!("{named} {} (", std::process::id())));
    drop(taken);
    daemon.wait_ready();
    wait_until("a good status", LIMIT, || told(&daemon).contains("test: OK"));
}

#[test]
fn a_port_in_use_ends_a_daemon_that_must_have_http() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).set("http.required", "true").prepare();
    let _taken = TcpListener::bind(("127.0.0.1", daemon.http_port())).unwrap();
    daemon.launch();
    assert_eq!(daemon.process().wait(LIMIT).code(), Some(1));
    let named = format!("is in use by process {} (", std::process::id());
    assert!(daemon.log().contains(&named) && daemon.log().contains("`http.required` is set"), "{}", daemon.log());
}
