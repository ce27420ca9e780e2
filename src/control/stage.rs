//! Executes commands in order; `flush` and `reset`, which take long, run concurrently.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use fred::{
    interfaces::{KeysInterface, PubsubInterface},
    types::Expiration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    config::{Config, Obey},
    pause::{Pause, PauseFile},
    ports::{ControlPorts, Identity},
    receipt::{receipt_json, result_row},
};
use crate::{
    frame::{IntakeItem, Outcome, Receipt, SOURCE_SELF},
    lifecycle::{PauseBarrier, Signal, next_tick},
    logging::{Chain, Untrusted},
    metrics::Metrics,
    redis::{Link, Resource},
    units::{self, Micros},
    wire::{Command, ReceivedCommand},
    words::counted,
};

/// Flushes and resets under way at once.
const MAX_RUNNING: usize = 16;
/// Answers that wait to be published; more are dropped, because the log has them.
const ANSWERS_MAX: usize = 256;
/// Records that wait for room in the queue to intake.
const RECORDS_MAX: usize = 4_096;
/// How full a spool may get during a pause.
const PAUSED_SPOOL_FILL_MAX: f64 = 0.8;
/// How often a pause is looked after.
const PAUSE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long an answer waits for Redis.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The control stage.
pub struct Stage {
    config: Config,
    identity: Identity,
    ports: ControlPorts,
    metrics: Arc<Metrics>,
    file: PauseFile,
    pause: Option<Pause>,
    running: JoinSet<CommandResult>,
    records: VecDeque<IntakeItem>,
}

/// A command with its outcome.
struct CommandResult {
    job: ReceivedCommand,
    started: Instant,
    outcome: Outcome,
    detail: String,
}

impl Stage {
    /// Restores the pause that was in force before a restart; to be called before the writer starts.
    pub fn new(config: &Config, identity: Identity, ports: ControlPorts, metrics: Arc<Metrics>) -> Self {
        metrics.control_commands.show(Outcome::ALL.map(Outcome::as_str));
        let file = PauseFile::in_dir(&identity.state_dir);
        let mut stage = Self {
            config: config.clone(),
            identity,
            ports,
            metrics,
            pause: file.load(),
            file,
            running: JoinSet::new(),
            records: VecDeque::new(),
        };
        if let Some(pause) = &mut stage.pause {
            // Another spool counts from the beginning again.
            pause.after = pause.after.min((stage.ports.received_end)());
            info!("still paused, as before the restart; `resume` ends it");
        }
        stage.apply_pause();
        stage
    }

    /// Executes commands until told to stop, or until intake has ended.
    ///
    /// # Errors
    /// None: a command that fails is answered so.
    pub async fn run(mut self, jobs: mpsc::Receiver<ReceivedCommand>, stop: Signal) -> Result<(), Infallible> {
        let (answers, queue) = mpsc::channel(ANSWERS_MAX);
        let publisher = publish(self.ports.link.clone(), self.identity.clone(), queue);
        tokio::join!(self.execute_all(jobs, answers, stop), publisher);
        Ok(())
    }

