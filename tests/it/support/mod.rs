//! Shared helpers: servers, the daemon, and clients that share no code with the daemon.
//!
//! Everything started here is ended when its handle is dropped, so that a failing test leaves nothing behind.
#![allow(dead_code, reason = "helpers for tests that come and go")]

pub mod cassandra;
pub mod daemon;
pub mod http;
pub mod ports;
pub mod process;
pub mod redis;
pub mod redis_group;
pub mod resp;
pub mod sqlite;
pub mod stream;

use std::{
    fs::OpenOptions,
    io::Write,
    process::id,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Says that a test could not run, and why. `tests/run` counts these; the caller returns.
///
/// ```ignore
/// let Some(cassandra) = Cassandra::shared() else { return skip("rows_are_read_back", "no Cassandra") };
/// ```
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Ok(path) = std::env::var("CASCOR_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        // One write, so that the lines of parallel tests do not mix.
        file.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
    }
}

/// Polls until there is an answer; panics with `what` at the timeout.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Like [`wait_for`], for a condition.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// A name that no other test of this or a parallel run uses. Fit for a keyspace, a channel or a file.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}_{}_{}", id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A file of the repository.
pub fn repository(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
