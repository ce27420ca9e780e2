//! Hostile clients of the shared Redis, which write any value below the prefix and publish on any channel of a pattern.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    daemon::{Daemon, INSTANCE},
    http,
    ports::free_port,
    process::Process,
    redis::Redis,
    resp::{Resp, Value},
    sqlite, wait_until,
};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const TRAINING: &str = "cascor:training";
const METRICS: &str = "SELECT count(*) FROM training_metrics";
const LIMIT: Duration = Duration::from_secs(30);
/// Private memory that the daemon may have at all: beyond, its allocations fail, and it aborts.
const LIMITED: &[&str] = &["prlimit", "--data=268435456"];
/// Promised bound of resident memory.
const MOST_KIB: u64 = 256 << 10;
const MIB: usize = 1 << 20;
/// No value of these tests is longer.
const MOST_BYTES: i64 = 1 << 20;

/// Every key that the daemon writes.
fn keys() -> Vec<String> {
    let latest = ["metrics", "topology", "state", "history", "control"].map(|name| format!("cascor:{name}:latest"));
    let of_run = ["metrics", "topology"].map(|name| format!("cascor:{name}:{RUN}:latest"));
    let shared = [format!("cascor:ingest:{INSTANCE}"), format!("cascor:ingest:run:{TRAINING}")];
    latest.into_iter().chain(of_run).chain(shared).collect()
}

/// Damage to a key.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Garbage,
    Json,
    Phases,
    List,
    Hash,
    Set,
    SortedSet,
    Stream,
    Large(usize),
    Expired,
    Renamed,
}

impl Harm {
    const SMALL: [Self; 10] = [
        Self::Garbage,
        Self::Json,
        Self::Phases,
        Self::List,
        Self::Hash,
        Self::Set,
        Self::SortedSet,
        Self::Stream,
        Self::Expired,
        Self::Renamed,
    ];

    fn to(self, redis: &mut Resp, key: &str) {
        if !matches!(self, Self::Expired | Self::Renamed) {
            redis.command(&["DEL", key]);
        }
        let phase = json!({"phase": "x".repeat(60), "epoch": 1, "hidden_units": 1});
        let phases = json!({"run_id": RUN, "opened_at": 1, "phases": vec![phase; 600]}).to_string();
        let words: &[&str] = match self {
            Self::Garbage => &["SET", key, "\u{1b}[31m\n{\"process\": ["],
            Self::Json => &["SET", key, "[[[[[[[[[[{\"process\":null}]]]]]]]]]]"],
            Self::Phases => &["SET", key, &phases],
            Self::List => &["RPUSH", key, "{}"],
            Self::Hash => &["HSET", key, "process", "x"],
            Self::Set => &["SADD", key, "{}"],
            Self::SortedSet => &["ZADD", key, "1", "{}"],
            Self::Stream => &["XADD", key, "*", "process", "x"],
            // Redis fills what is before it with zeros.
            Self::Large(bytes) => &["SETRANGE", key, &bytes.to_string(), "x"],
            Self::Expired => &["PEXPIRE", key, "1"],
            Self::Renamed => &["RENAME", key, "somebody:else"],
        };
        redis.command(words);
    }
}

/// A line of the table of results.
fn tell(what: &str, peak_kib: u64) {
    let line = format!("| Redis: {what} | peak {} of {} MiB resident |\n", peak_kib >> 10, MOST_KIB >> 10);
    crate::tabulate(&line);
}

#[track_caller]
fn assert_peak(daemon: &mut Daemon, what: &str) {
    let peak = daemon.process().resident_peak_kib();
    assert!(peak < MOST_KIB, "{what}: {} MiB", peak >> 10);
    tell(what, peak);
}

/// A daemon with a memory limit, and the messages published to it.
struct Attacked {
    daemon: Daemon,
    redis: Resp,
    rows: i64,
}

impl Attacked {
    fn start(server: &Redis) -> Self {
        let mut daemon = Daemon::on(server).under(LIMITED);
        // The daemon's keys live long enough to be checked.
        for key in ["metrics", "topology", "state", "history", "control", "status"] {
            daemon = daemon.set(&format!("latest.{key}_ttl"), "\"5m\"");
        }
        Self { daemon: daemon.start_ready(), redis: server.client(), rows: 0 }
    }

