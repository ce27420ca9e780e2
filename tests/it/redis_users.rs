//! The users of `deploy/redis`: each has the permissions that it needs, and no others.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    daemon::Daemon,
    http,
    redis::{Options, Redis},
    resp::{Resp, Value},
    wait_until,
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
/// Commands that every user is refused.
const ADMINISTRATION: &[&[&str]] = &[
    &["KEYS", "*"],
    &["RANDOMKEY"],
    &["DBSIZE"],
    &["CONFIG", "GET", "*"],
    &["CONFIG", "SET", "maxmemory", "1"],
    &["FLUSHALL"],
    &["FLUSHDB"],
    &["EVAL", "return 1", "0"],
    &["ACL", "LIST"],
    &["CLIENT", "LIST"],
    &["CLIENT", "KILL", "ID", "1"],
    &["MONITOR"],
    &["SELECT", "1"],
    &["REPLICAOF", "127.0.0.1", "1"],
    &["SHUTDOWN", "NOSAVE"],
    &["SAVE"],
];
/// Commands on a key.
const ON_KEYS: &[&[&str]] = &[
    &["GET"],
    &["GETRANGE", "0", "9"],
    &["STRLEN"],
    &["EXISTS"],
    &["TYPE"],
    &["TTL"],
    &["DUMP"],
    &["OBJECT", "ENCODING"],
    &["COPY", "trainer:copy"],
    &["SET", "x"],
    &["SETRANGE", "0", "x"],
    &["APPEND", "x"],
    &["DEL"],
    &["UNLINK"],
    &["EXPIRE", "1"],
    &["PERSIST"],
    &["RENAME", "trainer:renamed"],
    &["LPUSH", "x"],
    &["SUBSCRIBE"],
    &["PUBLISH", "x"],
];

