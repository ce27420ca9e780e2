//! What was heard on one channel, or of one stream, and what it means.

use jiff::tz::TimeZone;

use super::AREA;
use crate::{
    doctor::Finding,
    event::Kind,
    frame::Rejection,
    units::Micros,
    wire::{self, Limits, Message},
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Zones differ by multiples of this.
const ZONE_STEP: i64 = 15 * MINUTE;
/// How far a time may be from one read in another zone.
const ZONE_TOLERANCE: i64 = 3 * MINUTE;
/// Most a zone differs from another.
const ZONE_MAX: i64 = 14 * 60 * MINUTE;
/// A clock that differs by less is not mentioned.
const CLOCK_TOLERANCE: i64 = 10 * SECOND;
/// Epochs without which nothing is said about their order.
const EPOCHS_MIN: usize = 6;

/// Counts over the messages of one channel or stream.
#[derive(Debug, Default)]
pub(super) struct Heard {
    is_stream: bool,
    count: u64,
    rejected: u64,
    /// Why the first one was rejected.
    rejection: Option<Rejection>,
    events: u64,
    without_id: u64,
    without_time: u64,
    unusable_times: u64,
    metrics: u64,
    without_seq: u64,
    /// The last time without a zone, less the time of receipt.
    naive_offset: Option<i64>,
    /// The last time with a zone, less the time of receipt.
    clock_offset: Option<i64>,
    /// Epochs of metrics without an id, in order.
    epochs: Vec<i32>,
}

impl Heard {
    /// Nothing of a stream so far.
    pub(super) fn of_stream() -> Self {
        Self { is_stream: true, ..Self::default() }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, payload: &[u8], limits: &Limits, received_at: Micros, zone: &TimeZone) {
        self.count += 1;
        match wire::decode(payload, limits) {
            Ok(message) => self.add_event(&message, received_at, zone),
            Err(rejection) => {
                self.rejected += 1;
                self.rejection.get_or_insert(rejection);
            }
        }
    }

    fn add_event(&mut self, message: &Message<'_>, received_at: Micros, zone: &TimeZone) {
        self.events += 1;
        let time = message.time(received_at, zone);
        self.without_time += u64::from(!message.has_time_field());
        self.unusable_times += u64::from(message.has_time_field() && !time.from_message);
        match time.naive {
            Some(naive) => self.naive_offset = Some(naive - received_at),
            None if time.from_message => self.clock_offset = Some(time.event_time - received_at),
            None => {}
        }
        self.without_id += u64::from(message.run_id().is_none());
        if message.kind() == Kind::Metrics {
            self.metrics += 1;
            self.without_seq += u64::from(message.seq().is_none());
            if message.run_id().is_none() {
                self.epochs.extend(message.metric_columns().epoch);
            }
        }
    }

    pub(super) fn findings(&self, channel: &str) -> Vec<Finding> {
        let findings = [
            self.rejections(channel),
            self.ids(channel),
            self.zone(channel),
            self.clock(channel),
            self.times(channel),
            self.seqs(channel),
        ];
        findings.into_iter().flatten().collect()
    }

    fn share(&self, part: u64, of: u64) -> String {
        format!("{part} of {of} messages heard")
    }

    fn rejections(&self, channel: &str) -> Option<Finding> {
        let rejection = self.rejection.as_ref()?;
        let what = format!("messages on `{channel}` cannot be read and become dead letters, not rows");
        let reason = crate::logging::Untrusted(rejection.to_string().as_bytes()).to_string();
        let evidence = format!("{}; the first: {reason}", self.share(self.rejected, self.count));
        Some(
            Finding::loses(AREA, what)
                .fix("correct the publisher: a message is a JSON object such as `{\"run_id\": \"r1\", \"epoch\": 1, \"train_loss\": 0.5}`")
                .evidence(evidence),
        )
    }

    fn ids(&self, channel: &str) -> Option<Finding> {
        if self.without_id == 0 {
            return None;
        }
        let own = if self.is_stream { "stream" } else { "channel" };
        let fix = format!("let each trainer send a `run_id`, or give each a {own} of its own");
        let evidence = format!("{} have no `run_id`", self.share(self.without_id, self.events));
        Some(if are_interleaved(&self.epochs) {
            let epochs: Vec<_> = self.epochs.iter().take(8).map(ToString::to_string).collect();
            let what = format!(
                "several trainers publish on `{channel}` without a `run_id`: their rows are mixed into wrong runs"
            );
            Finding::loses(AREA, what).fix(fix).evidence(format!("{evidence}; epochs {}, ...", epochs.join(", ")))
        } else {
            let what =
                format!("messages on `{channel}` have no `run_id`: a second trainer there could not be told apart");
            Finding::advice(AREA, what).fix(fix).evidence(evidence)
        })
    }

    /// Whether times without a zone are local times of another zone.
    fn zone(&self, channel: &str) -> Option<Finding> {
        let offset = self.naive_offset?;
        let steps = (offset + (ZONE_STEP * offset.signum()) / 2) / ZONE_STEP;
        let is_of_zone = steps != 0 && (offset - steps * ZONE_STEP).abs() <= ZONE_TOLERANCE && offset.abs() <= ZONE_MAX;
        is_of_zone.then(|| {
            let hours = steps as f64 / 4.0;
            let what = format!(
                "times without a zone on `{channel}` are local times: read in `intake.time_zone` they are {hours:+} h off, and wrong \
                 in all rows"
            );
            let fix = "set `intake.time_zone` to the zone of the trainers (such as \"Europe/Berlin\"), or send times with a zone";
            let evidence = format!("a time that was just published is {:+.0} s from now", offset as f64 / SECOND as f64);
            Finding::degrades(AREA, what).fix(fix).evidence(evidence)
        })
    }

    fn clock(&self, channel: &str) -> Option<Finding> {
        let offset = self.clock_offset.filter(|offset| offset.abs() > CLOCK_TOLERANCE);
        let fix = "synchronise the clocks of the trainers' machines (chrony, systemd-timesyncd)";
        if self.unusable_times > 0 && self.naive_offset.is_none() {
            let what = format!(
                "times on `{channel}` cannot be used (over 5 minutes ahead, 10 years back, or no time): rows get the time of receipt"
            );
            let evidence = self.share(self.unusable_times, self.events);
            return Some(Finding::degrades(AREA, what).fix(fix).evidence(evidence));
        }
        let seconds = offset? as f64 / SECOND as f64;
        let what = format!("the clock of a trainer on `{channel}` differs from ours, or it publishes old messages");
        let evidence = format!("a time that was just published is {seconds:+.0} s from now");
        Some(Finding::advice(AREA, what).fix(fix).evidence(evidence))
    }

    fn times(&self, channel: &str) -> Option<Finding> {
        // An entry of a stream has the time of its id, and goes to one daemon.
        (self.without_time > 0 && !self.is_stream).then(|| {
            let what = format!(
                "messages on `{channel}` have no `timestamp`: two daemons that listen store each of them twice"
            );
            let evidence = self.share(self.without_time, self.events);
            Finding::advice(AREA, what).fix("let the trainer send a `timestamp`").evidence(evidence)
        })
    }

    fn seqs(&self, channel: &str) -> Option<Finding> {
        (self.without_seq > 0).then(|| {
            let what =
                format!("metrics on `{channel}` have no `seq`: what is lost between trainer and daemon is not counted");
            let evidence = format!("{} of {} metrics heard", self.without_seq, self.metrics);
            Finding::advice(AREA, what).fix("let the trainer number its messages with `seq`").evidence(evidence)
        })
    }
}

/// Whether epochs fall again and again, as those of two trainers do. Those of one fall once a phase at most.
fn are_interleaved(epochs: &[i32]) -> bool {
    let falls = epochs.windows(2).filter(|pair| pair[1] < pair[0]).count();
    epochs.len() >= EPOCHS_MIN && falls * 4 > epochs.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const NOW: Micros = 1_795_000_000_000_000;

    fn heard(messages: &[String]) -> Vec<(Level, String)> {
        let mut heard = Heard::default();
        for message in messages {
            heard.add(message.as_bytes(), &Limits::default(), NOW, &TimeZone::UTC);
        }
        heard.findings("c").into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn epochs_of_two_trainers_take_turns() {
        for (epochs, mixed) in [
            (&[1, 2, 3, 4, 5, 6, 7][..], false),
            (&[50, 51, 0, 1, 2, 3, 4, 0, 1, 2], false),
            (&[1, 90, 2, 91, 3, 92], true),
            (&[1, 90, 2], false),
            (&[], false),
        ] {
            assert_eq!(are_interleaved(epochs), mixed, "{epochs:?}");
        }
    }

    #[test]
    fn messages_of_every_kind_are_judged() {
        let full = |time: &str| format!(r#"{{"run_id":"a","seq":1,"epoch":1,"loss":0.5,"timestamp":{time}}}"#);
        for (message, level, word) in [
            (r#"{"run_id":"a","seq":1,"epoch":1,"loss":0.5}"#.to_owned(), Level::Advice, "no `timestamp`"),
            (r#"{"run_id":"a","epoch":1,"loss":0.5,"timestamp":1795000000}"#.to_owned(), Level::Advice, "no `seq`"),
            (r#"{"seq":1,"epoch":1,"loss":0.5,"timestamp":1795000000}"#.to_owned(), Level::Advice, "no `run_id`"),
            ("nonsense".to_owned(), Level::Fault, "dead letters"),
            (full("1795003600"), Level::Fault, "cannot be used"),
            (full("1794999900"), Level::Advice, "clock of a trainer"),
            (full("\"2026-11-18T13:06:40\""), Level::Fault, "local times"),
        ] {
            let found = heard(std::slice::from_ref(&message));
            assert!(found.len() == 1 && found[0].0 == level && found[0].1.contains(word), "{message}: {found:?}");
        }
        assert_eq!(heard(&[full("1795000000"), full("\"2026-11-18T11:06:40\"")]), []);
        let mut of_stream = Heard::of_stream();
        of_stream.add(br#"{"run_id":"a","seq":1,"epoch":1,"loss":0.5}"#, &Limits::default(), NOW, &TimeZone::UTC);
        assert!(of_stream.findings("s").is_empty(), "the id of an entry is its time");
    }
}
