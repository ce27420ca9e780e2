//! A store that remembers what it was asked, and fails as it is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    event::{ControlRow, DatasetRow, EventKey, EventRow, GapRow, MetricsRow, Row, RunEdit, RunRow, Table, TopologyRow},
    store::{
        Batch, BoxFuture, DaysQuery, DeletionStore, Deletions, EditStore, RangeQuery, Runs, RunsQuery, Store,
        StoreError, merge,
    },
    units::{self, Micros},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Down,
    Misconfigured,
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::Down => StoreError::Unavailable("down".into()),
            Self::Misconfigured => StoreError::Misconfigured("no such table".into()),
        }
    }
}

#[derive(Default)]
pub struct FakeState {
    pub rows: BTreeMap<String, Row>,
    pub runs: HashMap<Uuid, RunRow>,
    /// Of every batch that was tried: when, where, how many rows.
    pub tries: Vec<(Instant, Table, usize)>,
    pub run_writes: Vec<(Instant, RunRow, Option<Micros>)>,
    /// Every name written, as often as it was.
    pub name_writes: Vec<(Uuid, String)>,
    pub rows_fault: Option<Fault>,
    pub runs_fault: Option<Fault>,
    /// Of writes of a run's row alone.
    pub run_writes_fault: Option<Fault>,
    /// Runs whose stored row cannot be decoded.
    pub undecodable: HashSet<Uuid>,
    /// Fail calls by chance: the state of a generator, and the share in 256.
    pub random_faults: Option<(u64, u8)>,
    /// Event ids that can never be stored.
    pub poison: HashSet<i64>,
    pub delay: Duration,
    /// What the store says of changes that others made.
    pub outside_changes: Option<u64>,
    /// Runs that are not in the index.
    pub missing_in_index: HashSet<Uuid>,
    pub deletions: Deletions,
    pub deletion_reads: usize,
    /// Of reads of the deletions alone.
    pub deletions_fault: bool,
    pub datasets: HashMap<Uuid, DatasetRow>,
    /// When each run's row was read.
    pub run_reads: Vec<(Instant, Uuid)>,
    pub in_flight: usize,
    pub in_flight_max: usize,
}

#[derive(Default)]
pub struct FakeStore {
    pub state: Mutex<FakeState>,
    pub restarts: AtomicU64,
}

impl FakeStore {
    fn roll_fault(state: &mut FakeState) -> (bool, Duration) {
        let Some((random, share)) = &mut state.random_faults else { return (true, state.delay) };
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((*random >> 40) as u8) >= *share, Duration::from_millis(*random >> 58))
    }

    /// The state, unless this read fails.
    fn state_or_fault(&self) -> Result<MutexGuard<'_, FakeState>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let unlucky = (!Self::roll_fault(&mut state).0).then_some(Fault::Down);
        state.runs_fault.or(unlucky).map_or(Ok(state), |fault| Err(fault.error()))
    }

    /// Rows of a run from `start` to `end`, newest first.
    fn stored<T>(&self, query: &RangeQuery, of: impl Fn(&Row) -> Option<(EventKey, T)>) -> Result<Vec<T>, StoreError> {
        let state = self.state_or_fault()?;
        let range = query.start.unwrap_or(Micros::MIN)..=query.end.unwrap_or(Micros::MAX);
        let is_wanted = |key: &EventKey| key.run_id == query.run_id && range.contains(&key.timestamp);
        let mut found: Vec<_> = state.rows.values().filter_map(of).filter(|(key, _)| is_wanted(key)).collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.cursor()));
        Ok(found.into_iter().take(query.limit).map(|(_, row)| row).collect())
    }
}

fn key(row: &Row) -> String {
    match row {
        Row::Metrics(row) => format!("m{:?}", row.key),
        Row::Topology(row) => format!("t{:?}", row.key),
        Row::Event(row) => format!("e{:?}", row.key),
        Row::Dataset(row) => format!("d{}", row.dataset_id),
        Row::Control(row) => format!("c{}/{}", row.timestamp, row.event_id),
        Row::Gap(row) => format!("g{}", row.gap_id),
    }
}

impl DeletionStore for FakeStore {
    fn delete_run<'a>(&'a self, run_id: Uuid, _: Option<&'a str>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            state.runs.remove(&run_id);
            state.rows.retain(|_, row| !matches!(row, Row::Metrics(row) if row.key.run_id == run_id));
            state.deletions.insert(run_id, units::now());
            Ok(())
        })
    }
    fn deletions(&self) -> BoxFuture<'_, Result<Deletions, StoreError>> {
        Box::pin(async {
            let mut state = self.state.lock().unwrap();
            state.deletion_reads += 1;
            let unlucky = (!Self::roll_fault(&mut state).0).then_some(Fault::Down);
            let down = state.rows_fault.filter(|fault| *fault == Fault::Down);
            let down = down.or(state.deletions_fault.then_some(Fault::Down));
            down.or(unlucky).map_or_else(|| Ok(state.deletions.clone()), |fault| Err(fault.error()))
        })
    }
}

