//! Which sessions have ended, whatever Redis says: a client of Redis may write a deleted session back, or keep it from expiring.
//!
//! For each token it holds the open sessions, the newest `http.sessions` of them, those that were signed out, and a time: what
//! was begun up to then has ended. The time moves when the list of either is full, and to the present when the token is taken
//! out of the file, so that the ledger is bounded and errs on the side of ending. It is a file of the state directory; processes
//! that share the directory share it. A daemon on another machine knows only what Redis tells it.

mod disk;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use self::disk::{FileContents, PendingSave, Version, read};
use crate::units::Micros;

/// Sessions of one token that are remembered as signed out.
const ENDED_MAX: usize = 256;
/// Tokens that were taken out and are remembered; the longest gone is forgotten.
const GONE_MAX: usize = 1_024;
/// Its name in the state directory.
const FILE_NAME: &str = "sessions.json";

/// How often it is read what other processes have written of sessions.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// When it began, which no other of the token has in this process.
    pub issued: Micros,
    /// The first part of the cookie.
    pub id: String,
}

/// The sessions of one token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Account {
    /// Whatever was begun up to then has ended.
    ended_until: Micros,
    ended: Vec<Entry>,
    open: Vec<Entry>,
    /// The token is not in the file.
    gone: bool,
}

/// What the file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Accounts {
    /// As in an account, for all of them.
    ended_until: Micros,
    tokens: BTreeMap<String, Account>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    accounts: Accounts,
    cap: usize,
    lifetime: Micros,
    file: Option<PathBuf>,
    /// Which version of the file has been read.
    loaded_version: Option<Version>,
    /// The file is not as this.
    dirty: bool,
}

