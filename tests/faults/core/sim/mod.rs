//! A file system in memory with a page cache: a power cut loses any subset of the unsynced data.
//!
//! * A write is visible at once and durable after the file's sync. Until then a power cut keeps or loses each of its 512-byte
//!   sectors by itself, and the old or the new length.
//! * A name that was created, moved or removed is durable after the sync of its directory. Until then each of these changes is
//!   kept or lost by itself.
//! * A failed sync drops the pages that it could not write, as Linux does: the bytes stay visible, never reach the disk, and the next sync
//!   succeeds without them.
//! * A full disk takes the part of a write that fits. A read-only one takes nothing.
//! * At a chosen operation the machine stops: this and all later operations fail and change nothing (a write in progress may have
//!   got anywhere).
//!
//! Directories themselves are durable at once.

mod file;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use self::file::{Node, SimFile};
use crate::{
    random::Random,
    spool::disk::{Disk, Files, Mode, OpenFile, Stat},
};

/// Injected faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// No more than so many bytes in all files.
    pub space: Option<u64>,
    pub read_only: bool,
    /// So many syncs fail, of files and of directories.
    pub syncs: u32,
    /// So many writes fail half-way.
    pub writes: u32,
    /// The machine stops at this operation.
    pub stop_in: Option<u32>,
    pub stopped: bool,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// kill -9: the page cache survives.
    Killed,
    /// Power cut: the page cache is lost.
    PowerCut,
}

#[derive(Clone, Debug)]
enum Change {
    Made(PathBuf, usize),
    Removed(PathBuf),
    Moved(PathBuf, PathBuf, usize),
}

impl Change {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Made(path, _) | Self::Removed(path) => path.parent() == Some(dir),
            Self::Moved(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Removed(path) => {
                names.remove(path);
            }
            Self::Moved(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    dirs: Vec<PathBuf>,
    faults: Faults,
}

/// The file system. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Sim(Arc<Mutex<State>>);

impl Sim {
    /// The disk to open a spool on.
    pub fn disk(&self) -> Disk {
        Disk::new(Arc::new(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    pub fn stopped(&self) -> bool {
        self.lock().faults.stopped
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// An independent copy of content and damage without further faults, as the next process finds it.
    pub fn after(&self, end: End, random: &mut Random) -> Self {
        let mut state = self.lock().clone();
        state.faults = Faults::default();
        for node in &mut state.nodes {
            node.lock = Weak::new();
            match end {
                End::PowerCut => node.lose(random),
                // Pages that a failed sync has dropped look clean: see the module doc of the model.
                End::Killed => node.old.values_mut().for_each(|(_, dropped)| *dropped = false),
            }
        }
        if end == End::PowerCut {
            let changes = std::mem::take(&mut state.changes);
            changes.iter().filter(|_| random.coin()).for_each(|change| change.apply(&mut state.durable));
            state.names = state.durable.clone();
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// All of it is durable; independent of this one.
    pub fn copy(&self) -> Self {
        let mut state = self.lock().clone();
        state.settle();
        state.faults = Faults::default();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The names in a directory, in order.
    pub fn names(&self, dir: &Path) -> Vec<PathBuf> {
        self.lock().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()
    }

    pub fn get(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|node| state.nodes[*node].bytes.clone())
    }

    /// Changes the content of a file without an operation.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let node = match state.names.get(path) {
            Some(node) => *node,
            None => state.make(path),
        };
        change(&mut state.nodes[node].bytes);
        state.settle();
    }

    pub fn delete(&self, path: &Path) {
        let mut state = self.lock();
        state.names.remove(path);
        state.settle();
    }

    /// A second name for a file.
    pub fn link(&self, from: &Path, to: &Path) {
        let mut state = self.lock();
        let node = state.names[from];
        state.names.insert(to.to_owned(), node);
        state.settle();
    }
}

impl State {
    fn settle(&mut self) {
        self.changes.clear();
        self.durable = self.names.clone();
        for node in &mut self.nodes {
            node.old.clear();
            node.durable = node.bytes.len();
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|node| self.nodes[*node].bytes.len() as u64).sum()
    }

    fn make(&mut self, path: &Path) -> usize {
        self.nodes.push(Node::default());
        let node = self.nodes.len() - 1;
        self.change(Change::Made(path.to_owned(), node));
        node
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// Counts an operation; an error when the machine has stopped.
    fn enter(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.faults.stop_in {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.faults.stopped = true,
            }
        }
        if self.faults.stopped { Err(io::Error::other("the machine has stopped")) } else { Ok(()) }
    }

    fn alter(&mut self) -> io::Result<()> {
        self.enter()?;
        if self.faults.read_only { Err(ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn sync_fails(&mut self) -> bool {
        let fails = self.faults.syncs > 0;
        self.faults.syncs = self.faults.syncs.saturating_sub(1);
        fails
    }

    fn stat(&self, node: usize) -> Stat {
        Stat { bytes: self.nodes[node].bytes.len() as u64, is_file: true, id: (0, node as u64), modified: 0 }
    }
}

impl Files for Sim {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<OpenFile> {
        let mut state = self.lock();
        let known = state.names.get(path).copied();
        if mode == Mode::Read {
            state.faults.stopped.then_some(()).map_or(Ok(()), |()| Err(io::Error::other("the machine has stopped")))?;
        } else {
            state.alter()?;
        }
        let node = match (known, mode) {
            (Some(_), Mode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(node), _) => node,
            (None, Mode::Read | Mode::ReadWrite) => return Err(ErrorKind::NotFound.into()),
            (None, _) if !state.dirs.iter().any(|dir| path.parent() == Some(dir)) => {
                return Err(ErrorKind::NotFound.into());
            }
            (None, _) if state.faults.space.is_some_and(|space| state.used() >= space) => {
                return Err(ErrorKind::StorageFull.into());
            }
            (None, _) => state.make(path),
        };
        Ok(Box::new(SimFile::new(self.clone(), node)))
    }

    fn open_dir(&self, _: &Path) -> io::Result<OpenFile> {
        // The lock file suffices: it is never deleted here.
        Err(ErrorKind::Unsupported.into())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.dirs.iter().any(|known| known == dir) {
            state.alter()?;
            state.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.enter()?;
        if state.sync_fails() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.changes).into_iter().partition(|change| change.is_in(dir));
        state.changes = rest;
        synced.iter().for_each(|change| change.apply(&mut state.durable));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Stat)>> {
        let state = self.lock();
        if !state.dirs.iter().any(|known| known == dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside.map(|(path, node)| (path.clone(), state.stat(*node))).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let state = self.lock();
        match state.names.get(path) {
            Some(node) => Ok(state.stat(*node)),
            None if state.dirs.iter().any(|dir| dir == path) => {
                Ok(Stat { bytes: 0, is_file: false, id: (1, 0), modified: 0 })
            }
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alter()?;
        let node = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        state.change(Change::Moved(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.alter()?;
        state.change(Change::Removed(path.to_owned()));
        Ok(())
    }
}
