//! Which run an event belongs to.
//!
//! A message's own id decides; else the channel's open run; else the event opens an implicit one. The decision is made once, at
//! intake, and stored with the message. Everything here is plain: times come in as values, nothing is read or written.
//!
//! A message with an id of its own changes the channel's open run in two cases only: a run start opens its run, and the end of
//! the open run ends it. Other trainers that share the channel, and name their runs, so do not disturb one that does not.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::{Kind, implicit_run_id},
    units::Micros,
    wire::Message,
};

/// Channels that are remembered, unless another number is given; beyond that the least recently used is forgotten.
pub const DEFAULT_CHANNELS_MAX: usize = 4_096;
/// Phases of a run that are remembered.
const PHASES_MAX: usize = 16;
/// Longest name of a phase that is told apart.
const PHASE_NAME_MAX: usize = 64;

/// What a message says about its run.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named like what the message says")]
pub struct RunHints<'a> {
    pub kind: Kind,
    pub run_id: Option<Uuid>,
    pub epoch: Option<i32>,
    pub phase: Option<&'a str>,
    pub hidden_units: Option<i32>,
    pub event_time: Micros,
    /// Whether the event time is the message's own, and not that of its receipt.
    pub has_event_time: bool,
    pub received_at: Micros,
    pub payload: &'a [u8],
}

impl<'a> RunHints<'a> {
    /// The facts of a decoded message, whose time is known.
    pub fn of(message: &'a Message<'_>, time: EventTime, received_at: Micros, payload: &'a [u8]) -> Self {
        let columns = message.metric_columns();
        Self {
            kind: message.kind(),
            run_id: message.run_id(),
            epoch: columns.epoch,
            phase: columns.phase.as_deref(),
            hidden_units: columns.hidden_units,
            event_time: time.micros,
            has_event_time: time.from_message,
            received_at,
            payload,
        }
    }
}

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// The moment.
    pub micros: Micros,
    /// Whether the message says so itself; else it is the time of receipt.
    pub from_message: bool,
}

/// When a run without events, or one that has ended, is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Silence after which a run is over, counting only time subscribed.
    pub idle: Duration,
    /// For how long after its end metrics without an id still belong to a run.
    pub end_grace: Duration,
}

/// The run of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAssignment {
    /// Its id.
    pub run_id: Uuid,
    /// Whether the event opened it without being a run start.
    pub opened_run: bool,
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
    /// When it did; absent in what versions without it have written.
    #[serde(default)]
    ended_at: Option<EndTime>,
    /// The epoch of its last metrics.
    #[serde(default)]
    last_epoch: Option<i32>,
    /// The last metrics of each phase, the most recent phase last.
    #[serde(default)]
    phases: Vec<PhaseProgress>,
}

/// When a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EndTime {
    /// By its end event, where that has a time of its own.
    event_time: Option<Micros>,
    /// By the receipt of that event.
    received_at: Micros,
}

impl EndTime {
    /// Whether a message is at most `grace` later: by event times where both have one, else by receipt.
    fn is_within(&self, hints: &RunHints<'_>, grace: Duration) -> bool {
        let later = match self.event_time {
            Some(ended) if hints.has_event_time => hints.event_time.saturating_sub(ended),
            _ => hints.received_at.saturating_sub(self.received_at),
        };
        u128::try_from(later).map_or(true, |later| later <= grace.as_micros())
    }
}

/// Where a phase of a run has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PhaseProgress {
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
    timeouts: Timeouts,
    /// Time subscribed before this start.
    subscribed_before: Duration,
    use_counter: u64,
    channels: HashMap<String, Channel>,
    channels_max: usize,
    /// The channel that was evicted last, until it is taken.
    evicted: Option<String>,
}

impl Resolver {
    /// Without any open run.
    pub fn new(timeouts: Timeouts) -> Self {
        Self::restore(timeouts, State::default())
    }

    /// As it was when `state` was taken.
    pub fn restore(timeouts: Timeouts, state: State) -> Self {
        let uses = state.channels.values().map(|channel| channel.used).max().unwrap_or(0);
        Self {
            timeouts,
            subscribed_before: state.clock,
            use_counter: uses,
            channels: state.channels,
            channels_max: DEFAULT_CHANNELS_MAX,
            evicted: None,
        }
    }

