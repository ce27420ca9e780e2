//! What is known of the events that made a stored row, and when that is not enough.
//!
//! Of a stored row only its `last_event_time` is known, so that each of its columns counts as being that new. An event that this
//! could do wrong waits until the [history](crate::writer::history) of the run has been read.

use super::{Finals, Summary, closed, ended, whole};
use crate::{
    event::{RunRow, RunUpdate},
    units::Micros,
    writer::{
        columns::{DURATION, END, NEWEST, RESTARTED, each_newest},
        finals::Same,
    },
};

/// Of the columns whose newest value counts, those that only rows of metrics and events say: the others are known from no history.
const OF_EVENTS: [usize; 6] = [0, 1, 2, 3, 6, 7];
/// How often the history of one run is read before what is stored counts as being new.
const HISTORIES: u8 = 8;

/// What is known of the events that made the stored row.
#[derive(Debug)]
pub(super) struct Past {
    /// At or below this time it is not known which event said what.
    pub(super) floor: Micros,
    /// Whether its starts and ends are known.
    pub(super) known: bool,
    /// Whether it started again at a time that its row does not say.
    pub(super) blind: bool,
    /// How often it may still be read.
    pub(super) left: u8,
}

/// Which part of a run's history is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Metrics from this time on.
    pub from: Micros,
    /// The event at this time, beside the newest: the end of the run.
    pub end: Option<Micros>,
}

/// Part of a run's history, from its stored rows.
#[derive(Clone, Debug)]
pub struct History {
    /// What its metrics and events say, in no order.
    pub touches: Vec<RunUpdate>,
    /// The metrics are complete from this time on.
    pub metrics_from: Micros,
    /// The events are.
    pub events_from: Micros,
}

impl History {
    /// Of a run whose rows cannot be read: what is stored counts as being as new as its row.
    pub fn none() -> Self {
        Self { touches: Vec::new(), metrics_from: Micros::MAX, events_from: Micros::MAX }
    }
}

impl Summary {
    /// Of a stored row.
    pub(super) fn stored(row: RunRow) -> Box<Self> {
        let mut summary = Self::unknown(row.run_id);
        let floor = row.last_event_time.map_or(Micros::MIN, whole);
        summary.past = Past { floor, known: false, blind: false, left: HISTORIES };
        summary.loaded = true;
        summary.times = [floor; NEWEST];
        summary.measured = Finals::of(&row, floor);
        summary.closed = closed(&row);
        summary.row = row;
        let row = &mut summary.row;
        if let (Some(end), Some(how)) = (row.end_time, row.status.as_deref().and_then(ended)) {
            summary.lifetime.end(end, how);
            summary.lifetime.ended_as_stored(end, row.restarted_at);
        } else if let Some(end) = row.end_time {
            // It runs again, and was written by a version that knew no restarts. At the earliest it was then; its events say when.
            summary.past.blind = true;
            row.restarted_at = row.restarted_at.max(Some(end));
            (row.end_time, row.duration_seconds) = (None, None);
            summary.dirty = RESTARTED | END | DURATION;
        }
        if let Some(restarted) = row.restarted_at {
            summary.lifetime.restart(restarted);
        }
        summary
    }

    /// The history that must be read before anything is written.
    pub fn wanted(&self) -> Option<Wanted> {
        self.late.as_ref().map(|late| Wanted { from: late.oldest, end: self.row.end_time })
    }

    /// The history that was wanted: what waited for it is merged.
    pub fn recall(&mut self, history: History) {
        let Some(late) = self.late.take() else { return };
        let floor = self.past.floor;
        // What none of these rows said is older than they are.
        let events_from = history.events_from.max(late.oldest).saturating_sub(1);
        for column in OF_EVENTS {
            if self.times[column] <= floor {
                self.times[column] = events_from.min(floor);
            }
        }
        self.measured.lower(floor, history.metrics_from.saturating_sub(1));
        self.past = Past {
            floor: late.oldest.saturating_sub(1).min(floor),
            known: true,
            blind: false,
            left: self.past.left.saturating_sub(1),
        };
        for touch in history.touches {
            self.learn(touch);
        }
        self.join(*late);
    }

    /// Whether what the event says could go wrong with what is known; cheap, and seldom `true`.
    pub(super) fn is_doubtful(&self, touch: &RunUpdate) -> bool {
        self.past.left > 0
            && (touch.event_time <= self.past.floor
                || self.past.blind
                || (!self.past.known && (self.row.end_time.is_some() || touch.lifecycle.is_some())))
    }

    /// Whether what `late` says must wait for the history of the run.
    pub(super) fn needs_history(&self, late: &Self) -> bool {
        let (row, past) = (&self.row, &self.past);
        if past.left == 0 || past.blind {
            return past.blind;
        }
        macro_rules! differ {
            ($($at:literal $bit:literal $name:ident),+) => {
                false $(|| matches!((&late.row.$name, &row.$name), (Some(new), Some(old)) if !new.same(old)))+
            };
        }
        let ends_otherwise = late.lifetime.ends().any(|end| {
            row.end_time.is_none_or(|stored| !is_stored(stored, end)) && row.restarted_at.is_none_or(|at| end > at)
        });
        let is_late = late.oldest <= past.floor
            && (each_newest!(differ) || late.measured.differ(row) || late.given.differ(row) || ends_otherwise);
        let after_the_end = row.end_time.is_some() && late.measured.differ(row);
        let starts = late.lifetime.has_other_starts([row.start_time, row.restarted_at]);
        is_late || (!past.known && (after_the_end || starts))
    }

    /// A start that is the stored one, which may have lost its microseconds.
    pub(super) fn stored_instant(&self, time: Micros) -> Micros {
        self.row.start_time.filter(|start| is_stored(*start, time)).unwrap_or(time)
    }
}

/// Whether `time` is what is stored, in microseconds or milliseconds.
pub fn is_stored(stored: Micros, time: Micros) -> bool {
    stored == time || (stored % 1_000 == 0 && (0..1_000).contains(&(time - stored)))
}
