//! Redis Cluster: every node passes on every published message, so a subscriber needs one of them, and leaves it for another when
//! it is cut off from the cluster. Commands go to the node of their key, as a node that is not cut off names it.

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
    connection::{Connected, Watch, open},
    login::ConnectError,
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

/// A node to subscribe at.
pub(super) struct Node {
    config: Config,
    settings: RedisConfig,
    nodes: Vec<Server>,
    at: usize,
    /// It is asked for the state of the cluster here.
    connected: Connected,
}

/// Finds a node that sees its cluster whole; where there is none, one that answers.
pub(super) async fn find(config: &Config, settings: RedisConfig) -> Result<Node, ConnectError> {
    let nodes = settings.server.hosts();
    let (mut fallback, mut failure) = (None, None);
    for (at, node) in nodes.iter().enumerate() {
        match join(config, &settings, node).await {
            Ok((connected, State::Ok)) => {
                (fallback, failure) = (Some((at, connected)), None);
                break;
            }
            Ok((connected, State::Fail)) => fallback = fallback.or(Some((at, connected))),
            Err(error) => {
                let address = format!("{}:{}", node.host, node.port);
                failure = Some(ConnectError::Node { address, error: Box::new(error) });
            }
        }
    }
    match (fallback, failure) {
        (Some((at, connected)), _) => Ok(Node { config: config.clone(), settings, nodes, at, connected }),
        (None, failure) => Err(failure.unwrap_or(ConnectError::Address("names no node"))),
    }
}

/// Connects to the nodes of all keys. A node that sees its cluster whole is asked for them: one that is cut off names itself for keys that
/// another has taken over, and refuses them.
pub(super) async fn connect(config: &Config, mut settings: RedisConfig) -> Result<Connected, ConnectError> {
    let found = match find(config, settings.clone()).await {
        Ok(node) => node.nodes.into_iter().nth(node.at),
        // What is wrong with a cluster is what is wrong with its last node.
        Err(ConnectError::Node { error, .. }) => return Err(*error),
        Err(error) => return Err(error),
    };
    if let ServerConfig::Clustered { hosts, .. } = &mut settings.server {
        hosts.clear();
        hosts.extend(found);
    }
    open(config, settings).await
}

async fn join(config: &Config, settings: &RedisConfig, node: &Server) -> Result<(Connected, State), ConnectError> {
    let connected = open(config, RedisConfig { server: server_of(node), ..settings.clone() }).await?;
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

fn server_of(node: &Server) -> ServerConfig {
    ServerConfig::new_centralized(node.host.to_string(), node.port)
}

impl Node {
    /// Where it is, for a client.
    pub(super) fn server(&self) -> ServerConfig {
        server_of(&self.nodes[self.at])
    }

    /// Why it could not be subscribed at.
    pub(super) fn failed(&self, error: ConnectError) -> ConnectError {
        let node = &self.nodes[self.at];
        ConnectError::Node { address: format!("{}:{}", node.host, node.port), error: Box::new(error) }
    }

    /// Ends when it is cut off from the cluster, and another is not.
    pub(super) fn watch(self) -> Watch {
        Box::pin(self.until_cut_off())
    }

    async fn until_cut_off(self) -> Duration {
        let Self { config, settings, nodes, at: current, mut connected } = self;
        let mut whole_at = Instant::now();
        loop {
            sleep(ASK_INTERVAL).await;
            let asked_at = Instant::now();
            match state(&connected.client).await {
                Ok(State::Fail) => {}
                Ok(State::Ok) => {
                    whole_at = asked_at;
                    continue;
                }
                // The connection for this question is lost; the pings of the other decide whether the node is.
                Err(_) => {
                    if let Ok((again, _)) = join(&config, &settings, &nodes[current]).await {
                        connected = again;
                    }
                    continue;
                }
            }
            for (at, node) in nodes.iter().enumerate() {
                if at != current && matches!(join(&config, &settings, node).await, Ok((_, State::Ok))) {
                    let node = format!("{}:{}", node.host, node.port);
                    info!(node, "the node of the cluster that is listened to is cut off; listening to another");
                    return whole_at.elapsed() + NODE_TIMEOUT;
                }
            }
            sleep(SEEK_INTERVAL).await;
        }
    }
}
