//! The owner of the stream trims it too early.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::rig::{
    Added, GROUP, LIMIT, Publisher, RATE, STREAM, behind, entries, lost, more, random, rows, sharing, twice,
    wait_acknowledged,
};
use crate::{
    arena::times,
    support::{daemon::Daemon, redis::Redis, resp::Resp, sqlite, wait_until},
};

/// The key of the counters that the daemons share.
const COUNTERS_KEY: &str = "cascor:ingest:stream:{cascor:training:stream}";

/// Trims by number or by age: what is left is the newest part, of a random length.
fn trim(client: &mut Resp, seed: u64) -> i64 {
    let stream = entries(client);
    let keep = random(seed, stream.len() as u64 / 2) as usize;
    let answer = match seed % 3 {
        0 => client.command(&["XTRIM", STREAM, "MAXLEN", &keep.to_string()]),
        1 => client.command(&["XTRIM", STREAM, "MAXLEN", "~", &keep.to_string()]),
        _ => {
            let millis = stream[stream.len() - 1 - keep].0 / 1_000;
            client.command(&["XTRIM", STREAM, "MINID", &millis.to_string()])
        }
    };
    answer.integer().unwrap_or_else(|| panic!("XTRIM was answered {answer:?}"))
}

/// Two daemons on one stream, a publisher that fills it, and the client of its owner.
struct Scene {
    redis: Redis,
    _dir: TempDir,
    database: PathBuf,
    daemons: Vec<Daemon>,
    publisher: Publisher,
    client: Resp,
}

impl Scene {
    fn start() -> Self {
        let redis = Redis::start();
        let (dir, database, mut daemons) = sharing(&redis, &["a", "b"]);
        daemons.iter_mut().for_each(Daemon::launch);
        daemons.iter_mut().for_each(Daemon::wait_ready);
        let (publisher, client) = (Publisher::start(&[redis.port], RATE), redis.client());
        Self { redis, _dir: dir, database, daemons, publisher, client }
    }
}

/// Rows and counted losses together are all entries.
#[track_caller]
fn assert_counted(database: &Path, added: &Added) -> (i64, i64) {
    let stored = rows(database);
    assert_eq!(twice(&stored), []);
    let acknowledged: Vec<_> = added.acknowledged.iter().map(|(id, number)| (id.micros(), *number)).collect();
    assert_eq!(more(&stored, &acknowledged), [], "rows of entries that were never there");
    let missing = i64::try_from(acknowledged.len() - stored.len()).unwrap();
    let counted = lost(database, "trimmed");
    println!(
        "{} entries, {} rows, {missing} missing, {counted} counted, {} at most",
        acknowledged.len(),
        stored.len(),
        lost(database, "trimmed_at_most")
    );
    (missing, counted)
}

#[test]
fn what_is_trimmed_while_no_daemon_runs_is_counted_exactly_by_several() {
    let Scene { redis: _redis, _dir, database, mut daemons, publisher, mut client } = Scene::start();
    for round in 0..times("STREAM_TRIMS", 3, 60) {
        thread::sleep(Duration::from_millis(500));
        daemons.iter_mut().for_each(|daemon| _ = daemon.terminate());
        thread::sleep(Duration::from_millis(500 + random(round, 500)));
        let trimmed = trim(&mut client, round);
        println!("round {round}: {trimmed} trimmed");
        // Both at once: one of them reports.
        daemons.iter_mut().for_each(Daemon::launch);
        daemons.iter_mut().for_each(Daemon::wait_ready);
    }
    let added = publisher.finish();
    wait_acknowledged(&mut client);
    let enough = || {
        let found = sqlite::count(&database, "SELECT count(*) FROM training_metrics") + lost(&database, "trimmed");
        found >= added.acknowledged.len() as i64
    };
    wait_until("every entry to be stored or counted", LIMIT, enough);
    thread::sleep(Duration::from_millis(1_500));
    let (missing, counted) = assert_counted(&database, &added);
    assert!(missing > 0);
    assert_eq!(missing, counted);
    assert_eq!(lost(&database, "trimmed_at_most"), 0);
}

