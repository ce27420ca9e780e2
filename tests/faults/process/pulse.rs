//! How long the machine itself made everybody wait: a daemon that shares its disk and its cores with other tests cannot be blamed
//! for a sync that takes 300 ms for all of them.

use std::{
    collections::VecDeque,
    io::{Seek, Write},
    sync::{Mutex, OnceLock},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Between two beats.
const REST: Duration = Duration::from_millis(10);
/// Beats remembered.
const BEATS: usize = 1 << 16;

type Beats = Mutex<VecDeque<(Instant, Instant)>>;

/// Starts measuring, once for all tests: each beat writes a few bytes and syncs them, as the daemon does.
pub fn start() -> &'static Beats {
    static BEATS_SEEN: OnceLock<Beats> = OnceLock::new();
    static STARTED: OnceLock<()> = OnceLock::new();
    let beats = BEATS_SEEN.get_or_init(Beats::default);
    STARTED.get_or_init(|| {
        thread::spawn(|| {
            let mut file = tempfile::tempfile().unwrap();
            loop {
                let begun = Instant::now();
                file.rewind().and_then(|()| file.write_all(b"beat")).and_then(|()| file.sync_data()).unwrap();
                thread::sleep(REST);
                let mut beats = start().lock().unwrap();
                if beats.len() >= BEATS {
                    beats.pop_front();
                }
                beats.push_back((begun, Instant::now()));
            }
        });
    });
    beats
}

/// The longest that a beat around this moment took, beyond its rest.
pub fn wait_around(moment: Instant) -> Duration {
    let second = Duration::from_secs(1);
    let beats = start().lock().unwrap();
    let near = beats.iter().filter(|(begun, ended)| *begun <= moment + second && *ended + second >= moment);
    near.map(|(begun, ended)| (*ended - *begun).saturating_sub(REST)).max().unwrap_or_default()
}

/// Load average over the last minute, for each core.
pub fn load() -> f64 {
    let load =
        std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    load.unwrap_or(1.0) / thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}
