//! A TCP proxy with network faults.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// Each piece waits this long.
    Latency(Duration),
    /// They wait until the mode changes; the connection stays.
    Hold,
    /// They vanish; the connection stays.
    Swallow,
    /// One at a time.
    Trickle,
    /// Each so-and-so-many bytes, one bit of one is wrong.
    Corrupt(u64),
}

#[derive(Debug)]
struct Shared {
    target: Mutex<(String, u16)>,
    /// From the daemon to the server, and back.
    modes: [Mutex<Mode>; 2],
    connections: Mutex<Vec<[TcpStream; 2]>>,
    moved: [AtomicU64; 2],
    stop: AtomicBool,
}

/// The proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

/// From the daemon to the server.
pub const UP: usize = 0;
/// From the server to the daemon.
pub const DOWN: usize = 1;

impl Proxy {
    /// Listens on `host:port` and forwards to `target`.
    pub fn start(host: &str, port: u16, target: (&str, u16)) -> Self {
        let listener = TcpListener::bind((host, port)).unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new((target.0.to_owned(), target.1)),
            modes: [Mutex::new(Mode::Pass), Mutex::new(Mode::Pass)],
            connections: Mutex::default(),
            moved: Default::default(),
            stop: AtomicBool::new(false),
        });
        listener.set_nonblocking(true).unwrap();
        let theirs = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &theirs));
        Self { port, shared }
    }

    /// What happens to bytes in a direction from now on.
    pub fn set(&self, direction: usize, mode: Mode) {
        *self.shared.modes[direction].lock().unwrap() = mode;
    }

    /// Both directions.
    pub fn both(&self, mode: Mode) {
        self.set(UP, mode);
        self.set(DOWN, mode);
    }

    /// Another server; existing connections end.
    pub fn lead_to(&self, host: &str, port: u16) {
        *self.shared.target.lock().unwrap() = (host.to_owned(), port);
        self.close();
    }

    /// Ends every connection in order.
    pub fn close(&self) {
        for [client, server] in self.shared.connections.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Resets every connection: RST, with what is under way lost.
    pub fn reset(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        for streams in self.shared.connections.lock().unwrap().drain(..) {
            for stream in &streams {
                let copy = stream.try_clone().unwrap();
                copy.set_nonblocking(true).unwrap();
                if let Ok(copy) = tokio::net::TcpStream::from_std(copy) {
                    let _ = copy.set_zero_linger();
                }
            }
            // The copying threads see that they are no longer listed, and close.
        }
    }

    /// The server's half of each connection ends; the other half goes on.
    pub fn half_close(&self) {
        for [client, _] in &*self.shared.connections.lock().unwrap() {
            let _ = client.shutdown(Shutdown::Write);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.close();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let target = shared.target.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)) else { continue };
        for stream in [&client, &server] {
            stream.set_nonblocking(false).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        }
        let copy = |stream: &TcpStream| stream.try_clone().unwrap();
        let id = client.peer_addr().unwrap();
        for (direction, from, to) in [(UP, copy(&client), copy(&server)), (DOWN, copy(&server), copy(&client))] {
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                let listed = || {
                    let connections = shared.connections.lock().unwrap();
                    connections.iter().any(|[client, _]| client.peer_addr().is_ok_and(|peer| peer == id))
                };
                pump(direction, from, to, &shared, listed);
            });
        }
        shared.connections.lock().unwrap().push([client, server]);
    }
}

/// Copies bytes until either side closes the connection.
fn pump(direction: usize, mut from: TcpStream, mut to: TcpStream, shared: &Shared, listed: impl Fn() -> bool) {
    let mut buffer = vec![0; 64 << 10];
    thread::sleep(Duration::from_millis(1)); // until it is listed
    while listed() {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        let bytes = &mut buffer[..count];
        let before = shared.moved[direction].fetch_add(count as u64, Ordering::Relaxed);
        let mode = || *shared.modes[direction].lock().unwrap();
        let mut now = mode();
        while now == Mode::Hold {
            if !listed() {
                return;
            }
            thread::sleep(Duration::from_millis(2));
            now = mode();
        }
        match now {
            Mode::Swallow => continue,
            Mode::Latency(wait) => thread::sleep(wait),
            Mode::Corrupt(every) => {
                let at = (every - before % every) as usize;
                if let Some(byte) = bytes.get_mut(at % every as usize) {
                    *byte ^= 1 << (before % 7);
                }
            }
            Mode::Pass | Mode::Hold | Mode::Trickle => {}
        }
        let pieces = if now == Mode::Trickle { 1 } else { count };
        if bytes.chunks(pieces).any(|piece| to.write_all(piece).is_err()) {
            break;
        }
    }
    // The end of one half is passed on; the other half may still have something to say.
    let _ = to.shutdown(Shutdown::Write);
}
