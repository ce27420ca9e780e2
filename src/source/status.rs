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
    first_proven: watch::Sender<Option<Micros>>,
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
    heard: Option<Micros>,
}

/// One channel or pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// Its name.
    pub name: String,
    /// Whether Redis has confirmed that it sends us this channel's messages.
    pub proven: bool,
}

impl SourceStatus {
    /// Nothing is connected. `readiness` is kept: subscribed while every channel is proven.
    pub fn new(readiness: Readiness) -> Self {
        Self(Arc::new(Shared { connections: Mutex::default(), first_proven: watch::channel(None).0, readiness }))
    }

    /// How it is now.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.lock().clone()
    }

    /// Channels that Redis has not confirmed.
    pub fn unproven(&self) -> Vec<String> {
        self.lock()
            .iter()
            .flat_map(|connection| &connection.channels)
            .filter(|c| !c.proven)
            .map(|c| c.name.clone())
            .collect()
    }

    /// The moment at which the training channels were first proven; before it, nobody listened.
    pub fn first_proven(&self) -> watch::Receiver<Option<Micros>> {
        self.0.first_proven.subscribe()
    }

    /// What was published before this moment has been received, or told as a gap; absent: some source has not listened yet.
    pub fn heard_until(&self) -> Option<Micros> {
        let connections = self.lock();
        let listening = connections.iter().filter(|connection| !connection.channels.is_empty());
        listening.map(|connection| connection.heard).min().flatten()
    }

    pub(super) fn heard(&self, name: &str, until: Micros) {
        if let Some(connection) = self.lock().iter_mut().find(|connection| connection.name == name) {
            connection.heard = Some(until);
        }
    }

    pub(super) fn register(&self, name: &'static str, channels: &[String], now: Micros) {
        let channels = channels.iter().map(|name| ChannelStatus { name: name.clone(), proven: false }).collect();
        let connection =
            ConnectionStatus { name, connected: false, since: now, error: None, connects: 0, channels, heard: None };
        self.lock().push(connection);
        self.judge();
    }

    /// The connection is up; all channels are proven but the `refused`.
    pub(super) fn up(&self, name: &'static str, refused: &[String], error: Option<String>, now: Micros) {
        self.change(name, |connection| {
            if !connection.connected {
                (connection.connected, connection.since) = (true, now);
                connection.connects += 1;
            }
            connection.error = error;
            for channel in &mut connection.channels {
                channel.proven = !refused.contains(&channel.name);
            }
        });
        self.0.first_proven.send_if_modified(|first| {
            let news = first.is_none() && name == super::pubsub::TRAINING;
            if news {
                *first = Some(now);
            }
            news
        });
    }

    /// There is no connection. Returns whether this is news.
    pub(super) fn down(&self, name: &'static str, error: String, now: Micros) -> bool {
        let mut news = false;
        self.change(name, |connection| {
            news = connection.connected || connection.error.as_ref() != Some(&error);
            if connection.connected {
                (connection.connected, connection.since) = (false, now);
            }
            connection.error = Some(error);
            for channel in &mut connection.channels {
                channel.proven = false;
            }
        });
        news
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ConnectionStatus)) {
        if let Some(connection) = self.lock().iter_mut().find(|connection| connection.name == name) {
            change(connection);
        }
        self.judge();
    }

    fn judge(&self) {
        let connections = self.lock();
        let proven = connections.iter().flat_map(|connection| &connection.channels).all(|channel| channel.proven);
        self.0.readiness.set_subscribed(proven);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ConnectionStatus>> {
        // Whoever panicked left plain values behind.
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