    /// One message of each kind, one of them without a run; each is a row, and the routes that read Redis answer.
    #[track_caller]
    fn assert_ingests(&mut self, what: &str) {
        self.rows += 2;
        for message in [
            json!({"run_id": RUN, "epoch": self.rows, "loss": 0.5}),
            json!({"type": "training_start"}),
            json!({"epoch": self.rows, "loss": 0.25}),
            json!({"type": "topology", "run_id": RUN, "data": {"input_units": 2, "output_units": 1}}),
            json!({"type": "state", "run_id": RUN, "data": {"status": "Started"}}),
        ] {
            assert_eq!(self.redis.publish(TRAINING, message.to_string()), 1, "{what}");
        }
        let (database, rows) = (self.daemon.database(), self.rows);
        wait_until(&format!("rows after {what}"), LIMIT, || sqlite::count(&database, METRICS) == rows);
        for path in ["metrics", "topology", "state", "history", "metrics/history"] {
            let asked = || self.daemon.get(&format!("/api/{path}"));
            // The keys are written beside the rows, which may be there first.
            wait_until(&format!("{path} after {what}"), LIMIT, || asked().status == 200);
            let answer = asked();
            assert!(answer.json().is_object() || answer.json().is_array(), "{what}: {path}: {}", answer.body);
        }
        assert_eq!(self.redis.publish("cascor:control", "status"), 1, "{what}");
    }

    /// Checks that the keys have values of the daemon again, and expire.
    #[track_caller]
    fn assert_overwritten(&mut self, what: &str) {
        keys().iter().for_each(|key| self.assert_ours(key, what));
    }

    #[track_caller]
    fn assert_ours(&mut self, key: &str, what: &str) {
        wait_until(&format!("our value of {key} after {what}"), LIMIT, || {
            let Value::Integer(1..=MOST_BYTES) = self.redis.command(&["STRLEN", key]) else { return false };
            let Value::Bulk(text) = self.redis.command(&["GET", key]) else { return false };
            is_ours(&text) && self.redis.command(&["PTTL", key]).integer().is_some_and(|left| left > 0)
        });
    }
}

/// Whether a value is one that the daemon writes.
fn is_ours(text: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else { return false };
    let newest = value.as_array().map_or(Some(&value), |array| array.last());
    let names = ["_ingest", "phase", "outcome", "opened_at"];
    newest.is_some_and(|value| names.iter().any(|name| value.get(name).is_some()))
}

/// Whether a key is read before it is written.
fn is_read_first(key: &str) -> bool {
    key.contains(":ingest:") || key == "cascor:history:latest"
}

#[test]
fn large_values_that_are_there_at_the_start_cost_no_memory() {
    let server = Redis::start();
    let mut redis = server.client();
    let (bytes, sets) = if crate::is_long() { (400 * MIB, keys().len()) } else { (320 * MIB, 1) };
    // The long tier puts them into one key after the other, because Redis needs the memory, too; the short one into those that are
    // read at the start.
    for turn in 0..sets {
        let keys = keys();
        let chosen = if crate::is_long() {
            vec![keys[turn].clone()]
        } else {
            keys.into_iter().filter(|key| is_read_first(key)).collect()
        };
        for key in &chosen {
            Harm::Large(bytes).to(&mut redis, key);
        }
        let what = format!("{} MiB at the start in {}", bytes / MIB, chosen.join(", "));
        let mut attacked = Attacked::start(&server);
        attacked.assert_ingests(&what);
        attacked.assert_overwritten(&what);
        // The other keys are written before they are read.
        if chosen.iter().any(|key| is_read_first(key)) {
            let unusable = attacked.daemon.metric("cascor_redis_unusable_values_total{reason=\"too_large\"}").unwrap();
            assert!(unusable >= 1.0, "{what}: {unusable}");
            assert!(attacked.daemon.log().contains("counts as absent"), "{}", attacked.daemon.log());
        }
        assert_peak(&mut attacked.daemon, &what);
        assert!(attacked.daemon.terminate().success());
        redis.command(&["FLUSHALL"]);
    }
}

