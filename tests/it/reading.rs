//! The commands that read, on the store and on a daemon.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    api::both,
    support::{daemon::Daemon, http, redis::Redis, stream::Stream, wait_for, wait_until},
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);

pub fn filled(mut daemon: Daemon, redis: &Redis) -> Daemon {
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    let start = jiff::Timestamp::now().as_second() - 3_600;
    for (at, run) in ["spiral-one", "spiral-two"].into_iter().enumerate() {
        let start = start + at as i64;
        let send = |message: Value| assert!(redis.client().publish(TRAINING, message.to_string()) >= 1);
        send(json!({"type": "training_start", "run_id": run, "timestamp": start, "notes": "\u{1b}[31mred"}));
        for epoch in 0..20 {
            let at = start + 1 + epoch;
            send(json!({"run_id": run, "timestamp": at, "epoch": epoch, "loss": 1.0 / (epoch + 1) as f64}));
        }
        let text = format!("{{\"run_id\":\"{run}\",\"timestamp\":{},\"epoch\":20,\"loss\":NaN}}", start + 30);
        redis.client().publish(TRAINING, text);
    }
    wait_until("both runs", LIMIT, || {
        let runs = daemon.get("/api/runs").json();
        let epochs = |n: usize| runs["runs"][n]["final_epoch"].as_i64();
        let id = |n: usize| runs["runs"][n]["run_id"].as_str().unwrap_or_default().to_owned();
        let count = |n| daemon.get(&format!("/api/runs/{}?limit=0", id(n))).json()["metric_count"] == 21;
        epochs(0) == Some(20) && epochs(1) == Some(20) && count(0) && count(1)
    });
    daemon
}

#[test]
fn runs_are_read_from_the_store_and_from_a_daemon() {
    both("runs_are_read_from_the_store_and_from_a_daemon", |builder, redis| {
        let daemon = filled(builder.prepare(), redis);
        let url = format!("http://127.0.0.1:{}", daemon.http_port());
        for from in [&[][..], &["--url", &url]] {
            let succeed = |words: &[&str]| daemon.succeed(&[words, from].concat());
            let json =
                |words: &[&str]| -> Value { serde_json::from_str(&succeed(&[words, &["--json"]].concat())).unwrap() };
            assert_eq!(json(&["runs"])["count"], 2, "{from:?}");
            assert!(succeed(&["runs", "--status", "stale"]).contains("spiral-two"));
            // A name may be shortened while it is unambiguous.
            assert_eq!(json(&["show", "spiral-o"])["metric_count"], 21);
            let ambiguous = daemon.command(&[&["show", "spiral"], from].concat());
            assert!(String::from_utf8_lossy(&ambiguous.stderr).contains("means 2 runs"), "{ambiguous:?}");
            assert_eq!(daemon.command(&[&["show", "nobody"], from].concat()).status.code(), Some(1));
            let shown = succeed(&["show", "spiral-one"]);
            assert!(
                shown.contains("NaN") && shown.contains("metrics: 21") && shown.contains('▁') && shown.contains('×'),
                "{shown}"
            );
            assert!(!shown.contains('\u{1b}'), "text of a producer is escaped on the terminal: {shown}");
            let rows = json(&["metrics", "spiral-one", "--ascending", "-n", "5"]);
            let epochs: Vec<_> = rows["metrics"].as_array().unwrap().iter().map(|row| row["epoch"].clone()).collect();
            assert_eq!(epochs, [0, 1, 2, 3, 4].map(Value::from));
            let rest = json(&["metrics", "spiral-one", "--ascending", "--cursor", rows["next"].as_str().unwrap()]);
            assert_eq!((&rest["count"], &rest["next"]), (&json!(16), &Value::Null));
            assert_eq!(json(&["metrics", "spiral-one", "--points", "5"])["exact"]["of"], 21);
            let compared = json(&["compare", "spiral-one", "spiral-two"]);
            assert_eq!((&compared["count"], &compared["curves"][1]["last"][1]), (&json!(2), &json!(0.5)));
            assert!(succeed(&["compare", "spiral-one", "spiral-two"]).contains("TRAIN_LOSS BY EPOCH"));
            let tailed = succeed(&["tail", "spiral-two", "-n", "3", "--for", "100ms", "--json"]);
            assert_eq!(tailed.lines().count(), 3, "{tailed}");
            assert_eq!(
                daemon.command(&[&["metrics", "spiral-one", "--cursor", "odd"], from].concat()).status.code(),
                Some(2)
            );
            let unknown =
                daemon.command(&[&["compare", "spiral-one", "spiral-two", "--field", "nonsense"], from].concat());
            assert!(
                unknown.status.code() == Some(1) && String::from_utf8_lossy(&unknown.stderr).contains("train_loss"),
                "{unknown:?}"
            );
            let reduced = succeed(&["metrics", "spiral-one", "--points", "5"]);
            let begins = |line: &str| line.split_whitespace().take(2).eq(["loss", "1"]);
            assert!(reduced.lines().any(begins), "its first loss: {reduced}");
            let exported = json(&["export", "spiral-one"]);
            assert_eq!((&exported["count"], &exported["trailer"]["rows"]), (&json!(21), &json!(21)));
            for nothing in [&["runs", "-n", "0"][..], &["metrics", "spiral-one", "-n", "0"]] {
                let refused = daemon.command(&[nothing, from].concat());
                assert!(
                    refused.status.code() == Some(2) && String::from_utf8_lossy(&refused.stderr).contains("at least 1")
                );
            }
        }
        let status: Value = serde_json::from_str(&daemon.succeed(&["status", "--json", "--url", &url])).unwrap();
        assert_eq!(status["test"]["instance"], "test", "{status}");
        assert_eq!(daemon.command(&["status", "nosuch", "--url", &url]).status.code(), Some(1));
        tags_and_notes(&daemon, &url);
    });
}

