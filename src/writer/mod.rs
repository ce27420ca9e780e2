//! The writer: takes records from the spool and writes their rows to the store, in batches.
//!
//! ```text
//!  Records ─► accept ──rows──► batches ──due──► ready ──► in flight ──► store
//!                │                                          │
//!                ├─update──► runs ──read, then write────────┤
//!                └rejected─► dead letters ─────────────────►│
//!                                                           ▼
//!                             commit ◄── frontier ◄── confirmed parts
//! ```
//!
//! Invariants:
//! * The [frontier](frontier) counts each record by its parts (rows, run row, dead letter). The committed offset passes a record
//!   only when all its parts are confirmed, by the store or by the dead letters.
//! * Bytes, records, open partitions and runs in memory are bounded. At a bound no further record is taken, and the spool grows.
//! * While the store is down, one batch is repeated as a probe until it is confirmed. Batches and run rows have a circuit breaker
//!   each, so that event rows do not wait for a run that cannot be read.
//! * Records of a [deleted run](deletions) that were received before its deletion are skipped, and counted.
//! * A replay has the same result: rows are written as decoded, run rows are merged [by value](summary).

mod batch;
mod circuit_breaker;
mod concurrency_limit;
mod config;
mod decode;
mod deletions;
mod final_values;
mod frontier;
mod history;
mod lifetime;
mod names;
mod pending_records;
mod ports;
mod recheck_schedule;
mod run;
mod run_call;
mod run_columns;
mod runs;
mod spool_commit;
mod spool_dead_letters;
mod spool_source;
mod store_call;
mod summary;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    lifecycle::Signal,
    memory::MemoryLimit,
    metrics::Metrics,
    store::{Deletions, Problem, Store},
    units::Micros,
};

pub use self::{
    config::Config,
    decode::Decoder,
    ports::{
        Commit, Content, DeadLetterBody, DeadLetterEntry, DeadLetterSink, DecodedRecord, RecordChunk, RecordSource,
    },
    spool_commit::SpoolCommit,
    spool_dead_letters::SpoolDeadLetters,
    spool_source::{SpoolChunk, SpoolRecords},
};
pub use crate::lifecycle::PauseBarrier;

/// What the writer is connected to.
pub struct WriterPorts<C, A> {
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// Where confirmed positions go.
    pub commit: C,
    /// Where refused rows and rejected messages go.
    pub dead_letters: Arc<A>,
    /// How far it may go.
    pub pause_barrier: watch::Receiver<PauseBarrier>,
    /// Everything below this offset is written at once, without waiting for more of its batch.
    pub flush_to: watch::Receiver<u64>,
    /// Out: the problem that holds the writer.
    pub problem: watch::Sender<Option<Problem>>,
    /// Out: the deleted runs, as soon as some are new.
    pub deletions: watch::Sender<Deletions>,
    /// Out: the first offset that is not yet confirmed. Never goes back.
    pub progress: watch::Sender<u64>,
    /// Out: when the oldest record was received that is read and not yet confirmed.
    pub oldest_unstored: watch::Sender<Option<Micros>>,
    /// For the copies that a store makes of a large row.
    pub memory: MemoryLimit,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why the writer ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// A bug in the store or the dead letters, which the log names. The records are still in the spool.
    #[error("a write panicked")]
    Panicked,
}

/// Moves records into the store until `stop`; then writes what it has gathered, and returns at once when the store is down.
///
/// # Errors
/// When a write panics.
pub async fn run<R: RecordSource, C: Commit, A: DeadLetterSink>(
    config: Config,
    records: R,
    ports: WriterPorts<C, A>,
    stop: Signal,
) -> Result<(), WriterError> {
    task::Writer::new(config, ports, stop).run(records).await
}
