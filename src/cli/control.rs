//! `control`: sends a command on the control channel, or to one daemon by HTTP, and waits for the receipts. A command for the
//! trainer of a run has the run's id as its target; a trainer sends no receipt.

use std::time::Duration;

use fred::{clients::Client, interfaces::PubsubInterface};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    CliError,
    ask::{QueryClient, Target},
    cells::{self, FieldColumn},
    connect::{self, connect, failed, plain_channel},
    lookup::{described, find_run, id},
    output::{self, Told},
    status,
    table::{Cell, Column},
};
use crate::{
    config::Settings,
    redis::{Resource, STATUS_VALUE, Subscription},
    units,
};

/// Commands that daemons obey.
const DAEMON_COMMANDS: [&str; 5] = ["pause", "resume", "flush", "reset", "status"];

/// Letters that a command may differ in from the one that is suggested.
const TYPOS_MAX: usize = 2;

/// How long a daemon may take to write its status after a command.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Commands for trainers, which daemons ignore.
const TRAINER_COMMANDS: [&str; 1] = ["stop"];

/// Commands that the trainer of a run obeys.
const RUN_COMMANDS: [&str; 3] = ["pause", "resume", "stop"];

/// States of a run whose trainer may still listen.
const LISTENS: [&str; 2] = ["running", "stale"];

/// Columns of the receipts.
static COLUMNS: [FieldColumn; 5] = [
    FieldColumn::new("instance", Column::ranked("INSTANCE", 1), cells::text),
    FieldColumn::new("command", Column::ranked("COMMAND", 2), cells::text),
    FieldColumn::new("outcome", Column::key("OUTCOME"), cells::whole_text),
    FieldColumn::new("took_ms", Column::ranked("MS", 4), cells::count),
    FieldColumn::new("detail", Column::long("DETAIL", 3), detail),
];

/// Arguments of `control`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pause, resume, flush, reset, status, or stop, which is for trainers.
    command: String,
    /// Send a command that only trainers know, whatever its name.
    #[arg(long)]
    any: bool,
    /// Wait for the receipts of all daemons that the command is for.
    #[arg(long)]
    wait: bool,
    /// Longest wait.
    #[arg(long, default_value = "15s", value_parser = units::parse_duration, requires = "wait")]
    timeout: Duration,
    /// `ingest`, `trainer`, or the name of a daemon or a run; absent: all.
    #[arg(long)]
    target: Option<String>,
    /// Command the trainer of this run alone: its id or name, or the beginning of either. It sends no receipt.
    #[arg(long, conflicts_with_all = ["target", "wait"])]
    run: Option<String>,
    /// Channel to publish on; absent: the first of `redis.control_channels` that is no pattern.
    #[arg(long)]
    channel: Option<String>,
    #[command(flatten)]
    daemon: Target,
}

impl Args {
    /// Whether daemons are right to ignore the command.
    fn is_for_trainers(&self) -> bool {
        TRAINER_COMMANDS.contains(&self.command.as_str()) || self.target.as_deref() == Some("trainer") || self.any
    }

    /// Refuses a command that is known neither to daemons nor, as far as it is for them, to trainers; and to wait for trainers.
    fn refuse_unknown(&self) -> Result<(), CliError> {
        if self.wait && self.target.as_deref() == Some("trainer") {
            return Err(CliError::Usage("--wait: trainers send no receipts".into()));
        }
        let command = self.command.trim().to_ascii_lowercase();
        let (obeyed, accepted) = match &self.run {
            Some(_) => (("trainers", &RUN_COMMANDS[..]), self.any),
            None => (("daemons", &DAEMON_COMMANDS[..]), self.is_for_trainers()),
        };
        let mut known = obeyed.1.iter().chain(&TRAINER_COMMANDS);
        if accepted || known.clone().any(|known| *known == command) {
            return Ok(());
        }
        let nearest = known.by_ref().map(|known| (strsim::damerau_levenshtein(known, &command), known)).min();
        let hint = nearest.filter(|(distance, _)| *distance <= TYPOS_MAX);
        let hint = hint.map_or_else(String::new, |(_, known)| format!(" did you mean `{known}`?"));
        Err(CliError::Usage(format!(
            "`{}`:{hint} {} obey {}; --any sends a command that only trainers know",
            self.command,
            obeyed.0,
            obeyed.1.join(", ")
        )))
    }
}

