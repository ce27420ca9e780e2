//! Several daemons on one stream are killed at random.

use std::{thread, time::Duration};

use tokio::time::Instant;

use super::rig::{
    Entry, GROUP, LIMIT, Publisher, RATE, STREAM, assert_kept, assert_same, entries, random, rows, sharing,
    wait_acknowledged, wait_count,
};
use crate::{
    arena::{tier, times},
    support::{daemon::Daemon, redis::Redis, resp::Resp, resp::Value, sqlite, wait_until},
};

/// The daemons.
pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Names of the consumers in the group.
fn consumers(client: &mut Resp) -> Vec<String> {
    let Value::Array(consumers) = client.command(&["XINFO", "CONSUMERS", STREAM, GROUP]) else { panic!("no list") };
    let name = |of: &Value| if let Value::Array(parts) = of { parts[1].text().unwrap() } else { panic!("{of:?}") };
    consumers.iter().map(name).collect()
}

/// Kills one at random, and starts it or another one that is down. At least one is left running.
fn storm(daemons: &mut [Daemon], begun: Instant, length: Duration) -> u64 {
    let (mut round, mut kills) = (0, 0);
    while begun.elapsed() < length {
        round += 1;
        thread::sleep(Duration::from_millis(100 + random(round, 400)));
        let at = random(round * 7, daemons.len() as u64) as usize;
        let running = daemons.iter().filter(|daemon| daemon.is_running()).count();
        if daemons[at].is_running() && running > 1 {
            daemons[at].kill9();
            kills += 1;
        } else if !daemons[at].is_running() {
            daemons[at].launch();
        }
    }
    kills
}

/// What the daemons have survived.
pub struct Survived {
    /// Everything that is in the stream, all of it acknowledged by the group.
    pub stream: Vec<Entry>,
    /// Kills among the daemons.
    pub kills: u64,
    /// The daemons that are left: all but the last.
    pub left: usize,
}

/// A storm under this rate. The last daemon does not come back: its spool has the entries that it had acknowledged, the other daemons
/// claim the rest.
pub fn survive(redis: &Redis, daemons: &mut [Daemon], rate: u64, length: Duration) -> Survived {
    daemons.iter_mut().for_each(Daemon::launch);
    daemons.iter_mut().for_each(Daemon::wait_ready);
    let publisher = Publisher::start(&[redis.port], rate);
    let kills = storm(daemons, Instant::now(), length);
    let added = publisher.finish();
    let (last, others) = daemons.split_last_mut().unwrap();
    if last.is_running() {
        last.kill9();
    }
    // A store that does not answer in time costs nothing: the command is run again.
    let spool = last.state_dir().join("spool").display().to_string();
    wait_until("the spool to be drained", LIMIT, || last.command(&["spool", "drain", &spool]).status.success());
    for daemon in others.iter_mut() {
        if !daemon.is_running() {
            daemon.launch();
        }
        daemon.wait_ready();
    }
    let mut client = redis.client();
    let stream = entries(&mut client);
    assert_kept(&added, &stream);
    assert_eq!(added.unanswered, 0);
    wait_acknowledged(&mut client);
    let claims = format!("cascor_stream_claimed_entries_total{{stream=\"{STREAM}\"}}");
    let claimed: f64 = others.iter().filter_map(|daemon| daemon.metric(&claims)).sum();
    println!("{kills} kills among {} daemons; {claimed} entries claimed since the last starts", NAMES.len());
    Survived { stream, kills, left: others.len() }
}

#[test]
fn four_daemons_that_are_killed_at_random_store_every_entry_once() {
    let redis = Redis::start();
    let (_dir, database, mut daemons) = sharing(&redis, &NAMES);
    let length = Duration::from_secs(times("STREAM_STORM_SECONDS", 9, 300));
    let Survived { stream, kills, left } = survive(&redis, &mut daemons, RATE, length);
    assert!(kills > 0);
    wait_count(&database, stream.len());
    assert_same("claim storm", &rows(&database), &stream);
    assert_eq!(sqlite::count(&database, "SELECT count(*) FROM ingest_gaps WHERE source = 'stream'"), 0);
    if tier(false, true) {
        let mut client = redis.client();
        wait_until("the consumer that is gone to be removed", LIMIT, || consumers(&mut client) == NAMES[..left]);
    }
}
