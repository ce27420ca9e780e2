//! Values of the daemon's keys are read up to a bound, whatever other clients write there.

use cascor_ingest::{
    lifecycle::Signal,
    metrics::Metrics,
    redis::{Config, Link, Unusable, ValueLookup, connect, read_value, value_range},
};

use crate::support::{
    daemon::Daemon,
    redis::{Options, Redis},
    resp::Value,
};

const KEY: &str = "cascor:ingest:test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_value_is_read_whole_and_any_other_counts_as_absent() {
    let server = Redis::start();
    let config = Config { url: server.url(), ..Config::default() };
    let connected = connect(&config).await.unwrap();
    let mut redis = server.client();
    let (_stopper, stop) = Signal::new();
    let metrics = Metrics::new();
    let (link, _) = Link::new(&config, stop);
    let link = link.counted_in(&metrics);
    let text = "x".repeat(8);
    let (long, exact) = ("x".repeat(9), text.as_str());
    for (name, fill, found) in [
        ("absent", &[][..], ValueLookup::Absent),
        ("empty", &["SET", KEY, ""], ValueLookup::Absent),
        ("one byte", &["SET", KEY, "x"], ValueLookup::Usable("x".to_owned())),
        ("as long as may be", &["SET", KEY, exact], ValueLookup::Usable(exact.to_owned())),
        ("a byte longer", &["SET", KEY, long.as_str()], ValueLookup::Unusable(Unusable::TooLarge(9))),
        // Redis pads with zeros.
        ("300 MiB", &["SETRANGE", KEY, "314572800", "x"], ValueLookup::Unusable(Unusable::TooLarge(314_572_801))),
        ("a list", &["RPUSH", KEY, "x"], ValueLookup::Unusable(Unusable::WrongType)),
        ("a hash", &["HSET", KEY, "x", "y"], ValueLookup::Unusable(Unusable::WrongType)),
        ("a set", &["SADD", KEY, "x"], ValueLookup::Unusable(Unusable::WrongType)),
        ("a sorted set", &["ZADD", KEY, "1", "x"], ValueLookup::Unusable(Unusable::WrongType)),
        ("a stream", &["XADD", KEY, "*", "x", "y"], ValueLookup::Unusable(Unusable::WrongType)),
        ("a bit that is no text", &["SETBIT", KEY, "0", "1"], ValueLookup::Unusable(Unusable::NotText)),
    ] {
        redis.command(&["DEL", KEY]);
        if !fill.is_empty() {
            redis.command(fill);
        }
        let read = read_value(&connected.client, KEY, 8).await.unwrap();
        assert_eq!(read, found, "{name}");
        let expected = if let ValueLookup::Usable(value) = found { Some(value) } else { None };
        assert_eq!(link.read(&connected.client, KEY, 8).await.unwrap(), expected, "{name}");
        // A value that grows between the two requests is neither truncated nor fetched whole.
        let ranged = value_range(&connected.client, KEY, 8).await.unwrap();
        match ranged {
            ValueLookup::Unusable(Unusable::TooLarge(length)) => assert_eq!(length, 9, "{name}"),
            other => assert_eq!(other, read, "{name}"),
        }
    }
    let counted = |name| metrics.redis_unusable_values.of(name).get();
    assert_eq!((counted("too_large"), counted("wrong_type"), counted("not_text")), (2, 5, 1));
    assert!(
        metrics.page().contains("cascor_redis_unusable_values_total{reason=\"too_large\"} 2"),
        "{}",
        metrics.page()
    );
}

#[test]
fn the_panels_request_only_the_sections_of_info_that_they_show() {
    let server = Redis::with(Options { more: vec!["--slowlog-log-slower-than", "0"], ..Options::default() });
    let mut redis = server.client();
    for n in 0..100 {
        redis.command(&["EVAL", "return redis.error_reply('KIND' .. ARGV[1] .. ' of error')", "0", &n.to_string()]);
    }
    assert!(redis.command(&["INFO"]).text().unwrap().contains("errorstat_KIND99"), "a script adds to the reply");
    let daemon = Daemon::on(&server).start_ready();
    redis.command(&["SLOWLOG", "RESET"]);
    let shown = daemon.get("/api/v1/redis/metrics").json();
    assert_eq!(shown["status"], "UP");
    for (group, field) in
        [("memory", "used_memory_bytes"), ("stats", "keyspace_hits"), ("clients", "connected_clients")]
    {
        assert!(shown["metrics"][group][field].is_number(), "{group}.{field}: {shown}");
    }
    let Value::Array(entries) = redis.command(&["SLOWLOG", "GET", "100"]) else { panic!("no slow log") };
    let asked: Vec<Vec<String>> = entries
        .iter()
        .filter_map(|entry| if let Value::Array(parts) = entry { parts.get(3) } else { None })
        .filter_map(|words| if let Value::Array(words) = words { Some(words) } else { None })
        .map(|words| words.iter().filter_map(Value::text).collect())
        .filter(|words: &Vec<String>| words[0].eq_ignore_ascii_case("info"))
        .collect();
    assert!(asked.len() >= 5 && asked.iter().all(|words| words.len() == 2), "{asked:?}");
    assert!(!asked.iter().any(|words| ["default", "all", "everything"].contains(&&*words[1])), "{asked:?}");
}
