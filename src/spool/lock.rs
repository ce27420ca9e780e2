//! The lock of a spool: one process at a time appends to it.

use std::{fs::TryLockError, path::Path, thread, time::Duration};

use super::{
    SpoolError,
    disk::{Disk, Handle, OpenFile},
};

/// A process that only reads a spool holds its lock for an instant.
const LOCK_TRIES: u32 = 5;

/// A spool that no daemon can open while this exists.
#[derive(Debug)]
pub struct Held {
    _lock: [Option<OpenFile>; 2],
}

/// Holds the spool in an existing directory without opening it.
///
/// # Errors
/// When another process holds it, or the lock file cannot be made.
pub fn hold(dir: &Path) -> Result<Held, SpoolError> {
    lock(&Disk::default(), dir).map(|lock| Held { _lock: lock })
}

/// Locks the file that names the holder, and the directory too: a lock on a file that was deleted or replaced protects nothing.
pub(super) fn lock(disk: &Disk, dir: &Path) -> Result<[Option<OpenFile>; 2], SpoolError> {
    let path = dir.join("lock");
    let failed = |error| SpoolError::Lock { path: path.clone(), error };
    // Not every file system locks directories.
    let locked_dir = disk.open_dir(dir).ok();
    if let Some(locked_dir) = &locked_dir
        && let Err(TryLockError::WouldBlock) = try_lock(&**locked_dir)
    {
        return Err(locked(disk, dir, &path));
    }
    // A read-only disk has records to read, and what arrives lives in memory.
    let file = disk.open_lock(&path).map_err(failed)?;
    try_lock(&*file).map_err(|error| match error {
        TryLockError::Error(error) => failed(error),
        TryLockError::WouldBlock => locked(disk, dir, &path),
    })?;
    // For information only: the lock is the kernel's. On a full disk only the pid is missing.
    let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
    Ok([Some(file), locked_dir])
}

fn try_lock(file: &dyn Handle) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
    file.try_lock()
}

fn locked(disk: &Disk, dir: &Path, lock: &Path) -> SpoolError {
    let holder = disk.read_prefix(lock, 32).unwrap_or_default();
    SpoolError::Locked { dir: dir.to_owned(), holder: String::from_utf8_lossy(&holder).trim().to_owned() }
}
