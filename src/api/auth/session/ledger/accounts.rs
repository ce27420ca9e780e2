//! The sessions of each token: open, signed out, ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::Micros;

/// Sessions of one token that are remembered as signed out.
pub const ENDED_MAX: usize = 256;
/// Removed tokens that are remembered.
const GONE_MAX: usize = 1_024;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// When it began; unique within the token and this process.
    pub issued: Micros,
    /// The id in the cookie.
    pub id: String,
}

/// The sessions of one token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// All sessions begun up to this time have ended.
    pub ended_until: Micros,
    pub ended: Vec<Entry>,
    pub open: Vec<Entry>,
    /// The token is no longer in the file of tokens.
    pub gone: bool,
}

/// What the file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Accounts {
    /// The same for all tokens.
    pub ended_until: Micros,
    pub tokens: BTreeMap<String, Account>,
}

impl Account {
    /// Enforces the bounds; returns the open sessions that end by it.
    pub fn trim(&mut self, cap: usize, ended: usize, oldest: Micros) -> Vec<Entry> {
        for list in [&mut self.open, &mut self.ended] {
            list.sort();
            list.dedup();
        }
        let surplus = self.open.len().saturating_sub(cap);
        let removed: Vec<_> = self.open.drain(..surplus).collect();
        let forgotten = self.ended.len().saturating_sub(ended);
        let forgotten = self.ended.drain(..forgotten).next_back();
        for last in removed.last().into_iter().chain(&forgotten) {
            self.ended_until = self.ended_until.max(last.issued);
        }
        let until = self.ended_until.max(oldest);
        self.ended.retain(|entry| entry.issued > until);
        let ended = &self.ended;
        self.open.retain(|entry| entry.issued > until && !ended.contains(entry));
        removed
    }
}

impl Accounts {
    /// Forgets removed tokens whose sessions have all expired, and the longest removed beyond [`GONE_MAX`].
    pub fn prune(&mut self, oldest: Micros) {
        self.tokens.retain(|_, account| !account.gone || account.ended_until > oldest);
        let gone = self.tokens.iter().filter(|(_, account)| account.gone);
        let mut gone: Vec<_> = gone.map(|(token, account)| (account.ended_until, token.clone())).collect();
        let surplus = gone.len().saturating_sub(GONE_MAX);
        gone.sort();
        for (_, token) in gone.drain(..surplus) {
            self.tokens.remove(&token);
        }
    }

    /// Merges what another process knows: a session that has ended for either has ended.
    pub fn merge(&mut self, other: Self, cap: usize, oldest: Micros) {
        self.ended_until = self.ended_until.max(other.ended_until);
        for (token, theirs) in other.tokens {
            let new = || Account { gone: theirs.gone, ..Account::default() };
            let ours = self.tokens.entry(token).or_insert_with(new);
            ours.ended_until = ours.ended_until.max(theirs.ended_until);
            ours.ended.extend(theirs.ended);
            ours.open.extend(theirs.open);
            ours.trim(cap, ENDED_MAX, oldest);
        }
    }
}
