//! Redis Cluster: every node passes on every published message, so a subscriber needs one of them, and leaves it for another when
//! it is cut off from the cluster.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        CustomCommand,
        config::{Config as RedisConfig, Server, ServerConfig},
    },
};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    config::Config,
    connection::{Connected, Role, open},
    login::{ConnectError, settings},
    probe::probe_server,
};

/// How often the node is asked for the state of the cluster.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How often another node is sought while this one is cut off.
const SEEK_INTERVAL: Duration = Duration::from_secs(3);
/// A node knows this late that it is cut off: the server's default `cluster-node-timeout`.
const NODE_TIMEOUT: Duration = Duration::from_secs(15);

/// How a node sees its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Every slot is served, or the node may not be asked.
    Ok,
    /// The node is cut off from the others, or a slot is served by none.
    Fail,
}

/// Connects to a node that sees its cluster whole; where there is none, to one that answers.
pub(super) async fn connect(config: &Config, settings: RedisConfig, role: Role) -> Result<Connected, ConnectError> {
    let nodes = settings.server.hosts();
    let (mut fallback, mut failure) = (None, None);
    for (at, node) in nodes.iter().enumerate() {
        match join(config, &settings, node, role).await {
            Ok((connected, State::Ok)) => {
                let watch = until_cut_off(config.clone(), settings, connected.client.clone(), nodes.clone(), at);
                return Ok(connected.watched(Box::pin(watch)));
            }
            Ok((connected, State::Fail)) => fallback = fallback.or(Some((at, connected))),
            Err(error) => {
                let address = format!("{}:{}", node.host, node.port);
                failure = Some(ConnectError::Node { address, error: Box::new(error) });
            }
        }
    }
    match (fallback, failure) {
        (Some((at, connected)), _) => {
            let watch = until_cut_off(config.clone(), settings, connected.client.clone(), nodes, at);
            Ok(connected.watched(Box::pin(watch)))
        }
        (None, Some(failure)) => Err(failure),
        (None, None) => Err(ConnectError::Address("names no node")),
    }
}

/// The settings of a client that subscribes: in a cluster those of one node that takes a connection.
///
/// # Errors
/// As those of [`settings`](super::settings), or when no node takes a connection.
pub async fn subscriber_settings(config: &Config) -> Result<RedisConfig, ConnectError> {
    let settings = settings(config).await?;
    if !matches!(settings.server, ServerConfig::Clustered { .. }) {
        return Ok(settings);
    }
    let mut failure = ConnectError::Address("names no node");
    for node in settings.server.hosts() {
        let server = ServerConfig::new_centralized(node.host.to_string(), node.port);
        match probe_server(config, &server).await {
            Ok(()) => return Ok(RedisConfig { server, ..settings.clone() }),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn join(
    config: &Config,
    settings: &RedisConfig,
    node: &Server,
    role: Role,
) -> Result<(Connected, State), ConnectError> {
    let server = ServerConfig::new_centralized(node.host.to_string(), node.port);
    let connected = open(config, RedisConfig { server, ..settings.clone() }, role).await?;
    let state = state(&connected.client).await?;
    Ok((connected, state))
}

/// Asks for CLUSTER INFO.
async fn state(client: &Client) -> Result<State, ConnectError> {
    let command = CustomCommand::new_static("CLUSTER", None, false);
    match client.custom::<String, _>(command, vec!["INFO"]).await {
        Ok(info) if info.lines().any(|line| line.trim() == "cluster_state:fail") => Ok(State::Fail),
        Ok(_) => Ok(State::Ok),
        Err(error) if error.details().contains("cluster support disabled") => Err(ConnectError::NoCluster),
        // Forbidden.
        Err(error) if error.details().starts_with("NOPERM") => Ok(State::Ok),
        Err(error) => Err(ConnectError::Greeting(error)),
    }
}

/// Returns once this node is cut off from the cluster, and another is not.
async fn until_cut_off(
    config: Config,
    settings: RedisConfig,
    client: Client,
    nodes: Vec<Server>,
    current: usize,
) -> Duration {
    let mut whole_at = Instant::now();
    loop {
        sleep(ASK_INTERVAL).await;
        let asked_at = Instant::now();
        match state(&client).await {
            Ok(State::Fail) => {}
            Ok(State::Ok) => {
                whole_at = asked_at;
                continue;
            }
            // The pings of the connection decide whether it is lost.
            Err(_) => continue,
        }
        for (at, node) in nodes.iter().enumerate() {
            if at != current && matches!(join(&config, &settings, node, Role::Commands).await, Ok((_, State::Ok))) {
                let node = format!("{}:{}", node.host, node.port);
                info!(node, "the node of the cluster that is listened to is cut off; listening to another");
                return whole_at.elapsed() + NODE_TIMEOUT;
            }
        }
        sleep(SEEK_INTERVAL).await;
    }
}
