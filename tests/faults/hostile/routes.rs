//! Every route that the OpenAPI document lists, with every kind of credential: each opens only the routes of its scope, and long answers
//! end when their token does.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{daemon::Daemon, http, redis::Redis, wait_until};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(20);
/// Time until a removed token is revoked, including the reload.
const CUT: Duration = Duration::from_secs(1);

/// The tokens of the file, by name and scope.
const TOKENS: [(&str, &str, &str); 4] = [
    ("reader", "read", "reader-token-0123456789"),
    ("trainer", "publish", "trainer-token-0123456789"),
    ("operator", "admin", "operator-token-0123456789"),
    ("guest", "read", "guest-token-0123456789"),
];

pub fn token(name: &str) -> &'static str {
    TOKENS.iter().find(|(known, ..)| *known == name).unwrap().2
}

/// The file, without these names.
pub fn write_tokens(dir: &tempfile::TempDir, without: &[&str]) -> String {
    let lines = TOKENS.iter().filter(|(name, ..)| !without.contains(name));
    let text: String = lines.map(|(name, scope, token)| format!("{name} {scope} {token}\n")).collect();
    let path = dir.path().join("tokens");
    fs::write(&path, text).unwrap();
    format!("{:?}", path.display().to_string())
}

/// A daemon on all addresses, so that nothing is open to this machine alone.
fn daemon(redis: &Redis, dir: &tempfile::TempDir) -> Daemon {
    Daemon::on(redis).listen_on("0.0.0.0").set("http.tokens_file", write_tokens(dir, &[])).start_ready()
}

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    scope: String,
}

fn operations(daemon: &Daemon) -> Vec<Operation> {
    let bearer = format!("Bearer {}", token("operator"));
    let answer = http::send(daemon.http_port(), "GET", "/api/openapi.json", &[("Authorization", &bearer)], "");
    let document = answer.unwrap().json();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{run_id}", RUN);
            let scope = operation["x-scope"].as_str().unwrap().to_owned();
            found.push(Operation { method: method.to_uppercase(), path, scope });
        }
    }
    assert!(found.len() > 30, "{}", found.len());
    found
}

/// The status of an answer, whose body may have no end.
pub fn status(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

/// Whether the request came as far as its handler.
fn is_let_in(status: u16) -> bool {
    !matches!(status, 401 | 403 | 429)
}

#[test]
fn every_route_accepts_its_scopes_and_nothing_else() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&redis, &dir);
    let operations = operations(&daemon);
    fs::write(dir.path().join("tokens"), "").unwrap();
    write_tokens(&dir, &["guest"]);
    daemon.process().signal(Signal::HUP);
    let guest = format!("Bearer {}", token("guest"));
    let port = daemon.http_port();
    wait_until("the guest is out", LIMIT, || status(port, "GET", "/api/runs", &[("Authorization", &guest)], "") == 401);
    let bearer = |text: &str| Some(format!("Bearer {text}"));
    let longer = format!("{}0", token("operator"));
    let none: &[u16] = &[401];
    let wrong: &[u16] = &[401, 429];
    for (what, header, opens, refused) in [
        ("nothing", None, &["open", "sign_in"][..], none),
        ("a wrong token", bearer("nonsense-0123456789"), &["open"], wrong),
        ("a truncated one", bearer(&token("operator")[..20]), &["open"], wrong),
        ("a longer one", bearer(&longer), &["open"], wrong),
        ("an empty one", bearer(""), &["open"], wrong),
        ("no scheme", Some(token("operator").to_owned()), &["open"], wrong),
        ("another scheme", Some(format!("Basic {}", token("operator"))), &["open"], wrong),
        ("a token that was taken out", Some(guest.clone()), &["open"], wrong),
        ("read", bearer(token("reader")), &["open", "sign_in", "read"], &[403]),
        ("publish", bearer(token("trainer")), &["open", "sign_in", "publish"], &[403]),
        ("admin", bearer(token("operator")), &["open", "sign_in", "read", "publish", "admin"], &[]),
    ] {
        for Operation { method, path, scope } in &operations {
            let headers: Vec<_> = header.iter().map(|value| ("Authorization", value.as_str())).collect();
            let answered = status(port, method, path, &headers, "");
            let said = format!("{what}: {method} {path} ({scope}): {answered}");
            assert_eq!(is_let_in(answered), opens.contains(&scope.as_str()), "{said}");
            assert!(is_let_in(answered) || refused.contains(&answered), "{said}");
        }
    }
    let refusals = |why: &str| daemon.metric(&format!("cascor_api_refusals_total{{reason=\"{why}\"}}")).unwrap_or(0.0);
    for why in ["wrong_token", "throttled", "scope", "anonymous"] {
        assert!(refusals(why) >= 1.0, "{why}");
    }
    assert!(TOKENS.iter().all(|(_, _, token)| !daemon.log().contains(token)), "a token in the log");
    assert!(daemon.log().contains("token=\"reader\""), "whose token does not go that far");
    let lines = daemon.log().lines().filter(|line| line.contains("a request was refused")).count();
    assert!(lines <= 60, "refusals are logged at a bounded rate: {lines}");
}

