//! The disk of the spool: its kind, its room, its speed; and permissions of the state.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Finding, Report, bytes, spool::Inspected};
use crate::{config::Settings, files, store::StoreKind};

const AREA: &str = "disk";

/// Bytes of a small group of messages.
const GROUP_BYTES: usize = 4_096;
/// Writes that are measured, and how long that may take.
const WRITES: usize = 25;
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);
/// Median time of a sync that is mentioned, and that is a fault.
const SLOW: Duration = Duration::from_millis(25);
const TOO_SLOW: Duration = Duration::from_millis(100);
/// Files that a spool needs: as many as segments, and some.
const FILES_SPARE: u64 = 100;

pub(super) fn examine(settings: &Settings, spool: &Inspected) -> Report {
    let mut report = Report::default();
    report.extend(permissions(settings));
    let dir = &settings.spool.dir;
    let Some(there) = existing(dir) else {
        report.push(
            Finding::stops(AREA, format!("no directory above `{}` exists", dir.display())).fix("set `state_dir`"),
        );
        return report;
    };
    if !there.is_dir() {
        let what = format!("`{}` is no directory, so there can be no spool", there.display());
        report.push(Finding::stops(AREA, what).fix("set `state_dir` or `spool.dir`"));
        return report;
    }
    let kind = kind_of(&there);
    report.saw(format!("disk of `{}`: {}", there.display(), kind.map_or("of an ordinary kind", |kind| kind.name)));
    report.extend(kind.and_then(|kind| kind.finding(&there)));
    if settings.store.kind == StoreKind::Sqlite {
        report.extend(database(settings));
    }
    match room(settings, &there, spool.bytes()) {
        Ok(found) => report.extend(found),
        Err(error) => {
            report.push(Finding::unknown(AREA, "the room on the disk could not be read").evidence(error.to_string()))
        }
    }
    measure(&there, &mut report);
    report
}

/// The directory itself, or the nearest one above it that is there.
fn existing(dir: &Path) -> Option<PathBuf> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().find(|path| path.exists()).map(Path::to_owned)
}

/// A kind of file system that matters.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    magic: i64,
    is: KindOf,
}

#[derive(Clone, Copy, PartialEq)]
enum KindOf {
    /// Gone with the machine's power.
    Memory,
    /// On another machine.
    Network,
    /// Perhaps a layer of a container.
    Overlay,
}

const KINDS: &[Kind] = &[
    Kind { name: "tmpfs", magic: 0x0102_1994, is: KindOf::Memory },
    Kind { name: "ramfs", magic: 0x8584_58f6, is: KindOf::Memory },
    Kind { name: "NFS", magic: 0x6969, is: KindOf::Network },
    Kind { name: "SMB", magic: 0xfe53_4d42, is: KindOf::Network },
    Kind { name: "CIFS", magic: 0xff53_4d42, is: KindOf::Network },
    Kind { name: "9P", magic: 0x0102_1997, is: KindOf::Network },
    Kind { name: "Ceph", magic: 0x00c3_6400, is: KindOf::Network },
    Kind { name: "overlay", magic: 0x794c_7630, is: KindOf::Overlay },
];

/// `None`: an ordinary disk, or not known.
fn kind_of(path: &Path) -> Option<Kind> {
    let found = statfs(path).ok()?.f_type & 0xffff_ffff;
    KINDS.iter().find(|kind| kind.magic == found).copied()
}

impl Kind {
    fn finding(self, dir: &Path) -> Option<Finding> {
        let (name, evidence) = (self.name, format!("`{}` is on {}", dir.display(), self.name));
        let fix = "set `state_dir` (or `spool.dir`) to a directory on a local disk";
        Some(match self.is {
            KindOf::Memory => {
                let what = format!(
                    "the spool is on {name}, in memory: what is not stored yet is lost with the next restart of the machine"
                );
                Finding::loses(AREA, what).fix(fix).evidence(evidence)
            }
            KindOf::Network => {
                let what = format!(
                    "the spool is on {name}: when that server is away, receiving stops at a sync, and locks may not hold"
                );
                Finding::loses(AREA, what).fix(fix).evidence(evidence)
            }
            KindOf::Overlay => {
                let what = "the spool may be in the layer of a container, which is lost with the container";
                Finding::advice(AREA, what).fix("mount a volume there").evidence(evidence)
            }
        })
    }
}

/// An SQLite file on the disk of another machine.
fn database(settings: &Settings) -> Option<Finding> {
    let path = existing(settings.store.sqlite.path.parent()?)?;
    let kind = kind_of(&path)?;
    match kind.is {
        KindOf::Network => {
            let what = format!(
                "the database is on {}, where SQLite's shared memory does not work: it may be damaged",
                kind.name
            );
            let fix = "set `store.sqlite.path` to a file on a local disk";
            Some(Finding::loses(AREA, what).fix(fix).evidence(format!("`{}` is on {}", path.display(), kind.name)))
        }
        KindOf::Memory => {
            let what =
                format!("the database is on {}, in memory: it is lost with the next restart of the machine", kind.name);
            let fix = "set `store.sqlite.path` to a file on a disk";
            Some(Finding::loses(AREA, what).fix(fix).evidence(format!("`{}` is on {}", path.display(), kind.name)))
        }
        KindOf::Overlay => None,
    }
}

