//! Sessions, attacked by a client of Redis that may read and write all their keys.

use std::{fs, thread, time::Duration};

use serde_json::json;

use crate::{
    routes::{status, token, write_tokens},
    support::{daemon::Daemon, http, redis::Redis, resp::Resp},
};

/// A signed-in client.
struct SignedIn {
    cookie: String,
    id: String,
    secret: String,
    csrf: String,
}

impl SignedIn {
    fn new(port: u16, name: &str) -> Self {
        let signed = http::post(port, "/api/session", &json!({ "token": token(name) }).to_string()).unwrap();
        assert_eq!(signed.status, 201, "{}", signed.body);
        let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let (id, secret) = cookie.split_once('=').unwrap().1.split_once('.').unwrap();
        let csrf = signed.json()["csrf"].as_str().unwrap().to_owned();
        Self { id: id.to_owned(), secret: secret.to_owned(), csrf, cookie: cookie.clone() }
    }

    fn key(&self) -> String {
        format!("cascor:session:{}", self.id)
    }

    /// Status of a read and of a command.
    fn asks(&self, port: u16) -> (u16, u16) {
        asks(port, &self.cookie, &self.csrf)
    }
}

fn asks(port: u16, cookie: &str, csrf: &str) -> (u16, u16) {
    let headers = [("Cookie", cookie), ("X-CSRF-Token", csrf)];
    let body = r#"{"command": "status"}"#;
    (status(port, "GET", "/api/runs", &headers, ""), status(port, "POST", "/api/control", &headers, body))
}

/// A daemon that answers only clients with a session.
fn daemon(redis: &Redis, dir: &tempfile::TempDir, more: &[(&str, &str)]) -> Daemon {
    let builder = Daemon::on(redis).listen_on("0.0.0.0").set("http.tokens_file", write_tokens(dir, &[]));
    more.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).start_ready()
}

fn get(client: &mut Resp, key: &str) -> String {
    client.command(&["GET", key]).text().unwrap()
}

#[test]
fn nothing_that_redis_holds_makes_a_session() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir, &[]);
    let port = daemon.http_port();
    let (operator, reader) = (SignedIn::new(port, "operator"), SignedIn::new(port, "reader"));
    assert_eq!((operator.asks(port), reader.asks(port)), ((200, 200), (200, 403)));
    let mut client = redis.client();
    let (high, low) = (get(&mut client, &operator.key()), get(&mut client, &reader.key()));
    for secret in [token("operator"), &operator.secret, &operator.csrf] {
        assert!(!high.contains(secret), "{high}");
    }
    let digest = cascor_ingest::tls::hex(&cascor_ingest::tls::sha256(token("operator").as_bytes()));
    assert!(!high.contains(&digest), "a digest that allows an offline guess of the token: {high}");

    let own = "ab".repeat(32);
    let old = json!({
        "name": "operator", "scope": "admin", "token": digest, "csrf": "cc",
        "secret": cascor_ingest::tls::hex(&cascor_ingest::tls::sha256(own.as_bytes())),
    });
    let raised = low.replace("\"read\"", "\"admin\"").replace("\"reader\"", "\"operator\"");
    let (signature, json) = (low.split(' ').nth(1).unwrap(), high.splitn(3, ' ').nth(2).unwrap());
    let later = high.replace("\"expires\":1", "\"expires\":9");
    for (what, value) in [
        ("the operator's, copied", high.clone()),
        ("the reader's, raised", raised.clone()),
        ("one signature on another's text", format!("1 {signature} {json}")),
        ("without a signature", format!("1  {json}")),
        ("of the version before", old.to_string()),
        ("nothing", String::new()),
        ("garbage", "\u{0}\u{1}{[".into()),
    ] {
        // Under a new key with a known secret; and in place of the reader's session, whose cookie is known.
        client.command(&["SET", &format!("cascor:session:{own}"), &value]);
        assert_eq!(asks(port, &format!("__Host-cascor_session={own}.{own}"), "cc"), (401, 401), "{what}");
        assert_eq!(asks(port, &format!("cascor_session={own}.{own}"), "cc"), (401, 401), "{what}");
        client.command(&["SET", &reader.key(), &value]);
        assert_eq!(reader.asks(port), (401, 401), "{what}, in place of the reader's");
    }
    client.command(&["SET", &operator.key(), &later]);
    assert_eq!(operator.asks(port), (401, 401), "one that shall last longer");
    client.command(&["SET", &operator.key(), &high]);
    client.command(&["SET", &reader.key(), &low]);
    assert_eq!((operator.asks(port), reader.asks(port)), ((200, 200), (200, 403)), "the right values are right again");
    // The forged session stays invalid after every real one was deleted.
    client.command(&["DEL", &operator.key(), &reader.key()]);
    client.command(&["SET", &format!("cascor:session:{own}"), &high]);
    assert_eq!(asks(port, &format!("cascor_session={own}.{own}"), "cc"), (401, 401));
    assert_eq!(operator.asks(port), (401, 401));
    for kind in [["LPUSH", "x"], ["SADD", "x"]] {
        client.command(&["DEL", &operator.key()]);
        client.command(&[kind[0], &operator.key(), kind[1]]);
        assert!(matches!(operator.asks(port), (401 | 503, 401 | 503)), "{kind:?}");
    }
}

