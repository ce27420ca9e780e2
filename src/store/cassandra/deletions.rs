//! Deletion of runs.
//!
//! One logged batch records the deletion and deletes the partitions of the run, so that a crash leaves either all or nothing. Its time
//! is [`ANNOUNCED`] ahead: by then every writer has read of it (a writer may write for [`DELETIONS_VALID`] after it began to read the
//! deletions), or has stopped writing. Rows that a writer adds meanwhile were received before that time, and the tombstones cover
//! them, whenever they arrive: a write carries the time at which it was allowed ([`write_times`](super::write_times)). What is received
//! afterwards is written afterwards, with a later time, and stays.
//!
//! A writer may have begun to read just before the batch was applied. So the batch must be confirmed within [`CONFIRMED`], or else it
//! is sent again with a later time. The clocks of nodes may differ by [`CLOCK_SKEW`].
//! Gaps and entries of the index that writers added meanwhile are found and deleted at the end.

use std::time::Duration;

use scylla::{
    statement::batch::{Batch, BatchStatement, BatchType},
    value::CqlTimestamp,
};
use tokio::time::{Instant, sleep};
use tracing::warn;
use uuid::Uuid;

use super::{
    CassandraStore, days, errors,
    pages::collect,
    reads,
    session::LiveSession,
    statements::DeletionStatements,
    time,
    write_times::DeletionsRead,
    writes::{at, ttl},
};
use crate::{
    event::GapRow,
    logging::Chain,
    store::{BoxFuture, DELETION_RETENTION, DELETIONS_VALID, DaysQuery, DeletionStore, Deletions, StoreError},
    units::{Micros, now},
};

/// Largest difference between the clocks of two nodes.
const CLOCK_SKEW: Duration = Duration::from_millis(1_500);

/// Within this time Cassandra must confirm a deletion.
const CONFIRMED: Duration = Duration::from_millis(1_500);

/// How often a deletion is sent, at most.
const TRIES: u32 = 3;

/// How long after the announcement the deletion takes effect.
const ANNOUNCED: Duration = DELETIONS_VALID.saturating_add(CLOCK_SKEW).saturating_add(CONFIRMED);

/// Gap rows that are searched for those of the run, newest first.
const GAPS_MAX: usize = 100_000;

/// The times of a deletion.
#[derive(Clone, Copy)]
struct DeletionTimes {
    /// By the clock of the server: of the tombstones.
    tombstone: Micros,
    /// By the clock of this machine: what was received until then is deleted.
    deleted_at: Micros,
    /// Whether it was confirmed within [`CONFIRMED`].
    in_time: bool,
}

impl DeletionStore for CassandraStore {
    fn delete_run<'a>(&'a self, run_id: Uuid, deleted_by: Option<&'a str>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.call("delete_run", async move |live| delete_run(live, run_id, deleted_by).await))
    }

    fn deletions(&self) -> BoxFuture<'_, Result<Deletions, StoreError>> {
        Box::pin(self.call("deletions", async move |live| {
            let server_time = reads::server_time(live).await?;
            let arrived_at = Instant::now();
            let row = |(run_id, at, tombstone): (Uuid, _, Micros)| ((run_id, time::micros(at)), (run_id, tombstone));
            let found = collect(live, &live.statements.deletion.recorded, (), usize::MAX, row).await?;
            let (deletions, tombstones) = found.into_iter().unzip();
            self.write_times.read(DeletionsRead { server_time, arrived_at, tombstones });
            Ok(deletions)
        }))
    }

    fn deletions_applied(&self, _: &Deletions) {
        self.write_times.apply();
    }
}

/// Deletes the run; returns when that is in effect.
async fn delete_run(live: &LiveSession, run_id: Uuid, deleted_by: Option<&str>) -> Result<(), StoreError> {
    let start = reads::run(live, run_id).await?.and_then(|run| run.start_time).unwrap_or_default();
    delete_gaps(live, run_id, start, Micros::MAX).await?;
    let times = announce_in_time(live, run_id, start, deleted_by).await?;
    sleep(ANNOUNCED).await;
    // The run is deleted, whatever comes of these.
    for deleted in
        [delete_gaps(live, run_id, start, times.deleted_at).await, delete_entries(live, run_id, times.tombstone).await]
    {
        if let Err(error) = deleted {
            warn!(%run_id, error = %Chain(&error), "rows of a deleted run may be left in ingest_gaps or runs_by_month");
        }
    }
    Ok(())
}

