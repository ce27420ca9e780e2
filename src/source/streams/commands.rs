//! The commands about one stream, and why they fail.

use std::time::Duration;

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Options},
};

use super::reply::{Consumer, Entry, Snapshot, Unexpected, read_consumers, read_entries};
use crate::{
    event::EntryId,
    logging::Chain,
    redis::{Acl, ConnectError, Refusal, Resource},
};

/// How long a read waits for an entry: it also shows the other daemons that this consumer lives.
pub(super) const READ_BLOCK: Duration = Duration::from_secs(1);
/// How long its answer may take behind that.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a stream is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection is lost, or silent.
    #[error("the connection to Redis was lost")]
    Lost(#[source] RedisError),
    /// The stream or its group is gone: they are made again.
    #[error("the stream or its consumer group is gone ({0})")]
    Gone(String),
    /// The ACL forbids a command or the key.
    #[error(transparent)]
    Refused(Refusal),
    /// The key is of another type.
    #[error("the key `{0}` is no stream: delete or rename it, or correct `redis.streams`")]
    WrongType(String),
    /// Any other answer.
    #[error("{0}")]
    Answer(String),
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

/// The commands about one stream, over one connection.
#[derive(Clone)]
pub(super) struct Commands {
    pub(super) client: Client,
    pub(super) acl: Acl,
    pub(super) key: String,
    pub(super) group: String,
    pub(super) consumer: String,
    /// Where the daemons of the group keep what they have reported.
    pub(super) notes: String,
    /// Where former versions kept it.
    pub(super) former_notes: String,
}

impl Commands {
    pub(super) async fn send(&self, command: &'static str, arguments: Vec<String>) -> Result<Value, Trouble> {
        self.send_about(&self.key, command, arguments).await
    }

    pub(super) async fn send_about(
        &self,
        key: &str,
        command: &'static str,
        arguments: Vec<String>,
    ) -> Result<Value, Trouble> {
        let command = CustomCommand::new_static(command, ClusterHash::from(key), false);
        self.client.custom(command, arguments).await.map_err(|error| self.trouble(error))
    }

    pub(super) fn trouble(&self, error: RedisError) -> Trouble {
        let words = error.details();
        if words.starts_with("NOGROUP") || words.starts_with("UNBLOCKED") {
            return Trouble::Gone(words.to_owned());
        }
        if words.starts_with("WRONGTYPE") {
            return Trouble::WrongType(self.key.clone());
        }
        if let Some(refusal) = self.acl.refusal(words, Resource::Key(&self.key)) {
            return Trouble::Refused(refusal);
        }
        let kind = error.kind();
        if matches!(kind, ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled) || !self.client.is_connected() {
            return Trouble::Lost(error);
        }
        Trouble::Answer(self.acl.explain(&error, Resource::Key(&self.key)))
    }

    /// Entries that no consumer has read. When there are none, waits for one, if it is to wait.
    pub(super) async fn read_new(&self, count: usize, wait: bool) -> Result<Vec<Entry>, Trouble> {
        let (count, block) = (count.to_string(), READ_BLOCK.as_millis().to_string());
        let block: &[&str] = if wait { &["BLOCK", &block] } else { &[] };
        let head = ["GROUP", &self.group, &self.consumer, "COUNT", &count];
        let arguments: Vec<_> = [&head[..], block, &["STREAMS", &self.key, ">"]].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let command = CustomCommand::new_static("XREADGROUP", ClusterHash::from(self.key.as_str()), true);
        let options = Options { timeout: Some(READ_BLOCK + ANSWER_TIMEOUT), ..Options::default() };
        let reply: Result<Value, RedisError> = self.client.with_options(&options).custom(command, arguments).await;
        Ok(read_entries(&reply.map_err(|error| self.trouble(error))?)?)
    }

    /// Entries that this consumer has read before and not acknowledged, behind `after`.
    pub(super) async fn read_own(&self, after: EntryId, count: usize) -> Result<Vec<Entry>, Trouble> {
        let (count, after) = (count.to_string(), after.to_string());
        let arguments = ["GROUP", &self.group, &self.consumer, "COUNT", &count, "STREAMS", &self.key, &after];
        Ok(read_entries(&self.send("XREADGROUP", arguments.map(str::to_owned).to_vec()).await?)?)
    }

    /// Makes the group, from the beginning of the stream, and the stream. Returns whether they were not there.
    pub(super) async fn create_group(&self) -> Result<bool, Trouble> {
        let arguments = ["CREATE", &self.key, &self.group, "0", "MKSTREAM"].map(str::to_owned);
        // From Redis 7 on the server then counts exactly what the group reads.
        let counting = [&arguments[..], &["ENTRIESREAD".to_owned(), "0".to_owned()]].concat();
        let mut created = self.send("XGROUP", counting).await;
        if matches!(&created, Err(Trouble::Answer(words)) if !words.contains("BUSYGROUP")) {
            created = self.send("XGROUP", arguments.to_vec()).await;
        }
        match created {
            Ok(_) => Ok(true),
            Err(Trouble::Answer(words)) if words.contains("BUSYGROUP") => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// The consumers of the group.
    pub(super) async fn consumers(&self) -> Result<Vec<Consumer>, Trouble> {
        let arguments = ["CONSUMERS", &self.key, &self.group].map(str::to_owned).to_vec();
        Ok(read_consumers(&self.send("XINFO", arguments).await?)?)
    }

    /// Removes a consumer that has no entries. If it has read some meanwhile, the group is set back to before them: they are read
    /// once more rather than lost. Returns whether it was removed.
    pub(super) async fn remove_consumer(&self, name: &str, before: &Snapshot) -> Result<bool, Trouble> {
        let arguments = ["DELCONSUMER", &self.key, &self.group, name].map(str::to_owned).to_vec();
        let dropped = self.send("XGROUP", arguments).await?.as_u64().unwrap_or(0);
        if dropped > 0
            && let Some(group) = &before.group
        {
            let mut arguments = vec!["SETID".to_owned(), self.key.clone(), self.group.clone()];
            arguments.push(group.last_delivered.to_string());
            if let Some(read) = group.read {
                arguments.extend(["ENTRIESREAD".to_owned(), read.to_string()]);
            }
            self.send("XGROUP", arguments).await?;
        }
        Ok(true)
    }
}

impl Trouble {
    /// The text for people.
    pub(super) fn text(&self) -> String {
        Chain(self).to_string()
    }
}
