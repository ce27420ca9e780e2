//! One connection, and the state of its server.

use std::{borrow::Cow, io, sync::Arc};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::redis::{CHANNEL_BYTES, Opened, Subscription, Watch};

/// Channel names kept, for patterns that match many.
const NAMES_MAX: usize = 1_024;

/// A connection whose subscriptions are confirmed.
pub(super) struct Session {
    pub(super) subscription: Subscription,
    /// Ends when another server has taken over.
    pub(super) watch: Option<Watch>,
    pub(super) names: ChannelNames,
}

/// The session with a primary that Sentinel no longer names: publishers may still be there.
pub(super) struct Former {
    pub(super) session: Session,
    pub(super) until: Instant,
}

/// Fields of INFO that show why a server closed a connection.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServerInfo {
    run_id: String,
    output_buffer_disconnects: Option<u64>,
}

impl ServerInfo {
    fn parse(info: &str) -> Self {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Self {
            run_id: field("run_id").unwrap_or_default().to_owned(),
            output_buffer_disconnects: field("client_output_buffer_limit_disconnections").and_then(|n| n.parse().ok()),
        }
    }

    /// Whether the same server has since closed a connection because its output buffer was full. False for servers that do not count
    /// that.
    pub(super) fn evicted_client(&self, now: &Self) -> bool {
        self.run_id == now.run_id
            && self
                .output_buffer_disconnects
                .zip(now.output_buffer_disconnects)
                .is_some_and(|(before, now)| now > before)
    }
}

/// Reads INFO; empty where the ACL forbids it: an eviction then looks like any other disconnect.
pub(super) async fn server_info(subscription: &mut Subscription) -> io::Result<ServerInfo> {
    let mut info = subscription.info("server").await?;
    info.push_str(&subscription.info("stats").await?);
    Ok(ServerInfo::parse(&info))
}

/// The name of a channel, bounded: a pattern matches names of any length, and each waiting message holds one. Of a long name the
/// beginning is kept, and a hash of the whole.
fn bounded_name(channel: &str) -> Cow<'_, str> {
    if channel.len() <= CHANNEL_BYTES {
        return Cow::Borrowed(channel);
    }
    let hash = format!("…{:016x}", xxh3_64(channel.as_bytes()));
    let head = &channel[..channel.floor_char_boundary(CHANNEL_BYTES - hash.len())];
    Cow::Owned(format!("{head}{hash}"))
}

impl Session {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { subscription, watch } = opened;
        Self { subscription, watch, names: ChannelNames::default() }
    }
}

/// Names of channels, shared by their messages; most come on few channels.
#[derive(Default)]
pub(super) struct ChannelNames(Vec<Arc<str>>);

impl ChannelNames {
    /// The shared name.
    pub(super) fn of(&mut self, channel: &[u8]) -> Arc<str> {
        if let Some(at) = self.0.iter().position(|name| name.as_bytes() == channel) {
            self.0.swap(0, at);
            return Arc::clone(&self.0[0]);
        }
        let text = String::from_utf8_lossy(channel);
        let name: Arc<str> = bounded_name(&text).into();
        if let Some(known) = self.0.iter().find(|known| **known == name) {
            return Arc::clone(known);
        }
        if self.0.len() >= NAMES_MAX {
            self.0.clear();
        }
        self.0.insert(0, Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_kept_short_and_apart() {
        let exact = "é".repeat(CHANNEL_BYTES / 2);
        assert_eq!(bounded_name(&exact), exact);
        let [one, other] = ["1", "2"].map(|end| "é".repeat(1 << 20) + end);
        let (one, other) = (bounded_name(&one), bounded_name(&other));
        assert!(one.len() <= CHANNEL_BYTES && one.len() > CHANNEL_BYTES - 4, "{}", one.len());
        assert!(one.starts_with("ééé") && one != other);
    }
}
