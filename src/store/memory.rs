//! A store in memory, for tests: the same contract, and faults on demand.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Batch, BoxFuture, DaysQuery, METRIC_NAMES_MAX, RangeQuery, Runs, RunsQuery, SamplesQuery, Store, StoreError, merge,
    samples,
};
use crate::{
    curve::Samples,
    event::{ControlRow, DatasetRow, EventKey, EventRow, GapRow, MemSize, MetricsRow, Row, RunRow, TopologyRow},
    units::Micros,
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants of `StoreError`")]
pub enum Fault {
    Unavailable,
    Misconfigured,
    Rejected,
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unavailable => Self::Unavailable("injected: unavailable".into()),
            Fault::Misconfigured => Self::Misconfigured("injected: misconfigured".into()),
            Fault::Rejected => Self::Rejected("injected: rejected".into()),
        }
    }
}

type Predicate = Box<dyn Fn(&Row) -> bool + Send + Sync>;

/// Rows in memory. Lifetimes are ignored; everything else is as in the other stores.
pub struct MemoryStore {
    tables: Mutex<Tables>,
    faults: Mutex<Faults>,
    blocked: watch::Sender<bool>,
}

#[derive(Default)]
struct Tables {
    metrics: BTreeMap<EventKey, MetricsRow>,
    topology: BTreeMap<EventKey, TopologyRow>,
    events: BTreeMap<EventKey, EventRow>,
    datasets: BTreeMap<Uuid, DatasetRow>,
    control: BTreeMap<(Micros, i64, String), ControlRow>,
    gaps: BTreeMap<(Micros, Uuid), GapRow>,
    runs: BTreeMap<Uuid, RunRow>,
    names: BTreeSet<(Uuid, String)>,
    batches: u64,
}

#[derive(Default)]
struct Faults {
    writes: VecDeque<Fault>,
    reads: VecDeque<Fault>,
    down: Option<Fault>,
    rejected: Option<Predicate>,
    delay: Duration,
    restarts: u64,
    acks_may_be_lost: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { tables: Mutex::default(), faults: Mutex::default(), blocked: watch::Sender::new(false) }
    }
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `n` writes (of batches and of run rows) fail and store nothing.
    pub fn fail_writes(&self, n: usize, fault: Fault) {
        self.faults().writes.extend(std::iter::repeat_n(fault, n));
    }

    /// The next `n` reads fail.
    pub fn fail_reads(&self, n: usize, fault: Fault) {
        self.faults().reads.extend(std::iter::repeat_n(fault, n));
    }

    /// Every call fails like this, until it is set to `None`.
    pub fn set_down(&self, fault: Option<Fault>) {
        self.faults().down = fault;
    }

    /// Batches with a row that `matches` are rejected whole.
    pub fn reject_rows(&self, matches: impl Fn(&Row) -> bool + Send + Sync + 'static) {
        self.faults().rejected = Some(Box::new(matches));
    }

    /// Every call takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.faults().delay = delay;
    }

    /// Calls wait, from now on, until this is taken back.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// What [`Store::restart_count`] says; grows by one.
    pub fn restart(&self) {
        self.faults().restarts += 1;
    }

    /// What [`Store::acks_may_be_lost`] says.
    pub fn set_acks_may_be_lost(&self, acks_may_be_lost: bool) {
        self.faults().acks_may_be_lost = acks_may_be_lost;
    }

    /// Forgets every row, as a server does that lost its commit log.
    pub fn drop_rows(&self) {
        *self.tables() = Tables::default();
    }

    /// How many batches were stored.
    pub fn batches(&self) -> u64 {
        self.tables().batches
    }

    /// Every metrics row, of all runs, by key.
    pub fn all_metrics(&self) -> Vec<MetricsRow> {
        self.tables().metrics.values().cloned().collect()
    }

    /// Every row of a run, by id.
    pub fn all_runs(&self) -> Vec<RunRow> {
        self.tables().runs.values().cloned().collect()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as told to, then says whether this call fails.
    async fn apply_faults(&self, queue: impl Fn(&mut Faults) -> &mut VecDeque<Fault>) -> Result<(), StoreError> {
        let delay = self.faults().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // The sender is ours, so this cannot fail.
        let _ = self.blocked.subscribe().wait_for(|blocked| !*blocked).await;
        let mut faults = self.faults();
        let fault = queue(&mut faults).pop_front().or(faults.down);
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        query: impl FnOnce(&Tables) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            self.apply_faults(|faults| &mut faults.reads).await?;
            Ok(query(&self.tables()))
        })
    }
}

impl Tables {
    fn put(&mut self, row: Row) {
        match row {
            Row::Metrics(row) => _ = self.metrics.insert(row.key, row),
            Row::Topology(row) => _ = self.topology.insert(row.key, row),
            Row::Event(row) => _ = self.events.insert(row.key, row),
            Row::Dataset(row) => merge::apply_dataset(
                &row,
                self.datasets
                    .entry(row.dataset_id)
                    .or_insert_with(|| DatasetRow { dataset_id: row.dataset_id, ..DatasetRow::default() }),
            ),
            Row::Control(row) => {
                let key = (row.timestamp, row.event_id, row.instance.clone());
                let outcome = self.control.get(&key).and_then(|stored| stored.outcome.clone());
                self.control.insert(key, ControlRow { outcome: row.outcome.or(outcome), ..row });
            }
            Row::Gap(row) => _ = self.gaps.insert((row.started_at, row.gap_id), row),
        }
    }
}

