//! The way of a change: commands, and runs created and completed by HTTP. Each becomes the message that a trainer would have
//! published, and takes its path. Edits of runs, which no message can make, go straight into the store; only their record in
//! `control_log` takes this way.
//!
//! * A message about a run goes into intake's queue, and is answered when its record is durable. In a process without a pipeline
//!   (`serve`) it is published on the training channel, for the daemon that listens there.
//! * Messages in bulk go into the training queue in batches, and are answered when they are durable, or there is no room for them.
//!   Nothing but intake takes them: `serve` refuses them.
//! * A command is for all subscribers of the control channel, trainers included, so it is published there, and this daemon receives
//!   it like all others. A command for this daemon alone (`target` is its name) goes into the queue directly, even while Redis is
//!   away. Either way the answer is this daemon's receipt, given once the command is recorded.

mod batches;
mod intake_handle;
mod record;
mod targets;

pub use self::{
    batches::Submitted,
    intake_handle::{IntakeHandle, IntakeSenders},
    record::change_row,
    targets::{FALLBACK_CHANNEL, SubmitTargets, Submitter},
};
