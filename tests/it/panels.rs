//! The routes that the panels of juniper-canopy read, on both stores and with absent servers.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    api::both,
    serve::serve,
    support::{cassandra::Cluster, daemon::Daemon, http, ports::free_port, redis::Redis, skip, wait_for, wait_until},
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);

/// A run as a cascor trainer publishes it.
fn train(daemon: &Daemon, redis: &Redis) {
    let (mut client, start) = (redis.client(), jiff::Timestamp::now().as_second() - 600);
    let mut send = |message: Value| assert!(client.publish(TRAINING, message.to_string()) >= 1);
    send(json!({"type": "training_start", "run_id": "spiral-7", "timestamp": start, "data": {
        "dataset": {"name": "spiral", "num_samples": 194, "num_features": 2, "num_classes": 2},
        "config": {"learning_rate": 0.01, "optimizer": "adam", "activation_fn": "tanh"}}}));
    for epoch in 0..120 {
        let network = json!({"input_units": 2, "hidden_units": epoch / 60, "output_units": 1});
        let loss = if epoch == 118 { json!("NaN") } else { json!(1.0 / f64::from(epoch + 1)) };
        send(json!({"type": "metrics", "run_id": "spiral-7", "timestamp": start + 1 + i64::from(epoch), "data": {
            "epoch": epoch, "metrics": {"loss": loss, "accuracy": 0.5}, "network_topology": network, "phase": "output"}}));
    }
    send(json!({"type": "topology", "run_id": "spiral-7", "timestamp": start + 200, "data": {
        "input_units": 2, "output_units": 1, "hidden_units": 1, "nodes": [{"id": 0}, {"id": 1}, {"id": 2}, {"id": 3}],
        "connections": [
            {"from": "input_0", "to": "hidden_0", "weight": 0.5}, {"from": "input_1", "to": "hidden_0", "weight": -1.5},
            {"from": "hidden_0", "to": "output_0", "weight": 2.0}, {"from": "input_0", "to": "output_0", "weight": 0.0}]}}));
    send(json!({"type": "state", "run_id": "spiral-7", "timestamp": start + 201, "data": {
        "status": "Started", "phase": "Candidate", "current_epoch": 119, "learning_rate": 0.01, "max_hidden_units": 10}}));
    wait_until("the run in the store", LIMIT, || {
        let id = run_id(daemon);
        let count = |what: &str| daemon.get(&format!("/api/runs/{id}/{what}")).json()["count"].clone();
        let metrics = &daemon.get(&format!("/api/runs/{id}?limit=0")).json()["metric_count"];
        *metrics == 120 && count("events") == 2 && count("topology") == 1
    });
}

fn run_id(daemon: &Daemon) -> String {
    daemon.get("/api/runs").json()["runs"][0]["run_id"].as_str().unwrap_or_default().to_owned()
}

