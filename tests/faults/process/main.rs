//! Faults inflicted on the real program: a producer with a ledger, a fault, and a judge that reads the table.
//!
//! Each case says what it does, what may be lost and which errors may be logged; [`arena`] does the rest. Whatever a case
//! injects, it demands the same: everything published more than the bound (25 ms) before a fault while the daemon was ready is
//! a row, no message is two, values are intact, missing messages are covered by `ingest_gaps`, a fresh message is a row within 5 s
//! after the fault has ended, and no ERROR is logged that the case does not name.
//!
//! `tests/run` runs the short tier. The long one has its own command, with the counts in the environment:
//! `CASCOR_FAULTS=long cargo test --test faults_process -- --test-threads 1`; see `tests/faults/process/run`.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod arena;
mod cassandra;
mod disk;
mod files;
mod judge;
mod kill;
mod load;
mod mount;
mod producer;
mod proxy;
mod pulse;
mod redis;
mod stop;
mod strace;
mod streams;
#[path = "../../it/support/mod.rs"]
mod support;
mod time;
