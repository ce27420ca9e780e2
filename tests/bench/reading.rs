//! Reads: pages during ingestion, beside the bare query; then a curve and an export of a run of a million rows, beside the
//! driver's bare paging.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::TryStreamExt;
use scylla::{client::session::Session, statement::prepared::PreparedStatement, value::Row};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Error, Options, bare,
    daemon::{Daemon, Store, peak_mib},
    histogram, load, quantile,
    resp::{Client, Redis, http_get},
};

const RATE: u64 = 2_000;
const PAGE: usize = 1_000;
/// Rows of the run that is read while other runs grow.
const BOOK: u64 = 20_000;
const MILLION: u64 = 1_000_000;
const KEYSPACE: &str = "bench_reading";

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = Arc::new(crate::session(&options.cassandra).await?);
    for store in [Store::Sqlite, Store::Cassandra { address: &options.cassandra, keyspace: KEYSPACE }] {
        let redis = Redis::start(16_930)?;
        let daemon = Daemon::start_on(redis.port, store)?;
        let bare = Bare::new(&daemon, store, &session).await?;
        println!("{}:", bare.name());
        beside_ingestion(options, &redis, &daemon, &bare).await?;
        whole_run(options, &redis, &daemon, &bare).await?;
    }
    session.query_unpaged(format!("DROP KEYSPACE {KEYSPACE}"), ()).await?;
    Ok(())
}

/// The same queries without the daemon.
enum Bare {
    Sqlite(PathBuf),
    Cassandra { session: Arc<Session>, page: Box<PreparedStatement>, whole: Box<PreparedStatement> },
}

impl Bare {
    async fn new(daemon: &Daemon, store: Store<'_>, session: &Arc<Session>) -> Result<Self, Error> {
        let Store::Cassandra { keyspace, .. } = store else {
            return Ok(Self::Sqlite(daemon.state().join("cascor.db")));
        };
        let select = format!("SELECT * FROM {keyspace}.training_metrics WHERE run_id = ? ORDER BY timestamp");
        let page = session.prepare(format!("{select} DESC LIMIT {PAGE}")).await?;
        // Oldest first, like an export.
        let mut whole = session.prepare(format!("{select} ASC")).await?;
        whole.set_page_size(5_000);
        Ok(Self::Cassandra { session: Arc::clone(session), page: Box::new(page), whole: Box::new(whole) })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Cassandra { .. } => "Cassandra",
        }
    }

    /// Reads the newest page of a run; returns its number of rows.
    async fn page(&self, run: Uuid) -> Result<usize, Error> {
        Ok(match self {
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file)?;
                let mut statement = connection.prepare(
                    "SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC, event_id DESC LIMIT ?",
                )?;
                let columns = statement.column_count();
                let mut rows = statement.query((run.to_string(), PAGE as i64))?;
                let mut count = 0;
                while let Some(row) = rows.next()? {
                    for column in 0..columns {
                        let _: rusqlite::types::Value = row.get(column)?;
                    }
                    count += 1;
                }
                count
            }
            Self::Cassandra { session, page, .. } => {
                let answer = session.execute_unpaged(page, (run,)).await?.into_rows_result()?;
                answer.rows::<Row>()?.filter(Result::is_ok).count()
            }
        })
    }

    /// A million rows as one run.
    async fn fill(&self, run: Uuid) -> Result<(), Error> {
        match self {
            Self::Sqlite(file) => {
                let rows = format!(
                    "INSERT INTO training_metrics_rows (run_id, timestamp, event_id, epoch, train_loss, train_accuracy, val_loss,
                     hidden_units, phase, seq, expires_at)
                     WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {MILLION} - 1)
                     SELECT '{run}', 1763633700000000 + i * 1000, i, i, 0.21 + 1.0 / (i + 1), 0.93, 0.3, 2, 'output', i, 9e15 FROM n"
                );
                rusqlite::Connection::open(file)?.execute(&rows, ())?;
            }
            Self::Cassandra { session, .. } => {
                let insert = bare::prepare(session, KEYSPACE).await?;
                bare::batches(Arc::clone(session), insert, vec![run], MILLION).await?;
            }
        }
        Ok(())
    }

    /// Rows a second of a full read with the driver's own paging; `None` for SQLite, whose goal is absolute.
    async fn paging(&self, run: Uuid) -> Result<Option<f64>, Error> {
        let Self::Cassandra { session, whole, .. } = self else { return Ok(None) };
        let start = Instant::now();
        let mut rows = session.execute_iter(PreparedStatement::clone(whole), (run,)).await?.rows_stream::<Row>()?;
        let mut count = 0u64;
        while rows.try_next().await?.is_some() {
            count += 1;
        }
        Ok(Some(count as f64 / start.elapsed().as_secs_f64()))
    }
}

