//! The latest keys, the commands and the shared runs against a real Redis.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use cascor_ingest::{
    control::{self, ControlPorts, Identity, Stage},
    event::Resolved,
    frame::IntakeItem,
    latest::{self, FlusherDeps, LatestKind, LatestState, Render, Update, flusher},
    lifecycle::{PauseBarrier, Signal},
    metrics::Metrics,
    redis::{Config, Link, RunShare},
    wire::{Command, ReceivedCommand},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::redis_rig::{Rig, SOON, Server};

struct AsIs;

impl Render for AsIs {
    fn text_bytes(&self, payload: &[u8]) -> usize {
        payload.len()
    }

    fn render(&self, payload: &[u8], _: &Resolved, _: bool, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(payload));
    }
}

fn update(kind: LatestKind, run: u128, time: i64, payload: &str) -> Update {
    let decided = Resolved {
        run_id: Uuid::from_u128(run),
        event_time: time,
        received_at: time,
        has_event_time: true,
        opened_run: false,
    };
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Update { kind, payload, decided, seq: None, received: Instant::now() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_keys_are_set_coalesced_set_again_and_cleared() {
    let mut server = Server::start(16_408, &[]).await;
    let (_stopper, stop) = Signal::new();
    let metrics = Metrics::new();
    let (mut link, keep_up) = Link::new(&server.config(), stop.clone());
    let latest_state = LatestState::new(
        &latest::Config::default(),
        "cascor:",
        cascor_ingest::memory::MemoryLimit::default(),
        Arc::clone(&metrics),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = keep_up.await;
    });
    let deps = FlusherDeps {
        latest_state: Arc::clone(&latest_state),
        link: link.clone(),
        render: Arc::new(AsIs),
        instance: "one".into(),
        status: Box::new(|| r#"{"phase":"running"}"#.to_owned()),
        shares_runs: false,
        metrics: Arc::clone(&metrics),
    };
    let flush = flusher(deps, stop);
    tasks.spawn(async move {
        let Ok(()) = flush.await;
    });
    link.connected().await.unwrap();
    let run = Uuid::from_u128(1);
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        n += 1;
        latest_state.update(update(LatestKind::Metrics, 1, n, &format!("{{\"n\":{n}}}")));
        sleep(Duration::from_millis(1)).await;
    }
    latest_state.update(update(LatestKind::Topology, 1, 1, "{\"t\":1}"));
    latest_state.update(update(LatestKind::State, 1, 1, "{\"s\":1}"));
    sleep(Duration::from_millis(150)).await;
    let newest = format!("{{\"n\":{n}}}");
    for (key, value, ttl) in [
        ("cascor:metrics:latest".to_owned(), newest.as_str(), 300..=1_000),
        (format!("cascor:metrics:{run}:latest"), newest.as_str(), 300..=1_000),
        ("cascor:topology:latest".to_owned(), "{\"t\":1}", 4_200..=5_000),
        (format!("cascor:topology:{run}:latest"), "{\"t\":1}", 4_200..=5_000),
        ("cascor:state:latest".to_owned(), "{\"s\":1}", 58_000..=60_000),
        ("cascor:ingest:one".to_owned(), r#"{"phase":"running"}"#, 11_000..=15_000),
    ] {
        assert_eq!(server.cli(&["GET", &key]), value, "{key}");
        let left: u64 = server.cli(&["PTTL", &key]).parse().unwrap();
        assert!(ttl.contains(&left), "{key}: {left}");
    }
    let writes: u64 = server
        .cli(&["INFO", "commandstats"])
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_set:calls=")?.split(',').next()?.parse().ok())
        .unwrap();
    println!("{n} updates, {writes} writes");
    assert!(writes < 2 * 11 + 20, "{n} updates became {writes} writes");
    sleep(Duration::from_millis(300)).await;
    let history = server.cli(&["GET", "cascor:history:latest"]);
    assert!(history.starts_with("[{\"n\":") && history.ends_with(&format!("{newest}]")), "{history}");

    server.kill();
    server.up().await;
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        if !server.cli(&["GET", "cascor:state:latest"]).is_empty() {
            break;
        }
    }
    // The lifetime of the metrics.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.cli(&["GET", "cascor:state:latest"]), "{\"s\":1}", "set again");
    let left: u64 = server.cli(&["PTTL", "cascor:state:latest"]).parse().unwrap();
    assert!(left < 59_500, "with its remaining lifetime: {left}");
    assert_eq!(server.cli(&["GET", "cascor:metrics:latest"]), "", "expired");
    assert!(server.cli(&["GET", "cascor:history:latest"]).ends_with(&format!("{newest}]")));

    server.cli(&["FLUSHALL"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    latest_state.update(update(LatestKind::State, 1, 2, "{\"s\":2}"));
    sleep(Duration::from_millis(200)).await;
    assert!(metrics.latest_errors.get() > 0);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    latest_state.update(update(LatestKind::State, 1, 3, "{\"s\":3}"));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(server.cli(&["GET", "cascor:state:latest"]), "{\"s\":3}");
    server.cli(&["SET", "somebody:else", "1"]);
    latest_state.clear(&link).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let keys = server.cli(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key == "somebody:else" || key == "cascor:ingest:one"), "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_by_redis_cli_are_executed_and_answered() {
    let server = Server::start(16_409, &[]).await;
    let config = server.config();
    let mut rig = Rig::start(&config);
    let (_stopper, stop) = Signal::new();
    let metrics = Metrics::new();
    let (mut link, keep_up) = Link::new(&config, stop.clone());
    let (pause_barrier, mut held) = watch::channel(PauseBarrier::None);
    let (_stored, stored) = watch::channel(0);
    let (to_intake, mut receipts) = mpsc::channel(16);
    let ports = ControlPorts {
        pause_barrier,
        stored,
        received_end: Box::new(|| 7),
        spool_fill: Box::new(|| 0.0),
        status: Box::new(|| r#"{"phase":"running"}"#.into()),
        latest_state: LatestState::new(
            &latest::Config::default(),
            "cascor:",
            cascor_ingest::memory::MemoryLimit::default(),
            Arc::clone(&metrics),
        ),
        to_intake,
        link: link.clone(),
        receipts: tokio::sync::broadcast::channel(1).0,
    };
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity {
        instance: "one".into(),
        key_prefix: "cascor:".into(),
        state_dir: PathBuf::from(dir.path()),
        latest_ttl: Some(Duration::from_secs(5)),
    };
    let stage = Stage::new(&control::Config::default(), identity, ports, metrics);
    let (jobs, queue) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = keep_up.await;
    });
    tasks.spawn(async move {
        let Ok(()) = stage.run(queue, stop).await;
    });
    link.connected().await.unwrap();
    rig.ready(SOON).await;
    let mut ack = Rig::start(&Config {
        training_channels: vec!["cascor:control:ac?".into()],
        control_channels: Vec::new(),
        key_prefix: "other:".into(),
        ..config
    });
    ack.ready(SOON).await;
    for (sent, outcome) in
        [("pause", "done"), ("resume", "done"), ("status", "done"), ("reset", "done"), ("stop", "ignored")]
    {
        server.cli(&["PUBLISH", "cascor:control", sent]);
        let frame = rig.frame().await;
        assert!(frame.control);
        let command = Command {
            command: String::from_utf8(frame.payload.to_vec()).unwrap(),
            id: Some("7".into()),
            payload_json: "{}".into(),
            ..Command::default()
        };
        let (channel, payload, received_at) = (frame.channel, frame.payload, frame.received_at);
        jobs.send(ReceivedCommand { command, channel, payload, received_at, reserved: None }).await.unwrap();
        let row = loop {
            match receipts.recv().await.unwrap() {
                IntakeItem::Receipt(row) => break row,
                IntakeItem::CloseRuns(at) => assert_eq!((sent, at), ("reset", received_at)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((row.outcome.as_deref(), row.timestamp), (Some(outcome), received_at), "{sent}");
        let answer: serde_json::Value = serde_json::from_slice(&ack.frame().await.payload).unwrap();
        assert_eq!(answer["outcome"], outcome, "{answer}");
        assert_eq!((&answer["id"], &answer["command"]), (&"7".into(), &sent.into()));
        assert!(answer["received_at"].as_str().unwrap().ends_with('Z'));
        if sent == "status" {
            assert_eq!(answer["detail"]["phase"], "running");
        }
        if sent != "reset" {
            assert!(server.cli(&["GET", "cascor:control:latest"]).contains(sent));
        }
        if sent == "pause" {
            assert_eq!(*held.borrow_and_update(), PauseBarrier::At(7));
        }
    }
    let share = RunShare::new(link, "cascor:");
    assert_eq!(share.fetch("cascor:training").await, None);
    share.publish("cascor:training", "{\"run\":1}".into()).await;
    assert_eq!(share.fetch("cascor:training").await.as_deref(), Some("{\"run\":1}"));
    assert_eq!(server.cli(&["GET", "cascor:ingest:run:cascor:training"]), "{\"run\":1}");
}