/// Sends the command, and prints the receipts.
///
/// # Errors
/// When the command is unknown or cannot be sent, when a receipt is missing, or when it says that nothing was done.
pub async fn run(settings: Settings, mut args: Args, json: bool) -> Result<(), CliError> {
    args.refuse_unknown()?;
    let trainer = match &args.run {
        Some(text) => Some(commanded_run(&QueryClient::connect(&settings, &args.daemon).await?, text).await?),
        None => None,
    };
    if let Some(run) = &trainer {
        args.target = Some(id(run).to_owned());
    }
    if let Some(daemon) = args.daemon.daemon(&settings)? {
        return send_by_http(&daemon, &args, trainer.as_ref(), json).await;
    }
    let redis = &settings.redis;
    let channel = match &args.channel {
        Some(channel) => channel,
        None => plain_channel(&redis.control_channels, "redis.control_channels", "--channel")?,
    };
    let client = connect(redis).await?;
    let (id, message) = message(&args);
    let ack = redis.ack_channel();
    let receipts = if args.wait { Some(connect::subscribe(redis, &[ack]).await?.subscription) } else { None };
    let expected =
        if args.wait { expected_daemons(&client, &settings, args.target.as_deref()).await? } else { Vec::new() };
    let listeners: i64 = client.publish(channel, message.to_string()).await.map_err(|error| {
        failed(redis, format!("failed to publish on `{channel}`"), Resource::Channel(channel), error)
    })?;
    let Some(receipts) = receipts else {
        let report = json!({
            "id": id, "command": args.command, "channel": channel, "listeners": listeners, "target": args.target,
        });
        let listeners = format!("{listeners} {}", if listeners == 1 { "listener" } else { "listeners" });
        return match &trainer {
            _ if json => output::json(&report),
            Some(run) => output::line(&sent_to_trainer(&args.command, run, &format!(" on {channel} ({listeners})"))),
            None => output::line(&format!("`{}` sent to {listeners} on {channel}", args.command)),
        };
    };
    let until = Instant::now() + args.timeout;
    let receipts = collect_receipts(receipts, &id, &expected, until).await;
    for receipt in receipts.iter().filter(|receipt| receipt["outcome"] == "done") {
        status::wait_for_newer(&client, redis, receipt, until.min(Instant::now() + STATUS_TIMEOUT)).await;
    }
    report(&args, &expected, &receipts, json)
}

/// The run whose trainer is to be commanded.
async fn commanded_run(client: &QueryClient, text: &str) -> Result<Value, CliError> {
    let run = find_run(client, text).await?;
    match run["status"].as_str().unwrap_or("unknown") {
        status if LISTENS.contains(&status) => Ok(run),
        status => Err(CliError::NegativeAnswer(format!(
            "{} is {status} in the store, so no trainer of it should listen; `--target {}` sends all the same",
            described(&run),
            id(&run)
        ))),
    }
}

/// What a person reads about a command to the trainer of a run.
fn sent_to_trainer(command: &str, run: &Value, place: &str) -> String {
    format!("`{command}` sent to the trainer of {}{place}; a trainer sends no receipt", described(run))
}

