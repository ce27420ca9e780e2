//! Connections to Redis for commands, with short time-outs.

use std::time::Duration;

use fred::{
    clients::Client,
    error::ErrorKind,
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config as RedisConfig, PerformanceConfig, ReconnectPolicy},
    },
};

use super::CliError;
use crate::{
    redis::{self, Acl, ConnectError, Resource},
    store::BoxError,
};

/// Longest wait for Redis to take a connection or to answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(3);

/// A failed operation on Redis; if an ACL refuses it, with the missing permission.
pub fn failed(
    redis: &redis::Config,
    what: impl Into<String>,
    resource: Resource<'_>,
    error: fred::error::Error,
) -> CliError {
    match Acl::of(redis).refusal(error.details(), resource) {
        Some(refusal) => CliError::failed(what, refusal),
        None => CliError::failed(what, error),
    }
}

/// Subscribes to channels, on a connection of its own, and returns once Redis has confirmed each.
pub async fn subscribe(redis: &redis::Config, channels: &[String]) -> Result<redis::Opened, CliError> {
    let url = redis::redact(&redis.url);
    let opened = redis::open_subscription(redis).await;
    let mut opened = opened.map_err(|error| CliError::failed(format!("failed to connect to `{url}`"), error))?;
    for channel in channels {
        let failed = |error: BoxError| CliError::failed(format!("failed to subscribe to `{channel}`"), error);
        match opened.subscription.subscribe(channel).await {
            Ok(None) => {}
            Ok(Some(refusal)) => return Err(failed(refusal.into())),
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(opened)
}

/// Connects for one command, without reconnecting.
pub async fn connect(redis: &redis::Config) -> Result<Client, CliError> {
    connect_with(redis, redis::settings(redis).await, ReconnectPolicy::new_constant(1, 100)).await
}

/// Connects, and reconnects whenever the connection is lost.
pub async fn connect_for_long(redis: &redis::Config) -> Result<Client, CliError> {
    connect_with(redis, redis::settings(redis).await, ReconnectPolicy::new_constant(0, 100)).await
}

async fn connect_with(
    redis: &redis::Config,
    settings: Result<RedisConfig, ConnectError>,
    policy: ReconnectPolicy,
) -> Result<Client, CliError> {
    let url = redis::redact(&redis.url);
    let failed = |error| failed(redis, format!("failed to connect to `{url}`"), Resource::None, error);
    let settings = settings.map_err(|error| CliError::failed(format!("failed to connect to `{url}`"), error))?;
    // In a cluster a command whose slot has moved is sent again.
    let attempts = if settings.server.is_clustered() { 3 } else { 1 };
    let client = Builder::from_config(settings)
        .with_connection_config(|connection| {
            connection.connection_timeout = REDIS_TIMEOUT;
            connection.internal_command_timeout = REDIS_TIMEOUT;
            connection.max_command_attempts = attempts;
        })
        .set_performance_config(PerformanceConfig { default_command_timeout: REDIS_TIMEOUT, ..Default::default() })
        .set_policy(policy)
        .build()
        .map_err(failed)?;
    match tokio::time::timeout(2 * REDIS_TIMEOUT, client.init()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(error)) if !matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout) => Err(failed(error)),
        // The client's own errors do not name TLS problems.
        _ => Err(match redis::fault(redis).await {
            Some(error) => CliError::failed(format!("failed to connect to `{url}`"), error),
            None => CliError::NegativeAnswer(format!(
                "Redis does not answer at `{url}`: is it running, and is `redis.url` right?"
            )),
        }),
    }
}

/// A prefix as a pattern that matches itself only.
pub fn escape_glob(text: &str) -> String {
    let special = |c: char| ['*', '?', '[', ']', '\\', '^'].contains(&c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// The first channel that is no pattern: a command publishes there. `key` names the list, `flag` what names a channel instead.
///
/// # Errors
/// When there is none.
pub fn plain_channel<'a>(channels: &'a [String], key: &str, flag: &str) -> Result<&'a str, CliError> {
    let plain = channels.iter().find(|channel| !redis::is_pattern(channel)).map(String::as_str);
    plain.ok_or_else(|| CliError::Usage(format!("`{key}` names no channel without a pattern; use {flag}")))
}
