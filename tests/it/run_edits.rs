//! What people change of runs, beside what trainers publish: on both stores, with real daemons.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api::both,
    serve::serve,
    support::{daemon::Daemon, http, ports::free_port, redis::Redis, sqlite, wait_until},
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "0d4f2a6e-8c11-4a5e-9f5b-6a7f3c2d1e00";
const LIMIT: Duration = Duration::from_secs(30);

pub fn started(builder: crate::support::daemon::Builder) -> Daemon {
    let mut daemon = builder.prepare();
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    launch(&mut daemon);
    daemon
}

/// Starts the daemon, and waits until it reads the store, too.
fn launch(daemon: &mut Daemon) {
    daemon.launch();
    daemon.wait_ready();
    wait_until("the store", LIMIT, || daemon.get("/api/runs").status != 503);
}

pub fn patch(port: u16, path: &str, body: &Value) -> http::Response {
    http::send(port, "PATCH", path, &[("Content-Type", "application/json")], body.to_string()).unwrap()
}

fn edit(daemon: &Daemon, body: &Value) -> Value {
    let answer = patch(daemon.http_port(), &format!("/api/runs/{RUN}"), body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    answer.json()["run"].clone()
}

fn run(daemon: &Daemon) -> Value {
    daemon.get(&format!("/api/runs/{RUN}?limit=0&count=none")).json()["run"].clone()
}

fn count(daemon: &Daemon) -> Value {
    daemon.get(&format!("/api/runs/{RUN}?limit=0")).json()["metric_count"].clone()
}

fn publish(redis: &Redis, kind: &str, data: Value) {
    let message = json!({"type": kind, "run_id": RUN, "data": data});
    assert!(redis.client().publish(TRAINING, message.to_string()) >= 1);
}

const START: fn() -> Value = || json!({"notes": "of the trainer", "tags": ["own", "kept"], "config": {"lr": 0.1}});

/// Fields that messages do not decide.
fn of_people(run: &Value) -> Value {
    json!([run["display_name"], run["notes"], run["tags"], run["archived"]])
}

#[test]
fn an_edit_outlives_heavy_writing_replay_and_a_restart_of_its_run() {
    both("an_edit_outlives_heavy_writing_replay_and_a_restart_of_its_run", |builder, redis| {
        let mut daemon = started(builder);
        publish(redis, "training_start", START());
        wait_until("the run", LIMIT, || run(&daemon)["status"] == "running");
        let done = AtomicBool::new(false);
        let (mut changes, mut sent) = (0, 0);
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let (mut client, mut sent) = (redis.client(), 0_u32);
                while !done.load(Ordering::Relaxed) {
                    let tags =
                        json!({"type": "run_update", "run_id": RUN, "data": {"notes": "theirs", "tags": ["own"]}});
                    let row = json!({"run_id": RUN, "epoch": sent, "loss": 0.5, "timestamp": 1_700_000_000 + sent});
                    for message in [row, tags] {
                        client.publish(TRAINING, message.to_string());
                    }
                    sent += 1;
                    // Some thousand a second: the store keeps up.
                    thread::sleep(Duration::from_micros(500));
                }
                sent
            });
            while changes < 30 {
                changes += 1;
                let name = format!("name {changes}");
                let shown = edit(&daemon, &json!({"name": name, "add_tags": [name.as_str()], "remove_tags": ["own"]}));
                assert_eq!(shown["display_name"], json!(name));
                let listed = daemon.get("/api/runs").json();
                assert_eq!(listed["runs"][0]["display_name"], json!(name), "{listed}");
            }
            edit(&daemon, &json!({"notes": "ours", "tags": ["kept", "new"], "archived": false}));
            done.store(true, Ordering::Relaxed);
            sent = writing.join().unwrap();
        });
        let expected = json!(["name 30", "ours", ["kept", "new"], false]);
        wait_until("all rows", LIMIT, || count(&daemon) == sent);
        assert_eq!(of_people(&run(&daemon)), expected, "after {sent} messages");

        // From the first record again, as after a crash with an old checkpoint.
        daemon.kill9();
        fs::remove_file(daemon.state_dir().join("spool/checkpoint")).unwrap();
        launch(&mut daemon);
        wait_until("the replay", LIMIT, || {
            daemon.metric("cascor_writer_rows_total{table=\"training_metrics\"}") >= Some(f64::from(sent))
        });
        assert_eq!((count(&daemon), of_people(&run(&daemon))), (json!(sent), expected.clone()));

        publish(redis, "training_end", json!({"status": "completed"}));
        wait_until("the end", LIMIT, || run(&daemon)["status"] == "completed");
        publish(redis, "training_start", START());
        wait_until("the restart", LIMIT, || run(&daemon)["status"] == "running");
        assert_eq!(of_people(&run(&daemon)), expected, "restarted");
        // The row has nothing of it.
        if !daemon.uses_cassandra() {
            let sql = format!("SELECT run_name, notes, tags FROM training_runs WHERE run_id = '{RUN}'");
            let row = Value::from(sqlite::rows(&daemon.database(), &sql).remove(0));
            assert_eq!(row, json!({"run_name": null, "notes": "of the trainer", "tags": "[\"kept\",\"own\"]"}));
        }
    });
}

