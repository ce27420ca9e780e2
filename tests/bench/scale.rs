//! What sharing costs: one daemon, two and four on one stream and on four, beside one on Pub/Sub and a pair; CPU per event of the
//! daemons, of Redis and of Cassandra at fixed rates, and a backlog as fast as it goes.
//!
//! Once with a store that is no bottleneck: each daemon has an SQLite file of its own in memory, whose thread is shown apart; and once
//! with a Cassandra node. The set-ups take turns; medians of the repetitions. Every event must be a row, once.
//!
//! `CASCOR_BENCH_ONLY` names the set-ups to measure, separated by `;`, of one store alone where that is named, too:
//! `Cassandra;1 daemon, Pub/Sub;2 daemons, Pub/Sub`.

use std::{env, process::Command, sync::Arc, time::Duration};

use rustix::process::Signal;
use scylla::client::session::Session;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    Error, Options, bare,
    daemon::{self, BINARY, directory, environment},
    fleet::{Cpu, Fleet, Setup, unread},
    load::{self, Pace, send_at},
    median,
    resp::{Client, Redis},
};

const PORT: u16 = 16_970;
const KEYSPACE: &str = "bench_scale";
const RUNS: usize = 8;
/// Events a second in sum. Four daemons at the second have as many each as one at the first.
const RATES: [u64; 2] = [2_500, 10_000];
const SETUPS: [Setup; 9] = [
    Setup::channel(1),
    Setup::streams(1, 1),
    Setup::streams(2, 1),
    Setup::streams(4, 1),
    Setup::streams(1, 4),
    Setup::streams(2, 4),
    Setup::streams(4, 4),
    Setup { daemons: 4, streams: 4, apart: true },
    Setup::channel(2),
];
/// Entries of the backlog.
const ROWS: u64 = 50_000;
const WARM: Duration = Duration::from_secs(1);
/// How long what is in the buffers of the daemons may take to be stored; its cost counts.
const SETTLE: Duration = Duration::from_millis(1_500);

/// The figures of a backlog.
const BACKLOG: [&str; 6] = [
    "backlog: entries/s acknowledged",
    "backlog: rows/s stored",
    "backlog: daemons",
    "backlog: Cassandra",
    "Redis, XADD",
    "Redis, XREADGROUP and XACK",
];

/// Figures by name, of one repetition or medians; microseconds of CPU an event, if nothing else is said.
type Figures = Vec<(String, f64)>;

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = Arc::new(crate::session(&options.cassandra).await?);
    warm(options, &session).await?;
    let only = env::var("CASCOR_BENCH_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(';').filter(|name| !name.is_empty()).collect();
    let stores = ["SQLite", "Cassandra"];
    let names_set_ups = only.iter().any(|name| !stores.contains(name));
    for (store, node) in stores.into_iter().zip([None, Some(options.cassandra.as_str())]) {
        if stores.iter().any(|other| only.contains(other) && *other != store) {
            continue;
        }
        // With files of their own a pair would have nothing in common.
        let is_measured = |setup: &Setup| {
            (*setup != Setup::channel(2) || node.is_some())
                && (!names_set_ups || only.contains(&setup.to_string().as_str()))
        };
        let setups: Vec<Setup> = SETUPS.into_iter().filter(is_measured).collect();
        let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); setups.len()];
        for _ in 0..options.repeat {
            for (setup, figures) in setups.iter().zip(&mut figures) {
                figures.push(once(*setup, node, options, &session).await?);
            }
        }
        let medians: Vec<(Setup, Figures)> = setups.into_iter().zip(figures.iter().map(|of| medians(of))).collect();
        report(store, options.repeat, &medians);
    }
    if let Err(error) = session.query_unpaged(format!("DROP KEYSPACE {KEYSPACE}"), ()).await {
        println!("the keyspace {KEYSPACE} stays: {error}");
    }
    Ok(())
}

/// The server compiles its code while it works: its first rows cost much more.
async fn warm(options: &Options, session: &Arc<Session>) -> Result<(), Error> {
    let state = directory()?;
    let store = daemon::Store::Cassandra { address: &options.cassandra, keyspace: KEYSPACE };
    let environment = environment(state.path(), PORT, store);
    let apply = Command::new(BINARY).args(["schema", "apply", "--wait", "60s"]).envs(environment).output()?;
    if !apply.status.success() {
        return Err(format!("schema apply failed: {}", String::from_utf8_lossy(&apply.stderr)).into());
    }
    let insert = bare::prepare(session, KEYSPACE).await?;
    for _ in 0..8 {
        let runs = (0..RUNS).map(|_| Uuid::new_v4()).collect();
        // A cold server on a busy machine may be too slow for it; what follows is judged.
        if let Err(error) = bare::batches(session.clone(), insert.clone(), runs, 50_000).await {
            println!("warming: {error}");
        }
    }
    Ok(())
}

