//! Where to connect and how to log in, and why that fails.

use std::{io, path::PathBuf, time::Duration};

use fred::{
    error::Error as RedisError,
    types::{
        RespVersion,
        config::{Config as RedisConfig, ServerConfig, TlsConfig, TlsConnector, TlsHostMapping},
    },
};

use tokio::task::JoinError;

use super::{acl::Refusal, address::parse, config::Config};
use crate::{
    backoff::{self, Backoff},
    reach::Fault,
    secret::{Secret, SecretFileError},
    tls::{self, TlsError},
};

/// How long a server may take to accept a connection, and to answer each step of the greeting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

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
    Unreachable(#[source] Fault),
    #[error("failed to read the password")]
    Stopping(#[source] JoinError),
    #[error("failed to reach Redis at the socket `{}`", .path.display())]
    Socket {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("Redis refuses the login ({0}); see `redis.username`, `redis.password_file`")]
    Login(String),
    #[error(transparent)]
    Forbidden(Refusal),
    #[error("Redis does not answer in time")]
    Timeout,
    #[error("failed to greet Redis (version 6 or newer is needed)")]
    Greeting(#[source] RedisError),
    #[error("failed to ask the sentinel at `{address}`")]
    Sentinel {
        address: String,
        #[source]
        error: Box<ConnectError>,
    },
    #[error("it refuses the login ({0}); see `sentinelUsername` and `sentinelPassword` in `redis.url`")]
    SentinelLogin(String),
    #[error("Sentinel knows no service `{0}`; see `sentinelServiceName` in `redis.url`, and `sentinel monitor`")]
    UnknownService(String),
    #[error("no connection to the primary `{address}` that Sentinel names")]
    Primary {
        address: String,
        #[source]
        error: Box<ConnectError>,
    },
    #[error("`{0}`, which Sentinel names as the primary, is a replica; a failover may be under way")]
    Replica(String),
    #[error("no connection to the node `{address}` of the cluster")]
    Node {
        address: String,
        #[source]
        error: Box<ConnectError>,
    },
    #[error("the server is not part of a cluster; let `redis.url` begin with redis://")]
    NoCluster,
}

impl ConnectError {
    /// When to try again. What an operator must repair is tried less often: it fills the server's log.
    pub fn retry_delay(&self, backoff: &mut Backoff) -> Duration {
        let delay = backoff.next_delay();
        match self {
            Self::Unreachable(fault) if !fault.is_transient => backoff::OPERATOR,
            Self::Unreachable(_) | Self::Socket { .. } | Self::Timeout | Self::Greeting(_) | Self::Replica(_) => delay,
            Self::Sentinel { error, .. } | Self::Primary { error, .. } | Self::Node { error, .. } => match **error {
                Self::Unreachable(ref fault) if fault.is_transient => delay,
                Self::Timeout | Self::Greeting(_) => delay,
                _ => backoff::OPERATOR,
            },
            _ => backoff::OPERATOR,
        }
    }
}

/// Where to connect and how to log in, as the client wants it.
///
/// # Errors
/// When the address, the password or the TLS files cannot be used.
pub async fn settings(config: &Config) -> Result<RedisConfig, ConnectError> {
    let mut settings = plain_settings(config).await?;
    settings.username = settings.username.map(|name| inline(&name));
    settings.password = settings.password.map(|password| inline(&password));
    if let ServerConfig::Sentinel { username, password, .. } = &mut settings.server {
        *username = username.take().map(|name| inline(&name));
        *password = password.take().map(|password| inline(&password));
    }
    if config.uses_tls() {
        let tls = tls::client_config(&config.tls).map_err(ConnectError::Tls)?;
        let connector = TlsConnector::from((*tls).clone());
        settings.tls = Some(TlsConfig { connector, hostnames: TlsHostMapping::None });
    }
    Ok(settings)
}

/// The same with names and passwords as they are, and without TLS, which a [`Server`](crate::reach::Server) sets up.
pub(super) async fn plain_settings(config: &Config) -> Result<RedisConfig, ConnectError> {
    let mut settings = parse(&config.url).map_err(ConnectError::Address)?;
    settings.version = RespVersion::RESP3;
    // A connection begins in database 0: no SELECT is sent for it, which the ACL user may not be allowed.
    settings.database = settings.database.filter(|database| *database != 0);
    settings.username = config.username.clone().or(settings.username);
    if let Some(password) = password(config).await? {
        settings.password = Some(password.expose().to_owned());
    }
    Ok(settings)
}

/// The client greets with an inline command, which Redis splits at spaces and quotes: whatever else than a plain character
/// is written as an escape within quotes.
fn inline(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return text.to_owned();
    }
    let escaped: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

/// Reads the password at each try, so that a corrected file needs no restart; on another thread, because a disk may be slow.
async fn password(config: &Config) -> Result<Option<Secret>, ConnectError> {
    let config = config.clone();
    let read = tokio::task::spawn_blocking(move || config.password()).await;
    // The thread is not run when the process is stopping.
    read.map_err(ConnectError::Stopping)?.map_err(ConnectError::PasswordFile)
}
