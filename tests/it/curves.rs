//! Curves, aggregates, growth, gaps and comparisons of runs in real stores.

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

/// Units 0 to 3 with 100 epochs each, an extreme and a NaN; then a resume from epoch 50 of the last unit; two gaps in `seq`.
fn messages(start: i64) -> Vec<String> {
    let mut all = Vec::new();
    let mut seq = 0;
    let mut add = |unit: i64, epoch: i64, loss: &str| {
        seq += if seq == 120 || seq == 300 { 5 } else { 1 };
        let at = start * 1_000 + seq * 100;
        all.push(format!(
            "{{\"type\":\"metrics\",\"run_id\":\"{RUN}\",\"seq\":{seq},\"timestamp\":{at},\"epoch\":{epoch},\
             \"hidden_units\":{unit},\"loss\":{loss},\"lr\":0.1}}"
        ));
    };
    for unit in 0..4 {
        for epoch in 0..100 {
            let loss = match (unit, epoch) {
                (1, 33) => "1000.5".into(),
                (2, 44) => "NaN".into(),
                _ => format!("{}", 1.0 / (unit * 100 + epoch + 1) as f64),
            };
            add(unit, epoch, &loss);
        }
    }
    for epoch in 50..120 {
        add(3, epoch, "0.001");
    }
    all
}

fn filled(mut daemon: Daemon, redis: &Redis) -> Daemon {
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    let start = jiff::Timestamp::now().as_second() - 3_600;
    let mut client = redis.client();
    client.publish(TRAINING, json!({"type": "training_start", "run_id": RUN, "timestamp": start}).to_string());
    for unit in 1..4 {
        // One before its first row, one at it, one after it.
        let at = start as f64 + f64::from(unit) * 10.0 + [-0.3, 0.1, 1.5][unit as usize - 1];
        let data = json!({"hidden_unit_index": unit, "correlation": 0.1 * f64::from(unit), "epoch": 0});
        let message = json!({"type": "cascade_add", "run_id": RUN, "timestamp": at, "data": data});
        client.publish(TRAINING, message.to_string());
    }
    for message in messages(start) {
        client.publish(TRAINING, message);
    }
    for epoch in 0..10 {
        let at = start + epoch;
        client.publish(TRAINING, json!({"run_id": OTHER, "timestamp": at, "epoch": epoch, "loss": 0.5}).to_string());
    }
    wait_until("every row", LIMIT, || {
        let count = |run| daemon.get(&format!("/api/runs/{run}?limit=0")).json()["metric_count"].as_i64();
        count(RUN) == Some(470) && count(OTHER) == Some(10)
    });
    // Gaps are reported once late arrivals can no longer fill them.
    wait_until("the gap rows", LIMIT, || daemon.get(&format!("/api/runs/{RUN}/gaps")).json()["count"] != 0);
    daemon
}

#[test]
fn curves_are_honest_on_both_stores() {
    both("curves_are_honest_on_both_stores", |builder, redis| {
        let daemon = filled(builder.prepare(), redis);
        ranges(&daemon);
        aggregates(&daemon);
        growth(&daemon);
        gaps(&daemon);
        compare(&daemon);
    });
}

