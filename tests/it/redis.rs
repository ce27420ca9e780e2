//! The source, the latest keys and the commands against a real Redis.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::PathBuf,
    process::{Child, Command as Process, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cascor_ingest::{
    control::{self, Command, Identity, Job, Levers, Stage},
    event::Decided,
    frame::{Arrival, Frame, Gap, GapReason},
    latest::{self, Board, Render, Subject, Update, flusher},
    lifecycle::{Hold, Readiness, Signal, Stopper},
    metrics::Metrics,
    redis::{Config, Link, RunShare},
    secret::Secret,
    source::{QueuedBytes, SourceStatus, pubsub::Source, queue},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// A Redis of the test's own.
struct Server {
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    async fn start(port: u16, arguments: &[&str]) -> Self {
        let mut server =
            Self { port, arguments: arguments.iter().map(|text| (*text).to_owned()).collect(), process: None };
        server.up().await;
        server
    }

    async fn up(&mut self) {
        let process = Process::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("redis does not start");
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Process::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let output = Process::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Many commands over one connection.
    fn pipe(&self, commands: &str) {
        use std::io::Write;
        let mut cli = Process::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--pipe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        cli.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(cli.wait().unwrap().success());
    }

    fn config(&self) -> Config {
        Config { url: format!("redis://127.0.0.1:{}/0", self.port), ..Config::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A running source.
struct Rig {
    arrivals: mpsc::Receiver<Arrival>,
    bytes: QueuedBytes,
    status: SourceStatus,
    readiness: Readiness,
    stopper: Stopper,
    tasks: JoinSet<()>,
}

impl Rig {
    fn start(config: &Config) -> Self {
        let readiness = Readiness::default();
        readiness.set_spool_writable(true);
        let status = SourceStatus::new(readiness.clone());
        let (stopper, stop) = Signal::new();
        let (queue, arrivals, bytes) = queue(config.queue_frames, config.queue_bytes.as_usize());
        let metrics = Metrics::new();
        let mut tasks = JoinSet::new();
        let sources = [
            Source::training(config, queue.clone(), status.clone(), Arc::clone(&metrics)),
            Source::control(config, queue, status.clone(), metrics),
        ];
        for source in sources {
            let stop = stop.clone();
            tasks.spawn(async move {
                let Ok(()) = source.run(stop).await;
            });
        }
        Self { arrivals, bytes, status, readiness, stopper, tasks }
    }

    async fn ready(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        while !self.readiness.missing().is_empty() {
            assert!(begun.elapsed() < within, "not ready: {:?}", self.status.connections());
            sleep(Duration::from_millis(2)).await;
        }
        begun.elapsed()
    }

    async fn not_ready(&self, within: Duration) {
        let begun = Instant::now();
        while self.readiness.missing().is_empty() {
            assert!(begun.elapsed() < within, "still ready");
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn next(&mut self) -> Option<Arrival> {
        let arrival = timeout(Duration::from_secs(5), self.arrivals.recv()).await.ok().flatten()?;
        if let Arrival::Frame(frame) = &arrival {
            self.bytes.taken(frame);
        }
        Some(arrival)
    }

    async fn frame(&mut self) -> Frame {
        loop {
            match self.next().await {
                Some(Arrival::Frame(frame)) => return frame,
                Some(_) => {}
                None => panic!("no frame"),
            }
        }
    }

    async fn gap(&mut self, reason: GapReason) -> Gap {
        loop {
            match self.next().await {
                Some(Arrival::Gap(gap)) if gap.reason == reason => return gap,
                Some(_) => {}
                None => panic!("no gap {reason}"),
            }
        }
    }
}

const SOON: Duration = Duration::from_millis(250);

/// RESP of `PUBLISH channel payload`, over and over.
fn publishes(channel: &str, payload: &str, times: usize) -> String {
    let command =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n", channel.len(), payload.len());
    command.repeat(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_received_soon_after_the_start_and_our_own_are_not() {
    let server = Server::start(16_401, &[]).await;
    let config = Config { training_channels: vec!["cascor:training".into(), "*:ingest:*".into()], ..server.config() };
    let mut rig = Rig::start(&config);
    let took = rig.ready(SOON).await;
    println!("ready after {took:?}");
    assert!(rig.status.first_proven().borrow().is_some());
    server.cli(&["PUBLISH", "cascor:ingest:run:x", "ours"]);
    for n in 0..100 {
        server.cli(&["PUBLISH", "cascor:training", &format!("{n}")]);
    }
    server.cli(&["PUBLISH", "cascor:control", "pause"]);
    server.cli(&["PUBLISH", "lab:ingest:a", "pattern"]);
    // The command comes on a connection of its own, before or after anything else.
    let mut frames = Vec::new();
    for _ in 0..102 {
        frames.push(rig.frame().await);
    }
    let (commands, frames): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.control);
    assert_eq!(
        commands.iter().map(|frame| (&*frame.channel, &frame.payload[..])).collect::<Vec<_>>(),
        [("cascor:control", &b"pause"[..])]
    );
    for (n, frame) in frames[..100].iter().enumerate() {
        assert_eq!((&*frame.channel, &frame.payload[..]), ("cascor:training", n.to_string().as_bytes()));
        assert!(n == 0 || frame.received_at > frames[n - 1].received_at);
    }
    assert_eq!((&*frames[100].channel, &frames[100].payload[..]), ("lab:ingest:a", &b"pattern"[..]));
    assert_eq!(rig.bytes.get(), 0);
    rig.stopper.stop();
    while rig.tasks.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_a_flood_is_a_frame_or_in_a_gap() {
    let server = Server::start(16_402, &[]).await;
    for (name, config) in [
        ("queue", Config { queue_frames: 1_000, ..server.config() }),
        ("ring", Config { receive_buffer: 64, ..server.config() }),
    ] {
        let mut rig = Rig::start(&config);
        rig.ready(SOON).await;
        tokio::task::block_in_place(|| server.pipe(&publishes("cascor:training", "{\"epoch\":1}", 100_000)));
        let (mut frames, mut lost) = (0, 0);
        let mut reasons = std::collections::BTreeSet::new();
        while frames + lost < 100_000 {
            match rig.next().await {
                Some(Arrival::Frame(_)) => frames += 1,
                Some(Arrival::Gap(gap)) => {
                    assert!(gap.started_at <= gap.ended_at);
                    reasons.insert(gap.reason.as_str());
                    lost += gap.lost.unwrap();
                }
                other => panic!("{name}: {frames} frames, {lost} lost, {reasons:?}, {other:?}"),
            }
        }
        println!("{name}: {frames} frames, {lost} lost, {reasons:?}");
        assert_eq!(frames + lost, 100_000, "{name}");
        assert!(reasons.contains(if name == "queue" { "queue_full" } else { "client_lag" }), "{name}: {reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_be_absent_at_start_and_die_and_come_back() {
    let mut server = Server::start(16_403, &[]).await;
    server.kill();
    let mut rig = Rig::start(&server.config());
    sleep(Duration::from_millis(300)).await;
    let error = rig.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("refused"), "{error}");
    server.up().await;
    let took = rig.ready(SOON).await;
    println!("ready {took:?} after the first start");
    for round in 0..3 {
        server.kill();
        rig.not_ready(SOON).await;
        sleep(Duration::from_millis(700)).await;
        server.up().await;
        let took = rig.ready(SOON).await;
        println!("ready {took:?} after the restart");
        let gap = rig.gap(GapReason::Disconnected).await;
        assert!(gap.ended_at - gap.started_at >= 700_000, "{round}: {gap:?}");
        assert_eq!(gap.lost, None);
        let other = rig.gap(GapReason::Disconnected).await;
        assert_ne!(gap.source, other.source);
        server.cli(&["PUBLISH", "cascor:training", "back"]);
        assert_eq!(&rig.frame().await.payload[..], b"back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_is_noticed_and_heard_again() {
    let server = Server::start(16_404, &[]).await;
    let mut rig = Rig::start(&server.config());
    rig.ready(SOON).await;
    server.signal("-STOP");
    rig.not_ready(Duration::from_secs(6)).await;
    sleep(Duration::from_secs(4)).await;
    assert!(rig.status.connections()[0].error.as_deref().unwrap().contains("in time"), "{:?}", rig.status);
    server.signal("-CONT");
    rig.ready(Duration::from_millis(500)).await;
    let gap = rig.gap(GapReason::Disconnected).await;
    assert!(gap.ended_at - gap.started_at > 5_000_000, "{gap:?}");
    server.cli(&["PUBLISH", "cascor:training", "back"]);
    assert_eq!(&rig.frame().await.payload[..], b"back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_named_and_tried_again() {
    let server = Server::start(16_405, &["--requirepass", "right"]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong-secret\n").unwrap();
    let nothing = Rig::start(&server.config());
    let mut rig = Rig::start(&Config { password_file: Some(file.clone()), ..server.config() });
    sleep(Duration::from_millis(500)).await;
    let error = rig.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("WRONGPASS") && !error.contains("wrong-secret"), "{error}");
    let error = nothing.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("NOAUTH"), "{error}");
    std::fs::write(&file, "right\n").unwrap();
    rig.ready(Duration::from_millis(1_300)).await;
    server.cli(&["-a", "right", "PUBLISH", "cascor:training", "in"]);
    assert_eq!(&rig.frame().await.payload[..], b"in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_channel_is_named_and_the_others_work() {
    let server = Server::start(16_406, &[]).await;
    server.cli(&[
        "ACL",
        "SETUSER",
        "me",
        "on",
        ">pw",
        "+@all",
        "~*",
        "resetchannels",
        "&cascor:training",
        "&cascor:control",
    ]);
    let config = Config {
        username: Some("me".into()),
        password: Some(Secret::new("pw")),
        training_channels: vec!["lab:*".into(), "cascor:training".into(), "cascor:events".into()],
        ..server.config()
    };
    let mut rig = Rig::start(&config);
    sleep(Duration::from_millis(800)).await;
    assert_eq!(rig.status.unproven(), ["lab:*", "cascor:events"]);
    assert!(rig.status.connections()[0].error.as_deref().unwrap().contains("NOPERM"));
    assert!(!rig.readiness.missing().is_empty());
    server.cli(&["PUBLISH", "cascor:training", "heard"]);
    assert_eq!(&rig.frame().await.payload[..], b"heard");
    server.cli(&["ACL", "SETUSER", "me", "&cascor:events", "&lab:*"]);
    rig.ready(Duration::from_secs(5)).await;
    let gap = rig.gap(GapReason::NotListening).await;
    assert!(gap.channel.is_some(), "{gap:?}");
    server.cli(&["PUBLISH", "cascor:events", "heard"]);
    assert_eq!(&*rig.frame().await.channel, "cascor:events");
    // Taken away again: Redis closes the connection.
    server.cli(&["ACL", "SETUSER", "me", "resetchannels", "&cascor:training", "&cascor:control"]);
    rig.not_ready(SOON).await;
    sleep(Duration::from_millis(800)).await;
    server.cli(&["PUBLISH", "cascor:training", "still"]);
    assert_eq!(&rig.frame().await.payload[..], b"still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_may_do_what_they_like() {
    let server = Server::start(16_407, &["--client-output-buffer-limit", "pubsub 1mb 0 0"]).await;
    let mut rig = Rig::start(&server.config());
    rig.ready(SOON).await;
    server.cli(&["FLUSHALL"]);
    server.cli(&["PUBLISH", "cascor:training", "after the flush"]);
    assert_eq!(&rig.frame().await.payload[..], b"after the flush");
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    rig.gap(GapReason::Disconnected).await;
    rig.ready(SOON).await;
    // One message larger than what Redis holds for a subscriber: it closes the connection.
    let large = "x".repeat(8 << 20);
    tokio::task::block_in_place(|| server.pipe(&publishes("cascor:training", &large, 1)));
    let gap = loop {
        match rig.next().await.expect("a gap") {
            Arrival::Gap(gap) if gap.source == "redis" => break gap,
            _ => {}
        }
    };
    println!("{gap:?}");
    // Listening again is seen at the first message that comes: the one who published the large one may still be cut off.
    let heard = async {
        loop {
            server.cli(&["PUBLISH", "cascor:training", "after the cut"]);
            if let Ok(frame) = timeout(SOON, rig.frame()).await {
                break frame;
            }
        }
    };
    let heard = timeout(Duration::from_secs(5), heard).await.expect("listening again");
    assert_eq!(&heard.payload[..], b"after the cut");
}

struct AsIs;

impl Render for AsIs {
    fn render(&self, payload: &[u8], _: &Decided, _: bool, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(payload));
    }
}

fn update(subject: Subject, run: u128, time: i64, payload: &str) -> Update {
    let decided =
        Decided { run_id: Uuid::from_u128(run), event_time: time, received_at: time, own_time: true, opened: false };
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Update { subject, payload, decided, seq: None, received: Instant::now() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_keys_are_set_coalesced_set_again_and_cleared() {
    let mut server = Server::start(16_408, &[]).await;
    let (_stopper, stop) = Signal::new();
    let metrics = Metrics::new();
    let (mut link, keep_up) = Link::new(&server.config(), stop.clone());
    let board = Board::new(&latest::Config::default(), "cascor:", Arc::clone(&metrics));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = keep_up.await;
    });
    let flush = flusher(
        Arc::clone(&board),
        link.clone(),
        Arc::new(AsIs),
        "one".into(),
        Arc::new(|| r#"{"phase":"running"}"#.to_owned()),
        Arc::clone(&metrics),
        stop,
    );
    tasks.spawn(async move {
        let Ok(()) = flush.await;
    });
    link.connected().await.unwrap();
    let run = Uuid::from_u128(1);
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        n += 1;
        board.offer(update(Subject::Metrics, 1, n, &format!("{{\"n\":{n}}}")));
        sleep(Duration::from_millis(1)).await;
    }
    board.offer(update(Subject::Topology, 1, 1, "{\"t\":1}"));
    board.offer(update(Subject::State, 1, 1, "{\"s\":1}"));
    sleep(Duration::from_millis(150)).await;
    let newest = format!("{{\"n\":{n}}}");
    for (key, value, ttl) in [
        ("cascor:metrics:latest".to_owned(), newest.as_str(), 700..=1_000),
        (format!("cascor:metrics:{run}:latest"), newest.as_str(), 700..=1_000),
        ("cascor:topology:latest".to_owned(), "{\"t\":1}", 4_700..=5_000),
        (format!("cascor:topology:{run}:latest"), "{\"t\":1}", 4_700..=5_000),
        ("cascor:state:latest".to_owned(), "{\"s\":1}", 59_000..=60_000),
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
    sleep(Duration::from_millis(500)).await;
    assert_eq!(server.cli(&["GET", "cascor:state:latest"]), "{\"s\":1}", "set again");
    let left: u64 = server.cli(&["PTTL", "cascor:state:latest"]).parse().unwrap();
    assert!(left < 59_500, "with what remains of its lifetime: {left}");
    assert_eq!(server.cli(&["GET", "cascor:metrics:latest"]), "", "expired");
    assert!(server.cli(&["GET", "cascor:history:latest"]).ends_with(&format!("{newest}]")));

    server.cli(&["FLUSHALL"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    board.offer(update(Subject::State, 1, 2, "{\"s\":2}"));
    sleep(Duration::from_millis(200)).await;
    assert!(metrics.latest_errors.get() > 0);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    board.offer(update(Subject::State, 1, 3, "{\"s\":3}"));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(server.cli(&["GET", "cascor:state:latest"]), "{\"s\":3}");
    server.cli(&["SET", "somebody:else", "1"]);
    board.clear(link.client().as_ref()).await.unwrap();
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
    let (hold, mut held) = watch::channel(Hold::Open);
    let (_stored, stored) = watch::channel(0);
    let (to_intake, mut receipts) = mpsc::channel(16);
    let levers = Levers {
        hold,
        stored,
        end: Box::new(|| 7),
        spool_fill: Box::new(|| 0.0),
        status: Box::new(|| r#"{"phase":"running"}"#.into()),
        board: Board::new(&latest::Config::default(), "cascor:", Arc::clone(&metrics)),
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
    let stage = Stage::new(&control::Config::default(), identity, levers, metrics);
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
        jobs.send(Job { command, channel, payload, received_at }).await.unwrap();
        let row = loop {
            match receipts.recv().await.unwrap() {
                Arrival::Receipt(row) => break row,
                Arrival::CloseRuns => assert_eq!(sent, "reset"),
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
            assert_eq!(*held.borrow_and_update(), Hold::After(7));
        }
    }
    let share = RunShare::new(link, "cascor:");
    assert_eq!(share.fetch("cascor:training").await, None);
    share.publish("cascor:training", "{\"run\":1}".into()).await;
    assert_eq!(share.fetch("cascor:training").await.as_deref(), Some("{\"run\":1}"));
    assert_eq!(server.cli(&["GET", "cascor:ingest:run:cascor:training"]), "{\"run\":1}");
}

/// A CA, and a certificate of `127.0.0.1` that it signed.
fn certificates(dir: &std::path::Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout one.key -out one.csr
        echo subjectAltName=IP:127.0.0.1 > ext
        openssl x509 -req -in one.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out one.pem";
    let made = Process::new("sh").args(["-ec", script]).current_dir(dir).stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (text("ca.pem"), text("one.pem"), text("one.key"));
    let _server = Server::start(
        16_410,
        &[
            "--port",
            "0",
            "--tls-port",
            "16410",
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
        ],
    )
    .await;
    let url = "rediss://127.0.0.1:16410/0".to_owned();
    let tls =
        cascor_ingest::tls::Tls { ca: Some(path("ca.pem")), cert: Some(path("one.pem")), key: Some(path("one.key")) };
    let rig = Rig::start(&Config { url: url.clone(), tls, ..Config::default() });
    rig.ready(Duration::from_secs(1)).await;
    // Without the CA its certificate is nobody's.
    let stranger = Rig::start(&Config { url, ..Config::default() });
    sleep(Duration::from_millis(700)).await;
    let error = stranger.status.connections()[0].error.clone().unwrap();
    assert!(error.to_lowercase().contains("certificate") || error.contains("UnknownIssuer"), "{error}");
}
