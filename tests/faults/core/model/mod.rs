//! Random histories against a model of the spool's promises.
//!
//! * A record that was reported durable and is not committed comes back: identical, in order, once, and is never reported lost.
//! * A record that was written, and not synced, comes back after a kill -9 of a process whose disk did not fail.
//! * A record that was never reported durable comes back identically or not at all. (Of a group that was being written, sectors in the
//!   middle may be missing and later ones present: records in the former count as lost, as they look like damage.)
//! * No record above the confirmed offset is skipped; the checkpoint never passes it.
//! * The offset of a record that was reported durable or is covered by a durable checkpoint never names another record.
//! * A record is refused only while the disk takes nothing, and its refusal takes no offset.
//! * After the fault has ended, the spool recovers by itself, and every record that it returned is durable.
//!
//! One gap: when a process ends between a failed sync and the cut that follows it (by kill -9, or because the disk stayed read-only
//! until then), the page cache holds records that the disk does not, and nothing can tell a later process. Here they count as
//! unsynced then.

mod steps;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::steps::{Step, step};
use crate::{
    harness::{Budget, Tried, each},
    image::{config, decided, open, payload},
    random::Random,
    sim::{End, Sim},
    spool::{Chunk, Config, Full, NewRecord, RecordKind, commit::CheckpointThread, recovery::Prepared},
    units::ByteSize,
};

struct World {
    number: u64,
    told: bool,
    random: Random,
    config: Config,
    sim: Sim,
    spool: Option<(Prepared, CheckpointThread)>,
    /// The record at each offset, as long as it may still come back.
    records: BTreeMap<u64, u64>,
    next_uid: u64,
    durable: u64,
    /// Every record below is written, or was lost before.
    written: u64,
    /// The highest offset that the store has confirmed.
    confirmed: u64,
    /// Position of the reader.
    read: u64,
    faulty: bool,
}

