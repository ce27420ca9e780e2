//! Values that each section refuses when a configuration is loaded.

use super::{Case, SHIPPED};

/// Invalid files, the key that the problem begins with, and a word of the problem.
const REFUSED: &[(&str, &str, &str)] = &[
    ("shutdown_grace = \"0s\"", "shutdown_grace", "above zero"),
    ("instance = \"a\\nb\"", "instance", "control characters"),
    ("redis.url = \"http://h\"", "redis.url", "redis:// or rediss://"),
    ("redis.url = \"redis://h?timeout=1\"", "redis.url", "behind `?`"),
    ("redis.url = \"redis-sentinel://h:1\"", "redis.url", "sentinelServiceName"),
    ("redis.url = \"redis-cluster://h:1/2\"", "redis.url", "database 0"),
    ("redis.url = \"redis+unix://run/r.sock\"", "redis.url", "whole path"),
    ("redis.url = \"redis://h/words\"", "redis.url", "cannot be read"),
    ("redis.url = \"redis://\"", "redis.url", "cannot be read"),
    ("redis.url = \"redis://a,b:6379/0\"", "redis.url", "no host"),
    ("redis.url = \"redis://a;b\"", "redis.url", "no host"),
    ("redis.training_channels = \"a;b\"", "redis.training_channels", "`a;b`"),
    ("store.cassandra.contact_points = [\"u:p@c1\"]", "store.cassandra.contact_points", "login"),
    ("redis.url = \"valkey:h\"", "redis.url", "redis:// or rediss://"),
    ("redis.training_channels = []", "redis.training_channels", "at least one"),
    ("redis.training_channels = [\"\"]", "redis.training_channels", "empty name"),
    ("redis.control_channels = [\"\"]", "redis.control_channels", "empty name"),
    ("redis.training_channels = [\"a\", \"a\"]", "redis.training_channels", "twice"),
    ("redis.training_channels = [\"*\"]", "redis.training_channels", "`redis.control_channels` = \"cascor:control\""),
    ("redis.control_channels = [\"a\", \"?\"]", "redis.control_channels", "twice"),
    ("redis.streams = [\"cascor:training\"]", "redis.streams", "channel of `redis.training_channels`"),
    ("redis.streams = [\"cascor:control\"]", "redis.streams", "channel of `redis.control_channels`"),
    ("redis.streams = [\"cascor:ingest:run:x\"]", "redis.streams", "key of this program"),
    ("redis.streams = [\"cascor:metrics:latest\"]", "redis.streams", "key of this program"),
    ("redis.streams = [\"a*\"]", "redis.streams", "a pattern"),
    ("redis.streams = [\"a\", \"a\"]", "redis.streams", "twice"),
    ("redis.queue_frames = 0", "redis.queue_frames", "between 1"),
    ("redis.queue_frames = 9223372036854775807", "redis.queue_frames", "between 1"),
    ("redis.queue_bytes = \"1023KiB\"", "redis.queue_bytes", "1MiB"),
    ("redis.tls.cert = \"/dev/null\"", "redis.tls.cert", "set together"),
    ("redis.tls.ca = \"/nowhere/ca.pem\"", "redis.tls.ca", "/nowhere/ca.pem"),
    ("limits.message = \"33MiB\"", "limits.message", "32MiB"),
    ("limits.message = \"0B\"", "limits.message", "above zero"),
    ("limits.depth = 0", "limits.depth", "above zero"),
    ("limits.fields = 0", "limits.fields", "above zero"),
    ("limits.string = \"0B\"", "limits.string", "above zero"),
    ("intake.time_zone = \"Mars\"", "intake.time_zone", "`Mars`"),
    ("intake.run_idle_timeout = \"0s\"", "intake.run_idle_timeout", "zero"),
    ("spool.capacity = \"17MiB\"", "spool.capacity", "two segments"),
    ("spool.segment = \"1KiB\"", "spool.segment", "4KiB"),
    ("writer.batch_rows = 0", "writer.batch_rows", "at least 1"),
    ("writer.in_flight = 0", "writer.in_flight", "at least 1"),
    ("writer.memory = \"0B\"", "writer.memory", "above zero"),
    ("latest.metrics_ttl = \"0s\"", "latest.metrics_ttl", "1ms"),
    ("latest.topology_ttl = \"0s\"", "latest.topology_ttl", "1ms"),
    ("latest.state_ttl = \"0s\"", "latest.state_ttl", "1ms"),
    ("latest.history_ttl = \"0s\"", "latest.history_ttl", "1ms"),
    ("latest.control_ttl = \"0s\"", "latest.control_ttl", "1ms"),
    ("latest.status_ttl = \"0s\"", "latest.status_ttl", "1ms"),
    ("latest.runs = 0", "latest.runs", "at least 1"),
    ("control.pause_max = \"0s\"", "control.pause_max", "zero"),
    ("control.flush_timeout = \"0s\"", "control.flush_timeout", "zero"),
    ("http.stale_after = \"0s\"", "http.stale_after", "longer than zero"),
    ("http.listen = \"nowhere\"", "http.listen", "address and port"),
    ("http.exports = 9223372036854775807", "http.exports", "at most"),
    ("http.compressions = 9223372036854775807", "http.compressions", "at most"),
    ("http.connections = 0", "http.connections", "at least 1"),
    ("http.stream_buffer = \"63KiB\"", "http.stream_buffer", "64KiB"),
    ("http.max_points = 1", "http.max_points", "at least"),
    ("http.write_timeout = \"0s\"", "http.write_timeout", "zero"),
    ("http.memory = \"15MiB\"", "http.memory", "16MiB"),
    ("http.max_header = \"7KiB\"", "http.max_header", "8KiB"),
    ("log.level = \"x=loud\"", "log.level", "cannot be read"),
    ("http.connections = -5", "http.connections", "must be a whole number, 0 or more, not -5"),
    ("http.connections = \"many\"", "http.connections", "must be a whole number, 0 or more, not `many`"),
    ("http.required = 1", "http.required", "must be true or false, not 1"),
    ("instance = 5", "instance", "must be a text, not 5"),
    ("redis.training_channels = 5", "redis.training_channels", "must be a list, not 5"),
    ("store.cassandra.port = 70000", "store.cassandra.port", "must be a whole number from 0 to 65535, not 70000"),
    ("spool.dir = \"/etc/passwd\"", "spool.dir", "`/etc/passwd` is a file, not a directory"),
];

