//! Forms of times and names of metrics as parameters, on both stores, over HTTP and on the command line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    api::both,
    support::{daemon::Daemon, redis::Redis, wait_until},
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const OTHER: &str = "6f0c853b-6794-4685-b2f5-43019da8836c";
const LIMIT: Duration = Duration::from_secs(30);
/// Names with characters that are special in URLs, lists or SQL.
const NAMES: [&str; 6] = ["val acc,50%", " lead", "a&b=c+d;e", "say \"ü\"/'x'", "#7?", "100%25"];

fn ready(mut daemon: Daemon) -> Daemon {
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    daemon
}

/// Ten rows of two runs, a second apart; the first at `start`.
fn publish(daemon: &Daemon, redis: &Redis, start: i64) {
    let mut client = redis.client();
    for run in [RUN, OTHER] {
        for n in 0..10 {
            let mut message =
                json!({"type": "metrics", "run_id": run, "timestamp": start + n, "epoch": n, "loss": 0.5});
            for (at, name) in NAMES.iter().enumerate() {
                message[*name] = json!(at as i64 * 100 + n);
            }
            client.publish(TRAINING, message.to_string());
        }
        client.publish(TRAINING, json!({"type": "note", "run_id": run, "timestamp": start + 3}).to_string());
    }
    wait_until("every row", LIMIT, || {
        [RUN, OTHER].iter().all(|run| {
            daemon.get(&format!("/api/runs/{run}?limit=0")).json()["metric_count"] == 10
                && daemon.get(&format!("/api/runs/{run}/events")).json()["count"] == 1
        })
    });
}

/// A value of a query with every byte percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The same moment in every form.
fn forms(second: i64) -> Vec<String> {
    let at = jiff::Timestamp::from_second(second).unwrap();
    let zoned = at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(-6)));
    vec![
        second.to_string(),
        format!("{second}.0"),
        format!("{second}000"),
        format!("{second}000000"),
        format!("{second}000000000"),
        at.to_string(),
        format!("{at:.6}"),
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        at.strftime("%Y-%m-%d %H:%M:%S+00:00").to_string(),
        at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        at.strftime("%Y/%m/%d %H:%M:%S").to_string(),
        zoned.strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    ]
}

#[test]
fn a_time_has_every_form_and_is_the_same_in_each() {
    both("a_time_has_every_form_and_is_the_same_in_each", |builder, redis| {
        let daemon = ready(builder.prepare());
        let start = jiff::Timestamp::now().as_second() - 3_600;
        publish(&daemon, redis, start);
        let count = |path: &str, rows: &str| {
            let answer = daemon.get(path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            answer.json()[rows].as_u64().unwrap()
        };
        for (from, to) in forms(start + 2).iter().zip(forms(start + 5)) {
            // Percent-encoded, and as typed into an address bar.
            let plain = |text: &str| text.replace(' ', "%20");
            for (from, to) in [(escaped(from), escaped(&to)), (plain(from), plain(&to))] {
                let bounds = format!("start_time={from}&end_time={to}");
                assert_eq!(count(&format!("/api/metrics/range?run_id={RUN}&{bounds}"), "count"), 4, "{bounds}");
                assert_eq!(count(&format!("/api/runs/{RUN}/aggregates?{bounds}"), "rows"), 4, "{bounds}");
                assert_eq!(count(&format!("/api/runs/{RUN}/events?{bounds}"), "count"), 1, "{bounds}");
                assert_eq!(count(&format!("/api/export?run_id={RUN}&format=json&{bounds}"), "count"), 4, "{bounds}");
            }
            let metrics = daemon.succeed(&["metrics", RUN, "--json", "--since", from, "--until", &to]);
            assert_eq!(serde_json::from_str::<Value>(&metrics).unwrap()["count"], 4, "{from}");
            let csv = daemon.succeed(&["export", RUN, "--start", from, "--end", &to]);
            assert_eq!(csv.lines().count(), 1 + 4, "{from}");
            daemon.succeed(&["gaps", "--since", from, "--until", &to]);
            daemon.succeed(&["deadletter", "list", "--since", from, "--until", &to]);
        }
    });
}

#[test]
fn an_invalid_time_is_refused_by_the_name_of_its_parameter() {
    let redis = Redis::start();
    let daemon = ready(Daemon::on(&redis).prepare());
    publish(&daemon, &redis, jiff::Timestamp::now().as_second() - 3_600);
    for route in [
        format!("/api/metrics/range?run_id={RUN}"),
        format!("/api/metrics/range?run_id={RUN}&max_points=10"),
        format!("/api/runs/{RUN}/topology?limit=1"),
        format!("/api/runs/{RUN}/events?limit=1"),
        format!("/api/runs/{RUN}/aggregates?fields=loss"),
        format!("/api/runs/{RUN}/growth?field=loss"),
        format!("/api/export?run_id={RUN}"),
    ] {
        for name in ["start_time", "end_time"] {
            for text in ["yesterday", "NaN", "inf", "1e300", "2026-02-30", "12:00", "2026-11-28T25:00:00Z"] {
                let answer = daemon.get(&format!("{route}&{name}={text}"));
                assert_eq!(answer.status, 400, "{route} {text}: {}", answer.body);
                assert!(answer.body.contains(name) && answer.body.contains(text), "{}", answer.body);
            }
        }
    }
    for (command, flag) in [
        (&["metrics", RUN][..], "--since"),
        (&["export", RUN], "--until"),
        (&["gaps"], "--since"),
        (&["deadletter", "list"], "--until"),
    ] {
        let refused = daemon.command(&[command, &[flag, "yesterday"]].concat());
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && error.contains(flag), "{command:?}: {error}");
    }
}

