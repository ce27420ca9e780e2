//! Hostile HTTP clients: slow clients that send a byte of a request head each second, and bodies of 1 GiB. Shared with the tests.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Content-Length of a body.
const BODY: u64 = 1 << 30;
/// How often a slow client sends a byte.
const ROUND: Duration = Duration::from_secs(1);
/// Delay between two bodies.
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout of connects and writes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts of the attack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Connections that the slow clients made.
    pub opened: u64,
    /// Those that the server closed.
    pub closed: u64,
    /// Bodies that were begun.
    pub bodies: u64,
    /// Largest number of bytes sent of one.
    pub longest: u64,
}

/// Attackers at work, until [`end`](Self::end).
pub struct Attack {
    stop: Arc<AtomicBool>,
    slow: JoinHandle<Tally>,
    greedy: JoinHandle<Tally>,
}

impl Attack {
    /// Starts so many slow clients, which reconnect when they are evicted, and a sequence of large bodies.
    pub fn start(port: u16, slow: usize) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stop = Arc::new(AtomicBool::new(false));
        let (for_slow, for_greedy) = (Arc::clone(&stop), Arc::clone(&stop));
        Self {
            stop,
            slow: thread::spawn(move || hold(address, slow, &for_slow)),
            greedy: thread::spawn(move || pour(address, &for_greedy)),
        }
    }

    /// Ends it.
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let (slow, greedy) = (self.slow.join().unwrap_or_default(), self.greedy.join().unwrap_or_default());
        Tally { bodies: greedy.bodies, longest: greedy.longest, ..slow }
    }
}

/// Keeps connections open, with a byte each second.
fn hold(address: SocketAddr, count: usize, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut clients: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    let each = ROUND / u32::try_from(count).unwrap_or(1).max(1);
    // The first come all at once.
    clients.iter_mut().for_each(|client| *client = connect(address, &mut tally));
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            thread::sleep(each);
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if client.as_mut().is_some_and(|client| !is_open(client)) {
                tally.closed += 1;
                *client = None;
            }
            if client.is_none() {
                *client = connect(address, &mut tally);
            }
        }
    }
    tally
}

fn connect(address: SocketAddr, tally: &mut Tally) -> Option<TcpStream> {
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    client.set_nonblocking(true).ok()?;
    client.write_all(b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").ok()?;
    tally.opened += 1;
    Some(client)
}

/// Sends one more byte.
fn is_open(client: &mut TcpStream) -> bool {
    let blocks = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    client.write(b"x").map(|_| true).unwrap_or_else(blocks) && client.read(&mut [0; 64]).is_err_and(blocks)
}

/// Sends bodies that are far too large: with a Content-Length, and chunked.
fn pour(address: SocketAddr, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let length = format!("Content-Length: {BODY}\r\n\r\n");
    while !stop.load(Ordering::Relaxed) {
        let chunked = tally.bodies % 2 == 1;
        let how = if chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { &length };
        tally.bodies += 1;
        tally.longest = tally.longest.max(send(address, how, chunked, stop).unwrap_or(0));
        thread::sleep(PAUSE);
    }
    tally
}

/// How many bytes of the body the server and the sockets between took.
fn send(address: SocketAddr, how: &str, chunked: bool, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut client = TcpStream::connect_timeout(&address, PATIENCE)?;
    client.set_write_timeout(Some(PATIENCE))?;
    client.write_all(b"POST /api/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")?;
    client.write_all(how.as_bytes())?;
    let block = [b' '; 64 << 10];
    let (before, after): (&[u8], &[u8]) = if chunked { (b"10000\r\n", b"\r\n") } else { (b"", b"") };
    let mut sent = 0;
    while sent < BODY && !stop.load(Ordering::Relaxed) {
        let written = client.write_all(before).and_then(|()| client.write_all(&block));
        if written.and_then(|()| client.write_all(after)).is_err() {
            break;
        }
        sent += block.len() as u64;
    }
    Ok(sent)
}
