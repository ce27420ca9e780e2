//! Gaps in what was received. Each is found where the loss happens, and travels to the log like a message.
//!
//! A new reason is a variant of [`GapReason`] (`gap.rs`); the metrics and the status take it up from [`GapReason::ALL`].

mod gap;
mod missing;
mod sequence;

pub use self::{
    gap::{Gap, GapReason},
    sequence::SeqTracker,
};
