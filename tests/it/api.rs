//! Stored rows, latest values and commands over HTTP, from a real daemon.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    cassandra::Cassandra,
    daemon::{Builder, Daemon, INSTANCE},
    http,
    redis::Redis,
    skip, wait_for, wait_until,
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const LIMIT: Duration = Duration::from_secs(30);

/// Time of the first row, recent enough not to have expired.
fn start() -> i64 {
    jiff::Timestamp::now().as_second() - 3_600
}

/// A run of `rows` metrics, a topology, a cascade and an end.
fn publish(redis: &Redis, rows: u32) -> i64 {
    let (mut client, start) = (redis.client(), start());
    let mut send = |message: Value| assert!(client.publish(TRAINING, message.to_string()) >= 1);
    send(json!({"type": "training_start", "run_id": RUN, "timestamp": start,
        "data": {"dataset": {"name": "spiral", "num_samples": 194}, "notes": "first", "tags": ["a"]}}));
    for n in 0..rows {
        send(json!({"type": "metrics", "run_id": RUN, "seq": n, "timestamp": f64::from(n) + start as f64 + 1.0,
            "data": {"epoch": n, "train_loss": 1.0 / f64::from(n + 1), "hidden_units": n / 10, "grad": 0.5}}));
    }
    send(json!({"type": "topology", "run_id": RUN, "timestamp": start + 20,
        "data": {"input_units": 2, "output_units": 1, "hidden_units": [{"id": 0}], "connections": []}}));
    send(json!({"type": "cascade_add", "run_id": RUN, "timestamp": start + 11,
        "data": {"hidden_unit_index": 0, "correlation": 0.87, "epoch": 10}}));
    start
}

pub fn ready(builder: Builder, redis: &Redis, rows: u32) -> (Daemon, i64) {
    let mut daemon = builder.prepare();
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    let start = publish(redis, rows);
    wait_until("the run in the store", LIMIT, || {
        let run = daemon.get(&format!("/api/runs/{RUN}")).json();
        let events = daemon.get(&format!("/api/runs/{RUN}/events")).json();
        run["metric_count"] == rows && events["count"] == 2 && run["run"]["final_epoch"] == rows - 1
    });
    (daemon, start)
}

/// The same questions to both stores.
pub fn both(test: &str, check: impl Fn(Builder, &Redis)) {
    let redis = Redis::start();
    check(Daemon::on(&redis), &redis);
    match Cassandra::shared() {
        Some(cassandra) => {
            let redis = Redis::start();
            check(Daemon::on(&redis).cassandra(&cassandra), &redis);
        }
        None => skip(test, "no Cassandra"),
    }
}

#[test]
fn runs_and_their_rows_are_read_page_by_page() {
    both("runs_and_their_rows_are_read_page_by_page", |builder, redis| {
        let (daemon, start) = ready(builder, redis, 25);
        let runs = daemon.get("/api/runs?status=stale&dataset=spiral").json();
        assert_eq!((&runs["count"], &runs["runs"][0]["run_id"], &runs["next"]), (&json!(1), &json!(RUN), &Value::Null));
        assert_eq!(daemon.get("/api/runs?status=completed").json()["runs"], json!([]));

        let one = daemon.get(&format!("/api/runs/{RUN}")).json();
        let run = &one["run"];
        assert_eq!((&run["notes"], &run["tags"], &run["dataset_size"]), (&json!("first"), &json!(["a"]), &json!(194)));
        assert_eq!((one["metrics"].as_array().map(Vec::len), &one["next"]), (Some(25), &Value::Null));
        // A truncated page names the start of the next one.
        let uncounted = daemon.get(&format!("/api/runs/{RUN}?limit=0&count=none")).json();
        assert_eq!((&uncounted["run"], uncounted.get("metric_count")), (&one["run"], None));
        let some = daemon.get(&format!("/api/runs/{RUN}?limit=10")).json();
        let next = some["next"].as_str().unwrap();
        let rest = daemon.get(&format!("/api/metrics/range?run_id={RUN}&cursor={next}")).json();
        let rows = |answer: &Value| answer["metrics"].as_array().unwrap().clone();
        assert_eq!((rows(&some).len(), rows(&rest).len(), &rest["next"]), (10, 15, &Value::Null));
        assert_eq!([rows(&some), rows(&rest)].concat(), rows(&one), "none is missing, none is there twice");

        for (order, expected) in [("asc", (0..25).collect::<Vec<_>>()), ("desc", (0..25).rev().collect())] {
            let (mut epochs, mut cursor) = (Vec::new(), String::new());
            loop {
                let path = format!("/api/metrics/range?run_id={RUN}&limit=7&order={order}&cursor={cursor}&max_points=");
                let page = daemon.get(&path).json();
                assert_eq!(page["exact"], true, "{page}");
                epochs.extend(page["metrics"].as_array().unwrap().iter().map(|row| row["epoch"].as_i64().unwrap()));
                let Some(next) = page["next"].as_str() else { break };
                cursor = next.to_owned();
            }
            assert_eq!(epochs, expected, "{order}");
        }
        // The bounds are inclusive; a time is RFC 3339 or a number of seconds.
        let at = jiff::Timestamp::from_second(start + 3).unwrap();
        let path = format!("/api/metrics/range?run_id={RUN}&start_time={at}&end_time={}", start + 5);
        assert_eq!(daemon.get(&path).json()["count"], 3);

        let events = daemon.get(&format!("/api/runs/{RUN}/events?order=asc&limit=1")).json();
        assert_eq!((&events["events"][0]["type"], events["next"].is_string()), (&json!("training_start"), true));
        let topology = daemon.get(&format!("/api/runs/{RUN}/topology")).json();
        assert_eq!((&topology["count"], &topology["topology"][0]["input_size"]), (&json!(1), &json!(2)));
    });
}

