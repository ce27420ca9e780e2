use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::*;
use crate::{
    event::ControlRow,
    frame::IntakeItem,
    latest::{self, LatestState},
    lifecycle::{PauseBarrier, Signal},
    metrics::Metrics,
    redis,
    wire::{Command, ReceivedCommand},
};

struct Rig {
    jobs: mpsc::Sender<ReceivedCommand>,
    pause_barrier: watch::Receiver<PauseBarrier>,
    stored: watch::Sender<u64>,
    end: Arc<AtomicU64>,
    fill: Arc<AtomicU64>,
    arrivals: mpsc::Receiver<IntakeItem>,
    dir: tempfile::TempDir,
    tasks: tokio::task::JoinSet<()>,
}

impl Rig {
    fn new(config: &Config, dir: tempfile::TempDir) -> Self {
        let (stopper, stop) = Signal::new();
        let metrics = Metrics::new();
        let (link, _) = redis::Link::new(&redis::Config::default(), stop.clone());
        let latest_state = LatestState::new(
            &latest::Config::default(),
            "cascor:",
            crate::memory::MemoryLimit::default(),
            Arc::clone(&metrics),
        );
        let (pause_barrier, hold_seen) = watch::channel(PauseBarrier::None);
        let (stored, stored_seen) = watch::channel(0);
        let (to_intake, arrivals) = mpsc::channel(64);
        let (end, fill) = (Arc::new(AtomicU64::new(100)), Arc::new(AtomicU64::new(0)));
        let ports = ControlPorts {
            pause_barrier,
            stored: stored_seen,
            received_end: Box::new({
                let end = Arc::clone(&end);
                move || end.load(Ordering::Relaxed)
            }),
            spool_fill: Box::new({
                let fill = Arc::clone(&fill);
                move || fill.load(Ordering::Relaxed) as f64 / 100.0
            }),
            status: Box::new(|| r#"{"phase":"running"}"#.into()),
            latest_state,
            to_intake,
            link,
            receipts: tokio::sync::broadcast::channel(1).0,
        };
        let identity = Identity {
            instance: "one".into(),
            key_prefix: "cascor:".into(),
            state_dir: dir.path().to_owned(),
            latest_ttl: None,
        };
        let stage = Stage::new(config, identity, ports, metrics);
        let (jobs, queue) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let _stopper = stopper;
            let Ok(()) = stage.run(queue, stop).await;
        });
        Self { jobs, pause_barrier: hold_seen, stored, end, fill, arrivals, dir, tasks }
    }

    async fn send(&self, command: &str, target: Option<&str>) {
        let command = Command {
            command: command.into(),
            target: target.map(Into::into),
            payload_json: "{}".into(),
            ..Command::default()
        };
        let job = ReceivedCommand {
            command,
            channel: "cascor:control".into(),
            payload: "{}".into(),
            received_at: 1,
            reserved: None,
        };
        self.jobs.send(job).await.unwrap();
    }

    async fn row(&mut self) -> ControlRow {
        loop {
            match timeout(Duration::from_secs(20), self.arrivals.recv()).await.unwrap().unwrap() {
                IntakeItem::Receipt(row) => return row,
                IntakeItem::CloseRuns(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn outcome(&mut self, command: &str, target: Option<&str>) -> String {
        self.send(command, target).await;
        self.row().await.outcome.unwrap()
    }

    async fn restarted(mut self, config: &Config) -> Self {
        self.tasks.shutdown().await;
        Self::new(config, self.dir)
    }
}

fn rig(config: &Config) -> Rig {
    Rig::new(config, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn a_pause_holds_the_writer_and_survives_a_restart() {
    let config = Config { pause_max: Duration::from_secs(1 << 40), ..Config::default() };
    let mut rig = rig(&config);
    assert_eq!(rig.outcome("pause", None).await, "done");
    assert_eq!(*rig.pause_barrier.borrow(), PauseBarrier::At(100));
    let mut rig = rig.restarted(&config).await;
    assert_eq!(*rig.pause_barrier.borrow(), PauseBarrier::At(100));
    assert_eq!(rig.outcome("resume", None).await, "done");
    assert_eq!(*rig.pause_barrier.borrow(), PauseBarrier::None);
    let rig = rig.restarted(&config).await;
    assert_eq!(*rig.pause_barrier.borrow(), PauseBarrier::None);
}

#[tokio::test]
async fn a_pause_ends_by_itself() {
    let config = Config { pause_max: Duration::from_secs(1 << 40), ..Config::default() };
    let mut full = rig(&config);
    assert_eq!(full.outcome("pause", None).await, "done");
    full.fill.store(81, Ordering::Relaxed);
    let row = full.row().await;
    assert_eq!((row.command.as_str(), row.source.as_str()), ("resume", "self"));
    assert_eq!(*full.pause_barrier.borrow(), PauseBarrier::None);
    assert_eq!(full.outcome("pause", None).await, "refused");

    let mut old = rig(&Config { pause_max: Duration::from_millis(1), ..Config::default() });
    assert_eq!(old.outcome("pause", None).await, "done");
    assert_eq!(old.row().await.command, "resume");
}

#[tokio::test]
async fn a_flush_waits_for_the_store_and_delays_nobody() {
    let config = Config { pause_max: Duration::from_secs(1 << 40), ..Config::default() };
    let mut rig = rig(&config);
    rig.outcome("pause", None).await;
    rig.end.store(200, Ordering::Relaxed);
    rig.send("flush", None).await;
    assert_eq!(rig.outcome("status", None).await, "done", "while the flush waits");
    assert_eq!(*rig.pause_barrier.borrow(), PauseBarrier::At(200), "writes on, then holds again");
    rig.stored.send_replace(199);
    sleep(Duration::from_millis(20)).await;
    assert!(rig.arrivals.try_recv().is_err(), "one record is missing");
    rig.stored.send_replace(200);
    let row = rig.row().await;
    assert_eq!((row.command.as_str(), row.outcome.as_deref()), ("flush", Some("done")));
    rig.end.store(201, Ordering::Relaxed);
    let command = Command { command: "flush".into(), timeout: Some(Duration::from_millis(10)), ..Command::default() };
    let job = ReceivedCommand { command, channel: "c".into(), payload: Bytes::new(), received_at: 1, reserved: None };
    rig.jobs.send(job).await.unwrap();
    assert_eq!(rig.row().await.outcome.as_deref(), Some("failed"));
}

#[tokio::test]
async fn commands_are_obeyed_as_configured() {
    for (obey, target, outcome) in [
        (Obey::All, None, "done"),
        (Obey::All, Some("ingest"), "done"),
        (Obey::All, Some("one"), "done"),
        (Obey::All, Some("two"), "ignored"),
        (Obey::All, Some("trainer"), "ignored"),
        (Obey::Targeted, None, "ignored"),
        (Obey::Targeted, Some("one"), "done"),
        (Obey::None, Some("one"), "ignored"),
    ] {
        let mut rig = rig(&Config { obey, ..Config::default() });
        assert_eq!(rig.outcome(" Resume ", target).await, outcome, "{obey:?} {target:?}");
        assert_eq!(rig.outcome("stop", target).await, "ignored");
    }
}
