//! `doctor` on a daemon that missed messages which a stream would have kept.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::{
    doctor::{good_redis, on},
    support::daemon::Daemon,
};

/// What doctor says about gaps; nothing that it finds is a fault.
fn advice(daemon: &Daemon, more: &[&str]) -> Option<Value> {
    let output = daemon.command(&[&["doctor", "--listen", "0s", "--json"], more].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut findings = report["findings"].as_array().unwrap().iter();
    findings.find(|finding| finding["area"] == "gaps").cloned()
}

#[test]
fn a_gap_that_a_stream_would_have_prevented_is_advice() {
    let mut redis = good_redis();
    let mut daemon = on(&redis).start_ready();
    assert_eq!(advice(&daemon, &[]), None, "nothing was missed yet");
    redis.kill();
    thread::sleep(Duration::from_secs(1));
    redis.launch();
    daemon.wait_rows("SELECT count(*) FROM ingest_gaps WHERE reason = 'disconnected' AND source = 'redis'", 1);
    let finding = advice(&daemon, &[]).expect("advice");
    let has = |field: &str, part: &str| finding[field].as_str().unwrap().contains(part);
    assert_eq!(finding["level"], "advice", "{finding}");
    assert!(has("what", "once in the last 7 days") && has("what", "a stream would have kept it"), "{finding}");
    assert!(has("fix", "XADD in place of PUBLISH") && has("fix", "`redis.streams`"), "{finding}");
    assert!(has("evidence", "1 disconnected; the number of lost messages is unknown"), "{finding}");
    assert!(daemon.terminate().success());
    assert_eq!(advice(&daemon, &["--set", "redis.streams=[\"a:stream\"]"]), None, "it reads a stream already");
    assert_eq!(advice(&daemon, &["--instance", "other"]), None, "another daemon missed nothing");
}