#[test]
fn the_latest_values_come_from_redis_and_else_from_the_store() {
    both("the_latest_values_come_from_redis_and_else_from_the_store", |builder, redis| {
        let (daemon, start) = ready(builder, redis, 5);
        wait_until("a miss, once the key has expired", LIMIT, || {
            daemon.get("/api/metrics").header("x-cache-status") == Some("MISS")
        });
        let missed = daemon.get("/api/metrics").json();
        assert_eq!((&missed["epoch"], &missed["run_id"]), (&json!(4), &json!(RUN)));
        let message = json!({"run_id": RUN, "epoch": 99, "loss": 0.1, "own": "field", "timestamp": start + 90});
        let hit = wait_for("a hit", LIMIT, || {
            redis.client().publish(TRAINING, message.to_string());
            let answer = daemon.get("/api/metrics");
            (answer.header("x-cache-status") == Some("HIT")).then(|| answer.json())
        });
        assert_eq!((&hit["train_loss"], &hit["own"], hit["_ingest"].is_object()), (&json!(0.1), &json!("field"), true));
        for path in ["/api/topology", "/api/network/topology", &format!("/api/topology?run_id={RUN}")] {
            let answer = daemon.get(path);
            assert!(matches!(answer.header("x-cache-status"), Some("HIT" | "MISS")), "{path}: {}", answer.head);
            assert_eq!(answer.json()["input_size"], 2, "{path}");
        }
        redis.client().command(&["DEL", "cascor:history:latest"]);
        let history = wait_for("the history", LIMIT, || {
            let answer = daemon.get("/api/history");
            (answer.header("x-cache-status") == Some("MISS")).then(|| answer.json())
        });
        let epochs: Vec<_> = history.as_array().unwrap().iter().map(|row| row["epoch"].as_i64().unwrap()).collect();
        assert_eq!(epochs[..5], [0, 1, 2, 3, 4], "oldest first");
        assert!(daemon.metric("cascor_api_latest_hits_total").unwrap() >= 1.0);
        assert!(daemon.metric("cascor_api_latest_misses_total").unwrap() >= 1.0);
    });
}