/// Sends the command to one daemon, which answers with its receipt; a command for another is published by it, without one.
async fn send_by_http(daemon: &QueryClient, args: &Args, trainer: Option<&Value>, json: bool) -> Result<(), CliError> {
    if args.channel.is_some() {
        return Err(CliError::Usage(
            "--channel has no effect: the daemon that is asked publishes on its own channel".into(),
        ));
    }
    let (_, message) = message(args);
    let receipt = daemon.post("/api/control", &message).await?;
    if receipt["outcome"].is_string() {
        return report(args, &[output::cell(receipt.get("instance"))], &[receipt], json);
    }
    if args.wait {
        return Err(CliError::NegativeAnswer(format!("`{}` is sent, but no receipt has come", args.command)));
    }
    match trainer {
        _ if json => output::json(&receipt),
        Some(run) => output::line(&sent_to_trainer(&args.command, run, "")),
        None => output::line(&format!("`{}` is sent; no receipt yet", args.command)),
    }
}

fn message(args: &Args) -> (String, Value) {
    let id = Uuid::new_v4().to_string();
    let mut message = json!({"command": args.command, "id": id});
    if let Some(target) = &args.target {
        message["target"] = Value::from(target.as_str());
    }
    if args.wait && args.command == "flush" {
        message["timeout"] = Value::from(args.timeout.as_secs_f64());
    }
    (id, message)
}

/// What a daemon says beside the outcome; its answer to `status` is an object, which `status` shows better.
fn detail(receipt: &Value, field: &str) -> Cell {
    if receipt[field].is_string() { cells::whole_text(receipt, field) } else { cells::any(receipt, field) }
}

/// The daemons from which receipts are expected.
async fn expected_daemons(client: &Client, settings: &Settings, target: Option<&str>) -> Result<Vec<String>, CliError> {
    let all = status::instances(client, &settings.redis).await?;
    Ok(match target {
        None | Some("ingest" | "trainer") => all,
        Some(one) => vec![one.to_owned()],
    })
}

/// Receipts for `id`, until every expected daemon has answered (at least one) or the time is over.
async fn collect_receipts(mut messages: Subscription, id: &str, expected: &[String], until: Instant) -> Vec<Value> {
    let mut receipts: Vec<Value> = Vec::new();
    let complete = |receipts: &[Value]| {
        let answered = |name: &String| receipts.iter().any(|receipt| receipt["instance"] == name.as_str());
        !receipts.is_empty() && expected.iter().all(answered)
    };
    while !complete(&receipts) {
        // Any client of this Redis may publish there; a receipt is never longer than a status.
        match tokio::time::timeout_at(until, messages.next_message(STATUS_VALUE)).await {
            Ok(Ok((_, text))) => {
                receipts.extend(serde_json::from_slice(&text).ok().filter(|receipt: &Value| receipt["id"] == id));
            }
            Ok(Err(_)) | Err(_) => break,
        }
    }
    receipts
}