fn range<T: Clone + MemSize>(rows: &BTreeMap<EventKey, T>, query: &RangeQuery) -> Vec<T> {
    let key = |timestamp, event_id| EventKey { run_id: query.run_id, timestamp, event_id };
    let (start, end) = (query.start.unwrap_or(i64::MIN), query.end.unwrap_or(i64::MAX));
    if start > end {
        return Vec::new();
    }
    let mut fits = within_bytes(query.bytes);
    let found = rows.range(key(start, i64::MIN)..=key(end, i64::MAX)).map(|(key, row)| (key.cursor(), row));
    if query.ascending {
        let after = |at: &(Micros, i64)| query.after.is_none_or(|after| *at > after);
        found.filter(|(at, _)| after(at)).take(query.limit).map(|(_, row)| row).take_while(&mut fits).cloned().collect()
    } else {
        let after = |at: &(Micros, i64)| query.after.is_none_or(|after| *at < after);
        found
            .rev()
            .filter(|(at, _)| after(at))
            .take(query.limit)
            .map(|(_, row)| row)
            .take_while(&mut fits)
            .cloned()
            .collect()
    }
}

/// As many rows as it takes to pass so many bytes.
fn within_bytes<T: MemSize>(most: usize) -> impl FnMut(&&T) -> bool {
    let mut bytes = 0;
    move |row| {
        let before = bytes;
        bytes += row.bytes();
        before < most
    }
}

fn newest_runs(runs: &BTreeMap<Uuid, RunRow>, query: &RunsQuery) -> Vec<RunRow> {
    let order = |row: &RunRow| row.start_time.map(|start| (Reverse(start), row.run_id));
    let is_of = |stored: &Option<String>, wanted: &Option<String>| wanted.is_none() || stored == wanted;
    let before = query.before.map(|(start, run_id)| (Reverse(start), run_id));
    let mut found: Vec<&RunRow> = runs
        .values()
        .filter(|row| is_of(&row.status, &query.status) && is_of(&row.dataset_name, &query.dataset))
        .filter(|row| order(row).is_some_and(|order| before.is_none_or(|before| order > before)))
        .collect();
    found.sort_by_key(|row| order(row));
    found.into_iter().take(query.limit).take_while(within_bytes(query.bytes)).cloned().collect()
}

impl Store for MemoryStore {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.apply_faults(|faults| &mut faults.writes).await?;
            if let Some(matches) = &self.faults().rejected
                && batch.rows.iter().any(matches)
            {
                return Err(Fault::Rejected.into());
            }
            let mut tables = self.tables();
            batch.rows.iter().for_each(|row| tables.put(row.clone()));
            tables.batches += 1;
            Ok(())
        })
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        self.read(move |tables| tables.runs.get(&run_id).cloned())
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        _stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.apply_faults(|faults| &mut faults.writes).await?;
            let mut tables = self.tables();
            let empty = || RunRow { run_id: change.run_id, ..RunRow::default() };
            merge::apply(change, tables.runs.entry(change.run_id).or_insert_with(empty));
            Ok(())
        })
    }

    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.apply_faults(|faults| &mut faults.writes).await?;
            self.tables().names.extend(names.iter().map(|name| (run_id, name.clone())));
            Ok(())
        })
    }

    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.read(move |tables| {
            let from = tables.names.range((run_id, String::new())..);
            from.take_while(|(id, _)| *id == run_id).take(METRIC_NAMES_MAX).map(|(_, name)| name.clone()).collect()
        })
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.read(move |tables| tables.runs.get(&run_id).is_some_and(|row| row.start_time == Some(start)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.read(|_| ())
    }

    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        self.read(|tables| newest_runs(&tables.runs, query).into())
    }

    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        self.read(|tables| range(&tables.metrics, query))
    }

    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>> {
        self.read(|tables| {
            samples::of_rows(
                &range(&tables.metrics, &RangeQuery { bytes: usize::MAX, ..query.range.clone() }),
                &query.fields,
            )
        })
    }

    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.read(move |tables| tables.metrics.keys().filter(|key| key.run_id == run_id).count() as u64)
    }

    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        self.read(|tables| range(&tables.topology, query))
    }

    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        self.read(|tables| range(&tables.events, query))
    }

    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        self.read(move |tables| tables.datasets.get(&dataset_id).cloned())
    }

    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        self.read(|tables| {
            let rows = tables.gaps.values().rev();
            rows.filter(|row| (query.start..=query.end).contains(&row.started_at)).take(query.limit).cloned().collect()
        })
    }

    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        self.read(|tables| {
            let rows = tables.control.values().rev();
            rows.filter(|row| (query.start..=query.end).contains(&row.timestamp)).take(query.limit).cloned().collect()
        })
    }

    fn restart_count(&self) -> u64 {
        self.faults().restarts
    }

    fn acks_may_be_lost(&self) -> bool {
        self.faults().acks_may_be_lost
    }
}
