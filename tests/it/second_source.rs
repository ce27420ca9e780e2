//! A test source with acknowledgements: it waits while its queue is full, and keeps a message until it is acknowledged. The
//! receive thread, the queue, intake and the spool take it as it is.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use cascor_ingest::{
    frame::{Frame, IntakeItem},
    intake::{self, Intake, IntakeDeps, RunSharing},
    latest::LatestState,
    lifecycle::{Readiness, Signal},
    live::LiveFeed,
    memory::MemoryLimit,
    metrics::Metrics,
    runs::OpenRun,
    service_manager::Heartbeat,
    source::{self, Input, QueueSender, QueueUsage, Role, Running, Source, WhenFull, queue},
    spool::{self, Appender, RecordKind},
    wire::Limits,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

const MESSAGES: u64 = 200;
const QUEUE_FRAMES: usize = 8;
const LIMIT: Duration = Duration::from_secs(20);

/// A stand-in for a server that keeps a message until it is acknowledged, and sends it again otherwise.
struct Keeping {
    payloads: VecDeque<String>,
    /// The acknowledged payloads, in order.
    acknowledged: mpsc::Sender<String>,
}

impl Source for Keeping {
    fn role(&self) -> Role {
        Role::Training
    }

    fn when_full(&self) -> WhenFull {
        WhenFull::Wait
    }

    fn run(self: Box<Self>, sender: QueueSender, stop: Signal) -> Running {
        Box::pin(self.deliver_until_acknowledged(sender, stop))
    }
}

impl Keeping {
    async fn deliver_until_acknowledged(mut self, mut sender: QueueSender, mut stop: Signal) {
        let mut delivered: Vec<String> = Vec::new();
        loop {
            let mut frames: Vec<_> = self.payloads.iter().map(|payload| frame(payload)).collect();
            delivered.extend(self.payloads.drain(..));
            sender.deliver(&mut frames).await.unwrap();
            let settled = tokio::select! {
                () = stop.stopped() => return,
                settled = sender.settled() => settled,
            };
            for number in
                settled.iter().flat_map(|settled| (settled.first..=settled.last).map(|n| (n, settled.durable)))
            {
                let payload = delivered[usize::try_from(number.0).unwrap()].clone();
                match number.1 {
                    true => self.acknowledged.send(payload).await.unwrap(),
                    false => self.payloads.push_back(payload),
                }
            }
        }
    }
}

fn frame(payload: &str) -> Frame {
    Frame {
        channel: "stream".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        received_at: 1_763_633_710_000_000,
        received: Instant::now(),
        control: false,
        entry: None,
    }
}