/// The same for keys of `store.cassandra`.
const REFUSED_OF_CASSANDRA: &[(&str, &str, &str)] = &[
    ("contact_points = []", "contact_points", "at least one host"),
    ("contact_points = [\"db1\", \" \"]", "contact_points", "is empty"),
    ("contact_points = [\"c1;c2\"]", "contact_points", "`c1;c2`"),
    ("contact_points = [\"c1:cql\"]", "contact_points", "`c1:cql`"),
    ("contact_points = \"[\\\"c1\\\", c2\"", "contact_points", "`[\\\"c1\\\"`"),
    ("port = 0", "port", "at least 1"),
    ("pool_size = 0", "pool_size", "at least 1"),
    ("page_rows = 0", "page_rows", "between 1 and 5000"),
    ("page_rows = 5001", "page_rows", "between 1 and 5000"),
    ("request_timeout = \"0s\"", "request_timeout", "zero"),
    ("connect_timeout = \"0s\"", "connect_timeout", "zero"),
    ("keyspace = \"\"", "keyspace", "1 to 48"),
    ("keyspace = \"a-b\"", "keyspace", "`a-b`"),
    ("consistency_write = \"MOST\"", "consistency_write", "LOCAL_QUORUM"),
    ("consistency_read = \"MOST\"", "consistency_read", "LOCAL_QUORUM"),
    ("consistency_read = \"any\"", "consistency_read", "LOCAL_QUORUM"),
    ("password = \"x\"", "username", "when there is a password"),
    ("tls.key = \"/dev/null\"", "tls.cert", "set together"),
    ("tls.ca = \"/nowhere/ca.pem\"", "tls.ca", "/nowhere/ca.pem"),
];

