//! Private files and directories of this program, and protection of its memory from core dumps.
//!
//! The spool has its own, replaceable in tests ([`crate::spool`]), with the same modes and flags.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, getegid, geteuid, set_dumpable_behavior, setrlimit, umask},
};
use uuid::Uuid;

/// Permissions of a private file.
pub const FILE_MODE: u32 = 0o600;
/// Permissions of a private directory.
pub const DIR_MODE: u32 = 0o700;
/// What the group may do with the files of a shared state directory, and with its directories.
const GROUP_READS_FILE: u32 = 0o040;
const GROUP_READS_DIR: u32 = 0o050;

/// Whether the group reads the state of this process.
static GROUP_READS: AtomicBool = AtomicBool::new(false);

/// To be called when the state directory is there: if its group may read it, and no other user, the group may read the spool, the dead letters
/// and the database in it, too. Keys stay private.
pub fn share_with_group_of(state_dir: &Path) {
    // A mode that other users share, too, is no decision about the group.
    let shares = fs::metadata(state_dir).is_ok_and(|found| found.mode() & 0o077 == GROUP_READS_DIR);
    GROUP_READS.store(shares, Ordering::Relaxed);
    umask(rustix::fs::Mode::from_raw_mode(0o777 & !dir_mode()));
}

/// Permissions of a new file of the state.
pub fn file_mode() -> u32 {
    FILE_MODE | if GROUP_READS.load(Ordering::Relaxed) { GROUP_READS_FILE } else { 0 }
}

/// Permissions of a new directory of the state.
pub fn dir_mode() -> u32 {
    DIR_MODE | if GROUP_READS.load(Ordering::Relaxed) { GROUP_READS_DIR } else { 0 }
}

/// Gives a file or directory of the state that root has made to the owner of the directory above, the user of the daemon, who could
/// not use it otherwise.
///
/// # Errors
/// Those of the file system.
pub fn give_to_owner_of_directory(made: &File, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (found, above) = (made.metadata()?, fs::metadata(directory(path))?);
    if found.uid() == 0 && above.uid() != 0 && (found.is_dir() || found.nlink() == 1) {
        fchown(made, Some(above.uid()), Some(above.gid()))?;
    }
    Ok(())
}

/// To be called once, before anything is opened: files that libraries create are private too, and neither a core dump nor a debugger
/// of the same user can read passwords and tokens in memory.
///
/// Root may still attach a debugger.
pub fn protect_process() {
    umask(rustix::fs::Mode::from_raw_mode(0o777 & !DIR_MODE));
    // The systemd unit forbids the call, and sets the same limit.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Also covers dumps that the kernel pipes to a program, which ignore that limit.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Creates a private directory and its missing parents. An existing one keeps its permissions.
///
/// # Errors
/// As [`DirBuilder::create`].
pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Creates a file with exactly this mode, whatever the umask.
///
/// # Errors
/// When the name exists, also as a symbolic link, which is not followed; and as [`OpenOptions::open`].
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Wider permissions are granted only once the file is known to be new.
    options.write(true).create_new(true).mode(FILE_MODE & mode).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path).map_err(|error| explain_link(path, error))?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Opens a lock file; creates it if it is missing.
///
/// # Errors
/// When it is a symbolic link, and as [`OpenOptions::open`].
pub fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(file_mode())
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path).map_err(|error| explain_link(path, error))?;
    give_to_owner_of_directory(&file, path)?;
    Ok(file)
}

/// Opens our own file to append to it.
///
/// # Errors
/// When it is a symbolic link, no regular file, of another user, or has a second name: another user may have put it there.
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let file = options.open(path).map_err(|error| explain_link(path, error))?;
    let metadata = file.metadata()?;
    let refused = if !metadata.is_file() {
        "it is no regular file"
    } else if metadata.uid() != geteuid().as_raw() {
        "it belongs to another user"
    } else if metadata.nlink() > 1 {
        "it has a second name (a hard link)"
    } else {
        return Ok(file);
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{refused}; remove it, or name another file")))
}

/// Replaces a small file: a temporary one beside it is written, synced and renamed, and the directory synced.
///
/// # Errors
/// Those of the file system; the file is then unchanged.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = create_new(&temporary, mode)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

/// Refuses a symbolic link in a directory that other users may write.
///
/// # Errors
/// When it is one.
pub fn refuse_planted_link(path: &Path) -> io::Result<()> {
    if !path.is_symlink() {
        return Ok(());
    }
    let metadata = fs::metadata(directory(path))?;
    let (user, owner) = (geteuid().as_raw(), metadata.uid());
    if metadata.mode() & 0o022 == 0 && (owner == user || owner == 0) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "it is a symbolic link in a directory that others may write, and is not followed",
    ))
}

