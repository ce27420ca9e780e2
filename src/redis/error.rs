//! Why there is no connection to Redis.

use std::{io, time::Duration};

use fred::error::Error as RedisError;

use super::Refusal;
use crate::{
    backoff::{self, Backoff},
    secret::SecretFileError,
    tls::TlsError,
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ConnectError {
    #[error("`redis.url` {0}")]
    Address(&'static str),
    #[error(transparent)]
    PasswordFile(SecretFileError),
    #[error("failed to set up TLS to Redis")]
    Tls(#[source] TlsError),
    #[error("failed to reach Redis")]
    Unreachable(#[source] io::Error),
    #[error("Redis refuses the login ({0}); see `redis.username`, `redis.password_file`")]
    Login(String),
    #[error(transparent)]
    Forbidden(Refusal),
    #[error("Redis does not answer in time")]
    Timeout,
    #[error("failed to greet Redis (version 6 or newer is needed)")]
    Greeting(#[source] RedisError),
}

impl ConnectError {
    /// When to try again. What an operator must repair is tried less often: it fills the server's log.
    pub fn retry_delay(&self, backoff: &mut Backoff) -> Duration {
        let delay = backoff.next_delay();
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Greeting(_) => delay,
            _ => backoff::OPERATOR,
        }
    }
}
