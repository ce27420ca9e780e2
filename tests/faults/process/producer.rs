//! A producer that keeps a ledger: messages, times, and the answers of Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::resp::{Resp, Value};

/// The channel of all messages.
pub const CHANNEL: &str = "cascor:training";

/// Messages published by one write.
const BATCH: usize = 256;

/// Messages of one write; their `seq` are contiguous.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `seq` of the first.
    pub first: i64,
    /// `seq` after the last.
    pub end: i64,
    /// Before the write.
    pub sent: Instant,
    /// Wall clock before the write, and the first message's own time; each next one is a microsecond later.
    pub wall: i64,
    /// When Redis had answered, and the wall clock then. `None`: unknown whether Redis had them.
    pub answered: Option<(Instant, i64)>,
}

/// Values of the message with this `seq`, and of its row.
pub fn values(seq: i64) -> (f64, f64, String) {
    // Dyadic and short, so that every format represents the number exactly.
    let loss = (seq.wrapping_mul(7_919) & 0x3ff) as f64 / 1_024.0;
    (loss, 1.0 + loss, format!("n{}", seq.wrapping_mul(2_654_435_761) & 0xffff_ffff))
}

fn message(run: Uuid, seq: i64, time: i64, pad: &str) -> String {
    let (loss, gradient, note) = values(seq);
    json!({"type": "metrics", "run_id": run, "seq": seq, "timestamp": time,
           "data": {"epoch": seq, "train_loss": loss, "gradient": gradient, "phase": "output", "note": note, "pad": pad}})
    .to_string()
}

/// The wall clock in microseconds.
pub fn wall() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// The load of a producer.
#[derive(Clone, Debug)]
pub struct Load {
    /// Messages a second.
    pub rate: u64,
    /// Bytes added to each.
    pub pad: usize,
    /// What Redis asks for.
    pub password: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    rate: AtomicU64,
    port: AtomicU16,
    published: AtomicU64,
}

/// A thread that publishes one run at a steady rate, and goes on when Redis is away.
#[derive(Debug)]
pub struct Producer {
    /// Its run.
    pub run: Uuid,
    shared: Arc<Shared>,
    thread: thread::JoinHandle<Vec<Entry>>,
}

impl Producer {
    /// Publishes to this port until finished.
    pub fn start(port: u16, run: Uuid, load: &Load) -> Self {
        let shared = Arc::new(Shared { rate: load.rate.into(), port: port.into(), ..Shared::default() });
        let (theirs, pad, password) = (Arc::clone(&shared), "x".repeat(load.pad), load.password);
        let thread = thread::spawn(move || publish(&theirs, run, &pad, password));
        Self { run, shared, thread }
    }

    /// Another number of messages a second from now on.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Another server from now on.
    pub fn set_port(&self, port: u16) {
        self.shared.port.store(port, Ordering::Relaxed);
    }

    /// `seq` of the next message: everything below was handed to Redis before now.
    pub fn next(&self) -> i64 {
        self.shared.published.load(Ordering::Acquire) as i64
    }

    /// Stops; what was published.
    pub fn finish(self) -> Vec<Entry> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn connect(port: u16, password: Option<&str>) -> Option<Resp> {
    let mut client = Resp::connect(port).ok()?;
    if let Some(password) = password {
        client.command_bytes(&[b"AUTH", password.as_bytes()]).ok()?;
    }
    Some(client)
}

fn publish(shared: &Shared, run: Uuid, pad: &str, password: Option<&str>) -> Vec<Entry> {
    let mut ledger: Vec<Entry> = Vec::new();
    let mut client = None;
    let (mut next, mut clock, mut ticked, mut owed) = (0_i64, 0, Instant::now(), 0.0);
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let rate = shared.rate.load(Ordering::Relaxed) as f64;
        // Messages of an outage are not made up for in one burst.
        owed = (owed + (now - ticked).as_secs_f64() * rate).min(rate.max(1.0));
        ticked = now;
        let port = shared.port.load(Ordering::Relaxed);
        if !matches!(&client, Some((to, _)) if *to == port) {
            client = connect(port, password).map(|client| (port, client));
        }
        // A few at a time, so that a change of the rate takes effect.
        for _ in 0..8 {
            if owed < 1.0 {
                break;
            }
            let Some((_, connection)) = &mut client else { break };
            let count = (owed as usize).min(BATCH) as i64;
            owed -= count as f64;
            clock = wall().max(clock);
            let (sent, from) = (Instant::now(), clock);
            clock += count;
            let messages: Vec<_> = (0..count).map(|n| message(run, next + n, from + n, pad)).collect();
            let mut all = true;
            let done = connection.publish_each(CHANNEL, &messages, |answer| all &= matches!(answer, Value::Integer(_)));
            let answered = (done.is_ok() && all).then(|| (Instant::now(), wall()));
            ledger.push(Entry { first: next, end: next + count, sent, wall: from, answered });
            next += count;
            shared.published.store(next as u64, Ordering::Release);
            if done.is_err() {
                client = None;
            }
        }
        if client.is_none() {
            thread::sleep(Duration::from_millis(20));
        } else if owed < BATCH as f64 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    ledger
}
