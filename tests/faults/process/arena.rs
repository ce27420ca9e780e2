//! Shared by all cases: servers, the daemon, a producer, faults with their bounds, and the judge.

use std::{collections::BTreeSet, thread, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    judge::{self, Rules, Table, Verdict, Window},
    producer::{Entry, Load, Producer},
    pulse,
    strace::Attached,
};
use crate::support::{
    cassandra::Cassandra,
    daemon::{Builder, Daemon, OPTIMISED},
    redis::Redis,
    sqlite, wait_until,
};

/// What was published longer than this before a fault is never lost. The promise is 25 ms; a debug build gets more, a machine with
/// more to do than cores as much more, and any build what the disk made everybody wait at that moment.
fn bound(fault: Instant, load: f64) -> Duration {
    let promised = Duration::from_millis(if std::env::var_os(OPTIMISED).is_some() { 25 } else { 100 });
    promised.mul_f64(load.max(1.0)) + pulse::wait_around(fault)
}

/// A power cut may cost so much more than a kill: what is written and not synced.
const UNSYNCED: Duration = Duration::from_millis(35);

/// Time limit for a fresh message to be a row after a fault.
const LIVELY: Duration = Duration::from_secs(5);

/// Time limit for all messages to be rows at the end.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether this is the long tier.
pub fn long() -> bool {
    std::env::var("CASCOR_FAULTS").is_ok_and(|tier| tier == "long")
}

/// Number of repetitions; in the long tier from the environment: `CASCOR_FAULTS_KILLS=200`.
pub fn times(name: &str, short: u64, in_long: u64) -> u64 {
    let asked = std::env::var(format!("CASCOR_FAULTS_{name}")).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(tier(short, in_long))
}

/// One value for each tier.
pub fn tier<T>(short: T, in_long: T) -> T {
    if long() { in_long } else { short }
}

/// A case of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// How the fault is made.
    pub injected: &'static str,
    /// Substrings of expected ERROR lines.
    pub errors: &'static [&'static str],
    /// The load.
    pub load: Load,
    /// Whether rows have the producer's own time.
    pub own_time: bool,
}

impl Case {
    /// A case with a steady load and no expected ERROR lines.
    pub fn new(name: &'static str, injected: &'static str) -> Self {
        let rate = if std::env::var_os(OPTIMISED).is_some() { 2_000 } else { 300 };
        Self { name, injected, errors: &[], load: Load { rate, pad: 0, password: None }, own_time: true }
    }

    /// These ERROR lines are expected.
    pub fn errors(mut self, errors: &'static [&'static str]) -> Self {
        self.errors = errors;
        self
    }

    /// Another load.
    pub fn load(mut self, rate: u64, pad: usize) -> Self {
        self.load = Load { rate, pad, ..self.load };
        self
    }
}

/// The store to read.
#[derive(Debug)]
enum Store {
    Sqlite,
    Cassandra(Cassandra),
}

/// A running case.
#[derive(Debug)]
pub struct Arena {
    /// Its case.
    pub case: Case,
    /// Its Redis.
    pub redis: Redis,
    /// The daemon under attack.
    pub daemon: Daemon,
    /// The producer.
    pub producer: Producer,
    store: Store,
    excused: Vec<(Instant, Instant, f64)>,
    faults: u32,
    slowest: Duration,
}

impl Arena {
    /// Servers, a ready daemon, and a producer at work.
    pub fn start(case: Case) -> Self {
        Self::with(case, Redis::start(), |builder| builder)
    }

    /// The same, with more settings of the daemon.
    pub fn with(case: Case, redis: Redis, settings: impl FnOnce(Builder) -> Builder) -> Self {
        let daemon = settings(Daemon::on(&redis)).prepare();
        Self::of(case, redis, daemon, None)
    }

    /// With a prepared or running daemon.
    pub fn of(case: Case, redis: Redis, mut daemon: Daemon, cassandra: Option<Cassandra>) -> Self {
        if !daemon.is_running() {
            daemon.launch();
        }
        daemon.wait_ready();
        pulse::start();
        let producer = Producer::start(redis.port, Uuid::new_v4(), &case.load);
        let store = cassandra.map_or(Store::Sqlite, Store::Cassandra);
        let arena =
            Self { case, redis, daemon, producer, store, excused: Vec::new(), faults: 0, slowest: Duration::ZERO };
        arena.wait_row_of(arena.producer.next(), LIMIT);
        arena
    }