#[test]
fn two_people_at_once_lose_no_change() {
    both("two_people_at_once_lose_no_change", |builder, redis| {
        let daemon = started(builder);
        publish(redis, "training_start", START());
        wait_until("the run", LIMIT, || run(&daemon)["status"] == "running");
        thread::scope(|scope| {
            for person in 0..4 {
                let daemon = &daemon;
                scope.spawn(move || {
                    for n in 0..5 {
                        edit(daemon, &json!({"add_tags": [format!("{person}.{n}")], "remove_tags": [format!("{person}.{}", n - 1)]}));
                    }
                });
            }
        });
        let shown = run(&daemon);
        assert_eq!(shown["tags"], json!(["0.4", "1.4", "2.4", "3.4", "kept", "own"]), "{shown}");
    });
}

#[test]
fn a_run_that_was_just_created_is_edited_while_the_daemon_is_paused() {
    both("a_run_that_was_just_created_is_edited_while_the_daemon_is_paused", |builder, _| {
        let daemon = started(builder);
        assert_eq!(
            http::post(daemon.http_port(), "/api/control", r#"{"command": "pause", "target": "test"}"#).unwrap().status,
            200
        );
        let created = daemon.post("/api/runs", &json!({"name": "new/1", "tags": ["a", "b"], "notes": "n"}));
        assert_eq!(created.status, 201, "{}", created.body);
        let body = json!({"name": "given", "tags": ["b", "c"]});
        let answer = patch(daemon.http_port(), "/api/runs/new%2F1", &body);
        let shown = answer.json()["run"].clone();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            (&shown["run_name"], &shown["display_name"], &shown["tags"], &shown["notes"], &shown["edited_by"]),
            (&json!("new/1"), &json!("given"), &json!(["b", "c"]), &json!("n"), &json!("http"))
        );
        // What is not written yet is not listed, but shown.
        let early = daemon.get("/api/runs/given").json();
        assert_eq!((of_people(&early["run"]), &early["metric_count"]), (of_people(&shown), &json!(0)));
        assert_eq!(daemon.get("/api/runs").json()["count"], 0);
        assert_eq!(
            http::post(daemon.http_port(), "/api/control", r#"{"command": "resume", "target": "test"}"#)
                .unwrap()
                .status,
            200
        );
        wait_until("the run in the store", LIMIT, || daemon.get("/api/runs").json()["count"] == 1);
        let stored = daemon.get("/api/runs/new%2F1").json()["run"].clone();
        assert_eq!((of_people(&stored), &stored["edited_at"]), (of_people(&shown), &shown["edited_at"]));
    });
}

#[test]
fn a_wrong_change_is_refused_and_one_without_a_store_is_503() {
    let redis = Redis::start();
    let daemon = started(Daemon::on(&redis).set("http.anonymous_body", "\"1MiB\""));
    publish(&redis, "training_start", START());
    wait_until("the run", LIMIT, || run(&daemon)["status"] == "running");
    let before = run(&daemon);
    let own = format!("/api/runs/{RUN}");
    let many: Vec<String> = (0..1_025).map(|n| n.to_string()).collect();
    for (path, body, status, told) in [
        (own.as_str(), json!({"nmae": "x"}), 400, "unknown field `nmae`; known: name, notes, tags"),
        (&own, json!({}), 400, "changes nothing"),
        (&own, json!([1]), 400, "must be a JSON object"),
        (&own, json!({"name": RUN}), 400, "must not be a UUID"),
        (&own, json!({"add_tags": many}), 400, "1024 tags"),
        (&own, json!({"add_tags": ["x".repeat(70_000)]}), 400, "64 KiB"),
        ("/api/runs/00000000-0000-4000-8000-000000000000", json!({"name": "x"}), 404, "Run not found"),
        ("/api/runs/nobody", json!({"name": "x"}), 400, "Invalid UUID"),
        ("/api/runs/%ff", json!({"name": "x"}), 400, ""),
    ] {
        let answer = patch(daemon.http_port(), path, &body);
        assert!(answer.status == status && answer.body.contains(told), "{path}: {} {}", answer.status, answer.body);
    }
    let answer = http::send(daemon.http_port(), "PATCH", &own, &[], "{\"name\"").unwrap();
    assert_eq!((answer.status, answer.body.contains("is not JSON")), (400, true), "{}", answer.body);
    assert_eq!(run(&daemon), before, "nothing was changed");

    let nowhere = format!("[\"127.0.0.1:{}\"]", free_port());
    let mut away =
        Daemon::on(&redis).set("store.kind", "\"cassandra\"").set("store.cassandra.contact_points", nowhere).prepare();
    away.launch();
    away.wait_http("/healthz", 200);
    for path in [own.as_str(), "/api/runs/a-name"] {
        let answer = patch(away.http_port(), path, &json!({"name": "x"}));
        assert!(answer.status == 503 && answer.body.contains("store is unavailable"), "{}", answer.body);
    }
}

#[test]
fn an_edit_names_its_author_and_needs_an_admin() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "ann admin admin-token-0123456789\nbob read bob-token-0123456789\n").unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = started(Daemon::on(&redis).set("http.tokens_file", format!("{:?}", tokens.display().to_string())));
    publish(&redis, "training_start", START());
    daemon.wait_rows("SELECT count(*) FROM training_runs", 1);
    let ask = |token: &str| {
        let bearer = format!("Bearer {token}");
        http::send(
            daemon.http_port(),
            "PATCH",
            &format!("/api/runs/{RUN}"),
            &[("Authorization", &bearer)],
            r#"{"name": "n"}"#,
        )
        .unwrap()
    };
    assert_eq!(ask("bob-token-0123456789").status, 403);
    let answer = ask("admin-token-0123456789");
    assert_eq!((answer.status, &answer.json()["run"]["edited_by"]), (200, &json!("ann")), "{}", answer.body);
    let logged =
        "SELECT count(*) FROM control_log WHERE command = 'update_run' AND source = 'http:ann' AND outcome = 'done'
        AND payload_json LIKE '%0d4f2a6e%'";
    daemon.wait_rows(logged, 1);
}

