//! One file of the file system in memory: its pages, clean or dirty, and a handle to it.

use std::{
    collections::BTreeMap,
    fs::TryLockError,
    io::{self, ErrorKind},
    sync::{Arc, Weak},
};

use super::Sim;
use crate::{
    random::Random,
    spool::disk::{Handle, Stat},
};

const SECTOR: usize = 512;

/// The page cache of a file, and its content on the disk.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub bytes: Vec<u8>,
    /// Length on the disk.
    pub durable: usize,
    /// Content on the disk of the sectors that differ; `true`: a failed sync has dropped the new content.
    pub old: BTreeMap<usize, (Vec<u8>, bool)>,
    pub lock: Weak<()>,
}

impl Node {
    fn save(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let (start, end) = (sector * SECTOR, (sector + 1) * SECTOR);
            let saved = || {
                let mut content = self.bytes.get(start..end.min(self.bytes.len())).unwrap_or_default().to_vec();
                content.resize(SECTOR, 0);
                content
            };
            self.old.entry(sector).and_modify(|(_, dropped)| *dropped = false).or_insert_with(|| (saved(), false));
        }
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        self.save(at, at + bytes.len());
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.old.retain(|_, (_, dropped)| *dropped);
        self.durable = self.bytes.len();
    }

    pub fn lose(&mut self, random: &mut Random) {
        for (sector, (content, dropped)) in std::mem::take(&mut self.old) {
            if dropped || random.coin() {
                let start = sector * SECTOR;
                if self.bytes.len() < start + SECTOR && self.bytes.len() < self.durable {
                    self.bytes.resize(self.durable.min(start + SECTOR), 0);
                }
                let end = self.bytes.len().min(start + SECTOR);
                if start < end {
                    self.bytes[start..end].copy_from_slice(&content[..end - start]);
                }
            }
        }
        let (low, high) = (self.durable.min(self.bytes.len()), self.durable.max(self.bytes.len()));
        let length = match random.below(3) {
            0 => self.durable,
            1 => self.bytes.len(),
            _ => low + random.below(high - low + 1),
        };
        self.bytes.resize(length, 0);
        self.durable = length;
    }
}

/// An open file.
#[derive(Debug)]
pub struct SimFile {
    sim: Sim,
    node: usize,
    lock: Arc<()>,
}

impl SimFile {
    pub fn new(sim: Sim, node: usize) -> Self {
        Self { sim, node, lock: Arc::default() }
    }
}

impl Handle for SimFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.sim.lock();
        let content = state.nodes[self.node].bytes.get(at as usize..).unwrap_or_default();
        let length = content.len().min(bytes.len());
        bytes[..length].copy_from_slice(&content[..length]);
        Ok(length)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.sim.lock();
        let stopped_before = state.faults.stopped;
        let result = state.alter();
        if state.faults.stopped && !stopped_before {
            // Cut off in the middle.
            state.nodes[self.node].write(&bytes[..bytes.len() / 2], at as usize);
        }
        result?;
        let grown = (at as usize + bytes.len()).saturating_sub(state.nodes[self.node].bytes.len());
        let room = state.faults.space.map_or(u64::MAX, |space| space.saturating_sub(state.used()));
        let missing = grown.saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
        let failing = state.faults.writes > 0;
        state.faults.writes = state.faults.writes.saturating_sub(1);
        let written = if failing { bytes.len() / 2 } else { bytes.len() - missing.min(bytes.len()) };
        state.nodes[self.node].write(&bytes[..written], at as usize);
        match written {
            _ if failing => Err(io::Error::from_raw_os_error(5)),
            _ if missing > 0 => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.sim.lock();
        state.alter()?;
        let node = &mut state.nodes[self.node];
        let (from, to) = (node.bytes.len().min(bytes as usize), node.bytes.len().max(bytes as usize));
        node.save(from, to);
        node.bytes.resize(bytes as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.sim.lock();
        state.enter()?;
        let fails = state.sync_fails();
        let node = &mut state.nodes[self.node];
        if fails {
            node.old.values_mut().for_each(|(_, dropped)| *dropped = true);
            return Err(io::Error::from_raw_os_error(5));
        }
        node.sync();
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.sim.lock().stat(self.node))
    }

    fn try_lock(&self) -> Result<(), TryLockError> {
        let mut state = self.sim.lock();
        let holder = &mut state.nodes[self.node].lock;
        match holder.upgrade() {
            Some(other) if !Arc::ptr_eq(&other, &self.lock) => Err(TryLockError::WouldBlock),
            _ => {
                *holder = Arc::downgrade(&self.lock);
                Ok(())
            }
        }
    }
}
