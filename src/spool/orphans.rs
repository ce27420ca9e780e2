//! Orphans: spools with pending records that no running daemon holds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::report::{Report, inspect};

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// The orphans among these directories and their `spool`, `spool*` and `*/spool`. Reads only; unreadable directories are skipped.
pub fn orphans(search_dirs: &[PathBuf], own: &Path) -> Vec<(PathBuf, Report)> {
    let own = fs::canonicalize(own).ok();
    let mut candidates = BTreeSet::new();
    for search_dir in search_dirs {
        let entries =
            fs::read_dir(search_dir).into_iter().flatten().take(ENTRIES_MAX).flatten().map(|entry| entry.path());
        let inside = entries.flat_map(|path| {
            let named = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"spool"));
            named.then(|| path.clone()).into_iter().chain([path.join("spool")])
        });
        let all = inside.chain([search_dir.clone()]).filter_map(|path| fs::canonicalize(path).ok());
        candidates.extend(all.filter(|path| Some(path) != own.as_ref() && is_spool(path)));
    }
    candidates
        .into_iter()
        .filter_map(|dir| inspect(&dir).ok().map(|report| (dir, report)))
        .filter(|(_, report)| report.holder.is_none() && report.pending > 0)
        .collect()
}

/// Dead letters lie in segments of the same kind; only a spool names its owner, or has a checkpoint.
fn is_spool(dir: &Path) -> bool {
    dir.join("checkpoint").is_file() || dir.join("instance").is_file()
}
