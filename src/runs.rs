//! Which run an event belongs to.
//!
//! A message's own id decides; else the channel's open run; else the event opens an implicit one. The decision is made once, at
//! intake, and stored with the message. Everything here is plain: times come in as values, nothing is read or written.
//!
//! A message with an id of its own changes the channel's open run in two cases only: a run start opens its run, and the end of
//! the open run ends it. Other trainers that share the channel, and name their runs, so do not disturb one that does not.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::{Kind, implicit_run_id},
    units::Micros,
    wire::Message,
};

/// Channels that are remembered; beyond that the least recently used is forgotten.
const CHANNELS: usize = 4_096;
/// Phases of a run that are remembered.
const PHASES: usize = 16;
/// Longest name of a phase that is told apart.
const PHASE_BYTES: usize = 64;

/// What a message says that matters here.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named like what the message says")]
pub struct Facts<'a> {
    pub kind: Kind,
    pub run_id: Option<Uuid>,
    pub epoch: Option<i32>,
    pub phase: Option<&'a str>,
    pub hidden_units: Option<i32>,
    pub event_time: Micros,
    pub received_at: Micros,
    pub payload: &'a [u8],
}

impl<'a> Facts<'a> {
    /// The facts of a decoded message.
    pub fn of(message: &'a Message<'_>, event_time: Micros, received_at: Micros, payload: &'a [u8]) -> Self {
        Self {
            kind: message.kind(),
            run_id: message.run_id(),
            epoch: message.epoch(),
            phase: message.phase(),
            hidden_units: message.hidden_units(),
            event_time,
            received_at,
            payload,
        }
    }
}

/// The run of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its id.
    pub run_id: Uuid,
    /// Whether the event opened it without being a run start.
    pub opened: bool,
    /// Whether the channel's open run is another one now, or has ended: worth sharing.
    pub changed: bool,
}

/// The open run of a channel: what instances share, and what survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// Its id.
    pub run_id: Uuid,
    /// When the event that opened it was received; the newest wins between instances.
    pub opened_at: Micros,
    /// Whether it has ended.
    #[serde(default)]
    pub ended: bool,
    /// The epoch of its last metrics.
    #[serde(default)]
    last_epoch: Option<i32>,
    /// The last metrics of each phase, the most recent phase last.
    #[serde(default)]
    phases: Vec<Mark>,
}

/// Where a phase of a run has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    phase: Option<String>,
    epoch: i32,
    hidden_units: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Channel {
    run: OpenRun,
    /// When its last event came, on the clock of subscribed time.
    seen: Duration,
    /// Counts up with every use of any channel.
    used: u64,
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Time subscribed so far, over all starts.
    clock: Duration,
    channels: HashMap<String, Channel>,
}

/// Decides which run each event belongs to.
#[derive(Debug)]
pub struct Resolver {
    idle_timeout: Duration,
    /// Time subscribed before this start.
    before: Duration,
    uses: u64,
    channels: HashMap<String, Channel>,
}

impl Resolver {
    /// Without any open run.
    pub fn new(idle_timeout: Duration) -> Self {
        Self::restore(idle_timeout, State::default())
    }

    /// As it was when `state` was taken.
    pub fn restore(idle_timeout: Duration, state: State) -> Self {
        let uses = state.channels.values().map(|channel| channel.used).max().unwrap_or(0);
        Self { idle_timeout, before: state.clock, uses, channels: state.channels }
    }

    /// What [`restore`](Self::restore) takes; `subscribed` as for [`decide`](Self::decide).
    pub fn state(&self, subscribed: Duration) -> State {
        State { clock: self.before + subscribed, channels: self.channels.clone() }
    }

