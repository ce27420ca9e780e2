//! Requests that a store refuses: values that a guardrail of Cassandra forbids, and users without a permission.
//!
//! Guardrails do not bind superusers, so the daemon logs in as an ordinary role; both kinds of test share one server.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    cassandra::{Cassandra, Cluster},
    daemon::{Builder, Daemon, binary},
    redis::Redis,
    resp::Resp,
    skip, wait_until,
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
/// A role without quotes in CQL.
const ROLE: &str = "writer";

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn publish(client: &mut Resp, kind: &str, data: Value) {
    let message = json!({"type": kind, "run_id": RUN, "timestamp": now(), "data": data});
    client.publish(TRAINING, message.to_string());
}

/// A server with logins and guardrails, and the role of the daemon.
fn server(net: &str) -> Option<(Cluster, Cassandra)> {
    let dir = TempDir::new().unwrap();
    let yaml = dir.path().join("guardrails.yaml");
    fs::write(
        &yaml,
        "column_value_size_fail_threshold: 40KiB\npermissions_validity: 200ms\nroles_validity: 200ms\n\
         credentials_validity: 200ms\n",
    )
    .unwrap();
    let cluster = Cluster::start(1, net, 19_042, &["--auth", "--yaml", yaml.to_str().unwrap()])?;
    let cassandra = cluster.keyspace().login("cassandra", "cassandra");
    cluster.query(&format!("CREATE ROLE {ROLE} WITH PASSWORD = 'secret' AND LOGIN = true"));
    Some((cluster, cassandra))
}

fn login(builder: Builder, user: &str, password: &str) -> Builder {
    builder
        .set("store.cassandra.username", format!("\"{user}\""))
        .set("store.cassandra.password", format!("\"{password}\""))
}

fn apply_schema(redis: &Redis, cassandra: &Cassandra) {
    login(Daemon::on(redis).cassandra(cassandra), "cassandra", "cassandra").prepare().apply_schema();
}

fn problem(daemon: &Daemon) -> Value {
    daemon.get("/api/status").json()["store"]["problem"].clone()
}

/// Every dead letter: its detail and its payload.
fn letters(daemon: &Daemon) -> Vec<(String, Value)> {
    let lines = daemon.succeed(&["deadletter", "export"]);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|letter| (letter["detail"].as_str().unwrap_or_default().to_owned(), letter)).collect()
}

#[test]
fn the_dead_letter_of_a_refused_value_is_the_message_that_brought_it() {
    let Some((cluster, cassandra)) = server("127.0.131") else {
        return skip("the_dead_letter_of_a_refused_value_is_the_message_that_brought_it", "no Cassandra to start");
    };
    let redis = Redis::start();
    apply_schema(&redis, &cassandra);
    for permission in ["SELECT", "MODIFY"] {
        cluster.query(&format!("GRANT {permission} ON KEYSPACE {} TO {ROLE}", cassandra.keyspace));
    }
    let mut daemon = login(Daemon::on(&redis).cassandra(&cassandra), ROLE, "secret").start_ready();
    let mut client = redis.client();
    // In parts, because texts longer than 64 KiB are rejected before they are a row.
    let config: serde_json::Map<_, _> = (0..4).map(|n| (format!("p{n}"), json!("x".repeat(45 << 10)))).collect();
    publish(
        &mut client,
        "training_start",
        json!({"notes": "lead", "config": config, "tags": ["good"], "dataset": {"name": "spiral"}}),
    );
    publish(&mut client, "metrics", json!({"epoch": 1, "train_loss": 0.5}));
    publish(&mut client, "metrics", json!({"epoch": 2, "train_loss": 0.25}));
    let row = || cassandra.rows("SELECT * FROM training_runs").into_iter().next().unwrap_or_default();
    wait_until("the run's row", LIMIT, || row().get("final_epoch") == Some(&json!(2)));
    let stored = row();
    assert_eq!(
        (&stored["notes"], &stored["status"], &stored["tags"]),
        (&json!("lead"), &json!("running"), &json!(["good"]))
    );
    assert_eq!((&stored["config_json"], &stored["dataset_name"]), (&Value::Null, &json!("spiral")));
    assert_eq!(daemon.get("/api/runs").json()["runs"][0]["run_id"], RUN);

    let check = |daemon: &Daemon| {
        let letters = letters(daemon);
        // The event of the start holds the configuration, too.
        assert_eq!(letters.len(), 2, "{:?}", letters.iter().map(|(detail, _)| detail).collect::<Vec<_>>());
        for (detail, letter) in &letters {
            assert!(detail.contains("column_value_size"), "{detail}");
            assert!(letter.to_string().contains("training_start"), "{}", &letter.to_string()[..200]);
        }
        assert!(letters.iter().any(|(detail, _)| detail.contains("config_json")), "the run's row");
    };
    wait_until("the dead letters", LIMIT, || letters(&daemon).len() == 2);
    check(&daemon);
    daemon.restart();
    publish(&mut client, "metrics", json!({"epoch": 3, "train_loss": 0.125}));
    wait_until("the next epoch", LIMIT, || row().get("final_epoch") == Some(&json!(3)));
    check(&daemon);
    assert!(problem(&daemon).is_null());
}