#[test]
fn a_request_that_cannot_be_answered_gets_a_reason() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (path, status, detail) in [
        ("/api/runs/xyz".to_owned(), 400, "Invalid UUID"),
        (format!("/api/runs/{nobody}"), 404, "Run not found"),
        (format!("/api/runs/{nobody}?count=all"), 400, "`count` must be one of exact, none"),
        (format!("/api/runs/{nobody}/events"), 404, "Run not found"),
        ("/api/nothing".to_owned(), 404, "Not Found"),
        ("/api/runs?limit=0".to_owned(), 400, "`limit` must be a whole number from 1 to 10000, not `0`"),
        ("/api/runs?limit=1&limit=2".to_owned(), 400, "`limit` is given twice"),
        ("/api/runs?statsu=failed".to_owned(), 400, "unknown parameter `statsu`"),
        ("/api/runs?status=odd".to_owned(), 400, "`status` must be one of running, stale"),
        ("/api/runs?before=odd".to_owned(), 400, "`before` must be the `next` of an earlier answer"),
        ("/api/metrics/range".to_owned(), 400, "`run_id` is missing"),
        ("/api/metrics/range?run_id=7".to_owned(), 400, "Invalid UUID"),
        (format!("/api/metrics/range?run_id={nobody}&start_time=soon"), 400, "`start_time`: `soon` is not a time"),
        (format!("/api/metrics/range?run_id={nobody}&order=up"), 400, "`order` must be one of desc, asc"),
    ] {
        let answer = daemon.get(&path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.contains(detail), "{path}: {said}");
    }
    assert_eq!(daemon.get("/api/runs?_=123&limit=&status=").status, 200, "empty is absent, `_` is for caches");
    assert_eq!(http::send(daemon.http_port(), "DELETE", "/api/runs", &[], "").unwrap().status, 405);
}

#[test]
fn only_requests_that_name_this_machine_are_answered() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let port = daemon.http_port();
    let status = |method, path, headers: &[_]| http::send(port, method, path, headers, "{}").unwrap().status;
    assert_eq!(status("GET", "/api/runs", &[("Host", "evil.example")]), 403);
    assert_eq!(status("GET", "/healthz", &[("Host", "evil.example")]), 200);
    assert_eq!(status("POST", "/api/runs", &[("Origin", "http://evil.example")]), 403);
    assert_eq!(status("POST", "/api/runs", &[]), 201);

    let open = Daemon::on(&redis).listen_on("0.0.0.0").start_ready();
    for (path, status) in [("/api/runs", 401), ("/api/status", 401), ("/metrics", 200), ("/healthz", 200)] {
        assert_eq!(open.get(path).status, status, "{path}");
    }
    assert_eq!(open.post("/api/control", &json!({"command": "pause"})).status, 401);
}

#[test]
fn commands_by_http_are_recorded_executed_and_answered() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let receipt = daemon.post("/api/control", &json!({"command": "pause", "id": "7"})).json();
    assert_eq!(
        (&receipt["outcome"], &receipt["id"], &receipt["instance"]),
        (&json!("done"), &json!("7"), &json!(INSTANCE))
    );
    wait_until("paused", LIMIT, || daemon.get("/api/status").json()["paused"] == true);
    let bare = http::post(daemon.http_port(), "/api/control", "resume").unwrap().json();
    assert_eq!((&bare["outcome"], bare["id"].is_string()), (&json!("done"), true), "{bare}");
    let elsewhere = daemon.post("/api/control", &json!({"command": "stop", "target": "trainer"}));
    assert_eq!((elsewhere.status, &elsewhere.json()["outcome"]), (202, &Value::Null));
    let flushed = daemon.post("/api/control", &json!({"command": "flush", "target": INSTANCE})).json();
    assert_eq!(flushed["outcome"], "done", "{flushed}");
    assert_eq!(daemon.post("/api/control", &json!({"data": 1})).status, 400);
    // A published command is recorded twice: as requested over HTTP, and as received on the channel.
    let by = |source: &str, more: &str| format!("SELECT count(*) FROM control_log WHERE source = '{source}' {more}");
    daemon.wait_rows(&by("cascor:control", "AND outcome IS NOT NULL"), 3);
    daemon.wait_rows(&by("http", "AND outcome = 'done' AND command IN ('pause', 'resume', 'flush')"), 3);
    daemon.wait_rows(&by("http", "AND outcome IS NULL AND target = 'trainer' AND command = 'stop'"), 1);
    daemon.wait_rows("SELECT count(*) FROM control_log WHERE command_id = '7' AND command = 'pause'", 2);
}

