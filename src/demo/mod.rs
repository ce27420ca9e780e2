//! A training process to try the daemon: real cascade-correlation on the two-spirals data.
//!
//! [`network`] learns; [`trainer`] reports it in the messages of trainers. Both are independent of Redis and of the clock.

pub mod network;
pub mod trainer;