#[test]
fn ingestion_goes_on_while_keys_are_damaged() {
    let server = Redis::start();
    let mut attacked = Attacked::start(&server);
    attacked.assert_ingests("nothing");
    let mut redis = server.client();
    // The long tier harms each key alone as well, and leaves each with a large value.
    for harm in Harm::SMALL {
        keys().iter().for_each(|key| harm.to(&mut redis, key));
        attacked.assert_ingests(&format!("{harm:?}"));
        if crate::is_long() {
            attacked.assert_overwritten(&format!("{harm:?}"));
            for key in keys() {
                harm.to(&mut redis, &key);
                attacked.assert_ingests(&format!("{harm:?} of {key}"));
            }
        }
    }
    let (bytes, chosen) = if crate::is_long() { (400 * MIB, keys()) } else { (320 * MIB, keys()[7..].to_vec()) };
    for key in chosen {
        let what = format!("{} MiB in {key}", bytes / MIB);
        Harm::Large(bytes).to(&mut redis, &key);
        attacked.assert_ingests(&what);
        // The bound holds for the command line, too.
        let shown = attacked.daemon.command(&["cache", "get", &key]);
        assert!(shown.stdout.len() < 2 * MIB, "{} bytes of {key}", shown.stdout.len());
        attacked.assert_ours(&key, &what);
    }
    attacked.assert_ingests("all of it");
    attacked.assert_overwritten("all of it");
    assert_peak(&mut attacked.daemon, "each key replaced while running");
    let log = attacked.daemon.log();
    assert!(!log.contains("ERROR") && !log.contains('\u{1b}'), "{log}");
    assert!(attacked.daemon.terminate().success());
}