/// Reads beside 2,000 events/s.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// Pages one after the other, another page each 50 ms, and a curve each second.
    Readers,
    /// The same, with the bare query after each page, which is extra load on the same cores.
    Pairs,
}

async fn beside_ingestion(options: &Options, redis: &Redis, daemon: &Daemon, bare: &Bare) -> Result<(), Error> {
    let book = Uuid::new_v4();
    load::publish(redis.port, &[book], 5_000, Duration::from_secs(BOOK / 5_000), 0)?;
    let mut reading = Reading { book, rows: BOOK, pages: Vec::new(), bares: Vec::new() };
    stored(daemon, reading.rows).await?;
    for _ in 0..options.repeat {
        let alone = reading.phase(options, redis, daemon, bare, Beside::Nothing).await?;
        let beside = reading.phase(options, redis, daemon, bare, Beside::Readers).await?;
        println!(
            "  received → written p99 without readers {:.2} ms, with readers {:.2} ms, ratio {:.1}; bare fdatasync {:.2} and {:.2} ms, ratio {:.1}",
            alone.0,
            beside.0,
            beside.0 / alone.0,
            alone.1,
            beside.1,
            beside.1 / alone.1,
        );
    }
    let beside = reading.phase(options, redis, daemon, bare, Beside::Pairs).await?;
    let Reading { mut pages, mut bares, .. } = reading;
    let (page, query) = (quantile(&mut pages, 0.99) * 1e3, quantile(&mut bares, 0.99) * 1e3);
    println!(
        "  page of {PAGE} rows at {RATE}/s: p50 {:.1} ms, p99 {page:.1} ms; bare query p50 {:.1} ms, p99 {query:.1} ms; goal {:.1} ms ({} pairs; written p99 {:.2} ms)",
        quantile(&mut pages, 0.5) * 1e3,
        quantile(&mut bares, 0.5) * 1e3,
        1.5 * query + 5.0,
        pages.len(),
        beside.0,
    );
    Ok(())
}

struct Reading {
    /// The run that is read.
    book: Uuid,
    /// All published runs.
    rows: u64,
    pages: Vec<f64>,
    bares: Vec<f64>,
}

