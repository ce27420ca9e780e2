//! Faults of Redis and of its network.

use std::{thread, time::Duration};

use tokio::time::Instant;

use super::{
    arena::{Arena, Case, tier},
    proxy::{DOWN, Mode, Proxy, UP},
};
use crate::support::{
    daemon::Daemon,
    ports::free_port,
    redis::{Options, Redis},
    resp::Value,
    wait_until,
};

fn ok(redis: &Redis, words: &[&str]) {
    let answer = redis.client().command(words);
    assert!(!matches!(answer, Value::Error(_)), "{words:?}: {answer:?}");
}

#[test]
fn a_killed_redis_is_reconnected() {
    let mut arena = Arena::start(Case::new("Redis: kill -9", "SIGKILL, started again after 0 to 1 s"));
    for n in 0..tier(5, 50) {
        thread::sleep(Duration::from_millis(300));
        arena.disconnecting(|arena| {
            arena.redis.kill();
            thread::sleep(Duration::from_millis(n % 5 * 250));
            arena.redis.launch();
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn a_redis_in_a_restart_loop_is_reconnected() {
    let mut arena = Arena::start(Case::new("Redis: restart loop", "SIGKILL each 150 ms, ten times in a row"));
    for _ in 0..tier(1, 10) {
        arena.disconnecting(|arena| {
            for _ in 0..10 {
                arena.redis.kill();
                arena.redis.launch();
                thread::sleep(Duration::from_millis(150));
            }
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn losses_of_a_client_kill_storm_are_counted_exactly() {
    let mut arena = Arena::start(Case::new("Redis: CLIENT KILL storm", "each 10 ms, pubsub and normal clients"));
    for _ in 0..tier(2, 20) {
        arena.disconnecting(|arena| {
            let mut client = arena.redis.client();
            for n in 0..100 {
                client.command(&["CLIENT", "KILL", "TYPE", if n % 5 == 4 { "normal" } else { "pubsub" }]);
                thread::sleep(Duration::from_millis(10));
            }
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn a_subscriber_that_redis_cuts_off_comes_back_and_says_so() {
    let case = Case::new("Redis: output buffer exceeded", "pubsub limit of 1 MiB, the daemon stopped meanwhile");
    let mut arena = Arena::start(case.load(300, 20_000));
    ok(&arena.redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"]);
    for _ in 0..tier(1, 10) {
        arena.disconnecting(|arena| {
            arena.daemon.process().signal(rustix::process::Signal::STOP);
            wait_until("Redis to cut it off", Duration::from_secs(30), || {
                arena.redis.subscribers("cascor:training") == 0
            });
            arena.daemon.process().signal(rustix::process::Signal::CONT);
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn a_changed_password_is_retried_until_it_is_accepted() {
    let redis = Redis::with(Options { password: Some("old"), ..Options::default() });
    let daemon = Daemon::at(&format!("redis://:old@127.0.0.1:{}/0", redis.port)).prepare();
    let mut case = Case::new("Redis: changed password", "requirepass, then CLIENT KILL, 2 s, then back");
    // The producer would have to log in, which is not under test.
    case.load.password = Some("old");
    let mut arena = Arena::of(case.errors(&["Redis refuses", "refused", "WRONGPASS"]), redis, daemon, None);
    arena.disconnecting(|arena| {
        let mut client = arena.redis.client();
        client.command(&["CONFIG", "SET", "requirepass", "new"]);
        client.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        thread::sleep(Duration::from_secs(2));
        assert_eq!(arena.daemon.get("/readyz").status, 503);
        client.command(&["CONFIG", "SET", "requirepass", "old"]);
    });
    arena.lively();
    arena.judge();
}

#[test]
fn a_redis_out_of_memory_costs_only_the_keys() {
    let mut arena = Arena::start(Case::new("Redis: OOM", "maxmemory 1 for 3 s"));
    arena.harmless(|arena| {
        ok(&arena.redis, &["CONFIG", "SET", "maxmemory", "1"]);
        assert!(matches!(arena.redis.client().command(&["SET", "x", "y"]), Value::Error(_)), "it takes keys");
        thread::sleep(Duration::from_secs(3));
        ok(&arena.redis, &["CONFIG", "SET", "maxmemory", "0"]);
    });
    wait_until("fresh keys", Duration::from_secs(5), || {
        arena.redis.client().get_json("cascor:metrics:latest").is_some()
    });
    arena.lively();
    arena.judge();
}

#[test]
fn a_redis_that_turns_read_only_costs_only_the_keys() {
    // Publications on a master reach the subscribers of its replicas; this one has a master that never answers.
    let mut arena = Arena::start(Case::new("Redis: READONLY", "REPLICAOF an absent master for 3 s"));
    arena.harmless(|arena| {
        ok(&arena.redis, &["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
        assert!(matches!(arena.redis.client().command(&["SET", "x", "y"]), Value::Error(_)), "it takes keys");
        thread::sleep(Duration::from_secs(3));
        ok(&arena.redis, &["REPLICAOF", "NO", "ONE"]);
    });
    wait_until("fresh keys", Duration::from_secs(5), || {
        arena.redis.client().get_json("cascor:metrics:latest").is_some()
    });
    arena.lively();
    arena.judge();
}

#[test]
fn a_failover_to_a_replica_is_followed() {
    let (redis, replica) = (Redis::start(), Redis::start());
    ok(&replica, &["REPLICAOF", "127.0.0.1", &redis.port.to_string()]);
    let proxy = Proxy::start("127.0.0.1", free_port(), ("127.0.0.1", redis.port));
    let daemon = Daemon::at(&format!("redis://127.0.0.1:{}/0", proxy.port)).prepare();
    let case = Case::new("Redis: failover to a replica", "the master dies, its address leads to the promoted replica");
    let mut arena = Arena::of(case, redis, daemon, None);
    arena.disconnecting(|arena| {
        arena.redis.kill();
        ok(&replica, &["REPLICAOF", "NO", "ONE"]);
        arena.producer.set_port(replica.port);
        proxy.lead_to("127.0.0.1", replica.port);
    });
    arena.lively();
    arena.judge();
}

#[test]
fn an_acl_that_loses_one_channel_leaves_the_others() {
    let redis = Redis::start();
    ok(&redis, &["ACL", "SETUSER", "daemon", "on", ">secret", "~*", "+@all", "&*"]);
    let daemon = Daemon::at(&format!("redis://daemon:secret@127.0.0.1:{}/0", redis.port))
        .set("redis.training_channels", "[\"cascor:training\", \"cascor:events\"]")
        .prepare();
    let case = Case::new("Redis: ACL loses one channel", "ACL SETUSER without cascor:events, then with it again");
    let mut arena = Arena::of(case.errors(&["refused", "refuses"]), redis, daemon, None);
    let before = arena.connects();
    let from = Instant::now();
    let allow = ["&cascor:training", "&cascor:control*", "&cascor:ingest:*"];
    let words = ["ACL", "SETUSER", "daemon", "resetchannels"];
    ok(&arena.redis, &[&words[..], &allow[..]].concat());
    wait_until("a new connection", Duration::from_secs(10), || arena.connects() > before);
    arena.excuse(from, Instant::now() + Duration::from_millis(500));
    thread::sleep(Duration::from_secs(2));
    arena.lively(); // the channel that is left
    assert_eq!(arena.daemon.get("/readyz").status, 503, "one channel is not subscribed");
    arena.harmless(|arena| ok(&arena.redis, &["ACL", "SETUSER", "daemon", "allchannels"]));
    arena.daemon.wait_ready();
    arena.judge();
}

fn behind_proxy(name: &'static str, injected: &'static str) -> (Arena, Proxy) {
    let redis = Redis::start();
    let proxy = Proxy::start("127.0.0.1", free_port(), ("127.0.0.1", redis.port));
    let daemon = Daemon::at(&format!("redis://127.0.0.1:{}/0", proxy.port)).prepare();
    (Arena::of(Case::new(name, injected), redis, daemon, None), proxy)
}

#[test]
fn a_slow_network_costs_nothing() {
    let (mut arena, proxy) = behind_proxy("Redis: latency", "proxy: 100 ms each way for 4 s");
    // Messages in transit when a fault begins are not received yet; here nothing is cut, so nothing may be missing.
    arena.harmless(|_| {
        proxy.both(Mode::Latency(Duration::from_millis(100)));
        thread::sleep(Duration::from_secs(4));
        proxy.both(Mode::Pass);
    });
    arena.lively();
    arena.judge();
}

#[test]
fn a_network_of_single_bytes_costs_nothing() {
    let (mut arena, proxy) = behind_proxy("Redis: one byte at a time", "proxy, both ways, for 3 s");
    arena.harmless(|_| {
        proxy.both(Mode::Trickle);
        thread::sleep(Duration::from_secs(3));
        proxy.both(Mode::Pass);
    });
    arena.lively();
    arena.judge();
}

#[test]
fn reset_connections_are_made_again() {
    let (mut arena, proxy) = behind_proxy("Redis: connection reset", "proxy: RST on every connection");
    for _ in 0..tier(5, 100) {
        thread::sleep(Duration::from_millis(200));
        arena.disconnecting(|_| proxy.reset());
    }
    arena.lively();
    arena.judge();
}

#[test]
fn half_closed_connections_are_made_again() {
    let (mut arena, proxy) = behind_proxy("Redis: half-closed", "proxy: FIN from the server's side only");
    for _ in 0..tier(3, 50) {
        thread::sleep(Duration::from_millis(200));
        arena.disconnecting(|_| proxy.half_close());
    }
    arena.lively();
    arena.judge();
}

#[test]
fn a_black_hole_is_noticed_and_recorded_as_a_gap() {
    let (mut arena, proxy) = behind_proxy("Redis: black hole", "proxy: nothing passes, either way or one, for 8 s");
    for direction in [Some(DOWN), Some(UP), None] {
        arena.lossy(|arena| {
            match direction {
                Some(direction) => proxy.set(direction, Mode::Swallow),
                None => proxy.both(Mode::Swallow),
            }
            wait_until("the alarm", Duration::from_secs(8), || arena.daemon.get("/readyz").status == 503);
            thread::sleep(Duration::from_secs(2));
            proxy.both(Mode::Pass);
            proxy.close();
        });
        arena.lively();
    }
    arena.judge();
}

#[test]
fn a_pause_of_the_network_shorter_than_the_timeout_costs_nothing() {
    let (mut arena, proxy) = behind_proxy("Redis: a pause of 2 s", "proxy: everything waits for 2 s, then passes");
    for _ in 0..tier(2, 10) {
        arena.harmless(|_| {
            proxy.both(Mode::Hold);
            thread::sleep(Duration::from_secs(2));
            proxy.both(Mode::Pass);
        });
        arena.lively();
    }
    arena.judge();
}

/// Corruption changes what is published: the values are not judged, only that the daemon lives on and stays sane.
#[test]
fn corrupted_bytes_cost_a_connection_or_a_message_and_never_more() {
    let (mut arena, proxy) = behind_proxy("Redis: corrupted bytes", "proxy: one flipped bit each 4,999 bytes for 5 s");
    arena.case.errors = &["refused", "Redis refuses"];
    for every in [4_999, 997] {
        proxy.set(DOWN, Mode::Corrupt(every));
        thread::sleep(Duration::from_secs(tier(3, 30)));
        proxy.set(DOWN, Mode::Pass);
        // A reply that was damaged may leave the connection out of step for as long as a ping takes to notice.
        let ended = Instant::now();
        wait_until("ready again", Duration::from_secs(10), || arena.daemon.get("/readyz").status == 200);
        println!("ready {:?} after the last flipped bit", ended.elapsed());
        arena.lively();
    }
    arena.survive();
}