#[test]
fn each_refused_column_is_blamed_on_its_own_message() {
    let Some((cluster, cassandra)) = server("127.0.133") else {
        return skip("each_refused_column_is_blamed_on_its_own_message", "no Cassandra to start");
    };
    let redis = Redis::start();
    apply_schema(&redis, &cassandra);
    for permission in ["SELECT", "MODIFY"] {
        cluster.query(&format!("GRANT {permission} ON KEYSPACE {} TO {ROLE}", cassandra.keyspace));
    }
    let daemon = login(Daemon::on(&redis).cassandra(&cassandra), ROLE, "secret").start_ready();
    let mut client = redis.client();
    let large = "x".repeat(50 << 10);
    // In one write, so that one update of the run's row includes all of them.
    publish(&mut client, "training_start", json!({"notes": large, "created_by": "first"}));
    publish(&mut client, "training_start", json!({"tags": [large, "fair"], "created_by": "second"}));
    publish(&mut client, "training_start", json!({"tags": ["good"], "created_by": "third"}));
    publish(
        &mut client,
        "training_start",
        json!({"dataset": {"name": "spiral", "description": large}, "created_by": "fourth"}),
    );
    publish(&mut client, "metrics", json!({"epoch": 1, "train_loss": 0.5}));
    let named = json!({"type": "metrics", "run_id": large, "timestamp": now(), "epoch": 7, "loss": 0.5});
    client.publish(TRAINING, named.to_string());
    publish(&mut client, "metrics", json!({"epoch": 2, "train_loss": 0.5}));
    let rows = || cassandra.rows("SELECT * FROM training_runs");
    let has = |epoch: i32| rows().iter().any(|row| row["final_epoch"] == epoch);
    wait_until("both runs", LIMIT, || has(2) && has(7));
    let row = rows().into_iter().find(|row| row["final_epoch"] == 2).unwrap();
    assert_eq!(
        (&row["notes"], &row["tags"], &row["created_by"], &row["dataset_name"]),
        (&Value::Null, &json!(["fair", "good"]), &json!("fourth"), &json!("spiral"))
    );
    let blamed = |column: &str| -> Vec<String> {
        let letters = letters(&daemon).into_iter().filter(|(detail, _)| detail.contains(column));
        letters.map(|(_, letter)| letter.to_string()).collect()
    };
    for (column, message) in [("notes", "first"), ("tags", "second"), ("description", "fourth"), ("run_name", "epoch")]
    {
        wait_until(column, LIMIT, || !blamed(column).is_empty());
        let letters = blamed(column);
        assert!(letters.len() == 1 && letters[0].contains(message), "{column}: {}", letters.len());
    }
    assert_eq!(daemon.get("/api/runs").json()["count"], 2);
}

