//! The way of a change: commands, and runs created, annotated and completed by HTTP. Each becomes the message that a trainer would
//! have published, and takes its path; HTTP never writes to the store.
//!
//! * A message about a run goes into intake's queue, and is answered when its record is durable. In a process without a pipeline
//!   (`serve`) it is published on the training channel, for the daemon that listens there.
//! * A command is for all subscribers of the control channel, trainers included, so it is published there, and this daemon receives
//!   it like all others. A command for this daemon alone (`target` is its name) goes into the queue directly, even while Redis is
//!   away. Either way the answer is this daemon's receipt, given once the command is recorded.

mod intake_handle;
mod record;
mod targets;

pub use self::{
    intake_handle::IntakeHandle,
    targets::{SubmitTargets, Submitter},
};
