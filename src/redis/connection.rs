//! One connection to one server, or to a cluster: made, logged in, and given up when another server has taken over.

use std::{fmt, future::pending, pin::Pin, time::Duration};

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    socket2::TcpKeepalive,
    types::{
        Builder, ConnectHandle,
        config::{Config as RedisConfig, ConnectionConfig, PerformanceConfig, TcpConfig, UnresponsiveConfig},
    },
};
use tokio::time::timeout;

use super::{
    acl::{Acl, Resource},
    config::Config,
    login::{CONNECT_TIMEOUT, ConnectError},
    probe::{diagnose, probe_server},
};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence after which a connection counts as lost.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);
/// Capacity of the buffers for the library's own events.
const EVENT_BUFFER_CAPACITY: usize = 16;

/// Watches whether another server has taken over. Its output is how long messages may have been missed by then.
pub type Watch = Pin<Box<dyn Future<Output = Duration> + Send>>;

/// Returns when another server has taken over, and for how long messages may have been missed; never where nothing watches.
pub async fn moved_away(watch: &mut Option<Watch>) -> Duration {
    match watch {
        Some(watch) => watch.await,
        None => pending().await,
    }
}

/// A connection that is up. Dropping it closes it.
pub struct Connected {
    /// To send commands with.
    pub client: Client,
    task: ConnectHandle,
    watch: Option<Watch>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("watched", &self.watch.is_some()).finish_non_exhaustive()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connected {
    /// Returns when the connection is closed, or when another server has taken over. It may be dropped and called again.
    pub async fn lost(&mut self) {
        tokio::select! {
            biased;
            _ = &mut self.task => {}
            _ = moved_away(&mut self.watch) => {}
        }
    }

    /// Ends the connection when the watch says so.
    pub(super) fn watched(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    async fn greet(client: Client, acl: &Acl) -> Result<Self, ConnectError> {
        let task = client.connect();
        let mut connected = Self { client, task, watch: None };
        let client = connected.client.clone();
        let greeted = async {
            tokio::select! {
                biased;
                up = client.wait_for_connect() => up,
                ended = &mut connected.task => Err(match ended {
                    Ok(Err(error)) => error,
                    _ => RedisError::new(ErrorKind::Canceled, "the connection was closed"),
                }),
            }
        };
        timeout(2 * CONNECT_TIMEOUT, greeted)
            .await
            .map_err(|_| ConnectError::Timeout)?
            .map_err(|error| classify(error, acl))?;
        Ok(connected)
    }
}

pub(super) fn classify(error: RedisError, acl: &Acl) -> ConnectError {
    let text = error.details();
    // Logging in needs no permission, but choosing a database does.
    if let Some(refusal) = acl.refusal(text, Resource::None) {
        return ConnectError::Forbidden(refusal);
    }
    if matches!(error.kind(), ErrorKind::Auth)
        || ["NOAUTH", "WRONGPASS", "invalid username"].iter().any(|word| text.contains(word))
    {
        // The text of Redis names the case and never the password.
        return ConnectError::Login(text.to_owned());
    }
    if text.contains("cluster support disabled") {
        return ConnectError::NoCluster;
    }
    match error.kind() {
        ErrorKind::Timeout => ConnectError::Timeout,
        _ => ConnectError::Greeting(error),
    }
}

/// Connects to the servers of these settings, after a plain connection, whose errors say more.
pub(super) async fn open(config: &Config, settings: RedisConfig) -> Result<Connected, ConnectError> {
    let servers = settings.server.clone();
    probe_server(config, &servers).await?;
    let client = build(RedisConfig { fail_fast: true, ..settings }).map_err(ConnectError::Greeting)?;
    match Connected::greet(client, &Acl::of(config)).await {
        Err(error @ (ConnectError::Greeting(_) | ConnectError::Timeout)) => {
            Err(diagnose(config, &servers).await.map_or(error, ConnectError::Unreachable))
        }
        greeted => greeted,
    }
}

/// When the system checks a connection without traffic, and then how often.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2))
}

fn build(settings: RedisConfig) -> Result<Client, RedisError> {
    // A command whose slot has moved is sent again.
    let max_command_attempts = if settings.server.is_clustered() { 3 } else { 1 };
    Builder::from_config(settings)
        .with_performance_config(|performance| {
            *performance = PerformanceConfig {
                default_command_timeout: COMMAND_TIMEOUT,
                broadcast_channel_capacity: EVENT_BUFFER_CAPACITY,
                ..PerformanceConfig::default()
            };
        })
        .with_connection_config(|connection| {
            *connection = ConnectionConfig {
                connection_timeout: CONNECT_TIMEOUT,
                internal_command_timeout: CONNECT_TIMEOUT,
                max_command_attempts,
                disable_cluster_health_check: true,
                unresponsive: UnresponsiveConfig {
                    max_timeout: Some(SILENCE_TIMEOUT),
                    interval: Duration::from_millis(500),
                },
                // A reply such as READONLY is an answer to one command, no reason to leave.
                reconnect_errors: Vec::new(),
                tcp: TcpConfig { nodelay: Some(true), keepalive: Some(keepalive()), ..TcpConfig::default() },
                ..ConnectionConfig::default()
            };
        })
        .build()
}