/// After everything is acknowledged: what is missing was counted. Pending entries of a killed daemon may be trimmed, too: they may be on
/// its disk. Their number is a bound.
#[track_caller]
fn assert_counted_at_least(client: &mut Resp, database: &Path, added: &Added) {
    wait_until("everything to be acknowledged", LIMIT, || behind(client).1 == 0);
    let enough = || {
        let stored = sqlite::count(database, "SELECT count(*) FROM training_metrics");
        stored + lost(database, "trimmed") + lost(database, "trimmed_at_most") >= added.acknowledged.len() as i64
    };
    wait_until("every entry to be stored or counted", LIMIT, enough);
    wait_until("every report to be closed", LIMIT, || {
        let mut open = |what: &str| {
            let value = client.command(&["HGET", COUNTERS_KEY, &format!("{what}:{GROUP}")]);
            value.text().is_some_and(|text| text != "0")
        };
        !open("report") && !open("gone")
    });
    thread::sleep(Duration::from_millis(1_500));
    let (missing, counted) = assert_counted(database, added);
    assert!(counted <= missing, "{counted} were counted as lost for certain");
    let bound = counted + lost(database, "trimmed_at_most");
    assert!(missing <= bound, "{missing} are missing, {bound} were counted");
}

#[test]
fn what_is_trimmed_under_daemons_that_are_killed_is_counted_at_least() {
    let Scene { redis: _redis, _dir, database, mut daemons, publisher, mut client } = Scene::start();
    for round in 0..times("STREAM_TRIMS", 6, 100) {
        thread::sleep(Duration::from_millis(200 + random(round, 300)));
        let at = round as usize % 2;
        daemons[at].kill9();
        trim(&mut client, round);
        if round % 3 == 0 {
            daemons[1 - at].kill9();
            thread::sleep(Duration::from_millis(300));
            trim(&mut client, round + 1);
            daemons[1 - at].launch();
        }
        daemons[at].launch();
    }
    let added = publisher.finish();
    daemons.iter_mut().for_each(Daemon::wait_ready);
    assert_counted_at_least(&mut client, &database, &added);
}

/// The daemons are killed while they find out what was trimmed, and report it.
#[test]
fn what_is_trimmed_is_counted_at_least_by_daemons_that_are_killed_while_they_report_it() {
    let Scene { redis: _redis, _dir, database, mut daemons, publisher, mut client } = Scene::start();
    let (mut open, mut closed) = (0, 0);
    for round in 0..times("STREAM_TRIMS", 8, 100) {
        // Nothing is read: all of what is trimmed is a loss.
        daemons.iter_mut().for_each(Daemon::kill9);
        thread::sleep(Duration::from_millis(200));
        trim(&mut client, 3 * round);
        daemons.iter_mut().for_each(Daemon::launch);
        // From before the first look to behind it: by turns at the moment in which a report is seen, and at random.
        let deadline = Instant::now() + Duration::from_millis(300 + random(round, 2_000));
        while Instant::now() < deadline {
            let report = client.command(&["HEXISTS", COUNTERS_KEY, &format!("report:{GROUP}")]);
            if round % 2 == 0 && report.integer() == Some(1) {
                open += 1;
                break;
            }
        }
        closed += u32::from(lost(&database, "trimmed") > 0);
        let first = random(round, 2) as usize;
        daemons[first].kill9();
        thread::sleep(Duration::from_millis(random(round + 1, 100)));
        daemons[1 - first].kill9();
        daemons.iter_mut().for_each(Daemon::launch);
        // Long enough for some of the entries.
        daemons.iter_mut().for_each(Daemon::wait_ready);
    }
    println!("{open} times killed with an open report, {closed} times with stored ones");
    let added = publisher.finish();
    assert_counted_at_least(&mut client, &database, &added);
    assert!(open > 0, "no daemon was killed with an open report");
}