#[test]
fn the_api_alone_and_the_command_line_read_no_more_than_a_value_of_ours() {
    let server = Redis::start();
    let mut attacked = Attacked::start(&server);
    attacked.assert_ingests("nothing");
    let (daemon, mut redis) = (&attacked.daemon, server.client());
    let port = free_port();
    let listen = format!("http.listen=127.0.0.1:{port}");
    let log = daemon.state_dir().join("serve.log");
    let mut served = Process::spawn(&mut daemon.prepared(&["serve", "--set", &listen]), &log);
    wait_until("the API", LIMIT, || http::get(port, "/readyz").is_ok_and(|answer| answer.status == 200));
    let limited = [&format!("--pid={}", served.id()), LIMITED[1]];
    assert!(Command::new(LIMITED[0]).args(limited).status().unwrap().success());
    // With an open stream, `serve` reads the daemon's decision on messages without a run.
    let mut watcher = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(watcher, "GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    watcher.read_exact(&mut [0; 12]).unwrap();
    let large = Harm::Large(320 * MIB);
    for key in
        [format!("cascor:ingest:run:{TRAINING}"), "cascor:history:latest".into(), "cascor:topology:latest".into()]
    {
        large.to(&mut redis, &key);
        for epoch in 0..20 {
            redis.publish(TRAINING, json!({"epoch": epoch, "loss": 0.5}).to_string());
            thread::sleep(Duration::from_millis(10));
        }
        for path in ["metrics", "topology", "history", "metrics/history", "status"] {
            large.to(&mut redis, "cascor:topology:latest");
            let answer = http::get(port, &format!("/api/{path}")).unwrap();
            assert!(answer.status < 500 && answer.body.len() < MIB, "{key}: {path}: {}", answer.status);
        }
    }
    let status = format!("cascor:ingest:{INSTANCE}");
    for command in [&["status"][..], &["cache", "get", &status], &["control", "status", "--wait"]] {
        large.to(&mut redis, &status);
        let command = daemon.prepared(command);
        let limited = Command::new(LIMITED[0])
            .arg(LIMITED[1])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(daemon.state_dir())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&limited.stderr);
        assert!(limited.status.code().is_some_and(|code| code < 100), "{command:?}: {} {said}", limited.status);
        assert!(limited.stdout.len() < MIB, "{command:?}: {} bytes", limited.stdout.len());
    }
    let peak = served.resident_peak_kib();
    assert!(peak < MOST_KIB, "{} MiB", peak >> 10);
    tell("large values read by `serve`", peak);
    let log = served.log();
    assert!(served.ended().is_none() && log.contains("counts as absent") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_damaged_session_key_ends_that_session_alone() {
    let server = Redis::start();
    let mut redis = server.client();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "ann admin 0123456789abcdef\n").unwrap();
    let tokens = format!("{:?}", tokens.display().to_string());
    let mut daemon = Daemon::on(&server).under(LIMITED).set("http.tokens_file", tokens).start_ready();
    let port = daemon.http_port();
    let large = Harm::Large(if crate::is_long() { 400 } else { 320 } * MIB);
    for harm in Harm::SMALL.into_iter().chain([large]) {
        let token = json!({"token": "0123456789abcdef"}).to_string();
        let signed = http::post(port, "/api/session", &token).unwrap();
        assert_eq!(signed.status, 201, "{harm:?}: {}", signed.body);
        let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let ask = || http::send(port, "GET", "/api/session", &[("Cookie", &cookie)], "").unwrap();
        assert!(ask().json()["name"] == "ann", "{harm:?}: {}", ask().body);
        let sessions = names(&mut redis, "cascor:session:*");
        assert!(!sessions.is_empty(), "{harm:?}");
        sessions.iter().for_each(|key| harm.to(&mut redis, key));
        // One that is used in its last millisecond lasts on.
        thread::sleep(Duration::from_millis(20));
        wait_until(&format!("the end of the session: {harm:?}"), LIMIT, || {
            let answer = ask();
            assert!(answer.status < 500, "{harm:?}: {} {}", answer.status, answer.body);
            !answer.body.contains("ann")
        });
        sessions.iter().for_each(|key| _ = redis.command(&["DEL", key]));
    }
    assert_peak(&mut daemon, "the key of a session replaced");
    assert!(daemon.terminate().success());
}

/// Keys with this prefix; checks that each of them expires.
#[track_caller]
fn names(redis: &mut Resp, pattern: &str) -> Vec<String> {
    let Value::Array(keys) = redis.command(&["KEYS", pattern]) else { panic!("KEYS was not answered") };
    let keys: Vec<_> = keys.iter().filter_map(Value::text).collect();
    for key in &keys {
        let left = redis.command(&["PTTL", key]).integer().unwrap();
        // One may have expired meanwhile.
        assert!(left > 0 || left == -2, "{key}: {left}");
    }
    keys
}

#[test]
fn any_number_of_channels_and_runs_leaves_few_keys_and_little_memory() {
    let server = Redis::start();
    let mut redis = server.client();
    let (channels, kept, long) = if crate::is_long() { (100_000, 4_096, 200) } else { (3_000, 200, 20) };
    // Only their number, not their lifetime, may bound the keys of runs.
    let daemon = Daemon::on(&server).under(LIMITED).set("redis.training_channels", "[\"lab:*:training\"]");
    let daemon = daemon.set("latest.metrics_ttl", "\"1h\"").set("intake.channels_max", kept.to_string());
    let mut daemon = daemon.start_ready();
    let (began, database) = (Instant::now(), daemon.database());
    for n in 0..channels {
        // At the speed of the store: the number of runs is under test, not the rate.
        if n % 1_000 == 0 {
            let enough = i64::from(n - 10_000);
            wait_until("the store to follow", LIMIT, || sqlite::count(&database, METRICS) >= enough);
        }
        let message = json!({"epoch": 1, "loss": 0.5}).to_string();
        assert_eq!(redis.publish(&format!("lab:{n}:training"), message), 1);
    }
    for n in 0..long {
        let channel = format!("lab:{}{n}:training", "x".repeat(MIB));
        assert_eq!(redis.publish(&channel, json!({"epoch": 1, "loss": 0.5}).to_string()), 1);
    }
    let all = i64::from(channels + long);
    let limit = LIMIT + Duration::from_secs(if crate::is_long() { 600 } else { 0 });
    wait_until("the rows of all channels", limit, || sqlite::count(&database, METRICS) == all);
    println!("{all} channels in {:?}", began.elapsed());
    wait_until("few shared runs", LIMIT, || names(&mut redis, "cascor:ingest:run:*").len() <= kept as usize);
    wait_until("few runs with keys", LIMIT, || names(&mut redis, "cascor:metrics:*:latest").len() <= 64);
    assert!(names(&mut redis, "cascor:ingest:run:*").len() > kept as usize / 2, "they are shared all the same");
    assert!(names(&mut redis, "*").iter().all(|key| key.len() < 400), "long names are not kept");
    assert_peak(&mut daemon, &format!("{channels} channels, and {long} with names of 1 MiB"));
    assert!(daemon.terminate().success());
}
