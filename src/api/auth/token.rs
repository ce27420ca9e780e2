//! A token: a name, a scope, and the digest of its secret.

use super::scope::Scope;

/// A digest of a secret.
pub type Digest = [u8; 32];

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Shown in the log and on the dashboard.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// Digest of the secret.
    pub digest: Digest,
}

/// Compares in a time that does not depend on the content.
pub fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}