    async fn execute_all(
        &mut self,
        mut jobs: mpsc::Receiver<ReceivedCommand>,
        answers: mpsc::Sender<String>,
        mut stop: Signal,
    ) {
        let mut check_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                job = jobs.recv() => match job {
                    Some(job) => {
                        if let Some(result) = self.execute(job).await {
                            self.publish_result(result, &answers);
                        }
                    }
                    None => break,
                },
                Some(Ok(result)) = self.running.join_next() => self.publish_result(result, &answers),
                () = sleep_until(check_at) => {
                    check_at = next_tick(Instant::now(), PAUSE_CHECK_INTERVAL);
                    if let Some(result) = self.expire_pause().await {
                        self.publish_result(result, &answers);
                    }
                }
            }
            self.forward_records();
        }
        self.running.abort_all();
        self.forward_records();
    }

    /// Executes one command. `None`: it runs concurrently, and its result comes later.
    async fn execute(&mut self, job: ReceivedCommand) -> Option<CommandResult> {
        let started = Instant::now();
        info!(
            command = %Untrusted(job.command.command.as_bytes()),
            target = job.command.target.as_deref().map(|target| Untrusted(target.as_bytes()).to_string()),
            "command received"
        );
        if let Some(why) = self.ignore_reason(&job.command) {
            return Some(CommandResult { job, started, outcome: Outcome::Ignored, detail: why.into() });
        }
        let name = job.command.command.trim().to_ascii_lowercase();
        let (outcome, detail) = match name.as_str() {
            "pause" => self.pause(job.received_at).await,
            "resume" => self.resume().await,
            "status" => (Outcome::Done, (self.ports.status)()),
            "flush" | "reset" if self.running.len() >= MAX_RUNNING => {
                (Outcome::Refused, format!("{MAX_RUNNING} commands are still being executed"))
            }
            "flush" => {
                self.flush(job, started).await;
                return None;
            }
            "reset" => {
                self.reset(job, started);
                return None;
            }
            _ => (Outcome::Ignored, NO_COMMAND.into()),
        };
        Some(CommandResult { job, started, outcome, detail })
    }

    fn ignore_reason(&self, command: &Command) -> Option<&'static str> {
        let addressed = match command.target.as_deref() {
            None => false,
            Some(target) if target == "ingest" || target == self.identity.instance => true,
            Some(_) => return Some(NOT_ADDRESSED),
        };
        match self.config.obey {
            Obey::All => None,
            Obey::Targeted if addressed => None,
            Obey::Targeted => Some("only commands addressed to us are obeyed (`control.obey`)"),
            Obey::None => Some("no command is obeyed (`control.obey`)"),
        }
    }

    async fn pause(&mut self, now: Micros) -> (Outcome, String) {
        let fill = (self.ports.spool_fill)();
        if fill >= PAUSED_SPOOL_FILL_MAX {
            return (Outcome::Refused, format!("the spool is {:.0} % full", fill * 100.0));
        }
        if self.pause.is_some() {
            return (Outcome::Done, "already paused".into());
        }
        let longest = Micros::try_from(self.config.pause_max.as_micros()).unwrap_or(Micros::MAX);
        self.pause = Some(Pause { since: now, until: now.saturating_add(longest), after: (self.ports.received_end)() });
        self.apply_pause();
        info!("paused; messages are received and spooled, and wait");
        match self.persist().await {
            Ok(()) => (Outcome::Done, "paused".into()),
            Err(error) => (Outcome::Done, format!("paused, but a restart would end it: {error}")),
        }
    }

    async fn resume(&mut self) -> (Outcome, String) {
        if self.pause.take().is_none() {
            return (Outcome::Done, "was not paused".into());
        }
        self.apply_pause();
        info!("resumed");
        match self.persist().await {
            Ok(()) => (Outcome::Done, "resumed".into()),
            Err(error) => (Outcome::Done, format!("resumed, but a restart would pause again: {error}")),
        }
    }

    async fn flush(&mut self, job: ReceivedCommand, started: Instant) {
        let end = (self.ports.received_end)();
        if let Some(pause) = &mut self.pause {
            pause.after = pause.after.max(end);
            self.apply_pause();
            if let Err(error) = self.persist().await {
                warn!(error, "failed to keep the pause");
            }
        }
        let wait_limit = job.command.timeout.unwrap_or(self.config.flush_timeout);
        let stored = self.ports.stored.clone();
        self.running.spawn(async move {
            let (outcome, detail) = wait_stored(stored, end, wait_limit).await;
            CommandResult { job, started, outcome, detail }
        });
    }

    fn reset(&mut self, job: ReceivedCommand, started: Instant) {
        self.record(IntakeItem::CloseRuns(job.received_at));
        let (latest_state, link) = (Arc::clone(&self.ports.latest_state), self.ports.link.clone());
        self.running.spawn(async move {
            let detail = match latest_state.clear(&link).await {
                Ok(keys) => {
                    let keys = counted(keys, "key", "keys");
                    format!("the next message without a run id begins a run; {keys} deleted")
                }
                Err(error) => format!("the next message without a run id begins a run; keys will expire: {error}"),
            };
            CommandResult { job, started, outcome: Outcome::Done, detail }
        });
    }

    /// Ends a pause that has lasted too long, or that fills the spool.
    async fn expire_pause(&mut self) -> Option<CommandResult> {
        let (pause, now) = (self.pause?, units::now());
        let fill = (self.ports.spool_fill)();
        let why = if fill >= PAUSED_SPOOL_FILL_MAX {
            format!("the pause ended by itself: the spool is {:.0} % full", fill * 100.0)
        } else if now >= pause.until {
            "the pause ended by itself: it has lasted as long as `control.pause_max` allows".into()
        } else {
            return None;
        };
        warn!(reason = why, "resumed");
        self.resume().await;
        let payload_json = r#"{"command":"resume"}"#;
        let command = Command { command: "resume".into(), payload_json: payload_json.into(), ..Command::default() };
        let payload = payload_json.into();
        let job = ReceivedCommand { command, channel: SOURCE_SELF.into(), payload, received_at: now, reserved: None };
        Some(CommandResult { job, started: Instant::now(), outcome: Outcome::Done, detail: why })
    }

    /// Updates the writer's barrier.
    fn apply_pause(&self) {
        self.ports
            .pause_barrier
            .send_replace(self.pause.map_or(PauseBarrier::None, |pause| PauseBarrier::At(pause.after)));
        self.metrics.writer_paused.set(i64::from(self.pause.is_some()));
        self.ports.latest_state.status_changed();
    }

    async fn persist(&self) -> Result<(), String> {
        let (file, pause) = (self.file.clone(), self.pause);
        let stored = tokio::task::spawn_blocking(move || file.store(pause));
        match timeout(Duration::from_secs(2), stored).await {
            Ok(Ok(stored)) => stored.map_err(|error| Chain(&error).to_string()),
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => Err("the disk does not answer".into()),
        }
    }

    fn publish_result(&mut self, result: CommandResult, answers: &mpsc::Sender<String>) {
        let CommandResult { job, started, outcome, detail } = result;
        let not_addressed = detail == NOT_ADDRESSED;
        let receipt = Receipt {
            id: job.command.id.clone(),
            command: job.command.command.clone(),
            target: job.command.target.clone(),
            instance: self.identity.instance.clone(),
            outcome,
            detail,
            received_at: job.received_at,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        self.metrics.control_commands.of(outcome.as_str()).inc();
        self.record(IntakeItem::Receipt(result_row(&job, &receipt)));
        // A command for another target is not answered here.
        if not_addressed {
            return;
        }
        let answer = receipt_json(&receipt);
        let _ = self.ports.receipts.send(answer.as_str().into());
        if answers.try_send(answer).is_err() {
            warn!("an answer to a command cannot be published: too many wait for Redis");
        }
    }

    fn record(&mut self, arrival: IntakeItem) {
        if self.records.len() < RECORDS_MAX {
            self.records.push_back(arrival);
        } else {
            warn!("the outcome of a command is not recorded: intake does not take it");
        }
        self.forward_records();
    }

    /// Hands records to intake without waiting, because intake may wait for this stage.
    fn forward_records(&mut self) {
        while let Some(arrival) = self.records.pop_front() {
            match self.ports.to_intake.try_send(arrival) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(arrival)) => {
                    self.records.push_front(arrival);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return self.records.clear(),
            }
        }
    }
}