#[test]
fn a_cookie_is_whole_or_none() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir, &[]);
    let port = daemon.http_port();
    let (operator, reader) = (SignedIn::new(port, "operator"), SignedIn::new(port, "reader"));
    let SignedIn { cookie, id, secret, csrf } = &operator;
    for wrong in [
        cookie[..cookie.len() - 1].to_owned(),
        format!("{cookie}0"),
        format!("cascor_session={id}.{}", "0".repeat(64)),
        format!("cascor_session={id}.{}", reader.secret),
        format!("cascor_session={}.{secret}", reader.id),
        format!("cascor_session={secret}.{id}"),
        format!("cascor_session={id}."),
        format!("cascor_session=*.{secret}"),
        format!("cascor_session={id}.{}", secret.to_uppercase()),
        "cascor_session=".into(),
    ] {
        assert_eq!(asks(port, &wrong, csrf), (401, 401), "{wrong}");
    }
    assert_eq!(asks(port, cookie, &reader.csrf), (200, 403), "the proof of another session");
    assert_eq!(operator.asks(port), (200, 200));
}

#[test]
fn an_ended_session_stays_ended_when_its_key_is_written_back() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(&redis, &dir, &[("http.sessions", "2")]);
    let port = daemon.http_port();
    let mut client = redis.client();
    let host = format!("localhost:{port}");
    let origin = format!("http://{host}");
    let sign_out = |who: &SignedIn| {
        let out = [("Cookie", who.cookie.as_str()), ("Host", &host), ("Origin", &origin), ("X-CSRF-Token", &who.csrf)];
        assert_eq!(http::send(port, "DELETE", "/api/session", &out, "").unwrap().status, 204);
    };
    let left = SignedIn::new(port, "operator");
    let kept = get(&mut client, &left.key());
    sign_out(&left);
    client.command(&["SET", &left.key(), &kept]);
    assert_eq!(left.asks(port), (401, 401), "signed out");

    // One more than a token may have: the oldest ends.
    let first = SignedIn::new(port, "operator");
    let kept_first = get(&mut client, &first.key());
    let others = [SignedIn::new(port, "operator"), SignedIn::new(port, "operator")];
    client.command(&["SET", &first.key(), &kept_first]);
    assert_eq!(first.asks(port), (401, 401), "over the cap");
    others.iter().for_each(|session| assert_eq!(session.asks(port), (200, 200)));

    // After a restart sessions go on, and what had ended has.
    let guest = SignedIn::new(port, "guest");
    daemon.restart();
    daemon.wait_ready();
    assert_eq!(others[0].asks(port), (200, 200), "a session outlives a restart");
    assert_eq!((left.asks(port), first.asks(port)), ((401, 401), (401, 401)));

    // A token that is removed and added again has none of its old sessions.
    assert_eq!(guest.asks(port).0, 200);
    let reload = |daemon: &mut Daemon, without: &[&str], read: u64| {
        write_tokens(&dir, without);
        daemon.process().signal(rustix::process::Signal::HUP);
        let bearer = format!("Bearer {}", token("operator"));
        crate::support::wait_until("the reload", Duration::from_secs(20), || {
            let status = http::send(port, "GET", "/api/status", &[("Authorization", &bearer)], "").unwrap().json();
            status["access"]["tokens"]["read"] == read
        });
    };
    reload(&mut daemon, &["guest"], 1);
    assert_eq!(guest.asks(port), (401, 401));
    reload(&mut daemon, &[], 2);
    assert_eq!(guest.asks(port), (401, 401));
}

#[test]
fn sessions_stay_valid_while_redis_takes_no_writes() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir, &[]);
    let (port, ann) = (daemon.http_port(), SignedIn::new(daemon.http_port(), "operator"));
    let mut client = redis.client();
    let before = get(&mut client, &ann.key());
    // Redis is full: writes are refused.
    client.command(&["CONFIG", "SET", "maxmemory", "1"]);
    thread::sleep(Duration::from_millis(5_200));
    let reads = || status(port, "GET", "/api/runs", &[("Cookie", &ann.cookie)], "");
    assert_eq!((reads(), reads()), (200, 200));
    assert_eq!(get(&mut client, &ann.key()), before, "the time of the last use is not stored");
    client.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(reads(), 200);
    assert_ne!(get(&mut client, &ann.key()), before);
}

#[test]
fn a_session_ends_when_its_lifetime_is_over_whatever_redis_keeps() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(&redis, &dir, &[("http.session_lifetime", "\"2s\"")]);
    let port = daemon.http_port();
    let operator = SignedIn::new(port, "operator");
    let mut client = redis.client();
    assert_eq!(client.command(&["PERSIST", &operator.key()]).integer(), Some(1));
    assert_eq!(operator.asks(port), (200, 200));
    thread::sleep(Duration::from_millis(2_200));
    assert_eq!(client.command(&["EXISTS", &operator.key()]).integer(), Some(1));
    assert_eq!(operator.asks(port), (401, 401));
}

#[test]
fn only_daemons_with_the_same_key_share_sessions() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let file = format!("{:?}", key.display().to_string());
    let sharing = [("http.session_key_file", file.as_str())];
    let (one, other) = (daemon(&redis, &dir, &sharing), daemon(&redis, &dir, &sharing));
    let alone = daemon(&redis, &dir, &[]);
    let operator = SignedIn::new(one.http_port(), "operator");
    assert_eq!(operator.asks(other.http_port()), (200, 200));
    assert_eq!(operator.asks(alone.http_port()), (401, 401));
    let own = alone.state_dir().join("session.key");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(own).unwrap().permissions()) & 0o777, 0o600);
    assert!(!one.state_dir().join("session.key").exists(), "nothing is made that is not used");
}
