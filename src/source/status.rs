//! The state of the connections, for the status and readiness.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::role::Role;
use crate::{
    lifecycle::Readiness,
    units::{self, Micros},
};

/// The state of all connections. Written by the sources, each through its [`ConnectionHandle`].
#[derive(Clone, Debug)]
pub struct SourceStatus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections: Mutex<Vec<ConnectionStatus>>,
    first_confirmed: watch::Sender<Option<Micros>>,
    readiness: Readiness,
}

/// The connection of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// The role of its source.
    #[serde(rename = "name")]
    pub role: Role,
    /// Whether the connection is up.
    pub connected: bool,
    /// Time of the last connect or disconnect.
    #[serde(serialize_with = "units::serialize_time")]
    pub since: Micros,
    /// Why it is down, or why a channel is refused; `None` once healthy.
    pub error: Option<String>,
    /// Number of connects.
    pub connects: u64,
    /// The subscribed channels and patterns.
    pub channels: Vec<ChannelStatus>,
    /// What was published before has been received, or recorded as a gap.
    #[serde(skip)]
    received_through: Option<Micros>,
}

/// Writes the status of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionHandle {
    status: SourceStatus,
    /// Place in the list of connections, which only grows.
    index: usize,
    role: Role,
}

/// One channel or pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// Its name.
    pub name: String,
    /// Whether Redis has confirmed the subscription.
    #[serde(rename = "proven")]
    pub confirmed: bool,
}

impl SourceStatus {
    /// No connection yet. `readiness` is kept up to date: subscribed while every channel is confirmed.
    pub fn new(readiness: Readiness) -> Self {
        Self(Arc::new(Shared { connections: Mutex::default(), first_confirmed: watch::channel(None).0, readiness }))
    }

    /// All connections, as they are now.
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

    /// When a source of training messages was first confirmed; what was published before it is missed.
    pub fn first_confirmed(&self) -> watch::Receiver<Option<Micros>> {
        self.0.first_confirmed.subscribe()
    }

    /// What was published before this moment has been received, or recorded as a gap; absent: some source was never connected.
    pub fn low_watermark(&self) -> Option<Micros> {
        let connections = self.lock();
        // What a stream has not delivered yet is not lost.
        let listening =
            connections.iter().filter(|connection| !connection.channels.is_empty() && connection.role != Role::Stream);
        listening.map(|connection| connection.received_through).min().flatten()
    }

    /// Adds a connection, which is down.
    pub fn register(&self, role: Role, channels: &[String], now: Micros) -> ConnectionHandle {
        let channels = channels.iter().map(|name| ChannelStatus { name: name.clone(), confirmed: false }).collect();
        let connection = ConnectionStatus {
            role,
            connected: false,
            since: now,
            error: None,
            connects: 0,
            channels,
            received_through: None,
        };
        let index = {
            let mut connections = self.lock();
            connections.push(connection);
            connections.len() - 1
        };
        self.update_readiness();
        ConnectionHandle { status: self.clone(), index, role }
    }

    fn update_readiness(&self) {
        let connections = self.lock();
        let confirmed = connections.iter().flat_map(|connection| &connection.channels).all(|channel| channel.confirmed);
        self.0.readiness.set_subscribed(confirmed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ConnectionStatus>> {
        // A panic elsewhere leaves plain values behind.
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionHandle {
    /// Sets the moment before which everything has been received, or recorded as a gap.
    pub fn set_received_through(&self, until: Micros) {
        if let Some(connection) = self.status.lock().get_mut(self.index) {
            connection.received_through = Some(until);
        }
    }

    /// The connection is up; all channels are confirmed but the `refused`.
    pub fn up(&self, refused: &[String], error: Option<String>, now: Micros) {
        self.change(|connection| {
            if !connection.connected {
                (connection.connected, connection.since) = (true, now);
                connection.connects += 1;
            }
            connection.error = error;
            for channel in &mut connection.channels {
                channel.confirmed = !refused.contains(&channel.name);
            }
        });
        self.status.0.first_confirmed.send_if_modified(|first| {
            let is_first = first.is_none() && self.role == Role::Training;
            if is_first {
                *first = Some(now);
            }
            is_first
        });
    }

    /// The connection is down. Returns whether it was up, or down for another reason.
    pub fn down(&self, error: String, now: Micros) -> bool {
        let mut changed = false;
        self.change(|connection| {
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

    fn change(&self, change: impl FnOnce(&mut ConnectionStatus)) {
        if let Some(connection) = self.status.lock().get_mut(self.index) {
            change(connection);
        }
        self.status.update_readiness();
    }
}