/// Parameters accept every form of time that the decoder of messages accepts.
#[test]
fn a_parameter_takes_a_form_exactly_where_a_message_does() {
    let redis = Redis::start();
    let daemon = ready(Daemon::on(&redis).prepare());
    let second = jiff::Timestamp::now().as_second() - 3_600;
    let at = jiff::Timestamp::from_second(second).unwrap();
    let more = [
        at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        at.strftime("%A %d %B %Y %H:%M").to_string(),
        at.strftime("%d.%m.%Y %H:%M").to_string(),
        "soon".into(),
    ];
    let mut client = redis.client();
    for (n, text) in forms(second).into_iter().chain(more).enumerate() {
        let run = format!("00000000-0000-4000-8000-{n:012}");
        client.publish(TRAINING, json!({"run_id": run, "timestamp": text, "epoch": n, "loss": 1}).to_string());
        wait_until("the row", LIMIT, || daemon.get(&format!("/api/metrics/range?run_id={run}")).json()["count"] == 1);
        let stored = daemon.get(&format!("/api/metrics/range?run_id={run}")).json()["metrics"][0]["timestamp"].clone();
        let taken = stored == format!("{at:.6}");
        let bounds = format!("start_time={0}&end_time={0}", escaped(&text));
        let answer = daemon.get(&format!("/api/metrics/range?run_id={run}&{bounds}"));
        let found = answer.status == 200 && answer.json()["count"] == 1;
        assert_eq!((found, answer.status == 400), (taken, !taken), "{text}: {stored}, {}", answer.body);
    }
}

#[test]
fn a_metric_name_may_hold_any_character() {
    both("a_metric_name_may_hold_any_character", |builder, redis| {
        let daemon = ready(builder.prepare());
        publish(&daemon, redis, jiff::Timestamp::now().as_second() - 3_600);
        let ask = |path: String| {
            let answer = daemon.get(&path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            answer.json()
        };
        for (at, name) in NAMES.iter().enumerate() {
            let (field, last) = (escaped(name), json!(at as f64 * 100.0 + 9.0));
            let rows = ask(format!("/api/metrics/range?run_id={RUN}&field={field}&limit=1"));
            assert_eq!((&rows["fields"], &rows["metrics"][0][*name]), (&json!([name]), &last), "{rows}");
            let curve = ask(format!("/api/metrics/range?run_id={RUN}&field={field}&max_points=10"));
            assert_eq!(curve["metrics"][0][*name], last, "{curve}");
            let whole = ask(format!("/api/runs/{RUN}/aggregates?field={field}"));
            assert_eq!((&whole["fields"][*name]["last"], &whole["fields"][*name]["count"]), (&last, &json!(10)));
            assert_eq!(ask(format!("/api/runs/{RUN}/growth?field={field}"))["field"], *name);
            let compared = ask(format!("/api/compare?run_id={RUN}&run_id={OTHER}&field={field}"));
            assert_eq!((&compared["field"], &compared["fields"]), (&json!(name), &json!([name])));
            assert_eq!((&compared["count"], &compared["curves"][1]["last"][9]), (&json!(2), &last));
            let printed = daemon.succeed(&["metrics", RUN, "--field", name, "--json", "-n", "1"]);
            assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["metrics"][0][*name], last, "{printed}");
            let printed = daemon.succeed(&["compare", RUN, OTHER, "--field", name, "--json"]);
            assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["curves"][0]["last"][9], last, "{printed}");
        }
        several(&daemon, ask);
    });
}