#[test]
fn any_process_that_may_write_the_store_edits_runs() {
    both("any_process_that_may_write_the_store_edits_runs", |builder, redis| {
        let mut daemon = started(builder.env("USER", "carla"));
        publish(redis, "training_start", START());
        wait_until("the run", LIMIT, || run(&daemon)["status"] == "running");
        let (mut served, port) = serve(&daemon);
        let answer = patch(port, &format!("/api/runs/{RUN}"), &json!({"name": "by serve"}));
        assert_eq!((answer.status, &answer.json()["run"]["edited_by"]), (200, &json!("http")), "{}", answer.body);
        assert_eq!(run(&daemon)["display_name"], "by serve");
        served.signal(Signal::TERM);
        assert!(served.wait(LIMIT).success());
        // Beside the daemon, and without it.
        let told = daemon.succeed(&["runs", "rename", "by serve", "  vom Terminal "]);
        assert_eq!(told, format!("renamed: vom Terminal ({RUN})\n"));
        assert_eq!(run(&daemon)["display_name"], "vom Terminal");
        assert!(daemon.terminate().success());
        daemon.succeed(&["runs", "tag", "vom Terminal", "cli", "x, y"]);
        daemon.succeed(&["runs", "untag", &RUN[..8], "own"]);
        let archived: Value = serde_json::from_str(&daemon.succeed(&["runs", "archive", RUN, "--json"])).unwrap();
        let shown = &archived["runs"][0];
        assert_eq!(of_people(shown), json!(["vom Terminal", "of the trainer", ["cli", "kept", "x, y"], true]));
        assert_eq!(shown["edited_by"], "carla");
        assert_eq!(daemon.succeed(&["runs"]), "no runs; archived ones are left out (--archived=any)\n");
        launch(&mut daemon);
        assert_eq!(run(&daemon), *shown);
        let url = format!("http://127.0.0.1:{}", daemon.http_port());
        let told = daemon.succeed(&["runs", "unarchive", "vom Terminal", "--url", &url]);
        assert_eq!(
            (told, &run(&daemon)["archived"]),
            (format!("no longer archived: vom Terminal ({RUN})\n"), &json!(false))
        );
        for (wrong, status, why) in [
            (&["runs", "rename", "vom Terminal", RUN][..], 2, "must not be a UUID"),
            (&["runs", "archive", "vom Terminal", "nobody"], 1, "nobody"),
            (&["runs", "untag", "vom Terminal", "own"], 1, "has no tag own; its tags: cli, kept, 'x, y'"),
            (&["runs", "untag", "vom Terminal", "cli", "CLI", "own"], 1, "has no tags CLI, own; its tags: cli"),
            (&["runs", "tag", "vom Terminal"], 2, "TAG"),
        ] {
            let output = daemon.command(wrong);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(status) && error.contains(why), "{wrong:?}: {error}");
        }
        assert_eq!(run(&daemon)["archived"], false, "all runs are found before one is changed");
        if !daemon.uses_cassandra() {
            daemon
                .wait_rows("SELECT count(*) FROM control_log WHERE command = 'update_run' AND source = 'cli:carla'", 4);
        }
    });
}

#[test]
fn a_user_who_may_not_write_the_file_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        return crate::support::skip("a_user_who_may_not_write_the_file_is_told_so", "only root runs as another user");
    }
    let redis = Redis::start();
    let daemon = started(Daemon::on(&redis));
    publish(&redis, "training_start", START());
    daemon.wait_rows("SELECT count(*) FROM training_runs", 1);
    let open = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for folder in daemon.database().ancestors().skip(1).take_while(|folder| *folder != std::env::temp_dir()) {
        open(folder, 0o755);
    }
    for file in fs::read_dir(daemon.database().parent().unwrap()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            open(&file.path(), 0o644);
        }
    }
    open(&daemon.config_file(), 0o644);
    let program = daemon.state_dir().join("program");
    fs::copy(crate::support::daemon::binary(), &program).unwrap();
    open(&program, 0o755);
    let mut command = std::process::Command::new(&program);
    command.args(["runs", "archive", "--url", "", RUN]).env_clear().env("CASCOR_INGEST_CONFIG", daemon.config_file());
    let output = command.uid(65_534).gid(65_534).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("this user cannot write") && error.contains("--url"), "{error}");
    assert_eq!(run(&daemon)["archived"], false);
}
