//! Assigns events to runs.
//!
//! The message's own id takes precedence, then the channel's open run; otherwise the event opens an implicit run. Intake decides
//! once and stores the result with the message. The module does no I/O: times are passed in as values.
//!
//! A message with its own id changes the channel's open run in two cases only: a run start opens its run, and the end of the open
//! run ends it. Trainers that name their runs therefore do not disturb a trainer on the same channel that does not.

mod entries;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::entries::{EntryAssignment, FormerRun, assign_entry, close_entry_run, reset_entry_run};
use crate::{
    event::{Kind, implicit_run_id},
    units::Micros,
    wire::{Message, MessageTime},
};

/// Default maximum of remembered channels; beyond it the least recently used is evicted.
pub const DEFAULT_CHANNELS_MAX: usize = 4_096;
/// Remembered phases per run.
const PHASES_MAX: usize = 16;
/// Maximum significant length of a phase name.
const PHASE_NAME_MAX: usize = 64;

/// The fields of a message that identify its run.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named like what the message says")]
pub struct RunHints<'a> {
    pub kind: Kind,
    pub run_id: Option<Uuid>,
    pub epoch: Option<i32>,
    pub phase: Option<&'a str>,
    pub hidden_units: Option<i32>,
    pub event_time: Micros,
    /// Whether the event time is the message's own, not the time of receipt.
    pub has_event_time: bool,
    pub received_at: Micros,
    pub payload: &'a [u8],
}

impl<'a> RunHints<'a> {
    /// The hints of a decoded message with a known event time.
    pub fn of(message: &'a Message<'_>, time: MessageTime, received_at: Micros, payload: &'a [u8]) -> Self {
        let columns = message.metric_columns();
        Self {
            kind: message.kind(),
            run_id: message.run_id(),
            epoch: columns.epoch,
            phase: columns.phase.as_deref(),
            hidden_units: columns.hidden_units,
            event_time: time.event_time,
            has_event_time: time.from_message,
            received_at,
            payload,
        }
    }
}

/// Timeouts after which an idle or ended run is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Idle time after which a run is over; only subscribed time counts.
    pub idle: Duration,
    /// Grace after a run's end, within which metrics without an id still belong to it.
    pub end_grace: Duration,
}

/// The run assigned to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAssignment {
    /// Run id.
    pub run_id: Uuid,
    /// Whether the event opened it without being a run start.
    pub opened_run: bool,
    /// Whether the channel's open run has changed or ended, and must be published to other instances.
    pub changed: bool,
}

/// The open run of a channel: shared between instances, and saved across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// Run id.
    pub run_id: Uuid,
    /// Time of receipt of the event that opened it; between instances the newest wins.
    pub opened_at: Micros,
    /// Whether it has ended.
    #[serde(default)]
    pub ended: bool,
    /// When it ended; absent in data of older versions.
    #[serde(default)]
    ended_at: Option<EndTime>,
    /// Epoch of its last metrics.
    #[serde(default)]
    last_epoch: Option<i32>,
    /// The last metrics of each phase, the most recent phase last.
    #[serde(default)]
    phases: Vec<PhaseProgress>,
    /// Of a stream: the runs before it, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<FormerRun>,
    /// Of a stream: when it was closed by a command, or because it was deleted. What is later belongs to the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<Micros>,
    /// Of a stream: the newest `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset: Option<entries::Reset>,
}

/// End time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EndTime {
    /// Event time of the end event, if it has its own.
    event_time: Option<Micros>,
    /// Time of receipt of the end event.
    received_at: Micros,
}

impl EndTime {
    /// Whether a message is at most `grace` later: by event time if both have one, else by time of receipt.
    fn is_within(&self, hints: &RunHints<'_>, grace: Duration) -> bool {
        let later = match self.event_time {
            Some(ended) if hints.has_event_time => hints.event_time.saturating_sub(ended),
            _ => hints.received_at.saturating_sub(self.received_at),
        };
        u128::try_from(later).map_or(true, |later| later <= grace.as_micros())
    }
}

/// Progress of a phase of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PhaseProgress {
    phase: Option<String>,
    epoch: i32,
    hidden_units: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Channel {
    run: OpenRun,
    /// Time of its last event, in subscribed time.
    seen: Duration,
    /// Usage counter over all channels, for eviction.
    used: u64,
}

/// State saved across restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Total subscribed time over all starts.
    clock: Duration,
    channels: HashMap<String, Channel>,
}

