//! Sessions of processes that share a state directory: one key and one list of ended sessions, with concurrent starts and writes.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{daemon::Daemon, http, ports::free_port, process::Process, redis::Redis, wait_until};

const TOKEN: &str = "admin-token-0123456789";
const LIMIT: Duration = Duration::from_secs(60);
const PROCESSES: usize = 8;

/// A cookie, the proof that goes with it, and the key of Redis that holds the session.
struct SignedIn {
    cookie: String,
    csrf: String,
    key: String,
}

impl SignedIn {
    fn new(port: u16) -> Self {
        let signed = http::post(port, "/api/session", &json!({ "token": TOKEN }).to_string()).unwrap();
        assert_eq!(signed.status, 201, "{}", signed.body);
        let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let id = cookie.split_once('=').unwrap().1.split_once('.').unwrap().0;
        let key = format!("cascor:session:{id}");
        Self { csrf: signed.json()["csrf"].as_str().unwrap().to_owned(), key, cookie }
    }

    /// Status of a read that needs a session.
    fn reads(&self, port: u16) -> u16 {
        http::send(port, "GET", "/api/runs", &[("Cookie", &self.cookie)], "").unwrap().status
    }

    fn sign_out(&self, port: u16) -> u16 {
        let own = [("Cookie", self.cookie.as_str()), ("X-CSRF-Token", &self.csrf)];
        http::send(port, "DELETE", "/api/session", &own, "").unwrap().status
    }
}

/// Answers of these ports to concurrent requests.
fn at_once<T: Send>(ports: &[u16], ask: impl Fn(usize, u16) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = ports.iter().enumerate().map(|(at, port)| scope.spawn(move || ask(at, *port))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A daemon, and servers of its API beside it, that all start at the same moment on an empty state directory.
fn start(redis: &Redis, dir: &tempfile::TempDir) -> (Daemon, Vec<Process>, Vec<u16>) {
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("ann admin {TOKEN}\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let builder = Daemon::on(redis).set("http.tokens_file", format!("{:?}", tokens.display().to_string()));
    let mut daemon = builder.prepare();
    let serve_ports: Vec<u16> = (1..PROCESSES).map(|_| free_port()).collect();
    daemon.launch();
    let serve = |port: &u16| {
        let listen = format!("http.listen=127.0.0.1:{port}");
        Process::spawn(&mut daemon.prepared(&["serve", "--set", &listen]), &dir.path().join(format!("{port}.log")))
    };
    let served: Vec<Process> = serve_ports.iter().map(serve).collect();
    let ports: Vec<u16> = [daemon.http_port()].into_iter().chain(serve_ports).collect();
    for port in &ports {
        wait_until("a server", LIMIT, || http::get(*port, "/readyz").is_ok_and(|answer| answer.status == 200));
    }
    (daemon, served, ports)
}

/// The identifiers of one list of the only token in the file of sessions.
fn listed(daemon: &Daemon, list: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(daemon.state_dir().join("sessions.json")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let tokens = whole["tokens"].as_object().unwrap();
    assert_eq!(tokens.len(), 1, "one key names the token in one way: {whole}");
    let entries = tokens.values().next().unwrap()[list].as_array().unwrap();
    entries.iter().map(|entry| format!("cascor:session:{}", entry["id"].as_str().unwrap())).collect()
}

#[test]
fn processes_that_start_at_once_on_one_state_directory_share_one_key_and_one_list_of_sessions() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let (daemon, _served, ports) = start(&redis, &dir);

    // Two concurrent sign-ins at each: every process knows every session, and the list on disk has all of them.
    let sessions = at_once(&ports, |_, port| [SignedIn::new(port), SignedIn::new(port)]);
    let (leaving, staying): (Vec<_>, Vec<_>) = sessions.into_iter().map(|[one, other]| (one, other)).unzip();
    for session in leaving.iter().chain(&staying) {
        assert_eq!(at_once(&ports, |_, port| session.reads(port)), [200; PROCESSES]);
    }
    let keys = |sessions: &[SignedIn]| sessions.iter().map(|session| session.key.clone()).collect::<BTreeSet<_>>();
    assert_eq!(listed(&daemon, "open"), &keys(&leaving) | &keys(&staying));

    // Each first session is signed out at another process than its own, concurrently; a client of Redis writes the keys back.
    let mut client = redis.client();
    let values: Vec<_> = leaving.iter().map(|session| client.command(&["GET", &session.key]).text().unwrap()).collect();
    let out = at_once(&ports, |at, port| leaving[(at + 1) % PROCESSES].sign_out(port));
    assert_eq!(out, [204; PROCESSES]);
    for (session, value) in leaving.iter().zip(&values) {
        client.command(&["SET", &session.key, value]);
    }
    assert_eq!((listed(&daemon, "ended"), listed(&daemon, "open")), (keys(&leaving), keys(&staying)));
    for session in &leaving {
        wait_until("that it has ended everywhere", LIMIT, || {
            at_once(&ports, |_, port| session.reads(port)) == [401; PROCESSES]
        });
    }
    for session in &staying {
        assert_eq!(at_once(&ports, |_, port| session.reads(port)), [200; PROCESSES]);
    }
    let files =
        fs::read_dir(daemon.state_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.filter(|name| name.starts_with("session")).collect();
    let expected = ["session.key", "sessions.json", "sessions.lock"].map(str::to_owned);
    assert_eq!(files, expected.into(), "nothing is left of those that lost the race for the key");
}
