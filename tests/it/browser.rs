//! The dashboard, and pages of other origins, in a real browser, driven by the scripts of `tests/browser`.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    serve::serve,
    support::{
        cassandra::python,
        daemon::{Builder, Daemon},
        ports::free_port,
        redis::{Redis, make_certificates},
        repository, skip,
    },
};

const TOKEN: &str = "admin-token-0123456789";
/// Lines of a file of tokens.
const ANN: &str = "ann admin admin-token-0123456789\n";
const BOB: &str = "bob read reader-token-0123456789\n";

/// The first of these programs that is installed.
fn program(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH")?;
    let found =
        |name: &&str| std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    names.iter().find_map(found)
}

/// The script of the dashboard with its browser, or the reason to skip.
fn script() -> Result<Command, &'static str> {
    script_of("dashboard.py")
}

/// A script with its browser, or the reason to skip.
fn script_of(name: &str) -> Result<Command, &'static str> {
    let python = python().ok_or("CASCOR_TEST_PYTHON is not set")?;
    let browser = program("CASCOR_TEST_CHROMIUM", &["chromium", "chromium-browser", "google-chrome"]);
    let driver = program("CASCOR_TEST_CHROMEDRIVER", &["chromedriver"]);
    let (Some(browser), Some(driver)) = (browser, driver) else { return Err("no chromium with chromedriver") };
    let selenium = Command::new(&python).args(["-c", "import selenium"]).stderr(Stdio::null()).status();
    if !selenium.is_ok_and(|status| status.success()) {
        return Err("no selenium");
    }
    let mut command = Command::new(python);
    command.arg(repository(&format!("tests/browser/{name}")));
    command.env("CASCOR_TEST_CHROMIUM", browser).env("CASCOR_TEST_CHROMEDRIVER", driver);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// A file of tokens, in a folder that is removed when it is dropped.
struct Tokens {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Tokens {
    fn of(lines: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, lines.concat()).unwrap();
        Self { folder, path }
    }

    /// Makes the daemon accept them.
    fn configure(&self, daemon: Builder) -> Builder {
        daemon.set("http.tokens_file", format!("{:?}", self.path.display().to_string()))
    }
}

/// Where the daemon is reached.
fn url(daemon: &Daemon) -> String {
    format!("http://127.0.0.1:{}", daemon.http_port())
}

/// Runs the script to its end; restarts the daemon at its request.
#[track_caller]
fn drive(mut script: Command, daemon: &mut Daemon) {
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in BufReader::new(from).lines() {
        let line = line.unwrap();
        println!("{line}");
        if line == "restart" {
            daemon.restart();
            writeln!(to, "done").unwrap();
        }
    }
    assert!(child.wait().unwrap().success(), "see above; the daemon's log:\n{}", daemon.log());
}

#[test]
fn a_browser_sees_a_run_appear_and_grow_pauses_it_and_survives_a_restart() {
    beside_daemon("a_browser_sees_a_run_appear_and_grow_pauses_it_and_survives_a_restart", "dashboard.py", "walk");
}

