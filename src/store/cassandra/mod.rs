//! Apache Cassandra (5.0, 4.1) through the scylla driver.
//!
//! [`CassandraStore`] works without a server: `run` connects, monitors and reconnects; until then calls fail at once with the
//! cause. It never changes the schema; the schema tool does.

mod column_specs;
mod config;
mod consistency;
mod contact_points;
mod days;
mod deletions;
mod edits;
mod errors;
mod pages;
mod read_scheduler;
mod reads;
mod replication;
mod row_columns;
mod row_values;
mod run_list;
mod runs;
mod server;
pub(crate) mod session;
mod statements;
mod time;
mod write_times;
mod writes;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

pub(crate) use self::errors::{ConnectFailure, ErrorClass, classify_execution, grant_of};
pub use self::{config::Config, replication::Replication};
use self::{
    edits::GivenNames,
    session::{LiveSession, State},
    write_times::WriteTimes,
};
use super::{
    Batch, BoxFuture, DaysQuery, Problem, RangeQuery, Retention, Runs, RunsQuery, SamplesQuery, Seqs, Server, Store,
    StoreError,
};
use crate::{
    curve::Samples,
    event::{ControlRow, DatasetRow, EventRow, GapRow, MetricsRow, Partition, RunRow, Table, TopologyRow},
    metrics::Metrics,
    units::{self, Micros},
};

/// The Cassandra backend.
pub struct CassandraStore {
    config: Config,
    retention: Retention,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    restarts: AtomicU64,
    given_names: GivenNames,
    write_times: WriteTimes,
}

impl fmt::Debug for CassandraStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraStore").field("keyspace", &self.config.keyspace).finish_non_exhaustive()
    }
}

impl CassandraStore {
    /// Creates a disconnected store; spawn [`run`](Self::run).
    pub fn new(config: &Config, retention: &Retention, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.store_errors.show(StoreError::CLASSES);
        metrics.store_latency_seconds.show(["write"]);
        let down = ConnectFailure::unavailable("not connected to Cassandra yet");
        Arc::new(Self {
            config: config.clone(),
            retention: retention.clone(),
            metrics,
            state: watch::Sender::new(State::Down { failure: down, since: units::now(), is_logged: false }),
            restarts: AtomicU64::new(0),
            given_names: GivenNames::default(),
            write_times: WriteTimes::default(),
        })
    }

    /// Whether there is a session.
    ///
    /// # Errors
    /// The failure that every call currently returns.
    pub fn connected(&self) -> Result<(), StoreError> {
        self.live_session().map(drop)
    }

    fn live_session(&self) -> Result<Arc<LiveSession>, StoreError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok(live.clone()),
            State::Down { failure, .. } => Err(failure.clone().into()),
        }
    }

    /// Runs one call on the current session and records its duration.
    async fn call<T>(
        &self,
        kind: &'static str,
        call: impl AsyncFnOnce(&LiveSession) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = match self.live_session() {
            Ok(live) => call(&live).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => {
                let latency = self.metrics.store_latency_seconds.of(kind);
                latency.observe(started.elapsed().as_secs_f64());
            }
            Err(error) => {
                self.metrics.store_errors.of(error.class()).inc();
            }
        }
        result
    }
}

impl Store for CassandraStore {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        let time = match batch.partition {
            Partition::Id(run_id) if batch.table != Table::Datasets => self.write_times.next(run_id, Instant::now()),
            _ => None,
        };
        let write = async move |live: &_| writes::write(live, &self.retention, batch, time).await;
        Box::pin(self.call("write", write))
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        Box::pin(self.call("read_run", async move |live| reads::run(live, run_id).await))
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let time = self.write_times.next(change.run_id, Instant::now());
        Box::pin(self.call("write_run", async move |live| runs::write(live, change, stored_start, time).await))
    }

    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>> {
        let time = self.write_times.next(run_id, Instant::now());
        Box::pin(self.call("write_metric_names", async move |live| runs::write_names(live, run_id, names, time).await))
    }

    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(self.call("metric_names", async move |live| reads::metric_names(live, run_id).await))
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.call("is_listed", async move |live| runs::is_listed(live, run_id, start).await))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call("ping", async move |live| reads::server_time(live).await.map(drop)))
    }

    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        Box::pin(self.call("runs", async move |live| run_list::list(live, query).await))
    }

    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        Box::pin(self.call("metrics", async move |live| reads::metrics(live, query).await))
    }

    fn seqs<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Seqs, StoreError>> {
        Box::pin(self.call("seqs", async move |live| reads::seqs(live, query).await))
    }

    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>> {
        Box::pin(self.call("samples", async move |live| reads::samples(live, query).await))
    }

    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.call("count_metrics", async move |live| reads::count_metrics(live, run_id).await))
    }

    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        Box::pin(self.call("topology", async move |live| reads::topology(live, query).await))
    }

    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        Box::pin(self.call("events", async move |live| reads::events(live, query).await))
    }

    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        Box::pin(self.call("dataset", async move |live| reads::dataset(live, dataset_id).await))
    }

    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        Box::pin(self.call("gaps", async move |live| days::gaps(live, query).await))
    }

    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        Box::pin(self.call("control_log", async move |live| days::control_log(live, query).await))
    }

    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        Box::pin(async { Some(server::describe(self).await) })
    }

    fn restart_count(&self) -> u64 {
        self.restarts.load(Ordering::Acquire)
    }

    fn problem(&self) -> Option<Problem> {
        match &*self.state.borrow() {
            State::Up(_) => None,
            State::Down { failure, since, .. } => Some(Problem::of("store", &failure.clone().into(), *since)),
        }
    }

    /// True until the replication is known.
    fn acks_may_be_lost(&self) -> bool {
        match &*self.state.borrow() {
            State::Up(live) => live.single_replica,
            State::Down { .. } => true,
        }
    }
}