impl Store for FakeStore {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = {
                let mut state = self.state.lock().unwrap();
                state.tries.push((Instant::now(), batch.table, batch.rows.len()));
                state.in_flight += 1;
                state.in_flight_max = state.in_flight_max.max(state.in_flight);
                Self::roll_fault(&mut state)
            };
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            state.in_flight -= 1;
            if let Some(fault) = state.rows_fault {
                return Err(fault.error());
            }
            let bad = |row: &Row| matches!(row, Row::Metrics(row) if state.poison.contains(&row.key.event_id));
            if batch.rows.iter().any(bad) {
                return Err(StoreError::Rejected("poison".into()));
            }
            for row in batch.rows.iter() {
                if let Row::Dataset(row) = row {
                    state.datasets.insert(row.dataset_id, row.clone());
                }
                assert_eq!(row.destination(), (batch.table, batch.partition));
                state.rows.insert(key(row), row.clone());
            }
            // A write that fails may have been applied.
            if lucky { Ok(()) } else { Err(Fault::Down.error()) }
        })
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = Self::roll_fault(&mut self.state.lock().unwrap());
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            state.run_reads.push((Instant::now(), run_id));
            match state.runs_fault {
                Some(fault) => Err(fault.error()),
                None if !lucky => Err(Fault::Down.error()),
                None if state.undecodable.contains(&run_id) => Err(StoreError::Rejected("end_time is a text".into())),
                None => Ok(state.runs.get(&run_id).cloned()),
            }
        })
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (lucky, delay) = Self::roll_fault(&mut self.state.lock().unwrap());
            tokio::time::sleep(delay).await;
            let mut state = self.state.lock().unwrap();
            if let Some(fault) = state.runs_fault.or(state.run_writes_fault) {
                return Err(fault.error());
            }
            let poison = |text: &str| text.starts_with("poison");
            let texts = change.notes.iter().map(String::as_str).chain(change.config_json.as_deref());
            if texts.chain(change.tags.iter().map(String::as_str)).any(poison) {
                return Err(StoreError::Rejected("poison".into()));
            }
            state.run_writes.push((Instant::now(), change.clone(), stored_start));
            if change.start_time.is_some() && stored_start.is_none() {
                state.missing_in_index.remove(&change.run_id);
            }
            let row = state.runs.entry(change.run_id).or_default();
            overlay(row, change);
            if lucky { Ok(()) } else { Err(Fault::Down.error()) }
        })
    }

    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut state = self.state_or_fault()?;
            if names.iter().any(|name| name == "poison") {
                return Err(StoreError::Rejected("poison".into()));
            }
            state.name_writes.extend(names.iter().map(|name| (run_id, name.clone())));
            Ok(())
        })
    }

    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let state = self.state_or_fault()?;
            let of_run = state.name_writes.iter().filter(|(id, _)| *id == run_id);
            Ok(of_run.map(|(_, name)| name.clone()).collect::<BTreeSet<_>>().into_iter().collect())
        })
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            Ok(!state.missing_in_index.contains(&run_id)
                && state.runs.get(&run_id).is_some_and(|row| row.start_time == Some(start)))
        })
    }

    fn outside_changes(&self) -> Option<u64> {
        self.state.lock().unwrap().outside_changes
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
    fn runs<'a>(&'a self, _: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        Box::pin(async { Ok(Runs::default()) })
    }
    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        Box::pin(async {
            self.stored(query, |row| if let Row::Metrics(row) = row { Some((row.key, row.clone())) } else { None })
        })
    }
    fn seqs<'a>(&'a self, _: &'a crate::store::RangeQuery) -> BoxFuture<'a, Result<crate::store::Seqs, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn samples<'a>(
        &'a self,
        _: &'a crate::store::SamplesQuery,
    ) -> BoxFuture<'a, Result<crate::curve::Samples, StoreError>> {
        Box::pin(async { Ok(crate::curve::Samples::default()) })
    }
    fn count_metrics(&self, _: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(0) })
    }
    fn topology<'a>(&'a self, _: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        Box::pin(async {
            self.stored(query, |row| if let Row::Event(row) = row { Some((row.key, row.clone())) } else { None })
        })
    }
    fn dataset(&self, id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().datasets.get(&id).cloned()) })
    }
    fn gaps<'a>(&'a self, _: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn control_log<'a>(&'a self, _: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn restart_count(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }
}

/// What a store does with the columns of a change.
pub fn overlay(row: &mut RunRow, change: &RunRow) {
    row.run_id = change.run_id;
    merge::apply(change, row);
}

impl EditStore for FakeStore {
    fn write_edit<'a>(&'a self, _: &'a RunEdit) -> BoxFuture<'a, Result<(), StoreError>> {
        unreachable!("a writer changes no edit")
    }

    fn read_edits<'a>(&'a self, _: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<RunEdit>, StoreError>> {
        unreachable!("a writer reads no edit")
    }

    fn runs_named<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Uuid>, StoreError>> {
        unreachable!("a writer reads no edit")
    }
}