    /// Messages published between these moments, or up to the bound before, may be missing, but must be covered by gaps.
    pub fn excuse(&mut self, from: Instant, to: Instant) {
        self.excused.push((from, to, pulse::load()));
    }

    /// A fault that costs messages: from now until the daemon is ready again.
    pub fn lossy(&mut self, fault: impl FnOnce(&mut Self)) {
        self.lossy_from(Instant::now(), fault);
    }

    /// A power cut: it costs also what was not synced.
    pub fn power_cut(&mut self, fault: impl FnOnce(&mut Self)) {
        self.lossy_from(Instant::now() - UNSYNCED, fault);
    }

    fn lossy_from(&mut self, from: Instant, fault: impl FnOnce(&mut Self)) {
        fault(self);
        self.daemon.wait_ready();
        self.excuse(from, Instant::now());
        self.faults += 1;
    }

    /// Runs the daemon under a wrapper that kills it, then without. Returns whether it was killed.
    pub fn killed_under(&mut self, wrapper: Vec<String>) -> bool {
        let mut killed = false;
        self.lossy(|arena| {
            arena.daemon.kill9();
            arena.daemon.set_wrapper(wrapper);
            arena.daemon.launch();
            killed = arena.ends_by_itself();
            arena.daemon.set_wrapper(Vec::new());
            arena.daemon.launch();
        });
        killed
    }

    /// The same for the running daemon, with a tracer attached to its process id.
    pub fn killed_by(&mut self, attach: impl FnOnce(u32) -> Attached) -> bool {
        let mut killed = false;
        self.lossy(|arena| {
            let _attached = attach(arena.daemon.process().id());
            killed = arena.ends_by_itself();
            arena.daemon.launch();
        });
        killed
    }

