//! The API without a pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    api::both,
    reading::filled,
    support::{
        daemon::Daemon, http, ports::free_port, process::Process, redis::Redis, stream::Stream, wait_for, wait_until,
    },
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);

/// The API alone, beside a daemon, on the same store.
pub fn serve(daemon: &Daemon) -> (Process, u16) {
    serve_with(daemon, &[])
}

/// The same, with other settings than the daemon: `key=value`.
pub fn serve_with(daemon: &Daemon, settings: &[String]) -> (Process, u16) {
    let port = free_port();
    let listen = format!("http.listen=127.0.0.1:{port}");
    let log = daemon.state_dir().join("serve.log");
    let more = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = ["serve", "--set", &listen].into_iter().chain(more).collect();
    let served = Process::spawn(&mut daemon.prepared(&arguments), &log);
    wait_for("the API", LIMIT, || http::get(port, "/readyz").ok().filter(|answer| answer.status == 200));
    (served, port)
}

#[test]
fn the_api_is_served_without_a_pipeline() {
    both("the_api_is_served_without_a_pipeline", |builder, redis| {
        let daemon = filled(builder.prepare(), redis);
        let (mut served, port) = serve(&daemon);
        assert_eq!(http::get(port, "/api/runs").unwrap().json()["count"], 2);
        assert_eq!(http::get(port, "/api/status").unwrap().json()["phase"], "serving");
        assert!(matches!(http::get(port, "/api/metrics").unwrap().header("x-cache-status"), Some("HIT" | "MISS")));
        let message = json!({"run_id": "spiral-one", "epoch": 21, "loss": 0.25}).to_string();
        wait_for("a hit", LIMIT, || {
            redis.client().publish(TRAINING, &message);
            let answer = http::get(port, "/api/metrics").unwrap();
            (answer.header("x-cache-status") == Some("HIT")).then_some(())
        });
        // Commands reach the daemon through Redis.
        let created = http::post(port, "/api/runs", "{\"run_name\":\"by-serve\"}").unwrap();
        assert_eq!(created.status, 201, "{}", created.body);
        let id = created.json()["run_id"].as_str().unwrap().to_owned();
        wait_until("the run", LIMIT, || http::get(port, &format!("/api/runs/{id}")).unwrap().status == 200);
        assert_eq!(http::post(port, "/api/control", "pause").unwrap().status, 202);
        wait_until("paused", LIMIT, || daemon.get("/api/status").json()["paused"] == true);
        served.signal(rustix::process::Signal::TERM);
        assert!(served.wait(LIMIT).success());
    });
}

/// Metrics of a stream until there are so many rows: the rows of each run, in order.
fn told(stream: &mut Stream, rows: usize) -> BTreeMap<String, Vec<Value>> {
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < rows {
        let event = stream.next("metrics");
        let run = event.data["run_id"].as_str().unwrap().to_owned();
        told.entry(run).or_default().extend(event.data["rows"].as_array().unwrap().iter().cloned());
    }
    told
}

fn stored(daemon: &Daemon, run: &str) -> Vec<Value> {
    let path = format!("/api/metrics/range?run_id={run}&order=asc");
    daemon.get(&path).json()["metrics"].as_array().cloned().unwrap_or_default()
}

fn epochs(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["epoch"].as_i64().unwrap()).collect()
}

