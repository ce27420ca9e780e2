//! What the daemon costs while nothing happens: processor time and wake-ups of each thread, without any traffic.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::{
    Error, Options,
    daemon::{Daemon, Store},
    median,
    resp::Redis,
};

const PORT: u16 = 16_950;
/// The start is over by then, and the periodic work has found its idle pace.
const SETTLE: Duration = Duration::from_secs(10);
/// Length of one measurement.
const LONGEST: u64 = 30;

/// Of the threads with one name: nanoseconds on a processor, and how often they went to sleep.
type Threads = BTreeMap<String, (f64, f64)>;

pub fn run(options: &Options) -> Result<(), Error> {
    let redis = Redis::start(PORT)?;
    let cassandra = Store::Cassandra { address: &options.cassandra, keyspace: "bench_idle" };
    for (name, store) in [("SQLite", Store::Sqlite), ("Cassandra", cassandra)] {
        let daemon = Daemon::start_on(redis.port, store)?;
        std::thread::sleep(SETTLE);
        let seconds = options.seconds.min(LONGEST);
        let mut shares = Vec::new();
        for _ in 0..options.repeat {
            let before = threads(daemon.process())?;
            std::thread::sleep(Duration::from_secs(seconds));
            let after = threads(daemon.process())?;
            let per_second = |at: fn(&(f64, f64)) -> f64| {
                let before = &before;
                after
                    .iter()
                    .map(move |(thread, now)| (thread, (at(now) - before.get(thread).map_or(0.0, at)) / seconds as f64))
            };
            let share = per_second(|times| times.0).map(|(_, ns)| ns).sum::<f64>() / 1e7;
            let largest: Vec<_> = per_second(|times| times.0)
                .filter(|(_, ns)| *ns >= 1e4)
                .map(|(thread, ns)| format!("{thread} {:.2}", ns / 1e6))
                .collect();
            let wakes: f64 = per_second(|times| times.1).map(|(_, wakes)| wakes).sum();
            println!(
                "{name}: {share:.3} % of a core, {wakes:.0} wake-ups a second; ms a second: {}",
                largest.join(", ")
            );
            shares.push(share);
        }
        println!("{name}: median {:.3} % of a core (goal 0.2)", median(&shares));
    }
    Ok(())
}

fn threads(process: u32) -> Result<Threads, Error> {
    let mut threads = Threads::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        let read = |file: &str| fs::read_to_string(task.join(file));
        // A thread that has just ended is no error.
        let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status")) else { continue };
        let first = |text: &str| text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).and_then(first);
        let sum = threads.entry(name.trim().to_owned()).or_default();
        sum.0 += first(&times).ok_or("schedstat has no time")?;
        sum.1 += sleeps.unwrap_or(0.0);
    }
    Ok(threads)
}