/// A new Redis and new daemons: the fixed rates, then a backlog.
async fn once(setup: Setup, node: Option<&str>, options: &Options, session: &Session) -> Result<Figures, Error> {
    let redis = Redis::start(PORT)?;
    let fleet = Fleet::start(setup, &redis, node.map(|node| (node, KEYSPACE)))?;
    let runs: Vec<Uuid> = (0..RUNS).map(|_| Uuid::new_v4()).collect();
    let send = |rate, duration, first| {
        let (port, runs) = (redis.port, runs.clone());
        let pace = Pace { rate, duration, interval: Duration::from_millis(5) };
        std::thread::spawn(move || send_at(pace, port, first, |client, n| setup.send(client, &runs, n)))
    };
    let mut sent = send(RATES[0], WARM, 0).join().map_err(|_| "the publisher panicked")??;
    sleep(SETTLE).await;
    let mut figures = idle(&fleet, &redis).await?;
    for rate in RATES {
        let (before, begun) = (Cpu::read(&fleet, &redis)?, Instant::now());
        let publisher = send(rate, Duration::from_secs(options.seconds), sent);
        while !publisher.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
        let count = publisher.join().map_err(|_| "the publisher panicked")??;
        let seconds = begun.elapsed().as_secs_f64();
        sleep(SETTLE).await;
        let used = Cpu::read(&fleet, &redis)?.since(&before);
        figures.push((format!("{rate}/s: reached"), count as f64 / seconds));
        figures.extend(per_event(&format!("{rate}/s"), &used, count));
        sent += count;
    }
    if setup.streams > 0 {
        let rows = options.rows.unwrap_or(ROWS);
        figures.extend(backlog(setup, &fleet, &redis, &runs, sent..sent + rows).await?);
        sent += rows;
    }
    figures.push(("peak MiB".into(), fleet.peak_mib()?));
    let (lost, twice) = match node {
        Some(_) => load::judge(session, KEYSPACE, &runs, sent).await?,
        None => fleet.judge(&runs, sent)?,
    };
    let listed: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
    println!("{setup}: {sent} events, lost {lost}, twice {twice}; {}", listed.join("; "));
    if lost + twice > 0 {
        return Err("rows are missing or there twice".into());
    }
    Ok(figures)
}

/// CPU of a second without events.
async fn idle(fleet: &Fleet, redis: &Redis) -> Result<Figures, Error> {
    let before = Cpu::read(fleet, redis)?;
    sleep(Duration::from_secs(1)).await;
    let used = Cpu::read(fleet, redis)?.since(&before);
    Ok(vec![("idle, ms of a second".into(), used.daemons() / 1e3)])
}

fn per_event(name: &str, used: &Cpu, count: u64) -> Figures {
    let count = count as f64;
    let thread = |name: &str| used.threads.get(name).unwrap_or(&f64::NAN) / count;
    vec![
        (format!("{name}: daemons"), used.daemons() / count),
        (format!("{name}: sources"), thread("sources")),
        (format!("{name}: intake"), thread("intake")),
        (format!("{name}: runtime"), thread("runtime")),
        (format!("{name}: sqlite-write"), thread("sqlite-write")),
        (format!("{name}: Redis"), used.redis / count),
        (format!("{name}: Cassandra"), used.cassandra / count),
    ]
}

