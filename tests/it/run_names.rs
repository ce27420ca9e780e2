//! Runs whose names begin or end with blanks, on the command line and over HTTP.

use serde_json::json;

use crate::{
    support::{daemon::Daemon, redis::Redis},
    tools::{TRAINING, json_of},
};

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
