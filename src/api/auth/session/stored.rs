//! The value of a session in Redis: useless to its readers, and valid only with our signature.
//!
//! `1 <signature> <JSON>`; the signature covers the id of the session, which is the key's name, and every byte of the JSON. It
//! holds no secret and no plain digest: the cookie's secret and the token are stored as signatures. A value that is copied to
//! another key, changed, combined or forged is invalid.

use serde::{Deserialize, Serialize};

use super::key::SessionKey;
use crate::{
    api::auth::token::{Token, constant_time_eq},
    tls::hex,
    units::Micros,
};

/// The first word of every value.
const VERSION: &str = "1";

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSession {
    /// Name of the token that opened it.
    pub name: String,
    /// What it allows.
    pub scope: String,
    /// [`fingerprint`] of that token.
    pub token: String,
    /// [`secret`] of the cookie.
    pub secret: String,
    /// When it began.
    pub issued: Micros,
    /// When it ends, even when in use.
    pub expires: Micros,
    /// When it was last used, within some seconds.
    pub used: Micros,
}

/// Identifies a token by all parts of its line in the file.
pub fn fingerprint(key: &SessionKey, token: &Token) -> String {
    hex(&key.sign("token", &[&token.digest, token.name.as_bytes(), token.scope.name().as_bytes()]))
}

/// The stored form of a cookie's secret.
pub fn secret(key: &SessionKey, id: &str, secret: &str) -> String {
    hex(&key.sign("secret", &[id.as_bytes(), secret.as_bytes()]))
}

/// The CSRF token of a session; not stored.
pub fn csrf(key: &SessionKey, id: &str) -> String {
    hex(&key.sign("csrf", &[id.as_bytes()]))
}

impl StoredSession {
    /// The value to store under this id.
    pub fn seal(&self, key: &SessionKey, id: &str) -> String {
        let text = serde_json::to_string(self).expect("strings and numbers always serialise");
        let signature = key.sign("session", &[id.as_bytes(), text.as_bytes()]);
        format!("{VERSION} {} {text}", hex(&signature))
    }

    /// The inverse; `None` for a value that we have not signed under this id.
    pub fn open(value: &str, key: &SessionKey, id: &str) -> Option<Self> {
        let (signature, text) = value.strip_prefix(VERSION)?.strip_prefix(' ')?.split_once(' ')?;
        let expected = hex(&key.sign("session", &[id.as_bytes(), text.as_bytes()]));
        if !constant_time_eq(signature.as_bytes(), expected.as_bytes()) {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::auth::scope::Scope, tls::sha256};

    fn token(name: &str, scope: Scope) -> Token {
        Token { name: name.into(), scope, digest: sha256(b"0123456789abcdef") }
    }

    fn stored(key: &SessionKey) -> StoredSession {
        StoredSession {
            name: "ann".into(),
            scope: "admin".into(),
            token: fingerprint(key, &token("ann", Scope::Admin)),
            secret: secret(key, "id", "secret"),
            issued: 1,
            expires: 3,
            used: 2,
        }
    }

    #[test]
    fn only_what_was_sealed_under_the_same_id_and_key_is_opened() {
        let key = SessionKey::ephemeral();
        let session = stored(&key);
        let value = session.seal(&key, "id");
        assert_eq!(StoredSession::open(&value, &key, "id"), Some(session.clone()));
        assert_eq!(StoredSession::open(&value, &key, "other"), None, "copied to a key of one's own");
        assert_eq!(StoredSession::open(&value, &SessionKey::ephemeral(), "id"), None, "signed by another");
        let other = StoredSession { name: "bob".into(), scope: "read".into(), ..session }.seal(&key, "id");
        let (signature, json) = (other.split(' ').nth(1).unwrap(), value.splitn(3, ' ').nth(2).unwrap());
        for forged in [
            value.replace("ann", "bob"),
            value.replace("\"expires\":3", "\"expires\":9000000000000000"),
            value.replace("\"used\":2", "\"used\":9"),
            format!("1 {signature} {json}"),
            format!("1  {json}"),
            format!("1 {} {json}", "0".repeat(64)),
            json.to_owned(),
            format!("{value} "),
            String::new(),
            r#"{"name":"ann","scope":"admin","secret":"00","token":"00","csrf":"00"}"#.into(),
        ] {
            assert_eq!(StoredSession::open(&forged, &key, "id"), None, "{forged}");
        }
        // Every single character counts.
        for at in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(StoredSession::open(&changed, &key, "id"), None, "{changed}");
        }
    }

    #[test]
    fn a_value_holds_neither_the_token_nor_a_digest_that_others_can_make() {
        let key = SessionKey::ephemeral();
        let value = stored(&key).seal(&key, "id");
        for known in ["0123456789abcdef".to_owned(), hex(&sha256(b"0123456789abcdef")), hex(&sha256(b"secret"))] {
            assert!(!value.contains(&known), "{value}");
        }
        assert!(!value.contains(&csrf(&key, "id")));
        let of = |name: &str, scope| fingerprint(&key, &token(name, scope));
        assert_ne!(of("ann", Scope::Admin), of("ann", Scope::Read), "a changed line is another token");
        assert_ne!(of("ann", Scope::Admin), of("bob", Scope::Admin));
    }
}