/// Detail of a command for another target.
const NOT_ADDRESSED: &str = "addressed to somebody else";
/// Detail of a command that no daemon knows.
const NO_COMMAND: &str = "not a command of the daemon: pause, resume, flush, reset, status";

async fn wait_stored(mut stored: watch::Receiver<u64>, end: u64, wait_limit: Duration) -> (Outcome, String) {
    let waited = timeout(wait_limit, stored.wait_for(|stored| *stored >= end)).await.map(|seen| seen.is_ok());
    match waited {
        Ok(true) => (Outcome::Done, "everything received so far is stored".into()),
        Ok(false) => (Outcome::Failed, "stopping".into()),
        Err(_) => {
            let left = end.saturating_sub(*stored.borrow());
            (Outcome::Failed, format!("the store has not confirmed {left} records yet; they are on disk"))
        }
    }
}

/// Publishes answers. Each may take [`PUBLISH_TIMEOUT`]: a client waits no longer, either.
async fn publish(link: Link, identity: Identity, mut answers: mpsc::Receiver<String>) {
    let ack = format!("{}control:ack", identity.key_prefix);
    let latest = format!("{}control:latest", identity.key_prefix);
    while let Some(answer) = answers.recv().await {
        let mut link = link.clone();
        let published = timeout(PUBLISH_TIMEOUT, async {
            let client = link.connected().await?;
            if let Some(ttl) = identity.latest_ttl {
                let expire = Some(Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
                // The answer is published even where the key cannot be set.
                let set = client.set::<(), _, _>(latest.as_str(), answer.as_str(), expire, None, false).await;
                let _ = set.inspect_err(|error| link.acl().warn(error, Resource::Key(&latest)));
            }
            let published = client.publish::<(), _, _>(ack.as_str(), answer).await;
            published.inspect_err(|error| link.acl().warn(error, Resource::Channel(&ack))).ok()
        });
        if published.await.ok().flatten().is_none() {
            warn!("the answer to a command could not be published");
        }
    }
}
