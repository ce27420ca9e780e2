//! The file with the open runs, the last `seq` per run and the watermark: what a restart needs besides the log.
//!
//! One small JSON file, replaced at most once a second; while nothing is received, only the watermark moves, in a file of its own that is
//! overwritten in place without a sync (after a power cut an older one counts). It may be behind the log, never ahead of it: records from offset `as_of` on
//! are read again at the start. The log keeps them until a newer file is on disk, even when they are stored: otherwise a crash would
//! forget open runs, and report stored records as a gap in `seq`. Without a readable file the whole log is read.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::config::Config;
use crate::{
    event::Kind,
    event::Resolved,
    files,
    gaps::SeqTracker,
    logging::Chain,
    runs::{OpenRun, Resolver, RunHints, State},
    spool::disk::Disk,
    units::Micros,
};

/// Its name in the state directory.
pub const STATE_FILE: &str = "runs.json";
/// How often the file is replaced.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// The same while nothing is received: silent runs age meanwhile, and a crash forgets so much of it.
const IDLE_SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// The file of a watermark that is newer than the one in the state file: the checksum of that file, then the time.
const WATERMARK_FILE: &str = "watermark";

/// A record of the log, reduced to the fields that open runs and gaps depend on.
pub(super) struct ReplayedRecord<'a> {
    /// What was decided about it.
    pub(super) decided: Resolved,
    /// Its channel.
    pub(super) channel: &'a str,
    /// Input of the resolver; only of events.
    pub(super) hints: Option<RunHints<'a>>,
    /// Its `seq`.
    pub(super) seq: Option<i64>,
    /// The run whose gap in `seq` it reports; only of gaps.
    pub(super) reported_gap: Option<Uuid>,
}

/// Open runs of other instances, shared through Redis. Both calls are bounded in time; neither may fail the caller.
pub trait RunSharing: Send {
    /// The newest open run that an instance has shared for this channel.
    fn fetch(&mut self, channel: &str) -> Option<OpenRun>;

    /// Shares an open run.
    fn publish(&mut self, channel: &str, open: &OpenRun);

    /// Removes the run of a channel; no instance adopts it again.
    fn forget(&mut self, channel: &str);

    /// What the daemons share of a stream, as text.
    ///
    /// # Errors
    /// See [`ShareError`].
    fn fetch_shared(&mut self, _stream: &str) -> Result<Option<String>, ShareError> {
        Err(ShareError::Forbidden)
    }

    /// Replaces what they share, if it is still `before`.
    ///
    /// # Errors
    /// See [`ShareError`].
    fn exchange(&mut self, _stream: &str, _before: Option<&str>, _new: &str) -> Result<Exchanged, ShareError> {
        Err(ShareError::Forbidden)
    }
}

/// What became of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// It is replaced.
    Done,
    /// Another daemon has replaced it, by this.
    Other(Option<String>),
}

/// Why nothing can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareError {
    /// Redis does not answer: to be tried again.
    Unavailable,
    /// Redis refuses: this daemon decides alone.
    Forbidden,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    as_of: u64,
    /// The log that `as_of` belongs to; absent in files of older versions.
    #[serde(default)]
    spool: Option<Uuid>,
    /// The watermark.
    alive_at: Option<Micros>,
    runs: State,
    seqs: SeqTracker,
}

/// The offset from which a start with a file of these bytes reads the log of `spool` again; `None`: from its beginning.
pub fn recovered_from(bytes: &[u8], spool: Uuid) -> Option<u64> {
    let saved: Saved = serde_json::from_slice(bytes).ok()?;
    (saved.spool == Some(spool)).then_some(saved.as_of)
}

/// The file, and when it is due to be saved.
pub(super) struct StateFile {
    path: PathBuf,
    saved_at: Option<Instant>,
    /// When the file was replaced, and its checksum.
    replaced: Option<(Instant, u32)>,
    watermark_file: Option<File>,
    watermark: Option<Micros>,
    spool: Uuid,
    /// Only of this log.
    as_of: Option<u64>,
    fetched_channels: HashSet<String>,
    failing: bool,
    /// Bound of `fetched_channels`.
    channels_max: usize,
}

