//! The API without a pipeline.

use std::time::Duration;

use serde_json::json;

use crate::{
    api::both,
    reading::filled,
    support::{http, ports::free_port, process::Process, wait_for, wait_until},
};

const TRAINING: &str = "cascor:training";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn the_api_is_served_without_a_pipeline() {
    both("the_api_is_served_without_a_pipeline", |builder, redis| {
        let daemon = filled(builder.prepare(), redis);
        let port = free_port();
        let listen = format!("http.listen=127.0.0.1:{port}");
        let log = daemon.state_dir().join("serve.log");
        let mut command = daemon.prepared(&["serve", "--set", &listen]);
        let mut served = Process::spawn(&mut command, &log);
        wait_for("the API", LIMIT, || http::get(port, "/readyz").ok().filter(|answer| answer.status == 200));
        assert_eq!(http::get(port, "/api/runs").unwrap().json()["count"], 2);
        assert_eq!(http::get(port, "/api/status").unwrap().json()["phase"], "serving");
        assert!(matches!(http::get(port, "/api/metrics").unwrap().header("x-cache-status"), Some("HIT" | "MISS")));
        let message = json!({"run_id": "spiral-one", "epoch": 21, "loss": 0.25}).to_string();
        wait_for("a hit", LIMIT, || {
            redis.client().publish(TRAINING, &message);
            let answer = http::get(port, "/api/metrics").unwrap();
            (answer.header("x-cache-status") == Some("HIT")).then_some(())
        });
        // What changes something reaches the daemon by Redis.
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