/// A warning about permissions that other users have on an existing file or directory; `None` where they are harmless.
///
/// Reading a directory is no danger, because its files are private. Our own groups are trusted: Kubernetes gives the files of a
/// volume to one, and its members administer a daemon. Root looks at the files of others, and trusts their groups to read.
pub fn exposure(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let who = match () {
        () if is_own_group(metadata.gid()) => 0o007,
        () if geteuid().is_root() => 0o037,
        () => 0o077,
    };
    let danger = if metadata.is_dir() { 0o022 } else { 0o066 };
    let open = metadata.mode() & who & danger;
    if open == 0 {
        return None;
    }
    let verb = if open & 0o022 == 0 { "read" } else { "write" };
    let (path, mode, take) = (path.display(), metadata.mode() & 0o7777, if metadata.is_dir() { "go-w" } else { "go=" });
    Some(format!("other users may {verb} `{path}` (mode {mode:04o}); `chmod {take} '{path}'` mends it"))
}

fn is_own_group(gid: u32) -> bool {
    let more = rustix::process::getgroups().unwrap_or_default();
    more.iter().map(|group| group.as_raw()).chain([getegid().as_raw()]).any(|own| own == gid)
}

/// Renames a file or directory to a name that is free.
///
/// # Errors
/// When the name is taken, and those of the file system.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system has it.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// Makes created, renamed and removed names of a directory durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The same for the directory that a file is in.
///
/// # Errors
/// Those of the file system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_dir(directory(path))
}

/// The directory that a file is in.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{}.tmp", Uuid::new_v4().simple()))
}

/// Names the symbolic link, for which the system says "too many levels" or "exists".
fn explain_link(path: &Path, error: io::Error) -> io::Error {
    if path.is_symlink() {
        return io::Error::new(io::ErrorKind::AlreadyExists, "it is a symbolic link, which is not followed");
    }
    error
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn created_files_are_private_unless_asked() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_dir(&inner).unwrap();
        assert_eq!([mode(&inner), mode(&dir.path().join("a"))], [DIR_MODE; 2]);
        create_new(&inner.join("own"), FILE_MODE).unwrap();
        create_new(&inner.join("shared"), 0o664).unwrap();
        replace(&inner.join("replaced"), b"1", FILE_MODE).unwrap();
        replace(&inner.join("replaced"), b"2", FILE_MODE).unwrap();
        assert_eq!(["own", "shared", "replaced"].map(|name| mode(&inner.join(name))), [0o600, 0o664, 0o600]);
        assert_eq!(fs::read(inner.join("replaced")).unwrap(), b"2");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        fs::write(&victim, "theirs").unwrap();
        for target in [&victim, &dir.path().join("nothing")] {
            symlink(target, &link).unwrap();
            assert!(create_new(&link, FILE_MODE).unwrap_err().to_string().contains("symbolic link"));
            assert!(open_own(&link).unwrap_err().to_string().contains("symbolic link"));
            // The link itself is replaced, not what it names.
            replace(&link, b"ours", FILE_MODE).unwrap();
            assert!(!link.is_symlink() && fs::read(&link).unwrap() == b"ours");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read(&victim).unwrap(), b"theirs");
        fs::hard_link(&victim, &link).unwrap();
        assert!(open_own(&link).unwrap_err().to_string().contains("hard link"));
        fs::remove_file(&link).unwrap();
        assert!(open_own(&victim).is_ok());
    }

    #[test]
    fn a_link_is_refused_where_others_may_have_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("/etc/hostname", &link).unwrap();
        for (mode, fine) in [(0o700, true), (0o755, true), (0o775, false), (0o1777, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(refuse_planted_link(&link).is_ok(), fine, "{mode:o}");
        }
        assert!(refuse_planted_link(&dir.path().join("absent")).is_ok());
    }

    #[test]
    fn dangerous_permissions_are_reported_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, mode, words) in [
            (dir.path(), 0o755, ""),
            (dir.path(), 0o770, ""),
            (dir.path(), 0o1777, "may write"),
            (&*file, 0o600, ""),
            (&*file, 0o640, ""),
            (&*file, 0o644, "may read"),
            (&*file, 0o602, "may write"),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let found = exposure(path).unwrap_or_default();
            assert!(found.contains(words) && found.is_empty() == words.is_empty(), "{mode:o}: {found}");
        }
        assert_eq!(exposure(&dir.path().join("absent")), None);
    }
}
