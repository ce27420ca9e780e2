//! Free ports on loopback.

use std::{
    net::TcpListener,
    process::id,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the range from which the kernel takes ports for outgoing connections: a server that is stopped and started
/// again finds its port still free.
const RANGE: std::ops::Range<u32> = 20_000..30_000;

/// A port on which nothing listens, and that no other call of this process returns.
///
/// `CASCOR_TEST_PORTS` (`16600-16699`) narrows the choice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::env::var("CASCOR_TEST_PORTS").ok().and_then(|text| parse(&text)).unwrap_or(RANGE);
    let size = range.end - range.start;
    // Test processes that run beside each other begin at different places.
    let offset = id().wrapping_mul(97);
    for _ in 0..size {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(range.start + offset.wrapping_add(step) % size).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {range:?}");
}

/// The same for a node of a cluster, whose bus has the port 10,000 above.
pub fn free_node_port() -> u16 {
    loop {
        let port = free_port();
        if TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn parse(text: &str) -> Option<std::ops::Range<u32>> {
    let (first, last) = text.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u32>().ok()? + 1)
}
