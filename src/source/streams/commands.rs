//! The commands about one stream, and why they fail.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use tokio::time::Instant;

use super::reply::{Entry, GroupConsumer, Snapshot, UnexpectedReply, read_connection_id, read_consumers, read_entries};
use crate::{
    event::EntryId,
    logging::Chain,
    redis::{Acl, ConnectError, Refusal, Resource},
};

/// How long a read waits for an entry: it also shows the other daemons that this consumer lives.
pub(super) const READ_BLOCK: Duration = Duration::from_secs(1);
/// How long its answer may take behind that.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After this long a refused script is tried again.
const SCRIPT_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Why a stream is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
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
    UnexpectedReply(#[from] UnexpectedReply),
}

/// Scripts that the server has refused. They are not sent again for a minute, or until the next session: permissions may change.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedScripts(Arc<Mutex<Vec<(&'static str, Instant)>>>);

impl RefusedScripts {
    fn contains(&self, script: &'static str) -> bool {
        let mut refused = self.lock();
        refused.retain(|(_, at)| at.elapsed() < SCRIPT_RETRY_DELAY);
        refused.iter().any(|(other, _)| *other == script)
    }

    fn insert(&self, script: &'static str) {
        self.lock().push((script, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commands about one stream, over one connection.
#[derive(Clone)]
pub(super) struct Commands {
    pub(super) client: Client,
    pub(super) acl: Acl,
    pub(super) key: String,
    pub(super) group: String,
    pub(super) consumer: String,
    /// The key of the counters that the daemons of the group share.
    pub(super) counters_key: String,
    /// That of former versions.
    pub(super) former_counters_key: String,
    /// Shared by both connections.
    pub(super) refused_scripts: RefusedScripts,
}

impl Commands {
    pub(super) async fn send(&self, command: &'static str, arguments: Vec<String>) -> Result<Value, StreamError> {
        self.send_about(&self.key, command, arguments).await
    }

    pub(super) async fn send_about(
        &self,
        key: &str,
        command: &'static str,
        arguments: Vec<String>,
    ) -> Result<Value, StreamError> {
        let command = CustomCommand::new_static(command, ClusterHash::from(key), false);
        self.client.custom(command, arguments).await.map_err(|error| self.classify(error))
    }

    /// Runs a script; its arguments begin with the number of its keys. `None`: this user may not run it, or one of its commands.
    pub(super) async fn run_script(
        &self,
        key: &str,
        script: &'static str,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Option<Value>, StreamError> {
        if self.refused_scripts.contains(script) {
            return Ok(None);
        }
        let arguments = [script.to_owned()].into_iter().chain(arguments).collect();
        match self.send_about(key, "EVAL", arguments).await {
            Err(error) if error.refuses_script() => {
                self.refused_scripts.insert(script);
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// The number of this connection at the server; `None`: it may not be asked for, or there are several servers.
    pub(super) async fn connection_id(&self) -> Result<Option<u64>, StreamError> {
        if self.client.is_clustered() {
            return Ok(None);
        }
        // Not CLIENT ID, for which the user of the daemon has no other use.
        match self.send("CLIENT", vec!["INFO".to_owned()]).await {
            Ok(info) => Ok(info.as_str().and_then(|info| read_connection_id(&info))),
            Err(error @ StreamError::Lost(_)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Lets the server answer the command that waits on another connection at once, as if its time were over.
    pub(super) async fn unblock(&self, connection: u64) -> Result<(), StreamError> {
        self.send("CLIENT", vec!["UNBLOCK".to_owned(), connection.to_string()]).await.map(drop)
    }

    pub(super) fn classify(&self, error: RedisError) -> StreamError {
        let words = error.details();
        if words.starts_with("NOGROUP") || words.starts_with("UNBLOCKED") {
            return StreamError::Gone(words.to_owned());
        }
        if words.starts_with("WRONGTYPE") {
            return StreamError::WrongType(self.key.clone());
        }
        if let Some(refusal) = self.acl.refusal(words, Resource::Key(&self.key)) {
            return StreamError::Refused(refusal);
        }
        let kind = error.kind();
        if matches!(kind, ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled) || !self.client.is_connected() {
            return StreamError::Lost(error);
        }
        StreamError::Answer(self.acl.explain(&error, Resource::Key(&self.key)))
    }

    /// Entries that this consumer has read before and not acknowledged, behind `after`.
    pub(super) async fn read_own(&self, after: EntryId, count: usize) -> Result<Vec<Entry>, StreamError> {
        let (count, after) = (count.to_string(), after.to_string());
        let arguments = ["GROUP", &self.group, &self.consumer, "COUNT", &count, "STREAMS", &self.key, &after];
        Ok(read_entries(&self.send("XREADGROUP", arguments.map(str::to_owned).to_vec()).await?)?)
    }

    /// Makes the group, from the beginning of the stream, and the stream. Returns whether they were not there.
    pub(super) async fn create_group(&self) -> Result<bool, StreamError> {
        let arguments = ["CREATE", &self.key, &self.group, "0", "MKSTREAM"].map(str::to_owned);
        // From Redis 7 on the server then counts exactly what the group reads.
        let counting = [&arguments[..], &["ENTRIESREAD".to_owned(), "0".to_owned()]].concat();
        let mut created = self.send("XGROUP", counting).await;
        if matches!(&created, Err(StreamError::Answer(words)) if !words.contains("BUSYGROUP")) {
            created = self.send("XGROUP", arguments.to_vec()).await;
        }
        match created {
            Ok(_) => Ok(true),
            Err(StreamError::Answer(words)) if words.contains("BUSYGROUP") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The consumers of the group.
    pub(super) async fn consumers(&self) -> Result<Vec<GroupConsumer>, StreamError> {
        let arguments = ["CONSUMERS", &self.key, &self.group].map(str::to_owned).to_vec();
        Ok(read_consumers(&self.send("XINFO", arguments).await?)?)
    }

    /// Removes a consumer that has no entries. If it has read some meanwhile, the group is set back to before them: they are read
    /// once more rather than lost. Returns whether it was removed.
    pub(super) async fn remove_consumer(&self, name: &str, before: &Snapshot) -> Result<bool, StreamError> {
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

impl StreamError {
    /// Whether the server refuses a script, or a command in it: it will refuse the next one, too. Redis 6 and 7 name the second
    /// differently.
    fn refuses_script(&self) -> bool {
        let in_script = [
            "ACL failure in script",
            "The user executing the script can't",
            "unknown command",
            "Unknown Redis command",
        ];
        match self {
            Self::Refused(_) => true,
            Self::Answer(words) => in_script.iter().any(|part| words.contains(part)),
            _ => false,
        }
    }

    /// The text for people.
    pub(super) fn text(&self) -> String {
        Chain(self).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_script_is_not_sent_again_for_a_while_and_others_are() {
        let (refused, both) = (RefusedScripts::default(), ["return 1", "return 2"]);
        let clone = refused.clone();
        clone.insert(both[0]);
        assert_eq!(both.map(|script| refused.contains(script)), [true, false]);
        tokio::time::advance(SCRIPT_RETRY_DELAY).await;
        assert_eq!(both.map(|script| refused.contains(script)), [false, false]);
    }

    #[test]
    fn a_refusal_is_told_from_an_error_that_passes() {
        for (words, refuses) in [
            (
                "ERR ACL failure in script: User me has no permissions to run the 'xack' command script: 0, on @user_script:1.",
                true,
            ),
            ("ERR Error running script: The user executing the script can't run this command or subcommand", true),
            ("ERR unknown command 'EVAL', with args beginning with: 'return 1'", true),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
            ("BUSY Redis is busy running a script.", false),
        ] {
            assert_eq!(StreamError::Answer(words.to_owned()).refuses_script(), refuses, "{words}");
        }
    }
}
