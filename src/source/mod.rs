//! Where messages come from. A source only moves frames into the bounded queue; nothing that may wait runs in it.

pub mod pubsub;
mod queue;
mod receive_thread;
mod status;

pub use self::{
    queue::{Queue, QueuedBytes, queue},
    receive_thread::{ThreadEnded, receive},
    status::{ChannelStatus, ConnectionStatus, SourceStatus},
};