#[test]
fn a_stream_without_a_pipeline_matches_what_the_daemon_stores() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let (_served, port) = serve(&daemon);
    wait_until("both listen", LIMIT, || redis.subscribers(TRAINING) == 2);
    let mut stream = Stream::open(port, "", "");
    assert_eq!(stream.next("hello").data["live"], true);
    let status = stream.next("status").data;
    assert_eq!((&status["phase"], &status["redis"]["unproven"]), (&json!("serving"), &json!([])));
    let mut client = redis.client();

    // A message with id and timestamp is streamed exactly as it is stored.
    let now = jiff::Timestamp::now().as_microsecond() as f64 / 1e6;
    client.publish(TRAINING, json!({"run_id": "named", "epoch": 1, "loss": 0.5, "timestamp": now}).to_string());
    let named = told(&mut stream, 1);
    let (run, rows) = named.first_key_value().unwrap();
    wait_until("the row", LIMIT, || stored(&daemon, run) == *rows);

    // Without an id, and without a time: the run is the one that the daemon chose. Epochs that begin again are another run.
    let mut guessed = BTreeMap::new();
    for burst in [[5, 6, 7], [0, 1, 2]] {
        for epoch in burst {
            client.publish(TRAINING, json!({"epoch": epoch, "loss": 0.5}).to_string());
        }
        guessed.extend(told(&mut stream, 3));
    }
    wait_until("the runs", LIMIT, || daemon.get("/api/runs").json()["count"] == 3);
    for (run, rows) in &guessed {
        wait_until("the rows of the same run", LIMIT, || epochs(&stored(&daemon, run)) == epochs(rows));
    }
    let all: BTreeSet<_> = guessed.values().map(|rows| epochs(rows)).collect();
    assert_eq!(all, [vec![5, 6, 7], vec![0, 1, 2]].into());

    // A run start without an id, with a time of its own, and what follows it.
    client.publish(TRAINING, json!({"type": "training_start", "timestamp": now + 1.0, "data": {}}).to_string());
    client.publish(TRAINING, json!({"epoch": 1, "loss": 0.4, "timestamp": now + 2.0}).to_string());
    let begun = told(&mut stream, 1);
    let (run, rows) = begun.first_key_value().unwrap();
    assert!(!guessed.contains_key(run));
    wait_until("the row of the new run", LIMIT, || stored(&daemon, run) == *rows);

    // Several runs at the same moment: streamed events are right, and events that are left out are counted.
    for (n, epoch) in [3, 0, 1, 0, 1, 2, 0, 1, 2, 3].into_iter().enumerate() {
        client.publish(TRAINING, json!({"epoch": epoch, "loss": n}).to_string());
    }
    let (mut seen, mut skipped): (BTreeMap<String, Vec<i64>>, u64) = (BTreeMap::new(), 0);
    while seen.values().map(Vec::len).sum::<usize>() as u64 + skipped < 10 {
        let event = stream.event();
        match event.name.as_str() {
            "metrics" => {
                let run = event.data["run_id"].as_str().unwrap().to_owned();
                seen.entry(run).or_default().extend(epochs(event.data["rows"].as_array().unwrap()));
            }
            "skipped" => skipped += event.data["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    println!("of ten messages of four runs {skipped} are skipped");
    for (run, seen) in seen {
        wait_until("the streamed rows in the store, under the same run", LIMIT, || {
            let stored = epochs(&stored(&daemon, &run));
            seen.iter().all(|epoch| stored.contains(epoch))
        });
    }

    // Commands are sent through Redis; the daemon's answer arrives in the stream.
    let sent = http::post(port, "/api/control", "{\"command\":\"flush\",\"id\":\"f1\"}").unwrap();
    assert_eq!(sent.status, 202, "{}", sent.body);
    let receipt = stream.next("receipt").data;
    assert_eq!((&receipt["id"], &receipt["outcome"]), (&json!("f1"), &json!("done")));

    // After a lost connection the stream reports the loss and goes on.
    client.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(stream.next("skipped").data["count"].as_u64() >= Some(1));
    wait_until("both listen again", LIMIT, || redis.subscribers(TRAINING) == 2);
    client.publish(TRAINING, json!({"run_id": "named", "epoch": 2, "loss": 0.4, "timestamp": now + 3.0}).to_string());
    assert_eq!(epochs(told(&mut stream, 1).values().next().unwrap()), [2]);
}

#[test]
fn a_run_that_began_before_the_stream_has_the_daemons_run_id() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let (_served, port) = serve(&daemon);
    wait_until("both listen", LIMIT, || redis.subscribers(TRAINING) == 2);
    let mut client = redis.client();
    let send = |client: &mut crate::support::resp::Resp, epoch: i64| {
        client.publish(TRAINING, json!({"epoch": epoch, "loss": 0.5}).to_string());
    };
    (1..4).for_each(|epoch| send(&mut client, epoch));
    wait_until("the run", LIMIT, || daemon.get("/api/runs").json()["count"] == 1);
    std::thread::sleep(Duration::from_secs(1));
    let mut stream = Stream::open(port, "", "");
    stream.next("hello");
    send(&mut client, 4);
    let first = told(&mut stream, 1);
    let (run, _) = first.first_key_value().unwrap();
    wait_until("its row", LIMIT, || epochs(&stored(&daemon, run)) == [1, 2, 3, 4]);
    // The run ends over HTTP of the daemon, unseen by `serve`, which asks for the open run again.
    daemon.post("/api/control", &json!({"command": "reset", "target": crate::support::daemon::INSTANCE}));
    send(&mut client, 5);
    wait_until("another run", LIMIT, || daemon.get("/api/runs").json()["count"] == 2);
    let (mut epoch, mut skipped) = (5, false);
    let (newest, first) = loop {
        let event = stream.event();
        match event.name.as_str() {
            "skipped" => skipped = true,
            "metrics" if event.data["run_id"] != run.as_str() => {
                let rows = epochs(event.data["rows"].as_array().unwrap());
                break (event.data["run_id"].as_str().unwrap().to_owned(), rows[0]);
            }
            "status" => {
                epoch += 1;
                send(&mut client, epoch);
            }
            _ => {}
        }
        assert!(epoch < 20, "it is never noticed");
    };
    assert!(skipped || first == 5, "events of the wrong run are followed by `skipped`, or are not sent");
    wait_until("the rows of that run", LIMIT, || epochs(&stored(&daemon, &newest)) == (5..=epoch).collect::<Vec<_>>());
}
