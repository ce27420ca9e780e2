//! The primary dies while its replica is behind.

use std::{collections::BTreeSet, thread, time::Duration};

use super::rig::{Added, Publisher, RATE, assert_same, at, entries, more, rows, status, twice, wait_acknowledged};
use crate::{
    arena::times,
    support::{
        daemon::Daemon,
        redis::Redis,
        redis_group::Sentinels,
        resp::{Resp, Value},
        sqlite, wait_until,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

fn is_primary(server: &Redis) -> bool {
    let answer = Resp::connect(server.port).and_then(|mut client| client.command_bytes(&[b"ROLE"]));
    matches!(answer, Ok(Value::Array(parts)) if parts[0].text().as_deref() == Some("master"))
}

fn follows(server: &Redis) -> bool {
    let answer = Resp::connect(server.port).and_then(|mut client| client.command_bytes(&[b"ROLE"]));
    matches!(answer, Ok(Value::Array(parts)) if parts.get(3).and_then(Value::text).as_deref() == Some("connected"))
}

/// The replica stands still while the primary takes entries, and is promoted once that is dead.
fn fail_over(group: &mut Sentinels, from: usize, behind: Duration) {
    let to = 1 - from;
    group.servers[to].pause();
    // What was sent and not taken is gone with the connection.
    group.servers[from].client().command(&["CLIENT", "KILL", "TYPE", "replica"]);
    thread::sleep(behind);
    group.servers[from].kill();
    group.servers[to].resume();
    wait_until("the failover", LIMIT, || is_primary(&group.servers[to]));
}

fn gaps(daemon: &Daemon) -> i64 {
    let gaps = "SELECT count(*) FROM ingest_gaps WHERE reason = 'stream_reset' AND source = 'stream' AND lost IS NULL";
    sqlite::count(&daemon.database(), gaps)
}

/// What is in the stream of the new primary is stored once; what only the former one had is stored once, or lost with it.
fn judge(daemon: &Daemon, client: &mut Resp, added: &Added) -> usize {
    let (stored, stream) = (rows(&daemon.database()), entries(client));
    assert_eq!(more(&stream, &stored), [], "{}", daemon.log());
    assert_eq!(twice(&stored), []);
    let acknowledged: Vec<_> = added.acknowledged.iter().map(|(id, number)| (id.micros(), *number)).collect();
    let known: BTreeSet<_> = acknowledged.iter().chain(&stream).copied().collect();
    let strange = stored.iter().filter(|row| !known.contains(row)).count();
    assert!(strange as u64 <= added.unanswered, "{strange} rows of entries that were never there");
    let (lacking, lost) = (more(&acknowledged, &stream), more(&acknowledged, &stored));
    println!(
        "failover: {} acknowledged, {} of them not at the new primary, {} of them no rows, {} unanswered",
        acknowledged.len(),
        lacking.len(),
        lost.len(),
        added.unanswered
    );
    assert!(!lacking.is_empty(), "the replica was not behind");
    lost.len()
}

#[test]
fn a_failover_to_a_replica_that_is_behind_is_named_and_nothing_is_stored_twice() {
    let mut group = Sentinels::start();
    // The first copy of everything comes seconds after the replica has connected.
    wait_until("the replica to follow", LIMIT, || follows(&group.servers[1]));
    let daemon = at(&group.url()).start_ready();
    let ports = group.servers.each_ref().map(|server| server.port);
    let publisher = Publisher::start(&ports, RATE);
    thread::sleep(Duration::from_secs(1));
    let rounds = times("STREAM_FAILOVERS", 1, 20);
    for round in 0..rounds {
        let from = usize::from(round % 2 == 1);
        fail_over(&mut group, from, Duration::from_millis(500));
        wait_until("it to be named", LIMIT, || status(&daemon)["recoveries"].as_u64() == Some(round + 1));
        thread::sleep(Duration::from_millis(500));
        if round + 1 < rounds {
            group.servers[from].launch();
            wait_until("the former primary to follow", LIMIT, || follows(&group.servers[from]));
            thread::sleep(Duration::from_secs(3));
        }
    }
    let said = status(&daemon)["last_recovery"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("lacks entries that were read"), "{said}");
    let added = publisher.finish();
    let primary = group.servers.iter().find(|server| is_primary(server)).unwrap();
    let mut client = primary.client();
    wait_acknowledged(&mut client);
    let expected = i64::try_from(rounds).unwrap();
    wait_until("the gap to be stored", LIMIT, || gaps(&daemon) >= expected);
    assert_eq!(gaps(&daemon), expected);
    wait_until("everything to be stored", LIMIT, || more(&entries(&mut client), &rows(&daemon.database())).is_empty());
    judge(&daemon, &mut client, &added);
}

/// A group that was lost with the former primary is made again; entries whose ids were used before are other rows.
#[test]
fn entries_with_ids_that_were_used_before_are_other_rows() {
    let redis = Redis::start();
    let mut client = redis.client();
    let daemon = super::rig::on(&redis).start_ready();
    let mut expected = Vec::new();
    for round in 0..times("STREAM_REPLACED", 3, 100) {
        for n in 1..=50 {
            let epoch = i64::try_from(1_000 * round + n).unwrap();
            let id = format!("1790000000000-{n}");
            let message = format!(r#"{{"run_id":"{}","epoch":{epoch},"loss":0.5}}"#, super::rig::RUN);
            client.command(&["XADD", super::rig::STREAM, &id, "data", &message]);
            expected.push((1_790_000_000_000_000 + i64::try_from(n).unwrap(), epoch));
        }
        // Also when they are read and not acknowledged yet.
        if round % 2 == 0 {
            wait_acknowledged(&mut client);
        } else {
            wait_until("they are read", LIMIT, || {
                rows(&daemon.database()).len() == expected.len() || super::rig::behind(&mut client).0
            });
        }
        wait_until("they are stored", LIMIT, || rows(&daemon.database()).len() == expected.len());
        assert_eq!(client.command(&["DEL", super::rig::STREAM]), Value::Integer(1));
        wait_until("it to be named", LIMIT, || status(&daemon)["recoveries"].as_u64() == Some(round + 1));
    }
    assert_same("ids used again", &rows(&daemon.database()), &expected);
}
