//! Hostile input against the real program: messages, keys in Redis, HTTP requests and clients that try to stop it, to fill its
//! memory or to exceed their permissions.
//!
//! `tests/run` runs the short tier. The long one has its own command: `tests/faults/hostile/run --long`.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod away;
mod memory;
mod messages;
mod redis;
mod routes;
mod sessions;
#[path = "../../it/support/mod.rs"]
mod support;

mod clients;
#[path = "../../bench/histogram.rs"]
mod histogram;
mod slow;

use std::{fs::OpenOptions, io::Write};

/// Whether this is the long tier.
fn is_long() -> bool {
    std::env::var("CASCOR_FAULTS").is_ok_and(|tier| tier == "long")
}

/// Adds a line to the table of results.
fn tabulate(line: &str) {
    print!("{line}");
    if let Ok(path) = std::env::var("CASCOR_FAULTS_TABLE") {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
