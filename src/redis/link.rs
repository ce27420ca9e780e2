//! Makes one connection to Redis at a time. The reconnecting of the client library is not used: it gives up on a refused login,
//! replays commands and does not say when it has subscribed again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    acl::{Acl, Resource, is_refusal},
    config::Config,
    login::{CONNECT_TIMEOUT, ConnectError, settings},
    probe::probe,
    value::{Unusable, UnusableValues, ValueLookup, read_value},
};
use crate::{
    backoff::{self, Backoff},
    lifecycle::Signal,
    logging::Chain,
    metrics::{Label, Metrics},
};

/// How long a command may take.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection is pinged.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a connection counts as lost.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);
/// Capacity of the buffers for the library's own events.
const EVENT_BUFFER_CAPACITY: usize = 16;

/// The use of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Only subscribes and pings; holds this many received messages.
    Subscriber(usize),
    /// All other commands.
    Commands,
}

/// A connection that is up. Dropping it closes it.
#[derive(Debug)]
pub struct Connected {
    /// To send commands with.
    pub client: Client,
    /// Ends when the connection does.
    pub task: ConnectHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connected {
    async fn greet(client: Client, acl: &Acl) -> Result<Self, ConnectError> {
        let task = client.connect();
        let mut connected = Self { client, task };
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

fn classify(error: RedisError, acl: &Acl) -> ConnectError {
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
    match error.kind() {
        ErrorKind::Timeout => ConnectError::Timeout,
        _ => ConnectError::Greeting(error),
    }
}

/// Makes one connection, logged in and ready; one try.
///
/// # Errors
/// The step that failed.
pub async fn connect(config: &Config, role: Role) -> Result<Connected, ConnectError> {
    let client = prepare(config, role).await?;
    Connected::greet(client, &Acl::of(config)).await
}

/// A client that has not connected yet, for a server that accepts connections.
async fn prepare(config: &Config, role: Role) -> Result<Client, ConnectError> {
    probe(config).await?;
    let settings = settings(config).await?;
    build(RedisConfig { fail_fast: true, ..settings }, role).map_err(ConnectError::Greeting)
}

fn build(settings: RedisConfig, role: Role) -> Result<Client, RedisError> {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    let client = Builder::from_config(settings)
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
                max_command_attempts: 1,
                disable_cluster_health_check: true,
                // The subscriber judges by its own pings: behind a large message a pong may be late, and is no silence then.
                unresponsive: UnresponsiveConfig {
                    max_timeout: Some(match role {
                        Role::Subscriber(_) => Duration::from_secs(15),
                        Role::Commands => SILENCE_TIMEOUT,
                    }),
                    interval: Duration::from_millis(500),
                },
                // A reply such as READONLY is an answer to one command, no reason to leave.
                reconnect_errors: Vec::new(),
                tcp: TcpConfig { nodelay: Some(true), keepalive: Some(keepalive), ..TcpConfig::default() },
                ..ConnectionConfig::default()
            };
        })
        .build()?;
    if let Role::Subscriber(messages) = role {
        // The library would make the rings of all its events as long as this one: with 32,768 messages 24 MiB instead of 6. The
        // ring has no subscriber yet, because the client has not begun to connect.
        client.inner().notifications.pubsub.store(Arc::new(broadcast::channel(messages).0));
    }
    Ok(client)
}

/// The connection for commands, shared by the latest keys, receipts and the API.
#[derive(Clone, Debug)]
pub struct Link {
    current: watch::Receiver<Option<Client>>,
    acl: Acl,
    outages: Arc<Mutex<Outages>>,
    pub(super) unusable: UnusableValues,
}

/// The state of the connection over time.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    /// Whether there has been a connection.
    pub connected_before: bool,
    /// Why the newest try failed; absent since it worked.
    pub error: Option<String>,
}

