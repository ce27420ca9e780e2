//! Cost of each step of the pipeline alone, on one thread with warm caches: the lower bound of its share.
//!
//! The sum is less than what `load` measures: there each step also pays for wake-ups, system calls and cold caches.

use std::{hint::black_box, time::Duration};

use cascor_ingest::{
    event::Resolved,
    latest::{self, LatestKind, LatestState, Update},
    metrics::Metrics,
    spool::{self, NewRecord, RecordKind},
    units,
    wire::{self, Limits},
};
use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Error, Options, load, median};

/// Number of messages, which are processed repeatedly: few enough to stay in the cache.
const MESSAGES: u64 = 256;
const ROUNDS: u64 = 400;

pub fn run(options: &Options) -> Result<(), Error> {
    let runs: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let messages: Vec<String> = (0..MESSAGES).map(|n| load::message(&runs, n)).collect();
    let limits = Limits::default();
    let decided = Resolved {
        run_id: runs[0],
        event_time: units::now(),
        received_at: units::now(),
        has_event_time: true,
        opened_run: false,
    };
    let intake = |text: &String| {
        wire::decode(text.as_bytes(), &limits).is_ok_and(|message| {
            message.time(decided.received_at, &TimeZone::UTC).from_message && message.seq().is_some()
        })
    };
    let rows = |text: &String| {
        wire::decode_accepted(text.as_bytes())
            .is_ok_and(|message| wire::rows(&message, &decided, "cascor:training", text.as_bytes()).rows.len() == 1)
    };
    let mut out = String::new();
    let latest = |text: &String| {
        out.clear();
        wire::decode_accepted(text.as_bytes()).is_ok_and(|message| {
            wire::latest_json(&message, &decided, "bench", &mut out);
            !out.is_empty()
        })
    };
    println!("message of {} bytes; ns of CPU each, median of {}", messages[0].len(), options.repeat.max(5));
    measure(options, "decode, time, seq (intake)", &messages, intake)?;
    let packed = messages.iter().map(|text| pack(text)).collect::<Result<Vec<_>, _>>()?;
    let intake = |message: &Vec<u8>| wire::decode(message, &limits).is_ok_and(|message| message.seq().is_some());
    measure(options, "the same of MessagePack", &packed, intake)?;
    measure(options, "decode, rows (writer)", &messages, rows)?;
    measure(options, "decode, latest object", &messages, latest)?;

    let latest_state = LatestState::new(
        &latest::Config::default(),
        "cascor:",
        cascor_ingest::memory::MemoryLimit::default(),
        Metrics::new(),
    );
    let offer = |text: &String| {
        latest_state.update(Update {
            kind: LatestKind::Metrics,
            payload: bytes::Bytes::copy_from_slice(text.as_bytes()),
            decided,
            seq: None,
            received: Instant::now(),
        });
        true
    };
    measure(options, "copy, offer to the latest keys", &messages, offer)?;

    let dir = tempfile::tempdir()?;
    let config = spool::Config { dir: dir.path().join("spool"), ..spool::Config::default() };
    let mut spool = spool::open(&config, Metrics::new())?;
    let append = |text: &String| {
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            strict_json: false,
            from_stream: false,
            channel: "cascor:training",
            preamble: b"",
            payload: text.as_bytes(),
        };
        spool.appender.append(&record).is_ok()
    };
    measure(options, "append, written and synced in groups of 8 MiB", &messages, append)?;
    Ok(())
}

/// A message as MessagePack.
fn pack(json: &str) -> Result<Vec<u8>, Error> {
    Ok(rmp_serde::to_vec(&serde_json::from_str::<serde_json::Value>(json)?)?)
}

fn measure<T>(options: &Options, name: &str, messages: &[T], mut step: impl FnMut(&T) -> bool) -> Result<(), Error> {
    let mut each = Vec::new();
    for _ in 0..options.repeat.max(5) {
        let before = cpu();
        for _ in 0..ROUNDS {
            for message in messages {
                if !step(black_box(message)) {
                    return Err(format!("{name}: a message was refused").into());
                }
            }
        }
        each.push((cpu() - before).as_nanos() as f64 / (ROUNDS * MESSAGES) as f64);
    }
    println!("  {name}: {:.0}", median(&each));
    Ok(())
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
