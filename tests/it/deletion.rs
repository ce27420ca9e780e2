//! Deletion of runs beside everything that may still hold their records, on both stores: what was deleted stays deleted, what came
//! later is there, and nothing else is touched.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    cassandra::Cassandra,
    daemon::{Builder, Daemon},
    http,
    redis::Redis,
    resp::Resp,
    skip, wait_until,
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(60);
/// Names of runs, as trainers publish them.
const DELETED: &str = "sweep/α 1";
const OTHER: &str = "sweep/α 2";
const ROWS: u64 = 50;
/// Messages between a trainer and a daemon on a busy machine, at most.
const ON_THE_WAY: u64 = 100;

/// A store that several daemons write to.
struct Lab {
    redis: Redis,
    cassandra: Option<Cassandra>,
    dir: TempDir,
}

impl Lab {
    fn on_sqlite() -> Self {
        Self { redis: Redis::start(), cassandra: None, dir: TempDir::with_prefix("cascor-shared").unwrap() }
    }

    /// `None`: there is no Cassandra here.
    fn on_cassandra(test: &str) -> Option<Self> {
        let Some(cassandra) = Cassandra::shared() else {
            skip(test, "CASCOR_TEST_CASSANDRA is not set");
            return None;
        };
        let lab = Self { cassandra: Some(cassandra), ..Self::on_sqlite() };
        lab.builder("schema").prepare().apply_schema();
        Some(lab)
    }

    /// A daemon that has reached the store.
    fn start(&self, builder: Builder) -> Daemon {
        let daemon = builder.start_ready();
        wait_store(&daemon);
        daemon
    }

    /// A daemon on the store.
    fn builder(&self, name: &str) -> Builder {
        let builder = Daemon::on(&self.redis).set("instance", format!("{name:?}"));
        match &self.cassandra {
            Some(cassandra) => builder.cassandra(cassandra),
            None => builder.set("store.sqlite.path", format!("{:?}", self.dir.path().join("cascor.db"))),
        }
    }
}