impl Link {
    /// The link, and the future that keeps it up until told to stop.
    pub fn new(config: &Config, stop: Signal) -> (Self, impl Future<Output = Result<(), ConnectError>> + Send + use<>) {
        let (sender, current) = watch::channel(None);
        let (config, acl) = (config.clone(), Acl::of(config));
        let link = Self { current, acl: acl.clone(), outages: Arc::default(), unusable: UnusableValues::default() };
        let outages = Arc::clone(&link.outages);
        (link, async move {
            maintain_connection(&config, &acl, &sender, &outages, stop).await;
            Ok(())
        })
    }

    /// The state of the connection over time.
    pub fn outages(&self) -> Outages {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client that is connected now, if any.
    pub fn client(&self) -> Option<Client> {
        self.current.borrow().clone()
    }

    /// Sees every connect and disconnect.
    pub fn watch(&self) -> watch::Receiver<Option<Client>> {
        self.current.clone()
    }

    /// Explains refusals to the user of this connection.
    pub fn acl(&self) -> &Acl {
        &self.acl
    }

    /// Waits for a connection.
    pub async fn connected(&mut self) -> Option<Client> {
        self.current.wait_for(Option::is_some).await.ok().and_then(|client| client.clone())
    }
}

impl Link {
    /// Counts unusable values there.
    pub fn counted_in(mut self, metrics: &Metrics) -> Self {
        self.unusable.counters = metrics.redis_unusable_values.clone();
        for name in Unusable::ALL {
            let _ = self.unusable.counters.get_or_create(&Label::of(name));
        }
        self
    }

    /// The value of a key of this program. An unusable value is counted, logged and treated as absent.
    ///
    /// # Errors
    /// When Redis does not answer, or refuses; the caller reports a refusal by the ACL.
    pub async fn read(&self, client: &Client, key: &str, max: usize) -> Result<Option<String>, RedisError> {
        Ok(self.usable(key, read_value(client, key, max).await?))
    }

    /// The value if it is usable; otherwise it is counted and logged.
    pub fn usable<T>(&self, key: &str, found: ValueLookup<T>) -> Option<T> {
        match found {
            ValueLookup::Usable(value) => Some(value),
            ValueLookup::Absent => None,
            ValueLookup::Unusable(why) => {
                self.unusable.record(key, why);
                None
            }
        }
    }
}

async fn maintain_connection(
    config: &Config,
    acl: &Acl,
    current: &watch::Sender<Option<Client>>,
    outages: &Mutex<Outages>,
    mut stop: Signal,
) {
    let note = |outage: Outages| *outages.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    let mut retry = Backoff::new(backoff::REDIS, 0);
    let mut last_error = String::new();
    loop {
        let tried = tokio::select! {
            biased;
            () = stop.stopped() => return,
            tried = connect(config, Role::Commands) => tried,
        };
        let delay = match tried {
            Ok(mut connected) => {
                info!("connected to Redis for commands");
                last_error.clear();
                acl.reset_warnings();
                retry.reset();
                note(Outages { connected_before: true, error: None });
                current.send_replace(Some(connected.client.clone()));
                let stopped = tokio::select! {
                    () = stop.stopped() => true,
                    () = wait_until_lost(&mut connected) => false,
                };
                current.send_replace(None);
                if stopped {
                    return;
                }
                warn!("lost the connection to Redis for commands");
                retry.next_delay()
            }
            Err(error) => {
                let text = Chain(&error).to_string();
                outages.lock().unwrap_or_else(PoisonError::into_inner).error = Some(text.clone());
                if text != last_error {
                    warn!(error = text, "no connection to Redis for commands; trying again");
                    last_error = text;
                }
                error.retry_delay(&mut retry)
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Whether Redis answers a PING. That the user may not send one is an answer, too.
pub(crate) async fn answers(client: &Client) -> bool {
    client.ping::<()>(None).await.map_or_else(|error| is_refusal(&error), |()| true)
}

/// Returns when the connection is gone, or silent for too long.
async fn wait_until_lost(connected: &mut Connected) {
    let client = connected.client.clone();
    let silent = async {
        let mut failures = 0;
        while failures < 2 {
            tokio::time::sleep(PING_INTERVAL).await;
            failures = if answers(&client).await { 0 } else { failures + 1 };
        }
    };
    tokio::select! {
        _ = &mut connected.task => {}
        () = silent => {}
    }
}
