//! Origin of a request: local or through a proxy, same site or cross site, and the server that it names.

use std::{fs, time::Duration};

use serde_json::json;

use crate::support::{
    daemon::Daemon,
    http::{self, Response},
    redis::Redis,
    stream::Stream,
    wait_until,
};

const ADMIN: &str = "admin-token-0123456789";
const READER: &str = "reader-token-0123456789";
const LISTED: &str = "https://dash.example";
const LIMIT: Duration = Duration::from_secs(30);
const PROXY_HEADERS: [(&str, &str); 6] = [
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1"),
    ("Via", "1.1 proxy"),
];

/// A daemon on loopback with a token of each scope, and lines of its configuration.
fn with_tokens(redis: &Redis, more: &[(&str, &str)]) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, format!("bob read {READER}\nann admin {ADMIN}\n")).unwrap();
    let builder = Daemon::on(redis).set("http.tokens_file", format!("{:?}", path.display().to_string()));
    let daemon = more.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).start_ready();
    (dir, daemon)
}

fn send(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let body = if method == "POST" { r#"{"command":"status"}"# } else { "" };
    http::send(daemon.http_port(), method, path, headers, body).unwrap()
}

#[test]
fn a_proxied_request_is_not_local() {
    let redis = Redis::start();
    let open = Daemon::on(&redis).start_ready();
    let (_dir, closed) = with_tokens(&redis, &[("instance", "\"closed\""), ("http.anonymous_read", "\"loopback\"")]);
    let bearer = format!("Bearer {READER}");
    assert_eq!(send(&open, "GET", "/api/runs", &[]).status, 200);
    assert_eq!(send(&open, "POST", "/api/control", &[]).status, 200);
    assert_eq!(send(&closed, "GET", "/api/runs", &[]).status, 200);
    for header in PROXY_HEADERS {
        for (method, path) in
            [("GET", "/api/runs"), ("GET", "/api/stream"), ("GET", "/api/session"), ("POST", "/api/control")]
        {
            assert_eq!(send(&open, method, path, &[header]).status, 403, "{header:?} {path}");
            assert_eq!(send(&closed, method, path, &[header]).status, 401, "{header:?} {path}");
        }
        assert_eq!(send(&open, "GET", "/healthz", &[header]).status, 200, "{header:?}");
        let read = send(&closed, "GET", "/api/runs", &[header, ("Authorization", &bearer)]);
        assert_eq!(read.status, 200, "{header:?}: {}", read.body);
    }
}

#[test]
fn with_tokens_reading_needs_one_also_on_loopback() {
    let redis = Redis::start();
    let (_dir, daemon) = with_tokens(&redis, &[]);
    let (reader, admin) = (format!("Bearer {READER}"), format!("Bearer {ADMIN}"));
    for path in ["/api/runs", "/api/status", "/api/stream", "/api/metrics", "/api/openapi.json", "/api/session"] {
        assert_eq!(send(&daemon, "GET", path, &[]).status, 401, "{path}");
    }
    for path in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(send(&daemon, "GET", path, &[]).status, 200, "{path}");
    }
    assert_eq!(send(&daemon, "GET", "/api/runs", &[("Authorization", &reader)]).status, 200);
    assert_eq!(send(&daemon, "POST", "/api/control", &[("Authorization", &reader)]).status, 403);
    assert_eq!(send(&daemon, "POST", "/api/control", &[("Authorization", &admin)]).status, 200);
    Stream::open(daemon.http_port(), "", &format!("Authorization: {reader}\r\n")).next("hello");
}

#[test]
fn only_trusted_hosts_are_accepted_as_names() {
    let redis = Redis::start();
    let (_dir, daemon) = with_tokens(&redis, &[("http.trusted_hosts", "[\"ingest.example\"]")]);
    let bearer = format!("Bearer {ADMIN}");
    for (host, status) in [
        ("ingest.example", 200),
        ("INGEST.example:443", 200),
        ("127.0.0.1", 200),
        ("other.example", 421),
        ("ingest.example.evil.example", 421),
    ] {
        let answer = send(&daemon, "GET", "/api/runs", &[("Host", host), ("Authorization", &bearer)]);
        assert_eq!(answer.status, status, "{host}: {}", answer.body);
        assert_eq!(send(&daemon, "GET", "/healthz", &[("Host", host)]).status, 200, "a probe: {host}");
    }
    let sign_in = |host| {
        let headers = [("Host", host), ("X-Forwarded-For", "10.0.0.9"), ("Content-Type", "application/json")];
        let body = json!({"token": ADMIN}).to_string();
        http::send(daemon.http_port(), "POST", "/api/session", &headers, &body).unwrap().status
    };
    assert_eq!((sign_in("ingest.example"), sign_in("other.example")), (201, 421));
}