fn wait_store(daemon: &Daemon) {
    wait_until("the store", LIMIT, || daemon.get("/api/runs?limit=1").status == 200);
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn metrics(run: &str, epoch: u64) -> String {
    json!({"type": "metrics", "run_id": run, "seq": epoch, "timestamp": now(), "data": {"epoch": epoch, "train_loss": 0.5, "f1": 0.25}})
        .to_string()
}

fn event(run: &str, kind: &str, data: Value) -> String {
    json!({"type": kind, "run_id": run, "timestamp": now(), "data": data}).to_string()
}

/// A run of [`ROWS`] rows, and one message that a daemon with `limits.depth = 4` rejects.
fn publish_run(client: &mut Resp, run: &str) {
    client.publish(TRAINING, event(run, "training_start", json!({"config": {"lr": 0.1}})));
    let rows: Vec<_> = (0..ROWS).map(|epoch| metrics(run, epoch)).collect();
    client.publish_all(TRAINING, &rows).unwrap();
    client.publish(TRAINING, event(run, "topology", json!({"input_size": 2, "output_size": 1, "hidden_units": 3})));
    client.publish(TRAINING, event(run, "note", json!({"a": {"b": {"c": {"d": {"e": 1}}}}})));
    client.publish(TRAINING, event(run, "training_end", json!({"status": "completed"})));
}

fn path(run: &str) -> String {
    let encoded: String = run.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/api/runs/{encoded}")
}

/// Rows of metrics, topology and events; `None`: there is no such run.
fn rows(daemon: &Daemon, run: &str) -> Option<[u64; 3]> {
    let answer = daemon.get(&format!("{}?limit=0", path(run)));
    if answer.status != 200 {
        assert_eq!(answer.status, 400, "{}", answer.json());
        return None;
    }
    let count = |what: &str| {
        let answer = daemon.get(&format!("{}/{what}", path(run))).json();
        answer[what].as_array().or(answer["snapshots"].as_array()).map_or(99, |rows| rows.len() as u64)
    };
    Some([answer.json()["metric_count"].as_u64().unwrap(), count("topology"), count("events")])
}

fn delete(daemon: &Daemon, run: &str, parameters: &str) -> (u16, Value) {
    let target = format!("{}{parameters}", path(run));
    let answer = http::send(daemon.http_port(), "DELETE", &target, &[], "").unwrap();
    (answer.status, answer.json())
}

fn wait_stored(daemon: &Daemon, run: &str, expected: [u64; 3]) {
    wait_until(&format!("{expected:?} rows of {run}"), LIMIT, || rows(daemon, run) == Some(expected));
    let status = || daemon.get(&format!("{}?limit=0", path(run))).json()["run"]["status"].clone();
    wait_until("its end in the row of the run", LIMIT, || status() == "completed");
}

fn pause(client: &mut Resp, target: &str, daemon: &Daemon) {
    client.publish("cascor:control", json!({"command": "pause", "target": target}).to_string());
    wait_until("the pause", LIMIT, || daemon.get("/api/status").json()["paused"] == true);
}

fn nothing_brings_a_deleted_run_back(lab: &Lab) {
    let mut client = lab.redis.client();
    let a = lab.start(lab.builder("a").set("limits.depth", "4"));
    let b = lab.start(lab.builder("b").set("limits.depth", "4"));
    let mut orphan = lab.start(lab.builder("orphan").set("limits.depth", "4"));
    // These two hold every record of both runs.
    pause(&mut client, "b", &b);
    pause(&mut client, "orphan", &orphan);
    for run in [DELETED, OTHER] {
        publish_run(&mut client, run);
        wait_stored(&a, run, [ROWS, 1, 2]);
    }
    orphan.kill9();
    client.publish(TRAINING, event(OTHER, "later", json!({})));
    let other = [ROWS, 1, 3];
    wait_stored(&a, OTHER, other);

    assert_eq!(delete(&a, "no such run", "").0, 400);
    assert_eq!(delete(&a, DELETED, "?really=true").0, 400);
    let (status, answer) = delete(&a, DELETED, "");
    assert_eq!((status, &answer["deleted"]), (200, &json!(true)), "{answer}");
    assert_eq!((rows(&a, DELETED), rows(&b, DELETED)), (None, None));
    assert_eq!(delete(&a, DELETED, "").0, 400, "it is gone, and its name with it");

    // The second daemon had the run in its spool, and writes what it has of the other one.
    client.publish("cascor:control", json!({"command": "resume", "target": "b"}).to_string());
    wait_until("its skipped records", LIMIT, || {
        b.metric("cascor_writer_skipped_records_total").is_some_and(|skipped| skipped >= (ROWS + 3) as f64)
    });
    wait_until("its end of the log", LIMIT, || b.get("/api/status").json()["spool"]["pending_records"] == 0);

    // Dead letters, under the usual limit: that of the other run becomes its row.
    let replayed = a.succeed(&["deadletter", "replay", "--json", "--set", "limits.depth=64"]);
    assert_eq!(serde_json::from_str::<Value>(&replayed).unwrap()["failed"], json!([]), "{replayed}");
    wait_stored(&a, OTHER, [other[0], other[1], other[2] + 1]);

    // A spool without its daemon, from its beginning.
    let spool = orphan.state_dir().join("spool");
    let drained = a.succeed(&["spool", "drain", spool.to_str().unwrap(), "--json"]);
    assert!(serde_json::from_str::<Value>(&drained).unwrap()["records"].as_u64().unwrap() > 2 * ROWS, "{drained}");

    assert_eq!((rows(&a, DELETED), rows(&b, DELETED)), (None, None));
    assert_eq!(rows(&a, OTHER), Some([other[0], other[1], other[2] + 1]));

    // A run of the same name.
    publish_run(&mut client, DELETED);
    wait_stored(&a, DELETED, [ROWS, 1, 2]);
    let shown = a.get(&format!("{}?limit=0", path(DELETED))).json();
    assert_eq!(
        (&shown["run"]["status"], &shown["run"]["final_epoch"]),
        (&json!("completed"), &json!(ROWS - 1)),
        "{shown}"
    );
    assert_eq!(shown["run"]["run_name"], DELETED);
}

#[test]
fn nothing_brings_a_deleted_run_back_on_sqlite() {
    nothing_brings_a_deleted_run_back(&Lab::on_sqlite());
}

#[test]
fn nothing_brings_a_deleted_run_back_on_cassandra() {
    if let Some(lab) = Lab::on_cassandra("nothing_brings_a_deleted_run_back_on_cassandra") {
        nothing_brings_a_deleted_run_back(&lab);
    }
}

/// Publishes numbered rows of a run until the end is given; returns how many.
fn produce(port: u16, next: &AtomicU64, end: &AtomicU64) -> u64 {
    let mut client = Resp::connect(port).unwrap();
    loop {
        let seq = next.load(Ordering::SeqCst);
        if seq >= end.load(Ordering::SeqCst) {
            return seq;
        }
        client.publish(TRAINING, metrics(DELETED, seq));
        next.store(seq + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
    }
}

/// Two daemons write a run that goes on while it is deleted: what was published before is gone, what was published after is there.
fn a_deletion_divides_a_run_that_goes_on(lab: &Lab) {
    let a = lab.start(lab.builder("a"));
    let b = lab.start(lab.builder("b"));
    let (next, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let producer = thread::spawn({
        let (port, next, end) = (lab.redis.port, Arc::clone(&next), Arc::clone(&end));
        move || produce(port, &next, &end)
    });
    wait_until("rows of the run", LIMIT, || rows(&a, DELETED).is_some_and(|rows| rows[0] >= 200));
    let (status, answer) = delete(&a, DELETED, "");
    assert_eq!(status, 409, "it is running: {answer}");
    assert!(answer["detail"].as_str().unwrap().contains("force=true"), "{answer}");
    let before = next.load(Ordering::SeqCst);
    let (status, answer) = delete(&b, DELETED, "?force=true");
    assert_eq!(status, 200, "{answer}");
    let after = next.load(Ordering::SeqCst);
    end.store(after + 300, Ordering::SeqCst);
    let published = producer.join().unwrap();
    let seqs = || -> Vec<u64> {
        let answer = a.get(&format!("/api/metrics/range?run_id={}&limit=10000&order=asc", &path(DELETED)[10..])).json();
        let rows = answer["metrics"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect()
    };
    wait_until("the last row", LIMIT, || seqs().last() == Some(&(published - 1)));
    // Both daemons have written what they have.
    for daemon in [&a, &b] {
        wait_until("an empty spool", LIMIT, || daemon.get("/api/status").json()["spool"]["pending_records"] == 0);
    }
    let found = seqs();
    let first = found[0];
    // Some messages may be on their way when the call begins: what counts is when they are received.
    assert!(
        before <= first + ON_THE_WAY && first <= after + 1,
        "deleted between {before} and {after}, the first row is {first}"
    );
    assert_eq!(found, (first..published).collect::<Vec<_>>(), "no hole, no row twice");
}

#[test]
fn a_deletion_divides_a_run_that_goes_on_on_sqlite() {
    a_deletion_divides_a_run_that_goes_on(&Lab::on_sqlite());
}

#[test]
fn a_deletion_divides_a_run_that_goes_on_on_cassandra() {
    if let Some(lab) = Lab::on_cassandra("a_deletion_divides_a_run_that_goes_on_on_cassandra") {
        a_deletion_divides_a_run_that_goes_on(&lab);
    }
}

/// The daemon is killed while it deletes: all of the run is there, or nothing.
///
/// After each of these milliseconds once, or after as many as `CASCOR_TEST_DELETIONS` says.
fn a_killed_deletion_is_whole_or_none(lab: &Lab, delays: &[u64]) {
    let more = std::env::var("CASCOR_TEST_DELETIONS").map_or(0, |number| number.parse().unwrap());
    let delays = delays.iter().copied().chain((0..more).map(|n| n * 7 % 50));
    let mut client = lab.redis.client();
    let mut daemon = lab.start(lab.builder("a"));
    publish_run(&mut client, OTHER);
    let mut deleted = 0;
    let mut kills = 0;
    for delay in delays {
        publish_run(&mut client, DELETED);
        wait_stored(&daemon, DELETED, [ROWS, 1, 3]);
        let (port, target) = (daemon.http_port(), path(DELETED));
        let request = thread::spawn(move || http::send(port, "DELETE", &target, &[], ""));
        thread::sleep(Duration::from_millis(delay));
        daemon.kill9();
        let _ = request.join();
        daemon.launch();
        daemon.wait_ready();
        wait_store(&daemon);
        kills += 1;
        match rows(&daemon, DELETED) {
            None => deleted += 1,
            Some(rows) => {
                assert_eq!(rows, [ROWS, 1, 3], "killed after {delay} ms");
                assert_eq!(delete(&daemon, DELETED, "").0, 200);
                assert_eq!(self::rows(&daemon, DELETED), None);
            }
        }
        if lab.cassandra.is_some() {
            // The time of an announced deletion lies ahead: until then what is published belongs to the deleted run.
            thread::sleep(Duration::from_secs(11));
        }
    }
    assert_eq!(rows(&daemon, OTHER), Some([ROWS, 1, 3]));
    eprintln!("{kills} kills, {deleted} of them after the deletion");
}

#[test]
fn a_killed_deletion_is_whole_or_none_on_sqlite() {
    a_killed_deletion_is_whole_or_none(&Lab::on_sqlite(), &[0, 3, 10]);
}

#[test]
fn a_killed_deletion_is_whole_or_none_on_cassandra() {
    if let Some(lab) = Lab::on_cassandra("a_killed_deletion_is_whole_or_none_on_cassandra") {
        a_killed_deletion_is_whole_or_none(&lab, &[8]);
    }
}

/// Cassandra: the client goes away while the deletion is announced. It takes effect, and its author is recorded.
#[test]
fn a_deletion_is_recorded_although_its_client_has_gone() {
    let Some(lab) = Lab::on_cassandra("a_deletion_is_recorded_although_its_client_has_gone") else { return };
    let daemon = lab.start(lab.builder("a"));
    publish_run(&mut lab.redis.client(), DELETED);
    wait_until("the run", LIMIT, || rows(&daemon, DELETED).is_some_and(|rows| rows[0] == ROWS));
    let mut client = TcpStream::connect(("127.0.0.1", daemon.http_port())).unwrap();
    let target = path(DELETED);
    write!(client, "DELETE {target}?force=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
    wait_until("the announcement", LIMIT, || rows(&daemon, DELETED).is_none());
    drop(client);
    let cassandra = lab.cassandra.as_ref().unwrap();
    wait_until("the record of the deletion", LIMIT, || {
        cassandra.rows("SELECT * FROM control_log").iter().any(|row| row["command"] == "delete_run")
    });
}
