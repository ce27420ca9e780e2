//! Every form of `redis.url` against real servers: a socket, a database, sentinels with a failover, a cluster whose slots move.

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::support::{
    daemon::Daemon,
    redis::{Options, Redis},
    redis_group::{Cluster, Sentinels, publish_until},
    resp::{Resp, Value},
    sqlite, wait_until,
};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LATEST: &str = "cascor:metrics:latest";
const LIMIT: Duration = Duration::from_secs(30);
const ROWS: &str = "SELECT count(*) FROM training_metrics";
const DISTINCT: &str = "SELECT count(DISTINCT seq) FROM training_metrics";
const LOST: &str = "SELECT coalesce(sum(lost), 0) FROM ingest_gaps WHERE reason = 'sequence'";

/// A message with a time of its own: the same bytes twice are one row.
fn message(seq: u64) -> String {
    let timestamp = 1_790_000_000.0 + seq as f64 / 1_000.0;
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": timestamp, "data": {"epoch": seq, "loss": 0.5}})
        .to_string()
}

/// Every message is a row, once, or counted as lost.
#[track_caller]
fn assert_all_counted(daemon: &Daemon, published: u64) {
    let published = i64::try_from(published).unwrap();
    let file = daemon.database();
    wait_until("every message to be a row or counted", LIMIT, || {
        sqlite::count(&file, ROWS) + sqlite::count(&file, LOST) >= published
    });
    let (rows, distinct, lost) =
        (sqlite::count(&file, ROWS), sqlite::count(&file, DISTINCT), sqlite::count(&file, LOST));
    println!("{published} published, {rows} rows, {lost} counted as lost");
    assert_eq!((rows, rows + lost), (distinct, published), "{}", daemon.log());
}

#[test]
fn a_socket_a_database_and_other_names_of_the_scheme_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let socket: &'static str = dir.path().join("redis.sock").display().to_string().leak();
    let redis = Redis::with(Options { more: vec!["--unixsocket", socket], ..Options::default() });
    let mut client = redis.client();
    client.command(&["SELECT", "2"]);
    for url in [
        format!("redis+unix://{socket}?db=2"),
        format!("valkey://127.0.0.1:{}/2", redis.port),
        format!("redis://localhost:{}?db=2", redis.port),
    ] {
        client.command(&["FLUSHALL"]);
        let daemon = Daemon::at(&url).start_ready();
        client.publish("cascor:training", message(0));
        daemon.wait_rows(ROWS, 1);
        wait_until("the latest key", LIMIT, || {
            client.publish("cascor:training", message(1));
            client.command(&["GET", LATEST]) != Value::Null
        });
        daemon.succeed(&["status"]);
        daemon.succeed(&["control", "flush", "--wait", "--url", ""]);
    }
    let absent = Daemon::at("redis+unix:///nowhere/redis.sock").start();
    absent.wait_log("failed to reach Redis at the socket `/nowhere/redis.sock`: No such file");
}

/// An answer of a server that may be away, or be closing the connections of its clients.
fn answer(server: &Redis, words: &[&str]) -> Option<Value> {
    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
    Resp::connect(server.port).ok()?.command_bytes(&words).ok()
}

/// Whether a server has this role, and as a replica is up to date.
fn has_role(server: &Redis, role: &str) -> bool {
    let Some(Value::Array(parts)) = answer(server, &["ROLE"]) else { return false };
    let text = |at: usize| parts.get(at).and_then(Value::text);
    text(0).as_deref() == Some(role) && (role == "master" || text(3).as_deref() == Some("connected"))
}

/// The number of the latest message.
fn latest(server: &Redis) -> Option<u64> {
    let value = answer(server, &["GET", LATEST])?;
    serde_json::from_str::<serde_json::Value>(&value.text()?).ok()?["seq"].as_u64()
}

