//! Several daemons that take the same events: from a channel, or from streams of one consumer group.

use std::{collections::BTreeMap, collections::HashSet, env, fmt, path::PathBuf, time::Duration};

use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::{
    Error,
    daemon::{self, Daemon, LISTEN, Store, directory, environment},
    drain::stored,
    load::message,
    resp::{Client, Redis},
};

/// The consumer group, by its default name.
const GROUP: &str = "cascor-ingest";

/// How many daemons there are, and where they take events from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    pub daemons: usize,
    /// Streams; 0: they listen to one channel.
    pub streams: usize,
    /// Whether each daemon reads a stream of its own, and not all of them.
    pub apart: bool,
}

impl Setup {
    pub const fn channel(daemons: usize) -> Self {
        Self { daemons, streams: 0, apart: false }
    }

    pub const fn streams(daemons: usize, streams: usize) -> Self {
        Self { daemons, streams, apart: false }
    }

    /// The streams that a daemon reads.
    fn of_daemon(self, daemon: usize) -> Vec<String> {
        (0..self.streams).filter(|stream| !self.apart || stream % self.daemons == daemon).map(name).collect()
    }

    /// How many streams each daemon reads.
    pub fn streams_each(self) -> usize {
        self.of_daemon(0).len()
    }

    /// Queues an event: the events of a run are on one stream.
    pub fn send(self, client: &mut Client, runs: &[Uuid], n: u64) {
        let payload = message(runs, n);
        match self.streams {
            0 => client.publish("cascor:training", payload.as_bytes()),
            streams => client.append(&name(n as usize % runs.len() % streams), payload.as_bytes()),
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let daemons = if self.daemons == 1 { "daemon" } else { "daemons" };
        let place = match (self.streams, self.apart) {
            (0, _) => "Pub/Sub".to_owned(),
            (1, _) => "one stream".to_owned(),
            (streams, false) => format!("{streams} streams"),
            (streams, true) => format!("{streams} streams, one each"),
        };
        write!(f, "{} {daemons}, {place}", self.daemons)
    }
}

fn name(stream: usize) -> String {
    format!("cascor:bench:{stream}")
}

/// Running daemons; killed when dropped.
pub struct Fleet {
    daemons: Vec<Daemon>,
    files: Vec<PathBuf>,
    /// The node that they share, if `tests/bench/run` has started it.
    node: Option<u32>,
    _directories: [tempfile::TempDir; 2],
}

impl Fleet {
    /// Starts them and waits until they are ready. Without a node (host:port, keyspace) each has an SQLite file of its own in memory.
    pub fn start(setup: Setup, redis: &Redis, cassandra: Option<(&str, &str)>) -> Result<Self, Error> {
        let (states, memory) = (directory()?, tempfile::Builder::new().prefix("cascor-bench-").tempdir_in("/dev/shm")?);
        let (mut daemons, mut files) = (Vec::new(), Vec::new());
        for n in 0..setup.daemons {
            let state = states.path().join(n.to_string());
            std::fs::create_dir(&state)?;
            let store = match cassandra {
                Some((address, keyspace)) => Store::Cassandra { address, keyspace },
                None => Store::Sqlite,
            };
            let mut environment = environment(&state, redis.port, store);
            environment.push((LISTEN, format!("127.0.0.1:{}", redis.port as usize + 1 + n)));
            environment.push(("CASCOR_INGEST__INSTANCE", format!("bench-{n}")));
            if cassandra.is_none() {
                let file = memory.path().join(format!("{n}.db"));
                environment.push(("CASCOR_INGEST__STORE__SQLITE__PATH", file.display().to_string()));
                files.push(file);
            }
            if setup.streams > 0 {
                environment.push(("CASCOR_INGEST__REDIS__STREAMS", setup.of_daemon(n).join(",")));
                environment.push(("CASCOR_INGEST__REDIS__TRAINING_CHANNELS", "[]".into()));
            }
            daemons.push(Daemon::launch(&state, &environment)?);
        }
        for daemon in &daemons {
            daemon.wait_ready(Duration::from_secs(30))?;
        }
        let node = env::var("CASCOR_BENCH_CASSANDRA_PID").ok().and_then(|process| process.parse().ok());
        Ok(Self { daemons, files, node: node.filter(|_| cassandra.is_some()), _directories: [states, memory] })
    }

