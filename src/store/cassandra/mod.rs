//! Apache Cassandra (5.0, 4.1) through the scylla driver.
//!
//! [`CassandraStore`] exists whether or not a server does: its `run` connects, watches and connects again, and calls made
//! meanwhile are answered at once with what is wrong. It never changes the schema; that is the work of the schema tool.

mod config;
mod contact_points;
mod days;
mod errors;
mod pages;
mod reads;
mod replication;
mod runs;
mod server;
pub(crate) mod session;
mod statements;
mod time;
mod turns;
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

pub(crate) use self::errors::{Trouble, Verdict, of_execution};
use self::session::{Link, State};
pub use self::{config::Config, replication::Replication};
use super::{
    Batch, BoxFuture, DaysQuery, Problem, RangeQuery, Retention, Runs, RunsQuery, SamplesQuery, Seqs, Server, Store,
    StoreError,
};
use crate::{
    curve::Samples,
    event::{ControlRow, DatasetRow, EventRow, GapRow, MetricsRow, RunRow, TopologyRow},
    metrics::{Label, Metrics},
    units::{self, Micros},
};

/// The archive in Cassandra.
pub struct CassandraStore {
    config: Config,
    retention: Retention,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    restarts: AtomicU64,
}

impl fmt::Debug for CassandraStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraStore").field("keyspace", &self.config.keyspace).finish_non_exhaustive()
    }
}

impl CassandraStore {
    /// The store, not connected yet; spawn [`run`](Self::run).
    pub fn new(config: &Config, retention: &Retention, metrics: Arc<Metrics>) -> Arc<Self> {
        let down = Trouble::unavailable("not connected to Cassandra yet");
        Arc::new(Self {
            config: config.clone(),
            retention: retention.clone(),
            metrics,
            state: watch::Sender::new(State::Down { trouble: down, since: units::now() }),
            restarts: AtomicU64::new(0),
        })
    }

    /// Whether there is a session, and if not, why.
    ///
    /// # Errors
    /// What every call is answered now.
    pub fn connected(&self) -> Result<(), StoreError> {
        self.link().map(drop)
    }

    fn link(&self) -> Result<Arc<Link>, StoreError> {
        match &*self.state.borrow() {
            State::Up(link) => Ok(link.clone()),
            State::Down { trouble, .. } => Err(trouble.clone().into()),
        }
    }

    /// Runs one call on the current session, and measures it.
    async fn call<T>(
        &self,
        kind: &'static str,
        call: impl AsyncFnOnce(&Link) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = match self.link() {
            Ok(link) => call(&link).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => {
                let latency = self.metrics.store_latency_seconds.get_or_create(&Label::of(kind));
                latency.observe(started.elapsed().as_secs_f64());
            }
            Err(error) => {
                self.metrics.store_errors.get_or_create(&Label::of(verdict(error).as_str())).inc();
            }
        }
        result
    }
}

fn verdict(error: &StoreError) -> Verdict {
    match error {
        StoreError::Unavailable(_) => Verdict::Unavailable,
        StoreError::Misconfigured(_) => Verdict::Misconfigured,
        StoreError::Rejected(_) => Verdict::Rejected,
    }
}

impl Store for CassandraStore {
    fn write<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.call("write", async move |link| writes::write(link, &self.retention, batch, units::now()).await))
    }

    fn read_run(&self, run_id: Uuid) -> BoxFuture<'_, Result<Option<RunRow>, StoreError>> {
        Box::pin(self.call("read_run", async move |link| reads::run(link, run_id).await))
    }

    fn write_run<'a>(
        &'a self,
        change: &'a RunRow,
        stored_start: Option<Micros>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.call("write_run", async move |link| runs::write(link, change, stored_start).await))
    }

    fn write_metric_names<'a>(&'a self, run_id: Uuid, names: &'a [String]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.call("write_metric_names", async move |link| runs::write_names(link, run_id, names).await))
    }

    fn metric_names(&self, run_id: Uuid) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(self.call("metric_names", async move |link| reads::metric_names(link, run_id).await))
    }

    fn is_listed(&self, run_id: Uuid, start: Micros) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.call("is_listed", async move |link| runs::is_listed(link, run_id, start).await))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call("ping", async move |link| reads::ping(link).await))
    }

    fn runs<'a>(&'a self, query: &'a RunsQuery) -> BoxFuture<'a, Result<Runs, StoreError>> {
        Box::pin(self.call("runs", async move |link| runs::newest(link, query).await))
    }

    fn metrics<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<MetricsRow>, StoreError>> {
        Box::pin(self.call("metrics", async move |link| reads::metrics(link, query).await))
    }

    fn seqs<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Seqs, StoreError>> {
        Box::pin(self.call("seqs", async move |link| reads::seqs(link, query).await))
    }

    fn samples<'a>(&'a self, query: &'a SamplesQuery) -> BoxFuture<'a, Result<Samples, StoreError>> {
        Box::pin(self.call("samples", async move |link| reads::samples(link, query).await))
    }

    fn count_metrics(&self, run_id: Uuid) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.call("count_metrics", async move |link| reads::count_metrics(link, run_id).await))
    }

    fn topology<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<TopologyRow>, StoreError>> {
        Box::pin(self.call("topology", async move |link| reads::topology(link, query).await))
    }

    fn events<'a>(&'a self, query: &'a RangeQuery) -> BoxFuture<'a, Result<Vec<EventRow>, StoreError>> {
        Box::pin(self.call("events", async move |link| reads::events(link, query).await))
    }

    fn dataset(&self, dataset_id: Uuid) -> BoxFuture<'_, Result<Option<DatasetRow>, StoreError>> {
        Box::pin(self.call("dataset", async move |link| reads::dataset(link, dataset_id).await))
    }

    fn gaps<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<GapRow>, StoreError>> {
        Box::pin(self.call("gaps", async move |link| days::gaps(link, query).await))
    }

    fn control_log<'a>(&'a self, query: &'a DaysQuery) -> BoxFuture<'a, Result<Vec<ControlRow>, StoreError>> {
        Box::pin(self.call("control_log", async move |link| days::control_log(link, query).await))
    }

    fn server(&self) -> BoxFuture<'_, Option<Server>> {
        Box::pin(async { Some(server::describe(self).await) })
    }

    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Acquire)
    }

    fn problem(&self) -> Option<Problem> {
        match &*self.state.borrow() {
            State::Up(_) => None,
            State::Down { trouble, since } => Some(Problem::of("store", &trouble.clone().into(), *since)),
        }
    }

    /// True until the replication is known.
    fn forgets(&self) -> bool {
        match &*self.state.borrow() {
            State::Up(link) => link.single_replica,
            State::Down { .. } => true,
        }
    }
}