#[test]
fn a_failover_of_sentinel_under_load_loses_nothing_that_is_not_counted() {
    let mut group = Sentinels::start();
    let daemon = Daemon::at(&group.url()).start_ready();
    let ports = group.servers.each_ref().map(|server| server.port).to_vec();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_until(&stop, ports, message);
    wait_until("the latest key", LIMIT, || latest(&group.servers[0]).is_some());
    // The primary dies.
    group.servers[0].kill();
    let asked = tokio::time::Instant::now();
    wait_until("the latest key at the new primary", LIMIT, || {
        has_role(&group.servers[1], "master") && latest(&group.servers[1]).is_some()
    });
    println!("failed over after {:?}", asked.elapsed());
    thread::sleep(Duration::from_secs(1));
    // The former primary comes back, and is made the primary again by command.
    group.servers[0].launch();
    wait_until("the former primary to be a replica", LIMIT, || has_role(&group.servers[0], "slave"));
    let lost_before = sqlite::count(&daemon.database(), LOST);
    wait_until("a second failover", LIMIT, || {
        let answer = group.sentinel(group.ports[0]).unwrap().command(&["SENTINEL", "FAILOVER", "mine"]);
        answer == Value::Simple("OK".into())
    });
    wait_until("the first server to be the primary again", LIMIT, || has_role(&group.servers[0], "master"));
    // Sentinel demotes the former primary some seconds later, and closes its connections. Until then publishers stay there.
    wait_until("the second server to be a replica", LIMIT, || has_role(&group.servers[1], "slave"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(group.servers[0].subscribers("cascor:training"), 1);
    stop.store(true, Ordering::Relaxed);
    let published = publisher.join().unwrap();
    assert_all_counted(&daemon, published);
    let lost = sqlite::count(&daemon.database(), LOST) - lost_before;
    println!("{lost} of them by the planned failover");
    assert!(lost < 500, "{lost} lost while the former primary was still in use: {}", daemon.log());
    assert!(!daemon.log().contains("sentinel-pw"), "the password of the sentinels is in the log");
}

#[test]
fn a_primary_that_sentinel_no_longer_names_is_left() {
    let group = Sentinels::start();
    let daemon = Daemon::at(&group.url()).start_ready();
    // The former primary is alive and keeps its connections, as one that is cut off from the sentinels does.
    let [former, next] = &group.servers;
    next.client().command(&["REPLICAOF", "NO", "ONE"]);
    for port in &group.ports {
        let mut sentinel = group.sentinel(*port).unwrap();
        sentinel.command(&["SENTINEL", "REMOVE", "mine"]);
        sentinel.command(&["SENTINEL", "MONITOR", "mine", "127.0.0.1", &next.port.to_string(), "2"]);
    }
    wait_until("the subscription to move", LIMIT, || next.subscribers("cascor:training") == 1);
    // Publishers may still be there: it is listened to for a while.
    former.client().publish("cascor:training", message(0));
    next.client().publish("cascor:training", message(1));
    daemon.wait_rows(ROWS, 2);
    wait_until("the former primary to be left", LIMIT, || former.subscribers("cascor:training") == 0);
    daemon.wait_rows("SELECT count(*) FROM ingest_gaps WHERE reason = 'disconnected' AND source = 'redis'", 1);
    assert!(daemon.log().contains("Sentinel names another primary"), "{}", daemon.log());
}

#[test]
fn sentinels_that_cannot_help_are_named_with_the_reason() {
    let group = Sentinels::start();
    let [first, ..] = group.ports[..] else { unreachable!() };
    for (url, words) in [
        (group.url().replace("=mine", "=yours"), "Sentinel knows no service `yours`"),
        (group.url().replace("sentinel-pw", "wrong"), "failed to ask the sentinel at `127.0.0.1:"),
        (format!("redis-sentinel://127.0.0.1:1?sentinelServiceName=mine&node=127.0.0.1:{first}"), "NOAUTH"),
        (format!("redis://127.0.0.1:{first}"), "NOAUTH"),
    ] {
        let daemon = Daemon::at(&url).start();
        daemon.wait_log(words);
    }
}

#[test]
fn a_slot_that_moves_under_load_loses_nothing_and_a_dead_node_is_counted() {
    let mut cluster = Cluster::start();
    let daemon = Daemon::at(&cluster.url()).start_ready();
    // Published at another node than the one that is listened to.
    let ports = [1, 2, 0].map(|at: usize| cluster.nodes[at].port).to_vec();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_until(&stop, ports, message);
    let (slot, owner) = cluster.owner(LATEST);
    let other = (owner + 1) % 3;
    let seq = |node: usize| match cluster.get(node, LATEST) {
        value @ Value::Bulk(_) => value.json()["seq"].as_u64(),
        _ => None,
    };
    wait_until("the latest key", LIMIT, || seq(owner).is_some());
    cluster.move_slot(slot, owner, other);
    let then = seq(other).unwrap_or(0);
    wait_until("the latest key at the new node", LIMIT, || seq(other).is_some_and(|seq| seq > then + 200));
    cluster.move_slot(slot, other, owner);
    wait_until("the latest key at its node again", LIMIT, || seq(owner).is_some_and(|seq| seq > then + 600));
    assert_eq!(sqlite::count(&daemon.database(), LOST), 0, "a moved slot costs no message");
    // What is done by commands concerns keys in several slots.
    daemon.succeed(&["control", "reset", "--wait", "--url", ""]);
    daemon.succeed(&["status", "--url", ""]);
    assert!(daemon.succeed(&["cache", "clear"]).contains("deleted"));
    assert!(!daemon.log().contains("CROSSSLOT") && !daemon.log().contains("cannot be written"), "{}", daemon.log());
    // The node that is listened to dies: the others go on.
    let heard = (0..3).find(|node| cluster.nodes[*node].subscribers("cascor:training") == 1).unwrap();
    cluster.nodes[heard].kill();
    let left = (heard + 1) % 3;
    wait_until("another node to be listened to", LIMIT, || {
        let nodes = [left, (left + 1) % 3];
        nodes.iter().any(|node| cluster.nodes[*node].subscribers("cascor:training") == 1)
    });
    thread::sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    assert_all_counted(&daemon, publisher.join().unwrap());
}

#[test]
fn a_node_and_a_plain_server_are_told_apart() {
    let (cluster, plain) = (Cluster::start(), Redis::start());
    let daemon = Daemon::at(&format!("redis-cluster://127.0.0.1:{}", plain.port)).start();
    daemon.wait_log("the server is not part of a cluster; let `redis.url` begin with redis://");
    let (_, owner) = cluster.owner(LATEST);
    let daemon = Daemon::on(&cluster.nodes[(owner + 1) % 3]).start_ready();
    cluster.nodes[0].client().publish("cascor:training", message(0));
    daemon.wait_log("this Redis is a node of a cluster; let `redis.url` begin with redis-cluster://");
    daemon.wait_rows(ROWS, 1);
    // A plain replica takes no keys, and says so.
    let replica = Redis::start();
    replica.client().command(&["REPLICAOF", "127.0.0.1", &plain.port.to_string()]);
    let daemon = Daemon::on(&replica).start_ready();
    wait_until("the replica to follow", LIMIT, || {
        plain.client().publish("cascor:training", message(0));
        sqlite::count(&daemon.database(), ROWS) == 1
    });
    daemon.wait_log("this Redis is a replica; name its primary in `redis.url`");
}