/// The ACL file of the script, with a user for the test in place of `default`, which is off.
fn users(dir: &Path, options: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis/users-acl");
    let made = Command::new("sh").arg(script).args(options).arg(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// A Redis with the users; the test itself uses an unrestricted `default`.
fn shared(dir: &TempDir) -> Redis {
    let made = users(&dir.path().join("passwords"), &[]);
    let (default, rest) = made.split_once('\n').unwrap();
    assert_eq!(default, "user default off");
    assert_eq!(rest.lines().count(), 3);
    start(dir, &format!("user default on nopass ~* &* +@all\n{rest}"))
}

fn start(dir: &TempDir, acl: &str) -> Redis {
    let file = dir.path().join("users.acl");
    fs::write(&file, acl).unwrap();
    let file: &'static str = file.display().to_string().leak();
    Redis::with(Options { more: vec!["--aclfile", file], ..Options::default() })
}

fn password(dir: &TempDir, user: &str) -> String {
    fs::read_to_string(dir.path().join("passwords").join(user)).unwrap()
}

/// A connection of this user.
fn login(redis: &Redis, dir: &TempDir, user: &str) -> Resp {
    let mut client = Resp::connect(redis.port).unwrap();
    let answer = client.command(&["AUTH", user, &password(dir, user)]);
    assert_eq!(answer, Value::Simple("OK".into()), "{user}");
    client
}

fn is_refused(answer: &Value) -> bool {
    matches!(answer, Value::Error(words) if words.starts_with("NOPERM"))
}

#[track_caller]
fn assert_refused(client: &mut Resp, words: &[&str]) {
    let answer = client.command(words);
    assert!(is_refused(&answer), "{words:?}: {answer:?}");
}

/// Every command on the key is refused.
#[track_caller]
fn assert_closed(client: &mut Resp, key: &str) {
    for words in ON_KEYS {
        let at = if words[0] == "OBJECT" { 2 } else { 1 };
        let mut words = words.to_vec();
        words.insert(at, key);
        assert_refused(client, &words);
    }
}

#[test]
fn a_password_is_made_once_and_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let made = users(&passwords, &[]);
    assert_eq!(users(&passwords, &[]), made, "the same passwords");
    for user in ["ingest", "trainer", "dashboard"] {
        let password = password(&dir, user);
        assert!(password.len() == 48 && !made.contains(&password), "{user}");
        let mode = fs::metadata(passwords.join(user)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{user}");
    }
    // One that `echo` has made is the password without the end of its line.
    fs::write(passwords.join("trainer"), "a word \n").unwrap();
    let redis = start(&dir, &users(&passwords, &["--local"]));
    let mut client = Resp::connect(redis.port).unwrap();
    assert_eq!(client.command(&["AUTH", "trainer", "a word"]), Value::Simple("OK".into()));
    let nobody = users(&passwords, &[]).replace("default off", "default on nopass -@all");
    assert!(nobody.contains("-@all"));
}

#[test]
fn the_daemon_s_user_does_everything_that_the_daemon_needs_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let redis = shared(&dir);
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "ann admin 0123456789abcdef\n").unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = dir.path().join("passwords").join("ingest");
    let mut daemon = Daemon::on(&redis)
        .set("redis.username", "\"ingest\"")
        .set("redis.password_file", format!("{:?}", secret.display().to_string()))
        .set("http.tokens_file", format!("{:?}", tokens.display().to_string()))
        .start_ready();
    // Latest keys, shared runs, the status.
    let mut client = redis.client();
    for epoch in 1..=3 {
        client.publish(TRAINING, json!({"epoch": epoch, "loss": 0.5}).to_string());
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    for key in ["ingest:test", "ingest:run:cascor:training", "history:latest"] {
        wait_until(key, LIMIT, || client.get_json(&format!("cascor:{key}")).is_some());
    }
    // A session begins, is used, and ends.
    let port = daemon.http_port();
    let signed = http::post(port, "/api/session", &json!({"token": "0123456789abcdef"}).to_string()).unwrap();
    assert_eq!(signed.status, 201, "{}", signed.body);
    let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let csrf = signed.json()["csrf"].as_str().unwrap().to_owned();
    let own = [("Cookie", cookie.as_str()), ("X-CSRF-Token", csrf.as_str())];
    assert_eq!(http::send(port, "GET", "/api/session", &own, "").unwrap().status, 200);
    let ended = http::send(port, "DELETE", "/api/session", &own, "").unwrap();
    assert!(ended.status < 300, "{} {}", ended.status, ended.body);
    // Commands, and the command line.
    for command in ["pause", "resume", "flush", "reset", "status"] {
        let receipts = daemon.succeed(&["control", command, "--wait", "--json"]);
        assert!(receipts.contains("\"done\""), "{command}: {receipts}");
    }
    assert!(daemon.succeed(&["status", "--json"]).contains("\"test\""));
    daemon.succeed(&["cache", "clear"]);
    // A restart takes over the keys of the daemon before.
    daemon.restart();
    client.publish(TRAINING, json!({"epoch": 4, "loss": 0.5}).to_string());
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 4);
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR") && !log.contains("NOPERM"), "{log}");

    let mut ingest = login(&redis, &dir, "ingest");
    ADMINISTRATION.iter().for_each(|words| assert_refused(&mut ingest, words));
    assert_closed(&mut ingest, "somebody:else");
    for words in [&["GET", "cascor:metrics:latest"][..], &["HSET", "cascor:x", "a", "b"], &["PUBLISH", "cascor:x", "x"]]
    {
        assert_refused(&mut ingest, words);
    }
}

