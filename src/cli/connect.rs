//! A connection to Redis for a command of a person: short time-outs.

use std::time::Duration;

use fred::{
    clients::Client,
    error::ErrorKind,
    interfaces::ClientLike,
    types::{
        Builder, RespVersion,
        config::{Config, PerformanceConfig, ReconnectPolicy, TlsConfig, TlsConnector, TlsHostMapping},
    },
};

use super::CliError;
use crate::{redis, tls};

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
    let failed = |error: fred::error::Error| CliError::failed(format!("failed to connect to `{}`", redis.url), error);
    // Certificates are read by us, from the files that the configuration names.
    let mut config = Config::from_url(&redis.url.replacen("rediss://", "redis://", 1)).map_err(failed)?;
    if redis.url.starts_with("rediss://") || redis.tls.is_set() {
        let tls =
            tls::client_config(&redis.tls).map_err(|error| CliError::failed("failed to set up TLS to Redis", error))?;
        let connector = TlsConnector::from((*tls).clone());
        config.tls = Some(TlsConfig { connector, hostnames: TlsHostMapping::None });
    }
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
        Ok(Err(error)) if !matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout) => Err(failed(error)),
        // The client's words are those of a programmer.
        _ => Err(CliError::No(format!(
            "Redis does not answer at `{}`: is it running, and is `redis.url` right?",
            redis.url
        ))),
    }
}
