//! The connection for commands, made again whenever it is lost. The reconnecting of the client library is not used: it gives up on a
//! refused login, and replays commands.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::{clients::Client, error::Error as RedisError, interfaces::ClientLike};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    acl::{Acl, is_refusal},
    config::Config,
    connect::connect,
    connection::Connected,
    login::ConnectError,
    value::{Unusable, UnusableValues, ValueLookup, read_value},
};
use crate::{
    backoff::{self, Backoff},
    lifecycle::{Signal, next_tick},
    logging::Chain,
    metrics::Metrics,
};

/// How often a connection is pinged.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);

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
        self.unusable.counters = Some(metrics.redis_unusable_values.clone());
        metrics.redis_unusable_values.show(Unusable::ALL);
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
            tried = connect(config) => tried,
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
async fn answers(client: &Client) -> bool {
    client.ping::<()>(None).await.map_or_else(|error| is_refusal(&error), |()| true)
}

/// Returns when the connection is gone, or silent for too long.
async fn wait_until_lost(connected: &mut Connected) {
    let client = connected.client.clone();
    let silent = async {
        let mut failures = 0;
        while failures < 2 {
            tokio::time::sleep_until(next_tick(Instant::now(), PING_INTERVAL)).await;
            failures = if answers(&client).await { 0 } else { failures + 1 };
        }
    };
    tokio::select! {
        () = connected.lost() => {}
        () = silent => {}
    }
}
