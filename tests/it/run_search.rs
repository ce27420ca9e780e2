//! Lists of runs over HTTP and on the command line, on both stores.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    api::both,
    support::{daemon::Daemon, wait_until},
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);
const RUNS: usize = 12;

fn path(query: &str) -> String {
    format!("/api/runs?{query}")
}

fn names(answer: &Value) -> Vec<String> {
    let runs = answer["runs"].as_array().unwrap_or_else(|| panic!("{answer}"));
    runs.iter().map(|run| run["run_name"].as_str().unwrap().to_owned()).collect()
}

/// The first page of a list; while the runs are being sorted, it is asked for again.
fn first(daemon: &Daemon, query: &str) -> Value {
    let mut cursor = String::new();
    loop {
        let answer = daemon.get(&path(&format!("{query}&before={cursor}"))).json();
        if answer["sorted"]["sorting"] != true {
            return answer;
        }
        assert!(answer["count"] == 0 && answer["sorted"]["all"] == false, "{answer}");
        cursor = answer["next"].as_str().unwrap().to_owned();
    }
}

/// The names of a whole list, page by page, and how many runs were compared. A slow machine needs more requests.
fn whole(daemon: &Daemon, query: &str, limit: usize) -> (Vec<String>, u64) {
    let (mut found, mut scanned, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = daemon.get(&path(&format!("{query}&limit={limit}&before={cursor}"))).json();
        found.extend(names(&answer));
        scanned += answer["scanned"].as_u64().unwrap_or_default();
        let Some(next) = answer["next"].as_str() else { return (found, scanned) };
        cursor = next.to_owned();
    }
}

#[test]
fn runs_are_searched_sorted_and_paged() {
    both("runs_are_searched_sorted_and_paged", |builder, redis| {
        let mut daemon = builder.prepare();
        if daemon.uses_cassandra() {
            daemon.apply_schema();
        }
        daemon.launch();
        daemon.wait_ready();
        let start = jiff::Timestamp::now().as_second() - 100;
        for n in 0..RUNS {
            let config = json!({"lr": 0.1 * (n % 3) as f64, "opt": {"name": if n % 2 == 0 { "Adam" } else { "sgd" }}});
            let message = json!({"type": "training_start", "run_id": format!("поиск-{n:02}"), "timestamp": start + n as i64,
                "data": {"config": config, "tags": ["all", format!("t{}", n % 2)], "notes": "50%_\"done\""}});
            redis.client().publish(TRAINING, message.to_string());
        }
        wait_until("every run", LIMIT, || daemon.get("/api/runs").json()["count"] == RUNS);
        searches(&daemon);
        cursors(&daemon);
        commands(&daemon);
    });
}

fn searches(daemon: &Daemon) {
    for (query, count) in [
        ("q=%D0%9F%D0%9E%D0%98%D0%A1%D0%9A", 12), // ПОИСК
        ("q=opt.name%3DADAM%20lr%3D0.1", 2),
        ("q=50%25_%22done%22", 12),
        ("q=5%25", 0),
        ("tag=all&tag=t1", 6),
        ("tag=t0&tag=t1", 0),
        ("archived=true", 0),
        ("archived=any", 12),
        ("status=running&q=adam", 6),
    ] {
        let (found, scanned) = whole(daemon, query, 100);
        assert_eq!((found.len(), scanned), (count, RUNS as u64), "{query}: {found:?}");
    }
    let sorted = first(daemon, "sort=config.lr&order=asc&limit=5");
    assert_eq!(names(&sorted), ["поиск-09", "поиск-06", "поиск-03", "поиск-00", "поиск-10"]);
    assert_eq!(sorted["sorted"], json!({"by": "config.lr", "order": "asc", "of": RUNS, "all": true}));
    for query in ["sort=config.rate", "sort=config.rate&q=adam&order=asc", "sort=config.opt"] {
        let keys = &first(daemon, query)["sorted"]["keys"];
        let expected = if query.ends_with("opt") { Value::Null } else { json!(["lr", "opt.name"]) };
        assert_eq!(*keys, expected, "{query}");
    }
    for (query, named) in [
        ("sort=loss", "final_train_loss"),
        ("sort=config.", "config.KEY"),
        ("order=up", "desc, asc"),
        ("archived=maybe", "any"),
        ("sort=name&sort=name", "given twice"),
    ] {
        let refused = daemon.get(&path(query));
        assert!(refused.status == 400 && refused.body.contains(named), "{query}: {}", refused.body);
    }
    let many = daemon.get(&path(&format!("q={}", "w%20".repeat(65))));
    assert!(many.status == 400 && many.body.contains("64"), "{}", many.body);
}

