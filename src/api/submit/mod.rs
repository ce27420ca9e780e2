//! What changes something: commands, and runs created, annotated and completed by HTTP. Each is the message that a program
//! would have published, and takes the message's path; there is no second way to the store.
//!
//! * A message about a run goes into intake's queue, and is answered when its record is durable. In a process without a pipeline
//!   (`serve`) it is published on the training channel, for the daemon that listens there.
//! * A command is for everyone on the control channel, trainers included, so it is published there, and comes back to this
//!   daemon as it comes to all others. One for this daemon alone (`target` is its name) goes into the queue directly, also
//!   while Redis is away. Either way the answer is this daemon's receipt, given once the command is recorded.

mod intake_handle;
mod record;
mod targets;

pub use self::{
    intake_handle::IntakeHandle,
    targets::{SubmitTargets, Submitter},
};
