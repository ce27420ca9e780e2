//! One connection, by what the address names: a server, the primary of sentinels, or a cluster.

use fred::types::config::ServerConfig;

use super::{
    cluster,
    config::Config,
    connection::{Connected, Role, open},
    login::{ConnectError, settings},
    sentinel,
};

/// Makes one connection, logged in and ready; one try. With Sentinel it is to the primary, and watched; a subscriber of a cluster is
/// connected to one node, because every node has every message.
///
/// # Errors
/// The step that failed.
pub async fn connect(config: &Config, role: Role) -> Result<Connected, ConnectError> {
    let settings = settings(config).await?;
    match (&settings.server, role) {
        (ServerConfig::Sentinel { .. }, _) => sentinel::connect(config, settings, role).await,
        (ServerConfig::Clustered { .. }, Role::Subscriber(_)) => cluster::connect(config, settings, role).await,
        _ => open(config, settings, role).await,
    }
}
