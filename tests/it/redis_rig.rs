//! A private Redis and a source that is subscribed to it, for tests of single components.

use std::{
    collections::VecDeque,
    process::{Child, Command as Process, Stdio},
    sync::Arc,
    time::Duration,
};

use cascor_ingest::{
    frame::{Frame, IntakeItem},
    gaps::{Gap, GapReason},
    lifecycle::{Readiness, Signal, Stopper},
    metrics::Metrics,
    redis::Config,
    source::{Input, QueueUsage, SourceStatus, pubsub::PubSub, queue},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// A private Redis.
pub struct Server {
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    pub async fn start(port: u16, arguments: &[&str]) -> Self {
        let mut server =
            Self { port, arguments: arguments.iter().map(|text| (*text).to_owned()).collect(), process: None };
        server.up().await;
        server
    }

    pub async fn up(&mut self) {
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

    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Process::new("kill").args([name, &id]).status().unwrap().success());
    }

    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Process::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Many commands over one connection.
    pub fn pipe(&self, commands: &str) {
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

    pub fn config(&self) -> Config {
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
pub struct Rig {
    pub arrivals: mpsc::Receiver<IntakeItem>,
    pub bytes: QueueUsage,
    /// Messages that came with the last one.
    frames: VecDeque<Frame>,
    pub status: SourceStatus,
    pub readiness: Readiness,
    pub stopper: Stopper,
    pub tasks: JoinSet<()>,
}

impl Rig {
    pub fn start(config: &Config) -> Self {
        let readiness = Readiness::default();
        readiness.set_spool_writable(true);
        let status = SourceStatus::new(readiness.clone());
        let (stopper, stop) = Signal::new();
        let (queue, arrivals, bytes) = queue(config.queue_frames, config.queue_bytes.as_usize());
        let metrics = Metrics::new();
        let mut tasks = JoinSet::new();
        let inputs = [
            Input::new(PubSub::training(config, &status, Arc::clone(&metrics)), queue.clone()),
            Input::new(PubSub::control(config, &status, Arc::clone(&metrics)), queue),
        ];
        for input in inputs {
            tasks.spawn(input.run(Arc::clone(&metrics), stop.clone()));
        }
        Self { arrivals, bytes, frames: VecDeque::new(), status, readiness, stopper, tasks }
    }

    pub async fn ready(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        while !self.readiness.missing().is_empty() {
            assert!(begun.elapsed() < within, "not ready: {:?}", self.status.connections());
            sleep(Duration::from_millis(2)).await;
        }
        begun.elapsed()
    }

    pub async fn not_ready(&self, within: Duration) {
        let begun = Instant::now();
        while self.readiness.missing().is_empty() {
            assert!(begun.elapsed() < within, "still ready");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// The next item; messages that came together are taken apart.
    pub async fn next(&mut self) -> Option<IntakeItem> {
        if let Some(frame) = self.frames.pop_front() {
            return Some(IntakeItem::Frames(vec![frame]));
        }
        match timeout(Duration::from_secs(5), self.arrivals.recv()).await.ok().flatten()? {
            IntakeItem::Frames(frames) => {
                frames.iter().for_each(|frame| self.bytes.taken(frame));
                self.frames = frames.into();
                self.frames.pop_front().map(|frame| IntakeItem::Frames(vec![frame]))
            }
            other => Some(other),
        }
    }

    pub async fn frame(&mut self) -> Frame {
        loop {
            match self.next().await {
                Some(IntakeItem::Frames(mut frames)) => return frames.remove(0),
                Some(_) => {}
                None => panic!("no frame"),
            }
        }
    }

    pub async fn gap(&mut self, reason: GapReason) -> Gap {
        loop {
            match self.next().await {
                Some(IntakeItem::Gap(gap)) if gap.reason == reason => return gap,
                Some(_) => {}
                None => panic!("no gap {reason}"),
            }
        }
    }
}

pub const SOON: Duration = Duration::from_millis(250);
