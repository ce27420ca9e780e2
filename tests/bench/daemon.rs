//! The daemon under measurement, seen from outside: its process times, its memory, its own counters.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Error, resp::http_get};

/// A running release build; killed when dropped.
pub struct Daemon {
    child: Child,
    http: u16,
    /// Removed with it, where it is its own.
    state: Option<tempfile::TempDir>,
}

/// User and system time so far, in microseconds.
pub type Cpu = f64;

/// What a daemon is told beside its defaults.
pub type Environment = Vec<(&'static str, String)>;

const BINARY: &str = env!("CARGO_BIN_EXE_cascor-ingest");

/// A directory on the disk of the build.
pub fn directory() -> Result<tempfile::TempDir, Error> {
    Ok(tempfile::Builder::new().prefix("cascor-bench-").tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?)
}

/// The settings of a daemon between this Redis and this Cassandra. It answers HTTP on the port behind that of Redis.
pub fn environment(state: &Path, redis_port: u16, cassandra: &str, keyspace: &str) -> Environment {
    vec![
        ("CASCOR_INGEST__STATE_DIR", state.display().to_string()),
        ("CASCOR_INGEST__REDIS__URL", format!("redis://127.0.0.1:{redis_port}/0")),
        ("CASCOR_INGEST__HTTP__LISTEN", format!("127.0.0.1:{}", redis_port + 1)),
        ("CASCOR_INGEST__STORE__KIND", "cassandra".into()),
        ("CASCOR_INGEST__STORE__CASSANDRA__CONTACT_POINTS", cassandra.into()),
        ("CASCOR_INGEST__STORE__CASSANDRA__KEYSPACE", keyspace.into()),
    ]
}

impl Daemon {
    /// Starts it against this Redis and Cassandra, and waits until it is ready.
    pub fn start(redis_port: u16, cassandra: &str, keyspace: &str) -> Result<Self, Error> {
        let state = directory()?;
        let environment = environment(state.path(), redis_port, cassandra, keyspace);
        let apply =
            Command::new(BINARY).args(["schema", "apply", "--wait", "60s"]).envs(environment.clone()).output()?;
        if !apply.status.success() {
            return Err(format!("schema apply failed: {}", String::from_utf8_lossy(&apply.stderr)).into());
        }
        let mut daemon = Self::launch(state.path(), redis_port, &environment)?;
        daemon.state = Some(state);
        daemon.wait_ready(Duration::from_secs(20))?;
        Ok(daemon)
    }

    /// Starts it on a state directory that stays, and waits for nothing.
    pub fn launch(state: &Path, redis_port: u16, environment: &Environment) -> Result<Self, Error> {
        let log = fs::File::create(state.join("log"))?;
        let child = Command::new(BINARY)
            .arg("run")
            .envs(environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, http: redis_port + 1, state: None })
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        while http_get(self.http, "/readyz").is_err() {
            if Instant::now() > deadline {
                return Err("the daemon did not become ready".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The status object.
    pub fn status(&self) -> Result<serde_json::Value, Error> {
        Ok(serde_json::from_str(&http_get(self.http, "/api/status")?)?)
    }

    /// CPU time of the process and of each of its threads by name.
    pub fn cpu(&self) -> Result<(Cpu, BTreeMap<String, Cpu>), Error> {
        let process = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has just ended is no error.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
            let name = stat[stat.find('(').unwrap_or(0) + 1..stat.rfind(')').unwrap_or(0)].to_owned();
            *threads.entry(name).or_default() += ticks(&stat);
        }
        Ok((ticks(&process), threads))
    }

    /// Peak resident memory since the start, in MiB.
    pub fn peak_mib(&self) -> Result<f64, Error> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// The samples of `/metrics`, by name with labels.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>, Error> {
        let page = http_get(self.http, "/metrics")?;
        Ok(page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// utime + stime of a `/proc/…/stat` line, in microseconds (100 ticks a second).
fn ticks(stat: &str) -> Cpu {
    let fields: Vec<&str> = stat[stat.rfind(')').map_or(0, |at| at + 2)..].split(' ').collect();
    let tick = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(11) + tick(12)) * 10_000.0
}

/// A quantile of a histogram between two scrapes, interpolated within its bucket.
pub fn histogram_quantile(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, name: &str, q: f64) -> f64 {
    let prefix = format!("{name}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = after
        .iter()
        .filter_map(|(key, value)| {
            let bound = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, value - before.get(key).copied().unwrap_or(0.0)))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = buckets.last().map_or(0.0, |last| last.1) * q;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted {
            let inside = if count > below { (wanted - below) / (count - below) } else { 1.0 };
            return if bound.is_finite() { low + (bound - low) * inside } else { low };
        }
        (low, below) = (bound, count);
    }
    f64::NAN
}
