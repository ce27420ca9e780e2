//! Writes of deleted runs that arrive when the deletion is in effect: nothing of them is left, what was received later is all there.
//!
//! One daemon deletes, another one writes, and something is stopped from the beginning of the deletion until after its end. Each round
//! deletes [`RUNS`] runs at once; `CASCOR_TEST_LATE_ROUNDS=10` does that many rounds instead of one.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{
    cassandra::{Cassandra, Cluster},
    daemon::Daemon,
    http,
    ports::free_port,
    redis::Redis,
    resp::Resp,
    skip, wait_until,
};

#[allow(dead_code, reason = "shared with the attacks, which use more of it")]
#[path = "../faults/process/proxy.rs"]
mod proxy;

use proxy::{Mode, Proxy, UP};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(90);
const RUNS: usize = 8;
/// Rows of a run before the deletion, and as many after it, twice.
const ROWS: u64 = 50;
/// Numbers of the rows that are received while the deletion is announced, and after it.
const MEANWHILE: u64 = 1_000;
const AFTER: u64 = 1_000_000;
/// From the beginning of a deletion until what was stopped goes on: longer than the ten seconds of the deletion, and the longest request.
const STOPPED: Duration = Duration::from_millis(12_500);

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// SIGSTOP of the daemon that writes.
    Daemon,
    /// What it sends is kept by a proxy.
    Requests,
    /// SIGSTOP of the node, once it has confirmed the deletions.
    Node,
}

/// Whose requests go through the proxy.
#[derive(Clone, Copy, PartialEq)]
enum Proxied {
    Deleter,
    Writer,
}

/// A daemon that deletes, and one that writes; one of them through a proxy.
struct Rig {
    redis: Redis,
    cassandra: Cassandra,
    cluster: Option<Cluster>,
    proxy: Proxy,
    deleter: Daemon,
    writer: Daemon,
}

impl Rig {
    fn start(cassandra: Cassandra, cluster: Option<Cluster>, proxied: Proxied) -> Self {
        let redis = Redis::start();
        let proxy = Proxy::start(&cassandra.host, free_port(), (&cassandra.host, cassandra.port));
        let unused = "redis.training_channels";
        let through = |who| cassandra.at_port(if who == proxied { proxy.port } else { cassandra.port });
        let builder = Daemon::on(&redis).set("instance", "\"deleter\"").set(unused, "[\"unused\"]");
        let deleter = builder.cassandra(&through(Proxied::Deleter)).prepare();
        deleter.apply_schema();
        let writer =
            Daemon::on(&redis).set("instance", "\"writer\"").cassandra(&through(Proxied::Writer)).start_ready();
        let mut rig = Self { redis, cassandra, cluster, proxy, deleter, writer };
        rig.deleter.launch();
        rig.deleter.wait_ready();
        for daemon in [&rig.deleter, &rig.writer] {
            wait_until("the store", LIMIT, || daemon.get("/api/runs?limit=1").status == 200);
        }
        rig
    }

    fn stop(&mut self, fault: Fault) {
        match fault {
            Fault::Daemon => self.writer.process().signal(Signal::STOP),
            Fault::Requests => self.proxy.set(UP, Mode::Hold),
            Fault::Node => self.cluster.as_ref().unwrap().pause(1),
        }
    }

    fn resume(&mut self, fault: Fault) {
        match fault {
            Fault::Daemon => self.writer.process().signal(Signal::CONT),
            Fault::Requests => self.proxy.set(UP, Mode::Pass),
            Fault::Node => self.cluster.as_ref().unwrap().resume(1),
        }
    }

    /// The numbers of the stored rows, run by run.
    fn epochs(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found = BTreeMap::<String, Vec<u64>>::new();
        for row in self.cassandra.rows("SELECT run_id, epoch FROM training_metrics") {
            found.entry(row["run_id"].as_str().unwrap().into()).or_default().push(row["epoch"].as_u64().unwrap());
        }
        found.values_mut().for_each(|epochs| epochs.sort_unstable());
        found
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn publish(client: &mut Resp, runs: &[Uuid], epochs: Range<u64>, extra: &str) {
    for epoch in epochs {
        let row = |run: &Uuid| {
            let data = json!({"epoch": epoch, "train_loss": 0.5, extra: 0.25});
            json!({"type": "metrics", "run_id": run, "timestamp": now(), "data": data}).to_string()
        };
        client.publish_all(TRAINING, &runs.iter().map(row).collect::<Vec<_>>()).unwrap();
    }
}

/// Publishes rows until told to stop; returns how many for each run.
fn train(port: u16, runs: Vec<Uuid>, first: u64, stop: &Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut client = Resp::connect(port).unwrap();
        let mut next = first;
        while !stop.load(Ordering::Relaxed) {
            publish(&mut client, &runs, next..next + 1, "meanwhile");
            next += 1;
            thread::sleep(Duration::from_millis(5));
        }
        next - first
    })
}

