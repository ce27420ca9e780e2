//! Values of this program's keys, read within a bound.
//!
//! Other users of the Redis may write to these keys, and the client library allocates whatever the server sends. So the length is read
//! first, and then no more than the bound, even when the value is replaced in between. A value that is too large, of another type or
//! not text is counted, logged and treated as absent; the next write replaces it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fred::{clients::Client, error::Error as RedisError, interfaces::KeysInterface, types::Value};
use tokio::time::Instant;
use tracing::warn;

use crate::{logging::Untrusted, metrics::Counters};

/// Most bytes of a value, except those that hold messages, and the status.
pub const SMALL_VALUE: usize = 64 << 10;
/// Most bytes of a status, which names every channel of the configuration.
pub const STATUS_VALUE: usize = 1 << 20;
/// How much longer a latest value may be than its message: canonical names, and `_ingest`.
pub const LATEST_EXTRA: usize = 64 << 10;
/// Bytes of a value read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes at the end of a value that differ in each version: `_ingest` is there.
const TAIL_BYTES: usize = 256;
/// How often a value that is replaced while it is read is read again.
const READ_TRIES: u32 = 3;
/// How often an unusable value is logged, at most; each is counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The result of reading a key.
#[derive(Debug, PartialEq, Eq)]
pub enum ValueLookup<T> {
    /// No value.
    Absent,
    /// A value within the bound.
    Usable(T),
    /// A value that this program did not write.
    Unusable(Unusable),
}

/// Why a value was not written by this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has more bytes than the bound: at least so many.
    TooLarge(usize),
    /// It is no string.
    WrongType,
    /// It is not UTF-8.
    NotText,
}

impl Unusable {
    /// Every kind, for metrics.
    pub const ALL: [&str; 3] = ["too_large", "wrong_type", "not_text"];

    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::WrongType => "wrong_type",
            Self::NotText => "not_text",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes, more than cascor-ingest ever writes there"),
            Self::WrongType => f.write_str("a value of another type than text"),
            Self::NotText => f.write_str("bytes that are not UTF-8"),
        }
    }
}

/// The length of a value of at most `max` bytes; asks for STRLEN.
///
/// # Errors
/// When Redis does not answer, or refuses. A value of another type is no error.
pub async fn value_length(client: &Client, key: &str, max: usize) -> Result<ValueLookup<usize>, RedisError> {
    Ok(match typed(client.strlen::<usize, _>(key).await)? {
        None => ValueLookup::Unusable(Unusable::WrongType),
        Some(0) => ValueLookup::Absent,
        Some(bytes) if bytes > max => ValueLookup::Unusable(Unusable::TooLarge(bytes)),
        Some(bytes) => ValueLookup::Usable(bytes),
    })
}

/// The whole value, when it has at most `max` bytes; asks for GETRANGE.
///
/// # Errors
/// As [`value_length`].
pub async fn value_range(client: &Client, key: &str, max: usize) -> Result<ValueLookup<String>, RedisError> {
    // The end is inclusive: one byte beyond the bound shows that there is more.
    let Some(first) = read_piece(client, key, 0, max.min(PIECE_BYTES)).await? else {
        return Ok(ValueLookup::Unusable(Unusable::WrongType));
    };
    let bytes = if first.len() <= PIECE_BYTES {
        first.to_vec()
    } else if let ValueLookup::Unusable(why) = value_length(client, key, max).await? {
        return Ok(ValueLookup::Unusable(why));
    } else {
        read_pieces(client, key, max).await?
    };
    Ok(match bytes.len() {
        0 => ValueLookup::Absent,
        length if length > max => ValueLookup::Unusable(Unusable::TooLarge(length)),
        _ => match String::from_utf8(bytes) {
            Ok(text) => ValueLookup::Usable(text),
            Err(_) => ValueLookup::Unusable(Unusable::NotText),
        },
    })
}

/// A long value, piece by piece, because the client keeps a buffer as long as the longest answer. It is read between two looks at its
/// end, which tells each value from the one before: one that is replaced meanwhile is read again, and counts as absent when that
/// happens again and again.
async fn read_pieces(client: &Client, key: &str, max: usize) -> Result<Vec<u8>, RedisError> {
    for _ in 0..READ_TRIES {
        let length = match value_length(client, key, max).await? {
            ValueLookup::Usable(length) => length,
            _ => return Ok(Vec::new()),
        };
        let end = || read_piece(client, key, length.saturating_sub(TAIL_BYTES), length);
        let before = end().await?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let next = read_piece(client, key, bytes.len(), bytes.len() + PIECE_BYTES - 1).await?.unwrap_or_default();
            bytes.extend_from_slice(&next);
            if next.len() < PIECE_BYTES {
                break;
            }
        }
        let is_end = |end: Option<Bytes>| end.is_some_and(|end| bytes.ends_with(&end));
        if bytes.len() == length && is_end(before) && is_end(end().await?) {
            return Ok(bytes);
        }
    }
    Ok(Vec::new())
}

/// The bytes from `from` to `to`, both inclusive; `None`: the key holds a value of another type.
async fn read_piece(client: &Client, key: &str, from: usize, to: usize) -> Result<Option<Bytes>, RedisError> {
    let value = typed(client.getrange::<Value, _>(key, from, to).await)?;
    Ok(value.map(|value| value.into_bytes().unwrap_or_default()))
}

/// The value of a key, if it has at most `max` bytes.
///
/// # Errors
/// As [`value_length`].
pub async fn read_value(client: &Client, key: &str, max: usize) -> Result<ValueLookup<String>, RedisError> {
    Ok(match value_length(client, key, max).await? {
        ValueLookup::Absent => ValueLookup::Absent,
        ValueLookup::Unusable(why) => ValueLookup::Unusable(why),
        ValueLookup::Usable(_) => value_range(client, key, max).await?,
    })
}

/// `None`: the key holds a value of another type.
fn typed<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.details().starts_with("WRONGTYPE") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where unusable values are counted, and when one was logged last. Clones share both.
#[derive(Clone, Debug, Default)]
pub(super) struct UnusableValues {
    pub(super) counters: Option<Counters>,
    logged: Arc<Mutex<Option<Instant>>>,
}

impl UnusableValues {
    pub(super) fn record(&self, key: &str, why: Unusable) {
        if let Some(counters) = &self.counters {
            counters.of(why.name()).inc();
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            let key = Untrusted(key.as_bytes());
            warn!(%key, holds = %why, "a key of ours in Redis holds what we did not write there; it counts as absent");
        }
    }
}
