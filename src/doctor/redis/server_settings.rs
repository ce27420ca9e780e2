//! What CONFIG GET says: the buffer of subscribers, notifications of keys, persistence.

use fred::clients::Client;

use super::{AREA, ask, not_answered};
use crate::{
    config::Settings,
    doctor::{Finding, Report, bytes},
    redis,
    units::ByteSize,
};

/// Seconds above its soft limit that a subscriber may need for one large message.
const SOFT_SECONDS: u64 = 10;

/// Limits of the output buffer of a subscriber; zero: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BufferLimits {
    hard: u64,
    soft: u64,
    soft_seconds: u64,
}

impl BufferLimits {
    /// Those of `pubsub` among the classes of the setting.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "pubsub")?;
        let number = |n: usize| words.get(at + n)?.parse().ok();
        Some(Self { hard: number(1)?, soft: number(2)?, soft_seconds: number(3)? })
    }

    fn finding(self, message: ByteSize) -> Option<Finding> {
        let Self { hard, soft, soft_seconds } = self;
        let evidence = format!(
            "CONFIG: client-output-buffer-limit pubsub {hard} {soft} {soft_seconds} ({}, or {} for {soft_seconds} s); \
             `limits.message` is {message}",
            bytes(hard),
            bytes(soft)
        );
        let fix =
            "`redis-cli CONFIG SET client-output-buffer-limit \"pubsub 256mb 64mb 60\"`, and the same in redis.conf";
        let is_hard = hard > 0 && hard < message.0;
        let is_soft = soft > 0 && soft < message.0 && soft_seconds < SOFT_SECONDS;
        if is_hard || is_soft {
            let what = "Redis cuts the daemon off at a message that is smaller than `limits.message` permits: what waits then is lost, \
                        as a gap";
            return Some(Finding::loses(AREA, what).fix(fix).evidence(evidence));
        }
        (hard > 0 && hard < 2 * message.0).then(|| {
            let what = "Redis cuts the daemon off when two of the largest messages wait at once, which is a gap";
            Finding::advice(AREA, what).fix(fix).evidence(evidence)
        })
    }
}

pub(super) async fn examine(settings: &Settings, client: &Client) -> Report {
    let mut report = Report::default();
    let names = ["client-output-buffer-limit", "notify-keyspace-events", "appendfsync", "appendonly", "save"];
    let mut values = Vec::new();
    for name in names {
        match ask(client, "CONFIG", &["GET", name]).await {
            Ok(answer) => values.push(value_of(answer)),
            Err(error) => {
                let subject = "the buffer limit of subscribers and the notifications of keys";
                report.push(not_answered(subject, "CONFIG GET client-output-buffer-limit", &error));
                return report;
            }
        }
    }
    let [buffers, events, fsync, append_only, save] = &values[..] else { return report };
    report.extend(BufferLimits::parse(buffers).and_then(|limits| limits.finding(settings.limits.message)));
    report.extend(notifications(events, &settings.redis));
    let persists = append_only == "yes" || !save.is_empty();
    let reads_streams = !settings.redis.streams.is_empty();
    report.saw(match (persists, reads_streams) {
        (true, false) => "persistence of Redis: on; nothing of the daemon's needs it",
        (false, false) => "persistence of Redis: off; nothing of the daemon's needs it",
        (true, true) => "persistence of Redis: on",
        (false, true) => "persistence of Redis: off",
    });
    if reads_streams && append_only != "yes" {
        let what = "Redis keeps the streams in memory: when it crashes, entries that were not read yet are lost";
        let evidence = format!("CONFIG: appendonly {append_only}");
        report.push(Finding::advice(AREA, what).fix("`redis-cli CONFIG SET appendonly yes`").evidence(evidence));
    }
    if !reads_streams && append_only == "yes" && fsync == "always" {
        let what = "Redis waits for its disk at every write, and delivers messages later for it; nothing of the daemon's needs that";
        let evidence = "CONFIG: appendonly yes, appendfsync always";
        report.push(Finding::advice(AREA, what).fix("`redis-cli CONFIG SET appendfsync everysec`").evidence(evidence));
    }
    report
}

/// The value in an answer to CONFIG GET of one name.
fn value_of(answer: fred::types::Value) -> String {
    let pairs: std::collections::HashMap<String, String> = answer.convert().unwrap_or_default();
    pairs.into_values().next().unwrap_or_default()
}

fn notifications(events: &str, config: &redis::Config) -> Option<Finding> {
    if events.is_empty() {
        return None;
    }
    let fix = "`redis-cli CONFIG SET notify-keyspace-events \"\"`";
    let evidence = format!("CONFIG: notify-keyspace-events {events}");
    // What the daemon's own writes bring about.
    let noise = ["__keyevent@0__:set".to_owned(), format!("__keyspace@0__:{}metrics:latest", config.key_prefix)];
    let matches = |pattern: &&String| noise.iter().any(|channel| redis::overlap(pattern, channel));
    let channels = config.training_channels.iter().chain(&config.control_channels);
    Some(match channels.into_iter().find(matches) {
        Some(pattern) => {
            let what = format!(
                "notifications of keys arrive as messages, because `{pattern}` matches their channels: each write of a key, the \
                 daemon's own too, becomes a dead letter, which pushes older ones out"
            );
            Finding::loses(AREA, what).fix(format!("{fix}, or a narrower pattern")).evidence(evidence)
        }
        None => {
            let what = "Redis publishes a notification for each key that the daemon writes, which costs time and tells nothing";
            Finding::advice(AREA, what).fix(fix).evidence(evidence)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn the_buffer_of_a_subscriber_must_hold_the_largest_message() {
        let mib = 1 << 20;
        for (hard, soft, soft_seconds, level) in [
            (0, 0, 0, None),
            (256, 64, 60, None),
            (32, 8, 60, Some(Level::Advice)),
            (1, 0, 0, Some(Level::Fault)),
            (0, 1, 0, Some(Level::Fault)),
            (256, 8, 5, Some(Level::Fault)),
        ] {
            let text = format!(
                "normal 0 0 0 slave 1 2 3 pubsub {} {} {soft_seconds}",
                u64::from(hard as u32) * mib,
                soft as u64 * mib
            );
            let found = BufferLimits::parse(&text).unwrap().finding(ByteSize::mib(20));
            assert_eq!(found.map(|finding| finding.level), level, "{text}");
        }
        assert_eq!(BufferLimits::parse("normal 0 0 0"), None);
    }
}
