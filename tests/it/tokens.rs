//! The token file: its errors, its reload, and the name of the token in `control_log`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    daemon::{Builder, Daemon, INSTANCE},
    http,
    redis::Redis,
    sqlite, wait_until,
};

const ADMIN: &str = "admin-token-0123456789";
const LIMIT: Duration = Duration::from_secs(20);

fn with_file(redis: &Redis, text: &str) -> (tempfile::TempDir, PathBuf, Builder) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let builder = Daemon::on(redis).set("http.tokens_file", format!("{:?}", path.display().to_string()));
    (dir, path, builder)
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &str) -> http::Response {
    let bearer = format!("Bearer {ADMIN}");
    http::send(daemon.http_port(), method, path, &[("Authorization", &bearer)], body).unwrap()
}

#[test]
fn a_file_without_a_usable_line_stops_a_start_and_check_says_so() {
    let redis = Redis::absent(crate::support::redis::Options::default());
    for (text, why) in
        [("", "holds no token"), ("# ann admin 0123456789abcdef\n\n", "holds no token"), ("ann", "line 1")]
    {
        let (_dir, path, builder) = with_file(&redis, text);
        let daemon = builder.prepare();
        for command in [&["run"][..], &["serve"], &["check"]] {
            let output = daemon.command(command);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{command:?}: {error}");
            assert!(error.contains("http.tokens_file") && error.contains(why), "{command:?}: {error}");
        }
        fs::remove_file(path).unwrap();
        assert_eq!(daemon.command(&["check"]).status.code(), Some(78), "gone");
    }
}

