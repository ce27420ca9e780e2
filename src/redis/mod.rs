//! How to reach Redis: settings, TLS, and clients that know when they are cut off.

mod link;
mod share;

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

pub use self::{
    link::{ConnectError, Connected, Link, Retry, Role, connect, settings},
    share::RunShare,
};
use crate::{secret::Secret, tls::Tls, units::ByteSize};

/// Where Redis is, and what to listen to.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `redis://host:port/db`, or `rediss://` for TLS. Never carries the password in what is printed.
    #[serde(serialize_with = "without_password")]
    pub url: String,
    /// ACL user.
    pub username: Option<String>,
    /// Password; better given as a file or by `REDIS_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub tls: Tls,
    /// Channels and patterns (`lab:*:training`) with training messages.
    pub training_channels: Vec<String>,
    /// Channels and patterns with commands.
    pub control_channels: Vec<String>,
    /// Prefix of every key and channel of ours.
    pub key_prefix: String,
    /// Messages that the client may hold before it drops the oldest; one turn of its reader may bring 1 MiB of them.
    pub receive_buffer: usize,
    /// Frames that may wait for intake.
    pub queue_frames: usize,
    /// Bytes of frames that may wait for intake.
    pub queue_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            username: None,
            password: None,
            password_file: None,
            tls: Tls::default(),
            training_channels: vec!["cascor:training".into()],
            control_channels: vec!["cascor:control".into()],
            key_prefix: "cascor:".into(),
            receive_buffer: 32_768,
            queue_frames: 65_536,
            queue_bytes: ByteSize::mib(64),
        }
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if let Err(error) = link::parse(&self.url) {
            problems.push(format!("`redis.url` = \"{}\": {error}", redact(&self.url)));
        }
        if self.training_channels.is_empty() && self.control_channels.is_empty() {
            problems.push("`redis.training_channels` and `redis.control_channels` are both empty".into());
        }
        let all: Vec<_> = self.training_channels.iter().chain(&self.control_channels).cloned().collect();
        if all.iter().any(String::is_empty) {
            problems.push("`redis.training_channels` and `redis.control_channels` must not hold an empty name".into());
        }
        problems.extend(overlaps(&all).into_iter().map(|overlap| {
            format!("`redis.training_channels`, `redis.control_channels`: {overlap}; messages would be received twice")
        }));
        if self.receive_buffer == 0 {
            problems.push("`redis.receive_buffer` must be at least 1".into());
        }
        if self.queue_frames == 0 {
            problems.push("`redis.queue_frames` must be at least 1".into());
        }
        if self.queue_bytes < ByteSize::mib(1) {
            problems.push("`redis.queue_bytes` must be at least 1MiB".into());
        }
        self.tls.problems("redis", problems);
    }

    /// The channel on which answers to commands are published.
    pub fn ack_channel(&self) -> String {
        format!("{}control:ack", self.key_prefix)
    }

    /// Whether a channel is one of ours, which are never read as messages even when a pattern matches them.
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

/// A URL without its password and query.
pub fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or("");
    let shown = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:(hidden)@{place}"),
            None => format!("{login}@{place}"),
        },
        None => rest.to_owned(),
    };
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}

/// Whether Redis reads the name as a pattern.
pub fn is_pattern(channel: &str) -> bool {
    channel.contains(['*', '?', '['])
}

/// Every pair of names that can match one and the same channel, in words. Redis would deliver such a message twice.
pub fn overlaps(channels: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (n, one) in channels.iter().enumerate() {
        for other in &channels[n + 1..] {
            if one == other {
                found.push(format!("`{one}` is there twice"));
            } else if (is_pattern(one) || is_pattern(other)) && intersect(one, other) {
                found.push(format!("`{one}` and `{other}` overlap"));
            }
        }
    }
    found
}

/// One element of a name or pattern. A set such as `[a-c]` counts as "any one character": better one refusal too many than a
/// message twice.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Is(char),
    One,
    Any,
}

fn parts(name: &str) -> Vec<Part> {
    let pattern = is_pattern(name);
    let mut parts = Vec::new();
    let mut rest = name.chars();
    while let Some(character) = rest.next() {
        parts.push(match character {
            _ if !pattern => Part::Is(character),
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Is(rest.next().unwrap_or('\\')),
            '[' => {
                let _ = rest.by_ref().find(|end| *end == ']');
                Part::One
            }
            other => Part::Is(other),
        });
    }
    parts
}

/// Whether some text matches both, by walking both at once (a table instead of recursion: names come from outside).
fn intersect(one: &str, other: &str) -> bool {
    let (one, other) = (parts(one), parts(other));
    let mut reach = vec![vec![false; other.len() + 1]; one.len() + 1];
    reach[0][0] = true;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if !reach[i][j] {
                continue;
            }
            let (a, b) = (one.get(i).copied(), other.get(j).copied());
            if a == Some(Part::Any) {
                reach[i + 1][j] = true;
            }
            if b == Some(Part::Any) {
                reach[i][j + 1] = true;
            }
            let (Some(a), Some(b)) = (a, b) else { continue };
            match (a, b) {
                (Part::Any, Part::Any) => {}
                (Part::Any, _) => reach[i][j + 1] = true,
                (_, Part::Any) => reach[i + 1][j] = true,
                (Part::Is(x), Part::Is(y)) => reach[i + 1][j + 1] |= x == y,
                _ => reach[i + 1][j + 1] = true,
            }
        }
    }
    reach[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_names_are_found() {
        for (one, other, overlap) in [
            ("cascor:training", "cascor:control", false),
            ("cascor:training", "cascor:training", true),
            ("lab:*:training", "lab:a:training", true),
            ("lab:*:training", "lab:*", true),
            ("lab:*:training", "*:b:training", true),
            ("lab:?", "lab:[ab]", true),
            ("lab:?", "lab:ab", false),
            ("lab:*:training", "lab:*:control", false),
            ("a*", "b*", false),
            ("a\\*", "a?", true),
            ("*", "cascor:control", true),
        ] {
            assert_eq!(!overlaps(&[one.into(), other.into()]).is_empty(), overlap, "{one} {other}");
            assert_eq!(!overlaps(&[other.into(), one.into()]).is_empty(), overlap, "{other} {one}");
        }
    }

    #[test]
    fn nothing_that_is_printed_holds_the_password() {
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
    fn our_own_channels_are_known() {
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