    /// Remembers at most so many channels.
    #[must_use]
    pub fn with_channels(mut self, channels_max: usize) -> Self {
        self.channels_max = channels_max.max(1);
        let surplus = self.channels.len().saturating_sub(self.channels_max);
        if surplus > 0 {
            let mut uses: Vec<_> = self.channels.values().map(|open| open.used).collect();
            uses.sort_unstable();
            self.channels.retain(|_, open| open.used >= uses[surplus]);
        }
        self
    }

    /// Takes the channel that the last decision has evicted because there are too many; its run must not be adopted.
    pub fn take_evicted(&mut self) -> Option<String> {
        self.evicted.take()
    }

    fn evict_oldest(&mut self) {
        let oldest = self.channels.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.channels.remove(&oldest);
            self.evicted = Some(oldest);
        }
    }

    /// What [`restore`](Self::restore) takes; `subscribed` as for [`decide`](Self::decide).
    pub fn state(&self, subscribed: Duration) -> State {
        State { clock: self.subscribed_before + subscribed, channels: self.channels.clone() }
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
    pub fn decide(&mut self, channel: &str, hints: &RunHints<'_>, subscribed: Duration) -> RunAssignment {
        let names_no_run = hints.run_id.is_none() && hints.kind != Kind::RunStart;
        let now = self.subscribed_before + subscribed;
        let is_open = |open: &&Channel| !open.run.is_over(hints, now.saturating_sub(open.seen), self.timeouts);
        let open = self.channels.get(channel).filter(|_| names_no_run).filter(is_open).map(|open| open.run.run_id);
        let opened_run = names_no_run && open.is_none();
        let run_id = open.or(hints.run_id).unwrap_or_else(|| implicit_run_id(channel, hints.event_time, hints.payload));
        let changed = self.track(channel, hints, run_id, opened_run, subscribed);
        RunAssignment { run_id, opened_run, changed }
    }

    /// Takes in a message that was decided before: how open runs are rebuilt from the spool.
    pub fn observe(&mut self, channel: &str, hints: &RunHints<'_>, run_id: Uuid, opened: bool, subscribed: Duration) {
        let unknown = hints.run_id.is_none() && self.open_run(channel).is_none_or(|run| run.run_id != run_id);
        self.track(channel, hints, run_id, opened || unknown, subscribed);
    }

    /// Takes over a run that another instance has open, when it is newer than ours. Returns whether it did.
    pub fn adopt(&mut self, channel: &str, run: OpenRun, subscribed: Duration) -> bool {
        match self.channels.get_mut(channel) {
            Some(ours) if ours.run.run_id == run.run_id => {
                ours.run.ended |= run.ended;
                ours.run.ended_at = ours.run.ended_at.or(run.ended_at);
                false
            }
            Some(ours) if ours.run.opened_at >= run.opened_at => false,
            _ => {
                self.insert(channel, run, subscribed);
                true
            }
        }
    }

    /// Takes the word of another for a channel, whatever was decided here; `None`: nothing is known of it.
    pub fn replace(&mut self, channel: &str, run: Option<OpenRun>, subscribed: Duration) {
        match run {
            Some(run) => self.insert(channel, run, subscribed),
            None => _ = self.channels.remove(channel),
        }
    }

    /// Forgets every open run: the next event without an id begins a new one.
    pub fn close_all(&mut self) {
        self.channels.clear();
    }

    /// Brings the channel's open run up to date with an event of `run_id`; whether it is another one now, or has ended.
    fn track(&mut self, channel: &str, hints: &RunHints<'_>, run_id: Uuid, opened: bool, subscribed: Duration) -> bool {
        let known = self.channels.get(channel).is_some_and(|open| open.run.run_id == run_id);
        let mut changed = false;
        if opened || hints.kind == Kind::RunStart {
            // The same start again (a repeated message, another instance's spool) does not forget what came since.
            if !known || self.channels.get(channel).is_some_and(|open| open.run.ended) {
                let run = OpenRun {
                    run_id,
                    opened_at: hints.received_at,
                    ended: false,
                    ended_at: None,
                    last_epoch: None,
                    phases: Vec::new(),
                };
                self.insert(channel, run, subscribed);
                changed = true;
            }
        } else if !known {
            return false;
        }
        self.use_counter += 1;
        let (uses, now) = (self.use_counter, self.subscribed_before + subscribed);
        if let Some(open) = self.channels.get_mut(channel) {
            open.used = uses;
            open.seen = now;
            changed |= open.run.apply(hints);
        }
        changed
    }

    fn insert(&mut self, channel: &str, run: OpenRun, subscribed: Duration) {
        if self.channels.len() >= self.channels_max && !self.channels.contains_key(channel) {
            self.evict_oldest();
        }
        self.use_counter += 1;
        let open = Channel { run, seen: self.subscribed_before + subscribed, used: self.use_counter };
        self.channels.insert(channel.to_owned(), open);
    }
}

