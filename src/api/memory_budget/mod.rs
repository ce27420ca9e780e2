//! The memory budget of answers: pages, values and exports draw from it until their clients have received them.
//!
//! The size of a row is known only once it is read, and may be that of a message. So few reads run at a time
//! ([`MAX_CONCURRENT_READS`](budget)). A read that exceeds its reservation is discarded, a larger reservation is awaited, and the
//! read is repeated, so only those few reads exceed their reservations at any time. A reservation above the budget takes the whole
//! budget.

mod body;
mod budget;
mod chunked;
mod read;
mod reservation;
#[cfg(test)]
mod tests;

pub use self::{
    body::HoldsMemory,
    budget::{MemoryBudget, PAGE_BYTES, PAGE_RESERVATION, SMALL_RESERVATION, SMALL_VALUE_BYTES},
    chunked::{ChunkWriter, json as chunked_json, write_json},
    reservation::Reservation,
};
