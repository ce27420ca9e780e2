//! The ledger of ended sessions, which is trusted over Redis: a client of Redis may write a deleted session back, or keep it from
//! expiring.
//!
//! For each token it holds the open sessions (the newest `http.sessions`), those that were signed out, and a time up to which all
//! sessions have ended. The time advances when one of the lists is full, and to the present when the token is removed from the file
//! of tokens, so the ledger is bounded and errs on the side of ending. It is a file of the state directory, shared by all processes
//! that use the directory; a daemon on another machine knows only what is in Redis.

mod accounts;
mod disk;

use std::path::{Path, PathBuf};

pub use self::{accounts::Entry, disk::read};
use self::{
    accounts::{Account, Accounts, ENDED_MAX},
    disk::{FileContents, PendingSave, Version},
};
use crate::units::Micros;

/// Its name in the state directory.
const FILE_NAME: &str = "sessions.json";

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    accounts: Accounts,
    cap: usize,
    lifetime: Micros,
    file: Option<PathBuf>,
    /// The version of the file that has been merged.
    loaded_version: Option<Version>,
    /// Whether there are changes that the file lacks.
    dirty: bool,
}

impl Ledger {
    /// The ledger of a state directory; without one, of this process. `cap`: open sessions of one token.
    pub fn open(state_dir: Option<&Path>, cap: usize, lifetime: Micros) -> Self {
        let file = state_dir.map(|dir| dir.join(FILE_NAME));
        let found = file.as_ref().and_then(|file| read(file, None));
        let mut ledger =
            Self { accounts: Accounts::default(), cap, lifetime, file, loaded_version: None, dirty: false };
        found.into_iter().for_each(|found| ledger.merge_file(found));
        ledger
    }

    /// Adds a session of this token. Returns its start time, and the sessions that end for it.
    pub fn begin(&mut self, token: &str, id: &str, now: Micros) -> (Micros, Vec<Entry>) {
        let until = self.accounts.ended_until;
        let account = self.accounts.tokens.entry(token.to_owned()).or_default();
        let last = account.open.last().map_or(0, |entry| entry.issued);
        // The clock may have been set back.
        let issued = now.max(until + 1).max(account.ended_until + 1).max(last + 1);
        account.open.push(Entry { issued, id: id.to_owned() });
        let removed = account.trim(self.cap, ENDED_MAX, now - self.lifetime);
        self.dirty = true;
        (issued, removed)
    }

    /// Ends a session.
    pub fn end(&mut self, token: &str, session: Entry, now: Micros) {
        let account = self.accounts.tokens.entry(token.to_owned()).or_default();
        account.ended.push(session);
        account.trim(self.cap, ENDED_MAX, now - self.lifetime);
        self.dirty = true;
    }

    /// Whether a session has ended.
    pub fn is_ended(&self, token: &str, session: &Entry) -> bool {
        session.issued <= self.accounts.ended_until
            || self
                .accounts
                .tokens
                .get(token)
                .is_some_and(|account| session.issued <= account.ended_until || account.ended.contains(session))
    }

    /// Ends every session of all other tokens.
    pub fn keep_only(&mut self, tokens: &[String], now: Micros) {
        let mut changed = false;
        for token in tokens {
            let account = self.accounts.tokens.entry(token.clone()).or_insert_with(|| {
                changed = true;
                Account::default()
            });
            changed |= std::mem::take(&mut account.gone);
        }
        for (token, account) in &mut self.accounts.tokens {
            if !account.gone && !tokens.contains(token) {
                let newest = account.open.last().map_or(0, |entry| entry.issued);
                *account = Account { ended_until: now.max(newest), gone: true, ..Account::default() };
                changed = true;
            }
        }
        self.accounts.prune(now - self.lifetime);
        self.dirty |= changed;
    }

    /// The file, and the version of it that has been merged.
    pub fn file(&self) -> Option<(PathBuf, Option<Version>)> {
        Some((self.file.clone()?, self.loaded_version))
    }

    /// Merges what another process has written.
    pub fn merge_file(&mut self, found: FileContents) {
        self.accounts.merge(found.accounts, self.cap, crate::units::now() - self.lifetime);
        self.loaded_version = Some(found.version);
    }

    /// The changes to write, if any.
    pub fn unsaved(&mut self) -> Option<PendingSave> {
        let file = self.file.clone().filter(|_| std::mem::take(&mut self.dirty))?;
        let oldest = crate::units::now() - self.lifetime;
        Some(PendingSave { file, accounts: self.accounts.clone(), cap: self.cap, oldest })
    }

    /// Records the result of a save; a failed one is repeated with the next change.
    pub fn saved(&mut self, found: Option<FileContents>) {
        match found {
            Some(found) => self.merge_file(found),
            None => self.dirty = true,
        }
    }
}

#[cfg(test)]
mod tests;
