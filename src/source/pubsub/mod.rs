//! Redis Pub/Sub: subscribes, confirms it, receives, and reports every gap.
//!
//! A session is one connection, whose subscriptions are confirmed. Refused channels are tried again on a connection of their own.

mod receive;
mod session;
mod source;
mod subscriber;

use tokio::time::{Instant, sleep};

pub use self::source::PubSub;
use self::{
    receive::End,
    subscriber::{OpenError, Subscriber},
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

impl Source for PubSub {
    fn role(&self) -> Role {
        self.role
    }

    fn when_full(&self) -> WhenFull {
        WhenFull::Drop
    }

    fn run(self: Box<Self>, sender: QueueSender, stop: Signal) -> Running {
        Box::pin(run(Subscriber::new(*self, sender), stop))
    }
}

/// Receives until told to stop, or until intake has ended. Whatever Redis does, it keeps trying.
async fn run(mut subscriber: Subscriber, mut stop: Signal) {
    if subscriber.source.channels.is_empty() {
        return stop.stopped().await;
    }
    let mut retry = Backoff::new(backoff::REDIS, 0);
    loop {
        let opened = tokio::select! {
            biased;
            () = stop.stopped() => break,
            opened = subscriber.open() => opened,
        };
        let delay = match opened {
            Ok(session) => {
                retry.reset();
                match Box::pin(subscriber.receive(session, &mut stop)).await {
                    End::Stopped => break,
                    End::Lost => retry.next_delay(),
                }
            }
            Err(error) => {
                subscriber.on_open_error(&error);
                match &error {
                    OpenError::Connect(connect) => connect.retry_delay(&mut retry),
                    OpenError::Refused(_) => backoff::OPERATOR,
                    _ => retry.next_delay(),
                }
            }
        };
        // A closed queue is noticed at the next frame.
        let _ = subscriber.sender.flush_gaps(Instant::now());
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            () = sleep(delay) => {}
        }
    }
    subscriber.finish().await;
}
