//! A node of a Redis Cluster that is cut off from the other nodes, lives on and keeps its connections: its replica takes its slots over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    streams::{LIMIT, METRICS, RUN, stream_status},
    support::{
        daemon::Daemon,
        redis::Redis,
        redis_group::{Cluster, publish_until},
        resp::{Resp, Value},
        sqlite, wait_until,
    },
};

const CHANNELS: [&str; 2] = ["cascor:training", "cascor:control"];
const LATEST: &str = "cascor:metrics:latest";
const SEQUENCE: &str = "SELECT coalesce(sum(lost), 0) FROM ingest_gaps WHERE reason = 'sequence'";
const DISCONNECTED: &str = "SELECT count(*) FROM ingest_gaps WHERE reason = 'disconnected'";

fn message(seq: u64) -> String {
    let timestamp = 1_790_000_000.0 + seq as f64 / 1_000.0;
    json!({"type": "metrics", "run_id": RUN, "seq": seq, "timestamp": timestamp, "epoch": seq, "loss": 0.5}).to_string()
}

/// Whether both connections of a daemon listen there.
fn is_heard(nodes: &[&Redis]) -> bool {
    CHANNELS.iter().all(|channel| nodes.iter().any(|node| node.subscribers(channel) == 1))
}

#[test]
fn a_node_that_is_cut_off_is_left_and_what_was_missed_is_counted() {
    let cluster = Cluster::start();
    let daemon = Daemon::at(&cluster.url()).start_ready();
    assert!(is_heard(&[&cluster.nodes[0]]), "the first node is listened to");
    let replica = cluster.replica(0);
    let others = [&cluster.nodes[1], &cluster.nodes[2]];
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_until(&stop, others.map(|node| node.port).to_vec(), message);
    wait_until("messages to be rows", LIMIT, || sqlite::count(&daemon.database(), METRICS) >= 100);
    cluster.cut_off(0, &replica);
    wait_until("another node to be listened to", LIMIT, || is_heard(&others));
    // A publisher may be cut off with the node: for a while that is listened to as well.
    let other = json!({"run_id": "cut-off", "epoch": 1, "loss": 0.5}).to_string();
    assert_eq!(cluster.nodes[0].client().publish("cascor:training", &other), 1);
    let missed = sqlite::count(&daemon.database(), SEQUENCE);
    thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let published = i64::try_from(publisher.join().unwrap()).unwrap();
    wait_until("every message to be a row or counted", LIMIT, || {
        let lost = sqlite::count(&daemon.database(), SEQUENCE);
        sqlite::count(&daemon.database(), METRICS) - 1 + lost >= published
    });
    let count = |sql: &str| sqlite::count(&daemon.database(), sql);
    let (rows, lost) = (count(METRICS) - 1, count(SEQUENCE));
    println!("{published} published, {rows} rows, {lost} counted as lost, {missed} of them by then");
    assert_eq!(rows, count("SELECT count(DISTINCT seq) FROM training_metrics"));
    assert_eq!(rows + lost, published);
    // 500 a second, for some seconds.
    assert!(lost > 0 && lost < 5_000, "{lost}");
    assert_eq!(count(&format!("SELECT count(*) FROM training_metrics WHERE run_id != '{RUN}'")), 1);
    wait_until("the node to be left", LIMIT, || cluster.nodes[0].subscribers("cascor:training") == 0);
    // One of each connection.
    daemon.wait_rows(DISCONNECTED, 2);
    assert!(daemon.log().contains("is cut off; listening to another"), "{}", daemon.log());
}

/// Appends entries, each at the first of these servers that takes it, until told to stop. Returns their number.
fn append_until(stop: &Arc<AtomicBool>, stream: String, ports: [u16; 2]) -> thread::JoinHandle<i64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut clients = ports.map(|port| Resp::connect(port).unwrap());
        let mut epoch = 0;
        while !stop.load(Ordering::Relaxed) {
            let message = json!({"run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string();
            let mut append = |client: &mut Resp| {
                let answer = client.command(&["XADD", &stream, "*", "data", &message]);
                matches!(answer, Value::Bulk(_))
            };
            epoch += i64::from(clients.iter_mut().any(&mut append));
            thread::sleep(Duration::from_millis(4));
        }
        epoch
    })
}

#[test]
fn a_stream_of_a_node_that_is_cut_off_is_read_at_its_replica_and_nothing_is_lost_or_twice() {
    let cluster = Cluster::start();
    let node = cluster.owner(LATEST).1;
    let replica = cluster.replica(node);
    let stream = (0..).map(|n| format!("lab:{n}:stream")).find(|name| cluster.owner(name).1 == node).unwrap();
    // Clients ask the nodes in the order of their names: the one that is cut off is the first.
    let [one, other] = [1, 2].map(|more| cluster.nodes[(node + more) % 3].port);
    let url =
        format!("redis-cluster://127.0.0.1:{}?node=localhost:{one}&node=localhost:{other}", cluster.nodes[node].port);
    let daemon = Daemon::at(&url)
        .set("redis.streams", format!("[{stream:?}]"))
        .set("redis.training_channels", "[]")
        .start_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = append_until(&stop, stream, [cluster.nodes[node].port, replica.port]);
    wait_until("entries to be rows", LIMIT, || sqlite::count(&daemon.database(), METRICS) >= 300);
    cluster.cut_off(node, &replica);
    assert!(cluster.nodes[node].client().command(&["PING"]) == Value::Simple("PONG".into()), "it lives on");
    let rows = sqlite::count(&daemon.database(), METRICS);
    wait_until("the stream to be read on", LIMIT, || sqlite::count(&daemon.database(), METRICS) > rows + 300);
    wait_until("the latest key at its new node", LIMIT, || {
        replica.client().get_json(LATEST).is_some_and(|latest| latest["epoch"].as_i64() > Some(rows))
    });
    stop.store(true, Ordering::Relaxed);
    let appended = publisher.join().unwrap();
    wait_until("every entry to be a row", LIMIT, || sqlite::count(&daemon.database(), METRICS) >= appended);
    let count = |sql: &str| sqlite::count(&daemon.database(), sql);
    assert_eq!(count(METRICS), appended);
    assert_eq!(count("SELECT count(DISTINCT epoch) FROM training_metrics"), appended);
    let lost = "SELECT count(*) FROM ingest_gaps WHERE reason IN ('stream_reset', 'trimmed', 'trimmed_at_most')";
    assert_eq!(count(lost), 0, "{}", daemon.log());
    wait_until("everything is acknowledged", LIMIT, || {
        let status = stream_status(&daemon);
        status["reading"] == true && status["pending"] == 0 && status["error"].is_null()
    });
}