#[test]
fn methods_that_no_route_has_do_nothing_for_any_scope() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir);
    let operations = operations(&daemon);
    let bearer = format!("Bearer {}", token("operator"));
    let paths: std::collections::BTreeSet<_> = operations.iter().map(|operation| operation.path.as_str()).collect();
    for path in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECTED"] {
            if operations.iter().any(|known| known.path == path && known.method == method) {
                continue;
            }
            let answered = status(daemon.http_port(), method, path, &[("Authorization", &bearer)], "");
            assert_eq!(answered, 405, "{method} {path}");
        }
        let scope = &operations.iter().find(|operation| operation.path == path).unwrap().scope;
        let head = status(daemon.http_port(), "HEAD", path, &[], "");
        assert!(!is_let_in(head) || scope == "open" || head == 405, "HEAD {path}: {head}");
    }
}

/// Long-running answers: reads them until the connection ends, and returns how it ended.
struct Reading(BufReader<TcpStream>);

impl Reading {
    fn begin(port: u16, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut reading = Self(BufReader::new(stream));
        let mut line = String::new();
        reading.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{path}: {line}");
        reading
    }

    /// The rest of the answer, as far as it arrives.
    fn rest(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // A truncated answer may end in a reset.
        let _ = self.0.read_to_end(&mut all);
        all
    }

    /// The same at a mebibyte a second: how much came, and when it ended.
    fn slowly(mut self) -> (usize, Instant) {
        let mut piece = vec![0; 100 << 10];
        let mut all = 0;
        while let Ok(1..) = self.0.read_exact(&mut piece).map(|()| piece.len()) {
            all += piece.len();
            thread::sleep(Duration::from_millis(100));
        }
        (all, Instant::now())
    }
}

fn sign_in(port: u16, name: &str) -> (String, String) {
    let signed = http::post(port, "/api/session", &json!({ "token": token(name) }).to_string()).unwrap();
    assert_eq!(signed.status, 201, "{}", signed.body);
    let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    (cookie, signed.json()["csrf"].as_str().unwrap().to_owned())
}

/// More than the buffers of both sides hold, so that an export is under way when its token goes.
fn record_large_rows(redis: &Redis, daemon: &Daemon) {
    let note = "x".repeat(60_000);
    let mut client = redis.client();
    for epoch in 0..400 {
        let message =
            json!({"run_id": RUN, "epoch": epoch, "loss": 0.5, "note": note, "timestamp": 1_700_000_000 + epoch});
        assert_eq!(client.publish("cascor:training", message.to_string()), 1);
    }
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 400);
}

#[test]
fn streams_and_exports_end_within_a_second_of_their_token() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&redis, &dir);
    let port = daemon.http_port();
    record_large_rows(&redis, &daemon);
    let guest = format!("Bearer {}", token("guest"));
    let reader = format!("Bearer {}", token("reader"));
    let (guest_cookie, _) = sign_in(port, "guest");
    let (cookie, csrf) = sign_in(port, "reader");
    let export = format!("/api/export?run_id={RUN}&format=ndjson");
    let kept = Reading::begin(port, "/api/stream", &[("Authorization", &reader)]);
    let cut = [
        Reading::begin(port, "/api/stream", &[("Authorization", &guest)]),
        Reading::begin(port, "/api/stream", &[("Cookie", &guest_cookie)]),
        Reading::begin(port, "/api/stream", &[("Authorization", &guest), ("Accept-Encoding", "gzip")]),
        Reading::begin(port, &export, &[("Authorization", &guest)]),
    ];
    let signed_in = Reading::begin(port, "/api/stream", &[("Cookie", &cookie)]);
    thread::sleep(Duration::from_millis(700));
    write_tokens(&dir, &["guest"]);
    daemon.process().signal(Signal::HUP);
    wait_until("the guest is out", LIMIT, || status(port, "GET", "/api/runs", &[("Authorization", &guest)], "") == 401);
    let since = Instant::now();
    let ended = cut.map(|reading| thread::spawn(move || (reading.rest(), Instant::now())));
    for (n, ended) in ended.into_iter().map(|thread| thread.join().unwrap()).enumerate() {
        let (body, at) = ended;
        assert!(at.duration_since(since) < CUT, "{n}: {:?}", at.duration_since(since));
        assert!(!body.ends_with(b"0\r\n\r\n") && body.len() < 20_000_000, "{n}: it looks whole, {} bytes", body.len());
    }
    let origin = format!("http://localhost:{port}");
    let host = format!("localhost:{port}");
    let out = [("Cookie", cookie.as_str()), ("Host", &host), ("Origin", &origin), ("X-CSRF-Token", &csrf)];
    assert_eq!(http::send(port, "DELETE", "/api/session", &out, "").unwrap().status, 204);
    let since = Instant::now();
    signed_in.rest();
    assert!(since.elapsed() < CUT, "signed out: {:?}", since.elapsed());
    // Clients with a valid token are not disturbed.
    let mut kept = kept;
    let mut byte = [0; 1];
    kept.0.read_exact(&mut byte).unwrap();
    assert!(daemon.metric("cascor_api_bodies_cut_total").unwrap() >= 5.0);
    let whole = http::send(port, "GET", &export, &[("Authorization", &reader)], "").unwrap();
    assert_eq!(whole.body.lines().count(), 400);
}