#[test]
fn the_status_names_what_blocks_the_writer_and_the_fix() {
    let Some((cluster, cassandra)) = server("127.0.132") else {
        return skip("the_status_names_what_blocks_the_writer_and_the_fix", "no Cassandra to start");
    };
    let (redis, keyspace) = (Redis::start(), &cassandra.keyspace);
    let mut daemon = login(Daemon::on(&redis).cassandra(&cassandra), ROLE, "secret").start_ready();
    let mut client = redis.client();
    let mut epoch = 0;
    let mut held = |holds: &[&str], remedy: &str, daemon: &Daemon| {
        epoch += 1;
        publish(&mut client, "metrics", json!({"epoch": epoch, "train_loss": 0.5}));
        wait_until(remedy, LIMIT, || problem(daemon)["remedy"] == remedy);
        let problem = problem(daemon);
        assert!(holds.contains(&problem["holds"].as_str().unwrap()), "{problem}");
        assert_eq!(problem["needs_attention"], true, "{problem}");
        let ready = daemon.get("/readyz");
        assert_eq!(ready.status, 200);
        for text in ["ready\n", problem["since"].as_str().unwrap(), remedy] {
            assert!(ready.body.contains(text), "{}", ready.body);
        }
        assert_eq!(daemon.metric("cascor_store_needs_attention"), Some(1.0));
        // The problem keeps its start time over retries.
        std::thread::sleep(Duration::from_millis(2_500));
        let later = self::problem(daemon);
        assert_eq!((&later["since"], &later["remedy"]), (&problem["since"], &problem["remedy"]));
    };
    let mended = |daemon: &Daemon, rows: i64| {
        wait_until("mended", LIMIT, || problem(daemon).is_null());
        // Or more: uncommitted records are written again at the next start.
        wait_until("the rows", LIMIT, || cassandra.count("SELECT count(*) FROM training_metrics") >= rows);
        let pending = || daemon.get("/api/status").json()["spool"]["pending_records"].as_i64();
        wait_until("nothing waits", LIMIT, || pending() == Some(0));
        assert_eq!((daemon.get("/readyz").body.as_str(), problem(daemon)), ("ready\n", Value::Null));
        assert_eq!(daemon.metric("cascor_store_needs_attention"), Some(0.0));
    };
    // No keyspace at all.
    held(&["rows", "runs", "store"], "cascor-ingest schema apply", &daemon);
    apply_schema(&redis, &cassandra);
    // The deleted runs are read before anything is written.
    let grant = |permission: &str| format!("GRANT {permission} ON KEYSPACE {keyspace} TO {ROLE};");
    held(&["rows"], &grant("SELECT"), &daemon);
    cluster.query(grant("SELECT").trim_end_matches(';'));
    held(&["rows", "runs"], &grant("MODIFY"), &daemon);
    cluster.query(grant("MODIFY").trim_end_matches(';'));
    mended(&daemon, 3);
    cluster.query(&format!("REVOKE MODIFY ON KEYSPACE {keyspace} FROM {ROLE}"));
    // The run's row has a batch of its own, which may come first.
    held(&["rows", "runs"], &grant("MODIFY"), &daemon);
    let log = daemon.log();
    assert!(log.matches("store needs attention; holding").count() < 8, "not every second:\n{log}");
    // The key is written every few seconds.
    let mut reader = redis.client();
    let mut key = || reader.get_json("cascor:ingest:test").unwrap_or_default();
    wait_until("the key", LIMIT, || key()["store"]["problem"]["remedy"] == grant("MODIFY"));
    let printed = daemon.command(&["status"]);
    let shown = String::from_utf8_lossy(&printed.stdout);
    assert!(
        printed.status.code() == Some(1) && shown.starts_with("test: HELD - the store is misconfigured"),
        "{shown}"
    );
    assert!(shown.contains(&format!("  remedy: {}", grant("MODIFY"))), "{shown}");
    cluster.query(grant("MODIFY").trim_end_matches(';'));
    mended(&daemon, 4);
    cassandra.try_rows("-", &format!("DROP TABLE {keyspace}.training_metrics")).unwrap();
    held(&["rows"], "cascor-ingest schema apply", &daemon);
    apply_schema(&redis, &cassandra);
    mended(&daemon, 1);
    // A login that is refused, with nothing to write.
    cluster.query(&format!("ALTER ROLE {ROLE} WITH LOGIN = false"));
    daemon.terminate();
    // The server goes on taking the login from its cache of roles for a moment.
    let stranger = cassandra.at_port(cassandra.port).login(ROLE, "secret");
    let is_refused = || stranger.try_rows("-", "SELECT key FROM system.local").is_err();
    wait_until("the server to refuse the login", LIMIT, is_refused);
    daemon.launch();
    daemon.wait_ready();
    wait_until("the refused login", LIMIT, || daemon.get("/readyz").body.contains("store.cassandra.username"));
    assert_eq!(problem(&daemon)["needs_attention"], true);
    cluster.query(&format!("ALTER ROLE {ROLE} WITH LOGIN = true"));
    mended(&daemon, 1);
}

/// Runs the daemon as an unprivileged user, so that permissions apply. `None`: the test is skipped.
fn unprivileged(test: &str, redis: &Redis) -> Option<Daemon> {
    const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let daemon = Daemon::on(redis).under(&NOBODY).prepare();
    let home = daemon.state_dir().parent().unwrap();
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if run(Command::new("chown").args(["-R", "65534:65534"]).arg(home))
        && run(Command::new(NOBODY[0]).args(&NOBODY[1..]).arg(binary()).arg("--version"))
        && run(Command::new(NOBODY[0]).args(&NOBODY[1..]).arg("ls").arg(home))
    {
        return Some(daemon);
    }
    skip(test, "needs root and setpriv, to run as another user who can reach the program and its directory");
    None
}

#[test]
fn a_file_that_cannot_be_written_is_named_with_the_command_that_mends_it() {
    let redis = Redis::start();
    let test = "a_file_that_cannot_be_written_is_named_with_the_command_that_mends_it";
    let Some(mut daemon) = unprivileged(test, &redis) else { return };
    daemon.launch();
    daemon.wait_ready();
    let mut client = redis.client();
    publish(&mut client, "metrics", json!({"epoch": 1, "train_loss": 0.5}));
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let file = daemon.database();
    // Read-only, then unreadable.
    for (epoch, mode, reason) in [(2, 0o444, "cannot be written"), (3, 0o000, "cannot be opened")] {
        daemon.terminate();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        daemon.launch();
        daemon.wait_ready();
        publish(&mut client, "metrics", json!({"epoch": epoch, "train_loss": 0.5}));
        wait_until(reason, LIMIT, || problem(&daemon)["reason"].as_str().is_some_and(|said| said.contains(reason)));
        let said = problem(&daemon);
        assert_eq!(said["needs_attention"], true, "{said}");
        let remedy = said["remedy"].as_str().unwrap();
        assert!(daemon.get("/readyz").body.contains(remedy), "{}", daemon.get("/readyz").body);
        // The named command itself.
        assert!(Command::new("sh").args(["-c", remedy]).status().unwrap().success(), "{remedy}");
        daemon.wait_rows("SELECT count(*) FROM training_metrics", epoch);
        wait_until("mended", LIMIT, || problem(&daemon).is_null());
    }
}
