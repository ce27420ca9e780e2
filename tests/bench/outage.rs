//! An outage of the store: its backlog is drained, no row is lost or duplicated, and latest keys and live stream stay current.
//!
//! The events of ten minutes at 2,000 a second are published five times as fast while Cassandra cannot be reached; then it is
//! back. Meanwhile a probe is published every 100 ms, and two watchers record when the latest key of its run in Redis and the
//! live stream have it.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Error, Options,
    daemon::Daemon,
    load,
    proxy::Proxy,
    quantile,
    resp::{Client, Redis},
};

const PORT: u16 = 16_940;
const PROXY: u16 = 16_945;
/// Events of 600 s at 2,000 a second.
const ROWS: u64 = 1_200_000;
/// Messages a second during the outage: a rate without loss on two shared cores.
const RATE: u64 = 10_000;
const PROBE: Duration = Duration::from_millis(100);

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = crate::session(&options.cassandra).await?;
    let keyspace = "bench_outage";
    let (host, port) = options.cassandra.rsplit_once(':').ok_or("the address of Cassandra has no port")?;
    let port = port.parse()?;
    let redis = Redis::start(PORT)?;
    let proxy = Proxy::start(host, PROXY, (host, port));
    let daemon = Daemon::start(redis.port, &format!("{host}:{PROXY}"), keyspace)?;
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let warm = load::publish(redis.port, &runs, 2_000, Duration::from_secs(3), 0)?;
    thread::sleep(Duration::from_secs(1));

    // Port 1: the proxy closes each connection.
    proxy.lead_to(host, 1);
    let probes = Probes::start(redis.port)?;
    thread::sleep(Duration::from_secs(1));
    let (outage, rows) = (Instant::now(), options.rows.unwrap_or(ROWS));
    let duration = Duration::from_secs_f64(rows as f64 / RATE as f64);
    let total = warm + load::publish(redis.port, &runs, RATE, duration, warm)?;
    let away = outage.elapsed();
    let backlog = number(&daemon, "end")?;
    if number(&daemon, "stored")? + rows / 2 > backlog {
        return Err("rows were written while the store was away".into());
    }

    proxy.lead_to(host, port);
    let back = Instant::now();
    while number(&daemon, "stored")? < backlog {
        if back.elapsed() > Duration::from_secs(600) {
            return Err("the backlog was not drained within 600 s".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (drained, over) = (back.elapsed(), Instant::now());
    thread::sleep(Duration::from_secs(3));
    let seen = probes.finish()?;
    while number(&daemon, "stored")? < number(&daemon, "end")? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let (lost, twice) = load::judge(&session, keyspace, &runs, total).await?;
    let (lost_probes, twice_probes) = load::judge(&session, keyspace, &[seen.run], seen.sent.len() as u64).await?;
    let (lost, twice) = (lost + lost_probes, twice + twice_probes);
    println!(
        "{rows} events in {:.0} s while the store was away; all of them rows {:.1} s after it was back (goal: 120 s); lost {lost}, \
         twice {twice}; peak {:.0} MiB",
        away.as_secs_f64(),
        drained.as_secs_f64(),
        daemon.peak_mib()?
    );
    for (name, from, to) in [("during the outage", outage, back), ("while draining", back, over)] {
        println!("  {name}, behind publishing (goal: 2 s): {}", seen.delays(from, to));
    }
    session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await?;
    if lost + twice > 0 { Err("rows are missing or there twice".into()) } else { Ok(()) }
}

/// A number of the spool's status, by name.
fn number(daemon: &Daemon, name: &str) -> Result<u64, Error> {
    daemon.status()?["spool"][name].as_u64().ok_or_else(|| format!("the status has no `{name}`").into())
}

/// Publish time of each probe, and seconds until it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    run: Uuid,
    sent: Vec<Instant>,
    latest: Vec<f64>,
    stream: Vec<f64>,
}

impl Seen {
    /// Delays of the probes that were published between these moments.
    fn delays(&self, from: Instant, to: Instant) -> String {
        let of = |delays: &[f64]| {
            let probes = self.sent.iter().enumerate().filter(|(_, sent)| (from..to).contains(sent));
            // A probe that was never seen counts with the maximum delay.
            let mut seconds: Vec<f64> = probes.map(|(n, _)| delays.get(n).copied().unwrap_or(f64::INFINITY)).collect();
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&mut seconds, q) * 1e3);
            format!("p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms of {}", seconds.len())
        };
        format!("latest keys {}; live stream {}", of(&self.latest), of(&self.stream))
    }
}

