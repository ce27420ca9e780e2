//! One way to reach a daemon: every command that asks one takes it from a flag, a variable or the settings.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::{
    support::{daemon::Daemon, redis::Redis, wait_until},
    tools::{LIMIT, RUN, TRAINING, metrics, stderr},
};

const READER: &str = "0123456789reader";
const ADMIN: &str = "0123456789admin0";

/// A daemon with tokens, three rows (one number is missing) and a dead letter.
fn filled(redis: &Redis, dir: &Path) -> Daemon {
    let tokens = dir.join("tokens");
    fs::write(&tokens, format!("bob read {READER}\nann admin {ADMIN}\n")).unwrap();
    let daemon = Daemon::on(redis).set("http.tokens_file", format!("{tokens:?}")).start_ready();
    let mut client = redis.client();
    for seq in [1, 2, 4] {
        client.publish(TRAINING, metrics(seq));
    }
    client.publish(TRAINING, "{broken");
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    wait_until("the dead letter", LIMIT, || daemon.metric("cascor_deadletter_stored") == Some(1.0));
    daemon
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_that_asks_a_daemon_takes_it_from_flag_variable_or_settings() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let daemon = filled(&redis, dir.path());
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let (one, both) = (dir.path().join("one"), dir.path().join("tokens"));
    fs::write(&one, ADMIN).unwrap();
    let (one, both) = (one.to_str().unwrap(), both.to_str().unwrap());
    // No state, no database and a Redis that does not exist: only the daemon can answer.
    let nothing = || Daemon::at("redis://127.0.0.1:1/0").set("instance", "\"elsewhere\"");
    let plain = nothing().prepare();
    let by_variable = nothing().env("CASCOR_INGEST_URL", &url).env("CASCOR_INGEST_TOKEN", ADMIN).prepare();
    let by_file = nothing().env("CASCOR_INGEST_URL", &url).env("CASCOR_INGEST_TOKEN_FILE", both).prepare();
    let by_settings =
        nothing().set("client.url", format!("{url:?}")).set("client.token_file", format!("{both:?}")).prepare();
    for (arguments, shown) in [
        (&["status"][..], "test: OK"),
        (&["status", "--json"], "\"verdict\""),
        (&["gaps", "--reason", "disconnected"], "no gaps"),
        (&["gaps", "--reason", "disconnected", "--json"], "\"count\":0"),
        (&["gaps", "--run", RUN, "--reason", "sequence"], "seq 1 to 4: 3 stored, 1 missing"),
        (&["control", "flush", "--wait"], "done"),
        (&["control", "status"], "test"),
        (&["control", "stop", "--target", "trainer"], "no receipt yet"),
        (&["runs"], "6f0c853b"),
        (&["runs", "tag", RUN, "swept"], ""),
        (&["show", RUN], "6f0c853b"),
        (&["metrics", RUN, "--since", "1h"], "0.5"),
        (&["compare", RUN, RUN], "6f0c853b"),
        (&["export", RUN, "--until", "0s"], "train_loss"),
        (&["tail", RUN, "--for", "50ms"], "0.5"),
    ] {
        let flags = [arguments, &["--url", &url, "--token-file", one]].concat();
        for (client, arguments) in
            [(&plain, &flags[..]), (&by_variable, arguments), (&by_file, arguments), (&by_settings, arguments)]
        {
            let found = client.succeed(arguments);
            assert!(found.contains(shown), "{arguments:?}: {found}");
        }
    }
    // The variable comes before the settings, the flag before both; the token of the settings is for their address alone.
    let other = nothing()
        .env("CASCOR_INGEST_URL", &url)
        .set("client.url", "\"http://127.0.0.1:1\"")
        .set("client.token_file", format!("{both:?}"))
        .prepare();
    let refused = other.command(&["runs"]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("wants a token"), "{}", stderr(&refused));
    other.succeed(&["runs", "--token-file", one]);
    let away = other.command(&["runs", "--url", "http://127.0.0.1:1", "--token-file", one]);
    assert!(stderr(&away).contains("failed to reach `127.0.0.1:1`"), "{}", stderr(&away));
    // A token that only reads is told so, and an answer by HTTP is the same as that of the store.
    let reader =
        plain.prepared(&["control", "pause", "--url", &url]).env("CASCOR_INGEST_TOKEN", READER).output().unwrap();
    assert_eq!(reader.status.code(), Some(1), "{}{}", stdout(&reader), stderr(&reader));
    for arguments in [&["gaps", "--run", RUN, "--json"][..], &["gaps", "--json", "--since", "1h"]] {
        let here: Value = serde_json::from_str(&daemon.succeed(arguments)).unwrap();
        let there: Value = serde_json::from_str(&by_settings.succeed(arguments)).unwrap();
        assert_eq!(here, there, "{arguments:?}");
    }
}