/// Room for everything that the spool and the dead letters may grow to.
fn room(settings: &Settings, dir: &Path, spool_bytes: u64) -> io::Result<Vec<Finding>> {
    let disk = statvfs(dir)?;
    let mut findings = Vec::new();
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let what = "the disk of the spool is mounted read-only: what is received is in memory only, and lost once that is full";
        findings.push(
            Finding::stops(AREA, what).fix(format!("`mount -o remount,rw`, or repair the disk of `{}`", dir.display())),
        );
        return Ok(findings);
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let is_same = fs::metadata(dir)?.dev()
        == existing(&settings.dead_letter.dir).and_then(|dir| fs::metadata(dir).ok()).map_or(0, |found| found.dev());
    let spool = settings.spool.capacity.0.saturating_sub(spool_bytes);
    let letters = if is_same { settings.dead_letter.capacity.0 } else { 0 };
    let evidence = format!(
        "{} free on the disk of `{}`; `spool.capacity` is {} ({} used), `deadletter.capacity` {}",
        bytes(free),
        dir.display(),
        settings.spool.capacity,
        bytes(spool_bytes),
        settings.dead_letter.capacity
    );
    if free < spool {
        let what = format!(
            "the disk is full before the spool is: an outage of the store is survived for {} only, not for `spool.capacity`",
            bytes(free)
        );
        let fix = "free the disk, set `spool.dir` to a larger one, or lower `spool.capacity` to what there is";
        findings.push(Finding::loses(AREA, what).fix(fix).evidence(evidence));
    } else if free < spool.saturating_add(letters) {
        let what = "the disk holds the spool at its largest, but not the dead letters as well";
        findings
            .push(Finding::advice(AREA, what).fix("free the disk, or lower `deadletter.capacity`").evidence(evidence));
    }
    let segments = settings.spool.capacity.0 / settings.spool.segment.0.max(1) + FILES_SPARE;
    if disk.f_files > 0 && disk.f_favail < segments {
        let what = "the disk has hardly an inode left: the spool cannot create its segments";
        let evidence = format!("{} inodes are free, a full spool takes {segments}", disk.f_favail);
        findings.push(Finding::loses(AREA, what).fix("delete small files on that disk").evidence(evidence));
    }
    Ok(findings)
}

/// Writes and syncs a temporary file, as the spool does.
fn measure(dir: &Path, report: &mut Report) {
    let path = dir.join(format!("doctor-{}.tmp", Uuid::new_v4().simple()));
    let measured = sync_times(&path);
    // Only what this call has made.
    let _ = fs::remove_file(&path);
    let mut times = match measured {
        Ok(times) => times,
        Err(error) => {
            let evidence = format!("`{}`: {error}", path.display());
            report.push(if error.kind() == io::ErrorKind::PermissionDenied {
                let what = format!("this user may not write to `{}`: if it is the daemon's, nothing is kept on disk", dir.display());
                Finding::stops(AREA, what)
                    .fix(format!("run doctor as the user of the daemon; if it is, `chown` the directory `{}` to it", dir.display()))
                    .evidence(evidence)
            } else {
                let what = "the disk of the spool takes no write: what is received is in memory only, and lost once that is full";
                Finding::stops(AREA, what).fix("free or repair the disk").evidence(evidence)
            });
            return;
        }
    };
    times.sort_unstable();
    let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) else { return };
    let milliseconds = |time: &Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let evidence = format!(
        "{} writes of 4 KiB with fdatasync in `{}`: median {}, longest {}",
        times.len(),
        dir.display(),
        milliseconds(median),
        milliseconds(longest)
    );
    report.saw(format!("sync of the disk: median {}, longest {}", milliseconds(median), milliseconds(longest)));
    let fix = "another disk for `spool.dir`, or fewer programs that write to this one";
    if *median >= TOO_SLOW {
        let what =
            "the disk of the spool syncs so slowly that bursts wait in memory, and are lost beyond `redis.queue_bytes`";
        report.push(Finding::loses(AREA, what).fix(fix).evidence(evidence));
    } else if *median >= SLOW {
        let what = "the disk of the spool syncs slowly: a message is durable later than it could be";
        report.push(Finding::advice(AREA, what).fix(fix).evidence(evidence));
    }
}

fn sync_times(path: &Path) -> io::Result<Vec<Duration>> {
    let file = files::create_new(path, files::FILE_MODE)?;
    let (started, block) = (Instant::now(), [0x5a; GROUP_BYTES]);
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let began = Instant::now();
        file.write_all_at(&block, (n * GROUP_BYTES) as u64)?;
        file.sync_data()?;
        times.push(began.elapsed());
        if started.elapsed() > MEASURE_TIMEOUT {
            break;
        }
    }
    Ok(times)
}

/// Directories and files that other users may change or read.
fn permissions(settings: &Settings) -> Vec<Finding> {
    let (redis, cluster) = (&settings.redis, &settings.store.cassandra);
    let secrets =
        [&redis.password_file, &redis.tls.key, &cluster.password_file, &cluster.tls.key, &settings.client.token_file];
    let dirs = [&settings.state_dir, &settings.spool.dir, &settings.dead_letter.dir, &settings.store.sqlite.path];
    let exposed = dirs.into_iter().chain(secrets.into_iter().flatten());
    exposed.filter_map(|path| Some(exposure(path, files::exposure(path)?))).collect()
}

/// The finding of a warning about permissions, which ends in the command that mends it.
fn exposure(path: &Path, warning: String) -> Finding {
    let (what, command) = warning.split_once("; `").unwrap_or((&warning, ""));
    let fix =
        command.split_once('`').map_or_else(|| format!("chmod go= '{}'", path.display()), |(fix, _)| fix.to_owned());
    Finding::exposes(AREA, what.to_owned()).fix(format!("`{fix}`"))
}
