//! A connection to Redis for a command of a person: short time-outs.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        Builder, RespVersion,
        config::{Config, PerformanceConfig, ReconnectPolicy},
    },
};

use super::CliError;
use crate::redis;

/// Longest wait for Redis to take a connection or to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects for one command, or says why not.
pub async fn connect(redis: &redis::Config) -> Result<Client, CliError> {
    connect_with(redis, ReconnectPolicy::new_constant(1, 100)).await
}

/// Connects for long, or says why not: later losses are mended without end.
pub async fn connect_for_long(redis: &redis::Config) -> Result<Client, CliError> {
    connect_with(redis, ReconnectPolicy::new_constant(0, 100)).await
}

async fn connect_with(redis: &redis::Config, policy: ReconnectPolicy) -> Result<Client, CliError> {
    // INTEGRATE: replace by `redis::connect`, which also knows `redis.tls.{ca,cert,key}`.
    let failed = |error: fred::error::Error| CliError::failed(format!("failed to connect to `{}`", redis.url), error);
    let mut config = Config::from_url(&redis.url).map_err(failed)?;
    config.username = redis.username.clone();
    config.password = redis.password.as_ref().map(|password| password.expose().to_owned());
    // Only here does a PING on a subscribed connection have an answer of its own.
    config.version = RespVersion::RESP3;
    let client = Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = PATIENCE;
            connection.internal_command_timeout = PATIENCE;
            connection.max_command_attempts = 1;
        })
        .set_performance_config(PerformanceConfig { default_command_timeout: PATIENCE, ..Default::default() })
        .set_policy(policy)
        .build()
        .map_err(failed)?;
    match tokio::time::timeout(2 * PATIENCE, client.init()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(error)) => Err(failed(error)),
        Err(late) => Err(CliError::failed(format!("failed to connect to `{}`", redis.url), late)),
    }
}