/// States that must be reached for the steps to be meaningful.
#[derive(Debug, Default)]
struct Reached([AtomicU64; 5]);

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["crashes", "in the middle of an operation", "refused", "records back", "undone"];
        for (name, count) in names.iter().zip(&self.0) {
            write!(f, "; {name} {}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

impl Reached {
    fn add(&self, which: usize, count: usize) {
        self.0[which].fetch_add(count as u64, Ordering::Relaxed);
    }
}

pub fn histories(budget: &Budget) -> Tried {
    let reached = Reached::default();
    let count = each(budget, 100_000 * budget.times, |number| {
        let mut world = World::new(budget, number);
        on_a_still_clock(world.run(&reached));
    });
    Tried { count, notes: reached.to_string() }
}

/// Time passes only where a step says so.
fn on_a_still_clock(history: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(history));
}

/// The length is a function of the record as well, so that it need not be remembered.
fn content(uid: u64) -> Vec<u8> {
    let length = match uid % 97 {
        0 => 3_000 + uid % 4_000,
        n => n * 5,
    };
    payload(uid, length as usize)
}

fn kind(uid: u64) -> RecordKind {
    if uid.is_multiple_of(5) { RecordKind::Gap } else { RecordKind::Event }
}

impl World {
    fn new(budget: &Budget, number: u64) -> Self {
        let mut random = Random::new(budget.seed.rotate_left(32) ^ number);
        let mut config = config(*random.pick(&[600, 2_000, 8_000]));
        config.capacity = ByteSize(*random.pick(&[6_000, 30_000, 1 << 26, 1 << 26]));
        config.memory = ByteSize((1 << 20) + *random.pick(&[2_000, 20_000, 1 << 20]));
        Self {
            number,
            told: budget.only.is_some(),
            random,
            config,
            sim: Sim::default(),
            spool: None,
            records: BTreeMap::new(),
            next_uid: 0,
            durable: 0,
            written: 0,
            confirmed: 0,
            read: 0,
            faulty: false,
        }
    }

    async fn run(&mut self, reached: &Reached) {
        self.open(None, reached);
        for _ in 0..8 + self.random.below(40) {
            let step = step(&mut self.random);
            self.tell(format_args!("{step:?}"));
            self.apply(step, reached).await;
            if self.sim.stopped() {
                reached.add(1, 1);
                let end = if self.random.coin() { End::Killed } else { End::PowerCut };
                self.crash(end, reached);
            }
        }
        // The fault has ended: the spool recovers by itself, and is read to its end.
        self.sim.faults(|faults| *faults = Default::default());
        self.tell(format_args!("all is well"));
        tokio::time::advance(Duration::from_secs(2)).await;
        self.confirm_all().await;
        let end = self.read().await;
        let (spool, _) = self.spool.as_mut().unwrap();
        assert_eq!((spool.reader.position(), spool.shared.durable()), (end, end));
        self.crash(End::PowerCut, reached);
    }

    /// Commits and waits until the disk takes records again; a full spool needs the room.
    async fn confirm_all(&mut self) {
        for round in 0..6 {
            self.read().await;
            let (spool, checkpoint_thread) = self.spool.as_mut().unwrap();
            let synced = spool.appender.sync();
            self.durable = self.durable.max(synced.durable);
            if synced.healthy {
                assert_eq!(synced.durable, synced.end);
                return;
            }
            let next = if round < 2 { self.durable.min(self.read) } else { self.read };
            spool.commits.set_linger(Duration::ZERO);
            spool.commits.commit(next);
            self.confirmed = self.confirmed.max(next);
            checkpoint_thread.step();
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        panic!("the spool does not recover");
    }

    fn tell(&self, what: fmt::Arguments<'_>) {
        if self.told {
            let state = self.spool.as_ref().map(|(spool, _)| (spool.appender.end(), spool.appender.healthy()));
            println!(
                "{} {what}   {state:?} durable {} confirmed {} read {}",
                self.number, self.durable, self.confirmed, self.read
            );
        }
    }

    async fn apply(&mut self, step: Step, reached: &Reached) {
        let (spool, checkpoint_thread) = self.spool.as_mut().unwrap();
        match step {
            Step::Append { count, large } => {
                for _ in 0..count {
                    self.append(large, reached);
                }
            }
            Step::Write => {
                spool.appender.write();
                if spool.appender.healthy() {
                    self.written = spool.appender.end();
                }
            }
            Step::Sync => {
                let synced = spool.appender.sync();
                assert!(!synced.healthy || synced.durable == synced.end);
                assert!(
                    synced.durable >= self.durable
                        && (synced.healthy || self.faulty || spool.shared.capacity < 1 << 20)
                );
                self.durable = synced.durable;
            }
            Step::Read => {
                self.read().await;
            }
            Step::Rewind => {
                let to = self.random.below(self.read as usize + 1) as u64;
                spool.reader.rewind(to);
                self.read = spool.reader.position();
                assert!(self.read >= to);
            }
            Step::Commit { part } => {
                let next = self.read * part as u64 / 255;
                spool.commits.commit(next);
                self.confirmed = self.confirmed.max(next);
            }
            Step::Keep => checkpoint_thread.step(),
            Step::Linger { ms } => spool.commits.set_linger(Duration::from_millis(ms)),
            Step::Wait { ms } => tokio::time::advance(Duration::from_millis(ms)).await,
            Step::FailSyncs(count) => self.fault(|faults, _| faults.syncs = count),
            Step::FailWrites(count) => self.fault(|faults, _| faults.writes = count),
            Step::Full { left } => self.fault(|faults, used| faults.space = Some(used + left)),
            Step::ReadOnly => self.fault(|faults, _| faults.read_only = true),
            Step::Mend => {
                self.sim.faults(|faults| *faults = Default::default());
                tokio::time::advance(Duration::from_secs(2)).await;
                let (spool, checkpoint_thread) = self.spool.as_mut().unwrap();
                checkpoint_thread.step();
                spool.appender.sync();
                self.faulty = false;
            }
            Step::StopIn(operations) => self.fault(|faults, _| faults.stop_in = Some(operations)),
            Step::Crash(end) => self.crash(end, reached),
            Step::Close => {
                self.sim.faults(|faults| *faults = Default::default());
                self.spool = None;
                self.sim = self.sim.after(End::Killed, &mut self.random);
                self.open(None, reached);
            }
        }
    }

    fn fault(&mut self, change: impl FnOnce(&mut crate::sim::Faults, u64)) {
        let used = self.sim.used();
        self.sim.faults(|faults| change(faults, used));
        self.faulty = true;
    }

    fn append(&mut self, large: bool, reached: &Reached) {
        let (spool, _) = self.spool.as_mut().unwrap();
        self.next_uid += if large { 97 - self.next_uid % 97 } else { 1 };
        let uid = self.next_uid;
        let (payload, offset) = (content(uid), spool.appender.end());
        let record = NewRecord {
            kind: kind(uid),
            decided: decided(uid),
            strict_json: false,
            from_stream: false,
            channel: "cascor:training",
            preamble: b"",
            payload: &payload,
        };
        match spool.appender.append(&record) {
            Ok(at) => {
                assert_eq!((at, spool.appender.end()), (offset, offset + 1));
                let other = self.records.insert(offset, uid);
                assert_eq!(other, None, "offset {offset} names two records");
            }
            Err(Full) => {
                assert!(!spool.appender.healthy() && spool.appender.end() == offset);
                reached.add(2, 1);
            }
        }
    }

    /// Reads the available records; all visible ones must come, unless the machine stops meanwhile. Returns the end.
    async fn read(&mut self) -> u64 {
        let (spool, _) = self.spool.as_mut().unwrap();
        let end = *spool.shared.visible.borrow();
        while spool.reader.position() < end {
            let Ok(chunk) = tokio::time::timeout(Duration::from_secs(60), spool.reader.next()).await else {
                assert_eq!(spool.reader.position(), end, "reads on");
                break;
            };
            if self.sim.stopped() {
                // Files that can no longer be opened are given up in the end, without a report.
                return end;
            }
            assert_eq!(chunk.first, self.read + chunk.lost, "in order");
            assert!(self.records.range(self.read..chunk.first).next().is_none(), "lost {}..{}", self.read, chunk.first);
            compare(&self.records, &chunk);
            self.read = chunk.end;
        }
        if self.sim.stopped() {
            return end;
        }
        // The end of records that were never durable.
        assert!(self.records.range(self.read..end).next().is_none(), "lost {}..{end}", self.read);
        self.read = end;
        end
    }

    fn missing(&self, from: u64, to: u64, kept: u64) {
        let lost = self.records.range(from..to).next().filter(|(offset, _)| **offset < kept);
        assert_eq!(lost, None, "below {kept}, not committed, and gone");
    }

    fn crash(&mut self, end: End, reached: &Reached) {
        reached.add(0, 1);
        // After a failure records are in memory only, also those that had been written, and this is reported.
        if self.spool.as_ref().is_some_and(|(spool, _)| !spool.appender.healthy()) {
            self.written = self.durable;
        }
        // Writes of the handles while they are dropped do not reach the disk.
        self.sim.faults(|faults| faults.stopped = true);
        let next = self.sim.after(end, &mut self.random);
        self.spool = None;
        self.sim = next;
        self.tell(format_args!("crashed: {end:?}"));
        self.open(Some(end), reached);
    }

    fn open(&mut self, crashed: Option<End>, reached: &Reached) {
        // Where a sync has failed, what it did not make durable was cut off to be written again.
        let faulty = std::mem::take(&mut self.faulty);
        let kept =
            if matches!(crashed, Some(End::Killed)) && !faulty { self.written.max(self.durable) } else { self.durable };
        let spool = open(&self.sim, &self.config).expect("always opens");
        let (first, next) = (spool.recovery.first_uncommitted, spool.recovery.next);
        assert!(first <= self.confirmed, "committed up to {first}, confirmed {}", self.confirmed);
        assert!(next >= kept, "{kept} was durable or written, {next} is next");
        let mut back = 0;
        let mut expected = first;
        for chunk in spool.recovery.records_from(first) {
            let chunk = chunk.expect("readable");
            self.missing(expected, chunk.first, kept);
            compare(&self.records, &chunk);
            (expected..chunk.first).for_each(|offset| {
                self.records.remove(&offset);
            });
            expected = chunk.end;
            back += chunk.end - chunk.first;
        }
        self.missing(expected, next, kept);
        reached.add(3, back as usize);
        if crashed.is_some() {
            reached.add(4, self.records.range(expected.max(first)..).count());
        }
        // Never durable, and gone.
        self.records.split_off(&expected.max(first));
        let checkpoint_thread = CheckpointThread::new(Arc::clone(&spool.shared), Arc::clone(&spool.commits));
        (self.read, self.durable, self.written) = (first, next, next);
        self.confirmed = self.confirmed.min(next);
        self.spool = Some((spool, checkpoint_thread));
        self.tell(format_args!("opened at {first}, next {next}"));
    }
}

fn compare(records: &BTreeMap<u64, u64>, chunk: &Chunk) {
    let mut count = 0;
    for (record, offset) in chunk.records().zip(chunk.first..) {
        let uid = *records.get(&offset).unwrap_or_else(|| panic!("{offset} was never written"));
        assert_eq!(record.offset, offset);
        assert_eq!(
            (record.kind, record.decided, record.channel),
            (kind(uid), decided(uid), "cascor:training"),
            "at {offset}"
        );
        assert!(record.payload == content(uid), "payload at {offset}");
        count += 1;
    }
    assert_eq!(count, chunk.end - chunk.first);
}
