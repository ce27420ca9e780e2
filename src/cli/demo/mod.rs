//! `demo`: training processes that publish at a given rate, and obey commands for trainers.

mod commands;
mod progress;
mod target;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use fred::clients::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{CliError, connect::connect_for_long, output};
use crate::{
    app::signals,
    config::Settings,
    demo::trainer::{Plan, Trainer},
    render, terminal, units,
    words::counted,
};
use commands::{Command, Commands};
use progress::ProgressLines;
use target::Target;

/// Epochs a second of all runs together. A higher rate of messages gives several to an epoch, so that load costs no training.
const EPOCHS_RATE: f64 = 400.0;
/// How often the due messages are sent.
const TICK_INTERVAL: Duration = Duration::from_millis(5);
/// Messages in one pipeline, at most.
const BURST_MESSAGES: usize = 1_024;

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Messages a second, of all runs together.
    #[arg(long, value_name = "N", visible_alias = "speed", default_value_t = 20.0)]
    rate: f64,
    /// Runs at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Epochs of a run, at most.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Hidden units of a run, at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_hidden: usize,
    /// Channel to publish on; absent: the first of `redis.training_channels` that is no pattern.
    #[arg(long)]
    channel: Option<String>,
    /// Append to a stream (XADD) instead; without a name: the first of `redis.streams`. It is not trimmed. Daemons read the streams of
    /// `redis.streams`.
    #[arg(long, value_name = "NAME", num_args = 0..=1, conflicts_with = "channel")]
    stream: Option<Option<String>>,
    /// Seed of the initial weights; absent: random.
    #[arg(long)]
    seed: Option<u64>,
    /// Publish without run ids, as simple trainers do; only with one run at a time.
    #[arg(long)]
    no_run_id: bool,
    /// How messages are encoded.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// End after this long; until then, a new run follows each that has ended. Absent: each run once.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    duration: Option<Duration>,
}

/// See [`Args::format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Msgpack,
}

/// A run, and the envelope of its messages.
struct Run {
    trainer: Trainer,
    run_id: String,
    seq: u64,
}

/// All runs.
struct Demo {
    args: Args,
    runs: Vec<Run>,
    started: u64,
    seed: u64,
    last_time: units::Micros,
    paused: bool,
    ending: bool,
    next: usize,
    /// Runs that were reset and begin again once they have ended.
    runs_to_restart: usize,
}

/// Trains and publishes until every run has ended.
pub async fn run(settings: Settings, args: Args, json: bool) -> Result<(), CliError> {
    if args.no_run_id && args.runs > 1 {
        return Err(CliError::Usage("--no-run-id needs --runs 1: runs without ids on one channel are one run".into()));
    }
    if !args.rate.is_finite() || args.rate <= 0.0 {
        return Err(CliError::Usage("--rate must be above zero".into()));
    }
    let target = Target::of(&args, &settings.redis)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    signals::on_interrupt(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| CliError::failed("failed to listen for signals", error))?;
    let client = connect_for_long(&settings.redis).await?;
    let commands = Commands::listen(&settings.redis).await?;
    if let Some(why) = target.unread(&client, &settings.redis).await {
        terminal::print_notice(format_args!("{why}"));
    }
    let lines = ProgressLines::new(args.runs, json);
    let mut demo = Demo::new(args);
    let began = Instant::now();
    let published = demo.publish_all(&client, &target, commands, &lines, &interrupted).await;
    lines.finish();
    let published = published?;
    let seconds = began.elapsed().as_secs_f64();
    if json {
        return output::json(&json!({
            "published": published, "runs": demo.started, target.kind(): target.name(), "seconds": seconds,
        }));
    }
    let name = target.name();
    let (messages, runs) = (counted(published, "message", "messages"), counted(demo.started, "run", "runs"));
    output::line(&format!("published {messages} of {runs} on {name} in {seconds:.1} s"))
}

impl Demo {
    fn new(args: Args) -> Self {
        let seed = args.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
        let mut demo = Self {
            runs: Vec::new(),
            started: 0,
            seed,
            last_time: 0,
            paused: false,
            ending: false,
            next: 0,
            runs_to_restart: 0,
            args,
        };
        demo.runs = (0..demo.args.runs).map(|_| demo.start_run()).collect();
        demo
    }

    fn start_run(&mut self) -> Run {
        let plan = Plan {
            max_hidden: self.args.max_hidden,
            max_epochs: self.args.epochs,
            steps: (self.args.rate / EPOCHS_RATE).ceil().max(1.0) as u32,
            seed: self.seed.wrapping_add(self.started),
            ..Plan::default()
        };
        self.started += 1;
        // A text is the name of the run, too.
        let run_id = format!("two_spirals-{:08x}", Uuid::new_v4().as_fields().0);
        Run { trainer: Trainer::new(plan), run_id, seq: 0 }
    }

