//! Slow clients: each holds a connection and buffers for as long as it can, and reconnects when it is evicted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// Interval at which a client reads or sends a little, so that it does not look dead.
const STEP: Duration = Duration::from_millis(500);
/// Delay between two connections.
const PAUSE: Duration = Duration::from_millis(50);
/// Connect timeout.
const PATIENCE: Duration = Duration::from_secs(3);
/// The smallest receive buffer of the kernel: unread data stays with the server.
const WINDOW: u32 = 4 << 10;

/// In which way a client is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A byte of the head at a time.
    Header,
    /// The head of a command, and a byte of its body at a time.
    Body,
    /// The same for signing in, which needs no token.
    SignIn,
    /// Large answers, many in a row, read a little at a time.
    Reading,
    /// Streams of events, of which nothing is read.
    Stream,
    /// Exports, read a little at a time.
    Export,
    /// The counters, which need no token, many in a row, of which nothing is read.
    Counters,
}

/// All of them.
pub const SHAPES: [Shape; 7] =
    [Shape::Header, Shape::Body, Shape::SignIn, Shape::Reading, Shape::Stream, Shape::Export, Shape::Counters];

impl Shape {
    /// What a client sends first.
    fn opening(self, run: &str) -> Vec<u8> {
        let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
        let get = |path: &str| format!("{}\r\n", head(&format!("GET {path}")));
        let slow = |path: &str| {
            let head = head(&format!("POST {path}"));
            format!("{head}Content-Type: application/json\r\nContent-Length: 4096\r\n\r\n{{")
        };
        match self {
            Self::Header => format!("{}X-Slow: ", head("GET /api/runs")),
            Self::Body => slow("/api/control"),
            Self::SignIn => slow("/api/session"),
            Self::Reading => get(&format!("/api/metrics/range?run_id={run}&limit=500")).repeat(8),
            Self::Stream => get("/api/stream"),
            Self::Export => get(&format!("/api/export?run_id={run}&format=ndjson")),
            Self::Counters => get("/metrics").repeat(100),
        }
        .into_bytes()
    }

    fn sends(self) -> bool {
        matches!(self, Self::Header | Self::Body | Self::SignIn)
    }

    fn reads(self) -> bool {
        matches!(self, Self::Reading | Self::Export)
    }
}

/// Counts of the attack.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections made.
    pub opened: AtomicU64,
    /// Those that the server ended.
    pub ended: AtomicU64,
}

/// Clients at work, until dropped.
pub struct Attack {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Counts so far.
    pub tally: Arc<Tally>,
}

impl Attack {
    /// So many clients, whose shapes follow one another.
    pub fn start(server: SocketAddr, clients: usize, shapes: &[Shape], run: &str) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&tally));
        let openings: Vec<_> = shapes.iter().map(|shape| (*shape, Arc::<[u8]>::from(shape.opening(run)))).collect();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for (shape, opening) in openings.into_iter().cycle().take(clients) {
                    tasks.spawn(client(server, shape, opening, Arc::clone(&count)));
                }
                while !until.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { stop, thread: Some(thread), tally }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

async fn client(server: SocketAddr, shape: Shape, opening: Arc<[u8]>, tally: Arc<Tally>) {
    loop {
        if let Ok(Ok(mut stream)) = timeout(PATIENCE, connect(server)).await {
            tally.opened.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(&opening).await.is_ok() {
                hold(&mut stream, shape).await;
            }
            tally.ended.fetch_add(1, Ordering::Relaxed);
        }
        sleep(PAUSE).await;
    }
}

async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(WINDOW)?;
    socket.connect(server).await
}

/// Until the server ends it.
async fn hold(stream: &mut TcpStream, shape: Shape) {
    loop {
        if shape.sends() {
            let mut answer = [0; 64];
            // An answer to half a request, or the end, is a refusal.
            if timeout(STEP, stream.read(&mut answer)).await.is_ok() || stream.write_all(b"x").await.is_err() {
                return;
            }
        } else {
            sleep(STEP).await;
            let mut little = [0; 16];
            if shape.reads() && !matches!(timeout(STEP, stream.read(&mut little)).await, Ok(Ok(1..)) | Err(_)) {
                return;
            }
            // A client that only waits learns in this way that it was evicted.
            if !shape.reads() && stream.write_all(b"\r\n").await.is_err() {
                return;
            }
        }
    }
}
