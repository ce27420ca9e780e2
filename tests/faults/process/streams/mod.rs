//! Streams: whatever is killed, every entry that Redis has acknowledged is one row, or counted.

mod cassandra;
mod failover;
mod kill;
mod redis;
mod rig;
mod storm;
mod trimmed;
