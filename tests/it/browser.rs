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
        daemon::Daemon,
        ports::free_port,
        redis::{Redis, make_certificates},
        repository, skip,
    },
};

const TOKEN: &str = "admin-token-0123456789";

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
    let name = "a_browser_sees_a_run_appear_and_grow_pauses_it_and_survives_a_restart";
    let mut script = match script() {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    script.args(["walk", &format!("http://127.0.0.1:{}", daemon.http_port()), &redis.port.to_string()]);
    drive(script, &mut daemon);
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
    script.args(["closer", &format!("http://127.0.0.1:{}", daemon.http_port()), &redis.port.to_string()]);
    script.arg(daemon.database());
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
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    let file = format!("{:?}", tokens.display().to_string());
    for host in ["127.0.0.1", "0.0.0.0"] {
        let mut script = match script() {
            Ok(script) => script,
            Err(why) => return skip(name, why),
        };
        let mut daemon = Daemon::on(&redis).listen_on(host).set("http.tokens_file", &file).start_ready();
        script.args(["signin", &format!("http://127.0.0.1:{}", daemon.http_port()), TOKEN]);
        drive(script, &mut daemon);
    }
}

#[test]
fn a_browser_behind_tls_keeps_a_host_only_session() {
    let mut script = match script() {
        Ok(script) => script,
        Err(why) => return skip("a_browser_behind_tls_keeps_a_host_only_session", why),
    };
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    let file = format!("{:?}", tokens.display().to_string());
    let mut daemon = Daemon::on(&redis).set("http.tokens_file", &file).start_ready();
    script.args(["tls", &format!("http://127.0.0.1:{}", daemon.http_port()), TOKEN]).arg(dir.path());
    drive(script, &mut daemon);
}

#[test]
fn a_browser_lets_in_pages_of_listed_origins_only() {
    let name = "a_browser_lets_in_pages_of_listed_origins_only";
    let mut script = match script_of("origins.py") {
        Ok(script) => script,
        Err(why) => return skip(name, why),
    };
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    let (listed, foreign) = (free_port(), free_port());
    let mut daemon = Daemon::on(&redis)
        .set("http.tokens_file", format!("{:?}", tokens.display().to_string()))
        .set("http.allow_origins", format!("[\"http://localhost:{listed}\"]"))
        .start_ready();
    redis.client().publish("cascor:training", r#"{"run_id":"r","epoch":1,"loss":0.5}"#);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    script.args([&format!("http://127.0.0.1:{}", daemon.http_port()), TOKEN]);
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
    script.arg(format!("http://127.0.0.1:{}", daemon.http_port())).arg(daemon.database());
    drive(script, &mut daemon);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
}
