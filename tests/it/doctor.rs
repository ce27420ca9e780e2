//! `doctor` on broken set-ups made of real parts: the fault is named first, with its fix, and the exit status is 1. On a good one it
//! finds no fault. Beside it: `doctor_machine.rs` (this machine) and `doctor_cassandra.rs`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    daemon::{Builder, Daemon},
    ports::free_port,
    process::Process,
    redis::{Options, Redis},
    resp, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Without listening, an examination takes a fraction of a second.
pub const QUICK: [&str; 3] = ["doctor", "--listen", "0s"];

/// The text of a trainer's message of this number.
type Message = fn(u64) -> String;

/// What must be named first.
pub struct Expected {
    pub level: &'static str,
    pub word: &'static str,
    /// A part of the fix.
    pub fix: &'static str,
}

pub const fn fault(word: &'static str, fix: &'static str) -> Expected {
    Expected { level: "FAULT", word, fix }
}

pub const fn advice(word: &'static str, fix: &'static str) -> Expected {
    Expected { level: "ADVICE", word, fix }
}

impl Expected {
    /// Holds what doctor printed against this.
    #[track_caller]
    pub fn check(&self, name: &str, output: &Output) {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let shown = format!("{name}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        // What could not be looked at stands before advice.
        let mut lines = stdout.lines().skip_while(|line| self.level == "ADVICE" && !line.starts_with("ADVICE"));
        let what = lines.next().unwrap_or_default();
        assert!(what.starts_with(self.level) && what.contains(self.word), "{:?} is not first\n{shown}", self.word);
        let fix = lines.next().unwrap_or_default();
        assert!(fix.starts_with("  fix: ") && fix.contains(self.fix), "{:?} is not the fix\n{shown}", self.fix);
        let code = if self.level == "FAULT" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{shown}");
    }
}

/// A daemon that is not started, with settings.
pub fn prepared(builder: Builder, settings: &[(&str, &str)]) -> Daemon {
    settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).prepare()
}

fn command(redis: &Redis, words: &[&str]) {
    let answer = redis.client().command(words);
    assert!(!matches!(answer, resp::Value::Error(_)), "{words:?}: {answer:?}");
}

