//! Subscriptions that are confirmed.
//!
//! SUBSCRIBE is answered by a push that the client library drops, or by an error that it hands to the next command in flight, or
//! drops when there is none. So each one is followed by CLIENT INFO on the same connection: one subscription more is the proof.
//! Where that command is forbidden or unknown, a probe on a connection of its own finds out whether Redis refuses the
//! subscription. A refusal may leave a stray reply behind, which would shift all later ones: after one, the connection is used
//! again only when it answers in step.

use std::time::Duration;

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::{ClientInterface, ClientLike, PubsubInterface},
    types::{CustomCommand, Value},
};
use tokio::time::sleep;

use super::{
    acl::{Acl, Refusal, Resource},
    config::Config,
    connect::connect,
    connection::Role,
    link::answers,
    login::ConnectError,
    pattern::is_pattern,
};

/// Why it is not known whether a subscription is in force.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The connection does not answer as it should.
    #[error("failed to subscribe")]
    Failed(#[source] RedisError),
    /// After a refusal the replies cannot be brought in step again.
    #[error("Redis refuses what must follow a subscription that it refused: {0}")]
    Forbidden(Refusal),
    /// The connection of the probe.
    #[error("failed to probe a subscription")]
    Probe(#[source] ConnectError),
}

/// Subscribes to one channel and waits until Redis confirms it. `Some`: the refusal, with the rule that would allow it.
///
/// # Errors
/// When that is unknown.
pub async fn subscribe(client: &Client, channel: &str, config: &Config) -> Result<Option<Refusal>, SubscribeError> {
    let acl = &Acl::of(config);
    let before = match subscriptions(client).await {
        Ok(before) => before,
        Err(error) if !error.details().is_empty() && client.is_connected() => {
            return subscribe_unconfirmed(client, channel, config).await;
        }
        Err(error) => return Err(SubscribeError::Failed(error)),
    };
    let (sent, after) = tokio::join!(send_subscribe(client, channel), subscriptions(client));
    sent.map_err(SubscribeError::Failed)?;
    let refused = refusal(after.map(|after| after > before), channel, acl)?;
    if refused.is_some() {
        resync_replies(client, acl).await?;
    }
    Ok(refused)
}

/// Where CLIENT INFO is forbidden or unknown: a separate connection checks whether Redis allows the subscription.
async fn subscribe_unconfirmed(
    client: &Client,
    channel: &str,
    config: &Config,
) -> Result<Option<Refusal>, SubscribeError> {
    if let Some(refusal) = probe(channel, config).await? {
        return Ok(Some(refusal));
    }
    let (sent, answered) = tokio::join!(send_subscribe(client, channel), answers(client));
    sent.map_err(SubscribeError::Failed)?;
    if answered {
        return Ok(None);
    }
    Err(SubscribeError::Failed(RedisError::new(ErrorKind::Timeout, "Redis does not answer behind a subscription")))
}

/// Sends the command as one whose reply is waited for. When Redis takes it there is none, and the reply to the PING behind it
/// comes in its place: good for one question only, because every later reply would be shifted as well.
async fn probe(channel: &str, config: &Config) -> Result<Option<Refusal>, SubscribeError> {
    let connected = connect(config, Role::Subscriber(1)).await.map_err(SubscribeError::Probe)?;
    let client = &connected.client;
    let command = CustomCommand::new(command_for(channel).to_ascii_uppercase(), None, false);
    let behind = async {
        let _ = client.ping::<Value>(None).await;
        std::future::pending::<()>().await
    };
    let answer = tokio::select! {
        biased;
        answer = client.custom::<Value, _>(command, vec![channel.to_owned()]) => answer,
        () = behind => return Ok(None),
    };
    let Err(error) = answer else { return Ok(None) };
    match Acl::of(config).refusal(error.details(), Resource::Channel(channel)) {
        // The refusal of the PING, which is behind.
        Some(refusal) if refusal.rule == "+ping" => Ok(None),
        Some(refusal) => Ok(Some(refusal)),
        None => Err(SubscribeError::Failed(error)),
    }
}

fn command_for(channel: &str) -> &'static str {
    if is_pattern(channel) { "psubscribe" } else { "subscribe" }
}

/// Waits until stray replies are gone: a reply that no command waits for is dropped. A ping that gets its own text
/// back has none before it.
async fn resync_replies(client: &Client, acl: &Acl) -> Result<(), SubscribeError> {
    for n in 0..10 {
        sleep(Duration::from_millis(1 << n.min(5))).await;
        let text = format!("in step {n}");
        let answer = client.ping::<String>(Some(text.clone())).await;
        forbidden_ping(&answer, acl)?;
        match answer {
            Ok(answer) if answer == text => return Ok(()),
            // Any other answer, error or not, belongs to another command.
            _ if client.is_connected() => {}
            Ok(_) => break,
            Err(error) => return Err(SubscribeError::Failed(error)),
        }
    }
    Err(SubscribeError::Failed(RedisError::new(ErrorKind::Protocol, "the answers are out of step")))
}

/// Where PING is forbidden its reply is the same error each time, and proves nothing.
fn forbidden_ping(answer: &Result<String, RedisError>, acl: &Acl) -> Result<(), SubscribeError> {
    let refusal = answer.as_ref().err().and_then(|error| acl.refusal(error.details(), Resource::None));
    match refusal {
        Some(refusal) if refusal.rule == "+ping" => Err(SubscribeError::Forbidden(refusal)),
        _ => Ok(()),
    }
}

fn refusal(confirmed: Result<bool, RedisError>, channel: &str, acl: &Acl) -> Result<Option<Refusal>, SubscribeError> {
    match confirmed {
        Ok(true) => Ok(None),
        // The error came when no command was in flight, and was dropped.
        Ok(false) => Ok(Some(acl.unnamed_refusal(command_for(channel), channel))),
        Err(error) => match acl.refusal(error.details(), Resource::Channel(channel)) {
            Some(refusal) => Ok(Some(refusal)),
            None => Err(SubscribeError::Failed(error)),
        },
    }
}

async fn send_subscribe(client: &Client, channel: &str) -> Result<(), RedisError> {
    if is_pattern(channel) { client.psubscribe(channel).await } else { client.subscribe(channel).await }
}

/// How many subscriptions Redis says this connection has.
async fn subscriptions(client: &Client) -> Result<u64, RedisError> {
    let info = client.client_info::<String>().await?;
    let count = |name: &str| {
        let value = info.split_ascii_whitespace().find_map(|field| field.strip_prefix(name));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    count("sub=")
        .zip(count("psub="))
        .map(|(plain, patterns)| plain + patterns)
        .ok_or_else(|| RedisError::new(ErrorKind::Protocol, "CLIENT INFO tells no subscriptions"))
}
