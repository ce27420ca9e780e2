//! On a terminal, text from Redis, messages or the store is escaped; in a pipe every byte is kept.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{daemon::Daemon, process::Process, redis::Redis, sqlite, wait_for, wait_until};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
/// Sets the title, changes colours (7 bits and 8), hides and turns text around, writes over the line.
const HOSTILE: &str = "\u{1b}]0;pwned\u{7}\u{1b}[31m\u{9b}31m\u{202e}\u{200b}\u{feff}\u{7f}pwned\rx\u{8}";

/// Characters in the text that a terminal interprets, except for line ends.
fn unsafe_in(shown: &str) -> String {
    let is_unsafe = |c: &char| {
        // An ellipsis, which shows that text was cut, lies within the range of characters without width.
        let is_invisible = ('\u{200b}'..='\u{206f}').contains(c) && *c != '…' || *c == '\u{feff}';
        c.is_control() && *c != '\n' && *c != '\t' || is_invisible
    };
    shown.replace("\r\n", "\n").chars().filter(is_unsafe).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The same command on a terminal of its own.
fn on_terminal(command: &Command, more: &str) -> Command {
    on_terminal_of(command, 4_000, more)
}

/// The same with so many columns.
pub fn on_terminal_of(command: &Command, columns: u16, more: &str) -> Command {
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| quoted(word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols {columns} rows 50; {} {more}", words.join(" ")), "/dev/null"]);
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    script.current_dir(command.get_current_dir().unwrap());
    script
}

/// Terminal output of a command, both streams or, with `2>FILE` in `more`, one.
fn seen(daemon: &Daemon, arguments: &[&str], more: &str) -> String {
    output_of(on_terminal(&daemon.prepared(arguments), more))
}

pub fn output_of(mut script: Command) -> String {
    // Standard input stays open: its end would be echoed.
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8(output.stdout).unwrap_or_else(|error| panic!("{script:?}: {error}"))
}

fn publish(redis: &Redis, message: impl Into<String>) {
    redis.client().publish(TRAINING, message.into());
}

/// A daemon whose store, dead letters, spool and keys hold messages of a hostile trainer.
fn attacked(redis: &Redis) -> (Daemon, String) {
    let daemon = Daemon::on(redis)
        .set("latest.metrics_ttl", "\"1h\"")
        .set("redis.training_channels", "[\"cascor:training\", \"lab:*\"]")
        .start_ready();
    let at = jiff::Timestamp::now().as_second();
    let start = json!({"type": "training_start", "run_id": HOSTILE, "timestamp": at, "notes": HOSTILE,
        "config": {HOSTILE: HOSTILE}, "tags": [HOSTILE], "dataset": HOSTILE, "created_by": HOSTILE});
    publish(redis, start.to_string());
    for epoch in 0..3 {
        let row = json!({"type": "metrics", "run_id": HOSTILE, "timestamp": at + epoch, "seq": epoch * 2, "data":
            {"epoch": epoch, "train_loss": 0.5, "phase": HOSTILE, HOSTILE: 1.0, "more": HOSTILE}});
        publish(redis, row.to_string());
    }
    publish(redis, json!({"type": HOSTILE, "run_id": HOSTILE, "timestamp": at, "data": {"x": HOSTILE}}).to_string());
    redis.client().publish(&format!("lab:{HOSTILE}"), format!("no JSON {HOSTILE}"));
    let command = json!({"command": HOSTILE, "target": HOSTILE, "id": "1"});
    redis.client().publish("cascor:control", command.to_string());
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    wait_until("the run's name", LIMIT, || {
        sqlite::count(&daemon.database(), "SELECT count(*) FROM training_runs WHERE run_name IS NOT NULL") == 1
    });
    wait_until("the dead letter", LIMIT, || daemon.metric("cascor_deadletter_stored").is_some_and(|kept| kept >= 1.0));
    let mut client = redis.client();
    client.command(&["SET", "cascor:odd:latest", &format!("a{HOSTILE}\nb\t")]);
    let status = json!({"phase": HOSTILE, HOSTILE: HOSTILE}).to_string();
    client.command(&["SET", &format!("cascor:ingest:{HOSTILE}\nforged"), &status]);
    let run = daemon.get("/api/runs").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    (daemon, run)
}

#[test]
fn no_command_lets_a_message_steer_the_terminal() {
    let redis = Redis::start();
    let (mut daemon, run) = attacked(&redis);
    let run = run.as_str();
    for arguments in [
        &["runs"][..],
        &["runs", "--json"],
        &["show", run],
        &["show", run, "--json"],
        &["metrics", run],
        &["metrics", run, "--json"],
        &["metrics", run, "--field", HOSTILE],
        &["compare", run, run, "--field", HOSTILE],
        &["compare", run, run, "--json"],
        &["tail", run, "--for", "50ms"],
        &["tail", run, "--for", "50ms", "--json"],
        &["export", run],
        &["export", run, "--format", "ndjson"],
        &["export", run, "--format", "json", "--table", "training_events"],
        &["gaps", "--run", run],
        &["gaps", "--json"],
        &["cache", "get", "odd:latest"],
        &["cache", "get", "odd:latest", "--json"],
        &["cache", "get", "metrics:latest"],
        &["deadletter", "list"],
        &["deadletter", "list", "--json"],
        &["deadletter", "show", "0"],
        &["deadletter", "show", "0", "--raw"],
        &["deadletter", "show", "0", "--json"],
        &["deadletter", "export"],
        &["deadletter", "replay"],
        &["status"],
        &["status", "--json"],
        &["control", "status", "--wait", "--timeout", "300ms"],
        &["show", HOSTILE],
        &["show", "pwned"],
        &["spool", "status"],
    ] {
        // Progress is drawn on standard error: there, escape sequences are ours.
        let more = if arguments[0] == "export" || arguments.contains(&"replay") { "2>/dev/null" } else { "" };
        // A status has a colour of ours.
        let shown = seen(&daemon, arguments, more).replace("\u{1b}[36m", "").replace("\u{1b}[0m", "");
        assert_eq!(unsafe_in(&shown), "", "{arguments:?}: {shown:?}");
        let silent = [&["gaps"][..], &["spool", "status"], &["compare", run, run, "--json"]];
        let silent = silent.iter().any(|silent| arguments.starts_with(silent)) || arguments.contains(&"replay");
        assert!(silent || shown.contains("pwned"), "{arguments:?} shows what it is about: {shown:?}");
    }
    let shown = seen(&daemon, &["cache", "get", "odd:latest"], "");
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines.len() == 3 && lines[2].starts_with("cascor:odd:latest "), "a value cannot forge a line: {shown:?}");
    let shown = seen(&daemon, &["status"], "");
    assert!(!shown.lines().any(|line| line.trim_start().starts_with("forged")), "{shown:?}");
    assert!(daemon.terminate().success());
    for arguments in [&["spool", "export"][..], &["spool", "verify"], &["deadletter", "export"]] {
        let shown = seen(&daemon, arguments, "");
        assert_eq!(unsafe_in(&shown), "", "{arguments:?}: {shown:?}");
    }
}

#[test]
fn a_terminal_that_does_not_know_its_width_shows_whole_words() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    publish(&redis, json!({"run_id": "spiral", "epoch": 1, "loss": 0.5}).to_string());
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    let widest = |columns: Option<&str>| {
        let mut script = on_terminal_of(&daemon.prepared(&["runs"]), 0, "");
        script.envs(columns.map(|columns| ("COLUMNS", columns)));
        let shown = output_of(script);
        shown.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or_default()
    };
    let usual = widest(None);
    assert!((40..=80).contains(&usual), "{usual}");
    assert!(usual > 50, "{usual}");
    let told = widest(Some("50"));
    assert!((30..=50).contains(&told), "{told}");
}

