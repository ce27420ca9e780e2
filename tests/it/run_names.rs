//! Runs by their names, on the command line and over HTTP.

use std::time::Duration;

use cascor_ingest::event::run_id_from_text;
use serde_json::{Value, json};

use crate::{
    api::both,
    run_edits::{patch, started},
    support::{daemon::Daemon, redis::Redis, stream::Stream, wait_until},
    tools::{TRAINING, json_of},
};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_run_is_found_by_its_exact_name_first_then_without_the_blanks_around_it() {
    let redis = Redis::start();
    let mut daemon = Daemon::on(&redis).start_ready();
    let mut client = redis.client();
    for (epoch, name) in [(1, " lead"), (2, "lead"), (3, "tail ")] {
        client.publish(TRAINING, json!({"run_id": name, "epoch": epoch, "loss": 0.5}).to_string());
    }
    daemon.wait_rows("SELECT count(*) FROM training_runs WHERE final_epoch IS NOT NULL", 3);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 3);
    // A run that HTTP creates has the name that it is given, too.
    let created = daemon.post("/api/runs", &json!({"run_id": " http "}));
    assert_eq!((created.status, created.json()["run_name"].clone()), (201, json!(" http ")));
    daemon.wait_rows("SELECT count(*) FROM training_runs WHERE run_name = ' http '", 1);

    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    for (text, name) in [
        (" lead", " lead"),
        ("lead", "lead"),
        ("lead ", "lead"),
        ("  lead", "lead"),
        ("le", "lead"),
        (" le", " lead"),
        ("tail ", "tail "),
        ("tail", "tail "),
        (" http ", " http "),
    ] {
        for place in [&[][..], &["--url", &url]] {
            let shown = json_of(&daemon, &[&["show", text, "--json"], place].concat());
            assert_eq!(shown["run"]["run_name"], name, "{text:?} {place:?}: {shown}");
        }
    }
    for (command, text, epoch) in [
        (["metrics", "--json"], " lead", 1),
        (["metrics", "--json"], "lead\t", 2),
        (["export", "--format=ndjson"], "tail", 3),
    ] {
        let rows = daemon.succeed(&[command[0], text, command[1]]);
        assert!(rows.contains(&format!("\"epoch\":{epoch}")), "{command:?} {text:?}: {rows}");
    }
    // A prefix of blanks alone matches no name.
    for nothing in ["  ", "\t", ""] {
        assert_eq!(daemon.command(&["show", nothing]).status.code(), Some(1), "{nothing:?}");
    }
    assert!(daemon.terminate().success());
}

