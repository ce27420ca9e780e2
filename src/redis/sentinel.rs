//! The primary that Sentinel names.
//!
//! All sentinels are asked, and the answer of the newest configuration counts: one that is cut off from the others names the former
//! primary. They are asked again every second, because a former primary that is cut off keeps its connections, and publishers have
//! gone elsewhere.

use std::{collections::HashMap, time::Duration};

use fred::{
    error::Error as RedisError,
    interfaces::ClientLike,
    types::{
        CustomCommand, InfoKind,
        config::{Config as RedisConfig, Server, ServerConfig},
    },
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    config::Config,
    connection::{Connected, Watch, open},
    login::ConnectError,
};

/// How often the sentinels are asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What a sentinel says: the primary's address, and the version of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Primary {
    server: Server,
    epoch: u64,
}

/// The primary that the sentinels name.
pub(super) struct Named {
    sentinels: Sentinels,
    primary: Primary,
}

/// The sentinels of a service, with their connections.
struct Sentinels {
    config: Config,
    settings: RedisConfig,
    service: String,
    sentinels: Vec<(Server, Option<Connected>)>,
}

/// Connects to the primary, and watches who is it.
pub(super) async fn connect(config: &Config, settings: RedisConfig) -> Result<Connected, ConnectError> {
    let primary = find(config, &settings).await?;
    let server = primary.server();
    let connected = open(config, RedisConfig { server, ..settings }).await.map_err(|error| primary.failed(error))?;
    // Where INFO is forbidden the sentinels' word counts.
    let info = connected.client.info::<String>(Some(InfoKind::Replication)).await.unwrap_or_default();
    primary.confirm(&info)?;
    Ok(connected.watched(primary.watch()))
}

/// Asks the sentinels for the primary.
pub(super) async fn find(config: &Config, settings: &RedisConfig) -> Result<Named, ConnectError> {
    let mut sentinels = Sentinels::new(config, settings)?;
    let primary = sentinels.primary().await?;
    Ok(Named { sentinels, primary })
}

impl Named {
    /// Where it is, for a client.
    pub(super) fn server(&self) -> ServerConfig {
        ServerConfig::new_centralized(self.primary.server.host.to_string(), self.primary.server.port)
    }

    fn address(&self) -> String {
        let Server { host, port, .. } = &self.primary.server;
        format!("{host}:{port}")
    }

    /// Why it could not be connected to.
    pub(super) fn failed(&self, error: ConnectError) -> ConnectError {
        ConnectError::Primary { address: self.address(), error: Box::new(error) }
    }

    /// Checks what the server itself says it is (INFO replication).
    pub(super) fn confirm(&self, info: &str) -> Result<(), ConnectError> {
        if info.lines().any(|line| line.trim() == "role:slave") {
            return Err(ConnectError::Replica(self.address()));
        }
        Ok(())
    }

    /// Ends when the sentinels name another.
    pub(super) fn watch(self) -> Watch {
        Box::pin(self.sentinels.until_moved(self.primary))
    }
}

impl Sentinels {
    fn new(config: &Config, settings: &RedisConfig) -> Result<Self, ConnectError> {
        let ServerConfig::Sentinel { hosts, service_name, username, password } = &settings.server else {
            return Err(ConnectError::Address("names no sentinel"));
        };
        Ok(Self {
            config: config.clone(),
            settings: RedisConfig {
                username: username.clone(),
                password: password.clone(),
                database: None,
                ..settings.clone()
            },
            service: service_name.clone(),
            sentinels: hosts.iter().map(|host| (host.clone(), None)).collect(),
        })
    }

    /// The primary by the newest configuration that a sentinel knows.
    async fn primary(&mut self) -> Result<Primary, ConnectError> {
        let Self { config, settings, service, sentinels } = self;
        let asked = sentinels.iter_mut().map(|(server, connection)| {
            let server_config = ServerConfig::new_centralized(server.host.to_string(), server.port);
            ask(config, RedisConfig { server: server_config, ..settings.clone() }, service, connection)
        });
        let answers = join_all(asked).await;
        let (mut best, mut failure): (Option<Primary>, _) = (None, None);
        for ((server, _), answer) in sentinels.iter().zip(answers) {
            match answer {
                Ok(primary) if best.as_ref().is_none_or(|best| primary.epoch > best.epoch) => best = Some(primary),
                Ok(_) => {}
                Err(error) => failure = Some((format!("{}:{}", server.host, server.port), error)),
            }
        }
        best.ok_or_else(|| match failure {
            Some((address, error)) => ConnectError::Sentinel { address, error: Box::new(error) },
            None => ConnectError::Address("names no sentinel"),
        })
    }

    /// Returns once the sentinels name another primary.
    async fn until_moved(mut self, current: Primary) -> Duration {
        let mut agreed_at = Instant::now();
        let mut silent = false;
        loop {
            sleep(ASK_INTERVAL).await;
            let asked_at = Instant::now();
            match self.primary().await {
                Ok(primary) if primary.server == current.server => (agreed_at, silent) = (asked_at, false),
                // A sentinel that was cut off during a failover names the former primary, under the former number.
                Ok(primary) if primary.epoch < current.epoch => {}
                Ok(primary) => {
                    let Server { host, port, .. } = primary.server;
                    info!(former = %current.server, primary = %format!("{host}:{port}"), "Sentinel names another primary");
                    return agreed_at.elapsed();
                }
                Err(error) if !silent => {
                    silent = true;
                    warn!(error = %crate::logging::Chain(&error), "no sentinel answers: a failover would not be noticed");
                }
                Err(_) => {}
            }
        }
    }
}

/// Asks one sentinel, on the connection that it has, or on a new one.
async fn ask(
    config: &Config,
    settings: RedisConfig,
    service: &str,
    connection: &mut Option<Connected>,
) -> Result<Primary, ConnectError> {
    let connected = match connection.take() {
        Some(connected) => connected,
        None => open(config, settings).await.map_err(|error| match error {
            ConnectError::Login(words) => ConnectError::SentinelLogin(words),
            error => error,
        })?,
    };
    let command = CustomCommand::new_static("SENTINEL", None, false);
    let answer: Result<HashMap<String, String>, RedisError> =
        connected.client.custom(command, vec!["MASTER".to_owned(), service.to_owned()]).await;
    let fields = match answer {
        Ok(fields) => fields,
        Err(error) if error.details().contains("No such master") => {
            *connection = Some(connected);
            return Err(ConnectError::UnknownService(service.to_owned()));
        }
        Err(error) => return Err(ConnectError::Greeting(error)),
    };
    *connection = Some(connected);
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    match (field("ip"), field("port").parse()) {
        (host, Ok(port)) if !host.is_empty() => {
            Ok(Primary { server: Server::new(host, port), epoch: field("config-epoch").parse().unwrap_or(0) })
        }
        _ => Err(ConnectError::UnknownService(service.to_owned())),
    }
}