/// Announces the deletion so that it covers every write of a writer that does not know of it.
async fn announce_in_time(
    live: &LiveSession,
    run_id: Uuid,
    start: Micros,
    deleted_by: Option<&str>,
) -> Result<DeletionTimes, StoreError> {
    let mut last = StoreError::Unavailable(format!("a deletion was not confirmed within {CONFIRMED:?}").into());
    let mut is_known = false;
    for number in 1..=TRIES {
        match announce(live, run_id, start, deleted_by).await {
            // After a confirmed one, writers know of the run's deletion, however long the next one takes.
            Ok(times) if times.in_time || (is_known && number == TRIES) => return Ok(times),
            Ok(_) => is_known = true,
            Err(StoreError::Unavailable(error)) => last = StoreError::Unavailable(error),
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Records the deletion, and deletes what has the run in its key.
async fn announce(
    live: &LiveSession,
    run_id: Uuid,
    start: Micros,
    deleted_by: Option<&str>,
) -> Result<DeletionTimes, StoreError> {
    let micros = |duration: Duration| Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX);
    let began = reads::server_time(live).await?;
    let tombstone = began + micros(ANNOUNCED);
    // Whole milliseconds, as stored.
    let deleted_at = time::millis(now() + micros(ANNOUNCED)) * 1_000;
    let DeletionStatements { record, partitions, entry, .. } = &live.statements.deletion;
    let mut batch = Batch::new(BatchType::Logged);
    batch.set_is_idempotent(true);
    batch.set_consistency(record.get_consistency().unwrap_or_default());
    batch.set_timestamp(Some(tombstone));
    for statement in [record, entry].into_iter().chain(partitions) {
        batch.append_statement(BatchStatement::from(statement.clone()));
    }
    let of_run = (run_id,);
    let values = (
        (run_id, time::cql(deleted_at), deleted_by, ttl(DELETION_RETENTION, deleted_at)),
        (time::month(start), time::cql(start), run_id),
        of_run,
        of_run,
        of_run,
        of_run,
        of_run,
        of_run,
    );
    live.session.batch(&batch, values).await.map_err(errors::store_error)?;
    // By the server's clock, which goes on while this machine sleeps.
    let in_time = reads::server_time(live).await? - began < micros(CONFIRMED);
    Ok(DeletionTimes { tombstone, deleted_at, in_time })
}

/// Deletes what was recorded as missing in the run up to this time.
async fn delete_gaps(live: &LiveSession, run_id: Uuid, start: Micros, until: Micros) -> Result<(), StoreError> {
    let query = DaysQuery { start, end: Micros::MAX, limit: GAPS_MAX };
    let is_of_run = |gap: &GapRow| gap.run_id == Some(run_id) && gap.ended_at <= until;
    for gap in days::gaps(live, &query).await?.into_iter().filter(is_of_run) {
        let key = (time::day(gap.started_at), time::cql(gap.started_at), gap.gap_id);
        live.session.execute_unpaged(&live.statements.deletion.gap, key).await.map_err(errors::store_error)?;
    }
    Ok(())
}

/// Deletes the entries of the run in the index that are not later than the tombstones.
async fn delete_entries(live: &LiveSession, run_id: Uuid, tombstone: Micros) -> Result<(), StoreError> {
    let DeletionStatements { entries, entry, .. } = &live.statements.deletion;
    let entry = at(entry, Some(tombstone));
    for month in reads::partitions(live, &live.statements.months).await? {
        let starts = collect(live, entries, (&month, run_id), usize::MAX, |(start,): (CqlTimestamp,)| start).await?;
        for start in starts {
            live.session.execute_unpaged(&entry, (&month, start, run_id)).await.map_err(errors::store_error)?;
        }
    }
    Ok(())
}
