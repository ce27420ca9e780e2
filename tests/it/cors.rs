//! CORS: response headers for pages of other origins, and what such pages may do.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    daemon::Daemon,
    http::{self, Response},
    redis::Redis,
    wait_until,
};

const TRAINING: &str = "cascor:training";
const DASH: &str = "https://dash.example:8443";
const EVIL: &str = "https://evil.example";
const TOKEN: &str = "admin-token-0123456789";
const LIMIT: Duration = Duration::from_secs(30);

fn send(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let body = if method == "POST" { r#"{"command":"status"}"# } else { "" };
    http::send(daemon.http_port(), method, path, headers, body).unwrap()
}

/// The preflight request of a browser before it sends a command as JSON.
fn preflight(daemon: &Daemon, path: &str, origin: &str) -> Response {
    let asked = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type,x-csrf-token"),
    ];
    send(daemon, "OPTIONS", path, &asked)
}

/// `Access-Control-Allow-Origin` and `Access-Control-Allow-Credentials` of an answer.
fn reader(answer: &Response) -> (Option<&str>, bool) {
    let credentials = answer.header("access-control-allow-credentials");
    assert!(matches!(credentials, None | Some("true")), "{}", answer.head);
    (answer.header("access-control-allow-origin"), credentials.is_some())
}

fn varies(answer: &Response) -> bool {
    let mut names = answer.head.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name == "vary");
    names.any(|(_, value)| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin")))
}

#[test]
fn by_default_no_other_origin_is_allowed() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    for path in ["/api/runs", "/healthz", "/api/nothing"] {
        let answer = send(&daemon, "GET", path, &[("Origin", DASH)]);
        assert_eq!((reader(&answer), varies(&answer)), ((None, false), false), "{path}: {}", answer.head);
    }
    assert_eq!(preflight(&daemon, "/api/control", DASH).status, 405);
    assert_eq!(send(&daemon, "POST", "/api/control", &[("Origin", DASH)]).status, 403);
}

#[test]
fn a_listed_origin_has_the_rights_of_our_own_page() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).env("CASCOR_INGEST__HTTP__ALLOW_ORIGINS", DASH).start_ready();
    redis.client().publish(TRAINING, json!({"run_id": "r", "epoch": 1, "loss": 0.5}).to_string());
    wait_until("the run and its metrics", LIMIT, || {
        daemon.get("/api/runs").json()["count"] == 1
            && daemon.get("/api/metrics").header("x-cache-status") == Some("MISS")
            && daemon.get("/api/metrics").status == 200
    });
    // Answers and errors alike: a page must be able to read why.
    for (path, status) in [
        ("/api/runs", 200),
        ("/api/metrics", 200),
        ("/api/v1/redis/status", 200),
        ("/healthz", 200),
        ("/api/runs?limit=x", 400),
        ("/api/nothing", 404),
    ] {
        let answer = send(&daemon, "GET", path, &[("Origin", DASH)]);
        assert_eq!((answer.status, reader(&answer)), (status, (Some(DASH), true)), "{path}: {}", answer.head);
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-cache-status") && varies(&answer), "{}", answer.head);
        // Caches must key on `Origin`.
        for origin in [&[("Origin", EVIL)][..], &[("Origin", "null")], &[]] {
            let answer = send(&daemon, "GET", path, origin);
            assert_eq!((answer.status, reader(&answer), varies(&answer)), (status, (None, false), true), "{origin:?}");
        }
    }
    let compressed = send(&daemon, "GET", "/api/openapi.json", &[("Origin", DASH), ("Accept-Encoding", "gzip")]);
    assert!(varies(&compressed) && compressed.head.contains("vary: accept-encoding"), "{}", compressed.head);

    for path in ["/api/control", "/api/runs", "/api/session", "/api/stream"] {
        let answer = preflight(&daemon, path, DASH);
        assert_eq!((answer.status, reader(&answer)), (204, (Some(DASH), true)), "{path}: {}", answer.head);
        let allowed = |name: &str| answer.header(name).unwrap().to_lowercase();
        assert!(allowed("access-control-allow-methods").contains("post"), "{}", answer.head);
        let headers = allowed("access-control-allow-headers");
        assert!(
            ["authorization", "content-type", "x-csrf-token"].iter().all(|name| headers.contains(name)),
            "{headers}"
        );
        let foreign = preflight(&daemon, path, EVIL);
        assert_eq!((foreign.status, reader(&foreign)), (405, (None, false)), "{path}");
    }
    // Commands are accepted from this origin and from our own page only.
    for (origin, status) in [(DASH, 200), (EVIL, 403), ("null", 403), ("http://dash.example:8443", 403)] {
        assert_eq!(send(&daemon, "POST", "/api/control", &[("Origin", origin)]).status, status, "{origin}");
    }
    // DNS rebinding: a foreign name that resolves to this address is refused.
    let rebound = [("Origin", DASH), ("Host", "dash.example:8443")];
    assert_eq!(send(&daemon, "GET", "/api/runs", &rebound).status, 403);
    assert_eq!(send(&daemon, "POST", "/api/control", &rebound).status, 403);
}