impl Account {
    /// Keeps within the bounds; returns the open sessions that are ended by that.
    fn trim(&mut self, cap: usize, ended: usize, oldest: Micros) -> Vec<Entry> {
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
    /// Forgets tokens that were taken out, where all of their sessions have expired by themselves, or there are too many.
    fn prune(&mut self, oldest: Micros) {
        self.tokens.retain(|_, account| !account.gone || account.ended_until > oldest);
        let gone = self.tokens.iter().filter(|(_, account)| account.gone);
        let mut gone: Vec<_> = gone.map(|(token, account)| (account.ended_until, token.clone())).collect();
        let surplus = gone.len().saturating_sub(GONE_MAX);
        gone.sort();
        for (_, token) in gone.drain(..surplus) {
            self.tokens.remove(&token);
        }
    }

    /// Takes in what another process knows: what has ended for either has ended.
    fn merge(&mut self, other: Self, cap: usize, oldest: Micros) {
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

    /// A new session of this token. Returns when it began, and those that end for it.
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

    /// Ends every session of tokens that are none of these.
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

    /// The file, and its version that has been taken in.
    pub fn file(&self) -> Option<(PathBuf, Option<Version>)> {
        Some((self.file.clone()?, self.loaded_version))
    }

    /// Takes in what another process that shares the state directory has written.
    pub fn merge_file(&mut self, found: FileContents) {
        self.accounts.merge(found.accounts, self.cap, crate::units::now() - self.lifetime);
        self.loaded_version = Some(found.version);
    }

    /// What is to be written, if anything has changed since.
    pub fn unsaved(&mut self) -> Option<PendingSave> {
        let file = self.file.clone().filter(|_| std::mem::take(&mut self.dirty))?;
        let oldest = crate::units::now() - self.lifetime;
        Some(PendingSave { file, accounts: self.accounts.clone(), cap: self.cap, oldest })
    }

    /// It is on disk; or it is not, and is to be tried again with the next change.
    pub fn saved(&mut self, found: Option<FileContents>) {
        match found {
            Some(found) => self.merge_file(found),
            None => self.dirty = true,
        }
    }
}

/// Locks it, for moments: never while the disk is waited for.
pub fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what has changed, and takes in what others have written. The ledger is not locked meanwhile.
pub fn save(ledger: &Mutex<Ledger>) {
    let unsaved = lock(ledger).unsaved();
    if let Some(unsaved) = unsaved {
        let saved = unsaved.save();
        lock(ledger).saved(saved);
    }
}

/// Takes in what other processes write, on a thread of its own: a request never waits for the disk.
pub fn watch(ledger: Weak<Mutex<Ledger>>) {
    let watches = move || {
        while let Some(ledger) = ledger.upgrade() {
            let file = lock(&ledger).file();
            if let Some(found) = file.and_then(|(file, seen)| read(&file, seen)) {
                lock(&ledger).merge_file(found);
            }
            drop(ledger);
            thread::sleep(POLL_INTERVAL);
        }
    };
    if let Err(error) = thread::Builder::new().name("sessions".into()).spawn(watches) {
        warn!(%error, "what other processes say of ended sessions is not read");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DAY: Micros = 24 * 3_600 * 1_000_000;
    const NOW: Micros = 1_000 * DAY;

    fn entry(issued: Micros, id: &str) -> Entry {
        Entry { issued, id: id.into() }
    }

    #[test]
    fn the_oldest_session_of_a_token_ends_for_one_too_many() {
        let mut ledger = Ledger::open(None, 2, DAY);
        let began = ["a", "b", "c"].map(|id| ledger.begin("ann", id, NOW));
        assert_eq!(began[2].1, [entry(NOW, "a")]);
        let ended = ["a", "b", "c"].iter().zip(&began).map(|(id, (at, _))| ledger.is_ended("ann", &entry(*at, id)));
        assert_eq!(ended.collect::<Vec<_>>(), [true, false, false]);
        assert!(!ledger.is_ended("bob", &entry(NOW, "a")), "the cap is of each token");
    }

    #[test]
    fn what_was_signed_out_stays_ended_however_many_follow() {
        let mut ledger = Ledger::open(None, 8, DAY);
        let mut all = Vec::new();
        for n in 0..2 * ENDED_MAX {
            let id = n.to_string();
            let (issued, _) = ledger.begin("ann", &id, NOW + n as Micros);
            all.push(entry(issued, &id));
            ledger.end("ann", all[n].clone(), NOW);
        }
        let (open, _) = ledger.begin("ann", "open", NOW);
        assert!(all.iter().all(|session| ledger.is_ended("ann", session)));
        assert!(!ledger.is_ended("ann", &entry(open, "open")));
        assert!(ledger.accounts.tokens["ann"].ended.len() <= ENDED_MAX);
    }

    #[test]
    fn a_token_that_was_taken_out_and_put_back_has_no_session_of_before() {
        let mut ledger = Ledger::open(None, 8, DAY);
        ledger.keep_only(&["ann".into(), "eve".into()], NOW);
        let (issued, _) = ledger.begin("ann", "a", NOW);
        ledger.keep_only(&["bob".into()], NOW + 5);
        ledger.keep_only(&["ann".into(), "bob".into(), "eve".into()], NOW + 10);
        assert!(ledger.is_ended("ann", &entry(issued, "a")));
        assert!(ledger.is_ended("eve", &entry(NOW + 1, "of another daemon")));
        assert!(!ledger.is_ended("bob", &entry(NOW + 1, "of another daemon")));
        let (again, _) = ledger.begin("ann", "b", NOW);
        assert!(again > NOW + 5 && !ledger.is_ended("ann", &entry(again, "b")), "also when the clock was set back");
    }

    #[test]
    fn processes_that_share_the_directory_share_it_and_a_broken_file_ends_everything() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::units::now();
        let save = |ledger: &mut Ledger| {
            let saved = ledger.unsaved().unwrap().save();
            assert!(saved.is_some());
            ledger.saved(saved);
            assert!(ledger.unsaved().is_none(), "nothing has changed since");
        };
        let mut one = Ledger::open(Some(dir.path()), 8, DAY);
        let mut other = Ledger::open(Some(dir.path()), 8, DAY);
        let (a, _) = one.begin("ann", "a", now);
        save(&mut one);
        let (b, _) = other.begin("ann", "b", now);
        save(&mut other);
        one.end("ann", entry(b, "b"), now);
        save(&mut one);
        assert!(!other.is_ended("ann", &entry(b, "b")), "not read yet");
        // Both write at once, and neither loses what is the other's.
        let (c, _) = other.begin("ann", "c", now);
        other.end("ann", entry(c, "c"), now);
        save(&mut other);
        assert!(other.is_ended("ann", &entry(b, "b")));
        let (file, seen) = one.file().unwrap();
        one.merge_file(read(&file, seen).expect("it is another version"));
        assert!(one.is_ended("ann", &entry(c, "c")));
        let (file, seen) = one.file().unwrap();
        assert!(read(&file, seen).is_none(), "it is the same version");
        assert!(other.is_ended("ann", &entry(b, "b")) && !other.is_ended("ann", &entry(a, "a")));
        let later = Ledger::open(Some(dir.path()), 8, DAY);
        assert!(later.is_ended("ann", &entry(c, "c")));
        assert!(later.is_ended("ann", &entry(b, "b")) && !later.is_ended("ann", &entry(a, "a")));
        fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        assert!(Ledger::open(Some(dir.path()), 8, DAY).is_ended("ann", &entry(a, "a")));
    }

    #[test]
    fn what_is_written_can_be_read_again_however_many_tokens_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::units::now();
        let mut ledger = Ledger::open(Some(dir.path()), 8, DAY);
        for token in 0..400 {
            let account = ledger.accounts.tokens.entry(format!("{token:064}")).or_default();
            account.ended = (0..ENDED_MAX as Micros).map(|n| entry(now - 1_000 + n, &format!("{n:064}"))).collect();
            account.open = vec![entry(now, "open")];
        }
        ledger.dirty = true;
        let saved = ledger.unsaved().unwrap().save();
        ledger.saved(Some(saved.expect("it is written")));
        let later = Ledger::open(Some(dir.path()), 8, DAY);
        assert_eq!(later.accounts.ended_until, 0, "it was read");
        for token in ["0", "399"].map(|token| format!("{token:0>64}")) {
            assert!(!later.is_ended(&token, &entry(now, "open")));
            let ended = (0..ENDED_MAX as Micros).map(|n| entry(now - 1_000 + n, &format!("{n:064}")));
            assert!(ended.into_iter().all(|session| later.is_ended(&token, &session)));
        }
    }
}