#[test]
fn a_trainer_publishes_and_reaches_nothing_of_the_daemon_s() {
    let dir = tempfile::tempdir().unwrap();
    let redis = shared(&dir);
    let daemon = Daemon::on(&redis).start_ready();
    let mut trainer = login(&redis, &dir, "trainer");
    assert_eq!(trainer.publish(TRAINING, json!({"run_id": RUN, "epoch": 1, "loss": 0.5}).to_string()), 1);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    redis.client().command(&["SET", "cascor:session:abc", "x"]);
    for key in [
        "cascor:session:abc",
        "cascor:session:absent",
        "cascor:ingest:test",
        "cascor:ingest:run:cascor:training",
        "cascor:metrics:latest",
        "cascor:control:latest",
        "trainer:own",
    ] {
        assert_closed(&mut trainer, key);
    }
    ADMINISTRATION.iter().for_each(|words| assert_refused(&mut trainer, words));
    for words in [
        &["SCAN", "0"][..],
        &["PUBLISH", "cascor:control", "pause"],
        &["PUBLISH", "cascor:control:ack", "{}"],
        &["SUBSCRIBE", TRAINING],
        &["PSUBSCRIBE", "*"],
        &["PUBSUB", "CHANNELS"],
        &["INFO"],
    ] {
        assert_refused(&mut trainer, words);
    }
    // It receives the commands for trainers.
    assert!(matches!(trainer.command(&["SUBSCRIBE", "cascor:control"]), Value::Array(_)));
    // The demo trains with this login.
    let mut demo = daemon.prepared(&["demo", "--for", "1s", "--set", "redis.username=trainer"]);
    let demo = demo.env("REDIS_PASSWORD", password(&dir, "trainer")).output().unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    // The variant of the page: this trainer may send commands.
    let page = include_str!("../../deploy/redis/README.md");
    let variant = page.split("append ` ").nth(1).unwrap().split('`').next().unwrap();
    redis.client().command(&["ACL", "SETUSER", "trainer", variant]);
    let mut trainer = login(&redis, &dir, "trainer");
    assert_eq!(trainer.publish("cascor:control", "status"), 2, "the daemon and the trainer above");
    assert_closed(&mut trainer, "cascor:session:abc");
}

#[test]
fn a_dashboard_reads_the_latest_values_alone() {
    let dir = tempfile::tempdir().unwrap();
    let redis = shared(&dir);
    let mut client = redis.client();
    let mut dashboard = login(&redis, &dir, "dashboard");
    let of_run = format!("cascor:topology:{RUN}:latest");
    for key in ["cascor:metrics:latest", "cascor:history:latest", "cascor:control:latest", &of_run] {
        client.command(&["SET", key, "1"]);
        assert_eq!(dashboard.command(&["GET", key]).text().as_deref(), Some("1"), "{key}");
        for words in [&["SET", key, "2"][..], &["DEL", key], &["EXPIRE", key, "1"], &["RENAME", key, "x"]] {
            assert_refused(&mut dashboard, words);
        }
    }
    for key in ["cascor:session:abc", "cascor:ingest:test", "cascor:ingest:run:x:latest", "somebody:else"] {
        assert_closed(&mut dashboard, key);
    }
    ADMINISTRATION.iter().for_each(|words| assert_refused(&mut dashboard, words));
    assert_refused(&mut dashboard, &["PUBLISH", TRAINING, "x"]);
    assert_refused(&mut dashboard, &["PUBLISH", "cascor:control", "pause"]);
}

#[test]
fn without_a_login_a_local_redis_is_for_trainers_and_dashboards() {
    let dir = tempfile::tempdir().unwrap();
    let redis = start(&dir, &users(&dir.path().join("passwords"), &["--local"]));
    let mut anybody = redis.client();
    for channel in [TRAINING, "cascor:control"] {
        assert_eq!(anybody.publish(channel, "x"), 0);
    }
    assert_eq!(anybody.command(&["GET", "cascor:metrics:latest"]), Value::Null);
    for key in ["cascor:session:abc", "cascor:ingest:test", "cascor:ingest:run:cascor:training", "somebody:else"] {
        assert_closed(&mut anybody, key);
    }
    ADMINISTRATION.iter().for_each(|words| assert_refused(&mut anybody, words));
    assert_refused(&mut anybody, &["SET", "cascor:metrics:latest", "x"]);
    assert_refused(&mut anybody, &["PUBLISH", "cascor:control:ack", "{}"]);
}

#[test]
fn the_page_shows_the_rule_of_the_file() {
    let page = include_str!("../../deploy/redis/README.md");
    let shown = page.split_once("ACL SETUSER ingest on >password ").unwrap().1.split("```").next().unwrap();
    let words = |text: &str| {
        let mut words: Vec<_> = text.split_whitespace().filter(|word| *word != "\\").map(str::to_owned).collect();
        words.sort();
        words
    };
    let file = include_str!("../../deploy/redis/ingest.acl").replace("user ingest on #PASSWORD ", "");
    assert_eq!(words(shown), words(&file));
}