/// Entries that are appended while the daemons stand still.
async fn backlog(
    setup: Setup,
    fleet: &Fleet,
    redis: &Redis,
    runs: &[Uuid],
    entries: std::ops::Range<u64>,
) -> Result<Figures, Error> {
    let mut client = Client::connect(redis.port)?;
    let (rows, stored) = ((entries.end - entries.start) as f64, fleet.stored()?);
    fleet.signal(Signal::STOP)?;
    let stopped = Cpu::read(fleet, redis)?;
    for n in entries {
        setup.send(&mut client, runs, n);
        if n % 500 == 0 {
            client.flush()?;
        }
    }
    client.flush()?;
    let begun = (Cpu::read(fleet, redis)?, Instant::now());
    fleet.signal(Signal::CONT)?;
    let (mut acknowledged, limit) = (None, Duration::from_secs(120));
    while acknowledged.is_none() || fleet.stored()? < stored + rows {
        if acknowledged.is_none() && unread(&mut client, setup)? == Some(0) {
            acknowledged = Some((Cpu::read(fleet, redis)?, begun.1.elapsed()));
        }
        if begun.1.elapsed() > limit {
            return Err("the backlog was not drained within 120 s".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    let (read, took) = acknowledged.ok_or("nothing was acknowledged")?;
    let used = Cpu::read(fleet, redis)?.since(&begun.0);
    let values = [
        rows / took.as_secs_f64(),
        rows / begun.1.elapsed().as_secs_f64(),
        used.daemons() / rows,
        used.cassandra / rows,
        begun.0.since(&stopped).redis / rows,
        read.since(&begun.0).redis / rows,
    ];
    Ok(BACKLOG.map(Into::into).into_iter().zip(values).collect())
}

fn medians(repetitions: &[Figures]) -> Figures {
    let Some(first) = repetitions.first() else { return Vec::new() };
    let of = |at: usize| {
        let values: Vec<f64> = repetitions.iter().map(|figures| figures[at].1).collect();
        let negated: Vec<f64> = values.iter().map(|value| -value).collect();
        // Of an even number the mean of the two in the middle.
        (median(&values) - median(&negated)) / 2.0
    };
    first.iter().enumerate().map(|(at, (name, _))| (name.clone(), of(at))).collect()
}

fn get(figures: &Figures, name: &str) -> f64 {
    figures.iter().find(|(found, _)| found == name).map_or(f64::NAN, |(_, value)| *value)
}

fn report(store: &str, repeat: usize, medians: &[(Setup, Figures)]) {
    println!("\n{store}, medians of {repeat}");
    let columns: Vec<String> = RATES
        .iter()
        .flat_map(|rate| ["daemons", "sqlite-write", "Redis", "Cassandra"].map(|of| format!("{rate}/s: {of}")))
        .chain(BACKLOG.map(Into::into))
        .chain(["peak MiB", "idle, ms of a second"].map(Into::into))
        .collect();
    println!("| | {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len() + 1));
    for (setup, figures) in medians {
        let cells: Vec<String> = columns.iter().map(|name| cell(get(figures, name))).collect();
        println!("| {setup} | {} |", cells.join(" | "));
    }
    let of = |setup: Setup| medians.iter().find(|(found, _)| *found == setup).map(|(_, figures)| figures);
    let cost = |setup, rate: u64| of(setup).map_or(f64::NAN, |figures| get(figures, &format!("{rate}/s: daemons")));
    let (one, four) = (Setup::streams(1, 1), Setup::streams(4, 4));
    let apart = Setup { apart: true, ..four };
    for rate in RATES {
        println!(
            "{rate}/s: one daemon on one stream / Pub/Sub: {:.2}",
            cost(one, rate) / cost(Setup::channel(1), rate)
        );
        println!(
            "{rate}/s: four daemons on four streams / one on one: {:.2}; one stream each: {:.2}",
            cost(four, rate) / cost(one, rate),
            cost(apart, rate) / cost(one, rate)
        );
    }
    println!(
        "four daemons on four streams at {}/s / one on one at {}/s, the same rate a daemon: {:.2}; one stream each: {:.2}",
        RATES[1],
        RATES[0],
        cost(four, RATES[1]) / cost(one, RATES[0]),
        cost(apart, RATES[1]) / cost(one, RATES[0])
    );
    for streams in [1, 4] {
        fit(medians, streams);
    }
}

fn cell(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 1_000.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

/// CPU of a daemon that reads so many streams as a line over its rate: so much a second, and so much an event.
fn fit(medians: &[(Setup, Figures)], streams: usize) {
    let mut points = Vec::new();
    for (setup, figures) in medians.iter().filter(|(setup, _)| setup.streams_each() == streams) {
        for rate in RATES {
            let each = get(figures, &format!("{rate}/s: reached")) / setup.daemons as f64;
            points.push((each, each * get(figures, &format!("{rate}/s: daemons"))));
        }
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>()
        / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    let fixed = y - slope * x;
    let error = points.iter().map(|point| ((fixed + slope * point.0) / point.1 - 1.0).abs()).fold(0.0, f64::max);
    println!(
        "a daemon that reads {streams} of them: {:.1} ms of CPU a second and {slope:.1} µs an event (largest error {:.0} %)",
        fixed / 1e3,
        error * 100.0
    );
}