    /// Whether the channel has an open run (or one that ended); if not, a shared one should be adopted first.
    pub fn knows(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// The open runs by channel.
    pub fn open_runs(&self) -> impl Iterator<Item = (&str, &OpenRun)> {
        self.channels.iter().map(|(name, channel)| (name.as_str(), &channel.run))
    }

    /// The open run of one channel.
    pub fn open_run(&self, channel: &str) -> Option<&OpenRun> {
        self.channels.get(channel).map(|channel| &channel.run)
    }

    /// Decides for one message. `subscribed` is for how long this process has been subscribed: silence counts only then.
    pub fn decide(&mut self, channel: &str, facts: &Facts<'_>, subscribed: Duration) -> Choice {
        if facts.run_id.is_none() && facts.kind != Kind::RunStart {
            let now = self.before + subscribed;
            let idle = self.idle_timeout;
            let open =
                self.channels.get(channel).filter(|open| !open.run.is_over(facts, now.saturating_sub(open.seen), idle));
            if let Some(run_id) = open.map(|open| open.run.run_id) {
                return Choice { run_id, opened: false, changed: self.note(channel, facts, run_id, false, subscribed) };
            }
        }
        let opened = facts.run_id.is_none() && facts.kind != Kind::RunStart;
        let run_id = facts.run_id.unwrap_or_else(|| implicit_run_id(channel, facts.event_time, facts.payload));
        Choice { run_id, opened, changed: self.note(channel, facts, run_id, opened, subscribed) }
    }

    /// Takes in a message that was decided before: how open runs are rebuilt from the spool.
    pub fn observe(&mut self, channel: &str, facts: &Facts<'_>, run_id: Uuid, opened: bool, subscribed: Duration) {
        let unknown = facts.run_id.is_none() && self.open_run(channel).is_none_or(|run| run.run_id != run_id);
        self.note(channel, facts, run_id, opened || unknown, subscribed);
    }

    /// Takes over a run that another instance has open, when it is newer than ours. Returns whether it did.
    pub fn adopt(&mut self, channel: &str, run: OpenRun, subscribed: Duration) -> bool {
        match self.channels.get_mut(channel) {
            Some(ours) if ours.run.run_id == run.run_id => {
                ours.run.ended |= run.ended;
                false
            }
            Some(ours) if ours.run.opened_at >= run.opened_at => false,
            _ => {
                self.insert(channel, run, subscribed);
                true
            }
        }
    }

    /// Forgets every open run: the next event without an id begins a new one.
    pub fn close_all(&mut self) {
        self.channels.clear();
    }

    /// Brings the channel's open run up to date with an event of `run_id`; whether it is another one now, or has ended.
    fn note(&mut self, channel: &str, facts: &Facts<'_>, run_id: Uuid, opened: bool, subscribed: Duration) -> bool {
        let known = self.channels.get(channel).is_some_and(|open| open.run.run_id == run_id);
        let mut changed = false;
        if opened || facts.kind == Kind::RunStart {
            // The same start again (a repeated message, another instance's spool) does not forget what came since.
            if !known || self.channels.get(channel).is_some_and(|open| open.run.ended) {
                let run = OpenRun {
                    run_id,
                    opened_at: facts.received_at,
                    ended: false,
                    last_epoch: None,
                    phases: Vec::new(),
                };
                self.insert(channel, run, subscribed);
                changed = true;
            }
        } else if !known {
            return false;
        }
        self.uses += 1;
        let (uses, now) = (self.uses, self.before + subscribed);
        if let Some(open) = self.channels.get_mut(channel) {
            open.used = uses;
            open.seen = now;
            changed |= open.run.note(facts);
        }
        changed
    }

    fn insert(&mut self, channel: &str, run: OpenRun, subscribed: Duration) {
        if self.channels.len() >= CHANNELS && !self.channels.contains_key(channel) {
            let oldest = self.channels.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
            self.channels.remove(&oldest.unwrap_or_default());
        }
        self.uses += 1;
        let open = Channel { run, seen: self.before + subscribed, used: self.uses };
        self.channels.insert(channel.to_owned(), open);
    }
}

impl OpenRun {
    /// Whether an event without an id can no longer belong to it.
    fn is_over(&self, facts: &Facts<'_>, idle: Duration, idle_timeout: Duration) -> bool {
        let epoch = facts.epoch.filter(|_| facts.kind == Kind::Metrics);
        if self.ended {
            return matches!((epoch, self.last_epoch), (Some(epoch), Some(last)) if epoch < last);
        }
        if idle >= idle_timeout {
            return true;
        }
        let Some(epoch @ (0 | 1)) = epoch else { return false };
        let Some(mark) = self.phases.iter().find(|mark| mark.is_of(facts.phase)) else { return false };
        // A unit more, where the last metrics of this phase told their number: training restarts its epochs, the run goes on.
        let grew = facts.hidden_units.unwrap_or(0) > mark.hidden_units.unwrap_or(0);
        epoch < mark.epoch && !grew
    }

