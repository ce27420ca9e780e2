//! Faults of Cassandra and of its network. The store may be absent; no message may be lost or duplicated.

use std::{thread, time::Duration};

use tokio::time::Instant;

use super::{
    arena::{Arena, Case, tier},
    proxy::{DOWN, Mode, Proxy, UP},
    strace::{self, Attached},
};
use crate::support::{
    cassandra::{Cassandra, Cluster, python},
    daemon::Daemon,
    ports::free_port,
    redis::Redis,
    skip, wait_until,
};

/// Port of the clusters of these tests, each on its own addresses.
const PORT: u16 = 17_290;

fn net(n: u8) -> String {
    let base = std::env::var("CASCOR_FAULTS_NET").unwrap_or_else(|_| "127.0.72".into());
    let (head, last) = base.rsplit_once('.').unwrap();
    format!("{head}.{}", last.parse::<u8>().unwrap() + n)
}

fn cluster(test: &str, nodes: u8, n: u8, options: &[&str]) -> Option<Cluster> {
    if python().is_none() {
        skip(test, "CASCOR_TEST_PYTHON is not set");
        return None;
    }
    let cluster = Cluster::start(nodes, &net(n), PORT, options);
    if cluster.is_none() {
        skip(test, "no Cassandra jars");
    }
    cluster
}

/// ERROR of a store that needs an operator.
const ATTENTION: &[&str] = &["needs attention"];

/// Messages a second that a server on two shared cores can store, count and, after the loss of a replica, store again.
fn rate() -> u64 {
    tier(300, 600)
}

/// A daemon connected to the cluster through a proxy, with the schema applied.
fn arena(case: Case, cassandra: &Cassandra, replicas: &str, settings: &[(&str, &str)]) -> (Arena, Proxy) {
    let redis = Redis::start();
    let proxy = Proxy::start(&cassandra.host, free_port(), (&cassandra.host, cassandra.port));
    let through = cassandra.at_port(proxy.port);
    let builder = Daemon::on(&redis).cassandra(&through);
    let daemon = settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).prepare();
    daemon.succeed(&["schema", "apply", "--wait", "60s", "--replication", replicas]);
    (Arena::of(case.load(rate(), 0), redis, daemon, Some(cassandra.at_port(cassandra.port))), proxy)
}

/// One test, so that one cluster runs at a time: two cores cannot carry two, and tests that wait for each other would block the
/// test threads. `CASCOR_FAULTS_CASSANDRA` names one of them.
#[test]
fn cassandra_under_every_fault() {
    let wanted = std::env::var("CASCOR_FAULTS_CASSANDRA").unwrap_or_default();
    let parts: [(&str, fn()); 6] = [
        ("catches_up", one_node_that_catches_up),
        ("slow_disk", a_slow_disk),
        ("in_its_way", one_node_with_everything_in_its_way),
        ("forgets", a_node_that_forgets_what_it_acknowledged),
        ("password", a_changed_password),
        ("three", two_of_three_nodes_down),
    ];
    assert!(wanted.is_empty() || parts.iter().any(|(name, _)| *name == wanted), "no part `{wanted}`");
    parts.iter().filter(|(name, _)| wanted.is_empty() || *name == wanted).for_each(|(_, part)| part());
}

/// Each fault has its own arena; the server is shared because its start takes seconds.
fn one_node_that_catches_up() {
    let Some(cluster) = cluster("one_node_that_catches_up", 1, 0, &["--sync", "batch"]) else { return };
    kills(&cluster);
    a_pause(&cluster);
    replies_that_vanish(&cluster);
}

fn one_node_with_everything_in_its_way() {
    let test = "one_node_with_everything_in_its_way";
    let Some(cluster) = cluster(test, 1, 0, &["--sync", "batch"]) else { return };
    networks(&cluster);
    tables_and_columns(&cluster);
    refused_rows(&cluster);
    sigterm(&cluster);
}

/// Time limit for a fresh message to be a row. Rows acknowledged less than `spool.checkpoint_delay` before the server's end are
/// written again first: after many kills in a row, all rows since the first.
fn patience() -> Duration {
    Duration::from_secs(tier(20, 60))
}

