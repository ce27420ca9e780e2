//! The file of the ledger. A writer holds the lock file beside it from reading to writing, so that no change of another process is
//! lost. All functions block on the disk, and must not run on the runtime's threads.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::accounts::{Accounts, ENDED_MAX};
use crate::{api::auth::session::key::write_new, files, units::Micros};

/// Maximum size of the file: more than a full ledger of two hundred tokens.
const BYTES_MAX: usize = 8 << 20;

/// A version of the file: its inode and time.
pub type Version = (u64, i64, i64);

/// A version of the file, and its content.
#[derive(Debug)]
pub struct FileContents {
    pub(super) version: Version,
    pub(super) accounts: Accounts,
}

fn version(metadata: &fs::Metadata) -> Version {
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

/// Reads the file, unless it is still the version `seen`.
pub fn read(file: &Path, seen: Option<Version>) -> Option<FileContents> {
    let metadata = fs::metadata(file).ok()?;
    if Some(version(&metadata)) == seen {
        return None;
    }
    let read = File::open(file).and_then(|open| Ok((version(&open.metadata()?), parse(open)?)));
    let (version, accounts) = read.unwrap_or_else(|error| {
        warn!(%error, file = %file.display(), "the list of ended sessions cannot be read: every session ends");
        (version(&metadata), Accounts { ended_until: crate::units::now(), ..Accounts::default() })
    });
    Some(FileContents { version, accounts })
}

fn parse(file: File) -> io::Result<Accounts> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// Changes to write.
#[derive(Debug)]
pub struct PendingSave {
    pub(super) file: PathBuf,
    pub(super) accounts: Accounts,
    pub(super) cap: usize,
    pub(super) oldest: Micros,
}

impl PendingSave {
    /// Merges these changes into the file. `None`: the file is unchanged.
    pub fn save(mut self) -> Option<FileContents> {
        match self.write() {
            Ok(version) => Some(FileContents { version, accounts: self.accounts }),
            Err(error) => {
                let file = self.file.display();
                warn!(%error, %file, "the list of ended sessions is not on disk: it ends with this process");
                None
            }
        }
    }

    fn write(&mut self) -> io::Result<Version> {
        let lock = files::open_lock(&self.file.with_extension("lock"))?;
        lock.lock()?;
        if let Some(theirs) = read(&self.file, None) {
            self.accounts.merge(theirs.accounts, self.cap, self.oldest);
        }
        let bytes = self.bounded();
        let new = write_new(&self.file, &bytes)?;
        let version = version(&fs::metadata(&new)?);
        fs::rename(new, &self.file)?;
        Ok(version)
    }

    /// The text of the file, within [`BYTES_MAX`]: with too many tokens, fewer sessions of each are kept, and older ones have
    /// ended.
    fn bounded(&mut self) -> Vec<u8> {
        let cap = self.cap;
        let bounds = [(cap, ENDED_MAX), (cap, 64), (cap, 16), (cap.min(64), 4), (cap.min(8), 0), (1, 0)];
        self.accounts.prune(self.oldest);
        for (open, ended) in bounds {
            for account in self.accounts.tokens.values_mut() {
                account.trim(open, ended, self.oldest);
            }
            let bytes = self.bytes();
            if bytes.len() <= BYTES_MAX {
                return bytes;
            }
        }
        let newest = self.accounts.tokens.values().map(|account| account.ended_until).max().unwrap_or(0);
        let ended_until = self.accounts.ended_until.max(newest);
        self.accounts = Accounts { ended_until, ..Accounts::default() };
        self.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.accounts).expect("strings and numbers always serialise")
    }
}
