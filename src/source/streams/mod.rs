//! Redis Streams: reads as a consumer of a group, and acknowledges an entry once it is on disk.
//!
//! * Redis keeps an entry as pending until it is acknowledged. After a restart, and after each lost connection, the consumer reads its
//!   pending entries first. Within a session what is on its way to the disk is not delivered again ([`ack_tracker`]).
//! * While entries flow they are read every 25 ms, and acknowledged every 100 ms ([`pace`]).
//! * Reading waits while the queue is full: a block of entries is only asked for while there is room for it. The server measures it
//!   first, because it sends an answer whole ([`read_new`]).
//! * What a dead consumer has left is claimed by any other after `redis.claim_after`.
//! * A redelivered entry is the same row: its identity is a function of the entry.
//! * Entries that were trimmed before they were read are counted ([`trimmed`], [`report`]), and so are pending ones that were trimmed
//!   before they reached a disk ([`deleted_entries`]). A stream or a group that is gone is made again, from its beginning. A server that
//!   lacks what was read before, as after a failover to a replica that was behind, is noticed ([`rollback`]).
//! * When stopping, the server is asked to answer the read that waits for an entry: then nothing that it hands out is left to be claimed.
//!   Where it may not be asked, and in a cluster, the connection of the read is closed.
//!
//! [`Tail`] reads the same streams without a group, for the live events.

mod ack_tracker;
mod commands;
mod consumer;
mod deleted_entries;
mod maintenance;
mod maintenance_result;
mod measure;
mod message;
mod pace;
mod read_new;
mod read_size;
mod receive;
mod reply;
mod report;
mod rollback;
mod session;
mod shared_counters;
mod source;
mod tail;
mod trimmed;

use tokio::time::sleep;

use self::{consumer::Consumer, session::End};
pub use self::{
    source::Stream,
    tail::{Tail, Tailed},
};
use super::{
    queue_sender::QueueSender,
    receive_thread::{Running, Source},
    role::{Role, WhenFull},
};
use crate::{
    backoff::{self, Backoff},
    lifecycle::Signal,
};

impl Source for Stream {
    fn role(&self) -> Role {
        Role::Stream
    }

    fn when_full(&self) -> WhenFull {
        WhenFull::Wait
    }

    fn run(self: Box<Self>, sender: QueueSender, stop: Signal) -> Running {
        Box::pin(run(Consumer::new(*self, sender), stop))
    }
}

/// Reads until told to stop, or until intake has ended. Whatever Redis does, it keeps trying.
async fn run(mut consumer: Consumer, mut stop: Signal) {
    let mut retry = Backoff::new(backoff::REDIS, 0);
    loop {
        let opened = tokio::select! {
            biased;
            () = stop.stopped() => break,
            opened = consumer.open() => opened,
        };
        let error = match opened {
            Ok(session) => {
                retry.reset();
                match Box::pin(consumer.read(session, &mut stop)).await {
                    End::Stopped => break,
                    End::Failed(error) => error,
                }
            }
            Err(error) => error,
        };
        let delay = consumer.on_error(&error, &mut retry);
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            () = sleep(delay) => {}
        }
    }
    Box::pin(consumer.finish()).await;
}