#[test]
fn a_wildcard_allows_reading_and_nothing_else() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.allow_origins", format!("[\"*\", {DASH:?}]")).start_ready();
    let answer = send(&daemon, "GET", "/api/runs", &[("Origin", EVIL)]);
    assert_eq!((answer.status, reader(&answer)), (200, (Some("*"), false)), "{}", answer.head);
    assert_eq!(preflight(&daemon, "/api/runs", EVIL).status, 204);
    assert_eq!(send(&daemon, "POST", "/api/control", &[("Origin", EVIL)]).status, 403);
    let answer = send(&daemon, "GET", "/api/runs", &[("Origin", DASH)]);
    assert_eq!((answer.status, reader(&answer), varies(&answer)), (200, (Some(DASH), true), true), "{}", answer.head);
}

#[test]
fn a_session_is_for_listed_origins_only() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    let daemon = Daemon::on(&redis)
        .listen_on("0.0.0.0")
        .set("http.tokens_file", format!("{:?}", tokens.display().to_string()))
        .set("http.allow_origins", format!("[{DASH:?}, \"*\"]"))
        .start_ready();
    let host = "ingest.example";
    // A listed origin still needs a token.
    let refused = send(&daemon, "GET", "/api/runs", &[("Origin", DASH), ("Host", host)]);
    assert_eq!((refused.status, reader(&refused)), (401, (Some(DASH), true)), "{}", refused.head);
    let sign_in = |origin: &str| {
        let headers = [("Origin", origin), ("Host", host), ("Content-Type", "application/json")];
        let body = json!({"token": TOKEN}).to_string();
        http::send(daemon.http_port(), "POST", "/api/session", &headers, &body).unwrap()
    };
    assert_eq!(sign_in(EVIL).status, 403);
    let signed = sign_in(DASH);
    assert_eq!((signed.status, reader(&signed)), (201, (Some(DASH), true)), "{}", signed.head);
    let set = signed.header("set-cookie").unwrap();
    // Browsers send the cookie for pages of the same site only; pages of another host send a token.
    assert!(set.ends_with("Secure; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let csrf = signed.json()["csrf"].as_str().unwrap().to_owned();
    let with = |method: &str, path: &str, more: &[(&str, &str)]| {
        let answer = send(&daemon, method, path, &[&[("Cookie", cookie), ("Host", host)], more].concat());
        (answer.status, answer.header("access-control-allow-credentials").is_some())
    };
    assert_eq!(with("GET", "/api/runs", &[("Origin", DASH)]), (200, true));
    // The browser withholds this answer from the page, with or without the cookie.
    assert_eq!(with("GET", "/api/runs", &[("Origin", EVIL)]), (200, false));
    for (origin, csrf, status) in [
        (DASH, Some(&*csrf), (200, true)),
        (DASH, Some("wrong"), (403, true)),
        (DASH, None, (403, true)),
        (EVIL, Some(&*csrf), (403, false)),
        ("null", Some(&*csrf), (403, false)),
    ] {
        let mut headers = vec![("Origin", origin)];
        headers.extend(csrf.map(|csrf| ("X-CSRF-Token", csrf)));
        assert_eq!(with("POST", "/api/control", &headers), status, "{origin} {csrf:?}");
    }
    assert_eq!(with("DELETE", "/api/session", &[("Origin", EVIL), ("X-CSRF-Token", &csrf)]).0, 403);
    assert_eq!(with("DELETE", "/api/session", &[("Origin", DASH), ("X-CSRF-Token", &csrf)]).0, 204);
    assert_eq!(with("GET", "/api/runs", &[("Origin", DASH)]).0, 401);
    // A script may send a token instead; tokens do not depend on the origin.
    let bearer = format!("Bearer {TOKEN}");
    let answer = send(&daemon, "GET", "/api/runs", &[("Origin", EVIL), ("Host", host), ("Authorization", &bearer)]);
    assert_eq!((answer.status, reader(&answer)), (200, (Some("*"), false)), "{}", answer.head);
}

#[test]
fn an_invalid_origin_is_refused_by_the_name_of_its_key() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("http.allow_origins", "[\"dash.example\", \"https://dash.example/\", \"https://ok.example\"]")
        .prepare();
    let output = daemon.command(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("`dash.example` is not an origin"), "{error}");
    assert!(error.contains("write `https://dash.example/` as `https://dash.example`"), "{error}");
    assert!(!error.contains("ok.example"), "{error}");
}
