//! The files of a spool at one moment, while its daemon goes on.

use std::{io, path::Path};

use super::{
    checkpoint,
    disk::{Disk, Mode, OpenFile},
    report::OWNER_FILE,
    segment,
};

/// A file as it was when it was opened: neither its removal nor its replacement changes what is read.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    /// Its path below the directory.
    pub(crate) name: String,
    pub(crate) file: OpenFile,
    /// Its length then. Bytes behind it are newer.
    pub(crate) bytes: u64,
}

/// The segments in order, then the checkpoint and the name of the owner.
#[derive(Debug)]
pub(crate) struct SpoolFiles {
    pub(crate) files: Vec<OpenedFile>,
    /// Offset of the first record of the first segment; `None`: there is no segment.
    pub(crate) first: Option<u64>,
}

/// Opens the files. The segments come first: one that is removed before it can be opened is committed, and the checkpoint, which is
/// opened last, says so.
pub(crate) fn open_files(dir: &Path) -> io::Result<SpoolFiles> {
    let disk = Disk::read_only();
    let (mut files, mut first) = (Vec::new(), None);
    for meta in segment::list(&disk, dir)? {
        if let Some(file) = open(&disk, dir, &meta.path)? {
            first.get_or_insert(meta.first);
            files.push(file);
        } else {
            // Segments are removed oldest first; those in front of it are committed, too.
            files.clear();
            first = None;
        }
    }
    for path in [checkpoint::path(dir), dir.join(OWNER_FILE)] {
        files.extend(open(&disk, dir, &path)?);
    }
    Ok(SpoolFiles { files, first })
}

/// Opens the regular files of a directory with this ending, and those below it where `deep`, in the order of their names. A
/// directory that is absent has none.
pub(crate) fn open_all(dir: &Path, ending: &str, deep: bool) -> io::Result<Vec<OpenedFile>> {
    let (disk, mut files, mut open_dirs) = (Disk::read_only(), Vec::new(), vec![dir.to_owned()]);
    while let Some(inner) = open_dirs.pop() {
        let mut found = match disk.list(&inner) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, stat) in found {
            if stat.is_file && path.as_os_str().as_encoded_bytes().ends_with(ending.as_bytes()) {
                files.extend(open(&disk, dir, &path)?);
            } else if deep && path.is_dir() && !path.is_symlink() {
                open_dirs.push(path);
            }
        }
    }
    Ok(files)
}

/// Opens a file below `dir`; `None` if it is absent.
pub(crate) fn open(disk: &Disk, dir: &Path, path: &Path) -> io::Result<Option<OpenedFile>> {
    let file = match disk.open(path, Mode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let bytes = file.stat()?.bytes;
    let name = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Some(OpenedFile { name, file, bytes }))
}