#[test]
fn files_that_guard_http_stop_no_command_that_does_not_listen() {
    let mut redis = Redis::start();
    let (dir, path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\n"));
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let daemon = builder.set("http.session_key_file", format!("{:?}", key.display().to_string())).start_ready();
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    // With its address named, from Redis alone: until its status is there, the daemon itself is asked.
    let of_redis = ["status", "--redis-url", &redis.url()];
    wait_until("its status", LIMIT, || daemon.command(&of_redis).status.success());
    // Each of them alone; a directory in the place of a file cannot be read by any user, root included.
    for (tokens, session_key) in [(Some("ann"), true), (None, true), (Some(""), false)] {
        let _ = fs::remove_file(&path);
        match tokens {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::create_dir(&path).unwrap(),
        }
        fs::write(&key, if session_key { "0123456789abcdef0123456789abcdef" } else { "short" }).unwrap();
        for arguments in [
            &["status"][..],
            &["runs"],
            &["deadletter", "list"],
            &["spool", "status"],
            &["control", "status", "--wait"],
        ] {
            daemon.succeed(arguments);
        }
        let own = daemon.prepared(&["runs", "--url", &url]).env("CASCOR_INGEST_TOKEN", ADMIN).output().unwrap();
        assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
        let without = daemon.command(&["runs", "--url", &url]);
        assert_eq!(without.status.code(), Some(1), "the daemon says that it wants a token");
        assert_eq!(daemon.command(&["check"]).status.code(), Some(78));
        let _ = fs::remove_dir(&path);
    }
    redis.kill();
    let away = daemon.command(&["status"]);
    let said = String::from_utf8_lossy(&away.stderr);
    assert!(away.status.code() == Some(1) && said.contains(" was asked, too: "), "{said}");
    assert!(said.contains("`http.tokens_file`: ") && said.contains("holds no token"), "{said}");
    assert!(said.contains("start Redis there"), "{said}");
}

#[test]
fn while_running_the_last_good_tokens_stay_and_everything_says_so() {
    let redis = Redis::start();
    let (_dir, path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\nbob read bob-token-0123456789\n"));
    let mut daemon = builder.start_ready();
    daemon.wait_log("tokens are loaded");
    let access = |daemon: &Daemon| ask(daemon, "GET", "/api/status", "").json()["access"].clone();
    assert_eq!(
        access(&daemon),
        json!({"tokens": {"read": 1, "publish": 0, "admin": 1}, "problem": null, "tls": false, "certificate_problem": null})
    );
    let shown = |daemon: &Daemon| access(daemon)["problem"].as_str().unwrap_or_default().to_owned();
    for (text, why) in [
        (Some(""), "holds no token"),
        (Some("# nobody\n"), "holds no token"),
        (Some("x y"), "line 1"),
        (None, "cannot be read"),
    ] {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        daemon.process().signal(Signal::HUP);
        wait_until(why, LIMIT, || shown(&daemon).contains(why));
        assert_eq!(daemon.metric("cascor_api_tokens_outdated"), Some(1.0));
        assert_eq!(daemon.post("/api/control", &json!({"command": "status"})).status, 401, "nothing opens");
    }
    assert!(daemon.log().lines().any(|line| line.contains("ERROR") && line.contains("those of before stay")));
    // The configuration no longer names the file: treated as a missing file until a restart.
    let configured = fs::read_to_string(daemon.config_file()).unwrap();
    let without: String =
        configured.lines().filter(|line| !line.contains("tokens_file")).map(|line| format!("{line}\n")).collect();
    fs::write(daemon.config_file(), without).unwrap();
    daemon.process().signal(Signal::HUP);
    wait_until("the reason", LIMIT, || shown(&daemon).contains("not set any more"));
    assert_eq!(daemon.post("/api/control", &json!({"command": "status"})).status, 401);
    // Another part of the configuration is wrong: a removed token is still revoked.
    fs::write(daemon.config_file(), format!("{configured}no_such_key = 1\n")).unwrap();
    fs::write(&path, format!("ann admin {ADMIN}\neve publish eve-token-0123456789\n")).unwrap();
    daemon.process().signal(Signal::HUP);
    wait_until("the new tokens", LIMIT, || access(&daemon)["tokens"] == json!({"read": 0, "publish": 1, "admin": 1}));
    assert_eq!((shown(&daemon).as_str(), daemon.metric("cascor_api_tokens_outdated")), ("", Some(0.0)));
    assert_eq!(daemon.metric("cascor_api_tokens{scope=\"publish\"}"), Some(1.0));
    let log = daemon.log();
    assert!(
        log.lines().any(|line| line.contains("read=0") && line.contains("publish=1") && line.contains("admin=1")),
        "{log}"
    );
}

#[test]
fn a_file_that_others_may_read_is_a_warning_with_its_mode() {
    let redis = Redis::absent(crate::support::redis::Options::default());
    let (dir, path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\n"));
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let daemon = builder.set("http.session_key_file", format!("{:?}", key.display().to_string())).prepare();
    let warnings = |tokens: u32, session_key: u32| {
        for (file, mode) in [(&path, tokens), (&key, session_key)] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let checked: Value = serde_json::from_str(&daemon.succeed(&["check", "--json"])).unwrap();
        checked["warnings"].to_string()
    };
    assert_eq!(warnings(0o600, 0o400), "[]");
    let told = warnings(0o644, 0o400);
    assert!(told.contains("http.tokens_file") && told.contains("0644") && !told.contains("session_key"), "{told}");
    let told = warnings(0o600, 0o640);
    assert!(told.contains("http.session_key_file") && told.contains("0640"), "{told}");
    fs::write(&key, "short").unwrap();
    let refused = daemon.command(&["check"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("fewer than 32"));
}

#[test]
fn a_new_token_is_a_line_that_the_daemon_accepts() {
    let redis = Redis::start();
    let (_dir, path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\n"));
    let daemon = builder.prepare();
    let lines: Vec<_> =
        ["read", "publish", "admin"].map(|scope| daemon.succeed(&["token", "new", scope, scope])).into();
    let made: Value = serde_json::from_str(&daemon.succeed(&["token", "new", "json", "admin", "--json"])).unwrap();
    let secret = made["token"].as_str().unwrap();
    assert!(secret.len() == 64 && lines.iter().all(|line| !line.contains(secret)), "{made}");
    for (name, scope) in [("a b", "read"), ("#a", "read"), ("", "read"), ("a", "root"), ("a\u{1b}", "read")] {
        assert_eq!(daemon.command(&["token", "new", name, scope]).status.code(), Some(2), "{name:?} {scope}");
    }
    fs::write(&path, format!("{}json admin {secret}\n", lines.concat())).unwrap();
    assert!(daemon.command(&["check"]).status.success());
    let mut daemon = daemon;
    daemon.launch();
    daemon.wait_ready();
    let bearer = format!("Bearer {secret}");
    let who = |method: &str, path: &str, bearer: &str| {
        http::send(daemon.http_port(), method, path, &[("Authorization", bearer)], "").unwrap().status
    };
    assert_eq!(who("POST", "/api/runs", &bearer), 201);
    let publisher = format!("Bearer {}", lines[1].split_whitespace().last().unwrap());
    assert_eq!(who("POST", "/api/runs", &publisher), 403, "it opens nothing else");
}

#[test]
fn the_log_of_commands_names_the_token_and_no_channel_can_forge_it() {
    let redis = Redis::start();
    let (_dir, _path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\n"));
    let daemon = builder.set("redis.control_channels", r#"["cascor:control", "http:*", "self"]"#).start_ready();
    let receipt = ask(&daemon, "POST", "/api/control", r#"{"command": "pause", "id": "1"}"#).json();
    assert_eq!(receipt["outcome"], "done", "{receipt}");
    let direct = json!({"command": "resume", "id": "2", "target": INSTANCE}).to_string();
    assert_eq!(ask(&daemon, "POST", "/api/control", &direct).json()["outcome"], "done");
    let created = ask(&daemon, "POST", "/api/runs", r#"{"name": "a run"}"#);
    assert_eq!(created.status, 201, "{}", created.body);
    let run = created.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&daemon, "POST", &format!("/api/runs/{run}/notes"), r#"{"notes": "n"}"#).status, 200);
    assert_eq!(ask(&daemon, "POST", &format!("/api/runs/{run}/complete"), "").status, 200);
    let mut client = redis.client();
    for channel in ["http:ann", "self", "cascor:control"] {
        assert_eq!(client.publish(channel, r#"{"command": "status"}"#), 1, "{channel}");
    }
    let rows = "SELECT source || ' ' || command || ' ' || outcome AS line FROM control_log WHERE outcome IS NOT NULL";
    let expected = [
        "cascor:control pause done",
        "cascor:control status done",
        "http:ann complete_run done",
        "http:ann create_run done",
        "http:ann pause done",
        "http:ann resume done",
        "http:ann update_run done",
        "redis:http:ann status done",
        "redis:self status done",
    ];
    let stored = || {
        let rows = sqlite::rows(&daemon.database(), rows);
        let mut lines: Vec<_> = rows.iter().map(|row| row["line"].as_str().unwrap().to_owned()).collect();
        lines.sort();
        lines
    };
    wait_until("the rows", LIMIT, || stored().len() >= expected.len());
    assert_eq!(stored(), expected);
    let changed =
        format!("SELECT count(*) FROM control_log WHERE command = 'complete_run' AND payload_json LIKE '%{run}%'");
    assert_eq!(sqlite::count(&daemon.database(), &changed), 1);
    let log = daemon.log();
    assert!(log.contains("token=\"ann\"") && !log.contains(ADMIN), "{log}");
}

/// The head of the answer to a `POST` whose body comes so long after its head.
fn answer_to_late_body(daemon: &Daemon, token: Option<&str>, delay: Duration) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.http_port())).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /api/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{bearer}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(delay);
    // The server may have answered and closed before the body arrives.
    let _ = stream.write_all(b"{}");
    let mut answer = [0; 4_096];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).to_lowercase()
}

#[test]
fn a_refused_request_with_an_unread_body_gets_connection_close() {
    let redis = Redis::start();
    let (_dir, _path, builder) = with_file(&redis, &format!("ann admin {ADMIN}\n"));
    let daemon = builder.start_ready();
    for micros in [0, 50, 100, 200, 400, 100_000].repeat(5) {
        let delay = Duration::from_micros(micros);
        let refused = answer_to_late_body(&daemon, None, delay);
        assert!(refused.starts_with("http/1.1 401") && refused.contains("connection: close"), "{micros}: {refused}");
        let taken = answer_to_late_body(&daemon, Some(ADMIN), delay);
        assert!(taken.starts_with("http/1.1 201") && !taken.contains("connection: close"), "{micros}: {taken}");
    }
}

#[test]
fn a_publish_token_opens_one_route_and_no_session() {
    const PUBLISH: &str = "publish-token-0123456789";
    const READ: &str = "read-token-0123456789";
    let redis = Redis::start();
    let text = format!("ann admin {ADMIN}\nlab publish {PUBLISH}\nbob read {READ}\n");
    let (_dir, _path, builder) = with_file(&redis, &text);
    let daemon = builder.start_ready();
    let message = json!({"run_id": "r", "epoch": 1, "loss": 0.5}).to_string();
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        http::send(daemon.http_port(), method, path, if token.is_empty() { &[] } else { &headers }, body)
            .unwrap()
            .status
    };
    for (token, status) in [(PUBLISH, 200), (ADMIN, 200), (READ, 403), ("", 401), ("wrong-token-0123456789", 401)] {
        assert_eq!(ask(token, "POST", "/api/messages", &message), status, "{token}");
    }
    for (method, path, body) in [
        ("GET", "/api/runs", ""),
        ("GET", "/api/status", ""),
        ("GET", "/api/stream", ""),
        ("GET", "/api/openapi.json", ""),
        ("POST", "/api/control", r#"{"command": "pause"}"#),
        ("POST", "/api/runs", "{}"),
    ] {
        assert_eq!(ask(PUBLISH, method, path, body), 403, "{method} {path}");
    }
    let sign_in = json!({"token": PUBLISH}).to_string();
    assert_eq!(ask("", "POST", "/api/session", &sign_in), 403);
    wait_until("both rows", LIMIT, || sqlite::count(&daemon.database(), "SELECT count(*) FROM training_metrics") == 2);
}
