//! Whether this daemon and the servers behind it are well, in the form that the panels of existing dashboards read: always 200,
//! with `status` UP, DOWN (it answered before), UNAVAILABLE (it never did) or DISABLED (there is none).

pub mod cassandra;
pub mod daemon;
mod head;
pub mod redis;