/// A Redis that is changed by commands, settings that meet it, and how it is changed back.
struct Change {
    name: &'static str,
    commands: &'static [&'static [&'static str]],
    settings: &'static [(&'static str, &'static str)],
    back: &'static [&'static [&'static str]],
    expected: Expected,
}

const BUFFER: &str = "client-output-buffer-limit";
const EVENTS: &str = "notify-keyspace-events";
const CHANGES: &[Change] = &[
    Change {
        name: "a small buffer of subscribers",
        commands: &[&["CONFIG", "SET", BUFFER, "pubsub 1mb 0 0"]],
        settings: &[],
        back: &[&["CONFIG", "SET", BUFFER, "pubsub 256mb 64mb 60"]],
        expected: fault("cuts the daemon off", "pubsub 256mb 64mb 60"),
    },
    Change {
        name: "the default buffer of subscribers",
        commands: &[&["CONFIG", "SET", BUFFER, "pubsub 32mb 8mb 60"]],
        settings: &[],
        back: &[&["CONFIG", "SET", BUFFER, "pubsub 256mb 64mb 60"]],
        expected: advice("two of the largest messages", "pubsub 256mb 64mb 60"),
    },
    Change {
        name: "memory that is used up, with eviction",
        commands: &[&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], &["CONFIG", "SET", "maxmemory", "1mb"]],
        settings: &[],
        back: &[&["CONFIG", "SET", "maxmemory", "0"], &["CONFIG", "SET", "maxmemory-policy", "noeviction"]],
        expected: fault("evicts keys", "maxmemory-policy noeviction"),
    },
    Change {
        name: "memory that is used up",
        commands: &[&["CONFIG", "SET", "maxmemory", "1mb"]],
        settings: &[],
        back: &[&["CONFIG", "SET", "maxmemory", "0"]],
        expected: fault("refuses writes", "a larger `maxmemory`"),
    },
    Change {
        name: "notifications that a pattern matches",
        commands: &[&["CONFIG", "SET", EVENTS, "KEA"]],
        settings: &[("redis.training_channels", "[\"__key*\"]")],
        back: &[&["CONFIG", "SET", EVENTS, ""]],
        expected: fault("notifications of keys arrive as messages", "CONFIG SET notify-keyspace-events"),
    },
    Change {
        name: "a replica without its primary",
        commands: &[&["REPLICAOF", "127.0.0.1", "1"]],
        settings: &[],
        back: &[&["REPLICAOF", "NO", "ONE"]],
        expected: fault("lost its primary", "`127.0.0.1:1`"),
    },
    Change {
        name: "snapshots that fail",
        commands: &[&["CONFIG", "SET", "save", "900 1"], &["BGSAVE"]],
        settings: &[],
        back: &[&["CONFIG", "SET", "save", ""]],
        expected: fault("cannot write its snapshot", "stop-writes-on-bgsave-error"),
    },
];

#[test]
fn what_is_wrong_with_redis_is_named_first() {
    let redis = Redis::start();
    command(&redis, &["CONFIG", "SET", BUFFER, "pubsub 256mb 64mb 60"]);
    // A directory in the place of the snapshot makes it fail.
    let dir = redis.ca().with_file_name("dump.rdb");
    fs::create_dir(dir).unwrap();
    for change in CHANGES {
        change.commands.iter().for_each(|words| command(&redis, words));
        let info = |text: &str| redis.client().command(&["INFO", "everything"]).text().unwrap().contains(text);
        if change.name == "snapshots that fail" {
            wait_until("the failure", LIMIT, || info("rdb_last_bgsave_status:err"));
        }
        change.expected.check(change.name, &prepared(Daemon::on(&redis), change.settings).command(&QUICK));
        change.back.iter().for_each(|words| command(&redis, words));
        command(&redis, &["CONFIG", "RESETSTAT"]);
    }
}

#[test]
fn each_missing_right_is_named_with_the_rule_that_grants_it() {
    let redis = Redis::start();
    let file = include_str!("../../deploy/redis/ingest.acl");
    let rule: Vec<_> = file.trim_end().strip_prefix("user ingest on #PASSWORD ").unwrap().split(' ').collect();
    for (n, (missing, expected)) in [
        (&["-set"][..], fault("may not use SET", "+set`")),
        (&["-getrange"], fault("may not use GETRANGE", "+getrange`")),
        (&["-strlen"], fault("may not use STRLEN", "+strlen`")),
        (&["-del"], fault("may not use DEL", "+del`")),
        (&["-pttl"], fault("may not use PTTL", "+pttl`")),
        (&["-publish"], fault("may not publish on `cascor:control:ack`", "+publish`")),
        (&["resetkeys"], fault("may not use the keys `cascor:*`", "~cascor:*`")),
        (&["resetkeys", "%R~cascor:*"], fault("may not use the keys `cascor:*`", "~cascor:*`")),
        (&["resetchannels"], fault("may not subscribe to `cascor:training`", "&cascor:training`")),
        (&["-subscribe"], fault("may not subscribe to `cascor:training`", "+subscribe`")),
        (
            &["resetchannels", "&cascor:training", "&cascor:control"],
            fault("`cascor:control:ack`", "&cascor:control:ack`"),
        ),
        (&["-scan"], advice("may not use SCAN", "+scan`")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("lacks{n}");
        let words = [&["ACL", "SETUSER", &name, "on", ">pw"], &rule[..], missing].concat();
        command(&redis, &words);
        let login = Daemon::on(&redis).set("redis.username", format!("{name:?}")).env("REDIS_PASSWORD", "pw").prepare();
        expected.check(&format!("{missing:?}"), &login.command(&QUICK));
    }
    let wrong = Daemon::on(&redis).set("redis.username", "\"lacks0\"").env("REDIS_PASSWORD", "wrong").prepare();
    fault("refuses the login", "redis.password_file").check("a wrong password", &wrong.command(&QUICK));
    assert_eq!(redis.client().command(&["DBSIZE"]).integer(), Some(0), "nothing was written");
}

#[test]
fn a_server_that_is_no_plain_redis_is_named_first() {
    let absent = Redis::absent(Options::default());
    fault("does not answer", "start Redis").check("no server", &Daemon::on(&absent).prepare().command(&QUICK));
    let cluster = Redis::with(Options { more: vec!["--cluster-enabled", "yes"], ..Options::default() });
    fault("node of a cluster", "redis-cluster://").check("a cluster", &Daemon::on(&cluster).prepare().command(&QUICK));
    let dir = tempfile::tempdir().unwrap();
    let (file, port) = (dir.path().join("sentinel.conf"), free_port());
    fs::write(&file, format!("port {port}\nbind 127.0.0.1\n")).unwrap();
    let mut sentinel = Command::new("redis-server");
    let _sentinel = Process::spawn(sentinel.arg(&file).arg("--sentinel"), &dir.path().join("log"));
    wait_until("the sentinel", LIMIT, || resp::Resp::connect(port).is_ok());
    let daemon = Daemon::at(&format!("redis://127.0.0.1:{port}/0")).prepare();
    fault("names a Sentinel", "redis-sentinel://").check("a sentinel", &daemon.command(&QUICK));
}

/// Publishes what the function makes of a number, until dropped.
struct Trainer(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Trainer {
    fn start(redis: &Redis, channel: &'static str, message: Message) -> Self {
        let (stop, mut client) = (Arc::new(AtomicBool::new(false)), redis.client());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                client.publish(channel, message(n));
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

fn now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}

fn local_time() -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).strftime("%Y-%m-%dT%H:%M:%S.%f").to_string()
}

#[test]
fn what_is_wrong_with_messages_is_named_first() {
    let redis = good_redis();
    let cases: [(&str, Message, Expected); 7] = [
        (
            "doctor:nonsense",
            |_| "nonsense".into(),
            fault("become dead letters", "correct the publisher: a message is a JSON object"),
        ),
        (
            "doctor:two",
            |n| json!({"epoch": n / 2 + 100 * (n % 2), "loss": 0.5, "timestamp": now()}).to_string(),
            fault("several trainers", "run_id"),
        ),
        (
            "doctor:local",
            |n| json!({"run_id": "a", "seq": n, "epoch": n, "loss": 0.5, "timestamp": local_time()}).to_string(),
            fault("+2 h off", "intake.time_zone"),
        ),
        (
            "doctor:ahead",
            |n| json!({"run_id": "a", "seq": n, "epoch": n, "loss": 0.5, "timestamp": now() + 3_600.0}).to_string(),
            fault("cannot be used", "synchronise the clocks"),
        ),
        (
            "doctor:nameless",
            |n| json!({"epoch": n, "seq": n, "loss": 0.5, "timestamp": now()}).to_string(),
            advice("no `run_id`", "run_id"),
        ),
        (
            "doctor:timeless",
            |n| json!({"run_id": "a", "epoch": n, "seq": n, "loss": 0.5}).to_string(),
            advice("no `timestamp`", "timestamp"),
        ),
        (
            "doctor:uncounted",
            |n| json!({"run_id": "a", "epoch": n, "loss": 0.5, "timestamp": now()}).to_string(),
            advice("no `seq`", "seq"),
        ),
    ];
    for (channel, message, expected) in cases {
        let daemon = on(&redis).set("redis.training_channels", format!("[{channel:?}]")).prepare();
        let _trainer = Trainer::start(&redis, channel, message);
        expected.check(channel, &daemon.command(&["doctor", "--listen", "500ms"]));
    }
}

#[test]
fn two_daemons_of_one_name_are_named() {
    let redis = Redis::start();
    let first = Daemon::on(&redis).start_ready();
    let second = Daemon::on(&redis).start_ready();
    let output = first.command(&["doctor", "--listen", "2500ms"]);
    fault("two daemons run under the name `test`", "`instance`").check("two daemons", &output);
    drop(second);
}

pub fn text(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

pub fn file(dir: &Path, name: &str, contents: &str, mode: u32) -> String {
    let path = dir.join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    text(&path)
}

pub const TOKENS: &str = "ann admin 0123456789abcdef\n";
/// A Redis of which doctor has nothing to say but advice.
pub fn good_redis() -> Redis {
    let redis = Redis::with(Options { password: Some("pw"), ..Options::default() });
    command(&redis, &["CONFIG", "SET", BUFFER, "pubsub 256mb 64mb 60"]);
    redis
}

pub fn on(redis: &Redis) -> Builder {
    Daemon::on(redis).env("REDIS_PASSWORD", "pw")
}

#[test]
fn a_good_set_up_has_no_fault_and_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let redis = good_redis();
    let tokens = file(dir.path(), "tokens", TOKENS, 0o600);
    let mut daemon = on(&redis).set("http.tokens_file", &tokens).start_ready();
    let _trainer = Trainer::start(&redis, "cascor:training", |n| {
        json!({"run_id": "a", "seq": n, "epoch": n, "loss": 0.5, "timestamp": now()}).to_string()
    });
    let spool = || {
        let names = fs::read_dir(daemon.state_dir().join("spool")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains("doctor")).count()
    };
    let output = daemon.command(&["doctor", "--listen", "600ms", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["faults"], &report["unknown"]),
        (Some(0), &json!(0), &json!(0)),
        "{report:#}"
    );
    for level in report["findings"].as_array().unwrap() {
        assert_eq!(level["level"], "advice", "{report:#}");
    }
    assert!(report["looked_at"][1].as_str().unwrap().starts_with("Redis "), "{report:#}");
    assert_eq!(spool(), 0, "the temporary file is removed");
    let keys = redis_keys(&redis);
    assert!(keys.iter().all(|key| !key.contains("doctor")), "{keys:?}");
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn redis_keys(redis: &Redis) -> Vec<String> {
    match redis.client().command(&["KEYS", "*"]) {
        resp::Value::Array(keys) => keys.iter().filter_map(resp::Value::text).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_without_rights_on_the_server_says_what_it_could_not_look_at() {
    let redis = Redis::start();
    let file = include_str!("../../deploy/redis/ingest.acl");
    let rule = file.trim_end().strip_prefix("user ingest on #PASSWORD ").unwrap();
    let words: Vec<_> = ["ACL", "SETUSER", "ingest", "on", ">pw"].into_iter().chain(rule.split(' ')).collect();
    command(&redis, &words);
    let daemon = on(&redis).set("redis.username", "\"ingest\"").prepare();
    let output = daemon.command(&["doctor", "--listen", "100ms"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(!shown.contains("FAULT") && shown.contains("UNKNOWN redis: the buffer limit of subscribers"), "{shown}");
    assert!(shown.contains("`redis-cli CONFIG GET client-output-buffer-limit`"), "{shown}");
}

#[test]
fn wrong_usage_is_exit_status_2() {
    let daemon = Daemon::on(&Redis::absent(Options::default())).prepare();
    for words in [&["doctor", "--listen", "5"][..], &["doctor", "redis"], &["doctor", "--nosuch"]] {
        assert_eq!(daemon.command(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn check_connect_says_which_server_cannot_be_used() {
    let redis = good_redis();
    let said = |daemon: &Daemon, words: &[&str]| {
        let output = daemon.command(words);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = said(&on(&redis).prepare(), &["check", "--connect"]);
    assert!(code == Some(0) && shown.matches("can be used").count() == 2, "{shown}");
    let (code, shown) = said(&Daemon::on(&redis).prepare(), &["check", "--connect"]);
    assert!(code == Some(1) && shown.contains("refuses the login"), "{shown}");
    let cassandra = on(&redis).set("store.kind", "\"cassandra\"").set("store.cassandra.port", "1").prepare();
    let (code, shown) = said(&cassandra, &["check", "--connect", "--json"]);
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert!(code == Some(1) && report["servers"][0]["error"].is_null(), "{report}");
    assert!(report["servers"][1]["error"].as_str().unwrap().contains("127.0.0.1:1"), "{report}");
}
