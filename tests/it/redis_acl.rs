//! ACL users: the permissions of a daemon, and the rule that is named for each missing one.

use std::{thread, time::Duration};

use cascor_ingest::{
    redis::{Config, open_subscription},
    secret::Secret,
};
use serde_json::json;

use crate::support::{
    daemon::{Builder, Daemon},
    http,
    redis::Redis,
    sqlite, wait_until,
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
const COUNT: &str = "SELECT count(*) FROM training_metrics";

/// The rule of the file for the daemon's user, but for its name and password.
fn shown_rule() -> Vec<String> {
    let file = include_str!("../../deploy/redis/ingest.acl");
    file.trim_end().strip_prefix("user ingest on #PASSWORD ").unwrap().split(' ').map(str::to_owned).collect()
}

/// A user with the rule of the file and these words, without the commands that only the command line needs.
fn user(redis: &Redis, name: &str, more: &[&str]) {
    let rule = shown_rule();
    let mut command = vec!["ACL", "SETUSER", name, "on", ">pw"];
    command.extend(rule.iter().map(String::as_str));
    command.extend(more);
    redis.client().command(&command);
}

fn daemon_of(redis: &Redis, name: &str) -> Builder {
    Daemon::on(redis).set("redis.username", format!("{name:?}")).env("REDIS_PASSWORD", "pw")
}

fn publish(redis: &Redis, channel: &str, epoch: u32) {
    let message = json!({"run_id": "a", "epoch": epoch, "loss": 0.5}).to_string();
    assert_eq!(redis.client().publish(channel, message), 1, "{channel}");
}

/// Whether the text names the user and the rule.
fn advises(text: &str, user: &str, rule: &str) -> bool {
    let advice = format!("`ACL SETUSER {user} ");
    text.split(&advice)
        .skip(1)
        .any(|rest| rest.split('`').next().unwrap_or_default().split(' ').any(|word| word == rule))
}

#[test]
fn the_rule_of_the_file_is_enough_for_everything() {
    let redis = Redis::start();
    user(&redis, "ingest", &[]);
    let mut daemon = daemon_of(&redis, "ingest").start_ready();
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    // The command line shares the login: a command and its receipt, the daemons there are, the keys.
    let receipts = daemon.succeed(&["control", "flush", "--wait", "--json"]);
    assert!(receipts.contains("\"done\""), "{receipts}");
    assert!(daemon.succeed(&["status", "--json"]).contains("\"test\""));
    publish(&redis, TRAINING, 2);
    wait_until("the history", LIMIT, || daemon.command(&["cache", "get", "history:latest", "--json"]).status.success());
    daemon.succeed(&["cache", "clear"]);
    daemon.succeed(&["runs", "tag", "a", "good"]);
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR") && !log.contains("NOPERM"), "{log}");
}

#[test]
fn a_missing_permission_of_the_daemon_is_named_with_its_acl_rule() {
    let redis = Redis::start();
    for (n, (missing, settings, rule)) in [
        (&["-set"][..], "", "+set"),
        (&["-getrange"], "", "+getrange"),
        (&["-strlen"], "", "+strlen"),
        (&["-del"], "", "+del"),
        (&["-info"], "", "+info"),
        (&["resetkeys"], "", "~cascor:*"),
        (&["-publish"], "", "+publish"),
        (&["resetchannels", "&cascor:training", "&cascor:control"], "", "&cascor:control:ack"),
        (&["-psubscribe"], "lab:*", "+psubscribe"),
        (&[], "lab:*", "&lab:*"),
        (&[], "lab", "&lab"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("lacks{n}");
        user(&redis, &name, missing);
        let mut daemon = daemon_of(&redis, &name);
        if !settings.is_empty() {
            daemon = daemon.set("redis.training_channels", format!("[\"cascor:training\", {settings:?}]"));
        }
        let mut daemon = daemon.start();
        wait_until("the subscription", LIMIT, || redis.subscribers(TRAINING) == 1);
        publish(&redis, TRAINING, 1);
        daemon.wait_rows(COUNT, 1);
        wait_until("control", LIMIT, || redis.subscribers("cascor:control") == 1);
        redis.client().publish("cascor:control", "status");
        if rule == "+del" {
            let receipts = daemon.succeed(&["control", "reset", "--wait", "--json"]);
            assert!(advises(&receipts, &name, rule), "{receipts}");
            assert!(daemon.terminate().success());
        }
        wait_until(&format!("{missing:?} named"), LIMIT, || advises(&daemon.log(), &name, rule));
        assert!(!daemon.log().contains("refuses the login"), "{}", daemon.log());
    }
}

#[test]
fn a_missing_permission_to_subscribe_is_in_the_status() {
    let redis = Redis::start();
    for (n, (missing, rule)) in [
        (&["-subscribe"][..], "+subscribe"),
        (&["resetchannels"], "&cascor:training"),
        (&["resetchannels", "-client|info"], "&cascor:training"),
        (&["-subscribe", "-client|info"], "+subscribe"),
        (&["resetchannels", "-ping", "-client|info"], "&cascor:training"),
        (&["resetchannels", "-ping"], "&cascor:training"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("deaf{n}");
        user(&redis, &name, missing);
        let mut daemon = daemon_of(&redis, &name).start();
        daemon.wait_http("/readyz", 503);
        let told = |daemon: &Daemon| daemon.get("/api/status").json()["redis"].to_string();
        wait_until(&format!("{missing:?} in the status"), LIMIT, || advises(&told(&daemon), &name, rule));
        assert!(!told(&daemon).contains("login"), "{}", told(&daemon));
        redis.client().command(&["ACL", "SETUSER", &name, "+subscribe", "+ping", "allchannels"]);
        daemon.wait_ready();
        publish(&redis, TRAINING, 1);
        daemon.wait_rows(COUNT, 1);
    }
}

#[test]
fn a_database_that_may_not_be_selected_is_named_and_messages_are_received_all_the_same() {
    let redis = Redis::start();
    user(&redis, "elsewhere", &["-select"]);
    let url = format!("redis://127.0.0.1:{}/3", redis.port);
    let daemon = Daemon::at(&url).set("redis.username", "\"elsewhere\"").env("REDIS_PASSWORD", "pw").start_ready();
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    wait_until("the right in the log", LIMIT, || advises(&daemon.log(), "elsewhere", "+select"));
}

#[test]
fn a_daemon_without_ping_or_client_info_still_receives() {
    let redis = Redis::start();
    for (n, missing) in [&["-ping"][..], &["-client|info"], &["-ping", "-client|info"]].into_iter().enumerate() {
        let name = format!("quiet{n}");
        user(&redis, &name, missing);
        let mut daemon = daemon_of(&redis, &name).start_ready();
        // Longer than the silence after which a connection counts as lost.
        thread::sleep(Duration::from_secs(5));
        publish(&redis, TRAINING, 1);
        daemon.wait_rows(COUNT, 1);
        assert_eq!(sqlite::count(&daemon.database(), "SELECT count(*) FROM ingest_gaps"), 0, "{missing:?}");
        assert!(daemon.terminate().success());
        assert!(!daemon.log().contains("lost the connection"), "{missing:?}: {}", daemon.log());
    }
}

#[test]
fn a_missing_permission_of_sessions_is_logged_and_not_shown_at_sign_in() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, "ann admin 0123456789abcdef\n").unwrap();
    user(&redis, "brief", &["-getrange"]);
    let tokens = format!("{:?}", path.display().to_string());
    let daemon = daemon_of(&redis, "brief").set("http.tokens_file", tokens).start_ready();
    let token = json!({"token": "0123456789abcdef"}).to_string();
    let signed = http::post(daemon.http_port(), "/api/session", &token).unwrap();
    assert_eq!(signed.status, 201, "{}", signed.body);
    let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let refused = http::send(daemon.http_port(), "GET", "/api/session", &[("Cookie", &cookie)], "").unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("log") && !refused.body.contains("brief"), "{}", refused.body);
    assert!(advises(&daemon.log(), "brief", "+getrange"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_is_never_taken_for_one_in_force() {
    let server = Redis::start();
    user(&server, "half", &["resetchannels", "&cascor:control"]);
    user(&server, "blind", &["resetchannels", "&cascor:control", "-client|info"]);
    user(&server, "silent", &["resetchannels", "&cascor:control", "-client|info", "-ping"]);
    for name in ["half", "blind", "silent"] {
        let config = Config {
            url: server.url(),
            username: Some(name.to_owned()),
            password: Some(Secret::new("pw")),
            ..Config::default()
        };
        for round in 0..100 {
            let mut opened = open_subscription(&config).await.unwrap();
            for (channel, allowed) in [("cascor:control", true), (TRAINING, false), ("lab:*", false)] {
                let refused = opened.subscription.subscribe(channel).await.unwrap();
                assert_eq!(refused.is_none(), allowed, "{name} {round} {channel}: {refused:?}");
            }
        }
    }
}

#[test]
fn a_missing_permission_of_a_command_is_named_with_its_acl_rule() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    publish(&redis, TRAINING, 1);
    daemon.wait_rows(COUNT, 1);
    let url = format!("redis://127.0.0.1:{}/0", redis.port);
    for (n, (missing, database, command, rule)) in [
        (&["-scan"][..], "0", &["status"][..], "+scan"),
        (&["-getrange"], "0", &["status"], "+getrange"),
        (&["-strlen"], "0", &["cache", "get", "history:latest"], "+strlen"),
        (&["resetkeys"], "0", &["cache", "get", "history:latest"], "~cascor:*"),
        (&["-del"], "0", &["cache", "clear"], "+del"),
        (&["resetkeys"], "0", &["cache", "clear"], "~cascor:*"),
        (&["-publish"], "0", &["control", "flush"], "+publish"),
        (&["resetchannels"], "0", &["control", "flush"], "&cascor:control"),
        (&["resetchannels", "&cascor:control"], "0", &["control", "flush", "--wait"], "&cascor:control:ack"),
        (&["resetchannels"], "0", &["demo", "--for", "2s"], "&cascor:control"),
        (&["-publish"], "0", &["demo", "--for", "2s"], "+publish"),
        (&["-xadd"], "0", &["demo", "--for", "2s", "--stream", "cascor:training:stream"], "+xadd"),
        (&["+xadd", "resetkeys"], "0", &["demo", "--for", "2s", "--stream", "cascor:training:stream"], "~cascor:*"),
        (&[], "3", &["status"], "+select"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("cli{n}");
        user(&redis, &name, missing);
        let (login, place) = (format!("redis.username={name}"), url.replace("/0", &format!("/{database}")));
        let set = format!("redis.url={place}");
        let mut command = daemon.prepared(&[&["--set", &login, "--set", &set], command].concat());
        let output = command.env("REDIS_PASSWORD", "pw").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && advises(&said, &name, rule), "{command:?} {missing:?}: {said}");
    }
    assert!(daemon.terminate().success());
}
