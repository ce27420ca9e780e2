//! What is known about the connections to Redis, for status, readiness and people.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use crate::{lifecycle::Readiness, units::Micros};

/// Shared by the sources, who write it, and whoever reports it.
#[derive(Clone, Debug)]
pub struct SourceStatus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections: Mutex<Vec<ConnectionStatus>>,
    first_confirmed: watch::Sender<Option<Micros>>,
    readiness: Readiness,
}

/// One connection of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// `training` or `control`.
    pub name: &'static str,
    /// Whether the connection is up.
    pub connected: bool,
    /// Since when it is (or is not).
    pub since: Micros,
    /// Why it is not, or why a channel is missing; the last reason while all is well again stays absent.
    pub error: Option<String>,
    /// How often it was made.
    pub connects: u64,
    /// What it listens to.
    pub channels: Vec<ChannelStatus>,
    /// What was published before has been received, or told as a gap.
    #[serde(skip)]
    received_through: Option<Micros>,
}

/// One channel or pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// Its name.
    pub name: String,
    /// Whether Redis has confirmed that it sends us this channel's messages.
    #[serde(rename = "proven")]
    pub confirmed: bool,
}

impl SourceStatus {
    /// Nothing is connected. `readiness` is kept: subscribed while every channel is confirmed.
    pub fn new(readiness: Readiness) -> Self {
        Self(Arc::new(Shared { connections: Mutex::default(), first_confirmed: watch::channel(None).0, readiness }))
    }

    /// How it is now.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.lock().clone()
    }

    /// Channels that Redis has not confirmed.
    pub fn unconfirmed(&self) -> Vec<String> {
        self.lock()
            .iter()
            .flat_map(|connection| &connection.channels)
            .filter(|c| !c.confirmed)
            .map(|c| c.name.clone())
            .collect()
    }

    /// The moment at which the training channels were first confirmed; before it, nobody listened.
    pub fn first_confirmed(&self) -> watch::Receiver<Option<Micros>> {
        self.0.first_confirmed.subscribe()
    }

    /// What was published before this moment has been received, or told as a gap; absent: some source has not listened yet.
    pub fn low_watermark(&self) -> Option<Micros> {
        let connections = self.lock();
        let listening = connections.iter().filter(|connection| !connection.channels.is_empty());
        listening.map(|connection| connection.received_through).min().flatten()
    }

    pub(super) fn set_received_through(&self, name: &str, until: Micros) {
        if let Some(connection) = self.lock().iter_mut().find(|connection| connection.name == name) {
            connection.received_through = Some(until);
        }
    }

    pub(super) fn register(&self, name: &'static str, channels: &[String], now: Micros) {
        let channels = channels.iter().map(|name| ChannelStatus { name: name.clone(), confirmed: false }).collect();
        let connection = ConnectionStatus {
            name,
            connected: false,
            since: now,
            error: None,
            connects: 0,
            channels,
            received_through: None,
        };
        self.lock().push(connection);
        self.update_readiness();
    }

    /// The connection is up; all channels are confirmed but the `refused`.
    pub(super) fn up(&self, name: &'static str, refused: &[String], error: Option<String>, now: Micros) {
        self.change(name, |connection| {
            if !connection.connected {
                (connection.connected, connection.since) = (true, now);
                connection.connects += 1;
            }
            connection.error = error;
            for channel in &mut connection.channels {
                channel.confirmed = !refused.contains(&channel.name);
            }
        });
        self.0.first_confirmed.send_if_modified(|first| {
            let is_first = first.is_none() && name == super::pubsub::TRAINING;
            if is_first {
                *first = Some(now);
            }
            is_first
        });
    }

    /// There is no connection. Returns whether this is news.
    pub(super) fn down(&self, name: &'static str, error: String, now: Micros) -> bool {
        let mut changed = false;
        self.change(name, |connection| {
            changed = connection.connected || connection.error.as_ref() != Some(&error);
            if connection.connected {
                (connection.connected, connection.since) = (false, now);
            }
            connection.error = Some(error);
            for channel in &mut connection.channels {
                channel.confirmed = false;
            }
        });
        changed
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ConnectionStatus)) {
        if let Some(connection) = self.lock().iter_mut().find(|connection| connection.name == name) {
            change(connection);
        }
        self.update_readiness();
    }

    fn update_readiness(&self) {
        let connections = self.lock();
        let confirmed = connections.iter().flat_map(|connection| &connection.channels).all(|channel| channel.confirmed);
        self.0.readiness.set_subscribed(confirmed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ConnectionStatus>> {
        // Whoever panicked left plain values behind.
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