fn several(daemon: &Daemon, ask: impl Fn(String) -> Value) {
    let [comma, and] = [NAMES[0], NAMES[2]].map(escaped);
    // `fields` is a list, `field` a name; each metric appears once, an alias under its canonical name.
    let rows = ask(format!("/api/metrics/range?run_id={RUN}&fields=loss,epoch&field={comma}&field={and}&field=loss"));
    assert_eq!(rows["fields"], json!(["train_loss", "epoch", NAMES[0], NAMES[2]]), "{rows}");
    let compared = ask(format!("/api/compare?run_id={RUN},{OTHER}&field={comma}&field=loss&field=train_loss"));
    let curves = compared["curves"].as_array().unwrap();
    let told: Vec<_> = curves.iter().map(|curve| (curve["field"].as_str().unwrap(), &curve["last"][9])).collect();
    assert_eq!(told[..2], [(NAMES[0], &json!(9.0)); 2]);
    assert_eq!(told[2..], [("train_loss", &json!(0.5)); 2]);
    let printed = daemon.succeed(&["compare", RUN, OTHER, "--field", NAMES[0], "--field", "loss"]);
    assert!(printed.contains("VAL ACC,50% BY EPOCH") && printed.contains("TRAIN_LOSS BY EPOCH"), "{printed}");
    let printed = daemon.succeed(&["metrics", RUN, "--field", NAMES[0], "--field", "loss", "--points", "10"]);
    assert!(printed.contains(NAMES[0]) && printed.contains("train_loss"), "{printed}");
    let table = daemon.succeed(&["metrics", RUN, "--field", NAMES[3]]);
    assert!(table.contains(NAMES[3]) && table.contains("309"), "{table}");
    let many: String = (0..17).map(|n| format!("&field=f{n}")).collect();
    let refused = daemon.get(&format!("/api/metrics/range?run_id={RUN}{many}"));
    assert!(refused.status == 400 && refused.body.contains("`field`"), "{}", refused.body);
}

#[test]
fn a_body_may_hold_what_a_message_may_and_an_unknown_field_is_named() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let body = json!({"name": "aliases", "params": {"a": 1}, "description": "d", "user": "u", "dataset": "moons"});
    let created = daemon.post("/api/runs", &body);
    assert_eq!(created.status, 201, "{}", created.body);
    let path = format!("/api/runs/{}", created.json()["run_id"].as_str().unwrap());
    wait_until("its row", LIMIT, || {
        let run = daemon.get(&path).json()["run"].clone();
        run["notes"] == "d"
            && run["created_by"] == "u"
            && run["dataset_name"] == "moons"
            && !run["config_json"].is_null()
    });
    for (path, field) in [("/api/runs".to_owned(), "confg"), (format!("{path}/complete"), "final_metric")] {
        let answer = daemon.post(&path, &json!({ field: {} }));
        assert!(answer.status == 400 && answer.body.contains(&format!("`{field}`")), "{path}: {}", answer.body);
    }
    let ended = json!({"final_metrics": {"anything": 1, "loss": 0.5}, "reason": "converged", "current_epoch": 3});
    assert_eq!(daemon.post(&format!("{path}/complete"), &ended).status, 200);
    wait_until("its end", LIMIT, || {
        let run = daemon.get(&path).json()["run"].clone();
        run["status"] == "completed" && run["final_epoch"] == 3 && run["final_train_loss"] == 0.5
    });
}