/// A name as a part of a path or a value of a query.
fn escaped(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_run_is_found_by_either_name_wherever_a_run_is_named() {
    both("a_run_is_found_by_either_name_wherever_a_run_is_named", |builder, redis| {
        let daemon = started(builder);
        let mut client = redis.client();
        let (published, given) = ("sweep/lr=0.1, units=4", " \u{30b9}\u{30d1}\u{30a4}\u{30e9}\u{30eb} 1/2 ?#%25 ");
        for epoch in 0..3 {
            let message = json!({"run_id": published, "epoch": epoch, "loss": 0.5, "hidden_units": epoch});
            client.publish(TRAINING, message.to_string());
        }
        client.publish(
            TRAINING,
            json!({"type": "training_start", "run_id": published, "data": {"dataset": "d"}}).to_string(),
        );
        client.publish(
            TRAINING,
            json!({"type": "topology", "run_id": published, "data": {"input_size": 2, "output_size": 1}}).to_string(),
        );
        let id = run_id_from_text(published).to_string();
        let path = format!("/api/runs/{}", escaped(published));
        wait_until("the run", LIMIT, || {
            let topology = daemon.get(&format!("/api/topology?run_id={id}")).status;
            let dataset = daemon.get(&format!("/api/dataset?run_id={id}")).status;
            (topology, dataset) == (200, 200) && daemon.get(&path).json()["metric_count"] == 3
        });
        let named = patch(daemon.http_port(), &path, &json!({ "name": given }));
        assert_eq!(named.json()["run"]["display_name"], given.trim(), "{}", named.body);
        for name in [published, given, given.trim(), id.as_str()] {
            let name = escaped(name);
            for rest in ["", "/topology", "/events", "/aggregates", "/growth", "/gaps"] {
                let (path, by_id) = (format!("/api/runs/{name}{rest}"), format!("/api/runs/{id}{rest}"));
                let answer = daemon.get(&path);
                assert_eq!((answer.status, answer.json()), (200, daemon.get(&by_id).json()), "{path}");
            }
            for rest in [
                "/api/metrics/range?",
                "/api/metrics/range?max_points=10&",
                "/api/compare?",
                "/api/export?",
                "/api/metrics?",
                "/api/topology?",
                "/api/state?",
                "/api/metrics/history?",
                "/api/dataset?",
                "/api/network/stats?",
            ] {
                let answer = daemon.get(&format!("{rest}run_id={name}"));
                assert_eq!(answer.status, 200, "{rest}{name}: {}", answer.body);
                assert_eq!(answer.body, daemon.get(&format!("{rest}run_id={id}")).body, "{rest}{name}");
            }
            let mut stream = Stream::open(daemon.http_port(), &format!("?run_id={name}"), "");
            stream.next("hello");
        }
        let compared = daemon.get(&format!("/api/compare?run_id={}&run_id={id}", escaped(published))).json();
        assert_eq!(
            (&compared["count"], &compared["curves"][0]["display_name"], &compared["curves"][0]["run_name"]),
            (&json!(2), &json!(given.trim()), &json!(published))
        );
        let noted = daemon.post(&format!("/api/runs/{}/notes", escaped(given)), &json!({"notes": "n"}));
        assert_eq!(noted.json()["run_id"], json!(id), "{}", noted.body);
        let ended = daemon.post(&format!("/api/runs/{}/complete", escaped(given)), &json!({}));
        assert_eq!(ended.json(), json!({"run_id": id, "status": "completed"}), "{}", ended.body);
        for unknown in ["nobody", "%E3%82%B9", "sweep", "..%2F", "%20"] {
            for path in [
                format!("/api/runs/{unknown}"),
                format!("/api/runs/{unknown}/gaps"),
                format!("/api/compare?run_id=x{unknown}"),
            ] {
                let answer = daemon.get(&path);
                assert_eq!((answer.status, &answer.json()["detail"]), (400, &json!("Invalid UUID")), "{path}");
            }
        }
    });
}

#[test]
fn a_name_of_several_runs_lists_them_and_an_id_is_never_ambiguous() {
    both("a_name_of_several_runs_lists_them_and_an_id_is_never_ambiguous", |builder, redis| {
        let daemon = started(builder);
        let mut client = redis.client();
        let names = ["first", "second", "third"];
        for name in names {
            client.publish(TRAINING, json!({"run_id": name, "epoch": 1, "loss": 0.5}).to_string());
        }
        wait_until("the runs", LIMIT, || daemon.get("/api/runs").json()["count"] == 3);
        let id = |name: &str| run_id_from_text(name).to_string();
        let rename = |name: &str, given: &str| {
            let answer = patch(daemon.http_port(), &format!("/api/runs/{}", id(name)), &json!({ "name": given }));
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let ambiguous = |text: &str, runs: &[&str]| {
            let answer = daemon.get(&format!("/api/runs/{text}"));
            assert_eq!(answer.status, 409, "{}", answer.body);
            let mut expected: Vec<String> = runs.iter().map(|name| id(name)).collect();
            let listed = answer.json()["candidates"].clone();
            let mut found: Vec<String> =
                listed.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{listed}");
            for place in [&[][..], &["--url", &format!("http://127.0.0.1:{}", daemon.http_port())]] {
                let output = daemon.command(&[&["show", text], place].concat());
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(1), "{error}");
                assert!(runs.iter().all(|name| error.contains(&format!("{name} ({})", id(name)))), "{error}");
            }
        };
        // Two given names.
        rename("first", "spiral");
        rename("second", "spiral");
        ambiguous("spiral", &["first", "second"]);
        let refused = patch(daemon.http_port(), "/api/runs/spiral", &json!({"archived": true}));
        assert_eq!(refused.status, 409, "{}", refused.body);
        // A given name that another run was published with.
        rename("first", "third");
        ambiguous("third", &["first", "third"]);
        let compared = daemon.get("/api/compare?run_id=third&run_id=second");
        assert_eq!(compared.status, 409, "{}", compared.body);
        // One's own name is no second run.
        rename("first", "first");
        assert_eq!(daemon.get("/api/runs/first").json()["run"]["run_id"], json!(id("first")));
        // An id is the run's, and no run can be called by it.
        let taken = patch(daemon.http_port(), "/api/runs/first", &json!({"name": id("second")}));
        assert_eq!(taken.status, 400, "{}", taken.body);
        rename("first", "");
        assert_eq!(daemon.get("/api/runs/first").json()["run"]["display_name"], Value::Null);
        assert_eq!(daemon.get("/api/runs/spiral").json()["run"]["run_id"], json!(id("second")));
    });
}