fn delete(port: u16, run: Uuid) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let answer = http::send(port, "DELETE", &format!("/api/runs/{run}?force=true"), &[], "").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    })
}

/// One round; `wait`: between the last row that the daemon receives and its stop.
fn round(rig: &mut Rig, fault: Fault, wait: Duration) {
    let runs: Vec<Uuid> = (0..RUNS).map(|_| Uuid::new_v4()).collect();
    let other = Uuid::new_v4();
    let mut client = rig.redis.client();
    let [stop_other, stop_rows] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let other_rows = train(rig.redis.port, vec![other], 0, &stop_other);
    publish(&mut client, &runs, 0..ROWS, "before");
    let count = |rig: &Rig, run: &Uuid| {
        let answer = rig.deleter.get(&format!("/api/runs/{run}?limit=0"));
        (answer.status == 200).then(|| answer.json()["metric_count"].as_u64().unwrap())
    };
    wait_until("the runs", LIMIT, || runs.iter().all(|run| count(rig, run) == Some(ROWS)));

    let rows = train(rig.redis.port, runs.clone(), MEANWHILE, &stop_rows);
    thread::sleep(Duration::from_millis(300));
    if fault == Fault::Daemon {
        // What is published while it is stopped is received afterwards.
        stop_rows.store(true, Ordering::Relaxed);
        thread::sleep(wait);
    }
    if fault != Fault::Node {
        rig.stop(fault);
    }
    let began = Instant::now();
    let port = rig.deleter.http_port();
    let deletions: Vec<_> = runs.iter().map(|run| delete(port, *run)).collect();
    wait_until("the announcements", LIMIT, || runs.iter().all(|run| count(rig, run).is_none()));
    if fault == Fault::Node {
        rig.stop(fault);
    }
    // The writer may write for seven seconds.
    thread::sleep(Duration::from_secs(3));
    stop_rows.store(true, Ordering::Relaxed);
    let meanwhile = rows.join().unwrap();
    thread::sleep(STOPPED.saturating_sub(began.elapsed()));
    publish(&mut client, &runs, AFTER..AFTER + ROWS, "after");
    rig.resume(fault);
    deletions.into_iter().for_each(|deletion| deletion.join().unwrap());
    publish(&mut client, &runs, AFTER + ROWS..AFTER + 2 * ROWS, "after");
    stop_other.store(true, Ordering::Relaxed);
    let others = other_rows.join().unwrap();

    let pending = |rig: &Rig| rig.writer.get("/api/status").json()["spool"]["pending_records"].clone();
    let last = |rig: &Rig, run: &Uuid| rig.epochs().get(&run.to_string()).and_then(|epochs| epochs.last().copied());
    wait_until("the last rows", LIMIT, || runs.iter().all(|run| last(rig, run) == Some(AFTER + 2 * ROWS - 1)));
    wait_until("the rows of the other run", LIMIT, || last(rig, &other) == Some(others - 1));
    wait_until("an empty spool", LIMIT, || pending(rig) == 0);
    judge(rig, &runs);
    assert_eq!(rig.epochs()[&other.to_string()], (0..others).collect::<Vec<_>>(), "{fault:?}: the other run");
    eprintln!("{fault:?}: {RUNS} runs deleted beside {meanwhile} rows of each, {others} of another run");
}

/// Only what was received after the deletion is left of these runs, in each table.
fn judge(rig: &Rig, runs: &[Uuid]) {
    let expected: Vec<_> = (AFTER..AFTER + 2 * ROWS).collect();
    let epochs = rig.epochs();
    let left: Vec<_> =
        runs.iter().map(|run| epochs[&run.to_string()].iter().filter(|epoch| **epoch < AFTER).count()).collect();
    assert_eq!(left, [0; RUNS], "rows of the deleted runs");
    for run in runs {
        assert_eq!(epochs[&run.to_string()], expected, "{run}");
        let select = |what: &str| rig.cassandra.rows(&format!("SELECT {what} WHERE run_id = {run} ALLOW FILTERING"));
        let row = select("final_epoch, start_time FROM training_runs");
        assert_eq!((row.len(), &row[0]["final_epoch"]), (1, &json!(AFTER + 2 * ROWS - 1)), "{row:?}");
        let entries = select("start_time FROM runs_by_month");
        assert_eq!((entries.len(), &entries[0]["start_time"]), (1, &row[0]["start_time"]), "{entries:?}");
        let names = select("name FROM run_metric_names");
        assert!(names.len() == 1 && names[0]["name"] == "after", "{names:?}");
    }
}

fn rounds() -> u32 {
    std::env::var("CASCOR_TEST_LATE_ROUNDS").map_or(1, |number| number.parse().unwrap())
}