fn cursors(daemon: &Daemon) {
    for list in ["", "q=adam", "sort=name&order=asc", "sort=config.opt.name&q=all"] {
        assert_eq!(whole(daemon, list, 5).0, whole(daemon, list, 100).0, "{list}");
        let first = first(daemon, &format!("{list}&limit=5"));
        let cursor = first["next"].as_str().unwrap();
        for other in ["status=running&", "q=adam%20all&", "sort=name&", "archived=any&", "tag=all&"] {
            let refused = daemon.get(&path(&format!("{other}before={cursor}")));
            assert_eq!(refused.status, 400, "{other} with the cursor of `{list}`: {}", refused.body);
        }
    }
    for garbage in ["x", "5.5", "-", "%00", "1_2.3", "9999999999999999999999_x.y"] {
        let refused = daemon.get(&path(&format!("before={garbage}")));
        assert!(refused.status == 400 && refused.body.contains("`before`"), "{garbage}: {}", refused.body);
    }
}

fn commands(daemon: &Daemon) {
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    for from in [&[][..], &["--url", &url]] {
        let json = |words: &[&str]| -> Value {
            serde_json::from_str(&daemon.succeed(&[words, from, &["--json"]].concat())).unwrap()
        };
        let asked = &["runs", "-q", "ADAM", "--tag", "all", "--sort", "name", "--order", "asc"];
        let found = json(asked);
        assert_eq!(names(&found), [0, 2, 4, 6, 8, 10].map(|n| format!("поиск-{n:02}")));
        assert_eq!(found["sorted"]["by"], "name");
        let first = json(&["runs", "-n", "5"]);
        let rest = json(&["runs", "--before", first["next"].as_str().unwrap()]);
        assert_eq!((&first["count"], &rest["count"], &rest["next"]), (&json!(5), &json!(7), &Value::Null));
        let all = json(&["runs", "--all"]);
        assert_eq!((&all["count"], names(&all)), (&json!(12), [names(&first), names(&rest)].concat()));
        let none = daemon.succeed(&[&["runs", "-q", "nothing-like-it"], from].concat());
        assert!(none.starts_with("no run matches"), "{none}");
        let since = |time: &str| names(&json(&["runs", "--since", time]));
        assert_eq!((since("1h").len(), since("1s").len()), (RUNS, 0));
        // The runs started a second after each other.
        let fifth = json(&["runs", "-n", "5"])["runs"][4]["start_time"].as_str().unwrap().to_owned();
        assert_eq!(since(&fifth), names(&first));
        let sorted = json(&["runs", "--since", &fifth, "--sort", "name", "--order", "asc", "-n", "2"]);
        assert_eq!(names(&sorted), ["поиск-07", "поиск-08"]);
        let absent = daemon.command(&[&["runs", "--sort", "config.rate"], from].concat());
        let said = String::from_utf8_lossy(&absent.stderr).into_owned();
        assert!(
            absent.status.code() == Some(1) && said.contains("`config.rate`") && said.contains("opt.name"),
            "{said}"
        );
        let refused = daemon.command(&[&["runs", "--sort", "loss"], from].concat());
        assert!(
            refused.status.code() == Some(2) && String::from_utf8_lossy(&refused.stderr).contains("final_val_loss")
        );
    }
}
