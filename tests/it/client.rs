//! External clients, written only against the published contract: `tests/client` with requests, redis-py and cassandra-driver, and a
//! sweep that is managed with nothing but Python's standard library; and the tests of the Python package, `tests/client/trainer`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    api::both,
    run_edits::started,
    support::{
        cassandra::{Cassandra, python},
        daemon::{Builder, Daemon, INSTANCE, binary},
        ports::free_port,
        redis::Redis,
        repository, skip,
    },
};

const CHANNELS: &str = "[\"cascor:training\", \"cascor:topology\"]";
const TOKEN: &str = "admin-token-0123456789";

/// The interpreter with these packages and a script of `tests/client`, or the reason to skip.
fn interpreter(script: &str, packages: &str) -> Result<Command, String> {
    let python = python().ok_or("CASCOR_TEST_PYTHON is not set")?;
    let import = Command::new(&python).args(["-c", &format!("import {packages}")]).stderr(Stdio::null()).status();
    if !import.is_ok_and(|status| status.success()) {
        return Err(format!("not all there: {packages}"));
    }
    let mut command = Command::new(python);
    command.arg(repository(&format!("tests/client/{script}"))).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Runs one part of the client against a daemon; `more` holds further arguments.
#[track_caller]
fn play(mut client: Command, part: &str, redis: &Redis, daemon: &Daemon, more: &Value) {
    let mut place = json!({
        "url": format!("http://127.0.0.1:{}", daemon.http_port()), "redis_port": redis.port, "instance": INSTANCE,
    });
    place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let output = client.args([part, &place.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "see above; the daemon's log:\n{}", daemon.log());
}

fn walk(client: Command, builder: Builder, redis: &Redis, store: &Value) {
    let mut daemon = builder.set("redis.training_channels", CHANNELS).prepare();
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    let mut store = store.clone();
    if store["store"] == "sqlite" {
        store["database"] = json!(daemon.database());
    }
    play(client, "walk", redis, &daemon, &store);
}

#[test]
fn a_client_of_the_contract_finds_everything_in_sqlite() {
    let client = match interpreter("contract.py", "requests, redis") {
        Ok(client) => client,
        Err(why) => return skip("a_client_of_the_contract_finds_everything_in_sqlite", &why),
    };
    let redis = Redis::start();
    walk(client, Daemon::on(&redis), &redis, &json!({"store": "sqlite"}));
}

#[test]
fn a_client_of_the_contract_finds_everything_in_cassandra() {
    let name = "a_client_of_the_contract_finds_everything_in_cassandra";
    let client = match interpreter("contract.py", "requests, redis, cassandra") {
        Ok(client) => client,
        Err(why) => return skip(name, &why),
    };
    let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
    let redis = Redis::start();
    let store = json!({
        "store": "cassandra", "host": cassandra.host, "port": cassandra.port, "keyspace": cassandra.keyspace,
    });
    walk(client, Daemon::on(&redis).cassandra(&cassandra), &redis, &store);
}

#[test]
fn a_client_of_the_contract_needs_a_token_where_one_is_needed() {
    let name = "a_client_of_the_contract_needs_a_token_where_one_is_needed";
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    let file = format!("{:?}", tokens.display().to_string());
    let redis = Redis::start();
    for (part, host, file) in
        [("tokens", "127.0.0.1", Some(&file)), ("tokens", "0.0.0.0", Some(&file)), ("network", "0.0.0.0", None)]
    {
        let client = match interpreter("contract.py", "requests, redis") {
            Ok(client) => client,
            Err(why) => return skip(name, &why),
        };
        let mut builder = Daemon::on(&redis).listen_on(host).set("redis.training_channels", CHANNELS);
        let mut more = json!({});
        if let Some(file) = file {
            builder = builder.set("http.tokens_file", file);
            more["token"] = json!(TOKEN);
        }
        play(client, part, &redis, &builder.start_ready(), &more);
    }
}

#[test]
fn a_client_of_the_contract_learns_that_the_store_is_absent() {
    let client = match interpreter("contract.py", "requests, redis") {
        Ok(client) => client,
        Err(why) => return skip("a_client_of_the_contract_learns_that_the_store_is_absent", &why),
    };
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("store.kind", "\"cassandra\"")
        .set("store.cassandra.contact_points", "[\"127.0.0.1\"]")
        .set("store.cassandra.port", free_port().to_string())
        .start_ready();
    play(client, "storeless", &redis, &daemon, &json!({}));
}

/// Runs one file of the tests of the Python package; each starts a Redis and a daemon of its own.
#[track_caller]
fn trainer(name: &str, file: &str) {
    let mut client = match interpreter(&format!("trainer/{file}.py"), "redis") {
        Ok(client) => client,
        Err(why) => return skip(name, &why),
    };
    let output = client.env("CASCOR_TEST_BINARY", binary()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.lines().any(|line| line == "OK"), "no test ran:\n{said}");
}

#[test]
fn python_package_ends_runs_as_their_programs_end() {
    trainer("python_package_ends_runs_as_their_programs_end", "test_endings");
}

#[test]
fn python_package_publishes_what_is_logged() {
    trainer("python_package_publishes_what_is_logged", "test_messages");
}

#[test]
fn python_package_drops_exactly_what_gaps_count() {
    trainer("python_package_drops_exactly_what_gaps_count", "test_outages");
}

#[test]
fn python_package_publishes_on_a_stream() {
    trainer("python_package_publishes_on_a_stream", "test_streams");
}

#[test]
fn python_package_publishes_nothing_from_workers() {
    trainer("python_package_publishes_nothing_from_workers", "test_processes");
}

#[test]
fn python_package_obeys_commands() {
    trainer("python_package_obeys_commands", "test_commands");
}

#[test]
fn python_package_has_callbacks() {
    trainer("python_package_has_callbacks", "test_callbacks");
}

#[test]
fn python_package_converts_runs_of_other_tools() {
    trainer("python_package_converts_runs_of_other_tools", "test_convert");
}

/// Manages a sweep on a daemon that has reached its store.
#[track_caller]
fn sweep(daemon: &Daemon, token: Option<&str>) {
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let mut script = Command::new(python().unwrap());
    script.arg(repository("tests/client/sweep.py")).args([&url, &binary()]).current_dir(daemon.state_dir());
    script.env("PYTHONDONTWRITEBYTECODE", "1").envs(token.map(|token| ("CASCOR_INGEST_TOKEN", token)));
    let output = script.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\nthe daemon's log:\n{}", daemon.log());
}

#[test]
fn a_sweep_is_managed_by_http_and_the_command_line_alone() {
    let name = "a_sweep_is_managed_by_http_and_the_command_line_alone";
    if python().is_none() {
        return skip(name, "CASCOR_TEST_PYTHON is not set");
    }
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    both(name, |builder, _| sweep(&started(builder), None));
    let redis = Redis::start();
    let guarded = Daemon::on(&redis).set("http.tokens_file", format!("{:?}", tokens.display().to_string()));
    sweep(&guarded.start_ready(), Some(TOKEN));
}
