//! Settings: address, login, channels and queues of Redis.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use super::{
    address::{self, redact},
    pattern::{self, overlap},
};
use crate::{
    host,
    logging::Chain,
    secret::{Secret, SecretFileError},
    section::{self, require},
    tls::{self, Tls},
    units::{self, ByteSize},
};

/// Most messages of a queue.
const MESSAGES_MAX: usize = 1 << 24;

/// Longest name of a channel: each waiting message and each open run holds it.
pub const CHANNEL_BYTES: usize = 256;

/// Each is read over connections of its own.
const STREAMS_MAX: usize = 64;
/// Shortest time after which a consumer counts as dead.
const CLAIM_AFTER_MIN: Duration = Duration::from_secs(5);

/// Where Redis is, and what to listen to.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `redis://host:port/db`, `redis+unix:///path`, or that of sentinels or a cluster; `rediss` for TLS. Printed without its password.
    #[serde(serialize_with = "without_password")]
    pub url: String,
    /// ACL user.
    pub username: Option<String>,
    /// Password; better given as a file or by `REDIS_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// TLS; also used when the URL begins with `rediss://`.
    pub tls: Tls,
    /// Channels and patterns (`lab:*:training`) with training messages.
    pub training_channels: Vec<String>,
    /// Streams with training messages, read by a consumer group.
    pub streams: Vec<String>,
    /// The consumer group: its daemons share the entries.
    pub group: String,
    /// After this long without a sign of life, what a consumer has left unacknowledged is claimed.
    #[serde(with = "units::duration")]
    pub claim_after: Duration,
    /// Channels and patterns with commands.
    pub control_channels: Vec<String>,
    /// Prefix of every key and channel of this program.
    pub key_prefix: String,
    /// Frames that may wait for intake.
    pub queue_frames: usize,
    /// Bytes of frames that may wait for intake.
    pub queue_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("redis")
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        // The value is never shown: a URL that cannot be read may hold a password in the wrong place.
        if let Err(error) = address::parse(&self.url) {
            problems.push(format!("`redis.url` {error}"));
        }
        self.channel_problems(problems);
        require(
            problems,
            (1..=MESSAGES_MAX).contains(&self.queue_frames),
            format!("`redis.queue_frames` must be between 1 and {MESSAGES_MAX}"),
        );
        require(problems, self.queue_bytes >= ByteSize::mib(1), "`redis.queue_bytes` must be at least 1MiB");
        self.tls.problems("redis", problems);
        require(
            problems,
            !(self.url.contains("+unix://") && self.tls.is_enabled()),
            "`redis.tls` has no use with the socket of `redis.url`; remove it",
        );
    }

    /// Adds what is wrong with the files that these settings name.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        problems.extend(self.password().err().map(|error| Chain(&error).to_string()));
        self.tls.file_problems("redis", problems);
    }

    /// The password to log in with.
    pub(super) fn password(&self) -> Result<Option<Secret>, SecretFileError> {
        Secret::of("redis.password_file", self.password_file.as_deref(), self.password.as_ref())
    }

    /// Adds what is dangerous about these settings.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        if self.uses_tls() || (self.password.is_none() && self.password_file.is_none()) {
            return;
        }
        if let Some(host) = address::hosts(&self.url).into_iter().find(|host| !host::is_loopback(host)) {
            warnings.push(tls::plain_password("Redis", &host, "let `redis.url` begin with rediss://"));
        }
    }

    /// Whether connections are encrypted.
    pub fn uses_tls(&self) -> bool {
        address::is_encrypted(&self.url) || self.tls.is_enabled()
    }

    /// Whether the server is a cluster.
    pub fn uses_cluster(&self) -> bool {
        address::is_cluster(&self.url)
    }

    /// Whether there is a password to log in with.
    pub fn has_password(&self) -> bool {
        self.password.is_some() || self.password_file.is_some()
    }

    /// The host of the server; of the first one that the address names. None for a socket.
    pub fn host(&self) -> Option<String> {
        address::hosts(&self.url).into_iter().next()
    }

    fn channel_problems(&self, problems: &mut Vec<String>) {
        let (training, control) = ("redis.training_channels", "redis.control_channels");
        require(
            problems,
            !self.training_channels.is_empty() || !self.streams.is_empty(),
            format!("`{training}` must name at least one channel, or `redis.streams` a stream"),
        );
        self.stream_problems(problems);
        let channels: Vec<_> = (self.training_channels.iter().map(|channel| (training, channel)))
            .chain(self.control_channels.iter().map(|channel| (control, channel)))
            .collect();
        for (at, (key, channel)) in channels.iter().enumerate() {
            require(problems, !channel.is_empty(), format!("`{key}` holds an empty name"));
            require(
                problems,
                channel.len() <= CHANNEL_BYTES,
                format!("`{key}` holds a name of more than {CHANNEL_BYTES} bytes"),
            );
            for (other_key, other) in channels[at + 1..].iter().filter(|(_, other)| overlap(channel, other)) {
                problems.push(format!(
                    "`{key}` = \"{channel}\" and `{other_key}` = \"{other}\" overlap: a message would arrive twice"
                ));
            }
        }
    }

    fn stream_problems(&self, problems: &mut Vec<String>) {
        require(
            problems,
            self.streams.len() <= STREAMS_MAX,
            format!("`redis.streams` may name at most {STREAMS_MAX} streams"),
        );
        for (at, stream) in self.streams.iter().enumerate() {
            require(problems, !stream.is_empty(), "`redis.streams` holds an empty name");
            require(
                problems,
                stream.len() <= CHANNEL_BYTES,
                format!("`redis.streams` holds a name of more than {CHANNEL_BYTES} bytes"),
            );
            require(problems, !stream.contains('\0'), "`redis.streams` holds a name with a zero byte");
            require(
                problems,
                !pattern::is_pattern(stream),
                format!("`redis.streams` = \"{stream}\" is a pattern: name each stream"),
            );
            require(
                problems,
                !self.streams[at + 1..].contains(stream),
                format!("`redis.streams` names \"{stream}\" twice"),
            );
            self.name_problems(stream, problems);
        }
        require(problems, !self.group.is_empty(), "`redis.group` must not be empty");
        require(
            problems,
            self.claim_after >= CLAIM_AFTER_MIN,
            "`redis.claim_after` must be at least 5s: a daemon that waits for its disk is not dead",
        );
    }

    /// A stream needs a name of its own: by their names open runs are kept, and events with a time of their own told apart.
    fn name_problems(&self, stream: &str, problems: &mut Vec<String>) {
        for (key, channels) in
            [("redis.training_channels", &self.training_channels), ("redis.control_channels", &self.control_channels)]
        {
            require(
                problems,
                !channels.iter().any(|channel| channel == stream),
                format!(
                    "`redis.streams` = \"{stream}\" is a channel of `{key}`, too: give the stream another name, or take it out there"
                ),
            );
        }
        let is_latest = stream.starts_with(&self.key_prefix) && stream.ends_with(":latest");
        require(
            problems,
            !is_latest && !self.is_own_channel(stream),
            format!("`redis.streams` = \"{stream}\" is a key of this program: give the stream another name"),
        );
    }

    /// The channel on which answers to commands are published.
    pub fn ack_channel(&self) -> String {
        format!("{}control:ack", self.key_prefix)
    }

    /// Whether a channel belongs to this program: never read as messages, even when a pattern matches it.
    pub fn is_own_channel(&self, channel: &str) -> bool {
        channel.strip_prefix(&self.key_prefix).is_some_and(|rest| rest == "control:ack" || rest.starts_with("ingest:"))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("redis::Config")
            .field("url", &redact(&self.url))
            .field("username", &self.username)
            .field("tls", &self.tls)
            .field("training_channels", &self.training_channels)
            .field("control_channels", &self.control_channels)
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redact(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_printed() {
        let config = Config {
            url: "redis://me:s3cret@host:6379/0?password=s3cret".into(),
            password: Some(Secret::new("s3cret")),
            ..Config::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert!(!format!("{config:?}{json}").contains("s3cret"));
        assert!(json.contains("redis://me:(hidden)@host:6379/0"), "{json}");
        let mut problems = Vec::new();
        Config { url: "nonsense://:s3cret@host".into(), ..config }.problems(&mut problems);
        assert!(problems[0].contains("redis.url") && !problems[0].contains("s3cret"), "{problems:?}");
    }

    #[test]
    fn the_length_of_a_channel_name_has_a_bound() {
        for (bytes, expected) in [(CHANNEL_BYTES, 0), (CHANNEL_BYTES + 1, 1)] {
            let mut problems = Vec::new();
            Config { training_channels: vec!["x".repeat(bytes)], ..Config::default() }.problems(&mut problems);
            assert_eq!(problems.len(), expected, "{problems:?}");
        }
    }

    #[test]
    fn channels_of_this_program_are_recognised() {
        let config = Config::default();
        for (channel, own) in [
            ("cascor:control:ack", true),
            ("cascor:ingest:run:x", true),
            ("cascor:training", false),
            ("lab:control:ack", false),
        ] {
            assert_eq!(config.is_own_channel(channel), own, "{channel}");
        }
    }
}
