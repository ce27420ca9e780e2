//! Session lifecycle: connect, detect connection loss, reconnect.
//!
//! The driver's pool waits up to 10 s between retries, which is acceptable while other nodes are up. When every node is down that
//! is too long: the port is probed every half second, and a new session is opened at the first success.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use scylla::{
    client::{PoolSize, execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    policies::{load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    statement::{Consistency, Statement},
};
use tokio::{task::JoinSet, time};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    CassandraStore, Config,
    consistency::consistency,
    errors::{self, ConnectFailure, ErrorClass},
    read_scheduler::ReadScheduler,
    statements::Statements,
};
use crate::{
    lifecycle::{Signal, next_tick},
    logging::Chain,
    units::{self, Micros},
};

const PROBE_INTERVAL: Duration = Duration::from_millis(500);
const PREPARE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(2);

/// A session with its prepared statements.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) session: Arc<Session>,
    pub(super) statements: Statements,
    /// Whether a single replica confirms writes.
    pub(super) single_replica: bool,
    /// Maximum rows per page.
    pub(super) page_rows: usize,
    /// Whether it serves a one-shot command.
    pub(super) one_shot: bool,
    /// Interleaves long reads.
    pub(super) scheduler: ReadScheduler,
}

/// State seen by calls.
#[derive(Clone, Debug)]
pub(super) enum State {
    Down {
        failure: ConnectFailure,
        since: Micros,
        /// False until the first attempt has failed.
        is_logged: bool,
    },
    Up(Arc<LiveSession>),
}

/// Opens a session with any reachable node.
///
/// # Errors
/// No node is reachable, or all refuse.
pub(crate) async fn open(config: &Config) -> Result<Session, ConnectFailure> {
    let password = config.password().map_err(|error| ConnectFailure::misconfigured(Chain(&error).to_string()))?;
    probe(config).await?;
    let mut policy = DefaultPolicy::builder();
    if let Some(datacenter) = &config.local_datacenter {
        policy = policy.prefer_datacenter(datacenter.clone());
    }
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(config.request_timeout))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .load_balancing_policy(policy.build())
        .build();
    let pool = std::num::NonZeroUsize::new(config.pool_size).unwrap_or(std::num::NonZeroUsize::MIN);
    let mut builder = SessionBuilder::new()
        .known_nodes(config.addresses())
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerHost(pool))
        .connection_timeout(config.connect_timeout)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .keyspaces_to_fetch([config.keyspace.clone()])
        .tls_context(tls(config)?);
    if let (Some(username), Some(password)) = (&config.username, password) {
        builder = builder.user(username, password.expose());
    }
    let session = match Box::pin(builder.build()).await {
        Ok(session) => session,
        Err(error) => return Err(fault(config).await.unwrap_or_else(|| errors::session_failure(&error))),
    };
    check_datacenter(config, &session)?;
    Ok(session)
}

fn tls(config: &Config) -> Result<Option<Arc<rustls::ClientConfig>>, ConnectFailure> {
    if !config.tls.is_enabled() {
        return Ok(None);
    }
    crate::tls::client_config(&config.tls)
        .map(Some)
        .map_err(|error| ConnectFailure::misconfigured(format!("`store.cassandra.tls`: {}", Chain(&error))))
}

/// With an unknown preferred datacenter the driver would send no requests at all.
fn check_datacenter(config: &Config, session: &Session) -> Result<(), ConnectFailure> {
    let Some(wanted) = &config.local_datacenter else { return Ok(()) };
    let state = session.get_cluster_state();
    let mut known: Vec<&str> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    known.sort_unstable();
    known.dedup();
    if known.contains(&wanted.as_str()) {
        return Ok(());
    }
    Err(ConnectFailure::misconfigured(format!(
        "`store.cassandra.local_datacenter` is `{wanted}`, but the datacenters of the cluster are: {}",
        known.join(", ")
    )))
}

/// Probes the ports: cheaper than a failed session, and without driver logs.
async fn probe(config: &Config) -> Result<(), ConnectFailure> {
    let addresses = config.addresses();
    let mut tries = JoinSet::new();
    for server in config.servers(None) {
        tries.spawn(async move { server.connect().await.map(drop) });
    }
    let mut last = "there are no contact points".to_owned();
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error.to_string(),
            Err(error) => last = error.to_string(),
        }
    }
    let addresses = addresses.join(", ");
    Err(ConnectFailure::unavailable(format!("no Cassandra node answers at {addresses}: {last}")))
}