/// State shared by the threads.
#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    over: AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks all probes up to this number as seen in `place`.
    fn note(&self, seq: u64, place: impl Fn(&mut Seen) -> &mut Vec<f64>) {
        let mut seen = self.seen();
        let known = place(&mut seen).len();
        let delays: Vec<f64> =
            seen.sent.iter().take(seq as usize + 1).skip(known).map(|sent| sent.elapsed().as_secs_f64()).collect();
        place(&mut seen).extend(delays);
    }
}

/// One publisher and two watchers.
struct Probes {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<Result<(), Error>>>,
}

impl Probes {
    fn start(port: u16) -> Result<Self, Error> {
        let run = Uuid::new_v4();
        let shared = Arc::new(Shared::default());
        shared.seen().run = run;
        let mut threads = Vec::new();
        // The watchers first.
        let mut stream = TcpStream::connect(("127.0.0.1", port + 1))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /api/stream?run_id={run} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let theirs = Arc::clone(&shared);
        threads.push(thread::spawn(move || watch_stream(stream, run, &theirs)));
        let (client, theirs) = (Client::connect(port)?, Arc::clone(&shared));
        threads.push(thread::spawn(move || watch_latest(client, run, &theirs)));
        let (client, theirs) = (Client::connect(port)?, Arc::clone(&shared));
        threads.push(thread::spawn(move || publish(client, run, &theirs)));
        Ok(Self { shared, threads })
    }

    fn finish(self) -> Result<Seen, Error> {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a probe panicked")??;
        }
        Ok(self.shared.seen().clone())
    }
}

fn publish(mut client: Client, run: Uuid, shared: &Shared) -> Result<(), Error> {
    for n in 0.. {
        if shared.over.load(Ordering::Relaxed) {
            break;
        }
        client.publish("cascor:training", load::message(&[run], n).as_bytes());
        shared.seen().sent.push(Instant::now());
        client.flush()?;
        thread::sleep(PROBE);
    }
    Ok(())
}

fn watch_latest(mut client: Client, run: Uuid, shared: &Shared) -> Result<(), Error> {
    let key = format!("cascor:metrics:{run}:latest");
    while !done(shared, |seen| seen.latest.len()) {
        let seq = client.get(&key)?.and_then(|json| serde_json::from_str::<Value>(&json).ok()?["seq"].as_u64());
        if let Some(seq) = seq {
            shared.note(seq, |seen| &mut seen.latest);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn watch_stream(stream: TcpStream, run: Uuid, shared: &Shared) -> Result<(), Error> {
    let (run, mut lines) = (run.to_string(), BufReader::new(stream).lines());
    while !done(shared, |seen| seen.stream.len()) {
        let line = lines.next().ok_or("the stream ended")??;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Value = serde_json::from_str(data)?;
        let rows = data["rows"].as_array().filter(|_| data["run_id"] == run);
        if let Some(seq) = rows.and_then(|rows| rows.last()?["seq"].as_u64()) {
            shared.note(seq, |seen| &mut seen.stream);
        }
    }
    Ok(())
}

/// Whether publishing has ended and every probe was seen, or the wait for them is over.
fn done(shared: &Shared, known: impl Fn(&Seen) -> usize) -> bool {
    let seen = shared.seen();
    let late = seen.sent.last().is_some_and(|sent| sent.elapsed() > Duration::from_secs(5));
    shared.over.load(Ordering::Relaxed) && (known(&seen) >= seen.sent.len() || late)
}
