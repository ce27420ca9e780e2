use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_this_build_parses() {
    let run = "6f0c0000-0000-4000-8000-000000000001";
    for line in [
        "run",
        "run --config a.toml --set spool.capacity=1GiB",
        "demo --rate 10000 --runs 8 --for 60s",
        "demo --no-run-id --format msgpack --seed 7 --epochs 50 --max-hidden 3 --channel x",
        "check --print --json",
        "schema plan",
        "schema apply --wait 60s --replication NetworkTopologyStrategy:dc1=3,dc2=2",
        "schema apply --dir schema/pekko",
        "schema verify",
        "schema print",
        "status",
        "status n1 --json",
        "runs --status running --dataset x --limit 5",
        &format!("show {run}"),
        &format!("metrics {run} --limit 3 --ascending"),
        "control pause --wait --timeout 5s --target ingest",
        "spool status",
        "spool verify",
        "deadletter list --reason too_deep",
        "deadletter show 1-2",
        "--log-level debug --log-format json --store cassandra --instance a --state-dir d status",
    ] {
        let words = ["cascor-ingest"].into_iter().chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
}

#[test]
fn what_does_not_fit_is_a_usage_error() {
    for line in [
        "",
        "nosuch",
        "demo --runs 0",
        "demo --for 5",
        "show no-uuid",
        "control",
        "schema",
        "check --set x",
        "doctor",
        "gaps",
        "tail",
    ] {
        let words = ["cascor-ingest"].into_iter().chain(line.split_whitespace());
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn exit_statuses_are_the_contracts() {
    for (error, status) in [
        (CliError::Config(Problems(vec!["x".into()])), 78),
        (CliError::Usage("x".into()), 2),
        (CliError::failed("x", "y"), 1),
        (CliError::No("x".into()), 1),
    ] {
        assert_eq!(error.exit_status(), status, "{error}");
    }
}

#[test]
fn flags_become_keys() {
    let cli = Cli::try_parse_from(["x", "status", "--store", "cassandra", "--set", "writer.batch_rows=7"]).unwrap();
    let flags = cli.global.sources().flags;
    assert!(flags.contains(&("store.kind".into(), "cassandra".into())));
    assert!(flags.contains(&("writer.batch_rows".into(), "7".into())));
}
