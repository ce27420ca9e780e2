//! The worst messages that the limits allow: the daemon stays within the memory that it promises, and each becomes its row whole, or
//! one dead letter.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    messages::{self, Becomes, Worst},
    support::{
        cassandra::Cassandra,
        daemon::Daemon,
        http,
        redis::{Options, Redis},
        skip, sqlite, wait_until,
    },
};

const TRAINING: &str = "cascor:training";
/// Promised bound of resident memory.
const MOST_KIB: u64 = 256 << 10;
/// Limit of private memory, 128 MiB above the promise for allocations that are not touched: stacks of threads, and buffers that
/// grow by doubling.
const LIMITED: &[&str] = &["prlimit", "--data=402653184"];
const LIMIT: Duration = Duration::from_secs(120);
/// A size within `limits.message`.
const SIZE: usize = 19 << 20;
/// Rows are compared where the server accepts them: Cassandra refuses rows over 16 MiB.
const SMALLER: usize = 12 << 20;

/// A line of the table of results.
fn tell(store: &str, what: &str, times: usize, peak_kib: u64) {
    let line = format!("| {store} | {what} | {times} | {} |\n", peak_kib >> 10);
    crate::tabulate(&line);
}

/// A Redis without limits on slow subscribers, so that every message reaches the daemon.
fn server() -> Redis {
    Redis::with(Options { more: vec!["--client-output-buffer-limit", "pubsub 0 0 0"], ..Options::default() })
}

struct Target {
    daemon: Daemon,
    cassandra: Option<Cassandra>,
    redis: Redis,
    rows: i64,
    letters: i64,
    dropped: i64,
}

impl Target {
    fn new(cassandra: Option<Cassandra>) -> Self {
        let redis = server();
        let builder = Daemon::on(&redis).under(LIMITED);
        let mut daemon = match &cassandra {
            Some(cassandra) => {
                let daemon = builder.cassandra(cassandra).prepare();
                daemon.apply_schema();
                daemon
            }
            None => builder.prepare(),
        };
        daemon.launch();
        daemon.wait_ready();
        Self { daemon, cassandra, redis, rows: 0, letters: 0, dropped: 0 }
    }

    fn metric(&self, name: &str) -> i64 {
        self.daemon.metric(name).unwrap_or(0.0) as i64
    }

    /// Publishes it so many times; waits until each is a row or a dead letter, as expected.
    fn publish(&mut self, worst: &Worst, times: usize) {
        let mut client = self.redis.client();
        for _ in 0..times {
            assert_eq!(client.publish(TRAINING, &worst.payload), 1, "the daemon listens");
        }
        let name = worst.name;
        let done = || {
            let taken = self.metric("cascor_intake_events_total")
                + ["too_large", "malformed_json", "unknown_shape"]
                    .map(|reason| self.metric(&format!("cascor_intake_rejected_total{{reason=\"{reason}\"}}")))
                    .iter()
                    .sum::<i64>();
            let dropped = self.metric("cascor_source_lost_messages_total{reason=\"queue_full\"}");
            let all = self.rows + self.letters + self.dropped + times as i64;
            let durable = self.metric("cascor_intake_durable_seconds_count");
            taken + dropped == all && durable + dropped == all && self.metric("cascor_spool_pending_records") == 0
        };
        wait_until(&format!("{name} to be stored or set aside"), LIMIT, done);
        let dropped = self.metric("cascor_source_lost_messages_total{reason=\"queue_full\"}") - self.dropped;
        assert!(times > 4 || dropped == 0, "{name}: {dropped} of {times} dropped");
        self.dropped += dropped;
        let arrived = times as i64 - dropped;
        match worst.becomes {
            Becomes::Row(table) => {
                self.rows += arrived;
                self.check_text(worst, table);
            }
            Becomes::DeadLetter => self.letters += arrived,
        }
        let (peak, process) = (self.daemon.process().resident_peak_kib(), self.daemon.process().ended());
        assert!(process.is_none(), "{name}: the daemon has ended\n{}", self.daemon.log());
        tell(if self.cassandra.is_some() { "Cassandra" } else { "SQLite" }, name, times, peak);
        assert!(peak < MOST_KIB, "{name}, {times} times: {} MiB", peak >> 10);
    }

    /// Checks that the newest row of the table has the whole text.
    fn check_text(&self, worst: &Worst, table: &str) {
        let column = match table {
            "training_metrics" => "rest_json",
            "network_topology" => "topology_json",
            _ => "payload_json",
        };
        if self.cassandra.is_some() {
            return; // Refused rows are counted by `letters`.
        }
        let newest =
            format!("SELECT octet_length({column}) FROM {table} ORDER BY timestamp DESC, event_id DESC LIMIT 1");
        let bytes = sqlite::count(&self.daemon.database(), &newest) as usize;
        // JSON is kept as it came, but for the fields that have columns; MessagePack is longer as JSON.
        assert!(bytes + 256 > worst.payload.len(), "{}: {bytes} of {} bytes", worst.name, worst.payload.len());
    }
}

/// Reads an answer slowly, until it ends or the attack is over.
fn read(port: u16, path: &str, stop: &AtomicBool) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut piece = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) && stream.read(&mut piece).is_ok_and(|read| read > 0) {
        thread::sleep(Duration::from_millis(5));
    }
    Some(())
}

/// Reads the newest values, a list, and exports of the newest run, repeatedly, until stopped.
fn readers(port: u16, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    const PATHS: [&str; 4] =
        ["/api/topology", "/api/state", "/api/runs?limit=5", "/api/export?format=ndjson&table=network_topology"];
    let each = PATHS.map(|path| {
        let stop = Arc::clone(stop);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let runs = || {
                    Some(http::get(port, "/api/runs?limit=1").ok()?.json()["runs"][0]["run_id"].as_str()?.to_owned())
                };
                let path = match path.contains("export").then(runs).flatten() {
                    Some(run) => format!("{path}&run_id={run}"),
                    None => path.to_owned(),
                };
                read(port, &path, &stop);
                thread::sleep(Duration::from_millis(20));
            }
        })
    });
    each.into()
}

fn attack(mut target: Target, attacks: &[(Worst, usize)]) {
    let stop = Arc::new(AtomicBool::new(false));
    let readers = readers(target.daemon.http_port(), &stop);
    for (worst, times) in attacks {
        target.publish(worst, *times);
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

fn attacks(size: usize) -> Vec<(Worst, usize)> {
    if crate::is_long() {
        let each =
            [1, 4].into_iter().flat_map(|times| messages::all(size).into_iter().map(move |worst| (worst, times)));
        let forty = [messages::connections(size), messages::packed_connections(size)].map(|worst| (worst, 40));
        return each.chain(forty).collect();
    }
    vec![(messages::packed_nothing(size), 1), (messages::connections(size), 4), (messages::packed_weights(size), 1)]
}

#[test]
fn the_worst_messages_stay_within_the_promise_on_sqlite() {
    attack(Target::new(None), &attacks(SIZE));
}

#[test]
fn the_worst_messages_stay_within_the_promise_on_cassandra() {
    let Some(cassandra) = Cassandra::shared() else {
        return skip("the_worst_messages_stay_within_the_promise_on_cassandra", "no Cassandra");
    };
    attack(Target::new(Some(cassandra)), &attacks(if crate::is_long() { SIZE } else { SMALLER }));
}