/// What is wrong with a contact point that takes connections, if it is not what it should be.
async fn fault(config: &Config) -> Option<ConnectFailure> {
    for server in config.servers(tls(config).ok()?) {
        // A node that is away is one of many.
        let Some(fault) = server.by_address().await.diagnose().await.filter(|fault| !fault.is_transient) else {
            continue;
        };
        return Some(ConnectFailure::misconfigured(format!("no session with Cassandra: {fault}")));
    }
    None
}

/// Replication factor of the keyspace: in total, or in the preferred datacenter.
async fn replicas(config: &Config, session: &Session) -> Result<usize, ConnectFailure> {
    let query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let unavailable =
        |error: String| ConnectFailure::unavailable(format!("cannot read the replication of the keyspace: {error}"));
    let result = session
        .query_unpaged(Statement::new(query), (&config.keyspace,))
        .await
        .map_err(|error| match errors::classify_execution(&error) {
            ErrorClass::Unavailable => unavailable(error.to_string()),
            _ => ConnectFailure::misconfigured(format!("cannot read the replication of the keyspace: {error}")),
        })?
        .into_rows_result()
        .map_err(|error| unavailable(error.to_string()))?;
    let row = result.maybe_first_row::<(HashMap<String, String>,)>().map_err(|error| unavailable(error.to_string()))?;
    let Some((replication,)) = row else {
        return Err(ConnectFailure::schema_mismatch(format_args!("keyspace `{}` does not exist", config.keyspace)));
    };
    Ok(replication_factor(&replication, config.local_datacenter.as_deref()))
}

fn replication_factor(replication: &HashMap<String, String>, datacenter: Option<&str>) -> usize {
    // `3/1` means three replicas, one of them transient.
    let factor = |text: &String| text.split('/').next().and_then(|n| n.parse::<usize>().ok());
    if let Some(n) = datacenter.and_then(|name| replication.get(name)).and_then(factor) {
        return n;
    }
    replication.iter().filter(|(key, _)| *key != "class").filter_map(|(_, value)| factor(value)).max().unwrap_or(1)
}

async fn live_session(config: &Config, session: &Arc<Session>, one_shot: bool) -> Result<LiveSession, ConnectFailure> {
    let replicas = replicas(config, session).await?;
    let default = if replicas <= 1 { Consistency::LocalOne } else { Consistency::LocalQuorum };
    let chosen = |name: &Option<String>| name.as_deref().and_then(consistency).unwrap_or(default);
    let (write, read) = (chosen(&config.consistency_write), chosen(&config.consistency_read));
    let statements = Box::pin(Statements::prepare(session, &config.keyspace, write, read)).await?;
    info!(keyspace = config.keyspace, replicas, ?write, ?read, "connected to Cassandra");
    let single_replica = replicas <= 1 || matches!(write, Consistency::Any | Consistency::One | Consistency::LocalOne);
    Ok(LiveSession {
        session: session.clone(),
        statements,
        single_replica,
        page_rows: config.page_rows,
        one_shot,
        scheduler: ReadScheduler::default(),
    })
}

impl CassandraStore {
    /// Connects, and reconnects after every outage, until stopped. A one-shot command calls [`connect`](Self::connect) instead.
    ///
    /// # Errors
    /// None: failures are logged once per change and returned by every call.
    pub async fn run(self: Arc<Self>, mut stop: Signal) -> Result<(), std::convert::Infallible> {
        tokio::select! {
            () = stop.stopped() => Ok(()),
            never = self.keep_connected() => match never {},
        }
    }

    /// Connects once, for a one-shot command.
    ///
    /// # Errors
    /// Why there is no usable session.
    pub async fn connect(&self) -> Result<(), crate::store::StoreError> {
        self.establish(&mut None, true).await.map_err(|failure| {
            self.set_down(&failure);
            failure.into()
        })
    }

    async fn keep_connected(&self) -> std::convert::Infallible {
        let mut session = None;
        let mut connected_before = false;
        loop {
            match self.establish(&mut session, false).await {
                Ok(()) => {
                    if connected_before {
                        // Every node was down: recently acknowledged rows may be lost.
                        self.restarts.fetch_add(1, Ordering::AcqRel);
                    }
                    connected_before = true;
                    if let Some(session) = session.take() {
                        self.watch_nodes(&session).await;
                    }
                    // Counted at the loss, not only at the reconnect: otherwise the linger could expire during the outage and the
                    // checkpoint advance past lost rows.
                    self.restarts.fetch_add(1, Ordering::AcqRel);
                    self.report_failure(&ConnectFailure::unavailable("every Cassandra node is gone"));
                }
                Err(failure) => {
                    // A session is kept when only the schema does not match: only the statements are prepared again.
                    let keep = failure.class == ErrorClass::Misconfigured;
                    if !keep {
                        session = None;
                    }
                    self.report_failure(&failure);
                    time::sleep(if keep { PREPARE_INTERVAL } else { PROBE_INTERVAL }).await;
                }
            }
        }
    }

