//! Limits of the process: files, memory. Those of the running daemon where they can be read, else those of this command.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{Finding, Report, bytes};
use crate::config::Settings;

const AREA: &str = "process";

/// Open files beside connections: segments, database, sockets of both servers, log.
const FILES_BESIDE: u64 = 128;
/// Memory beside the bounds of the settings: program, threads, allocator, large values.
const MEMORY_BESIDE: u64 = 96 << 20;
/// A process reserves several times what it uses.
const ADDRESS_SPACE: u64 = 2 << 30;
/// Of a limit that is none.
const UNLIMITED: u64 = 1 << 60;

pub(super) fn examine(settings: &Settings, holder: Option<&str>) -> Report {
    let mut report = Report::default();
    let daemon = holder.map(str::trim).filter(|pid| pid.parse::<u32>().is_ok());
    let (whose, limits) = match daemon.and_then(|pid| Some((pid, Limits::read(pid)?))) {
        Some((pid, limits)) => (format!("the daemon (process {pid})"), Some((pid, limits))),
        None => ("this command".to_owned(), Limits::read("self").map(|limits| ("self", limits))),
    };
    let Some((pid, limits)) = limits else {
        report.push(Finding::unknown(AREA, "limits of the process could not be read").evidence("/proc/self/limits"));
        return report;
    };
    if daemon.is_some() && pid == "self" {
        let what = "limits of the running daemon could not be read; those of this command were looked at";
        report.push(Finding::unknown(AREA, what).fix("run doctor as root"));
    }
    report.extend(limits.findings(settings, &whose));
    let group = memory_limit(pid);
    let shown = group.as_ref().map_or("none".to_owned(), |(limit, _)| bytes(*limit));
    report.saw(format!(
        "limits of {whose}: {} open files, memory of its cgroup: {shown}",
        limits.shown("Max open files")
    ));
    report.extend(group.and_then(|(limit, file)| memory(settings, limit, &format!("{}: {limit}", file.display()))));
    report
}

/// The soft limits of a process.
struct Limits(HashMap<String, u64>);

impl Limits {
    fn read(pid: &str) -> Option<Self> {
        fs::read_to_string(format!("/proc/{pid}/limits")).ok().map(|text| Self::parse(&text))
    }

    /// Lines such as `Max open files            1024                 524288               files`.
    fn parse(text: &str) -> Self {
        let limit = |line: &str| {
            let (name, values) = line.split_at_checked(26)?;
            let soft = values.split_whitespace().next()?;
            Some((name.trim().to_owned(), soft.parse().unwrap_or(u64::MAX)))
        };
        Self(text.lines().skip(1).filter_map(limit).collect())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(u64::MAX)
    }

    fn shown(&self, name: &str) -> String {
        match self.get(name) {
            u64::MAX => "unlimited".to_owned(),
            limit => limit.to_string(),
        }
    }

    fn findings(&self, settings: &Settings, whose: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let needed = needed_files(settings);
        let files = self.get("Max open files");
        if files < needed {
            let what =
                "the process may open fewer files than its connections and segments need: connections and writes fail";
            let fix =
                format!("`ulimit -n {}`, or `LimitNOFILE=65536` in the unit", needed.next_power_of_two().max(4_096));
            let evidence = format!("{files} open files are permitted to {whose}, {needed} may be needed");
            findings.push(Finding::loses(AREA, what).fix(fix).evidence(evidence));
        }
        let size = self.get("Max file size");
        if size < settings.spool.segment.0 {
            let what =
                "the process may not write files as long as a segment of the spool: what is received is in memory only";
            let evidence = format!(
                "files of {} are permitted to {whose}; `spool.segment` is {}",
                bytes(size),
                settings.spool.segment
            );
            findings.push(
                Finding::stops(AREA, what)
                    .fix("`ulimit -f unlimited`, or `LimitFSIZE=infinity` in the unit")
                    .evidence(evidence),
            );
        }
        let space = self.get("Max address space");
        if space < ADDRESS_SPACE {
            let what = "the address space of the process is limited: it ends when it asks for more";
            let evidence =
                format!("{} are permitted to {whose}; it reserves up to {}", bytes(space), bytes(ADDRESS_SPACE));
            findings.push(
                Finding::loses(AREA, what)
                    .fix("`ulimit -v unlimited`; bound the memory by a cgroup (`MemoryMax=512M`)")
                    .evidence(evidence),
            );
        }
        findings
    }
}

fn needed_files(settings: &Settings) -> u64 {
    let http = if settings.http.listen.is_empty() {
        0
    } else {
        settings.http.connections + settings.http.reserved_connections + 32
    };
    http as u64 + FILES_BESIDE
}

/// What the bounds of the settings come to.
fn bound(settings: &Settings) -> u64 {
    let http = if settings.http.listen.is_empty() { 0 } else { settings.http.memory.0 + settings.http.stream_buffer.0 };
    settings.redis.queue_bytes.0 + settings.spool.memory.0 + settings.writer.memory.0 + http + MEMORY_BESIDE
}

fn memory(settings: &Settings, limit: u64, evidence: &str) -> Option<Finding> {
    let bound = bound(settings);
    (limit < bound).then(|| {
        let what = format!(
            "the cgroup permits {}, and the bounds of the settings come to {}: the kernel kills the daemon under load, and what is not \
             durable yet is lost",
            bytes(limit),
            bytes(bound)
        );
        let fix = "raise the limit (`MemoryMax=512M`, `limits.memory: 512Mi`), or lower `redis.queue_bytes`, \
                   `spool.memory` and `http.memory`";
        Finding::loses(AREA, what).fix(fix).evidence(evidence)
    })
}

/// The lowest limit of memory of the cgroups of a process, and the file that says so.
fn memory_limit(pid: &str) -> Option<(u64, PathBuf)> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let files = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        Some(limits_of(Path::new(root), path, file))
    });
    files.flatten().filter(|(limit, _)| *limit < UNLIMITED).min()
}

/// The limits of a cgroup and of those above it. In a container the path is that of the host, and the root is its own.
fn limits_of(root: &Path, path: &str, file: &str) -> Vec<(u64, PathBuf)> {
    let own = root.join(path.trim_start_matches('/'));
    let files = own.ancestors().take_while(|dir| dir.starts_with(root)).map(|dir| dir.join(file));
    files.filter_map(|file| Some((fs::read_to_string(&file).ok()?.trim().parse().ok()?, file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max file size             unlimited            unlimited            bytes     
Max open files            256                  524288               files     
Max address space         1073741824           unlimited            bytes     
";

    #[test]
    fn limits_are_read_and_judged() {
        let limits = Limits::parse(LIMITS);
        assert_eq!((limits.get("Max open files"), limits.get("Max file size")), (256, u64::MAX));
        let found = limits.findings(&Settings::default(), "x");
        let words: Vec<_> = found.iter().map(|finding| finding.what.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(words, ["may", "space"], "{found:?}");
    }

    #[test]
    fn the_shipped_limits_hold_the_bounds() {
        let settings = Settings::default();
        assert!(memory(&settings, 512 << 20, "").is_none(), "{}", bytes(bound(&settings)));
        assert!(memory(&settings, 200 << 20, "").is_some());
        assert!(needed_files(&settings) < 1_024, "the default of most systems");
    }
}
