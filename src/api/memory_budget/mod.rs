//! Memory for answers made of stored rows: one budget of bytes, which pages, values and exports all draw from until their clients
//! have taken what was made.
//!
//! How large a row is shows only when it is there, and one may be as large as a message. So only a few read at a time
//! ([`MAX_CONCURRENT_READS`]). A read that exceeds its reservation is discarded, a larger reservation is awaited, and the read is
//! repeated, so only those few reads exceed their reservations at any time. A need above the budget takes the whole budget.

mod body;
mod budget;
mod chunked;
mod read;
mod reservation;
#[cfg(test)]
mod tests;

pub use self::{
    body::HoldsMemory,
    budget::{MemoryBudget, PAGE_BYTES, PAGE_RESERVATION, SMALL_RESERVATION},
    chunked::{ChunkWriter, json as chunked_json, write_json},
    reservation::Reservation,
};