fn assert_refused(text: &str, key: &str, word: &str) {
    let problems = Case::new().file("a.toml", text).problems();
    let said = |problem: &String| problem.starts_with(&format!("`{key}`")) && problem.contains(word);
    assert!(problems.len() == 1 && problems.iter().all(said), "{text}: {problems:?}");
}

#[test]
fn an_invalid_value_is_refused_by_its_key() {
    for (text, key, word) in REFUSED {
        assert_refused(text, key, word);
    }
}

#[test]
fn cassandra_is_checked_only_where_it_is_used() {
    for (text, key, word) in REFUSED_OF_CASSANDRA {
        let section = format!("[store.cassandra]\n{text}");
        Case::new().file("a.toml", &section).settings();
        assert_refused(&format!("store.kind = \"cassandra\"\n{section}"), &format!("store.cassandra.{key}"), word);
    }
}

#[test]
fn extreme_valid_values_load() {
    for text in [
        "redis.url = \"rediss://[::1]/15\"",
        "redis.queue_frames = 1\nredis.queue_bytes = \"1MiB\"",
        "redis.control_channels = []",
        "limits = {message = \"32MiB\", depth = 1, fields = 1, string = \"1B\"}",
        "spool = {capacity = \"8KiB\", segment = \"4KiB\", memory = \"0B\", sync_interval = \"0s\", checkpoint_delay = \"0s\"}",
        "writer = {batch_rows = 1, batch_bytes = \"0B\", flush_interval = \"0s\", in_flight = 1, memory = \"1B\"}",
        "latest = {metrics_ttl = \"1ms\", history_objects = 0, history_bytes = \"0B\", runs = 1}",
        "control = {pause_max = \"1us\", flush_timeout = \"1us\"}",
        "store = {kind = \"cassandra\", cassandra = {page_rows = 5000, pool_size = 1, consistency_read = \"each_quorum\"}}",
        "store = {kind = \"cassandra\", cassandra = {username = \"\", password = \"\"}}",
        "store = {kind = \"cassandra\", cassandra = {username = \"u\"}}",
        "store = {kind = \"cassandra\", cassandra = {username = \"u\", password = \"p\", consistency_write = \"ANY\"}}",
    ] {
        Case::new().file("a.toml", text).settings();
    }
}

#[test]
fn the_configurations_of_deployments_load() {
    let corpus = include_str!("../../../tests/faults/corpus/config/deployment.yaml");
    let variables = include_str!("../../../tests/faults/corpus/config/variables.yaml");
    for (name, case) in [
        ("shipped", Case::new().file("a.toml", SHIPPED)),
        ("shipped, on Cassandra", Case::new().file("a.toml", SHIPPED).flag("store.kind", "cassandra")),
        ("pods", Case::new().file("a.toml", include_str!("../../../deploy/kubernetes/config.toml"))),
        ("small", Case::new().file("a.toml", include_str!("../../../tests/faults/corpus/config/small.toml"))),
        ("existing", Case::new().file("a.yaml", corpus).env("PASSWORD", "p")),
        ("variables", Case::new().file("a.yaml", variables)),
    ] {
        assert!(case.load().is_ok(), "{name}: {:?}", case.load());
    }
}

#[test]
fn a_toml_error_has_its_place_and_reason_and_shows_no_value() {
    for (text, place, reason) in [
        ("instance = \"a\"\n[redis]\npassword = hunter2\n", "line 3 column 12", "string"),
        ("[redis]\nusername = \"u\"\n  password = \"hunter2\n", "line 3 column 22", "string"),
        ("[redis]\npassword = 'hunter2' x\n", "line 2 column 22", "expected"),
        ("[redis\n", "line 1 column 7", "`]`"),
        ("[redis]\npassword = 'hunter2'\npassword = 'hunter2'\n", "line 3 column 1", "duplicate key"),
        ("instance = \"ä\" x", "line 1 column 16", "expected"),
    ] {
        let problems = Case::new().file("a.toml", text).load().unwrap_err().to_string();
        assert!(problems.contains(&format!("{place} is no TOML: ")), "{text}: {problems}");
        assert!(problems.contains(reason) && !problems.contains("hunter"), "{text}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}
