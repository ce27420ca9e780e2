//! Apache Cassandra (5.0, 4.1) through the scylla driver.
//!
//! [`CassandraStore`] exists whether or not a server does: its `run` connects, watches and connects again, and calls made
//! meanwhile are answered at once with what is wrong. It never changes the schema; that is the work of the schema tool.

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
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use scylla::statement::Consistency;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

pub(crate) use self::errors::{Trouble, Verdict, of_execution};
pub use self::replication::Replication;
use self::session::{Link, State};
use super::{
    Batch, BoxFuture, DaysQuery, Problem, RangeQuery, Retention, Runs, RunsQuery, SamplesQuery, Seqs, Server, Store,
    StoreError,
};
use crate::{
    curve::Samples,
    event::{ControlRow, DatasetRow, EventRow, GapRow, MetricsRow, RunRow, TopologyRow},
    host,
    logging::Chain,
    metrics::{Label, Metrics},
    secret::{Secret, SecretFileError},
    tls::{self, Tls},
    units::{self, Micros},
};

/// Most rows of one page: all of them are in memory at once.
const PAGE_ROWS_MAX: usize = 5_000;

/// Where the cluster is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Hosts, each `host` or `host:port`.
    pub contact_points: Vec<String>,
    /// Port of every node.
    pub port: u16,
    /// Where the tables are.
    pub keyspace: String,
    /// User.
    pub username: Option<String>,
    /// Password; better given as a file or by `CASSANDRA_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Preferred datacenter; absent: all are equal.
    pub local_datacenter: Option<String>,
    /// Copies of every row in a keyspace that the schema tool creates, such as `NetworkTopologyStrategy:dc1=3`; absent: one copy on
    /// a cluster of one node.
    pub replication: Option<Replication>,
    /// Absent: LOCAL_ONE for one replica, else LOCAL_QUORUM.
    pub consistency_write: Option<String>,
    /// Absent: LOCAL_ONE for one replica, else LOCAL_QUORUM.
    pub consistency_read: Option<String>,
    /// Longest wait for an answer; above the server's own time-outs.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Longest wait for a connection.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// Connections to each node.
    pub pool_size: usize,
    /// Rows asked of the server at once when many are read, at most. Fewer take longer; more are more memory when they have just
    /// become large. A command that reads once asks for more.
    pub page_rows: usize,
    /// TLS.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1".into()],
            port: 9042,
            keyspace: "cascor".into(),
            username: None,
            password: None,
            password_file: None,
            local_datacenter: None,
            replication: None,
            consistency_write: None,
            consistency_read: None,
            request_timeout: Duration::from_secs(12),
            connect_timeout: Duration::from_secs(5),
            pool_size: 2,
            page_rows: 256,
            tls: Tls::default(),
        }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        self.contact_point_problems(problems);
        for (key, count) in [("port", usize::from(self.port)), ("pool_size", self.pool_size)] {
            if count == 0 {
                problems.push(format!("`store.cassandra.{key}` must be at least 1"));
            }
        }
        if !(1..=PAGE_ROWS_MAX).contains(&self.page_rows) {
            problems.push(format!("`store.cassandra.page_rows` must be between 1 and {PAGE_ROWS_MAX}"));
        }
        for (key, time) in [("request_timeout", self.request_timeout), ("connect_timeout", self.connect_timeout)] {
            if time.is_zero() {
                problems.push(format!("`store.cassandra.{key}` must be longer than zero"));
            }
        }
        // Cassandra's own rule for the name of a keyspace.
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.keyspace.is_empty() || self.keyspace.len() > 48 || !self.keyspace.chars().all(named) {
            problems.push(format!(
                "`store.cassandra.keyspace` must be 1 to 48 letters, digits and underscores, not `{}`",
                self.keyspace.escape_debug()
            ));
        }
        self.consistency_problems(problems);
        self.login_problems(problems);
        self.tls.problems("store.cassandra", problems);
    }

    fn consistency_problems(&self, problems: &mut Vec<String>) {
        for (key, name) in [("write", &self.consistency_write), ("read", &self.consistency_read)] {
            let Some(name) = name else { continue };
            // The server takes ANY for writes only.
            let usable = |level: &Consistency| key == "write" || *level != Consistency::Any;
            if session::consistency(name).is_none_or(|level| !usable(&level)) {
                let levels = session::CONSISTENCIES.iter().filter(|(_, level)| usable(level));
                problems.push(format!(
                    "`store.cassandra.consistency_{key}` is `{}`; it must be one of {}",
                    name.escape_debug(),
                    levels.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                ));
            }
        }
    }

    fn login_problems(&self, problems: &mut Vec<String>) {
        let username = self.username.as_ref().is_some_and(|name| !name.is_empty());
        // The driver would not log in at all. A name without a password is no reason to refuse: an old file may have one that a
        // server without logins never asked for.
        if (self.password.is_some() || self.password_file.is_some()) && !username {
            problems.push("`store.cassandra.username` must be set when there is a password".into());
        }
    }

    /// Adds what is wrong with the files that these settings name.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        problems.extend(self.password().err().map(|error| Chain(&error).to_string()));
        self.tls.file_problems("store.cassandra", problems);
    }

    /// The password to log in with; its file is read now, so that one that was replaced counts from the next connection on.
    fn password(&self) -> Result<Option<Secret>, SecretFileError> {
        match &self.password_file {
            Some(path) => Secret::read_of("store.cassandra.password_file", path).map(Some),
            None => Ok(self.password.clone()),
        }
    }

    fn contact_point_problems(&self, problems: &mut Vec<String>) {
        if self.contact_points.is_empty() {
            problems.push("`store.cassandra.contact_points` must name at least one host".into());
        }
        for entry in &self.contact_points {
            if let Err(problem) = contact_points::address(entry, self.port) {
                problems.push(format!("`store.cassandra.contact_points`: `{}` {problem}", entry.escape_debug()));
            }
        }
    }

    /// Adds what is dangerous about these settings.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        let password = self.password.is_some() || self.password_file.is_some();
        let hosts = self.contact_points.iter().filter_map(|entry| contact_points::host(entry).ok());
        if let Some(host) = hosts.into_iter().find(|host| !host::is_loopback(host))
            && password
            && !self.tls.is_enabled()
        {
            warnings.push(tls::plain_password("Cassandra", host, "set `store.cassandra.tls.enabled = true`"));
        }
    }

    /// The contact points as `host:port`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.contact_points.iter().filter_map(|entry| contact_points::address(entry, self.port).ok()).collect()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_by_its_key() {
        let config = Config {
            contact_points: vec![],
            keyspace: "a\"b".into(),
            consistency_write: Some("MOST".into()),
            pool_size: 0,
            password: Some(Secret::new("x")),
            ..Config::default()
        };
        let mut problems = Vec::new();
        config.problems(&mut problems);
        for key in ["contact_points", "keyspace", "consistency_write", "pool_size", "username"] {
            assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:?}");
        }
        let mut none = Vec::new();
        Config::default().problems(&mut none);
        assert_eq!(none, Vec::<String>::new());
    }
}