    /// Whether it ends in time; otherwise it is killed.
    fn ends_by_itself(&mut self) -> bool {
        let (mut ended, start, process) = (false, Instant::now(), self.daemon.process());
        while !ended && start.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(5));
            ended = process.ended().is_some();
        }
        self.daemon.kill9();
        ended
    }

    /// A fault that may not cost a single message.
    pub fn harmless(&mut self, fault: impl FnOnce(&mut Self)) {
        fault(self);
        self.faults += 1;
    }

    /// Number of connections of the training channel.
    pub fn connects(&self) -> f64 {
        self.daemon.metric("cascor_source_connects_total{source=\"training\"}").unwrap_or(0.0)
    }

    /// A lossy fault that costs the daemon its connection, but not its life.
    pub fn disconnecting(&mut self, fault: impl FnOnce(&mut Self)) {
        let before = self.connects();
        self.lossy(|arena| {
            fault(arena);
            wait_until("a new connection", Duration::from_secs(30), || arena.connects() > before);
        });
    }

    /// The fault is over: a message published from now on must be a row soon.
    #[track_caller]
    pub fn lively(&mut self) {
        self.lively_within(LIVELY);
    }

    /// The same, where catching up takes longer.
    #[track_caller]
    pub fn lively_within(&mut self, limit: Duration) {
        let start = Instant::now();
        self.wait_row_of(self.producer.next() + 1, LIMIT);
        let took = start.elapsed();
        self.slowest = self.slowest.max(took);
        assert!(took <= limit, "{}: a fresh message took {took:?}\n{}", self.case.name, self.daemon.log());
    }

    /// The highest `seq` that is a row.
    pub fn highest(&self) -> i64 {
        match &self.store {
            Store::Sqlite => {
                sqlite::count(&self.daemon.database(), "SELECT coalesce(max(seq), -1) FROM training_metrics")
            }
            Store::Cassandra(cassandra) => {
                let cql = format!("SELECT max(seq) FROM training_metrics WHERE run_id = {}", self.producer.run);
                let rows = cassandra.try_rows(&cassandra.keyspace, &cql).unwrap_or_default();
                rows.first().and_then(|row| row.values().next()?.as_i64()).unwrap_or(-1)
            }
        }
    }

    #[track_caller]
    fn wait_row_of(&self, seq: i64, limit: Duration) {
        let start = Instant::now();
        while self.highest() < seq {
            assert!(
                start.elapsed() < limit,
                "{}: {} of {seq} after {limit:?}\n{}\n{}",
                self.case.name,
                self.highest(),
                self.daemon.get("/api/status").body,
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn table(&self) -> Table {
        match &self.store {
            Store::Sqlite => Table::sqlite(&self.daemon.database(), self.producer.run),
            Store::Cassandra(cassandra) => {
                let run = self.producer.run;
                let columns = "seq, timestamp, epoch, train_loss, extra, rest_json";
                Table::cassandra(
                    cassandra.rows(&format!("SELECT {columns} FROM training_metrics WHERE run_id = {run}")),
                    &cassandra.rows("SELECT * FROM ingest_gaps"),
                )
            }
        }
    }

    /// Ends the load, waits until everything is stored, and judges. Panics with all violations.
    #[track_caller]
    pub fn judge(mut self) -> Verdict {
        self.lively_within(LIMIT);
        let rules = Rules { own_time: self.case.own_time, slack: 2_000 };
        thread::sleep(Duration::from_millis(200));
        // A last message closes every gap before it.
        let run = self.producer.run;
        self.wait_row_of(self.producer.next(), LIMIT);
        let ledger =
            std::mem::replace(&mut self.producer, Producer::start(0, run, &Load { rate: 0, pad: 0, password: None }))
                .finish();
        let last = self.last_answered(&ledger);
        self.wait_row_of(last, LIMIT);
        self.settle();
        let excused: Vec<_> =
            self.excused.iter().map(|&(fault, over, load)| Window { fault, bound: bound(fault, load), over }).collect();
        // Gaps are collected for a second before they are recorded.
        let start = Instant::now();
        let verdict = loop {
            let verdict = judge::judge(&ledger, &self.table(), run, &excused, rules);
            if verdict.complaints().is_empty() || start.elapsed() > Duration::from_secs(6) {
                break verdict;
            }
            thread::sleep(Duration::from_millis(500));
        };
        let log = self.daemon.log();
        let mut complaints = verdict.complaints();
        complaints.extend(self.errors(&log));
        judge::publish(&verdict.line(self.case.name, self.case.injected, &format!("{0} of {0}", self.faults.max(1))));
        println!("    missing per fault {:?}; slowest return {:?}; {}", verdict.each, self.slowest, verdict.cost());
        if !complaints.is_empty() {
            let lines: Vec<_> = log.lines().collect();
            println!("{:#?}\n{}", self.table().gaps, lines[lines.len().saturating_sub(60)..].join("\n"));
            println!("{}", self.daemon.get("/api/status").body);
        }
        assert!(complaints.is_empty(), "{}: {}", self.case.name, complaints.join("\n"));
        verdict
    }

    /// For a fault that damages the messages themselves: the daemon lives, and has logged no ERROR that the case does not list.
    #[track_caller]
    pub fn survive(self) {
        let errors = self.errors(&self.daemon.log());
        assert!(errors.is_empty(), "{}: {errors:#?}", self.case.name);
        let line = format!(
            "| {} | {} | 1 of 1 | {} | - | - | - |\n",
            self.case.name,
            self.case.injected,
            self.producer.next()
        );
        judge::publish(&line);
    }

    /// Messages that were published after the last loss: the last of them must be a row.
    fn last_answered(&self, ledger: &[Entry]) -> i64 {
        ledger.iter().rev().find(|entry| entry.answered.is_some()).map_or(-1, |entry| entry.end - 1)
    }

    /// Waits until the store has confirmed everything.
    #[track_caller]
    fn settle(&self) {
        let mut calm = 0;
        wait_until("everything to be stored", LIMIT, || {
            let status = self.daemon.get("/api/status").json();
            calm = if status["spool"]["pending_records"] == 0 { calm + 1 } else { 0 };
            thread::sleep(Duration::from_millis(50));
            calm >= 3
        });
    }

    /// ERROR lines that the case does not list, and panics.
    fn errors(&self, log: &str) -> Vec<String> {
        let bad = |line: &&str| {
            line.contains("panicked")
                || line.contains("ERROR") && !self.case.errors.iter().any(|allowed| line.contains(allowed))
        };
        log.lines().filter(bad).map(str::to_owned).collect::<BTreeSet<_>>().into_iter().take(10).collect()
    }
}