    /// Takes in an event of this run; whether it ended it.
    fn note(&mut self, facts: &Facts<'_>) -> bool {
        if facts.kind == Kind::RunEnd {
            // Without metrics the end itself says how far the run came.
            self.last_epoch = self.last_epoch.or(facts.epoch);
            return !std::mem::replace(&mut self.ended, true);
        }
        let Some(epoch) = facts.epoch.filter(|_| facts.kind == Kind::Metrics) else { return false };
        self.last_epoch = Some(epoch);
        match self.phases.iter_mut().find(|mark| mark.is_of(facts.phase)) {
            Some(mark) => {
                mark.epoch = epoch;
                mark.hidden_units = facts.hidden_units.or(mark.hidden_units);
            }
            None => {
                if self.phases.len() >= PHASES {
                    self.phases.remove(0);
                }
                let phase = facts.phase.map(|phase| short(phase).to_owned());
                self.phases.push(Mark { phase, epoch, hidden_units: facts.hidden_units });
            }
        }
        false
    }
}

impl Mark {
    fn is_of(&self, phase: Option<&str>) -> bool {
        self.phase.as_deref() == phase.map(short)
    }
}

fn short(phase: &str) -> &str {
    &phase[..phase.floor_char_boundary(PHASE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(6 * 3_600);
    const ZERO: Duration = Duration::ZERO;

    fn facts(kind: Kind) -> Facts<'static> {
        Facts {
            kind,
            run_id: None,
            epoch: None,
            phase: None,
            hidden_units: None,
            event_time: 1,
            received_at: 2,
            payload: b"{}",
        }
    }

    fn metrics(epoch: i32, phase: &'static str, hidden: i32) -> Facts<'static> {
        Facts {
            epoch: Some(epoch),
            phase: Some(phase),
            hidden_units: Some(hidden),
            event_time: 77,
            ..facts(Kind::Metrics)
        }
    }

    fn at(resolver: &mut Resolver, facts: &Facts<'_>) -> Choice {
        resolver.decide("c", facts, ZERO)
    }

    #[test]
    fn the_own_id_decides_and_does_not_disturb_the_open_run() {
        let mut resolver = Resolver::new(IDLE);
        let open = at(&mut resolver, &facts(Kind::Metrics));
        assert_eq!((open.run_id, open.opened, open.changed), (implicit_run_id("c", 1, b"{}"), true, true));
        for kind in [Kind::Metrics, Kind::RunEnd, Kind::State] {
            let own = Facts { run_id: Some(Uuid::from_u128(9)), ..facts(kind) };
            assert_eq!(at(&mut resolver, &own).run_id, Uuid::from_u128(9));
            assert_eq!(at(&mut resolver, &facts(Kind::State)).run_id, open.run_id, "{kind:?}");
        }
        assert_ne!(resolver.decide("d", &facts(Kind::State), ZERO).run_id, open.run_id, "channels are apart");
    }

    #[test]
    fn a_start_opens_a_run_and_the_end_keeps_it_until_the_next() {
        let mut resolver = Resolver::new(IDLE);
        let own = Uuid::from_u128(5);
        let start = at(&mut resolver, &Facts { run_id: Some(own), ..facts(Kind::RunStart) });
        assert_eq!(start, Choice { run_id: own, opened: false, changed: true });
        assert_eq!(at(&mut resolver, &metrics(9, "output", 1)).run_id, own);
        let end = at(&mut resolver, &Facts { run_id: Some(own), ..facts(Kind::RunEnd) });
        assert_eq!(end, Choice { run_id: own, opened: false, changed: true });
        for late in [facts(Kind::State), facts(Kind::RunEnd), facts(Kind::Metrics), metrics(9, "output", 1)] {
            assert_eq!(at(&mut resolver, &late).run_id, own, "{late:?}");
        }
        let next = at(&mut resolver, &metrics(8, "candidate", 7));
        assert!(next.opened && next.changed && next.run_id != own, "a metrics epoch below the last of an ended run");
        let start = at(&mut resolver, &Facts { event_time: 3, ..facts(Kind::RunStart) });
        assert_eq!((start.run_id, start.opened), (implicit_run_id("c", 3, b"{}"), false));
        assert_eq!(at(&mut resolver, &facts(Kind::State)).run_id, start.run_id);
    }

    #[test]
    fn epochs_that_start_again_are_a_new_run_unless_the_network_grew() {
        for (name, before, then, new) in [
            ("same phase, nothing grew", (7, "output", 2), (0, "output", 2), true),
            ("epoch one", (7, "output", 2), (1, "output", 2), true),
            ("fewer units", (7, "output", 2), (0, "output", 0), true),
            ("grew", (7, "output", 2), (0, "output", 3), false),
            ("another phase", (7, "output", 2), (0, "candidate", 2), false),
            ("not at the beginning", (7, "output", 2), (2, "output", 2), false),
            ("not below", (1, "output", 2), (1, "output", 2), false),
        ] {
            let mut resolver = Resolver::new(IDLE);
            let first = at(&mut resolver, &metrics(before.0, before.1, before.2));
            let second = at(&mut resolver, &Facts { event_time: 99, ..metrics(then.0, then.1, then.2) });
            assert_eq!(second.opened, new, "{name}");
            assert_eq!(second.run_id != first.run_id, new, "{name}");
        }
    }

    #[test]
    fn silence_counts_only_while_subscribed_and_over_a_restart() {
        let half = IDLE / 2;
        let mut resolver = Resolver::new(IDLE);
        let first = resolver.decide("c", &facts(Kind::Metrics), ZERO);
        let json = serde_json::to_string(&resolver.state(half)).unwrap();
        let restored = || Resolver::restore(IDLE, serde_json::from_str(&json).unwrap());
        let later = Facts { event_time: 5, ..facts(Kind::State) };
        assert_eq!(restored().decide("c", &later, half - Duration::from_secs(1)).run_id, first.run_id);
        let second = restored().decide("c", &later, half);
        assert!(second.opened && second.run_id != first.run_id);
    }

    #[test]
    fn the_newest_run_is_adopted_and_a_reset_forgets_all() {
        let run = |id, opened_at| OpenRun {
            run_id: Uuid::from_u128(id),
            opened_at,
            ended: false,
            last_epoch: None,
            phases: Vec::new(),
        };
        let mut resolver = Resolver::new(IDLE);
        assert!(!resolver.knows("c"));
        assert!(resolver.adopt("c", run(1, 10), ZERO));
        assert!(!resolver.adopt("c", run(2, 9), ZERO), "older");
        assert!(resolver.adopt("c", run(3, 11), ZERO));
        assert_eq!(at(&mut resolver, &facts(Kind::State)).run_id, Uuid::from_u128(3));
        assert!(!resolver.adopt("c", OpenRun { ended: true, ..run(3, 50) }, ZERO));
        assert!(resolver.open_run("c").unwrap().ended);
        resolver.close_all();
        assert!(at(&mut resolver, &facts(Kind::State)).opened);
    }

    #[test]
    fn open_runs_are_rebuilt_from_what_was_decided() {
        let mut resolver = Resolver::new(IDLE);
        let id = Uuid::from_u128(4);
        resolver.observe("c", &metrics(7, "output", 2), id, false, ZERO);
        assert_eq!(at(&mut resolver, &metrics(8, "output", 2)).run_id, id);
        assert!(at(&mut resolver, &metrics(0, "output", 2)).opened, "the epochs were taken in as well");
    }

    #[test]
    fn the_number_of_channels_is_bounded() {
        let mut resolver = Resolver::new(IDLE);
        for n in 0..CHANNELS + 10 {
            resolver.decide(&n.to_string(), &facts(Kind::State), ZERO);
        }
        assert_eq!(resolver.open_runs().count(), CHANNELS);
        assert!(!resolver.knows("0") && resolver.knows(&(CHANNELS + 9).to_string()));
    }
}
