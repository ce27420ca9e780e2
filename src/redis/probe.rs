//! A plain connection before the client's. It fails with the reason, where the client only reports a time-out, and it avoids
//! building a client (11 MB of rings) ten times a second while Redis is down.

use fred::types::config::{Server as RedisServer, ServerConfig};
use tokio::{net::UnixStream, time::timeout};

use super::{
    address::parse,
    config::Config,
    login::{CONNECT_TIMEOUT, ConnectError},
};
use crate::{
    reach::{Fault, Protocol, Server},
    tls,
};

/// Why the server that the address names could not be talked to; `None` where it seems to be what it should be.
pub async fn fault(config: &Config) -> Option<ConnectError> {
    let servers = match parse(&config.url) {
        Ok(settings) => settings.server,
        Err(error) => return Some(ConnectError::Address(error)),
    };
    match probe_server(config, &servers).await {
        Err(error) => Some(error),
        Ok(()) => diagnose(config, &servers).await.map(ConnectError::Unreachable),
    }
}

/// Checks that one of these servers takes a connection and, with TLS, has a valid certificate.
///
/// # Errors
/// Why not.
pub(super) async fn probe_server(config: &Config, servers: &ServerConfig) -> Result<(), ConnectError> {
    if let ServerConfig::Unix { path } = servers {
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
        return stream
            .map_err(|_| ConnectError::Timeout)?
            .map(drop)
            .map_err(|error| ConnectError::Socket { path: path.clone(), error });
    }
    let mut probed = Err(ConnectError::Address("names no host"));
    for server in servers.hosts() {
        probed = target(config, &server)?.probe().await.map_err(ConnectError::Unreachable);
        if probed.is_ok() {
            break;
        }
    }
    probed
}

/// What a server is that took a connection and failed at the greeting, if it is not what it should be.
pub(super) async fn diagnose(config: &Config, servers: &ServerConfig) -> Option<Fault> {
    if matches!(servers, ServerConfig::Unix { .. }) {
        return None;
    }
    let server = servers.hosts().into_iter().next()?;
    target(config, &server).ok()?.diagnose().await
}

pub(super) fn target(config: &Config, server: &RedisServer) -> Result<Server, ConnectError> {
    let tls = config.uses_tls().then(|| tls::client_config(&config.tls)).transpose().map_err(ConnectError::Tls)?;
    let (host, port) = (server.host.to_string(), server.port);
    Ok(Server { protocol: Protocol::Redis, host, port, tls, limit: CONNECT_TIMEOUT })
}
