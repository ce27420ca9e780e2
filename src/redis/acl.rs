//! Refusals by an ACL of Redis, and the rule that would allow the command.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use fred::error::{Error as RedisError, ErrorKind};
use tracing::warn;

use super::config::Config;

/// Rules that are warned of, at most: without a prefix each key has a rule of its own.
const WARNED_MAX: usize = 256;

/// The key or channel of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// Neither a key nor a channel.
    None,
    /// A key.
    Key(&'a str),
    /// A channel or a pattern of channels.
    Channel(&'a str),
}

/// Whether an error is Redis saying that the ACL forbids something: an answer like any other, not a sign of a lost connection.
pub fn is_refusal(error: &RedisError) -> bool {
    error.details().starts_with("NOPERM")
}

/// Names the permission that the ACL user lacks.
#[derive(Clone, Debug)]
pub struct Acl {
    user: Arc<str>,
    prefix: Arc<str>,
    /// Rules that were warned of.
    warned: Arc<Mutex<BTreeSet<String>>>,
}

/// Something that an ACL refuses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    user: Arc<str>,
    /// The action that is refused.
    what: String,
    /// Redis' own words.
    words: String,
    /// The rule to add by `ACL SETUSER`.
    pub rule: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, what, words, .. } = self;
        write!(f, "the ACL user `{user}` may not {what} ({words}); allow it with `{}`", self.command())
    }
}

impl Refusal {
    /// The command that grants the permission.
    pub fn command(&self) -> String {
        let Self { user, rule, .. } = self;
        let quoted = if user.contains([' ', '"']) { format!("{user:?}") } else { user.to_string() };
        format!("ACL SETUSER {quoted} {rule}")
    }
}

impl Acl {
    /// Of the user that is logged in with these settings.
    pub fn of(config: &Config) -> Self {
        let user = config.username.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        Self { user: user.into(), prefix: config.key_prefix.as_str().into(), warned: Arc::default() }
    }

    /// The refusal in the text of an error; `None` for any other error.
    pub fn refusal(&self, words: &str, resource: Resource<'_>) -> Option<Refusal> {
        if !words.starts_with("NOPERM") {
            return None;
        }
        let command = words.split_once("run the '").and_then(|(_, rest)| rest.split_once('\'')).map(|(name, _)| name);
        let (what, rule) = match (command, resource) {
            (Some(command), _) => {
                (format!("run {}", command.replace('|', " ").to_ascii_uppercase()), format!("+{command}"))
            }
            (None, Resource::Key(key)) => (format!("use the key `{key}`"), format!("~{}", self.key_pattern(key))),
            (None, Resource::Channel(channel)) => (format!("use the channel `{channel}`"), format!("&{channel}")),
            (None, Resource::None) => ("run this command".to_owned(), "<what ACL LOG names>".to_owned()),
        };
        Some(Refusal { user: Arc::clone(&self.user), what, words: words.to_owned(), rule })
    }

    /// The text of an error; of a refusal with the missing permission, of a wrong server with the right address, of a full one with what
    /// makes room.
    pub fn explain(&self, error: &RedisError, resource: Resource<'_>) -> String {
        let text = match error.kind() {
            // The words of an answer; those of other kinds are the client's.
            ErrorKind::Unknown => format!("Redis answers: {}", error.details().trim_end_matches('.')),
            _ => error.to_string(),
        };
        let remedy = match error.details() {
            words if words.starts_with("OOM") => {
                "this Redis is full; raise its `maxmemory`, or remove what it need not keep"
            }
            words if words.starts_with("READONLY") => {
                "this Redis is a replica; name its primary in `redis.url`, or its sentinels by redis-sentinel://"
            }
            words if words.starts_with("MOVED") => {
                "this Redis is a node of a cluster; let `redis.url` begin with redis-cluster://"
            }
            words => match self.refusal(words, resource) {
                Some(refusal) => return refusal.to_string(),
                None => return text,
            },
        };
        format!("{text}: {remedy}")
    }

    /// Logs a missing permission where a refusal is otherwise ignored; once for each rule and connection.
    pub fn warn(&self, error: &RedisError, resource: Resource<'_>) {
        let Some(refusal) = self.refusal(error.details(), resource) else { return };
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNED_MAX && warned.insert(refusal.rule.clone()) {
            warn!(%refusal, "Redis refuses a command");
        }
    }

    /// Warns again from now on: the permissions may have changed.
    pub(super) fn reset_warnings(&self) {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The pattern of all keys of this program, when the key is one of them: the next would be refused, too.
    fn key_pattern(&self, key: &str) -> String {
        let literal = |text: &str| -> String {
            let special = |c: char| "*?[]\\".contains(c).then_some('\\');
            text.chars().flat_map(|c| special(c).into_iter().chain([c])).collect()
        };
        if !self.prefix.is_empty() && key.starts_with(&*self.prefix) {
            format!("{}*", literal(&self.prefix))
        } else {
            literal(key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_missing_permission_in_the_wording_of_every_version() {
        let acl = Acl::of(&Config { username: Some("me".into()), ..Config::default() });
        let (key, channel) = (Resource::Key("cascor:metrics:latest"), Resource::Channel("lab:*"));
        for (words, resource, what, rule) in [
            (
                "NOPERM this user has no permissions to run the 'select' command",
                Resource::None,
                "run SELECT",
                "+select",
            ),
            ("NOPERM this user has no permissions to run the 'set' command or its subcommand", key, "run SET", "+set"),
            (
                "NOPERM User me has no permissions to run the 'client|info' command",
                channel,
                "run CLIENT INFO",
                "+client|info",
            ),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                key,
                "use the key `cascor:metrics:latest`",
                "~cascor:*",
            ),
            ("NOPERM No permissions to access a key", Resource::Key("a*b"), "use the key `a*b`", "~a\\*b"),
            (
                "NOPERM this user has no permissions to access one of the channels used as arguments",
                channel,
                "use the channel `lab:*`",
                "&lab:*",
            ),
            ("NOPERM No permissions to access a channel", channel, "use the channel `lab:*`", "&lab:*"),
        ] {
            let refusal = acl.refusal(words, resource).unwrap();
            assert_eq!((refusal.what.as_str(), refusal.rule.as_str()), (what, rule), "{words}");
            let shown = refusal.to_string();
            assert!(shown.contains(words) && shown.ends_with(&format!("`ACL SETUSER me {rule}`")), "{shown}");
        }
        for other in ["WRONGPASS invalid", "NOAUTH Authentication required.", "OOM command not allowed", ""] {
            assert_eq!(acl.refusal(other, key), None, "{other}");
        }
        let nameless = Acl::of(&Config::default()).refusal("NOPERM No permissions to access a key", key).unwrap();
        assert!(nameless.to_string().contains("ACL SETUSER default ~cascor:*"), "{nameless}");
    }
}