    /// Peak resident memory of the one that needs most, in MiB.
    pub fn peak_mib(&self) -> Result<f64, Error> {
        self.daemons.iter().try_fold(0.0_f64, |peak, daemon| Ok(peak.max(daemon.peak_mib()?)))
    }

    /// Rows that they have stored since their start.
    pub fn stored(&self) -> Result<f64, Error> {
        self.daemons.iter().try_fold(0.0, |sum, daemon| Ok(sum + stored(daemon)?))
    }

    /// Stops all processes where they are, or lets them go on.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        for daemon in &self.daemons {
            let process = i32::try_from(daemon.process()).ok().and_then(Pid::from_raw).ok_or("no process")?;
            kill_process(process, signal)?;
        }
        Ok(())
    }

    /// How many events have no row in any of the SQLite files, and how many have more than one.
    pub fn judge(&self, runs: &[Uuid], total: u64) -> Result<(u64, u64), Error> {
        let (mut seen, mut twice) = (HashSet::new(), 0);
        for file in &self.files {
            let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut select = connection.prepare("SELECT seq FROM training_metrics_rows WHERE run_id = ?1")?;
            for (at, run) in runs.iter().enumerate() {
                for seq in select.query_map([run.to_string()], |row| row.get::<_, i64>(0))? {
                    twice += u64::from(!seen.insert(seq? as u64 * runs.len() as u64 + at as u64));
                }
            }
        }
        Ok(((0..total).filter(|n| !seen.contains(n)).count() as u64, twice))
    }
}

/// Entries that the group has not read, or not acknowledged. Absent: the server does not know.
pub fn unread(client: &mut Client, setup: Setup) -> Result<Option<u64>, Error> {
    let mut sum = 0;
    for stream in 0..setup.streams {
        let groups = client.ask(&["XINFO", "GROUPS", &name(stream)])?;
        let of = |field: &str| {
            let at = groups.iter().position(|word| word == field)?;
            groups.get(at + 1)?.parse::<u64>().ok()
        };
        debug_assert!(groups.iter().any(|word| word == GROUP));
        let (Some(lag), Some(pending)) = (of("lag"), of("pending")) else { return Ok(None) };
        sum += lag + pending;
    }
    Ok(Some(sum))
}

/// CPU time so far, in microseconds: of the daemons' threads by name, of Redis, and of Cassandra.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    pub threads: BTreeMap<String, f64>,
    pub redis: f64,
    pub cassandra: f64,
}

impl Cpu {
    pub fn read(fleet: &Fleet, redis: &Redis) -> Result<Self, Error> {
        let mut threads = BTreeMap::new();
        for daemon in &fleet.daemons {
            for (name, used) in daemon::threads_cpu(daemon.process())? {
                *threads.entry(name).or_default() += used;
            }
        }
        Ok(Self {
            threads,
            redis: daemon::threads_cpu(redis.process())?.values().sum(),
            cassandra: fleet.node.map_or(Ok(f64::NAN), daemon::process_cpu)?,
        })
    }

    /// What was used since then.
    pub fn since(&self, before: &Self) -> Self {
        let used = |(name, now): (&String, &f64)| (name.clone(), now - before.threads.get(name).unwrap_or(&0.0));
        Self {
            threads: self.threads.iter().map(used).collect(),
            redis: self.redis - before.redis,
            cassandra: self.cassandra - before.cassandra,
        }
    }

    /// Of all daemons.
    pub fn daemons(&self) -> f64 {
        self.threads.values().sum()
    }
}