/// Decides which run each event belongs to.
#[derive(Debug)]
pub struct Resolver {
    timeouts: Timeouts,
    /// Subscribed time before this start.
    subscribed_before: Duration,
    use_counter: u64,
    channels: HashMap<String, Channel>,
    channels_max: usize,
    /// The last evicted channel, until it is taken.
    evicted: Option<String>,
}

impl Resolver {
    /// A resolver without open runs.
    pub fn new(timeouts: Timeouts) -> Self {
        Self::restore(timeouts, State::default())
    }

    /// A resolver restored from a saved state.
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

    /// Sets the maximum number of remembered channels.
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

    /// Takes the channel evicted by the last decision; its run must not be adopted.
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

    /// State for [`restore`](Self::restore); `subscribed` as for [`decide`](Self::decide).
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

    /// Assigns one message. `subscribed` is this process's subscribed time; only it counts as idle time.
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

    /// Applies a message that was assigned earlier: rebuilds the open runs from the spool.
    pub fn observe(&mut self, channel: &str, hints: &RunHints<'_>, run_id: Uuid, opened: bool, subscribed: Duration) {
        let unknown = hints.run_id.is_none() && self.open_run(channel).is_none_or(|run| run.run_id != run_id);
        self.track(channel, hints, run_id, opened || unknown, subscribed);
    }

    /// Adopts the open run of another instance if it is newer than ours. Returns whether it did.
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

    /// Replaces a channel's open run with that of another instance; `None` removes it.
    pub fn replace(&mut self, channel: &str, run: Option<OpenRun>, subscribed: Duration) {
        match run {
            Some(run) => self.insert(channel, run, subscribed),
            None => _ = self.channels.remove(channel),
        }
    }

    /// Closes the open runs that are `chosen`: the next event without an id begins a new one. Returns their channels.
    pub fn close(&mut self, chosen: impl Fn(&str, &OpenRun) -> bool) -> Vec<String> {
        let closed = self.channels.extract_if(|name, channel| chosen(name, &channel.run));
        closed.map(|(channel, _)| channel).collect()
    }

    /// Updates the channel's open run with an event of `run_id`; returns whether the open run changed or ended.
    fn track(&mut self, channel: &str, hints: &RunHints<'_>, run_id: Uuid, opened: bool, subscribed: Duration) -> bool {
        let known = self.channels.get(channel).is_some_and(|open| open.run.run_id == run_id);
        let mut changed = false;
        if opened || hints.kind == Kind::RunStart {
            // A repeated start (a repeated message, another instance's spool) keeps later progress.
            if !known || self.channels.get(channel).is_some_and(|open| open.run.ended) {
                let run = OpenRun {
                    run_id,
                    opened_at: hints.received_at,
                    ended: false,
                    ended_at: None,
                    last_epoch: None,
                    phases: Vec::new(),
                    former: Vec::new(),
                    closed_at: None,
                    reset: None,
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
    /// Limits a run of another instance to our bounds on phases and their names.
    #[must_use]
    pub fn within_bounds(mut self) -> Self {
        self.phases.drain(..self.phases.len().saturating_sub(PHASES_MAX));
        for progress in &mut self.phases {
            progress.phase = progress.phase.as_deref().map(|phase| truncate_phase_name(phase).to_owned());
        }
        self.phases.shrink_to_fit();
        self.former.truncate(entries::FORMER_MAX);
        self
    }

    /// Whether the run no longer accepts this event, which has no id.
    fn is_over(&self, hints: &RunHints<'_>, idle: Duration, timeouts: Timeouts) -> bool {
        if idle >= timeouts.idle {
            return true;
        }
        let epoch = hints.epoch.filter(|_| hints.kind == Kind::Metrics);
        if self.ended {
            let restarts = matches!((epoch, self.last_epoch), (Some(epoch), Some(last)) if epoch < last);
            let is_late = self.ended_at.is_none_or(|ended_at| !ended_at.is_within(hints, timeouts.end_grace));
            // Only metrics begin the next run: a late state or summary still belongs to the ended one.
            return hints.kind == Kind::Metrics && (restarts || is_late);
        }
        let Some(epoch @ (0 | 1)) = epoch else { return false };
        let Some(progress) = self.phases.iter().find(|progress| progress.is_phase(hints.phase)) else { return false };
        // More hidden units than at the last metrics of this phase: the network grew, so epochs restart within the same run.
        let grew = hints.hidden_units.unwrap_or(0) > progress.hidden_units.unwrap_or(0);
        epoch < progress.epoch && !grew
    }

    /// Applies an event of this run; returns whether it ended the run.
    fn apply(&mut self, hints: &RunHints<'_>) -> bool {
        if hints.kind == Kind::RunEnd {
            // Without metrics, the end event supplies the last epoch.
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
