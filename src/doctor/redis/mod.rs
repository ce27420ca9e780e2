//! Redis: whether it is there, what it is, its settings, the rights of the login, and the daemons of one name.

mod info;
mod messages;
mod names;
mod rights;
mod server_settings;
mod streams;

use std::time::Duration;

use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::ClientLike,
    types::{CustomCommand, Value},
};
use tokio::time::Instant;

use super::{Finding, Report};
use crate::{
    config::Settings,
    host,
    logging::Chain,
    redis::{self, ConnectError, Refusal, redact},
    units,
};
use info::Info;

const AREA: &str = "redis";

/// Difference of clocks that is mentioned, and that is a fault: times further ahead than this are replaced by that of receipt.
const SKEW_ADVICE: i64 = 2_000_000;
const SKEW_FAULT: i64 = 300_000_000;

/// Examines Redis, and what is published there meanwhile.
pub(super) async fn examine(settings: &Settings, listen: Duration) -> Report {
    let mut report = Report::default();
    let mut problems = Vec::new();
    settings.redis.file_problems(&mut problems);
    if !problems.is_empty() {
        let what = "a file for the connection to Redis cannot be used, so no daemon starts";
        report.push(
            Finding::stops(AREA, what).evidence(problems.join("; ")).fix("correct the file or the key that names it"),
        );
        return report;
    }
    let connected = match redis::connect(&settings.redis).await {
        Ok(connected) => connected,
        Err(error) => {
            report.push(unreachable(settings, &error));
            return report;
        }
    };
    let client = &connected.client;
    // First and alone: on a server of another kind the other questions are not answered.
    let ping = round_trip(client).await;
    let info = match ask(client, "INFO", &["everything"]).await.map(text) {
        Ok(info) => {
            let info = Info::parse(&info);
            let answered =
                ping.map_or(String::new(), |ping| format!(", answers in {:.1} ms", ping.as_secs_f64() * 1e3));
            report.saw(format!("Redis {}{answered}", info.describe()));
            if !info.is_plain() {
                report.extend(info.findings(settings));
                return report;
            }
            Some(info)
        }
        Err(error) => {
            report.push(not_answered("version, role, mode and memory", "INFO", &error));
            None
        }
    };
    let settings = &streams::with_those_of_daemon(settings, client).await;
    report.extend(info.iter().flat_map(|info| info.findings(settings)));
    let (server, heard, names) = tokio::join!(
        Box::pin(examine_server(settings, client)),
        Box::pin(messages::examine(settings, listen)),
        names::examine(settings, client, listen),
    );
    report.merge(server);
    report.merge(heard);
    report.merge(names);
    report
}

/// Why there is no connection.
fn unreachable(settings: &Settings, error: &ConnectError) -> Finding {
    let url = redact(&settings.redis.url);
    let (what, fix) = match error {
        ConnectError::Login(_) => (
            format!("Redis at `{url}` refuses the login, so nothing is received"),
            "correct `redis.username` and `redis.password_file`, or the user in Redis".to_owned(),
        ),
        ConnectError::Forbidden(refusal) => (
            format!("the ACL user may not use Redis at `{url}` as it is configured, so nothing is received"),
            refusal.command(),
        ),
        ConnectError::Tls(_) => (
            format!("TLS to Redis at `{url}` fails, so nothing is received"),
            "correct `redis.tls` and the scheme of `redis.url` (rediss:// for TLS)".to_owned(),
        ),
        _ => (
            format!("Redis does not answer at `{url}`, so nothing is received"),
            "start Redis, or correct `redis.url`".to_owned(),
        ),
    };
    Finding::stops(AREA, what).fix(fix).evidence(Chain(error).to_string())
}

async fn examine_server(settings: &Settings, client: &Client) -> Report {
    let mut report = Report::default();
    report.merge(server_settings::examine(settings, client).await);
    report.extend(clock(client).await);
    report.merge(rights::examine(settings).await);
    report.merge(streams::examine(settings, client).await);
    report.extend(exposure(settings));
    report
}

