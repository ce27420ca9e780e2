//! State of this daemon and of the servers behind it, in the form that the panels of existing dashboards read: always 200, with
//! `status` UP, DOWN (it answered before), UNAVAILABLE (it never answered) or DISABLED (not configured).

pub mod cassandra;
pub mod daemon;
mod head;
pub mod redis;