#[test]
fn a_request_that_names_two_servers_or_a_user_is_refused() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    for (target, headers, status) in [
        ("/api/runs", &[("Host", "localhost"), ("Host", "localhost")][..], 400),
        ("/healthz", &[("Host", "localhost"), ("host", "evil.example")], 400),
        ("/", &[("Host", "localhost"), ("HOST", "localhost")], 400),
        ("/api/runs", &[("Host", "ann@localhost")], 400),
        ("/healthz", &[("Host", "localhost@evil.example")], 400),
        ("http://ann:secret@localhost/api/runs", &[("Host", "localhost")], 400),
        ("http://evil.example/api/runs", &[("Host", "localhost")], 400),
        ("http://localhost/api/runs", &[("Host", "localhost")], 200),
    ] {
        let answer = http::send(daemon.http_port(), "GET", target, headers, "").unwrap();
        assert_eq!(answer.status, status, "{target} {headers:?}: {}", answer.body);
    }
}

#[test]
fn every_answer_has_security_headers() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.allow_origins", format!("[{LISTED:?}, \"*\"]")).start_ready();
    for (method, path, keep) in [
        ("GET", "/", "no-cache"),
        ("GET", "/assets/app.js", "no-cache"),
        ("GET", "/api/runs", "no-store"),
        ("GET", "/api/status", "no-store"),
        ("GET", "/api/session", "no-store"),
        ("GET", "/api/metrics", "no-store"),
        ("GET", "/api/runs?limit=x", "no-store"),
        ("GET", "/api/nothing", "no-store"),
        ("GET", "/metrics", "no-store"),
        ("PUT", "/api/runs", "no-store"),
        ("POST", "/api/control", "no-store"),
    ] {
        let answer = send(&daemon, method, path, &[("Origin", LISTED)]);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}: {}", answer.head);
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}: {}", answer.head);
        assert_eq!(answer.header("cache-control"), Some(keep), "{path}: {}", answer.head);
    }
}

#[test]
fn pages_of_other_sites_neither_change_anything_nor_hold_a_connection() {
    let redis = Redis::start();
    let origins = format!("[{LISTED:?}, \"*\"]");
    let allowing: (&str, &str) = ("http.allow_origins", &origins);
    let (_dir, daemon) = with_tokens(&redis, &[allowing, ("http.anonymous_read", "\"loopback\"")]);
    let open = Daemon::on(&redis).set("instance", "\"open\"").set(allowing.0, allowing.1).start_ready();
    let message = json!({"run_id": "r", "epoch": 1, "loss": 0.5}).to_string();
    redis.client().publish("cascor:training", message);
    wait_until("the run", LIMIT, || open.get("/api/runs").json()["count"] == 1);
    wait_until("the run", LIMIT, || daemon.get("/api/runs").json()["count"] == 1);
    let run = open.get("/api/runs").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let export = format!("/api/export?run_id={run}");
    let bearer = format!("Bearer {ADMIN}");
    let token = Some(("Authorization", bearer.as_str()));
    for (site, origin, token, allowed) in [
        ("cross-site", None, None, false),
        ("cross-site", None, token, false),
        ("cross-site", Some("https://evil.example"), token, false),
        ("cross-site", Some(LISTED), None, false),
        ("cross-site", Some(LISTED), token, true),
        ("same-site", Some("http://localhost:1"), token, false),
        ("same-site", Some(LISTED), token, true),
        ("same-origin", None, token, true),
        ("none", None, token, true),
    ] {
        let mut headers = vec![("Sec-Fetch-Site", site)];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        headers.extend(token);
        let case = format!("{site} {origin:?} {token:?}");
        for (method, path) in [("POST", "/api/control"), ("GET", export.as_str())] {
            let status = send(&daemon, method, path, &headers).status;
            assert_eq!(status < 300, allowed, "{case} {path}: {status}");
        }
        // Where no tokens are configured, a token is not checked.
        let status = send(&open, "GET", &export, &headers).status;
        assert_eq!(status == 200, allowed && site != "cross-site", "{case}: {status}");
        let status = send(&daemon, "GET", "/api/runs", &headers).status;
        assert_eq!(status, 200, "{case}: reading changes and holds nothing");
    }
    for headers in [&[("Sec-Fetch-Site", "cross-site")][..], &[("Sec-Fetch-Site", "same-site")]] {
        assert_eq!(send(&open, "GET", "/api/stream", headers).status, 403);
        assert_eq!(send(&open, "POST", "/api/session", headers).status, 403);
    }
    Stream::open(open.http_port(), "", "Sec-Fetch-Site: same-origin\r\n").next("hello");
}
