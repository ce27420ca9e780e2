//! One connection, by what the address names: a server, the primary of sentinels, or a cluster.

use fred::types::config::ServerConfig;

use super::{
    cluster,
    config::Config,
    connection::{Connected, open},
    login::{ConnectError, settings},
    sentinel,
};

/// Makes one connection for commands, logged in and ready; one try. With Sentinel it is to the primary, and watched; of a cluster, to
/// each key's node.
///
/// # Errors
/// The step that failed.
pub async fn connect(config: &Config) -> Result<Connected, ConnectError> {
    let settings = settings(config).await?;
    match &settings.server {
        ServerConfig::Sentinel { .. } => sentinel::connect(config, settings).await,
        ServerConfig::Clustered { .. } => cluster::connect(config, settings).await,
        _ => open(config, settings).await,
    }
}