impl OpenRun {
    /// A run from another instance, cut to the number of phases and the length of their names that are kept here.
    #[must_use]
    pub fn within_bounds(mut self) -> Self {
        self.phases.drain(..self.phases.len().saturating_sub(PHASES_MAX));
        for progress in &mut self.phases {
            progress.phase = progress.phase.as_deref().map(|phase| truncate_phase_name(phase).to_owned());
        }
        self.phases.shrink_to_fit();
        self
    }

    /// Whether an event without an id can no longer belong to it.
    fn is_over(&self, hints: &RunHints<'_>, idle: Duration, timeouts: Timeouts) -> bool {
        if idle >= timeouts.idle {
            return true;
        }
        let epoch = hints.epoch.filter(|_| hints.kind == Kind::Metrics);
        if self.ended {
            let restarts = matches!((epoch, self.last_epoch), (Some(epoch), Some(last)) if epoch < last);
            let is_late = self.ended_at.is_none_or(|ended_at| !ended_at.is_within(hints, timeouts.end_grace));
            // Only metrics begin the next run: a state or a summary that comes late is still about the ended one.
            return hints.kind == Kind::Metrics && (restarts || is_late);
        }
        let Some(epoch @ (0 | 1)) = epoch else { return false };
        let Some(progress) = self.phases.iter().find(|progress| progress.is_phase(hints.phase)) else { return false };
        // A unit more, where the last metrics of this phase told their number: training restarts its epochs, the run goes on.
        let grew = hints.hidden_units.unwrap_or(0) > progress.hidden_units.unwrap_or(0);
        epoch < progress.epoch && !grew
    }

    /// Takes in an event of this run; whether it ended it.
    fn apply(&mut self, hints: &RunHints<'_>) -> bool {
        if hints.kind == Kind::RunEnd {
            // Without metrics the end itself says how far the run came.
            self.last_epoch = self.last_epoch.or(hints.epoch);
            let event_time = hints.has_event_time.then_some(hints.event_time);
            self.ended_at = Some(EndTime { event_time, received_at: hints.received_at });
            return !std::mem::replace(&mut self.ended, true);
        }
        let Some(epoch) = hints.epoch.filter(|_| hints.kind == Kind::Metrics) else { return false };
        self.last_epoch = Some(epoch);
        match self.phases.iter_mut().find(|progress| progress.is_phase(hints.phase)) {
            Some(progress) => {
                progress.epoch = epoch;
                progress.hidden_units = hints.hidden_units.or(progress.hidden_units);
            }
            None => {
                if self.phases.len() >= PHASES_MAX {
                    self.phases.remove(0);
                }
                let phase = hints.phase.map(|phase| truncate_phase_name(phase).to_owned());
                self.phases.push(PhaseProgress { phase, epoch, hidden_units: hints.hidden_units });
            }
        }
        false
    }
}

impl PhaseProgress {
    fn is_phase(&self, phase: Option<&str>) -> bool {
        self.phase.as_deref() == phase.map(truncate_phase_name)
    }
}

fn truncate_phase_name(phase: &str) -> &str {
    &phase[..phase.floor_char_boundary(PHASE_NAME_MAX)]
}
