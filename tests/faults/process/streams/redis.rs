//! Redis is killed, and has its stream from the append-only file.

use std::{thread, time::Duration};

use super::rig::{Publisher, RATE, assert_kept, assert_same, entries, on, random, rows, wait_acknowledged, wait_count};
use crate::{
    arena::times,
    support::{
        redis::{Options, Redis},
        sqlite,
    },
};

#[test]
fn a_redis_with_an_append_only_file_that_is_killed_costs_no_entry() {
    let more = vec!["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = Redis::with(Options { more, ..Options::default() });
    let mut daemon = on(&redis).start_ready();
    let publisher = Publisher::start(&[redis.port], RATE);
    let kills = times("STREAM_REDIS_KILLS", 5, 100);
    for kill in 0..kills {
        thread::sleep(Duration::from_micros(300_000 + random(kill, 600_000)));
        redis.kill();
        // Each third time both are down.
        if kill % 3 == 2 {
            daemon.kill9();
        }
        thread::sleep(Duration::from_millis(random(kill + 1_000, 300)));
        redis.launch();
        if kill % 3 == 2 {
            daemon.launch();
        }
    }
    thread::sleep(Duration::from_millis(500));
    let added = publisher.finish();
    let mut client = redis.client();
    let stream = entries(&mut client);
    assert_kept(&added, &stream);
    daemon.wait_ready();
    wait_count(&daemon.database(), stream.len());
    wait_acknowledged(&mut client);
    println!("Redis killed {kills} times, {} commands without an answer", added.unanswered);
    assert_same("Redis killed -9, AOF", &rows(&daemon.database()), &stream);
    let gaps = "SELECT count(*) FROM ingest_gaps WHERE source = 'stream'";
    assert_eq!(sqlite::count(&daemon.database(), gaps), 0, "no loss is reported where there is none: {}", daemon.log());
}
