//! The measured daemon from outside: process times, memory, its own counters.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Error,
    histogram::{self, Samples},
    resp::http_get,
};

/// A running release build; killed when dropped.
pub struct Daemon {
    child: Child,
    http: u16,
    state: PathBuf,
    environment: Environment,
    /// Its temporary state directory, if it has one.
    _own: Option<tempfile::TempDir>,
}

/// Where it stores.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// A file in its state directory.
    Sqlite,
    /// A node (host:port) and the keyspace, which is created.
    Cassandra { address: &'a str, keyspace: &'a str },
}

/// User and system time so far, in microseconds.
pub type Cpu = f64;

/// Settings of a daemon.
pub type Environment = Vec<(&'static str, String)>;

/// The setting of its own address.
pub const LISTEN: &str = "CASCOR_INGEST__HTTP__LISTEN";

/// The release build.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cascor-ingest");

/// A directory on the disk of the build.
pub fn directory() -> Result<tempfile::TempDir, Error> {
    Ok(tempfile::Builder::new().prefix("cascor-bench-").tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?)
}

/// The settings of a daemon between this Redis and this store. It answers HTTP on the port after that of Redis.
pub fn environment(state: &Path, redis_port: u16, store: Store<'_>) -> Environment {
    let mut environment = vec![
        ("CASCOR_INGEST__STATE_DIR", state.display().to_string()),
        ("CASCOR_INGEST__REDIS__URL", format!("redis://127.0.0.1:{redis_port}/0")),
        (LISTEN, format!("127.0.0.1:{}", redis_port + 1)),
    ];
    match store {
        Store::Sqlite => environment.push(("CASCOR_INGEST__STORE__KIND", "sqlite".into())),
        Store::Cassandra { address, keyspace } => environment.extend([
            ("CASCOR_INGEST__STORE__KIND", "cassandra".into()),
            ("CASCOR_INGEST__STORE__CASSANDRA__CONTACT_POINTS", address.into()),
            ("CASCOR_INGEST__STORE__CASSANDRA__KEYSPACE", keyspace.into()),
        ]),
    }
    environment
}

impl Daemon {
    /// Starts it against this Redis and Cassandra, and waits until it is ready.
    pub fn start(redis_port: u16, address: &str, keyspace: &str) -> Result<Self, Error> {
        Self::start_on(redis_port, Store::Cassandra { address, keyspace })
    }

    /// The same with any store.
    pub fn start_on(redis_port: u16, store: Store<'_>) -> Result<Self, Error> {
        let state = directory()?;
        let environment = environment(state.path(), redis_port, store);
        let apply =
            Command::new(BINARY).args(["schema", "apply", "--wait", "60s"]).envs(environment.clone()).output()?;
        if !apply.status.success() {
            return Err(format!("schema apply failed: {}", String::from_utf8_lossy(&apply.stderr)).into());
        }
        let mut daemon = Self::launch(state.path(), &environment)?;
        daemon._own = Some(state);
        daemon.wait_ready(Duration::from_secs(20))?;
        Ok(daemon)
    }

    /// Starts it on a persistent state directory, without waiting.
    pub fn launch(state: &Path, environment: &Environment) -> Result<Self, Error> {
        let log = fs::File::create(state.join("log"))?;
        let environment = environment.clone();
        let child =
            Command::new(BINARY).arg("run").envs(environment.clone()).stdout(Stdio::null()).stderr(log).spawn()?;
        // Where a setting is there twice, the last one holds.
        let listen = environment.iter().rev().find(|(name, _)| *name == LISTEN).ok_or("no address of HTTP")?;
        let http = listen.1.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port of HTTP")?;
        Ok(Self { child, http, state: state.to_owned(), environment, _own: None })
    }

    /// Waits until `/readyz` answers 200.
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

    /// A command with the same settings.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.envs(self.environment.clone());
        command
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its port.
    pub fn http(&self) -> u16 {
        self.http
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// CPU time of the process and of each of its threads by name.
    pub fn cpu(&self) -> Result<(Cpu, BTreeMap<String, Cpu>), Error> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has just ended is no error.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
            let name = stat[stat.find('(').unwrap_or(0) + 1..stat.rfind(')').unwrap_or(0)].to_owned();
            *threads.entry(name).or_default() += ticks(&stat);
        }
        Ok((process_cpu(self.child.id())?, threads))
    }

    /// Peak resident memory since the start, in MiB.
    pub fn peak_mib(&self) -> Result<f64, Error> {
        peak_mib(self.child.id())
    }

    /// The samples of `/metrics`, by name with labels.
    pub fn metrics(&self) -> Result<Samples, Error> {
        Ok(histogram::samples(&http_get(self.http, "/metrics")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process so far.
pub fn process_cpu(process: u32) -> Result<Cpu, Error> {
    Ok(ticks(&fs::read_to_string(format!("/proc/{process}/stat"))?))
}

/// CPU time of the living threads of a process, by name, in microseconds and to the nanosecond; what a thread has used that ended is
/// not in it.
pub fn threads_cpu(process: u32) -> Result<BTreeMap<String, Cpu>, Error> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        let (Ok(name), Ok(used)) = (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
        else {
            continue;
        };
        let nanos: f64 = used.split(' ').next().unwrap_or_default().parse()?;
        *threads.entry(name.trim_end().to_owned()).or_default() += nanos / 1e3;
    }
    Ok(threads)
}

/// Peak resident memory of a process since its start, in MiB.
pub fn peak_mib(process: u32) -> Result<f64, Error> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}

/// utime + stime of a `/proc/…/stat` line, in microseconds (100 ticks a second).
fn ticks(stat: &str) -> Cpu {
    let fields: Vec<&str> = stat[stat.rfind(')').map_or(0, |at| at + 2)..].split(' ').collect();
    let tick = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(11) + tick(12)) * 10_000.0
}
