//! A training process to try the daemon with: real cascade-correlation on the two-spirals data.
//!
//! [`network`] learns, [`trainer`] tells what happened in the messages that trainers send. Neither knows Redis nor a clock.

pub mod network;
pub mod trainer;