fn ask(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn ranges(daemon: &Daemon) {
    let range = |more: &str| ask(daemon, &format!("/api/metrics/range?run_id={RUN}&{more}"));
    let whole = range("max_points=1000&order=asc");
    assert_eq!(
        (&whole["exact"], &whole["count"], &whole["replaced"]),
        (&json!(true), &json!(420), &json!(50)),
        "{whole}"
    );
    let raw = range("max_points=1000&attempts=raw");
    assert_eq!((&raw["count"], &raw["replaced"]), (&json!(470), &json!(0)));

    let reduced = range("max_points=40&order=asc&fields=loss,lr");
    let points = reduced["metrics"].as_array().unwrap();
    assert!((20..=40).contains(&points.len()), "{}", points.len());
    assert_eq!(
        (&reduced["exact"]["of"], &reduced["exact"]["by"]),
        (&json!(420), &json!("time")),
        "{}",
        reduced["exact"]
    );
    assert_eq!(points.iter().map(|point| point["rows"].as_u64().unwrap()).sum::<u64>(), 420);
    let spread = |point: &Value, what: &str| point["spread"]["train_loss"][what].as_f64();
    assert!(points.iter().any(|point| spread(point, "max") == Some(1000.5)), "the extreme is there");
    let nan: Vec<_> = points.iter().filter(|point| point["non_finite"] == json!(["train_loss"])).collect();
    assert_eq!(nan.len(), 1, "the NaN is there");
    let gap = reduced["gaps"].as_array().unwrap();
    assert!(gap.iter().any(|gap| gap["reason"] == "sequence" && gap["run_id"] == RUN), "the gap is there: {gap:?}");

    let by_epoch = range("max_points=60&by=epoch&order=asc");
    assert_eq!((&by_epoch["exact"]["width"], &by_epoch["count"]), (&json!(2), &json!(60)), "{}", by_epoch["exact"]);
    assert_eq!(daemon.get(&format!("/api/metrics/range?run_id={RUN}&max_points=10&cursor=1.2")).status, 400);
    assert_eq!(daemon.get(&format!("/api/metrics/range?run_id={RUN}&attempts=raw")).status, 400);
}

fn aggregates(daemon: &Daemon) {
    let answer = ask(daemon, &format!("/api/runs/{RUN}/aggregates?fields=loss"));
    let loss = &answer["fields"]["train_loss"];
    assert_eq!((&answer["rows"], &answer["replaced"]), (&json!(470), &json!(50)));
    assert_eq!((&loss["count"], &loss["max"], &loss["min"]), (&json!(420), &json!(1000.5), &json!(0.001)), "{loss}");
    assert_eq!((&loss["best_epoch"], &loss["last"]), (&json!(50), &json!(0.001)));
    assert_eq!((&loss["last_non_finite"], &loss["first_non_finite_epoch"]), (&Value::Null, &json!(44)));
    let first = &loss["first_non_finite"];
    assert_eq!((&first["value"], &first["non_finite"]), (&Value::Null, &json!("NaN")));
    let compared = daemon.succeed(&["compare", RUN]);
    assert!(compared.contains("NON-FINITE"), "{compared}");
    let raw = ask(daemon, &format!("/api/runs/{RUN}/aggregates?fields=loss&attempts=raw"));
    assert_eq!(raw["fields"]["train_loss"]["count"], 470);
}

fn growth(daemon: &Daemon) {
    let answer = ask(daemon, &format!("/api/runs/{RUN}/growth"));
    let levels = answer["levels"].as_array().unwrap();
    let units: Vec<_> = levels.iter().map(|level| level["hidden_units"].as_i64().unwrap()).collect();
    assert_eq!(units, [0, 1, 2, 3]);
    assert_eq!((&levels[3]["rows"], &levels[3]["last"]), (&json!(120), &json!(0.001)), "{}", levels[3]);
    assert_eq!(levels[1]["before"], json!(1.0 / 100.0));
    let correlations: Vec<_> = levels.iter().map(|level| level["correlation"].as_f64()).collect();
    assert_eq!(correlations[0], None);
    assert_eq!(correlations[1..], [0.1, 0.2, 0.1 * 3.0].map(Some));
    assert!(levels[1]["change"].as_f64().unwrap() < 0.0);
}

fn gaps(daemon: &Daemon) {
    let answer = ask(daemon, &format!("/api/runs/{RUN}/gaps"));
    let missing: Vec<_> =
        answer["missing"].as_array().unwrap().iter().map(|hole| (&hole["from"], &hole["to"])).collect();
    assert_eq!(missing, [(&json!(121), &json!(124)), (&json!(301), &json!(304))], "{answer}");
    assert_eq!((&answer["missing_count"], &answer["truncated"]), (&json!(8), &json!(false)));
    let lost: i64 = answer["gaps"].as_array().unwrap().iter().filter_map(|gap| gap["lost"].as_i64()).sum();
    assert_eq!(lost, 8, "the gaps of intake are the missing rows: {answer}");
}

fn compare(daemon: &Daemon) {
    let answer = ask(daemon, &format!("/api/compare?run_id={RUN}&run_id={OTHER}&field=loss"));
    assert_eq!(answer["x"], json!((0..120).collect::<Vec<_>>()));
    let curves = answer["curves"].as_array().unwrap();
    assert_eq!((&curves[1]["last"][9], &curves[1]["last"][10]), (&json!(0.5), &Value::Null));
    assert_eq!((&curves[0]["last"][119], &curves[0]["replaced"]), (&json!(0.001), &json!(50)));
    assert_eq!(curves[0]["max"][33], 1000.5);
    let few = ask(daemon, &format!("/api/compare?run_id={RUN},{OTHER}&by=time&max_points=16"));
    assert!(few["x"].as_array().unwrap().len() <= 16);
    assert_eq!(daemon.get("/api/compare").status, 400);
}
