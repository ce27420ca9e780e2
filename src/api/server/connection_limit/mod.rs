//! Limits concurrent connections. When all slots are taken, evicts the connection that has been idle longest.
//!
//! A connection is idle while it waits for the head of a request, at first or after an answer, and busy while it is being answered.
//! When every slot is taken, a new connection replaces the one that has been idle longest, so clients that hold connections open,
//! and send a byte now and then, cannot keep new clients out. When all are busy (slow bodies, slow readers), or when the client's
//! address has used up its share, a new connection gets a slot of the reserve. There only the head of its request is read at first:
//! an authenticated request keeps the slot until it is answered, and one that is cheap to answer from its last byte until the answer
//! is made; any other may be evicted at any time by the next connection, so that slow clients cannot keep operators and probes out of
//! the reserve. A connection that was accepted and not yet read is not idle: on a busy machine its request may be there.

mod admission;
mod limiter;
mod permit;
#[cfg(test)]
mod tests;

pub use self::{
    admission::{Class, ConnectionLimits},
    limiter::ConnectionLimiter,
    permit::{ConnectionPermit, RequestGuard},
};