fn tags_and_notes(daemon: &Daemon, url: &str) {
    assert_eq!(daemon.command(&["runs", "tag", "spiral-one", ""]).status.code(), Some(2));
    daemon.succeed(&["runs", "tag", "spiral-one", "good", "kept"]);
    daemon.succeed(&["runs", "tag", "spiral-one", "by-url", "--url", url]);
    daemon.succeed(&["runs", "note", "spiral-one", "a note", "--url", url]);
    daemon.succeed(&["runs", "untag", "spiral-one", "kept"]);
    let shown = || -> Value { serde_json::from_str(&daemon.succeed(&["show", "spiral-one", "--json"])).unwrap() };
    let run = &shown()["run"];
    assert_eq!((&run["tags"], &run["notes"]), (&json!(["by-url", "good"]), &json!("a note")));
    daemon.succeed(&["runs", "note", "spiral-one", ""]);
    daemon.succeed(&["runs", "tag", "spiral-one", "kept", "--url", url]);
    let run = &shown()["run"];
    assert_eq!((&run["tags"], &run["notes"]), (&json!(["by-url", "good", "kept"]), &Value::Null));
}

#[test]
fn a_tail_shows_what_comes_in_order_and_once() {
    let redis = Redis::start();
    let daemon = filled(Daemon::on(&redis).prepare(), &redis);
    let publisher = redis.client();
    let sender = std::thread::spawn(move || {
        let mut publisher = publisher;
        for epoch in 100..120 {
            let at = jiff::Timestamp::now().as_millisecond();
            publisher.publish(
                TRAINING,
                json!({"run_id": "spiral-two", "timestamp": at, "epoch": epoch, "loss": 0.1}).to_string(),
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let tailed = daemon.succeed(&["tail", "-n", "1", "--for", "5s", "--json"]);
    sender.join().unwrap();
    let epochs: Vec<i64> =
        tailed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["epoch"].as_i64().unwrap()).collect();
    assert!(epochs.windows(2).all(|two| two[0] < two[1]), "{epochs:?}");
    assert_eq!(epochs.last(), Some(&119), "{epochs:?}");
    assert!(epochs.len() >= 19, "{epochs:?}");
}

#[test]
fn numbers_that_are_not_finite_are_told_apart_and_why_a_run_ended_is_shown() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let publish = |text: &str| assert!(redis.client().publish(TRAINING, text) >= 1);
    publish(r#"{"run_id": "big", "epoch": 1, "loss": 1e999, "val_loss": NaN}"#);
    publish(r#"{"type": "training_end", "run_id": "big", "status": "failed", "error": "ValueError: too large"}"#);
    wait_until("the end", LIMIT, || daemon.get("/api/runs").json()["runs"][0]["status"] == "failed");
    let run = daemon.get("/api/runs").json()["runs"][0].clone();
    assert_eq!(run["infinite"], json!({"final_train_loss": "Infinity"}), "{run}");
    assert_eq!(run["non_finite"], json!(["final_train_loss", "final_val_loss"]), "{run}");
    let listed = daemon.succeed(&["runs"]);
    assert!(listed.lines().any(|line| line.contains(" inf") && line.contains("big")), "{listed}");
    // The run's row may be stored before the event that ended it.
    let shown = wait_for("the reason", LIMIT, || {
        Some(daemon.succeed(&["show", "big"])).filter(|shown| shown.contains("ended because"))
    });
    for (name, value) in
        [("final train loss", "inf"), ("final val loss", "NaN"), ("ended because", "ValueError: too large")]
    {
        assert!(shown.lines().any(|line| line.starts_with(name) && line.ends_with(value)), "{name}: {shown}");
    }
    assert!(!shown.contains("non finite"), "{shown}");
    // Nothing is known of another run, however it is asked for.
    let nobody = "00000000-0000-4000-8000-000000000009";
    for path in [
        format!("/api/metrics/range?run_id={nobody}"),
        format!("/api/metrics/range?run_id={nobody}&max_points=10"),
        format!("/api/metrics/range?run_id={nobody}&fields=grad"),
        format!("/api/export?run_id={nobody}"),
    ] {
        let answer = daemon.get(&path);
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (404, Some("Run not found")), "{path}");
    }
    let empty =
        daemon.get(&format!("/api/metrics/range?run_id={}&end_time=2001-01-01", run["run_id"].as_str().unwrap()));
    assert_eq!((empty.status, &empty.json()["count"]), (200, &json!(0)), "a part of a run without rows");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let refused = |words: &[&str], code: i32, said: &str| {
        let output = daemon.command(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
        assert!(error.contains(said), "{words:?}: {error}");
    };
    refused(&["cache", "get", "nosuch"], 1, "or there were none yet");
    assert!(redis.client().publish(TRAINING, r#"{"type": "topology", "run_id": "r", "input_units": 2}"#) >= 1);
    wait_until("the key", LIMIT, || daemon.command(&["cache", "get", "topology:latest"]).status.success());
    refused(&["cache", "get", "nosuch"], 1, "or it has expired; there are `cascor:topology:");
    refused(&["runs", "--limit", "-1"], 2, "it must be a whole number, at least 1");
    refused(&["export", "r", "-o", "/nonexistent/x.csv"], 1, "there is no directory `/nonexistent`");
    refused(&["backup", "/nonexistent/x"], 1, "there is no directory `/nonexistent`");
    refused(&["deadletter", "export", "-o", "/nonexistent/x"], 1, "there is no directory `/nonexistent`");
    let file = daemon.config_file();
    refused(&["check", "--state-dir", file.to_str().unwrap()], 78, "is a file, not a directory");
    let answer = daemon.post("/api/control", &json!({"command": 5}));
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("the body is no command ("), "{}", answer.body);
}

#[test]
fn a_field_that_no_request_has_is_refused_by_its_name() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let known = "known: command, id, target, params, timeout";
    for (path, body, told) in [
        ("control", json!({"command": "pause", "tagret": "a"}), format!("unknown field `tagret`; {known}, type, data")),
        ("control", json!({"data": {"command": "pause", "n": 1}}), format!("unknown field `n`; {known} (in `data`)")),
        ("control", json!({"command": "pause", "data": 1}), "`data` must be an object".into()),
        ("session", json!({"token": "t", "remember": true}), "unknown field `remember`; known: token".into()),
    ] {
        let refused = daemon.post(&format!("/api/{path}"), &body);
        assert_eq!((refused.status, refused.json()["detail"].as_str()), (400, Some(&*told)), "{body}");
    }
    assert_eq!(daemon.get("/api/status").json()["paused"], false);
    // `params` hold what they like, and trainers publish commands with further fields.
    let nested = json!({"type": "command", "data": {"command": "flush", "params": {"timeout": 5, "any": 1}, "id": 8}});
    let receipt = daemon.post("/api/control", &nested).json();
    assert_eq!((&receipt["outcome"], &receipt["id"]), (&json!("done"), &json!("8")), "{receipt}");
    redis.client().publish("cascor:control", json!({"command": "pause", "tagret": "a"}).to_string());
    wait_until("paused", LIMIT, || daemon.get("/api/status").json()["paused"] == true);
}

#[test]
fn an_unknown_metric_is_refused_with_those_that_have_values() {
    both("an_unknown_metric_is_refused_with_those_that_have_values", |builder, redis| {
        let mut daemon = builder.prepare();
        if daemon.uses_cassandra() {
            daemon.apply_schema();
        }
        daemon.launch();
        daemon.wait_ready();
        // Two columns have their only value before the newest rows; one of them is no finite number.
        redis.client().publish(TRAINING, r#"{"run_id": "sparse", "epoch": 0, "loss": NaN, "val_loss": 0.5}"#);
        for epoch in 1..=120 {
            redis.client().publish(TRAINING, json!({"run_id": "sparse", "epoch": epoch, "f1": 0.5}).to_string());
        }
        wait_until("the rows", LIMIT, || {
            let run = daemon.get("/api/runs/sparse?limit=0").json();
            run["metric_count"] == 121 && run["run"]["final_epoch"] == 120
        });
        let told = "no metric `zz`; there are epoch, train_loss, val_loss, f1";
        for path in [
            "/api/metrics/range?run_id=sparse&fields=zz",
            "/api/metrics/range?run_id=sparse&max_points=10&fields=zz",
            "/api/runs/sparse/aggregates?fields=f1,zz",
            "/api/runs/sparse/growth?field=zz",
            "/api/compare?run_id=sparse&field=zz",
        ] {
            let refused = daemon.get(path);
            assert_eq!((refused.status, refused.json()["detail"].as_str()), (404, Some(told)), "{path}");
            assert_eq!(daemon.get(&path.replace("zz", "learning_rate")).status, 200, "a column is there: {path}");
        }
        // Many at once hold as many pages as there is memory for, and do not wait for each other's.
        let refused: Vec<u16> = thread::scope(|scope| {
            let ask = || daemon.get("/api/metrics/range?run_id=sparse&fields=zz").status;
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(refused, [404; 8]);
        for command in [["metrics", "sparse"], ["compare", "sparse"]] {
            let output = daemon.command(&[&command[..], &["--fields", "zz"]].concat());
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let told = "there is no field `zz`; there are epoch, event_id, f1, timestamp, train_loss, val_loss";
            assert!(output.status.code() == Some(1) && error.trim_end().ends_with(told), "{command:?}: {error}");
            daemon.succeed(&[&command[..], &["--fields", "learning_rate"]].concat());
        }
    });
}

#[test]
fn a_silent_run_is_stale_after_the_time_that_is_set() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).set("http.stale_after", "\"1h\"").start_ready();
    let now = jiff::Timestamp::now().as_second();
    for (run, ago) in [("minutes", 600), ("hours", 7_200)] {
        let message = json!({"run_id": run, "timestamp": now - ago, "epoch": 1, "loss": 0.5});
        redis.client().publish(TRAINING, message.to_string());
    }
    wait_until("both runs", LIMIT, || daemon.get("/api/runs").json()["count"] == 2);
    for (run, status) in [("minutes", "running"), ("hours", "stale")] {
        assert_eq!(daemon.get(&format!("/api/runs/{run}")).json()["run"]["status"], status);
        let listed = daemon.get(&format!("/api/runs?status={status}&sort=status")).json();
        assert_eq!((&listed["count"], &listed["runs"][0]["run_name"]), (&json!(1), &json!(run)), "{listed}");
        let compared = daemon.get(&format!("/api/compare?run_id={run}")).json();
        assert_eq!(compared["curves"][0]["status"], status);
        let shown: Value = serde_json::from_str(&daemon.succeed(&["show", run, "--json"])).unwrap();
        assert_eq!(shown["run"]["status"], status, "{shown}");
    }
    let hello = Stream::open(daemon.http_port(), "", "").next("hello");
    assert_eq!(hello.data["stale_after_seconds"], 3_600.0);
    assert_eq!(http::send(daemon.http_port(), "DELETE", "/api/runs/minutes", &[], "").unwrap().status, 409);
}
