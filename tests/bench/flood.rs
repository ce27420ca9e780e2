//! A million events as fast as Redis takes them: every one is a row, or covered by a gap row with the exact number.

use std::time::Duration;

use tokio::time::Instant;

use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    Error, Options,
    daemon::Daemon,
    load,
    resp::{Client, Redis},
};

const EVENTS: u64 = 1_000_000;

pub async fn run(options: &Options) -> Result<(), Error> {
    let session = crate::session(&options.cassandra).await?;
    let keyspace = "bench_flood";
    let redis = Redis::start(16_920)?;
    let daemon = Daemon::start(redis.port, &options.cassandra, keyspace)?;
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let mut client = Client::connect(redis.port)?;
    let start = Instant::now();
    for first in (0..EVENTS).step_by(1_000) {
        for n in first..first + 1_000 {
            client.publish("cascor:training", load::message(&runs, n).as_bytes());
        }
        client.flush()?;
    }
    let rate = EVENTS as f64 / start.elapsed().as_secs_f64();
    // One more per run, so that a loss at the very end shows as a gap.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in EVENTS..EVENTS + runs.len() as u64 {
        client.publish("cascor:training", load::message(&runs, n).as_bytes());
    }
    client.flush()?;
    let total = EVENTS + runs.len() as u64;
    let mut pending = f64::INFINITY;
    while pending > 0.0 && start.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let metrics = daemon.metrics()?;
        pending = metrics.get("cascor_spool_pending_records").copied().unwrap_or(f64::INFINITY);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (missing, twice) = load::judge(&session, keyspace, &runs, total).await?;
    let select = format!("SELECT reason, lost FROM {keyspace}.ingest_gaps");
    let mut gaps = session.query_iter(select, ()).await?.rows_stream::<(String, Option<i64>)>()?;
    let mut explained = 0;
    while let Some((reason, lost)) = gaps.try_next().await? {
        if reason == "sequence" {
            explained += lost.unwrap_or(0) as u64;
        }
    }
    println!(
        "{EVENTS} events published at {:.0} k/s: {} rows, {missing} missing, {explained} counted by gap rows, {twice} twice; peak {:.0} MiB",
        rate / 1e3,
        total - missing,
        daemon.peak_mib()?
    );
    session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await?;
    if missing != explained || twice > 0 {
        return Err("what is missing is not what the gaps say".into());
    }
    Ok(())
}
