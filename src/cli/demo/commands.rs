//! The control channel of a trainer, which sends no receipts.

use std::{pin::Pin, time::Duration};

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    cli::{CliError, connect},
    logging::Chain,
    memory::LARGE_VALUE,
    redis::{self, Acl, Opened},
};

/// How long after a lost connection another is tried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Commands that a trainer obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Pause,
    Resume,
    Reset,
    Stop,
}

/// The subscription, on a connection of its own.
pub struct Commands {
    redis: redis::Config,
    connection: Connection,
}

/// The connection of a subscription, which is made again when it is lost.
enum Connection {
    Open(Opened),
    /// Kept while it is waited for: [`Commands::next`] is dropped and called again many times a second.
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
}

impl Commands {
    /// Subscribes to every control channel.
    pub async fn listen(redis: &redis::Config) -> Result<Self, CliError> {
        let opened = connect::subscribe(redis, &redis.control_channels).await?;
        Ok(Self { redis: redis.clone(), connection: Connection::Open(opened) })
    }

    /// The permissions of this connection's user, for error messages.
    pub fn acl(&self) -> Acl {
        Acl::of(&self.redis)
    }

    /// The next command for trainers. Safe to drop and call again.
    pub async fn next(&mut self) -> Command {
        loop {
            let opened = match &mut self.connection {
                Connection::Open(opened) => opened,
                Connection::Opening(opening) => {
                    self.connection = Connection::Open(opening.await);
                    continue;
                }
            };
            tokio::select! {
                message = opened.subscription.next_message(LARGE_VALUE) => match message {
                    Ok((_, payload)) => {
                        if let Some(command) = parse(&payload) {
                            return command;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "lost the connection for commands");
                        self.connection = Connection::Opening(Box::pin(subscribe_again(self.redis.clone())));
                    }
                },
                _ = redis::moved_away(&mut opened.watch) => self.connection = Connection::Opening(Box::pin(subscribe_again(self.redis.clone()))),
            }
        }
    }
}

async fn subscribe_again(redis: redis::Config) -> Opened {
    loop {
        sleep(RETRY_DELAY).await;
        match connect::subscribe(&redis, &redis.control_channels).await {
            Ok(opened) => return opened,
            Err(error) => tracing::warn!(error = %Chain(&error), "failed to subscribe to control again"),
        }
    }
}

/// A command for trainers, in any form of the message.
fn parse(payload: &[u8]) -> Option<Command> {
    let message = match payload.first()? {
        0x80..=0x8f | 0xde | 0xdf => rmp_serde::from_slice::<Value>(payload).ok()?,
        _ => serde_json::from_slice(payload).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(payload).trim())),
    };
    let data = message.get("data");
    let field = |name: &str| message.get(name).or_else(|| data?.get(name)).and_then(Value::as_str);
    if field("target").is_some_and(|target| target != "trainer") {
        return None;
    }
    match field("command").or(message.as_str())? {
        "pause" => Some(Command::Pause),
        "resume" => Some(Command::Resume),
        "reset" => Some(Command::Reset),
        "stop" => Some(Command::Stop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_in_every_form() {
        let packed = rmp_serde::to_vec_named(&serde_json::json!({"command": "resume"})).unwrap();
        for (payload, command) in [
            (&b"pause"[..], Some(Command::Pause)),
            (b" stop\n", Some(Command::Stop)),
            (br#"{"command": "reset", "id": "1"}"#, Some(Command::Reset)),
            (br#"{"type": "command", "data": {"command": "pause", "params": {}}}"#, Some(Command::Pause)),
            (br#"{"command": "pause", "target": "trainer"}"#, Some(Command::Pause)),
            (br#"{"command": "pause", "target": "ingest"}"#, None),
            (br#"{"command": "flush"}"#, None),
            (br#"{"command": 5}"#, None),
            (b"", None),
            (b"\xff\xfe", None),
            (&packed, Some(Command::Resume)),
        ] {
            assert_eq!(parse(payload), command, "{}", String::from_utf8_lossy(payload));
        }
    }
}