    /// Publishes what is due at each tick; returns how many messages Redis accepted. Fails when the ACL forbids it.
    async fn publish_all(
        &mut self,
        client: &Client,
        target: &Target,
        mut commands: Commands,
        lines: &ProgressLines,
        interrupted: &AtomicBool,
    ) -> Result<u64, CliError> {
        let acl = commands.acl();
        let deadline = self.args.duration.map(|duration| Instant::now() + duration);
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut published, mut owed) = (0, 0.0);
        let mut last = Instant::now();
        let mut burst = Vec::new();
        loop {
            let now = tokio::select! {
                biased;
                command = commands.next() => { self.handle_command(command); continue }
                now = ticks.tick() => now,
            };
            let over = deadline.is_some_and(|deadline| now >= deadline);
            if (over || interrupted.load(Ordering::Relaxed)) && !self.ending {
                self.end(if over { "time is over" } else { "interrupted" });
            }
            // A pause is not caught up with: a waiting trainer does not train.
            let rate = self.args.rate;
            owed = (owed + rate * now.duration_since(last).as_secs_f64()).min((rate * 0.5).max(1.0));
            last = now;
            let due = if self.ending { BURST_MESSAGES } else { (owed as usize).min(BURST_MESSAGES) };
            self.fill_burst(&mut burst, due);
            owed -= burst.len() as f64;
            if burst.is_empty() && self.is_over() {
                return Ok(published);
            }
            if !burst.is_empty() {
                published += target.send(client, &burst, &acl, interrupted).await?;
                burst.clear();
            }
            lines.show(self.runs.iter().map(|run| run.trainer.progress()), self.paused, published);
        }
    }

    /// Puts up to `due` messages of all runs in turn into `burst`.
    fn fill_burst(&mut self, burst: &mut Vec<Bytes>, due: usize) {
        let mut runs_without_message = 0;
        while burst.len() < due && runs_without_message < self.runs.len() {
            let at = self.next % self.runs.len();
            self.next = self.next.wrapping_add(1);
            match self.message(at) {
                Some(message) => {
                    burst.push(message);
                    runs_without_message = 0;
                }
                None => runs_without_message += 1,
            }
        }
    }

    fn message(&mut self, at: usize) -> Option<Bytes> {
        // While paused, only messages from before the pause are sent.
        let mut message =
            if self.paused { self.runs[at].trainer.waiting_message() } else { self.runs[at].trainer.next_message() };
        let again = self.runs_to_restart > 0 || self.args.duration.is_some();
        if message.is_none() && !self.paused && !self.ending && again {
            self.runs_to_restart = self.runs_to_restart.saturating_sub(1);
            self.runs[at] = self.start_run();
            message = self.runs[at].trainer.next_message();
        }
        let mut message = message?;
        let run = &mut self.runs[at];
        // Distinct times make the order of events unambiguous.
        self.last_time = units::now().max(self.last_time + 1);
        message["timestamp"] = Value::from(render::time(self.last_time));
        message["seq"] = Value::from(run.seq);
        if !self.args.no_run_id {
            message["run_id"] = Value::from(run.run_id.as_str());
        }
        run.seq += 1;
        let bytes = match self.args.format {
            Format::Json => serde_json::to_vec(&message).ok(),
            Format::Msgpack => rmp_serde::to_vec_named(&message).ok(),
        };
        bytes.map(Bytes::from)
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Pause | Command::Resume => {
                let paused = command == Command::Pause;
                if self.paused != paused && !self.ending {
                    self.runs.iter_mut().for_each(|run| run.trainer.set_paused(paused));
                    self.paused = paused;
                }
            }
            Command::Reset if !self.ending => {
                // Each run publishes its end; then another begins in its place.
                self.runs.iter_mut().for_each(|run| run.trainer.interrupt("reset"));
                self.runs_to_restart = self.runs.len();
                self.paused = false;
            }
            Command::Stop => self.end("stop"),
            Command::Reset => {}
        }
    }

    fn end(&mut self, reason: &str) {
        (self.ending, self.paused) = (true, false);
        self.runs.iter_mut().for_each(|run| run.trainer.interrupt(reason));
    }

    fn is_over(&self) -> bool {
        !self.paused
            && (self.ending || self.args.duration.is_none())
            && self.runs.iter().all(|run| run.trainer.is_done())
    }
}

#[cfg(test)]
mod tests;
