//! Limits the connections: which are evicted when all slots are taken.
//!
//! A connection either waits for its client (for the head of a request, at first or after an answer), or is being answered.
//! When every slot is taken, the client that has kept the server waiting longest loses its slot to the next connection: clients that
//! hold connections open, and send a byte now and then, cannot shut out one that asks something. When all are being answered
//! (slow bodies, slow readers), or when one address has its share, a connection gets a slot of the reserve. There the head of
//! its request is read and judged: an authenticated request keeps the slot until it is answered; any other may lose it at any
//! moment to the next connection, so that slow clients cannot keep the reserve from operators and from probes.

mod limiter;
mod permit;
mod pools;
#[cfg(test)]
mod tests;

pub use self::{
    limiter::ConnectionLimiter,
    permit::{ConnectionPermit, RequestGuard},
    pools::{Class, ConnectionLimits},
};
