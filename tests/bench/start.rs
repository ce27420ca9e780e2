//! From process start to the confirmed subscription, after kill -9: with an empty spool, and with a large one.
//!
//! The store is away all the time, so that nothing is drained. The large spool is made by the library's own appender, of messages
//! that are padded to 1 MiB; ordinary messages follow, because the newest segment is read at the start. Every start finds the spool
//! as the first one did.

use std::{collections::BTreeSet, ffi::OsString, fs, path::Path, time::Duration};

use cascor_ingest::{
    event::Resolved,
    metrics::Metrics,
    spool::{self, NewRecord, RecordKind},
    units::{self, ByteSize},
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Error, Options,
    daemon::{Daemon, Environment, Store, directory, environment},
    load, quantile,
    resp::{Client, Redis},
};

const PORT: u16 = 16_930;
const CHANNEL: &str = "cascor:training";
/// Measured starts of each kind.
const STARTS: usize = 10;
/// A closed port.
const AWAY: &str = "127.0.0.1:1";
const MESSAGE: usize = 1 << 20;
/// Time limit of the first start, which reads the whole log for open runs.
const RECOVERY: Duration = Duration::from_secs(600);

pub fn run(options: &Options) -> Result<(), Error> {
    let redis = Redis::start(PORT)?;
    let state = directory()?;
    let spool = state.path().join("spool");
    let mut environment =
        environment(state.path(), redis.port, Store::Cassandra { address: AWAY, keyspace: "bench_start" });
    let capacity = ByteSize::gib(options.gib + 2);
    environment.push(("CASCOR_INGEST__SPOOL__CAPACITY", format!("{}GiB", options.gib + 2)));
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();

    settle(state.path(), &environment, &runs, 0)?;
    let empty = starts(state.path(), &environment)?;
    println!("empty spool: {empty}");

    let begun = Instant::now();
    let next = fill(&spool, capacity, &runs, options.gib)?;
    println!("{} GiB spooled in {:.0} s", options.gib, begun.elapsed().as_secs_f64());
    settle(state.path(), &environment, &runs, next)?;
    let (files, bytes) = names(&spool)?.into_iter().fold((0, 0), |(files, bytes), name| {
        (files + 1, bytes + fs::metadata(spool.join(name)).map_or(0, |metadata| metadata.len()))
    });
    let full = starts(state.path(), &environment)?;
    println!("spool of {:.1} GiB in {files} files: {full} (goal: 250 ms)", bytes as f64 / f64::from(1 << 30));
    Ok(())
}

/// Starts a daemon and publishes 8 s of ordinary messages, which fill most of a segment.
fn settle(state: &Path, environment: &Environment, runs: &[Uuid], next: u64) -> Result<(), Error> {
    let begun = Instant::now();
    let daemon = Daemon::launch(state, environment)?;
    daemon.wait_ready(RECOVERY)?;
    println!("ready after {:.2} s (not measured: everything is read once)", begun.elapsed().as_secs_f64());
    if next > 0 {
        load::publish(PORT, runs, 5_000, Duration::from_secs(8), next)?;
    }
    // Until the open runs are saved.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Appends messages of 1 MiB; returns the number of the next message.
fn fill(dir: &Path, capacity: ByteSize, runs: &[Uuid], gib: u64) -> Result<u64, Error> {
    let config = spool::Config { dir: dir.to_owned(), capacity, ..spool::Config::default() };
    let mut opened = spool::open(&config, Metrics::new())?;
    let total = gib << 10;
    for n in 0..total {
        let mut payload = load::message(runs, n).into_bytes();
        payload.resize(MESSAGE, b' ');
        let run_id = runs[n as usize % runs.len()];
        let now = units::now();
        let decided = Resolved { run_id, event_time: now, received_at: now, has_event_time: true, opened_run: false };
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            strict_json: false,
            from_stream: false,
            channel: CHANNEL,
            preamble: b"",
            payload: &payload,
        };
        opened.appender.append(&record)?;
    }
    if opened.appender.sync().healthy { Ok(total) } else { Err("the disk took less than was asked of it".into()) }
}

fn names(spool: &Path) -> Result<BTreeSet<OsString>, Error> {
    Ok(fs::read_dir(spool)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?)
}

/// Starts and kills; returns p50 and maximum as text.
fn starts(state: &Path, environment: &Environment) -> Result<String, Error> {
    let spool = state.join("spool");
    let found = names(&spool)?;
    let mut client = Client::connect(PORT)?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        while client.subscribers(CHANNEL)? > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let begun = Instant::now();
        let daemon = Daemon::launch(state, environment)?;
        while client.subscribers(CHANNEL)? == 0 {
            if begun.elapsed() > RECOVERY {
                return Err("the daemon did not subscribe".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(daemon);
        // A gap record of this start would be in the newest segment of the next one.
        for name in names(&spool)?.difference(&found) {
            fs::remove_file(spool.join(name))?;
        }
    }
    Ok(format!(
        "from start to subscribed p50 {:.0} ms, max {:.0} ms ({STARTS} starts)",
        quantile(&mut times, 0.5),
        quantile(&mut times, 1.0)
    ))
}
