//! What is known of the events behind a stored row, and when the history of the run must be read.
//!
//! Of a stored row only its `last_event_time` is known, so that each of its columns counts as being that new. An event that this
//! could do wrong waits until the [history](crate::writer::history) of the run has been read.

use super::{Finals, Summary, ended_status, latest_equivalent, unknown_end_bound};
use crate::{
    event::{RunRow, RunUpdate},
    units::Micros,
    writer::{
        lifetime::is_stored,
        run_columns::{DURATION, END, NEWEST_COLUMNS, RESTARTED, each_newest},
    },
};

/// Of the columns whose newest value counts, those that only rows of metrics and events say: the others are known from no history.
const EVENT_COLUMNS: [usize; 6] = [0, 1, 2, 3, 6, 7];
/// How often the history of one run is read before what is stored counts as being new.
const HISTORY_READS_MAX: u8 = 8;

/// What is known of the events that made the stored row.
#[derive(Debug)]
pub(super) struct StoredOrigin {
    /// At or below this time it is not known which event said what.
    pub(super) floor: Micros,
    /// Whether its starts and ends are known.
    pub(super) lifecycle_known: bool,
    /// Whether it started again at a time that its row does not say.
    pub(super) restart_unknown: bool,
    /// How often it may still be read.
    pub(super) reads_left: u8,
}

/// Which part of a run's history is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// Metrics from this time on.
    pub from: Micros,
    /// The event at this time, beside the newest: the end of the run.
    pub end: Option<Micros>,
}

/// Part of a run's history, from its stored rows.
#[derive(Clone, Debug)]
pub struct History {
    /// The updates of its metrics and events, in no order.
    pub updates: Vec<RunUpdate>,
    /// The metrics are complete from this time on.
    pub metrics_from: Micros,
    /// The events are.
    pub events_from: Micros,
}

impl History {
    /// Of a run whose rows cannot be read: what is stored counts as being as new as its row.
    pub fn none() -> Self {
        Self { updates: Vec::new(), metrics_from: Micros::MAX, events_from: Micros::MAX }
    }
}

impl Summary {
    /// Of a stored row.
    pub(super) fn from_stored(row: RunRow) -> Box<Self> {
        let mut summary = Self::not_loaded(row.run_id);
        let floor = row.last_event_time.map_or(Micros::MIN, latest_equivalent);
        summary.origin =
            StoredOrigin { floor, lifecycle_known: false, restart_unknown: false, reads_left: HISTORY_READS_MAX };
        summary.loaded = true;
        summary.times = [floor; NEWEST_COLUMNS];
        summary.from_metrics = Finals::of(&row, floor);
        summary.manual_end = unknown_end_bound(&row);
        summary.row = row;
        let row = &mut summary.row;
        if let (Some(end), Some(how)) = (row.end_time, row.status.as_deref().and_then(ended_status)) {
            summary.lifetime.end(end, how);
            summary.lifetime.ended_as_stored(end, row.restarted_at);
        } else if let Some(end) = row.end_time {
            // It runs again, and was written by a version that knew no restarts. At the earliest it was then; its events say when.
            summary.origin.restart_unknown = true;
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
    pub fn history_request(&self) -> Option<HistoryRequest> {
        self.unmerged.as_ref().map(|unmerged| HistoryRequest { from: unmerged.oldest, end: self.row.end_time })
    }

    /// The history that was wanted: what waited for it is merged.
    pub fn apply_history(&mut self, history: History) {
        let Some(unmerged) = self.unmerged.take() else { return };
        let floor = self.origin.floor;
        // What none of these rows said is older than they are.
        let events_from = history.events_from.max(unmerged.oldest).saturating_sub(1);
        for column in EVENT_COLUMNS {
            if self.times[column] <= floor {
                self.times[column] = events_from.min(floor);
            }
        }
        self.from_metrics.lower_times(floor, history.metrics_from.saturating_sub(1));
        self.origin = StoredOrigin {
            floor: unmerged.oldest.saturating_sub(1).min(floor),
            lifecycle_known: true,
            restart_unknown: false,
            reads_left: self.origin.reads_left.saturating_sub(1),
        };
        for update in history.updates {
            self.merge_timed(update);
        }
        if let Some(start) = self.row.start_time.filter(|start| history.events_from > *start) {
            // It may be that of a start message, which the history does not reach: an end before it does not end the run.
            self.lifetime.start(start);
        }
        self.merge_later(*unmerged);
    }

    /// Whether what the event says could go wrong with what is known; cheap, and seldom `true`.
    pub(super) fn may_need_history(&self, update: &RunUpdate) -> bool {
        self.origin.reads_left > 0
            && (update.event_time <= self.origin.floor
                || self.origin.restart_unknown
                || (!self.origin.lifecycle_known && (self.row.end_time.is_some() || update.lifecycle.is_some())))
    }

    /// Whether what `unmerged` says must wait for the history of the run.
    pub(super) fn needs_history(&self, unmerged: &Self) -> bool {
        let (row, past) = (&self.row, &self.origin);
        if past.reads_left == 0 || past.restart_unknown {
            return past.restart_unknown;
        }
        macro_rules! differ {
            ($($at:literal $bit:literal $name:ident),+) => {
                false $(|| matches!((&unmerged.row.$name, &row.$name), (Some(new), Some(old)) if new != old))+
            };
        }
        let ends_otherwise = unmerged.lifetime.ends().any(|end| {
            row.end_time.is_none_or(|stored| !is_stored(stored, end)) && row.restarted_at.is_none_or(|at| end > at)
        });
        let is_late = unmerged.oldest <= past.floor
            && (each_newest!(differ)
                || unmerged.from_metrics.differs_from(row)
                || unmerged.from_end.differs_from(row)
                || ends_otherwise);
        let after_the_end = row.end_time.is_some() && unmerged.from_metrics.differs_from(row);
        let starts = unmerged.lifetime.has_other_starts([row.start_time, row.restarted_at]);
        is_late || (!past.lifecycle_known && (after_the_end || starts))
    }

    /// A start that is the stored one, which may have lost its microseconds.
    pub(super) fn stored_instant(&self, time: Micros) -> Micros {
        self.row.start_time.filter(|start| is_stored(*start, time)).unwrap_or(time)
    }
}
