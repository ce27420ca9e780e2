//! The channels between the parts of the daemon, bundled by the part that holds their ends.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    gaps::Gap,
    lifecycle::PauseBarrier,
    store::{Deletions, Problem},
    units::Micros,
    wire::{Limits, ReceivedCommand},
};

/// Commands that may wait to be executed.
const COMMANDS: usize = 1_024;
/// Receipts that a waiting request may be behind.
pub(super) const RECEIPTS: usize = 256;

/// Every channel, by its ends.
pub(super) struct Channels {
    pub(super) intake: IntakeChannels,
    pub(super) control: ControlChannels,
    pub(super) writer: WriterChannels,
    pub(super) status: StatusChannels,
    pub(super) drain: DrainChannels,
    /// Limits of a message, for SIGHUP.
    pub(super) limits: watch::Sender<Limits>,
    /// Deleted runs.
    pub(super) deletions: watch::Receiver<Deletions>,
}

/// Ends of intake.
pub(super) struct IntakeChannels {
    pub(super) limits: watch::Receiver<Limits>,
    pub(super) commands: mpsc::Sender<ReceivedCommand>,
    pub(super) last_gap: watch::Sender<Option<Gap>>,
}

/// Ends of the control stage.
pub(super) struct ControlChannels {
    pub(super) commands: mpsc::Receiver<ReceivedCommand>,
    pub(super) pause_barrier: watch::Sender<PauseBarrier>,
    /// Receipts for requests of this process.
    pub(super) receipts: broadcast::Sender<Arc<str>>,
}

/// Ends of the writer.
pub(super) struct WriterChannels {
    pub(super) pause_barrier: watch::Receiver<PauseBarrier>,
    pub(super) flush_to: watch::Receiver<u64>,
    pub(super) progress: watch::Sender<u64>,
    pub(super) oldest_unstored: watch::Sender<Option<Micros>>,
    pub(super) problem: watch::Sender<Option<Problem>>,
    pub(super) deletions: watch::Sender<Deletions>,
}

/// Ends of the status.
#[derive(Clone)]
pub(super) struct StatusChannels {
    /// Whether the writer is held.
    pub(super) pause_barrier: watch::Receiver<PauseBarrier>,
    /// Every record below this offset is confirmed by the store.
    pub(super) progress: watch::Receiver<u64>,
    /// When the oldest record was received that the writer has read and the store has not confirmed.
    pub(super) oldest_unstored: watch::Receiver<Option<Micros>>,
    /// The newest gap since the start.
    pub(super) last_gap: watch::Receiver<Option<Gap>>,
    /// What keeps the writer from writing.
    pub(super) problem: watch::Receiver<Option<Problem>>,
}

/// Ends of the task that stops the daemon in order.
pub(super) struct DrainChannels {
    /// Everything below this offset is written at once.
    pub(super) flush_to: watch::Sender<u64>,
    pub(super) progress: watch::Receiver<u64>,
}

impl Channels {
    /// `committed` is where the writer begins.
    pub(super) fn new(committed: u64, limits: Limits) -> Self {
        let (pause_barrier_out, pause_barrier) = watch::channel(PauseBarrier::None);
        let (progress_out, progress) = watch::channel(committed);
        let (oldest_out, oldest_unstored) = watch::channel(None);
        let (flush_out, flush_to) = watch::channel(0);
        let (last_gap_out, last_gap) = watch::channel(None);
        let (problem_out, problem) = watch::channel(None);
        let (deletions_out, deletions) = watch::channel(Deletions::new());
        let (limits_out, limits) = watch::channel(limits);
        let (commands_out, commands) = mpsc::channel(COMMANDS);
        Self {
            intake: IntakeChannels { limits, commands: commands_out, last_gap: last_gap_out },
            control: ControlChannels {
                commands,
                pause_barrier: pause_barrier_out,
                receipts: broadcast::channel(RECEIPTS).0,
            },
            writer: WriterChannels {
                pause_barrier: pause_barrier.clone(),
                flush_to,
                problem: problem_out,
                progress: progress_out,
                oldest_unstored: oldest_out,
                deletions: deletions_out,
            },
            drain: DrainChannels { flush_to: flush_out, progress: progress.clone() },
            status: StatusChannels { pause_barrier, progress, oldest_unstored, last_gap, problem },
            limits: limits_out,
            deletions,
        }
    }
}