impl StateFile {
    /// Reads the file, then the records of the log behind it.
    pub(super) fn open(
        state_dir: &Path,
        spool: Uuid,
        config: &Config,
        mut recovered: impl FnMut(u64, &mut dyn FnMut(ReplayedRecord<'_>)),
    ) -> (Self, Resolver, SeqTracker) {
        let path = state_dir.join(STATE_FILE);
        let disk = Disk::default();
        disk.remove_leftovers(&path);
        let mut newer_watermark = None;
        let saved: Option<Saved> = match disk.read_all(&path) {
            Ok(bytes) => {
                newer_watermark = read_watermark(state_dir, crc32c::crc32c(&bytes));
                serde_json::from_slice(&bytes)
                    .inspect_err(
                        |error| warn!(%error, path = %path.display(), "open runs cannot be read; asking the log"),
                    )
                    .ok()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(%error, path = %path.display(), "open runs cannot be read; asking the log");
                None
            }
        };
        let watermark = saved.as_ref().and_then(|saved| newer_watermark.or(saved.alive_at));
        let of = saved.as_ref().and_then(|saved| saved.spool);
        let resumable = saved.as_ref().filter(|_| of == Some(spool)).map(|saved| saved.as_of);
        // Offsets of another log mean nothing here; newer records are found by their time.
        let other = of.is_some_and(|of| of != spool);
        let (as_of, runs, mut seqs) = match saved {
            Some(saved) => (saved.as_of, saved.runs, saved.seqs),
            None => (0, State::default(), SeqTracker::default()),
        };
        let mut resolver = Resolver::restore(config.timeouts(), runs).with_channels(config.channels_max);
        let mut newest = None;
        recovered(if other { 0 } else { as_of }, &mut |record| {
            if other && watermark.is_some_and(|alive| record.decided.received_at <= alive) {
                return;
            }
            newest = newest.max(Some(record.decided.received_at));
            if let Some(hints) = &record.hints {
                let decided = &record.decided;
                resolver.observe(record.channel, hints, decided.run_id, decided.opened_run, Duration::ZERO);
                if hints.kind == Kind::RunStart {
                    seqs.start(decided.run_id, decided.event_time, decided.received_at);
                }
            }
            if let Some(seq) = record.seq {
                seqs.observe(record.decided.run_id, seq, record.channel, record.decided.received_at);
            }
            if let Some(run) = record.reported_gap {
                seqs.mark_reported(run);
            }
        });
        // Without the file the newest record is the best estimate, although a record can come from HTTP while Redis is away.
        let watermark = watermark.or(newest);
        let file = Self {
            path,
            saved_at: None,
            replaced: None,
            watermark_file: None,
            watermark,
            spool,
            as_of: resumable,
            fetched_channels: HashSet::new(),
            failing: false,
            channels_max: config.channels_max,
        };
        (file, resolver, seqs)
    }

    /// End of the log at the last save, as found at open; `None`: the file is absent, or of another log.
    pub(super) fn as_of(&self) -> Option<u64> {
        self.as_of
    }

    pub(super) fn watermark(&self) -> Option<Micros> {
        self.watermark
    }

    /// Whether the shared run of this channel must be fetched first: once in the life of the process.
    pub(super) fn must_adopt(&mut self, channel: &str) -> bool {
        if self.fetched_channels.contains(channel) {
            return false;
        }
        if self.fetched_channels.len() >= self.channels_max {
            self.fetched_channels.clear();
        }
        self.fetched_channels.insert(channel.to_owned())
    }

    pub(super) fn save_is_due(&self) -> bool {
        self.saved_at.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL)
    }

    /// Skips a save, because the log is not durable either; the next is due after the interval.
    pub(super) fn defer_save(&mut self) {
        self.saved_at = Some(Instant::now());
    }

    /// Sets the watermark: what was published before it is durable, or recorded as a gap, once the group is synced. May go back, as
    /// clocks do.
    pub(super) fn set_watermark(&mut self, until: Micros) {
        self.watermark = Some(until);
    }

    /// Saves the watermark alone, where the file is still right but for it. If `false`, the file is to be replaced.
    pub(super) fn save_watermark(&mut self) -> bool {
        let Some((at, checksum)) = self.replaced else { return false };
        let saved = at.elapsed() < IDLE_SAVE_INTERVAL && !self.failing && self.overwrite_watermark(checksum).is_ok();
        if saved {
            self.saved_at = Some(Instant::now());
        }
        saved
    }

    fn overwrite_watermark(&mut self, checksum: u32) -> io::Result<()> {
        let text = format!("{checksum:08x} {:020}\n", self.watermark.unwrap_or(0));
        if self.watermark_file.is_none() {
            let path = self.path.with_file_name(WATERMARK_FILE);
            // A new file: the name may be anything, such as a link.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.watermark_file = Some(files::create_new(&path, files::file_mode())?),
            }
        }
        self.watermark_file.as_ref().map_or(Ok(()), |file| file.write_all_at(text.as_bytes(), 0))
    }

