//! Where messages come from. A source only moves frames into the bounded queue; nothing that may wait runs in it.

pub mod pubsub;
mod queue;
mod status;
mod strokes;

pub use self::{
    queue::{Queue, QueuedBytes, queue},
    status::{ChannelStatus, ConnectionStatus, SourceStatus},
    strokes::{Ended, receive},
};