impl Reading {
    /// p99 of received → written, and of a concurrent bare fdatasync, in milliseconds.
    async fn phase(
        &mut self,
        options: &Options,
        redis: &Redis,
        daemon: &Daemon,
        bare: &Bare,
        beside: Beside,
    ) -> Result<(f64, f64), Error> {
        let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
        let (port, duration) = (redis.port, Duration::from_secs(options.seconds));
        let before = daemon.metrics()?;
        let publisher = std::thread::spawn(move || load::publish(port, &runs, RATE, duration, 0));
        let bytes = usize::try_from(RATE)? * 260 / 200;
        let syncs = std::thread::spawn(move || bare::fdatasync(duration, bytes));
        let done = Arc::new(AtomicBool::new(false));
        let mut others = Vec::new();
        if beside != Beside::Nothing {
            let curve = format!("/api/metrics/range?run_id={}&max_points=500", self.book);
            for (path, pause) in [(page_of(self.book), 50), (curve, 1_000)] {
                let (http, done, pause) = (daemon.http(), Arc::clone(&done), Duration::from_millis(pause));
                others.push(std::thread::spawn(move || read_on(http, &path, pause, &done)));
            }
            let end = Instant::now() + duration;
            while Instant::now() < end {
                let page = timed(async { http_get(daemon.http(), &page_of(self.book)).map(drop) }).await?;
                if beside == Beside::Pairs {
                    self.pages.push(page);
                    self.bares.push(timed(bare.page(self.book)).await?);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let published =
            tokio::task::spawn_blocking(|| publisher.join()).await?.map_err(|_| "the publisher panicked")??;
        done.store(true, Ordering::Relaxed);
        for other in others {
            other.join().map_err(|_| "a reader panicked")??;
        }
        let mut syncs = syncs.join().map_err(|_| "the bare loop panicked")??;
        self.rows += published;
        stored(daemon, self.rows).await?;
        let written = histogram::quantile(&before, &daemon.metrics()?, "cascor_intake_written_seconds", 0.99);
        Ok((written * 1e3, quantile(&mut syncs, 0.99) * 1e3))
    }
}

fn page_of(run: Uuid) -> String {
    format!("/api/metrics/range?run_id={run}&limit={PAGE}")
}

fn read_on(http: u16, path: &str, pause: Duration, done: &AtomicBool) -> Result<(), Error> {
    while !done.load(Ordering::Relaxed) {
        http_get(http, path)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

async fn timed<T>(work: impl Future<Output = Result<T, Error>>) -> Result<f64, Error> {
    let start = Instant::now();
    work.await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until so many rows were stored since the start.
async fn stored(daemon: &Daemon, rows: u64) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let written = "cascor_writer_rows_total{table=\"training_metrics\"";
        if daemon.metrics()?.iter().any(|(series, value)| series.starts_with(written) && *value >= rows as f64) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("what was published is not stored after a minute".into());
        }
    }
}

async fn whole_run(options: &Options, redis: &Redis, daemon: &Daemon, bare: &Bare) -> Result<(), Error> {
    let run = Uuid::new_v4();
    let mut client = Client::connect(redis.port)?;
    client.publish("cascor:training", load::message(&[run], 0).as_bytes());
    client.flush()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bare.fill(run).await?;
    let curve = format!("/api/metrics/range?run_id={run}&max_points=2000");
    // The goal holds for one machine; over a network, paging takes longer than a client should wait.
    let draws = if matches!(bare, Bare::Sqlite(_)) { options.repeat } else { 0 };
    for _ in 0..draws {
        println!(
            "  1,000,001 rows as a curve of 2,000 points: {:.2} s",
            timed(async { http_get(daemon.http(), &curve) }).await?
        );
    }
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    for turn in 0..options.repeat {
        let driver = bare.paging(run).await?;
        let (rate, peak) = export(daemon, run, &folder.path().join(format!("{turn}.csv")))?;
        let beside =
            driver.map(|driver| format!("; bare paging {:.0} k rows/s, ratio {:.2}", driver / 1e3, rate / driver));
        println!("  export as CSV: {:.0} k rows/s, peak {peak:.0} MiB{}", rate / 1e3, beside.unwrap_or_default());
    }
    Ok(())
}

/// Rows a second of the command, its start included, and its peak memory in MiB.
fn export(daemon: &Daemon, run: Uuid, file: &Path) -> Result<(f64, f64), Error> {
    let start = Instant::now();
    let mut child = daemon
        .command()
        .args(["export", &run.to_string(), "-o"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut peak: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak_mib(child.id()).unwrap_or(0.0).max(peak);
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    let lines = std::fs::read_to_string(file)?.lines().filter(|line| line.starts_with(&run.to_string())).count();
    if !status.success() || lines as u64 != MILLION + 1 {
        return Err(format!("the export has {lines} rows of {}, {status}", MILLION + 1).into());
    }
    Ok((lines as f64 / seconds, peak))
}