#[test]
fn commands_for_this_daemon_work_while_redis_is_away() {
    let mut redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    redis.kill();
    wait_until("the link to be down", LIMIT, || {
        daemon.post("/api/control", &json!({"command": "pause"})).status == 503
    });
    let everyone = daemon.post("/api/control", &json!({"command": "pause"})).json();
    assert!(everyone["detail"].as_str().unwrap().contains("commands this daemon alone"), "{everyone}");
    let receipt = daemon.post("/api/control", &json!({"command": "pause", "target": INSTANCE})).json();
    assert_eq!(receipt["outcome"], "done", "{receipt}");
}

#[test]
fn a_run_made_over_http_is_stored_like_one_made_by_messages() {
    both("a_run_made_over_http_is_stored_like_one_made_by_messages", |builder, redis| {
        let (daemon, _) = ready(builder, redis, 1);
        let body = json!({"run_name": "by-http", "config": {"learning_rate": 0.01}, "tags": ["x"],
            "dataset": {"name": "moons", "num_samples": 7}, "created_by": "me"});
        let created = daemon.post("/api/runs", &body);
        assert_eq!((created.status, &created.json()["run_name"]), (201, &json!("by-http")), "{}", created.body);
        let id = created.json()["run_id"].as_str().unwrap().to_owned();
        // The channel's open run: messages without a `run_id` belong to it.
        redis.client().publish(TRAINING, json!({"epoch": 1, "loss": 0.25}).to_string());
        wait_until("its metrics", LIMIT, || daemon.get(&format!("/api/runs/{id}")).json()["metric_count"] == 1);
        assert_eq!(daemon.post(&format!("/api/runs/{id}/notes"), &json!({"notes": "n", "tags": ["y"]})).status, 200);
        let ended = daemon.post(&format!("/api/runs/{id}/complete"), &json!({"status": "converged", "epoch": 9}));
        assert_eq!((ended.status, &ended.json()["status"]), (200, &json!("completed")), "{}", ended.body);
        let run = wait_for("the run as it ended", LIMIT, || {
            let run = daemon.get(&format!("/api/runs/{id}")).json()["run"].clone();
            (run["status"] == "completed" && run["notes"] == "n").then_some(run)
        });
        assert_eq!(
            (&run["tags"], &run["dataset_size"], &run["final_epoch"]),
            (&json!(["x", "y"]), &json!(7), &json!(9))
        );
        // Notes about a run that has ended leave it ended.
        assert_eq!(daemon.post(&format!("/api/runs/{id}/notes"), &json!({"tags": ["late"]})).status, 200);
        wait_until("the late tag", LIMIT, || {
            let run = daemon.get(&format!("/api/runs/{id}")).json()["run"].clone();
            run["tags"].as_array().unwrap().len() == 3 && run["status"] == "completed"
        });
        for (body, status) in [
            (json!({"status": "OUT_OF_MEMORY"}), "failed"),
            (json!({"status": "no such word"}), "stopped"),
            (json!({"success": false, "final_metrics": {"train_loss": 0.5}}), "failed"),
            (json!({"exit_code": "0:15"}), "failed"),
            (json!({"reason": "early stopping"}), "completed"),
        ] {
            // The blanks belong to the name: a trainer that publishes it means this run.
            let name = format!(" {status} by {body}");
            let created = daemon.post("/api/runs", &json!({ "name": name })).json();
            assert_eq!(created["run_name"], name);
            assert_eq!(created["run_id"], json!(cascor_ingest::event::run_id_from_text(&name)));
            let path = format!("/api/runs/{}", created["run_id"].as_str().unwrap());
            let ended = daemon.post(&format!("{path}/complete"), &body).json();
            assert_eq!(ended["status"], status, "{body}");
            wait_until("the same in its row", LIMIT, || daemon.get(&path).json()["run"]["status"] == status);
        }
        let nobody = "/api/runs/00000000-0000-4000-8000-000000000000/complete";
        assert_eq!(daemon.post(nobody, &json!({})).status, 404);
        for (path, body) in [
            ("/api/runs".to_owned(), json!({"run_id": 7})),
            ("/api/runs".to_owned(), json!({"run_id": "a", "run_name": "b"})),
            ("/api/runs".to_owned(), json!({"name": "  "})),
            (format!("/api/runs/{id}/notes"), json!({"note": "n"})),
        ] {
            assert_eq!(daemon.post(&path, &body).status, 400, "{path} {body}");
        }
        for name in ["config", "params", "hyperparameters"] {
            for wrong in [json!(7), json!("lr=0.1"), json!([{"lr": 0.1}]), json!(true)] {
                let refused = daemon.post("/api/runs", &json!({name: wrong}));
                let told = refused.json()["detail"].as_str().unwrap().contains(&format!("`{name}` must be an object"));
                assert_eq!((refused.status, told), (400, true), "{name} {wrong}: {}", refused.body);
            }
            assert_eq!(daemon.post("/api/runs", &json!({name: null})).status, 201, "{name}");
        }
    });
}

