//! The control channel of a trainer, which sends no receipts.

use fred::{
    clients::Client,
    interfaces::EventInterface,
    types::{Message, config::Server},
};
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    cli::{
        CliError,
        connect::{self, subscribe_for_long},
    },
    logging::Chain,
    redis::{self, Acl},
};

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
    client: Client,
    redis: redis::Config,
    messages: Receiver<Message>,
    reconnects: Receiver<Server>,
}

impl Commands {
    /// Subscribes to every control channel.
    pub async fn listen(redis: &redis::Config) -> Result<Self, CliError> {
        let client = subscribe_for_long(redis).await?;
        let commands =
            Self { messages: client.message_rx(), reconnects: client.reconnect_rx(), client, redis: redis.clone() };
        commands.subscribe().await?;
        Ok(commands)
    }

    async fn subscribe(&self) -> Result<(), CliError> {
        for channel in &self.redis.control_channels {
            connect::subscribe(&self.client, &self.redis, channel).await?;
        }
        Ok(())
    }

    /// The permissions of this connection's user, for error messages.
    pub fn acl(&self) -> Acl {
        Acl::of(&self.redis)
    }

    /// The next command for trainers. Safe to drop and call again.
    pub async fn next(&mut self) -> Command {
        loop {
            tokio::select! {
                message = self.messages.recv() => match message {
                    Ok(message) => {
                        if let Some(command) = parse(message.value.as_bytes().unwrap_or_default()) {
                            return command;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    // The client ends only with the program.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                Ok(_) = self.reconnects.recv() => {
                    if let Err(error) = self.subscribe().await {
                        tracing::warn!(error = %Chain(&error), "failed to subscribe to control again");
                    }
                }
            }
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
