//! Frames to durable records: decode once, decide once, append, write each group at once, one fsync for several groups.
//!
//! Intake is one operating-system thread, because its work is bytes and fsyncs: nothing here may hold up the runtime that
//! receives from Redis, and no task of that runtime may hold up an fsync. The sources gather messages, so that it is not woken for
//! every one; after a silence, or when a command or a request waits for it, a message is made durable at once.
//!
//! * Commands are served before training messages, so that a flood cannot delay them.
//! * Only after the fsync a command is passed on to be executed.
//! * A message for which the spool has no room is counted, and becomes one coalesced gap ([`GapReason::SpoolFull`](crate::gaps::GapReason)).
//! * A message of a request for which there is no room is left to its client, which sends it again, and is no gap.
//! * A gap for which there is no room either waits, merged with its like, until there is.

mod accept;
mod batch;
mod config;
mod drop_counter;
mod entries;
mod group;
mod recover_runs;
mod shared_entries;
mod shared_runs;
mod stage;
mod state;
mod sync;
mod zone;

pub use self::{
    config::Config,
    shared_runs::{SharedRuns, read_open_run},
    stage::{Intake, IntakeDeps},
    state::{Exchanged, RunSharing, STATE_FILE, ShareError, recovered_from},
};