#[test]
fn slow_clients_are_evicted_and_large_bodies_refused() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis)
        .set("http.header_timeout", "\"500ms\"")
        .set("http.connections", "4")
        .set("http.max_body", "\"1KiB\"")
        .start_ready();
    let port = daemon.http_port();
    // One client per connection slot, each with half a request head: the next client waits until they are evicted.
    let mut slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\n").unwrap();
            stream
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(daemon.get("/api/runs").status, 200);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    for stream in &mut slow {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    assert_eq!(http::post(port, "/api/runs", &format!("{{\"notes\":\"{}\"}}", "x".repeat(2_000))).unwrap().status, 413);
    // An idle keep-alive connection is evicted, too.
    let mut idle = TcpStream::connect(("127.0.0.1", port)).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = Vec::new();
    idle.read_to_end(&mut answer).expect("an idle connection is closed");
    assert!(String::from_utf8_lossy(&answer).contains("200 OK"));
    let long = "x".repeat(64 << 10);
    let answer = http::send(port, "GET", "/api/runs", &[("X-Long", &long)], "");
    assert!(answer.is_err() || answer.unwrap().status == 431);
    assert_eq!(daemon.get("/api/runs").status, 200);
}

#[test]
fn large_answers_are_compressed_for_clients_that_accept_it() {
    let redis = Redis::start();
    let (daemon, _) = ready(Daemon::on(&redis).set("http.compressions", "1"), &redis, 25);
    let port = daemon.http_port();
    let run = format!("/api/runs/{RUN}");
    let coding = |path: &str, accepts: &str| {
        let answer = http::send(port, "GET", path, &[("Accept-Encoding", accepts)], "").unwrap();
        assert_eq!(answer.status, 200, "{path}");
        (answer.header("content-encoding").map(str::to_owned), answer)
    };
    let (plain, whole) = coding(&run, "identity");
    assert_eq!((plain, whole.header("vary")), (None, Some("accept-encoding")));
    for (path, packed) in [
        (run.as_str(), true),
        ("/", true),
        ("/assets/vendor/uplot.js", true),
        ("/healthz", false),
        ("/metrics", false),
        ("/api/runs?status=failed", false),
    ] {
        let (coding, answer) = coding(path, "gzip, deflate");
        assert_eq!(coding.is_some(), packed, "{path}");
        assert_eq!(answer.body, if path == run { whole.body.clone() } else { answer.body.clone() });
    }
    // Events must arrive one by one.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = "HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n";
    stream.write_all(format!("GET /api/stream {head}").as_bytes()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut start = [0; 512];
    let read = stream.read(&mut start).unwrap();
    let start = String::from_utf8_lossy(&start[..read]).to_lowercase();
    assert!(start.contains("text/event-stream") && !start.contains("gzip"), "{start}");
    assert_eq!(coding(&run, "gzip").0.as_deref(), Some("gzip"), "the place is free again");
}

#[test]
fn a_reload_changes_the_limits_of_requests() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).set("limits.message", "\"20KiB\"").start_ready();
    let create = |daemon: &Daemon, bytes: usize| daemon.post("/api/runs", &json!({"notes": "x".repeat(bytes)})).status;
    assert_eq!(create(&daemon, 30_000), 400);
    let text = std::fs::read_to_string(daemon.config_file()).unwrap().replace("20KiB", "40KiB");
    std::fs::write(daemon.config_file(), text).unwrap();
    daemon.process().signal(rustix::process::Signal::HUP);
    daemon.wait_log("configuration is reloaded");
    wait_until("the limit of now", LIMIT, || create(&daemon, 30_000) == 201);
}
