//! Passwords: each in a slot of its own, as text or as a file, so that no layer, printout or error contains one.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::precedence::Precedence;
use crate::secret::Secret;

/// A password, from its source to the settings.
#[derive(Debug)]
pub struct PasswordSlot {
    /// The key it fills.
    pub key: &'static str,
    /// Name of its systemd credential.
    pub credential: &'static str,
    candidate: Option<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    value: Value,
    precedence: Precedence,
    /// From a URL: an explicit password of the same source wins.
    from_url: bool,
}

#[derive(Debug)]
enum Value {
    Text(Secret),
    File(PathBuf),
}

/// The slots of all passwords.
pub fn slots() -> [PasswordSlot; 2] {
    [("redis.password", "redis-password"), ("store.cassandra.password", "cassandra-password")]
        .map(|(key, credential)| PasswordSlot { key, credential, candidate: None })
}

impl PasswordSlot {
    /// Sets the password; an empty text is none.
    pub fn set_text(&mut self, text: &str, precedence: Precedence, from_url: bool, problems: &mut Vec<String>) {
        let secret = Secret::new(text);
        if !secret.is_empty() {
            self.set(Candidate { value: Value::Text(secret), precedence, from_url }, problems);
        }
    }

    /// Sets the file of the password.
    pub fn set_file(&mut self, path: &str, precedence: Precedence, problems: &mut Vec<String>) {
        let path = path.trim();
        if !path.is_empty() {
            self.set(Candidate { value: Value::File(path.into()), precedence, from_url: false }, problems);
        }
    }

    fn set(&mut self, new: Candidate, problems: &mut Vec<String>) {
        if let Some(old) = self.candidate.as_ref().filter(|old| old.precedence == new.precedence) {
            if new.from_url && !old.from_url {
                return;
            }
            if !old.from_url && std::mem::discriminant(&old.value) != std::mem::discriminant(&new.value) {
                problems.push(format!("`{0}` and `{0}_file` are both set; keep one", self.key));
            }
        }
        self.candidate = Some(new);
    }

    /// The password, or its file, which each connection reads.
    pub fn finish(self) -> (Option<Secret>, Option<PathBuf>) {
        match self.candidate.map(|held| held.value) {
            None => (None, None),
            Some(Value::Text(secret)) => (Some(secret), None),
            Some(Value::File(path)) => (None, Some(path)),
        }
    }
}

/// A Redis URL without user and password, and these, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct SplitUrl {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Splits user and password off a URL. The last `@` ends them, so that a password with a raw `/` or `@` cannot leak into the host.
pub fn split_url(url: &str) -> SplitUrl {
    let unchanged = || SplitUrl { url: url.into(), username: None, password: None };
    let Some((scheme, (userinfo, rest))) =
        url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
    else {
        return unchanged();
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    // An `@` inside a parameter ends no user; such a URL is rejected later.
    let parameter = ["?password=", "?sentinel", "?node=", "?db="].iter().any(|begin| userinfo.contains(begin));
    if user.contains(['?', '/']) || parameter {
        return unchanged();
    }
    let some = |text: &str| {
        Some(percent_decode_str(text).decode_utf8_lossy().trim().to_owned()).filter(|text| !text.is_empty())
    };
    SplitUrl { url: format!("{scheme}://{rest}"), username: some(user), password: some(password) }
}