#[test]
fn a_browser_zooms_into_a_curve_and_sees_what_is_not_stored() {
    let name = "a_browser_zooms_into_a_curve_and_sees_what_is_not_stored";
    let mut script = match script() {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    script.args(["closer", &url(&daemon), &redis.port.to_string()]);
    script.arg(daemon.database());
    drive(script, &mut daemon);
}

#[test]
fn a_browser_draws_any_metrics_of_a_run_and_opens_links_to_curves() {
    let name = "a_browser_draws_any_metrics_of_a_run_and_opens_links_to_curves";
    let mut script = match script_of("curves.py") {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    script.arg(url(&daemon));
    drive(script, &mut daemon);
}

#[test]
fn a_browser_at_a_server_without_a_pipeline_sees_a_run_grow_and_a_receipt() {
    let name = "a_browser_at_a_server_without_a_pipeline_sees_a_run_grow_and_a_receipt";
    let mut script = match script() {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let (_served, port) = serve(&daemon);
    script.args(["served", &format!("http://127.0.0.1:{port}"), &redis.port.to_string()]);
    drive(script, &mut daemon);
}

#[test]
fn a_browser_signs_in_before_commands_and_where_needed_before_reading() {
    let name = "a_browser_signs_in_before_commands_and_where_needed_before_reading";
    let (redis, tokens) = (Redis::start(), Tokens::of(&[ANN]));
    for host in ["127.0.0.1", "0.0.0.0"] {
        let mut script = match script() {
            Ok(script) => script,
            Err(why) => return skip(name, why),
        };
        let mut daemon = tokens.configure(Daemon::on(&redis).listen_on(host)).start_ready();
        script.args(["signin", &url(&daemon), TOKEN]);
        drive(script, &mut daemon);
    }
}

#[test]
fn a_browser_finds_sorts_selects_and_deletes_runs() {
    beside_daemon("a_browser_finds_sorts_selects_and_deletes_runs", "runs.py", "table");
}

#[test]
fn a_browser_edits_links_and_compares_runs() {
    beside_daemon("a_browser_edits_links_and_compares_runs", "run_page.py", "manage");
}

#[test]
fn a_browser_whose_session_has_ended_keeps_what_was_typed_and_signs_in_again() {
    let name = "a_browser_whose_session_has_ended_keeps_what_was_typed_and_signs_in_again";
    let mut script = match script_of("run_page.py") {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let (redis, tokens) = (Redis::start(), Tokens::of(&[ANN]));
    let mut daemon = tokens.configure(Daemon::on(&redis).listen_on("0.0.0.0")).start_ready();
    script.args(["signed", &url(&daemon), TOKEN]);
    drive(script, &mut daemon);
}

#[test]
fn a_browser_behind_tls_keeps_a_host_only_session() {
    let mut script = match script() {
        Ok(script) => script,
        Err(why) => return skip("a_browser_behind_tls_keeps_a_host_only_session", why),
    };
    let (redis, tokens) = (Redis::start(), Tokens::of(&[ANN]));
    make_certificates(tokens.folder.path());
    let mut daemon = tokens.configure(Daemon::on(&redis)).start_ready();
    script.args(["tls", &url(&daemon), TOKEN]).arg(tokens.folder.path());
    drive(script, &mut daemon);
}

#[test]
fn a_browser_lets_in_pages_of_listed_origins_only() {
    let name = "a_browser_lets_in_pages_of_listed_origins_only";
    let mut script = match script_of("origins.py") {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let (redis, tokens) = (Redis::start(), Tokens::of(&[ANN]));
    let (listed, foreign) = (free_port(), free_port());
    let origins = format!("[\"http://localhost:{listed}\"]");
    let mut daemon = tokens.configure(Daemon::on(&redis)).set("http.allow_origins", origins).start_ready();
    redis.client().publish("cascor:training", r#"{"run_id":"r","epoch":1,"loss":0.5}"#);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    script.args([&url(&daemon), TOKEN]);
    script.args([listed.to_string(), foreign.to_string()]);
    drive(script, &mut daemon);
}

#[test]
fn a_browser_sees_why_rows_are_not_stored_and_the_fix() {
    let mut script = match script_of("problem.py") {
        Ok(script) => script,
        Err(why) => return skip("a_browser_sees_why_rows_are_not_stored_and_the_fix", why),
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).prepare();
    std::fs::write(daemon.database(), "not a database, and longer than the head of one. ".repeat(100)).unwrap();
    daemon.launch();
    daemon.wait_ready();
    redis.client().publish("cascor:training", r#"{"epoch": 1, "loss": 0.5}"#);
    script.arg(url(&daemon)).arg(daemon.database());
    drive(script, &mut daemon);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
}

/// Runs a part of a script beside a daemon and its Redis.
#[track_caller]
fn beside_daemon(test: &str, file: &str, part: &str) {
    let mut script = match script_of(file) {
        Ok(script) => script,
        Err(why) => return skip(test, why),
    };
    if part == "looks" && std::env::var_os("CASCOR_TEST_AXE").is_none() {
        return skip(test, "CASCOR_TEST_AXE names no axe.min.js");
    }
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    script.args([part, &url(&daemon), &redis.port.to_string()]);
    drive(script, &mut daemon);
}

#[test]
fn a_browser_of_somebody_who_may_only_read_has_no_buttons() {
    let mut script = match script_of("care.py") {
        Ok(script) => script,
        Err(why) => return skip("a_browser_of_somebody_who_may_only_read_has_no_buttons", why),
    };
    let (redis, tokens) = (Redis::start(), Tokens::of(&[ANN, BOB]));
    let mut daemon = tokens.configure(Daemon::on(&redis)).set("http.anonymous_read", "\"loopback\"").start_ready();
    script.args(["reader", &url(&daemon)]).arg(&tokens.path);
    drive(script, &mut daemon);
}

#[test]
fn a_browser_commands_this_daemon_and_says_of_a_state_what_status_says() {
    beside_daemon("a_browser_commands_this_daemon_and_says_of_a_state_what_status_says", "care.py", "states");
}

#[test]
fn a_browser_pauses_resumes_and_stops_the_trainer_of_a_run() {
    beside_daemon("a_browser_pauses_resumes_and_stops_the_trainer_of_a_run", "trainer.py", "commands");
}

#[test]
fn a_browser_finds_no_barrier_in_both_themes_and_no_sideways_scroll() {
    beside_daemon("a_browser_finds_no_barrier_in_both_themes_and_no_sideways_scroll", "care.py", "looks");
}

#[test]
fn a_browser_is_led_through_every_view_by_keyboard() {
    beside_daemon("a_browser_is_led_through_every_view_by_keyboard", "care.py", "keys");
}

#[test]
fn a_browser_finds_a_daemon_again_that_was_away_or_is_of_another_version() {
    beside_daemon("a_browser_finds_a_daemon_again_that_was_away_or_is_of_another_version", "care.py", "away");
}