#[test]
fn a_watched_status_is_drawn_again_in_place_until_it_is_interrupted() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    wait_until("its status", LIMIT, || client.get_json("cascor:ingest:test").is_some());
    let watched = daemon.prepared(&["status", "--watch", "500ms"]);
    let mut interrupted = Command::new("timeout");
    interrupted.args(["--signal", "INT", "4"]).arg(watched.get_program()).args(watched.get_args());
    interrupted.current_dir(watched.get_current_dir().unwrap()).env_clear();
    interrupted.envs(watched.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let shown = output_of(on_terminal_of(&interrupted, 80, ""));
    let draws: Vec<_> = shown.split("\u{1b}[H\u{1b}[J").skip(1).collect();
    assert!(draws.len() >= 2, "{shown:?}");
    assert!(draws.iter().all(|draw| draw.starts_with("test: OK - receiving ")), "{shown:?}");
    assert_eq!(unsafe_in(&draws.concat()), "", "{shown:?}");
}

#[test]
fn a_program_gets_every_byte() {
    let redis = Redis::start();
    let (daemon, run) = attacked(&redis);
    let run = run.as_str();
    let value = format!("a{HOSTILE}\nb\t");
    assert_eq!(daemon.succeed(&["cache", "get", "odd:latest"]), format!("{value}\n"));
    assert_eq!(daemon.succeed(&["deadletter", "show", "0", "--raw"]), format!("no JSON {HOSTILE}"));
    let rows = daemon.succeed(&["export", run, "--format", "ndjson"]);
    assert_eq!(rows, daemon.get(&format!("/api/export?format=ndjson&run_id={run}")).body);
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&row["phase"], &row["extra"][HOSTILE]), (&json!(HOSTILE), &json!(1.0)));
    let csv = daemon.succeed(&["export", run]);
    assert!(csv.contains(HOSTILE) && csv.contains("\r\n"), "{csv:?}");
}

#[test]
fn the_log_of_a_daemon_on_a_terminal_is_escaped_too() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("log.level", "\"info,cascor_ingest::intake=debug\"").prepare();
    let log = daemon.state_dir().join("seen.log");
    // A path is logged as it is.
    let state = daemon.state_dir().join("pwned\u{9b}\u{202e}\u{200b}");
    let run = daemon.prepared(&["run", "--state-dir", state.to_str().unwrap()]);
    let _process = Process::spawn(&mut on_terminal(&run, ""), &log);
    wait_until("the daemon", LIMIT, || redis.subscribers("cascor:control") == 1);
    let command = json!({"command": HOSTILE, "target": "ingest", "id": "1"}).to_string();
    redis.client().publish("cascor:control", command);
    publish(&redis, format!("no JSON {HOSTILE}"));
    let text = || String::from_utf8(fs::read(&log).unwrap()).unwrap_or_default();
    wait_until("both in the log", LIMIT, || text().matches("pwned").count() >= 5);
    // The lock file of its spool names the process, which is not a child of this one.
    let pid = wait_for("the process", LIMIT, || fs::read_to_string(state.join("spool/lock")).ok()?.trim().parse().ok());
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM).unwrap();
    wait_until("its end", LIMIT, || text().contains("stopped"));
    let shown = text();
    assert!(shown.contains("\u{1b}[2m"), "our own colours stay: {shown:?}");
    // The end of standard input is echoed.
    let mut rest = shown.replace("^D\u{8}\u{8}", "");
    for code in [0, 1, 2, 3, 31, 32, 33, 34] {
        // Messages have lost their escape characters; the remaining sequences are the program's own.
        rest = rest.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(unsafe_in(&rest), "", "{shown:?}");
}