/// How long a PING takes.
async fn round_trip(client: &Client) -> Option<Duration> {
    let started = Instant::now();
    ask(client, "PING", &[]).await.ok().map(|_| started.elapsed())
}

/// The clock of Redis' machine against ours.
async fn clock(client: &Client) -> Option<Finding> {
    let before = units::now();
    let answer: Vec<i64> = ask(client, "TIME", &[]).await.ok()?.convert().ok()?;
    let after = units::now();
    let &[seconds, micros] = answer.as_slice() else { return None };
    clock_finding(AREA, "Redis", before + (after - before) / 2 - (seconds * 1_000_000 + micros))
}

/// The finding about a clock that differs from ours by so many microseconds; positive: ours is ahead.
pub(super) fn clock_finding(area: &'static str, server: &str, skew: i64) -> Option<Finding> {
    let seconds = skew.unsigned_abs() as f64 / 1e6;
    let side = if skew > 0 { "ahead of" } else { "behind" };
    let evidence = format!("the clock here is {seconds:.1} s {side} that of {server}");
    let fix = "synchronise the clocks of both machines (chrony, systemd-timesyncd)";
    match skew.abs() {
        0..SKEW_ADVICE => None,
        SKEW_ADVICE..SKEW_FAULT => {
            let what =
                format!("the clocks of this machine and of {server} differ, and with them times of receipt and lag");
            Some(Finding::advice(area, what).fix(fix).evidence(evidence))
        }
        _ => {
            let what = format!(
                "the clocks of this machine and of {server} differ by more than five minutes: times that trainers send are replaced \
                 by wrong times of receipt, or rows expire at the wrong time"
            );
            Some(Finding::degrades(area, what).fix(fix).evidence(evidence))
        }
    }
}

/// Passwords and encryption, for the place where Redis is.
fn exposure(settings: &Settings) -> Vec<Finding> {
    let config = &settings.redis;
    let Some(host) = config.host() else { return Vec::new() };
    let is_local = host::is_loopback(&host);
    let (has_login, is_encrypted) = (config.has_password(), config.uses_tls());
    let mut findings = Vec::new();
    if !has_login {
        let fix = "set a password in Redis (`requirepass`, or users by `ACL SETUSER`), then `redis.password_file` and `redis.username` here";
        findings.push(if is_local {
            let what = "Redis takes connections without a password: every local user may publish, send commands and delete keys";
            Finding::advice(AREA, what).fix(fix)
        } else {
            let what = "Redis takes connections without a password over the network: any client that reaches it may publish, send commands and delete keys";
            Finding::exposes(AREA, what).fix(fix).evidence(format!("`redis.url` names `{host}`, and no password is set"))
        });
    }
    if !is_encrypted && !is_local {
        let what = format!(
            "the connection to Redis at `{host}` is not encrypted: who is on the way reads passwords and messages"
        );
        let finding = if has_login { Finding::exposes(AREA, what) } else { Finding::advice(AREA, what) };
        findings
            .push(finding.fix("let `redis.url` begin with rediss://, and name a private authority in `redis.tls.ca`"));
    }
    findings
}

/// Sends a command that the client library does not need to know.
async fn ask(client: &Client, command: &str, arguments: &[&str]) -> Result<Value, RedisError> {
    let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    client.custom(CustomCommand::new(command.to_owned(), None, false), arguments).await
}

fn text(value: Value) -> String {
    value.into_string().unwrap_or_default()
}

/// The command that grants a permission.
fn grant(refusal: &Refusal) -> String {
    format!("in Redis: `{}`", refusal.command())
}

/// What could not be looked at.
fn not_answered(subject: &str, command: &str, error: &RedisError) -> Finding {
    let (why, fix) = if redis::is_refusal(error) {
        (
            "this login may not ask for them",
            format!("run doctor with a login that may, or look with `redis-cli {command}`"),
        )
    } else {
        ("Redis does not tell them", format!("look with `redis-cli {command}`"))
    };
    Finding::unknown(AREA, format!("{subject}: {why}")).fix(fix).evidence(error.details().to_owned())
}
