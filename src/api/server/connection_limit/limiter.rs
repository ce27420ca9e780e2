//! Gives slots to connections.

use std::{net::IpAddr, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{
    admission::{Class, ConnectionLimits, Slots},
    permit::ConnectionPermit,
};
use crate::api::auth::network;

/// Connections beyond their address' share that may wait for a slot, in a queue of their own. Any more are closed.
pub const MAX_QUEUED: usize = 256;

/// See [the module](super).
#[derive(Debug)]
pub struct ConnectionLimiter {
    pub(super) slots: Arc<Slots>,
    /// Slots in the queue of connections beyond their address' share.
    queue_slots: Arc<Semaphore>,
    /// Held by the first in the queue.
    queue_head: Semaphore,
}

impl ConnectionLimiter {
    /// As many slots as the limits say, and some more for probes.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Slots::new(limits)),
            queue_slots: Arc::new(Semaphore::new(MAX_QUEUED)),
            queue_head: Semaphore::new(1),
        })
    }

    /// Whether an address has used up its share. Its next connection waits in a queue of its own, so that it does not delay other
    /// addresses.
    pub fn exceeds_share(&self, peer: IpAddr) -> bool {
        self.slots.pools().exceeds_share(network(peer))
    }

    /// A queue slot for such a connection; `None`: close it.
    pub fn try_queue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.queue_slots).try_acquire_owned().ok()
    }

    /// As [`acquire`](Self::acquire), in the order of the queue.
    pub async fn acquire_queued(&self, peer: IpAddr, _slot: OwnedSemaphorePermit) -> ConnectionPermit {
        let _head = self.queue_head.acquire().await;
        self.acquire(Some(peer)).await
    }

    /// Waits for a slot. `peer`: an address that is limited to its share. Dropping the future takes no slot.
    pub async fn acquire(&self, peer: Option<IpAddr>) -> ConnectionPermit {
        let peer = peer.map(network);
        loop {
            let changed = self.slots.changed.notified();
            let taken = self.slots.pools().try_acquire(Instant::now(), peer);
            match taken {
                Ok(class) => {
                    let peer = peer.filter(|_| class == Class::General);
                    return ConnectionPermit::new(Arc::clone(&self.slots), class, peer);
                }
                Err(None) => changed.await,
                Err(Some(due)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }
}
