//! A token: a name, a scope, and the digest of its secret.

use super::scope::Scope;

/// A digest of a secret.
pub type Digest = [u8; 32];

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// For people: in the log, on the dashboard.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// Of the secret.
    pub digest: Digest,
}

/// Equal or not, in the same time either way.
pub fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}