    /// Replaces the file durably. If `true`, the log no longer needs the records before `as_of`.
    pub(super) fn save(&mut self, runs: State, seqs: &SeqTracker, as_of: u64) -> bool {
        self.saved_at = Some(Instant::now());
        let saved = self.replace(runs, seqs, as_of);
        let done = saved.is_ok();
        self.replaced = saved.as_ref().ok().map(|checksum| (Instant::now(), *checksum));
        match saved {
            Ok(_) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(error = %Chain(&error), path = %self.path.display(), "open runs cannot be saved; trying again");
            }
            Err(_) => {}
        }
        done
    }

    /// Returns the checksum of the new file.
    fn replace(&self, runs: State, seqs: &SeqTracker, as_of: u64) -> io::Result<u32> {
        #[derive(Serialize)]
        struct Saving<'a> {
            as_of: u64,
            spool: Uuid,
            alive_at: Option<Micros>,
            runs: State,
            seqs: &'a SeqTracker,
        }
        let bytes = serde_json::to_vec(&Saving { as_of, spool: self.spool, alive_at: self.watermark, runs, seqs })?;
        Disk::default().replace(&self.path, &bytes)?;
        Ok(crc32c::crc32c(&bytes))
    }
}

/// A watermark that was saved after the state file with this checksum.
fn read_watermark(state_dir: &Path, checksum: u32) -> Option<Micros> {
    let text = Disk::default().read_all(&state_dir.join(WATERMARK_FILE)).ok()?;
    let (of, time) = std::str::from_utf8(&text).ok()?.strip_suffix('\n')?.split_once(' ')?;
    (u32::from_str_radix(of, 16) == Ok(checksum)).then(|| time.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, spool: u128, asked: &mut Option<u64>) -> StateFile {
        StateFile::open(dir, Uuid::from_u128(spool), &Config::default(), |from, _| *asked = Some(from)).0
    }

    #[test]
    fn a_watermark_of_its_own_counts_with_the_file_that_it_was_saved_after() {
        let dir = tempfile::tempdir().unwrap();
        let (mut asked, log) = (None, 1);
        let mut file = open(dir.path(), log, &mut asked);
        let save = |file: &mut StateFile, as_of| {
            let runs = Resolver::new(Config::default().timeouts()).state(Duration::ZERO);
            assert!(file.save(runs, &SeqTracker::default(), as_of));
        };
        file.set_watermark(77);
        assert!(!file.save_watermark(), "there is no file yet");
        save(&mut file, 1_000);
        for watermark in [99, 88] {
            file.set_watermark(watermark);
            assert!(file.save_watermark());
            assert_eq!(open(dir.path(), log, &mut asked).watermark(), Some(watermark));
        }
        let path = dir.path().join(WATERMARK_FILE);
        let of_before = std::fs::read(&path).unwrap();
        save(&mut file, 2_000);
        std::fs::write(&path, &of_before).unwrap();
        file.set_watermark(100);
        let read = |asked: &mut Option<u64>| open(dir.path(), log, asked).watermark();
        assert_eq!(read(&mut asked), Some(88), "of the file before: {of_before:?}");
        for broken in ["", "\0\0\0", "00000000 1\n", "zz 1\n", "1"] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(read(&mut asked), Some(88), "{broken:?}");
        }
        // A new process does not write through what is in its place.
        let target = dir.path().join("other");
        std::fs::write(&target, "untouched").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let mut file = open(dir.path(), log, &mut asked);
        save(&mut file, 3_000);
        assert!(file.save_watermark());
        assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
    }

    #[test]
    fn an_offset_of_another_log_is_ignored_and_a_file_without_the_log_id_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = None;
        let mut file = open(dir.path(), 1, &mut asked);
        assert_eq!((asked, file.as_of()), (Some(0), None));
        file.set_watermark(77);
        assert!(file.save(
            Resolver::new(Config::default().timeouts()).state(Duration::ZERO),
            &SeqTracker::default(),
            1_000
        ));
        let again = open(dir.path(), 1, &mut asked);
        assert_eq!((asked, again.as_of(), again.watermark()), (Some(1_000), Some(1_000), Some(77)));
        let other = open(dir.path(), 2, &mut asked);
        assert_eq!((asked, other.as_of(), other.watermark()), (Some(0), None, Some(77)));
        let path = dir.path().join("runs.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("spool").unwrap();
        std::fs::write(&path, json.to_string()).unwrap();
        let old = open(dir.path(), 1, &mut asked);
        assert_eq!((asked, old.as_of(), old.watermark()), (Some(1_000), None, Some(77)));
    }
}
