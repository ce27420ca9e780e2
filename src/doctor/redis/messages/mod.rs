//! What trainers publish while doctor listens. It subscribes, and reads the streams, like anyone else: the daemons receive the same.

mod heard;
mod streams;

use std::{collections::BTreeMap, time::Duration};

use jiff::tz::TimeZone;
use tokio::time::{Instant, timeout_at};

use self::{heard::Heard, streams::Listened};
use super::grant;
use crate::{
    config::Settings,
    doctor::{Finding, Report},
    logging::Chain,
    redis::{self, Refusal, Subscription},
    units,
};

const AREA: &str = "messages";

/// Longest message that is looked at.
const MESSAGE_BYTES: usize = 64 << 20;
/// Channels of a pattern that are told apart.
const CHANNELS_MAX: usize = 64;

/// Tries every subscription, then listens on the training channels and to the streams.
pub(super) async fn examine(settings: &Settings, listen: Duration) -> Report {
    let mut report = Report::default();
    let mut subscription = match redis::open_subscription(&settings.redis).await {
        Ok(opened) => opened.subscription,
        Err(error) => {
            let what = "messages could not be listened to: a second connection to Redis fails";
            report.push(Finding::unknown(AREA, what).evidence(Chain(&error).to_string()));
            return report;
        }
    };
    report.merge(subscribe(settings, &mut subscription).await);
    if listen.is_zero() {
        report.push(Finding::unknown(AREA, "what trainers publish was not listened to (--listen 0s)"));
        return report;
    }
    let until = Instant::now() + listen;
    let zone = TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC);
    let (channels, listened) = tokio::join!(
        hear(settings, &mut subscription, until, &zone),
        // Boxed: it is much larger than the other.
        Box::pin(streams::listen(settings, until, &zone)),
    );
    summarise(&channels, &listened, listen, &mut report);
    report
}

/// What is published on the training channels.
async fn hear(
    settings: &Settings,
    messages: &mut Subscription,
    until: Instant,
    zone: &TimeZone,
) -> BTreeMap<String, Heard> {
    let mut channels: BTreeMap<String, Heard> = BTreeMap::new();
    while let Ok(Ok((channel, payload))) = timeout_at(until, messages.next_message(MESSAGE_BYTES)).await {
        if settings.redis.is_own_channel(&channel) || !is_training(settings, &channel) {
            continue;
        }
        if channels.len() < CHANNELS_MAX || channels.contains_key(&channel) {
            let heard = channels.entry(channel).or_default();
            heard.add(&payload, &settings.limits, units::now(), zone);
        }
    }
    channels
}

fn summarise(channels: &BTreeMap<String, Heard>, listened: &Listened, listen: Duration, report: &mut Report) {
    let seconds = units::format_duration(listen);
    if listened.is_incomplete {
        let what = "the entries of streams could not all be listened to: ids, times and `seq` could not be looked at";
        report.push(Finding::unknown(AREA, what).fix("see the rights of the login, and whether Redis answers"));
    } else if channels.is_empty() && listened.streams.is_empty() {
        let what =
            format!("no training message was published within {seconds}: ids, times and `seq` could not be looked at");
        report.push(Finding::unknown(AREA, what).fix("run doctor while a trainer runs, or longer (--listen 60s)"));
    }
    let channels = channels.iter().map(|(name, heard)| ("channel", name, heard));
    let streams = listened.streams.iter().map(|(name, heard)| ("stream", name, heard));
    for (kind, name, heard) in channels.chain(streams) {
        let name = crate::logging::Untrusted(name.as_bytes()).to_string();
        report.saw(format!("{kind} `{name}`: {} messages in {seconds}", heard.count()));
        report.extend(heard.findings(&name));
    }
}

/// Whether it is no channel of commands.
fn is_training(settings: &Settings, channel: &str) -> bool {
    settings.redis.training_channels.iter().any(|pattern| pattern == channel || redis::overlap(pattern, channel))
}

/// Subscribes to every channel of the settings, and to that of receipts, which shows whether it is permitted.
async fn subscribe(settings: &Settings, subscription: &mut Subscription) -> Report {
    let config = &settings.redis;
    let ack = config.ack_channel();
    let training = config.training_channels.iter().map(|channel| (channel, "what is published there is lost"));
    let control = config.control_channels.iter().map(|channel| (channel, "commands sent there are not obeyed"));
    let receipts = [(&ack, "commands get no receipt")];
    let mut report = Report::default();
    let mut rules = Vec::new();
    for (channel, without) in training.chain(control).chain(receipts) {
        match subscription.subscribe(channel).await {
            Ok(None) => {}
            Ok(Some(refusal)) if rules.contains(&refusal.rule) => {}
            Ok(Some(refusal)) => {
                report.push(refused(channel, without, &refusal, config.training_channels.contains(channel)));
                rules.push(refusal.rule);
            }
            Err(error) => {
                let what = format!("the subscription to `{channel}` could not be tried");
                report.push(Finding::unknown(super::AREA, what).evidence(Chain(&error).to_string()));
            }
        }
    }
    report
}

fn refused(channel: &str, without: &str, refusal: &Refusal, is_training: bool) -> Finding {
    let what = format!("the login may not subscribe to `{channel}`: {without}");
    let area = super::AREA;
    let finding = if is_training { Finding::stops(area, what) } else { Finding::degrades(area, what) };
    finding.fix(grant(refusal)).evidence(refusal.to_string())
}
