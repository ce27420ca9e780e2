//! `control`: sends a command on the control channel, and waits for the receipts.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::{EventInterface, PubsubInterface},
    types::Message,
};
use serde_json::{Value, json};
use tokio::{sync::broadcast::Receiver, time::Instant};
use uuid::Uuid;

use super::{
    CliError,
    connect::{self, connect, failed, plain_channel},
    output, status,
};
use crate::{
    config::Settings,
    redis::{Resource, STATUS_VALUE},
    units,
};

/// Commands that daemons obey.
const DAEMON_COMMANDS: [&str; 5] = ["pause", "resume", "flush", "reset", "status"];

/// Commands for trainers, which daemons ignore.
const TRAINER_COMMANDS: [&str; 1] = ["stop"];

/// Arguments of `control`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pause, resume, flush, reset, status, or a command for trainers such as stop.
    command: String,
    /// Wait for the receipts of all daemons that the command is for.
    #[arg(long)]
    wait: bool,
    /// Longest wait.
    #[arg(long, default_value = "15s", value_parser = units::parse_duration)]
    timeout: Duration,
    /// `ingest`, `trainer` or the name of a daemon; absent: all.
    #[arg(long)]
    target: Option<String>,
    /// Channel to publish on; absent: the first of `redis.control_channels` that is no pattern.
    #[arg(long)]
    channel: Option<String>,
}

/// Sends the command, and prints the receipts.
pub async fn run(settings: Settings, args: Args, json: bool) -> Result<(), CliError> {
    let redis = &settings.redis;
    let channel = match &args.channel {
        Some(channel) => channel,
        None => plain_channel(&redis.control_channels, "redis.control_channels", "--channel")?,
    };
    let client = connect(redis).await?;
    let (id, message) = message(&args);
    let receipts = if args.wait { Some(subscribe(redis).await?) } else { None };
    let expected =
        if args.wait { expected_daemons(&client, &settings, args.target.as_deref()).await? } else { Vec::new() };
    let listeners: i64 = client.publish(channel, message.to_string()).await.map_err(|error| {
        failed(redis, format!("failed to publish on `{channel}`"), Resource::Channel(channel), error)
    })?;
    let Some((_ack_client, receipts)) = receipts else {
        let report = json!({"id": id, "command": args.command, "channel": channel, "listeners": listeners});
        return if json {
            output::json(&report)
        } else {
            let noun = if listeners == 1 { "listener" } else { "listeners" };
            output::line(&format!("`{}` sent to {listeners} {noun} on {channel}", args.command))
        };
    };
    let receipts = collect_receipts(receipts, &id, &expected, Instant::now() + args.timeout).await;
    report(&args, &expected, &receipts, json)
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

/// Listens for receipts on a connection of its own. Returns once Redis has confirmed the subscription.
async fn subscribe(redis: &crate::redis::Config) -> Result<(Client, Receiver<Message>), CliError> {
    let channel = format!("{}control:ack", redis.key_prefix);
    let client = connect(redis).await?;
    let receipts = client.message_rx();
    connect::subscribe(&client, redis, &channel).await?;
    Ok((client, receipts))
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
async fn collect_receipts(
    mut messages: Receiver<Message>,
    id: &str,
    expected: &[String],
    until: Instant,
) -> Vec<Value> {
    let mut receipts: Vec<Value> = Vec::new();
    let complete = |receipts: &[Value]| {
        let answered = |name: &String| receipts.iter().any(|receipt| receipt["instance"] == name.as_str());
        !receipts.is_empty() && expected.iter().all(answered)
    };
    while !complete(&receipts) {
        match tokio::time::timeout_at(until, messages.recv()).await {
            Ok(Ok(message)) => {
                let text = message.value.as_bytes().unwrap_or_default();
                // Any client of this Redis may publish there; a receipt is never longer than a status.
                let text = if text.len() <= STATUS_VALUE { text } else { &[] };
                receipts.extend(serde_json::from_slice(text).ok().filter(|receipt: &Value| receipt["id"] == id));
            }
            // A lag may have dropped a receipt; the time-out reports it.
            Ok(Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    receipts
}

fn report(args: &Args, expected: &[String], receipts: &[Value], json: bool) -> Result<(), CliError> {
    if json {
        output::json(&Value::from(receipts.to_vec()))?;
    } else if !receipts.is_empty() {
        let row = |receipt: &Value| {
            ["instance", "command", "outcome", "took_ms", "detail"]
                .map(|field| output::cell(receipt.get(field)))
                .to_vec()
        };
        output::table(&["INSTANCE", "COMMAND", "OUTCOME", "MS", "DETAIL"], receipts.iter().map(row).collect())?;
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
    let command = args.command.as_str();
    let for_trainers = TRAINER_COMMANDS.contains(&command) || args.target.as_deref() == Some("trainer");
    let is_success =
        |receipt: &&Value| receipt["outcome"] == "done" || (receipt["outcome"] == "ignored" && for_trainers);
    if !for_trainers
        && !DAEMON_COMMANDS.contains(&command)
        && receipts.iter().any(|receipt| receipt["outcome"] == "ignored")
    {
        return Err(CliError::NegativeAnswer(format!(
            "no daemon obeys `{command}`, so it was ignored; they obey {}",
            DAEMON_COMMANDS.join(", ")
        )));
    }
    match receipts.iter().find(|receipt| !is_success(receipt)) {
        None => Ok(()),
        Some(bad) => Err(CliError::NegativeAnswer(format!(
            "{}: {}",
            output::cell(bad.get("instance")),
            output::cell(bad.get("outcome"))
        ))),
    }
}

#[cfg(test)]
mod tests {
    use fred::types::{MessageKind, config::Server};
    use tokio::sync::broadcast;

    use super::*;

    fn receipt(instance: &str, id: &str, outcome: &str) -> Message {
        let text = json!({"id": id, "instance": instance, "outcome": outcome, "command": "pause"}).to_string();
        Message {
            channel: "cascor:control:ack".into(),
            value: text.into(),
            kind: MessageKind::Message,
            server: Server::new("127.0.0.1", 1),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn receipts_are_collected_until_every_daemon_has_answered() {
        let (sender, receiver) = broadcast::channel(8);
        for message in [receipt("a", "other", "done"), receipt("a", "me", "done"), receipt("b", "me", "done")] {
            sender.send(message).unwrap();
        }
        let until = Instant::now() + Duration::from_secs(5);
        let both = ["a".to_owned(), "b".to_owned()];
        assert_eq!(collect_receipts(receiver, "me", &both, until).await.len(), 2);
        assert!(Instant::now() < until, "it does not wait for more");

        let receiver = sender.subscribe();
        sender.send(receipt("a", "me", "done")).unwrap();
        assert_eq!(collect_receipts(receiver, "me", &both, until).await.len(), 1);
        assert!(Instant::now() >= until, "it waits for the silent one");
    }

    #[test]
    fn the_exit_status_follows_the_receipts() {
        let args = |command: &str| Args {
            command: command.into(),
            wait: true,
            timeout: Duration::from_secs(1),
            target: None,
            channel: None,
        };
        let one = ["a".to_owned()];
        for (command, outcome, fine) in [
            ("pause", "done", true),
            ("pause", "ignored", false),
            ("stop", "ignored", true),
            ("puase", "ignored", false),
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
