//! Passwords: each in a slot of its own, from text or from a file, so that no layer, printout or error ever holds one.

use std::path::PathBuf;

use super::precedence::Precedence;
use crate::secret::Secret;

/// A password on its way to the settings.
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
    /// Came inside a URL: an explicit password of the same layer wins.
    from_url: bool,
}

#[derive(Debug)]
enum Value {
    Text(Secret),
    File(PathBuf),
}

/// Every password there is.
pub fn slots() -> [PasswordSlot; 2] {
    [("redis.password", "redis-password"), ("store.cassandra.password", "cassandra-password")]
        .map(|(key, credential)| PasswordSlot { key, credential, candidate: None })
}

impl PasswordSlot {
    /// Takes a password as text; an empty one is none.
    pub fn set_text(&mut self, text: &str, precedence: Precedence, from_url: bool, problems: &mut Vec<String>) {
        let secret = Secret::new(text);
        if !secret.is_empty() {
            self.set(Candidate { value: Value::Text(secret), precedence, from_url }, problems);
        }
    }

    /// Takes the file that holds the password.
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

    /// The password, or the file that holds it: a connection reads that when it is made.
    pub fn finish(self) -> (Option<Secret>, Option<PathBuf>) {
        match self.candidate.map(|held| held.value) {
            None => (None, None),
            Some(Value::Text(secret)) => (Some(secret), None),
            Some(Value::File(path)) => (None, Some(path)),
        }
    }
}

/// A Redis URL without its user and password, and those two, decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct SplitUrl {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Takes user and password out of a URL. The last `@` ends them, so that a password with a raw `/` or `@` cannot leak into
/// the host.
pub fn split_url(url: &str) -> SplitUrl {
    let whole = || SplitUrl { url: url.into(), username: None, password: None };
    let Some((scheme, (userinfo, rest))) =
        url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
    else {
        return whole();
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    // An `@` inside a parameter ends no user; such a URL is refused as a whole.
    if user.contains(['?', '/']) || userinfo.contains("?password=") {
        return whole();
    }
    let some = |text: &str| Some(percent_decode(text).trim().to_owned()).filter(|text| !text.is_empty());
    SplitUrl { url: format!("{scheme}://{rest}"), username: some(user), password: some(password) }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