    async fn establish(&self, session: &mut Option<Arc<Session>>, one_shot: bool) -> Result<(), ConnectFailure> {
        let current = match session {
            Some(session) => session.clone(),
            None => session.insert(Arc::new(open(&self.config).await?)).clone(),
        };
        let live = live_session(&self.config, &current, one_shot).await?;
        self.metrics.store_connected.set(1);
        self.state.send_replace(State::Up(Arc::new(live)));
        Ok(())
    }

    /// Returns once no node is connected; counts nodes that reconnect.
    async fn watch_nodes(&self, session: &Session) {
        let mut nodes: HashMap<Uuid, bool> = HashMap::new();
        let mut polls_without_node = 0;
        loop {
            time::sleep_until(next_tick(time::Instant::now(), PROBE_INTERVAL)).await;
            let state = session.get_cluster_state();
            let mut any = false;
            for node in state.get_nodes_info() {
                let up = node.is_connected();
                any |= up;
                match nodes.insert(node.host_id, up) {
                    Some(false) if up => {
                        info!(node = %node.address, "Cassandra node is back");
                        self.restarts.fetch_add(1, Ordering::AcqRel);
                    }
                    Some(true) if !up => {
                        warn!(node = %node.address, "Cassandra node is gone");
                        self.restarts.fetch_add(1, Ordering::AcqRel);
                    }
                    _ => {}
                }
            }
            polls_without_node = if any { 0 } else { polls_without_node + 1 };
            if polls_without_node >= 2 {
                return;
            }
        }
    }

    /// Makes every call fail with `failure` from now on; logs the first failure, and changes.
    fn report_failure(&self, failure: &ConnectFailure) {
        if !self.set_down(failure) {
            return;
        }
        match failure.class {
            ErrorClass::Unavailable => {
                warn!(error = %failure, "Cassandra is unavailable, and is tried again; what is received waits in the spool");
            }
            _ => error!(error = %failure, "Cassandra needs attention; what is received waits in the spool"),
        }
    }

    /// Makes every call fail with `failure` from now on. Returns whether the log does not have it yet.
    fn set_down(&self, failure: &ConnectFailure) -> bool {
        self.metrics.store_connected.set(0);
        let (is_new, since) = match &*self.state.borrow() {
            State::Up(_) => (true, units::now()),
            // Outage texts name addresses and ports of single attempts, so only their class is compared; for problems that need
            // manual repair every change is logged.
            State::Down { failure: old, since, is_logged } => {
                let same_kind = old.class == failure.class;
                let news = !is_logged || !same_kind || (failure.class != ErrorClass::Unavailable && old != failure);
                (news, if same_kind { *since } else { units::now() })
            }
        };
        self.state.send_replace(State::Down { failure: failure.clone(), since, is_logged: true });
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, store::Retention};

    #[test]
    fn the_first_failure_is_logged_and_then_every_change() {
        let store = CassandraStore::new(&Config::default(), &Retention::default(), Metrics::new());
        let refused = |port| ConnectFailure::unavailable(format!("no node answers at 127.0.0.1:{port}"));
        assert!(store.set_down(&refused(1)), "a server that is absent from the start");
        assert!(!store.set_down(&refused(2)), "the same outage");
        assert!(store.set_down(&ConnectFailure::misconfigured("a password")));
        assert!(!store.set_down(&ConnectFailure::misconfigured("a password")));
        assert!(store.set_down(&refused(1)), "another trouble");
    }

    #[test]
    fn replicas_are_those_of_the_preferred_datacenter() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let simple: HashMap<String, String> = map(&[("class", "x.SimpleStrategy"), ("replication_factor", "3")]);
        let network: HashMap<String, String> =
            map(&[("class", "NetworkTopologyStrategy"), ("dc1", "1"), ("dc2", "3/1")]);
        assert_eq!(replication_factor(&simple, None), 3);
        assert_eq!(replication_factor(&simple, Some("dc1")), 3);
        assert_eq!(replication_factor(&network, Some("dc1")), 1);
        assert_eq!(replication_factor(&network, Some("dc2")), 3);
        assert_eq!(replication_factor(&network, None), 3);
    }
}
