//! Commands on the control channel, and their receipts.
//!
//! Intake records every command and hands it on once it is durable; a command that is read again from the log is never executed
//! again. Nothing here waits for Redis: answers are published on the side.

mod config;
mod pause;
mod ports;
mod receipt;
mod stage;
#[cfg(test)]
mod tests;

pub use self::{
    config::{Config, Obey},
    pause::PAUSE_FILE,
    ports::{ControlPorts, Identity},
    stage::Stage,
};