fn kills(cluster: &Cluster) {
    let case = Case::new("Cassandra: kill -9", "SIGKILL, started again");
    let (mut fight, _proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    for _ in 0..tier(2, 20) {
        fight.harmless(|_| {
            cluster.kill(1);
            cluster.up(1);
        });
        fight.lively_within(patience());
    }
    fight.judge();
}

fn a_pause(cluster: &Cluster) {
    let case = Case::new("Cassandra: SIGSTOP", "for 5 s; long tier: 40 s");
    let (mut fight, _proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    fight.harmless(|_| {
        cluster.pause(1);
        thread::sleep(Duration::from_secs(tier(5, 40)));
        cluster.resume(1);
    });
    fight.lively_within(patience());
    fight.judge();
}

fn a_slow_disk() {
    let test = "a_slow_disk";
    if !super::arena::long() {
        return skip(test, "long tier only: a traced server is slow for a while");
    }
    if !strace::usable(test) {
        return;
    }
    let Some(cluster) = cluster(test, 1, 0, &["--sync", "batch"]) else { return };
    let case = Case::new(
        "Cassandra: slow disk",
        "strace: each msync, fdatasync and fsync of the server takes 200 ms, for 10 s",
    );
    let (mut fight, _proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    for _ in 0..5 {
        fight.harmless(|_| {
            let _slow = Attached::to(cluster.pid(1), "msync,fdatasync,fsync", "delay_enter=200000", &[]);
            thread::sleep(Duration::from_secs(10));
        });
        fight.lively_within(patience());
    }
    fight.judge();
}

fn replies_that_vanish(cluster: &Cluster) {
    let case = Case::new("Cassandra: replies vanish", "proxy: writes are applied, the server's answers are dropped");
    let (mut fight, proxy) =
        arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[("store.cassandra.request_timeout", "\"2s\"")]);
    for _ in 0..tier(2, 10) {
        fight.harmless(|_| {
            proxy.set(DOWN, Mode::Swallow);
            thread::sleep(Duration::from_secs(3));
            proxy.set(DOWN, Mode::Pass);
            // A byte stream with missing bytes cannot be resumed.
            proxy.reset();
        });
        fight.lively_within(patience());
    }
    fight.judge();
}

fn networks(cluster: &Cluster) {
    let case = Case::new(
        "Cassandra: latency, trickle, RST, half-close, black hole",
        "proxy: 100 ms each way; one byte at a time; reset; FIN; nothing passes for 5 s",
    );
    let (mut fight, proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    let seconds = |n| thread::sleep(Duration::from_secs(n));
    for _ in 0..tier(1, 5) {
        fight.harmless(|_| {
            proxy.both(Mode::Latency(Duration::from_millis(100)));
            seconds(3);
            proxy.both(Mode::Pass);
        });
        fight.lively();
        fight.harmless(|_| {
            proxy.set(UP, Mode::Trickle);
            seconds(2);
            proxy.both(Mode::Pass);
        });
        fight.lively();
        for _ in 0..3 {
            fight.harmless(|_| proxy.reset());
            thread::sleep(Duration::from_millis(700));
        }
        fight.lively();
        fight.harmless(|_| proxy.half_close());
        fight.lively_within(patience());
        fight.harmless(|_| {
            proxy.both(Mode::Swallow);
            seconds(5);
            proxy.both(Mode::Pass);
            proxy.close();
        });
        fight.lively_within(patience());
    }
    fight.judge();
}

fn tables_and_columns(cluster: &Cluster) {
    let keyspace = cluster.keyspace();
    let name = keyspace.keyspace.clone();
    let case = Case::new("Cassandra: dropped table and columns", "DROP, wait for the alarm, schema apply or ALTER ADD");
    let (mut fight, _proxy) = arena(case.errors(ATTENTION), &keyspace, "SimpleStrategy:1", &[]);
    let alarms = |fight: &Arena| fight.daemon.log().matches("store needs attention").count();
    let steps: [(&str, &str); 3] = [
        (
            "ALTER TABLE {}.training_metrics DROP learning_rate",
            "ALTER TABLE {}.training_metrics ADD learning_rate double",
        ),
        ("DROP TABLE {}.training_runs", ""),
        ("DROP TABLE {}.ingest_gaps", ""),
    ];
    for (break_it, mend_it) in steps {
        let before = alarms(&fight);
        let table = break_it.contains("ingest_gaps");
        fight.harmless(|fight| {
            cluster.query(&break_it.replace("{}", &name));
            if !table {
                wait_until("the alarm", Duration::from_secs(20), || alarms(fight) > before);
            }
            if mend_it.is_empty() {
                fight.daemon.succeed(&["schema", "apply", "--wait", "60s", "--replication", "SimpleStrategy:1"]);
            } else {
                cluster.query(&mend_it.replace("{}", &name));
            }
        });
        fight.lively_within(patience());
    }
    // The server has dropped prepared statements without notice.
    fight.harmless(|_| {
        cluster.query(&format!("ALTER TABLE {name}.training_metrics WITH comment = 'changed'"));
        cluster.query(&format!("ALTER TABLE {name}.training_metrics ADD theirs int"));
    });
    fight.lively();
    fight.judge();
}

fn refused_rows(cluster: &Cluster) {
    let case = Case::new("Cassandra: a row that is refused", "a topology larger than the server takes, among others");
    let (mut fight, _proxy) =
        arena(case.errors(&["dead letter", "refused", "set aside"]), &cluster.keyspace(), "SimpleStrategy:1", &[]);
    // 18 MiB, in fewer values than `limits.elements` allows.
    let large = "12345,".repeat(3 << 20);
    let message =
        format!("{{\"type\":\"topology\",\"run_id\":\"large\",\"data\":{{\"input_size\":2,\"x\":[{}1]}}}}", large);
    fight.harmless(|fight| {
        fight.redis.client().publish("cascor:training", message);
    });
    let letters =
        || fight.daemon.metric("cascor_deadletter_messages_total{reason=\"rejected_by_store\"}").unwrap_or(0.0);
    wait_until("the dead letter", Duration::from_secs(60), || letters() >= 1.0);
    fight.lively();
    fight.judge();
}

fn sigterm(cluster: &Cluster) {
    let case = Case::new("Cassandra: SIGTERM with the store down", "SIGKILL the node, SIGTERM, start, node up");
    let (mut fight, _proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    for hung in [false, true] {
        if hung {
            cluster.pause(1)
        } else {
            cluster.kill(1)
        }
        thread::sleep(Duration::from_secs(1));
        fight.lossy(|fight| {
            let asked = Instant::now();
            let status = fight.daemon.terminate();
            assert!(status.success(), "ended with {status}");
            assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?} to end", asked.elapsed());
            fight.daemon.launch();
        });
        if hung {
            cluster.resume(1)
        } else {
            cluster.up(1)
        }
        fight.lively_within(patience());
    }
    fight.judge();
}

/// With the server's default a killed node loses up to 0.1 s of acknowledged rows. Because of `spool.checkpoint_delay` the table lacks
/// nothing.
fn a_node_that_forgets_what_it_acknowledged() {
    let test = "a_node_that_forgets_what_it_acknowledged";
    let Some(cluster) = cluster(test, 1, 1, &["--sync", "periodic"]) else { return };
    let case =
        Case::new("Cassandra: kill -9, periodic commit log", "the server's default, which forgets acknowledged rows");
    let (mut fight, _proxy) = arena(case, &cluster.keyspace(), "SimpleStrategy:1", &[]);
    for _ in 0..tier(2, 10) {
        thread::sleep(Duration::from_secs(2));
        fight.harmless(|_| {
            cluster.kill(1);
            cluster.up(1);
        });
        fight.lively_within(patience());
    }
    fight.judge();
}

fn a_changed_password() {
    let Some(cluster) = cluster("a_changed_password", 1, 2, &["--sync", "batch", "--auth"]) else { return };
    let keyspace = cluster.keyspace().login("cassandra", "cassandra");
    cluster.query("CREATE ROLE daemon WITH PASSWORD = 'old' AND LOGIN = true AND SUPERUSER = true");
    let case =
        Case::new("Cassandra: changed password", "ALTER ROLE, then every connection closed, then ALTER ROLE back");
    let settings = [("store.cassandra.username", "\"daemon\""), ("store.cassandra.password", "\"old\"")];
    let (mut fight, proxy) = arena(case.errors(ATTENTION), &keyspace, "SimpleStrategy:1", &settings);
    fight.harmless(|fight| {
        // The server takes a new password each 5 s at most.
        let pause = || thread::sleep(Duration::from_secs(6));
        pause();
        cluster.query("ALTER ROLE daemon WITH PASSWORD = 'new'");
        proxy.close();
        wait_until("the alarm", Duration::from_secs(30), || fight.daemon.log().contains("store needs attention"));
        pause();
        cluster.query("ALTER ROLE daemon WITH PASSWORD = 'old'");
    });
    fight.lively_within(patience());
    fight.judge();
}

/// Three nodes take more memory than the short tier may.
fn two_of_three_nodes_down() {
    if !super::arena::long() {
        return skip("two_of_three_nodes_down", "long tier only: three nodes take 1.4 GiB");
    }
    let Some(cluster) = cluster("two_of_three_nodes_down", 3, 3, &["--sync", "batch"]) else { return };
    let case = Case::new("Cassandra: one and two of three nodes down", "QUORUM; SIGKILL, 20 s, started again");
    let redis = Redis::start();
    let keyspace = cluster.keyspace();
    let daemon =
        Daemon::on(&redis).cassandra(&keyspace).set("store.cassandra.consistency_write", "\"QUORUM\"").prepare();
    daemon.succeed(&["schema", "apply", "--wait", "60s", "--replication", "SimpleStrategy:3"]);
    let mut fight = Arena::of(case.load(rate(), 0), redis, daemon, Some(keyspace));
    for down in [&[3][..], &[2, 3]] {
        fight.harmless(|_| {
            down.iter().for_each(|node| cluster.kill(*node));
            thread::sleep(Duration::from_secs(20));
            down.iter().for_each(|node| cluster.up(*node));
        });
        fight.lively_within(patience());
    }
    fight.judge();
}
