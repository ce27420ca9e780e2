//! Connects, encrypts where it is set so, and logs in with RESP3.

use std::io;

use fred::{
    error::{Error as RedisError, ErrorKind},
    socket2::SockRef,
    types::config::{Config as RedisConfig, ServerConfig},
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Stream, Subscription};
use crate::{
    reach::Channel,
    redis::{
        acl::Acl,
        cluster,
        config::Config,
        connection::{Watch, classify, keepalive},
        login::{self, CONNECT_TIMEOUT, ConnectError, plain_settings},
        probe::{diagnose, target},
        sentinel,
    },
};

/// A subscription, and what watches whether another server has taken over: with Sentinel, and of a cluster.
pub struct Opened {
    /// The connection.
    pub subscription: Subscription,
    /// Ends when another server has taken over.
    pub watch: Option<Watch>,
}

/// Makes one connection to subscribe with, logged in; one try. With Sentinel it is to the primary, of a cluster to one node, because
/// every node has every message.
///
/// # Errors
/// The step that failed.
pub async fn open_subscription(config: &Config) -> Result<Opened, ConnectError> {
    let settings = plain_settings(config).await?;
    match &settings.server {
        ServerConfig::Sentinel { .. } => {
            let primary = sentinel::find(config, &login::settings(config).await?).await?;
            let opened = open(config, RedisConfig { server: primary.server(), ..settings }).await;
            let mut subscription = opened.map_err(|error| primary.failed(error))?;
            let info = subscription.info("replication").await.map_err(|error| primary.failed(greeting(error)))?;
            primary.confirm(&info)?;
            Ok(Opened { subscription, watch: Some(primary.watch()) })
        }
        ServerConfig::Clustered { .. } => {
            let node = cluster::find(config, login::settings(config).await?).await?;
            let opened = open(config, RedisConfig { server: node.server(), ..settings }).await;
            let subscription = opened.map_err(|error| node.failed(error))?;
            Ok(Opened { subscription, watch: Some(node.watch()) })
        }
        _ => Ok(Opened { subscription: open(config, settings).await?, watch: None }),
    }
}

/// Connects to one server and logs in.
async fn open(config: &Config, settings: RedisConfig) -> Result<Subscription, ConnectError> {
    let acl = Acl::of(config);
    let stream = connect(config, &settings.server).await?;
    let mut subscription = Subscription::new(stream, acl);
    let user = settings.username.as_deref().unwrap_or("default");
    let greeted = match settings.password.as_deref() {
        Some(password) => subscription.ask(&["HELLO", "3", "AUTH", user, password]).await,
        None => subscription.ask(&["HELLO", "3"]).await,
    };
    let error = match greeted {
        Ok(Ok(_)) => return Ok(subscription),
        Ok(Err(error)) => classify(error, &subscription.acl),
        Err(error) => greeting(error),
    };
    Err(match error {
        ConnectError::Greeting(_) | ConnectError::Timeout => {
            diagnose(config, &settings.server).await.map_or(error, ConnectError::Unreachable)
        }
        error => error,
    })
}

fn greeting(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Greeting(RedisError::new(ErrorKind::IO, error.to_string())),
    }
}

async fn connect(config: &Config, server: &ServerConfig) -> Result<Box<dyn Stream>, ConnectError> {
    if let ServerConfig::Unix { path } = server {
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await.map_err(|_| ConnectError::Timeout)?;
        return match stream {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ConnectError::Socket { path: path.clone(), error }),
        };
    }
    let hosts = server.hosts();
    let server = hosts.first().ok_or(ConnectError::Address("names no host"))?;
    let server = target(config, server)?;
    let stream = server.connect().await.map_err(ConnectError::Unreachable)?;
    // Without it a broken connection is noticed by the pings all the same.
    let _ = keep_alive(&stream);
    Ok(match server.encrypt(stream).await.map_err(ConnectError::Unreachable)? {
        Channel::Plain(stream) => Box::new(stream),
        Channel::Tls(stream) => stream,
    })
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive())
}