#[test]
fn dead_letters_are_read_where_they_are_and_elsewhere_it_is_said_where() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let daemon = filled(&redis, dir.path());
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let listed = daemon.succeed(&["deadletter", "list", "--url", &url]);
    assert!(listed.contains("malformed_json"), "the daemon's directory is that of these settings: {listed}");
    let other = Daemon::on(&redis).set("instance", "\"other\"").start_ready();
    redis.client().publish(TRAINING, "{broken");
    for arguments in [&["list"][..], &["show", "0"], &["export"], &["replay"], &["drop", "--all"]] {
        let all = [&["deadletter"], arguments, &["--url", &url]].concat();
        let refused = other.prepared(&all).env("CASCOR_INGEST_TOKEN", READER).output().unwrap();
        let error = stderr(&refused);
        assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""), "{arguments:?}: {error}");
        assert!(error.contains("`test` has ") && error.contains("cannot be read or changed by HTTP"), "{error}");
    }
    assert!(other.succeed(&["deadletter", "list"]).contains("malformed_json"), "its own are untouched");
}

#[test]
fn a_flag_without_effect_is_refused_by_its_name() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let asked = |arguments: &[&str]| [arguments, &["--url", &url]].concat().into_iter().map(str::to_owned).collect();
    let not_asked = |arguments: &[&str]| arguments.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (asked(&["runs", "--store", "cassandra"]), 2, "--store has no effect"),
        (asked(&["status", "--redis-url", "redis://127.0.0.1:1"]), 2, "--redis-url has no effect"),
        (asked(&["deadletter", "list", "--state-dir", "/tmp"]), 2, "--state-dir has no effect"),
        (asked(&["runs", "--instance", "x"]), 2, "--instance has no effect"),
        (asked(&["gaps", "--instance", "x"]), 0, ""),
        (asked(&["status", "--look-in", "/tmp"]), 2, "--look-in has no effect"),
        (asked(&["control", "pause", "--channel", "x"]), 2, "--channel has no effect"),
        (asked(&["spool", "status"]), 2, "unexpected argument '--url'"),
        (asked(&["cache", "clear"]), 2, "unexpected argument '--url'"),
        (not_asked(&["runs", "--token-file", "/tmp/x"]), 2, "--token-file has no effect: no daemon is asked"),
        (not_asked(&["control", "pause", "--insecure-token"]), 2, "--insecure-token has no effect"),
        (not_asked(&["deadletter", "list", "--ca", "/tmp/x"]), 2, "--ca has no effect"),
        (not_asked(&["control", "flush", "--timeout", "1s"]), 2, "--wait"),
        (not_asked(&["control", "pasue"]), 2, "`pasue`: did you mean `pause`?"),
        (not_asked(&["runs", "--instance", "x"]), 2, "--instance has no effect: runs are those of the store"),
        (not_asked(&["control", "pause", "--instance", "x"]), 2, "--target NAME sends to one daemon"),
        (not_asked(&["status", "--instance", "nosuch"]), 1, "no daemon `nosuch` has reported its status"),
        (not_asked(&["status", "--instance", "test"]), 0, ""),
        (not_asked(&["status", "test", "--instance", "x"]), 2, "`test` and --instance x name two daemons"),
        (not_asked(&["runs", "--url", "ftp://x"]), 2, "`ftp://x` is no address of a daemon"),
    ];
    for (arguments, code, error) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = daemon.command(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(error), "{arguments:?}: {}", stderr(&output));
    }
    // A command that only trainers know is recorded, and no daemon obeys it.
    daemon.succeed(&["control", "checkpoint", "--any", "--wait"]);
    daemon.wait_rows("SELECT count(DISTINCT command) FROM control_log WHERE command = 'checkpoint'", 1);
    let check = daemon.command(&["check", "--set", "client.token_file=/x", "--set", "client.url="]);
    assert_eq!(check.status.code(), Some(78));
    assert!(stderr(&check).contains("`client.token_file` is for the daemon at `client.url`"), "{}", stderr(&check));
}

#[test]
fn a_directory_without_state_is_an_error_that_names_it() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let daemon = Daemon::on(&redis).start_ready();
    let (absent, empty) = (dir.path().join("absent"), dir.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    for missing in [&absent, &empty] {
        let missing = missing.to_str().unwrap();
        for (arguments, names) in [
            (&["runs"][..], "cascor.db"),
            (&["show", RUN], "cascor.db"),
            (&["gaps"], "cascor.db"),
            (&["export", RUN], "cascor.db"),
            (&["tail"], "cascor.db"),
            (&["deadletter", "list"], "deadletter"),
            (&["deadletter", "drop", "--all"], "deadletter"),
            (&["deadletter", "replay"], "deadletter"),
            (&["spool", "status"], "spool"),
            (&["spool", "verify"], "spool"),
        ] {
            let output = daemon.command(&[arguments, &["--state-dir", missing]].concat());
            let expected = format!("`{missing}/{names}`");
            assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{arguments:?}");
            assert!(stderr(&output).contains(&expected), "{arguments:?}: {}", stderr(&output));
        }
        for command in ["status", "verify", "export", "drain"] {
            let output = daemon.command(&["spool", command, missing]);
            assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{command}");
            assert!(stderr(&output).contains(&format!("`{missing}`")), "{command}: {}", stderr(&output));
        }
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "nothing is made there");
    let none: Value = serde_json::from_str(&daemon.succeed(&["runs", "--json"])).unwrap();
    assert_eq!(none["runs"], json!([]), "a database without runs is no error");
    assert!(daemon.succeed(&["deadletter", "list"]).contains("no dead letters"));
}
