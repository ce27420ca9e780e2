//! Metrics of the process itself, under the names that Prometheus' client libraries share. Read at each scrape.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Where the control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Shows the process metrics.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    started_at: SystemTime,
}

impl ProcessCollector {
    /// To be made at the start of the process.
    pub(super) fn new() -> Self {
        Self { started_at: SystemTime::now() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let counter = ConstCounter::new(seconds);
        let help = "User and system CPU time spent";
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?)?;
        let started = self.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        let mut gauges = Gauges(encoder);
        gauges.show(
            "process_start_time",
            "Start of the process, since the Unix epoch",
            Some(&Unit::Seconds),
            started,
        )?;
        gauges.show("process_resident_memory", "Resident memory", Some(&Unit::Bytes), resident_bytes())?;
        gauges.show("process_open_fds", "Open file descriptors", None, open_files())?;
        let files_max = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |max| max as f64);
        gauges.show("process_max_fds", "Largest number of open file descriptors", None, files_max)?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = memory_limit(&groups, Path::new(CGROUPS)).map_or(f64::INFINITY, |limit| limit as f64);
        let help = "Lowest memory limit of the control groups of the process; +Inf without one";
        gauges.show("cascor_process_memory_limit", help, Some(&Unit::Bytes), limit)
    }
}

struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn show(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeGaugeValue,
    ) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(value);
        let kind = gauge.metric_type();
        gauge.encode(self.0.encode_descriptor(name, help, unit, kind)?)
    }
}

/// `VmRSS` of the process; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1_024)
}

fn open_files() -> u64 {
    // The directory is open while it is read.
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64)
}

/// The lowest limit of the groups that `/proc/self/cgroup` lists, and of those above them. The second version of control groups has
/// a limit above which the process is slowed down, too; the first names "no limit" as a number near 2^63.
fn memory_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = |root: &Path, group: &str, file: &str| {
        let path = Path::new(group.trim_start_matches('/'));
        let read = |above: &Path| fs::read_to_string(root.join(above).join(file)).ok()?.trim().parse::<u64>().ok();
        path.ancestors().filter_map(read).filter(|limit| *limit < 1 << 60).min()
    };
    let of_group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            let files = ["memory.max", "memory.high"];
            files.into_iter().filter_map(|file| limits(mounted, group, file)).min()
        } else if controllers.split(',').any(|controller| controller == "memory") {
            limits(&mounted.join("memory"), group, "memory.limit_in_bytes")
        } else {
            None
        }
    };
    groups.lines().filter_map(of_group).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_all_control_groups_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (file, limit) in [
            ("system.slice/memory.max", "max"),
            ("system.slice/ingest.service/memory.max", "1073741824"),
            ("system.slice/ingest.service/memory.high", "805306368"),
            ("small.slice/memory.max", "1048576"),
            ("small.slice/big.service/memory.max", "2097152"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/docker/memory.limit_in_bytes", "524288"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{limit}\n")).unwrap();
        }
        for (name, groups, limit) in [
            ("no groups", "", None),
            ("no limit", "0::/\n", None),
            ("no limit, first version", "4:memory:/\n0::/\n", None),
            ("the lower one of two", "0::/system.slice/ingest.service\n", Some(805_306_368)),
            ("of the group above", "0::/small.slice/big.service\n", Some(1_048_576)),
            ("first version", "5:cpu,cpuacct:/docker\n4:memory:/docker\n", Some(524_288)),
            ("a group without a directory", "0::/gone/away\n", None),
        ] {
            assert_eq!(memory_limit(groups, dir.path()), limit, "{name}");
        }
    }
}
