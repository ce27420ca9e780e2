//! Where the demo publishes: a channel or a stream.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, Pipeline},
    error::Error as RedisError,
    interfaces::{ClientLike, PubsubInterface},
    types::{ClusterHash, CustomCommand, Value},
};

use super::Args;
use crate::{
    cli::{CliError, connect::plain_channel},
    logging::Chain,
    redis::{self, Acl, Resource},
};

/// Pause before a burst that Redis did not accept is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A channel or a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Each message is published.
    Channel(String),
    /// Each message is the field `data` of an entry. The stream is not trimmed.
    Stream(String),
}

impl Target {
    /// Which one the arguments or the settings name.
    ///
    /// # Errors
    /// When they name none.
    pub fn of(args: &Args, redis: &redis::Config) -> Result<Self, CliError> {
        match (&args.stream, &args.channel) {
            (Some(Some(stream)), _) => Ok(Self::Stream(stream.clone())),
            (Some(None), _) => {
                let none = "`redis.streams` names no stream, so no daemon would read it; use --stream NAME";
                redis.streams.first().cloned().map(Self::Stream).ok_or_else(|| CliError::Usage(none.into()))
            }
            (None, Some(channel)) => Ok(Self::Channel(channel.clone())),
            (None, None) => plain_channel(&redis.training_channels, "redis.training_channels", "--channel or --stream")
                .map(|channel| Self::Channel(channel.to_owned())),
        }
    }

    /// `channel` or `stream`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::Stream(_) => "stream",
        }
    }

    /// Its name in Redis.
    pub fn name(&self) -> &str {
        match self {
            Self::Channel(name) | Self::Stream(name) => name,
        }
    }

    /// Why no daemon takes what is sent there, and what to do; `None`: the group of the daemons is there, or it is not known.
    pub async fn unread(&self, client: &Client, redis: &redis::Config) -> Option<String> {
        let Self::Stream(name) = self else { return None };
        let command = CustomCommand::new_static("XINFO", ClusterHash::from(name.as_str()), false);
        let groups = match client.custom::<Value, _>(command, vec!["GROUPS".to_owned(), name.clone()]).await {
            Ok(groups) => group_names(&groups),
            Err(error) if error.details().contains("no such key") => Vec::new(),
            // It may not be asked.
            Err(_) => return None,
        };
        unread(name, &redis.group, &groups)
    }

    fn resource(&self) -> Resource<'_> {
        match self {
            Self::Channel(name) => Resource::Channel(name),
            Self::Stream(name) => Resource::Key(name),
        }
    }

    /// Sends a burst in one pipeline, and repeats it until Redis accepts it: a repeated message is one row. Returns the number of
    /// messages.
    ///
    /// # Errors
    /// When the ACL forbids it or the key is no stream, which a retry does not change.
    pub async fn send(
        &self,
        client: &Client,
        burst: &[Bytes],
        acl: &Acl,
        interrupted: &AtomicBool,
    ) -> Result<u64, CliError> {
        loop {
            match self.try_send(client, burst).await {
                Ok(()) => return Ok(burst.len() as u64),
                Err(error) => {
                    let what = || format!("failed to publish on `{}`", self.name());
                    if let Some(refusal) = acl.refusal(error.details(), self.resource()) {
                        return Err(CliError::failed(what(), refusal));
                    }
                    if error.details().starts_with("WRONGTYPE") {
                        return Err(CliError::failed(what(), error));
                    }
                    tracing::warn!(error = %Chain(&error), "failed to publish; trying again");
                }
            }
            if interrupted.load(Ordering::Relaxed) {
                return Ok(0);
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn try_send(&self, client: &Client, burst: &[Bytes]) -> Result<(), RedisError> {
        let pipeline = client.pipeline();
        for message in burst {
            self.add(&pipeline, message.clone()).await?;
        }
        pipeline.all::<Vec<Value>>().await.map(drop)
    }

    async fn add(&self, pipeline: &Pipeline<Client>, message: Bytes) -> Result<(), RedisError> {
        match self {
            Self::Channel(name) => pipeline.publish(name.as_str(), message).await,
            Self::Stream(name) => {
                let command = CustomCommand::new_static("XADD", ClusterHash::FirstKey, false);
                let words = [name.as_str(), "*", "data"].map(Value::from);
                pipeline.custom(command, [&words[..], &[Value::Bytes(message)]].concat()).await
            }
        }
    }
}

/// The names in the answer of XINFO GROUPS.
fn group_names(groups: &Value) -> Vec<String> {
    let name = |group: &Value| match group {
        Value::Map(group) => group.get(&"name".into()).and_then(Value::as_string),
        Value::Array(group) => {
            let mut fields = group.chunks_exact(2);
            fields.find(|pair| pair[0].as_str().as_deref() == Some("name")).and_then(|pair| pair[1].as_string())
        }
        _ => None,
    };
    match groups {
        Value::Array(groups) => groups.iter().filter_map(name).collect(),
        _ => Vec::new(),
    }
}

fn unread(stream: &str, group: &str, groups: &[String]) -> Option<String> {
    if groups.iter().any(|name| name == group) {
        return None;
    }
    let others: Vec<_> = groups.iter().map(|name| format!("`{name}`")).collect();
    let has = match others.is_empty() {
        true => "it has no consumer group".to_owned(),
        false => format!("it has no group `{group}` (`redis.group`), only {}", others.join(", ")),
    };
    Some(format!(
        "no daemon reads the stream `{stream}`: {has}. What is appended waits there for one: \
         cascor-ingest run --set 'redis.streams=[\"{stream}\"]'"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn target(words: &[&str], streams: &[&str]) -> Result<Target, CliError> {
        let streams = streams.iter().map(|stream| (*stream).to_owned()).collect();
        let line = Line::try_parse_from([&["demo"], words].concat()).unwrap();
        Target::of(&line.args, &redis::Config { streams, ..redis::Config::default() })
    }

    #[test]
    fn a_stream_is_used_only_when_it_is_asked_for() {
        let configured = ["cascor:training:stream", "another"];
        for (words, expected) in [
            (&[][..], Target::Channel("cascor:training".into())),
            (&["--channel", "a"], Target::Channel("a".into())),
            (&["--stream"], Target::Stream("cascor:training:stream".into())),
            (&["--stream", "--rate", "5"], Target::Stream("cascor:training:stream".into())),
            (&["--stream", "b"], Target::Stream("b".into())),
        ] {
            assert_eq!(target(words, &configured).unwrap(), expected, "{words:?}");
        }
        let refused = target(&["--stream"], &[]).unwrap_err().to_string();
        assert!(refused.contains("`redis.streams`") && refused.contains("--stream NAME"), "{refused}");
        assert!(Line::try_parse_from(["demo", "--stream", "--channel", "a"]).is_err());
    }

    #[test]
    fn a_stream_that_no_daemon_reads_is_told_with_the_command_that_reads_it() {
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(unread("s", "ours", &groups(&["other", "ours"])), None);
        let none = unread("s", "ours", &[]).unwrap();
        assert!(none.starts_with("no daemon reads the stream `s`: it has no consumer group. "), "{none}");
        assert!(none.ends_with("cascor-ingest run --set 'redis.streams=[\"s\"]'"), "{none}");
        let others = unread("s", "ours", &groups(&["a", "b"])).unwrap();
        assert!(others.contains("no group `ours` (`redis.group`), only `a`, `b`."), "{others}");
    }
}
