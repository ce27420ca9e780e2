//! Tests of the helpers.

use std::{fs, net::TcpStream, time::Duration};

use crate::support::{
    cassandra::{Cassandra, python},
    daemon::Daemon,
    http, ports,
    redis::{Options, Redis},
    resp::{Resp, Value},
    skip,
};

#[test]
fn a_private_redis_carries_messages_until_it_is_killed() {
    let mut redis = Redis::start();
    let mut subscriber = redis.client();
    subscriber.command(&["SUBSCRIBE", "news"]);
    assert_eq!(redis.subscribers("news"), 1);
    assert_eq!(redis.client().publish("news", b"\x00\xffbytes"), 1);
    assert_eq!(subscriber.message().unwrap(), ("news".into(), b"\x00\xffbytes".to_vec()));
    let many: Vec<_> = (0..1_000).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(redis.client().publish_all("news", &many).unwrap(), 1_000);
    redis.client().command(&["SET", "key", "{\"a\":1}"]);
    assert_eq!(redis.client().get_json("key").unwrap()["a"], 1);
    assert_eq!(redis.client().get_json("no such key"), None);
    redis.kill();
    assert!(Resp::connect(redis.port).is_err(), "it still listens");
    redis.launch();
    assert_eq!(redis.client().get_json("key"), None, "it keeps nothing");
}

#[test]
fn a_paused_redis_is_connected_and_silent() {
    let mut redis = Redis::start();
    let mut client = redis.client();
    client.set_timeout(Duration::from_millis(200));
    redis.pause();
    assert!(client.command_bytes(&[b"PING"]).is_err());
    redis.resume();
    assert_eq!(redis.client().command(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn a_private_redis_can_ask_for_a_password_and_speak_tls() {
    let redis = Redis::with(Options { password: Some("open sesame"), tls: true, more: vec![] });
    let mut stranger = Resp::connect(redis.port).unwrap();
    assert!(matches!(stranger.command(&["GET", "x"]), Value::Error(text) if text.starts_with("NOAUTH")));
    assert_eq!(redis.client().command(&["GET", "x"]), Value::Null);
    assert!(TcpStream::connect(("127.0.0.1", redis.tls_port.unwrap())).is_ok());
    assert!(fs::read_to_string(redis.ca()).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn the_shared_cassandra_is_read_with_another_client() {
    let Some(cassandra) = Cassandra::shared() else {
        return skip("the_shared_cassandra_is_read_with_another_client", "CASCOR_TEST_CASSANDRA is not set");
    };
    if python().is_none() {
        return skip("the_shared_cassandra_is_read_with_another_client", "CASCOR_TEST_PYTHON is not set");
    }
    let keyspace = &cassandra.keyspace;
    let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    let statements = [
        format!("CREATE KEYSPACE {keyspace} WITH replication = {replication}"),
        format!(
            "CREATE TABLE {keyspace}.t (id uuid PRIMARY KEY, at timestamp, x double, m map<text, double>, s set<text>)"
        ),
        format!(
            "INSERT INTO {keyspace}.t (id, at, x, m, s) VALUES \
             (6f0c0000-0000-4000-8000-000000000001, 1763633700123, NaN, {{'a': 0.5}}, {{'p', 'q'}})"
        ),
    ];
    cassandra.try_rows("-", &statements.join("\n")).unwrap();
    let rows = cassandra.rows("SELECT * FROM t");
    let expected = serde_json::json!({
        "id": "6f0c0000-0000-4000-8000-000000000001",
        "at": 1_763_633_700_123_i64,
        "x": "nan",
        "m": {"a": 0.5},
        "s": ["p", "q"],
    });
    assert_eq!(serde_json::to_value(&rows[0]).unwrap(), expected);
    assert_eq!(cassandra.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn ports_differ_and_are_free() {
    let (one, two) = (ports::free_port(), ports::free_port());
    assert_ne!(one, two);
    assert!(http::get(one, "/").is_err());
}

#[test]
fn a_prepared_daemon_has_a_configuration_of_its_own() {
    let redis = Redis::absent(Options::default());
    let daemon = Daemon::on(&redis).set("writer.flush_interval", "\"50ms\"").prepare();
    daemon.configure("spool.capacity", "\"64MiB\"");
    let text = fs::read_to_string(daemon.config_file()).unwrap();
    for line in ["instance = \"test\"", "writer.flush_interval = \"50ms\"", "spool.capacity = \"64MiB\""] {
        assert!(text.lines().any(|one| one == line), "no {line} in {text}");
    }
    assert!(text.contains(&redis.url()));
}
