//! Where messages come from. A source only moves frames into the bounded queue; nothing that may wait for a disk or a store runs in it.
//!
//! Another kind of source is a module beside [`pubsub`] and [`streams`] that implements [`Source`]: it says by [`WhenFull`] what happens when its
//! queue is full, and delivers frames and gaps through its [`QueueSender`], which brings acknowledgements back. One thread runs all
//! sources ([`receive`]). Intake knows none of them.

pub mod pubsub;
mod queue;
mod queue_sender;
mod receive_clock;
mod receive_thread;
mod role;
mod status;
mod stream_status;
pub mod streams;
mod traffic;

pub use self::{
    queue::{Closed, Queue, QueueUsage, queue},
    queue_sender::{Loss, QueueSender},
    receive_clock::ReceiveClock,
    receive_thread::{Input, Running, Source, ThreadEnded, receive},
    role::{Role, WhenFull},
    status::{ChannelStatus, ConnectionHandle, ConnectionStatus, SourceStatus},
    stream_status::{StreamHandle, StreamStatus, StreamsStatus},
};