fn attack(test: &str, fault: Fault) {
    let mut rig = if fault == Fault::Node {
        let Some(cluster) = Cluster::start(1, "127.0.102", 19_452, &[]) else { return skip(test, "no Cassandra jars") };
        Rig::start(cluster.keyspace(), Some(cluster), Proxied::Writer)
    } else {
        let Some(shared) = Cassandra::shared() else { return skip(test, "CASCOR_TEST_CASSANDRA is not set") };
        Rig::start(shared, None, Proxied::Writer)
    };
    for number in 0..rounds() {
        // The writer sends what it has gathered for 250 ms.
        round(&mut rig, fault, Duration::from_millis(100 + u64::from(number) * 29 % 300));
    }
}

#[test]
fn late_writes_of_a_stopped_daemon_are_deleted() {
    attack("late_writes_of_a_stopped_daemon_are_deleted", Fault::Daemon);
}

#[test]
fn late_writes_from_a_buffer_are_deleted() {
    attack("late_writes_from_a_buffer_are_deleted", Fault::Requests);
}

#[test]
fn late_writes_on_a_stopped_node_are_deleted() {
    attack("late_writes_on_a_stopped_node_are_deleted", Fault::Node);
}

/// An entry of the index and a gap that are first written while the deletion is announced go with the run; those of the run that
/// begins anew stay.
#[test]
fn what_is_first_written_while_a_deletion_is_announced_goes_with_the_run() {
    let test = "what_is_first_written_while_a_deletion_is_announced_goes_with_the_run";
    let Some(shared) = Cassandra::shared() else { return skip(test, "CASCOR_TEST_CASSANDRA is not set") };
    let rig = Rig::start(shared, None, Proxied::Writer);
    let (run, mut client) = (Uuid::new_v4(), rig.redis.client());
    let row = |seq: u64, time: f64| {
        json!({"type": "metrics", "run_id": run, "seq": seq, "timestamp": time, "data": {"epoch": seq, "train_loss": 0.5}})
            .to_string()
    };
    let select = |what: &str| rig.cassandra.rows(&format!("SELECT {what} WHERE run_id = {run} ALLOW FILTERING"));
    let gaps = || select("lost FROM ingest_gaps").iter().map(|gap| gap["lost"].clone()).collect::<Vec<Value>>();
    let entries = || select("start_time FROM runs_by_month").len();
    client.publish(TRAINING, row(0, now()));
    wait_until("the run", LIMIT, || entries() == 1);
    let deletion = delete(rig.deleter.http_port(), run);
    let path = format!("/api/runs/{run}?limit=0");
    wait_until("the announcement", LIMIT, || rig.deleter.get(&path).status != 200);
    // The writer may know of the deletion in a moment, so at once: an earlier start, and four missing messages.
    client.publish(TRAINING, row(1, now() - 86_400.0 * 40.0));
    client.publish(TRAINING, row(6, now()));
    deletion.join().unwrap();
    wait_until("what is missing to go", LIMIT, || gaps().is_empty() && entries() == 0);
    client.publish(TRAINING, row(7, now()));
    client.publish(TRAINING, row(9, now()));
    wait_until("the run that begins anew", LIMIT, || gaps() == [json!(1)] && entries() == 1);
}

/// A deletion that is confirmed too late is announced again, with a later time: it covers rows that the first announcement does not,
/// of a writer that had read the deletions just before.
#[test]
fn a_deletion_that_is_confirmed_late_is_announced_again() {
    let test = "a_deletion_that_is_confirmed_late_is_announced_again";
    let Some(shared) = Cassandra::shared() else { return skip(test, "CASCOR_TEST_CASSANDRA is not set") };
    let rig = Rig::start(shared, None, Proxied::Deleter);
    let run = Uuid::new_v4();
    publish(&mut rig.redis.client(), &[run], 0..ROWS, "before");
    let path = format!("/api/runs/{run}?limit=0");
    wait_until("the run", LIMIT, || {
        let answer = rig.writer.get(&path);
        answer.status == 200 && answer.json()["metric_count"] == ROWS
    });
    // An announcement and the question whether it was in time take longer than an announcement may, and each less than the keepalive.
    rig.proxy.set(UP, Mode::Latency(Duration::from_millis(850)));
    let deletion = delete(rig.deleter.http_port(), run);
    wait_until("the first announcement", LIMIT, || rig.writer.get(&path).status != 200);
    rig.proxy.set(UP, Mode::Hold);
    // The first announcement has begun more than a second ago and takes effect ten seconds after its beginning; the second one has
    // not begun.
    let written_at = ((now() + 10.0) * 1e6) as u64;
    let row = format!("({run}, {}, 1, 7) USING TIMESTAMP {written_at}", (now() * 1e3) as u64);
    rig.cassandra.rows(&format!("INSERT INTO training_metrics (run_id, timestamp, event_id, epoch) VALUES {row}"));
    rig.proxy.set(UP, Mode::Pass);
    deletion.join().unwrap();
    assert_eq!(rig.epochs(), BTreeMap::new());
}