fn payloads() -> VecDeque<String> {
    (0..MESSAGES).map(|n| format!(r#"{{"run_id":"kept","epoch":{n},"loss":0.5}}"#)).collect()
}

async fn all(acknowledged: &mut mpsc::Receiver<String>) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < MESSAGES as usize {
        found.push(timeout(LIMIT, acknowledged.recv()).await.unwrap().unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_waits_loses_nothing_in_a_full_queue_and_gets_what_is_refused_once_more() {
    let (queue, mut items, bytes) = queue(QUEUE_FRAMES, 2_000);
    let (acknowledged_out, mut acknowledged) = mpsc::channel(MESSAGES as usize);
    let (stopper, stop) = Signal::new();
    let metrics = Metrics::new();
    let source = Keeping { payloads: payloads(), acknowledged: acknowledged_out };
    let ended = source::receive(vec![Input::new(source, queue)], Arc::clone(&metrics), stop).unwrap();
    let mut refused = 0;
    let mut intake = JoinSet::new();
    intake.spawn(async move {
        // Intake is not running yet: the queue is full, and the source waits.
        let full_by = Instant::now() + LIMIT;
        while bytes.frames() < QUEUE_FRAMES {
            assert!(Instant::now() < full_by, "the queue never fills");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut seen = 0_u64;
        while let Some(item) = items.recv().await {
            let IntakeItem::TrackedFrames(frames) = item else { panic!("{item:?}") };
            for (frame, tag) in frames {
                bytes.taken(&frame);
                seen += 1;
                // Every third message is refused until the end of the first round.
                let durable = seen > MESSAGES || !seen.is_multiple_of(3);
                refused += u64::from(!durable);
                tag.settle(durable);
            }
        }
        (seen, refused, bytes.bytes())
    });
    let mut found = all(&mut acknowledged).await;
    stopper.stop();
    timeout(LIMIT, ended).await.unwrap().unwrap();
    let (seen, refused, left) = timeout(LIMIT, intake.join_next()).await.unwrap().unwrap().unwrap();
    found.sort();
    let mut expected = Vec::from(payloads());
    expected.sort();
    assert_eq!(found, expected, "each is acknowledged once");
    assert_eq!((seen, left), (MESSAGES + refused, 0));
    assert!(refused > 50);
    assert!(
        metrics.page().contains("cascor_source_lost_messages_total{reason=\"queue_full\"} 0"),
        "nothing is counted"
    );
}

/// No other instance shares a run.
struct Unshared;

impl RunSharing for Unshared {
    fn fetch(&mut self, _channel: &str) -> Option<OpenRun> {
        None
    }
    fn publish(&mut self, _channel: &str, _open: &OpenRun) {}
    fn forget(&mut self, _channel: &str) {}
}

fn intake_of(dir: &std::path::Path, spool: spool::Opened, bytes: QueueUsage, metrics: &Arc<Metrics>) -> Intake {
    let recovery = spool.recovery;
    Intake::new(deps_of(dir, spool.appender, bytes, metrics), &recovery)
}

/// What intake depends on.
pub(crate) fn deps_of(
    dir: &std::path::Path,
    appender: Appender,
    bytes: QueueUsage,
    metrics: &Arc<Metrics>,
) -> IntakeDeps {
    let memory = MemoryLimit::default();
    IntakeDeps {
        config: intake::Config::default(),
        limits: watch::channel(Limits::default()).1,
        state_dir: dir.to_owned(),
        appender,
        latest: LatestState::new(&Default::default(), "cascor:", memory, Arc::clone(metrics)),
        live: LiveFeed::new(1 << 20, 1),
        commands: mpsc::channel(1).0,
        instance: "test".into(),
        streams: Vec::new(),
        sharing: Box::new(Unshared),
        readiness: Readiness::default(),
        last_gap: watch::channel(None).0,
        metrics: Arc::clone(metrics),
        heartbeat: Heartbeat::default(),
        low_watermark: Box::new(|| None),
        return_bytes: Box::new(move |frame| bytes.taken(frame)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intake_acknowledges_each_message_of_such_a_source_once_it_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let config = spool::Config { dir: dir.path().join("spool"), ..spool::Config::default() };
    let spool = spool::open(&config, Arc::clone(&metrics)).unwrap();
    let view = spool.view.clone();
    let (queue, items, bytes) = queue(QUEUE_FRAMES, 1 << 20);
    let (control_out, control) = mpsc::channel(1);
    let intake = intake_of(dir.path(), spool, bytes.clone(), &metrics);
    let intake = thread::spawn(move || intake.run(items, control));
    let (acknowledged_out, mut acknowledged) = mpsc::channel(MESSAGES as usize);
    let (stopper, stop) = Signal::new();
    let mut messages = payloads();
    messages[7] = "{broken".into();
    let source = Keeping { payloads: messages.clone(), acknowledged: acknowledged_out };
    let ended = source::receive(vec![Input::new(source, queue)], Arc::clone(&metrics), stop).unwrap();
    let mut sent = messages.iter();
    while sent.len() > 0 {
        let payload = timeout(LIMIT, acknowledged.recv()).await.unwrap().unwrap();
        assert_eq!(&payload, sent.next().unwrap(), "in their order");
        let taken = MESSAGES - sent.len() as u64;
        assert!(view.durable() >= taken, "message {taken} is acknowledged before it is on disk");
    }
    stopper.stop();
    timeout(LIMIT, ended).await.unwrap().unwrap();
    drop(control_out);
    intake.join().unwrap();
    assert_eq!(bytes.bytes(), 0, "the queue has its bytes back");
    let mut kinds = Vec::new();
    for chunk in view.records_from(0) {
        kinds.extend(chunk.unwrap().records().map(|record| record.kind));
    }
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((count(RecordKind::Event), count(RecordKind::Rejected)), (MESSAGES as usize - 1, 1));
    assert_eq!(metrics.intake_rejected.of("malformed_json").get(), 1);
}