#[test]
fn answers_to_clients_that_read_slowly_or_not_at_all_end_in_time_too() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&redis, &dir);
    let port = daemon.http_port();
    record_large_rows(&redis, &daemon);
    let guest = format!("Bearer {}", token("guest"));
    let (cookie, _) = sign_in(port, "guest");
    let export = format!("/api/export?run_id={RUN}&format=ndjson");
    let whole = http::send(port, "GET", &export, &[("Authorization", &guest)], "").unwrap().body.len();
    let slow = Reading::begin(port, &export, &[("Authorization", &guest)]);
    let slow = thread::spawn(move || slow.slowly());
    let silent = [
        Reading::begin(port, &export, &[("Authorization", &guest)]),
        Reading::begin(port, &export, &[("Cookie", &cookie)]),
    ];
    // Until the buffers are full and the body is no longer polled.
    thread::sleep(Duration::from_secs(1));
    write_tokens(&dir, &["guest"]);
    let since = Instant::now();
    daemon.process().signal(Signal::HUP);
    // The reload is a part of the time.
    let limit = CUT + Duration::from_millis(500);
    wait_until("all are ended", LIMIT, || daemon.metric("cascor_api_bodies_cut_total") == Some(3.0));
    assert!(since.elapsed() < limit, "{:?}", since.elapsed());
    // A client gets no more than had arrived in its buffers.
    let (read, at) = slow.join().unwrap();
    assert!(at.duration_since(since) < limit * 2, "{:?}", at.duration_since(since));
    assert!(read < whole / 2, "{read} of {whole}");
    for reading in silent {
        let body = reading.rest();
        assert!(!body.ends_with(b"0\r\n\r\n") && body.len() < whole / 2, "{} of {whole}", body.len());
    }
}

#[test]
fn while_redis_is_away_a_stream_goes_on_as_long_as_its_token_is_one() {
    let mut redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&redis, &dir);
    let port = daemon.http_port();
    let (cookie, _) = sign_in(port, "guest");
    let mut reading = Reading::begin(port, "/api/stream", &[("Cookie", &cookie)]);
    redis.kill();
    wait_until("Redis is away", LIMIT, || status(port, "GET", "/api/runs", &[("Cookie", &cookie)], "") == 503);
    // The status comes once a second.
    let (since, mut line) = (Instant::now(), String::new());
    while since.elapsed() < Duration::from_secs(3) {
        line.clear();
        assert_ne!(reading.0.read_line(&mut line).unwrap(), 0, "it ended");
    }
    write_tokens(&dir, &["guest"]);
    daemon.process().signal(Signal::HUP);
    let guest = format!("Bearer {}", token("guest"));
    wait_until("the guest is out", LIMIT, || status(port, "GET", "/api/runs", &[("Authorization", &guest)], "") == 401);
    let since = Instant::now();
    reading.rest();
    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
}

#[test]
fn wrong_tokens_throttle_no_other_client_and_never_the_right_token() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir);
    let port = daemon.http_port();
    let mut answers = [0; 2];
    for n in 0..60 {
        let guess = format!("Bearer operator-token-{n:010}");
        let bearer = status(port, "POST", "/api/control", &[("Authorization", &guess)], "");
        let body = json!({ "token": guess }).to_string();
        let signing_in = http::post(port, "/api/session", &body).unwrap();
        for answered in [bearer, signing_in.status] {
            assert!(matches!(answered, 401 | 429), "{answered}");
            answers[usize::from(answered == 429)] += 1;
        }
        assert_eq!(signing_in.header("retry-after").is_some(), signing_in.status == 429, "{}", signing_in.head);
    }
    assert!((20..30).contains(&answers[0]), "{answers:?}");
    let log = daemon.log();
    let throttled = log.lines().filter(|line| line.contains("why=\"throttled\"") && line.contains("client=127.0.0.1"));
    assert!((1..=60).contains(&throttled.count()), "{log}");
    assert!(!log.contains("operator-token-"), "a guess in the log");
    // From the same address.
    let bearer = format!("Bearer {}", token("operator"));
    assert_eq!(status(port, "GET", "/api/runs", &[("Authorization", &bearer)], ""), 200);
    sign_in(port, "operator");
    let status: Value = http::send(port, "GET", "/api/status", &[("Authorization", &bearer)], "").unwrap().json();
    assert_eq!(status["access"]["tokens"], json!({"read": 2, "publish": 1, "admin": 1}));
    assert_eq!(status["access"]["problem"], Value::Null);
}