fn ask(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_panels_of_the_fields_dashboard_find_what_they_read() {
    both("the_panels_of_the_fields_dashboard_find_what_they_read", |builder, redis| {
        let mut daemon = builder.prepare();
        if daemon.uses_cassandra() {
            daemon.apply_schema();
        }
        daemon.launch();
        daemon.wait_ready();
        daemon.wait_http("/api/runs", 200);
        // Before anything was published.
        assert_eq!(ask(&daemon, "/api/metrics/history?limit=100"), json!({"history": []}));
        for path in ["/api/state", "/api/dataset", "/api/network/stats", "/api/topology"] {
            assert_eq!(daemon.get(path).status, 404, "{path}");
        }
        train(&daemon, redis);
        state(&daemon, redis);
        history(&daemon);
        network(&daemon, redis);
        servers(&daemon);
        // `serve` answers the same.
        let (_served, port) = serve(&daemon);
        for path in ["/api/metrics/history", "/api/dataset", "/api/network/stats", "/api/v1/cassandra/metrics"] {
            let mut answers = [http::get(port, path).unwrap().json(), ask(&daemon, path)];
            answers.iter_mut().for_each(|answer| answer["timestamp"] = json!(null));
            assert_eq!(answers[0], answers[1], "{path}");
        }
        for path in ["/api/health", "/api/v1/redis/status", "/api/v1/redis/metrics"] {
            assert_eq!(http::get(port, path).unwrap().json()["status"], "UP", "{path}");
        }
        for path in ["state", "metrics/history", "dataset", "network/stats", "health"] {
            let answer = daemon.get(&format!("/api/{path}?_=1&nonsense=2"));
            assert_eq!(answer.status, 400, "{path}");
            assert!(answer.body.contains("nonsense"), "{path}: {}", answer.body);
            assert_ne!(daemon.get(&format!("/api/{path}?_=1")).status, 400, "{path}");
        }
        newer_run(&daemon, redis);
    });
}

/// A newer run that has only metrics hides no value of another, whether the keys are there or have expired.
fn newer_run(daemon: &Daemon, redis: &Redis) {
    redis.client().publish(TRAINING, json!({"run_id": "bare", "epoch": 7, "loss": 0.5}).to_string());
    wait_until("the newer run", LIMIT, || {
        redis.client().command(&["DEL", "cascor:metrics:latest"]);
        let answer = daemon.get("/api/metrics");
        answer.header("x-cache-status") == Some("MISS") && answer.json()["epoch"] == 7
    });
    redis.client().command(&["DEL", "cascor:topology:latest", "cascor:state:latest"]);
    for (path, field) in [("/api/topology", "input_size"), ("/api/state", "phase")] {
        let answer = daemon.get(path);
        assert_eq!((answer.status, answer.header("x-cache-status")), (200, Some("MISS")), "{path}: {}", answer.body);
        assert!(!answer.json()[field].is_null(), "{path}: {}", answer.body);
    }
}

fn state(daemon: &Daemon, redis: &Redis) {
    let hit = daemon.get("/api/state");
    assert_eq!((hit.status, hit.header("x-cache-status")), (200, Some("HIT")), "{}", hit.body);
    redis.client().command(&["DEL", "cascor:state:latest"]);
    let miss = daemon.get("/api/state");
    assert_eq!((miss.status, miss.header("x-cache-status")), (200, Some("MISS")), "{}", miss.body);
    // The same names from Redis and from the store.
    for name in ["run_id", "type", "status", "phase", "current_epoch", "epoch", "learning_rate", "max_hidden_units"] {
        assert_eq!(hit.json()[name], miss.json()[name], "{name}");
    }
    assert_eq!((&miss.json()["status"], &miss.json()["phase"]), (&json!("Started"), &json!("Candidate")));
    let one = ask(daemon, &format!("/api/state?run_id={}", run_id(daemon)));
    assert_eq!(one["current_epoch"], 119);
}

fn history(daemon: &Daemon) {
    let answer = ask(daemon, "/api/metrics/history?limit=100");
    let items = answer["history"].as_array().unwrap();
    let epochs: Vec<_> = items.iter().map(|item| item["epoch"].as_i64().unwrap()).collect();
    assert_eq!(epochs, (20..120).collect::<Vec<_>>(), "oldest first");
    let last = &items[99];
    assert_eq!(last["metrics"], json!({"loss": 1.0 / 120.0, "accuracy": 0.5, "val_loss": null, "val_accuracy": null}));
    assert_eq!(last["network_topology"], json!({"input_units": 2, "hidden_units": 1, "output_units": 1}));
    assert_eq!((&last["phase"], &items[0]["network_topology"]["hidden_units"]), (&json!("output"), &json!(0)));
    assert!(last["timestamp"].as_str().unwrap().ends_with(".000000Z"), "{last}");
    assert_eq!((&items[98]["metrics"]["loss"], &items[98]["non_finite"]), (&Value::Null, &json!(["loss"])));
    assert_eq!(ask(daemon, "/api/metrics/history")["history"].as_array().unwrap().len(), 100);
    assert_eq!(ask(daemon, "/api/metrics/history?limit=1000")["history"].as_array().unwrap().len(), 120);
    assert_eq!(daemon.get("/api/metrics/history?limit=0").status, 400);
}

fn network(daemon: &Daemon, redis: &Redis) {
    let dataset = ask(daemon, "/api/dataset");
    for (name, value) in [("name", json!("spiral")), ("num_samples", json!(194)), ("num_classes", json!(2))] {
        assert_eq!(dataset[name], value, "{name}: {dataset}");
    }
    assert_eq!(dataset["num_features"], 2);
    let stats = ask(daemon, "/api/network/stats");
    for (name, value) in [
        ("threshold_function", json!("tanh")),
        ("optimizer", json!("adam")),
        ("total_nodes", json!(4)),
        ("total_edges", json!(4)),
        ("total_connections", json!(4)),
    ] {
        assert_eq!(stats[name], value, "{name}: {stats}");
    }
    let weights = &stats["weight_statistics"];
    let counts = ["total_weights", "positive_weights", "negative_weights", "zero_weights"].map(|name| &weights[name]);
    assert_eq!(counts, [&json!(4), &json!(2), &json!(1), &json!(1)]);
    assert_eq!((&weights["mean"], &weights["median"]), (&json!(0.25), &json!(0.25)));
    assert_eq!(weights["z_score_distribution"]["beyond_3_sigma"], 0);

    // The topology for the network's picture is the same from the store and from Redis.
    redis.client().command(&["DEL", "cascor:topology:latest"]);
    let answer = daemon.get("/api/topology");
    assert_eq!(answer.header("x-cache-status"), Some("MISS"));
    let topology = answer.json();
    assert_eq!([&topology["input_units"], &topology["hidden_units"], &topology["output_units"]], [2, 1, 1]);
    assert_eq!(topology["connections"][1], json!({"from": "input_1", "to": "hidden_0", "weight": -1.5}));
    assert!(topology["topology_json"].is_string() && topology["input_size"] == 2, "{topology}");
}

fn servers(daemon: &Daemon) {
    let head = ["status", "mode", "message", "timestamp"];
    let health = ask(daemon, "/api/health");
    assert_eq!((&health["status"], &health["mode"]), (&json!("UP"), &json!("LIVE")), "{health}");
    let redis = ask(daemon, "/api/v1/redis/status");
    assert_eq!(names(&redis), head.into_iter().chain(["details"]).collect());
    assert_eq!((&redis["status"], &redis["mode"]), (&json!("UP"), &json!("LIVE")), "{redis}");
    let details = &redis["details"];
    assert!(details["version"].as_str().unwrap().contains('.'), "{details}");
    assert!(details["connected_clients"].as_u64() >= Some(1) && details["uptime_seconds"].is_u64(), "{details}");
    assert!(details["latency_ms"].as_f64() > Some(0.0), "{details}");
    let redis = ask(daemon, "/api/v1/redis/metrics");
    assert_eq!(names(&redis), head.into_iter().chain(["metrics"]).collect());
    let metrics = &redis["metrics"];
    assert!(metrics["memory"]["used_memory_bytes"].as_u64() > Some(1000), "{metrics}");
    assert!(metrics["memory"]["used_memory_human"].is_string(), "{metrics}");
    let stats = &metrics["stats"];
    assert!(stats["instantaneous_ops_per_sec"].is_u64() && stats["hit_rate_percent"].is_number(), "{stats}");
    assert!(stats["keyspace_hits"].is_u64() && stats["keyspace_misses"].is_u64(), "{stats}");
    assert!(metrics["keyspace"]["db0"]["keys"].as_u64() >= Some(1), "{metrics}");

    let (status, metrics) = (ask(daemon, "/api/v1/cassandra/status"), ask(daemon, "/api/v1/cassandra/metrics"));
    if !daemon.uses_cassandra() {
        for answer in [&status, &metrics] {
            assert_eq!((&answer["status"], &answer["mode"]), (&json!("DISABLED"), &json!("DISABLED")), "{answer}");
        }
        assert_eq!((&metrics["metrics"], &status["details"]["hosts"]), (&json!({}), &json!([])));
        return;
    }
    assert_eq!((&status["status"], &status["mode"]), (&json!("UP"), &json!("LIVE")), "{status}");
    let details = &status["details"];
    let host = &details["hosts"][0];
    assert!(details["contact_points"][0].is_string() && details["port"].is_u64(), "{details}");
    assert!(details["cluster_name"].as_str().is_some_and(|name| !name.is_empty()), "{details}");
    assert_eq!(names(host), ["address", "datacenter", "data_center", "rack", "is_up", "status"].into());
    assert_eq!((&host["is_up"], &host["status"]), (&json!(true), &json!("UP")));
    assert_eq!((&status["hosts"], &status["keyspace"]), (&details["hosts"], &details["keyspace"]));
    let keyspace = &metrics["metrics"]["keyspaces"][0];
    assert_eq!((&keyspace["name"], &keyspace["replication_factor"]), (&details["keyspace"], &json!(1)), "{keyspace}");
    assert_eq!(keyspace["replication_strategy"], "SimpleStrategy");
    let tables = keyspace["tables"].as_array().unwrap();
    assert!(tables.iter().any(|table| table["name"] == "training_metrics"), "{tables:?}");
    assert_eq!(metrics["schema"]["table_count"], tables.len());
    let nodes = &metrics["metrics"]["cluster_stats"];
    assert_eq!((&nodes["total_nodes"], &nodes["live_nodes"]), (&json!(1), &json!(1)), "{nodes}");
}

#[test]
fn absent_servers_are_reported_with_200() {
    let mut redis = Redis::start();
    // A store that never existed.
    let mut daemon = Daemon::on(&redis)
        .set("store.kind", "\"cassandra\"")
        .set("store.cassandra.contact_points", "[\"127.0.0.1\"]")
        .set("store.cassandra.port", free_port().to_string())
        .start_ready();
    for path in ["/api/v1/cassandra/status", "/api/v1/cassandra/metrics"] {
        let answer = ask(&daemon, path);
        assert_eq!((&answer["status"], &answer["mode"]), (&json!("UNAVAILABLE"), &json!("LIVE")), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("127.0.0.1"), "{answer}");
    }
    assert_eq!(ask(&daemon, "/api/v1/cassandra/status")["details"]["contact_points"], json!(["127.0.0.1"]));
    // The history is read from Redis.
    for epoch in 0..3 {
        redis.client().publish(TRAINING, json!({"run_id": "r", "epoch": epoch, "loss": 0.5}).to_string());
    }
    let answer = wait_for("the history of Redis", LIMIT, || {
        let answer = daemon.get("/api/metrics/history?limit=2");
        (answer.status == 200 && answer.json()["history"].as_array()?.len() == 2).then_some(answer)
    });
    assert_eq!(answer.header("x-cache-status"), Some("HIT"));
    wait_until("its newest part", LIMIT, || {
        let items = ask(&daemon, "/api/metrics/history?limit=2")["history"].clone();
        items[0]["epoch"] == 1 && items[1]["epoch"] == 2 && items[1]["metrics"]["loss"] == 0.5
    });
    // Paused, then killed.
    redis.pause();
    let silent = ask(&daemon, "/api/v1/redis/status");
    assert_eq!((&silent["status"], &silent["mode"]), (&json!("DOWN"), &json!("LIVE")), "{silent}");
    redis.resume();
    redis.kill();
    wait_until("Redis is known to be gone", LIMIT, || ask(&daemon, "/api/v1/redis/status")["status"] == "DOWN");
    assert_eq!(ask(&daemon, "/api/v1/redis/metrics")["metrics"], json!({}));
    wait_until("the daemon is not ready", LIMIT, || ask(&daemon, "/api/health")["status"] == "DOWN");
    assert!(daemon.terminate().success());
    daemon.launch();
    daemon.wait_http("/healthz", 200);
    wait_until("it never answered", LIMIT, || ask(&daemon, "/api/v1/redis/status")["status"] == "UNAVAILABLE");
}

#[test]
fn a_cassandra_that_is_killed_is_down_and_comes_back() {
    let name = "a_cassandra_that_is_killed_is_down_and_comes_back";
    let Some(cluster) = Cluster::start(1, "127.0.101", 19_451, &[]) else { return skip(name, "no Cassandra jars") };
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).cassandra(&cluster.keyspace()).prepare();
    daemon.apply_schema();
    daemon.launch();
    daemon.wait_http("/api/runs", 200);
    let told = |path: &str| ask(&daemon, &format!("/api/v1/cassandra/{path}"));
    assert_eq!(told("status")["status"], "UP");
    // Connected, but without an answer.
    cluster.pause(1);
    let silent = told("status");
    assert_eq!((&silent["status"], &silent["mode"]), (&json!("DOWN"), &json!("LIVE")), "{silent}");
    cluster.resume(1);
    cluster.kill(1);
    wait_until("it is known to be gone", LIMIT, || {
        let answer = told("status");
        answer["status"] == "DOWN" && answer["details"]["port"].is_u64() && told("metrics")["metrics"] == json!({})
    });
    cluster.up(1);
    wait_until("it is back", LIMIT, || told("status")["status"] == "UP");
    assert_eq!(told("metrics")["metrics"]["cluster_stats"]["live_nodes"], 1);
}