fn report(args: &Args, expected: &[String], receipts: &[Value], json: bool) -> Result<(), CliError> {
    if json {
        output::json(&Value::from(receipts.to_vec()))?;
    } else if !receipts.is_empty() {
        output::records(
            &COLUMNS,
            receipts,
            &Told { elsewhere: &[], shown_by: "a wider terminal or --json shows them" },
        )?;
    }
    let silent: Vec<_> = expected
        .iter()
        .filter(|name| !receipts.iter().any(|receipt| receipt["instance"] == name.as_str()))
        .map(String::as_str)
        .collect();
    if receipts.is_empty() || !silent.is_empty() {
        let missing = if silent.is_empty() { "any daemon".to_owned() } else { silent.join(", ") };
        return Err(CliError::NegativeAnswer(format!(
            "no receipt from {missing} within {}",
            units::format_duration(args.timeout)
        )));
    }
    let is_success =
        |receipt: &&Value| receipt["outcome"] == "done" || (receipt["outcome"] == "ignored" && args.is_for_trainers());
    match receipts.iter().find(|receipt| !is_success(receipt)) {
        None => Ok(()),
        Some(bad) => Err(CliError::NegativeAnswer(format!(
            "{}: {}: {}",
            output::cell(bad.get("instance")),
            output::cell(bad.get("outcome")),
            output::cell(bad.get("detail"))
        ))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn receipt(instance: &str, id: &str, outcome: &str) -> String {
        let text = json!({"id": id, "instance": instance, "outcome": outcome, "command": "pause"}).to_string();
        format!(">3\r\n$7\r\nmessage\r\n$18\r\ncascor:control:ack\r\n${}\r\n{text}\r\n", text.len())
    }

    #[tokio::test(start_paused = true)]
    async fn receipts_are_collected_until_every_daemon_has_answered() {
        let (mut server, stream) = duplex(4_096);
        let too_long =
            format!(">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n${STATUS_VALUE}0\r\n{}\r\n", "x".repeat(10 * STATUS_VALUE));
        let messages =
            [too_long, receipt("a", "other", "done"), receipt("a", "me", "done"), receipt("b", "me", "done")].concat();
        let sending = server.write_all(messages.as_bytes());
        let until = Instant::now() + Duration::from_secs(5);
        let both = ["a".to_owned(), "b".to_owned()];
        let (sent, receipts) = tokio::join!(sending, collect_receipts(Subscription::over(stream), "me", &both, until));
        assert!(sent.is_ok() && receipts.len() == 2, "{receipts:?}");
        assert!(Instant::now() < until, "it does not wait for more");

        let (mut server, stream) = duplex(4_096);
        server.write_all(receipt("a", "me", "done").as_bytes()).await.unwrap();
        assert_eq!(collect_receipts(Subscription::over(stream), "me", &both, until).await.len(), 1);
        assert!(Instant::now() >= until, "it waits for the silent one");
    }

    fn args(command: &str) -> Args {
        Args {
            command: command.into(),
            any: false,
            wait: true,
            timeout: Duration::from_secs(1),
            target: None,
            run: None,
            channel: None,
            daemon: Target::default(),
        }
    }

    #[test]
    fn an_unknown_command_is_refused_with_the_one_that_was_meant() {
        for (command, hint) in [
            ("pasue", Some("did you mean `pause`?")),
            ("resum", Some("did you mean `resume`?")),
            ("stopp", Some("did you mean `stop`?")),
            ("checkpoint", Some("daemons obey pause, resume, flush, reset, status; --any")),
            ("", Some("--any")),
            ("pause", None),
            (" Pause ", None),
            ("stop", None),
        ] {
            let refused = args(command).refuse_unknown().err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), hint.is_some(), "{command}: {refused:?}");
            assert!(refused.is_none_or(|error| error.contains(hint.unwrap_or_default())), "{command}");
        }
        let sent = |command| Args { wait: false, ..args(command) };
        let of_run = |command| Args { run: Some("spiral".into()), ..sent(command) };
        for allowed in [
            Args { any: true, ..args("pasue") },
            Args { target: Some("trainer".into()), ..sent("pasue") },
            Args { any: true, ..of_run("checkpoint") },
            of_run("stop"),
        ] {
            assert!(allowed.refuse_unknown().is_ok());
        }
        let flush = of_run("flush").refuse_unknown().unwrap_err().to_string();
        assert!(flush.starts_with("`flush`: trainers obey pause, resume, stop; --any"), "{flush}");
        assert!(Args { target: Some("trainer".into()), ..args("stop") }.refuse_unknown().is_err(), "no receipt comes");
    }

    #[test]
    fn the_exit_status_follows_the_receipts() {
        let one = ["a".to_owned()];
        for (command, outcome, fine) in [
            ("pause", "done", true),
            ("pause", "ignored", false),
            ("stop", "ignored", true),
            ("flush", "failed", false),
        ] {
            let receipts = [json!({"instance": "a", "outcome": outcome})];
            assert_eq!(report(&args(command), &one, &receipts, true).is_ok(), fine, "{command} {outcome}");
        }
        assert!(report(&args("pause"), &one, &[], true).is_err());
        let two = ["a".to_owned(), "b".to_owned()];
        assert!(report(&args("pause"), &two, &[json!({"instance": "a", "outcome": "done"})], true).is_err());
    }
}