#[test]
fn a_redis_user_without_info_is_up_and_the_missing_permission_is_named() {
    let redis = Redis::start();
    let rule = "ACL SETUSER me on >pw +@all -info ~* &*";
    redis.client().command(&rule.split(' ').collect::<Vec<_>>());
    let daemon = Daemon::on(&redis).set("redis.username", "\"me\"").env("REDIS_PASSWORD", "pw").start_ready();
    let answer = ask(&daemon, "/api/v1/redis/status");
    assert_eq!(answer["status"], "UP", "{answer}");
    assert!(answer["message"].as_str().unwrap().to_lowercase().contains("info"), "{answer}");
    assert!(answer["details"]["latency_ms"].is_number() && answer["details"]["version"].is_null(), "{answer}");
}

#[test]
fn a_dataset_with_an_id_of_its_own_is_found() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let dataset = json!({"dataset_id": "d-7", "name": "moons", "num_samples": 10, "num_features": 3});
    let start = json!({"type": "training_start", "run_id": "a", "data": {"dataset": dataset}});
    redis.client().publish(TRAINING, start.to_string());
    // The row of the run and that of its start are written separately.
    wait_until("the dataset", LIMIT, || {
        let answer = daemon.get("/api/dataset").json();
        answer["num_samples"] == 10 && answer["num_features"] == 3 && answer["name"] == "moons"
    });
    // A name alone.
    redis
        .client()
        .publish(TRAINING, json!({"type": "training_start", "run_id": "b", "data": {"dataset": "xor"}}).to_string());
    let answer =
        wait_for("the other dataset", LIMIT, || Some(daemon.get("/api/dataset").json()).filter(|a| a["name"] == "xor"));
    assert!(answer["num_samples"].is_null(), "{answer}");
}
