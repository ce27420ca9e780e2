//! When a run started, started again and ended, from its start and end events in whatever order they arrive.
//!
//! Pure: starts and ends grow by union, so that neither order nor repetition matters. A run began with the earliest of all its events.
//! * A start that is later than an end makes the run run again; it restarted at the latest of them.
//! * Ends up to that start are superseded. Of the later ends the latest counts: the run has ended with it.

use crate::units::Micros;

/// Starts that are remembered of one run, at most: the latest.
const STARTS_MAX: usize = 64;

/// The start and end events of a run, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Lifetime {
    /// The time of the earliest event seen: the run began no later.
    pub first_event: Option<Micros>,
    /// Start events, in order, each once.
    pub starts: Vec<Micros>,
    earliest_end: Option<Micros>,
    end: Option<(Micros, &'static str)>,
    /// An end and the last restart of one stored row that says that the run has ended. Stores that keep milliseconds may give both
    /// one time.
    stored: Option<(Micros, Micros)>,
}

impl Lifetime {
    /// Any event.
    pub fn event(&mut self, time: Micros) {
        self.first_event = Some(self.first_event.map_or(time, |first| first.min(time)));
    }

    /// Whether an event is earlier than `start`.
    pub fn begins_before(&self, start: Option<Micros>) -> bool {
        self.first_event.zip(start).is_some_and(|(first, start)| first < start)
    }

    /// A start event.
    pub fn start(&mut self, time: Micros) {
        if let Err(at) = self.starts.binary_search(&time) {
            self.starts.insert(at, time);
            if self.starts.len() > STARTS_MAX {
                // The earliest stays: the run may have begun with it.
                self.starts.remove(1);
            }
        }
    }

    /// The run is known to have started again at this time: it had ended before, whenever that was.
    pub fn restart(&mut self, time: Micros) {
        self.start(time);
        let before = time.saturating_sub(1);
        self.earliest_end = Some(self.earliest_end.map_or(before, |earliest| earliest.min(before)));
    }

    /// An end event; the later of two equally new ones counts.
    pub fn end(&mut self, time: Micros, how: &'static str) {
        self.earliest_end = Some(self.earliest_end.map_or(time, |earliest| earliest.min(time)));
        if self.end.is_none_or(|(latest, _)| time >= latest) {
            self.end = Some((time, how));
        }
    }

    /// The stored row says that the run has ended then, beside this restart.
    pub fn ended_as_stored(&mut self, end: Micros, restarted: Option<Micros>) {
        self.stored = restarted.map(|restarted| (end, restarted));
    }

    /// Whether an end at this time, as stored, is later than any that is known.
    pub fn is_newer_end(&self, stored: Micros) -> bool {
        self.end.is_none_or(|(latest, _)| stored > latest)
    }

    /// Takes what was seen later.
    pub fn merge_later(&mut self, later: &Self) {
        if let Some(first) = later.first_event {
            self.event(first);
        }
        for start in &later.starts {
            self.start(*start);
        }
        if let Some((time, how)) = later.end {
            self.end(time, how);
        }
        self.earliest_end = self.earliest_end.into_iter().chain(later.earliest_end).min();
        self.stored = later.stored.or(self.stored);
    }

    /// The starts later than `start`, when the run began.
    pub fn restarts(&self, start: Option<Micros>) -> &[Micros] {
        let from = start.map_or(0, |start| self.starts.partition_point(|time| *time <= start));
        &self.starts[from..]
    }

    /// When it started again, if it did.
    pub fn restarted_at(&self, start: Option<Micros>) -> Option<Micros> {
        let latest = self.restarts(start).last().copied()?;
        self.earliest_end.is_some_and(|end| end < latest).then_some(latest)
    }

    /// The end that counts, when the run last started again at `restarted`.
    pub fn ended(&self, restarted: Option<Micros>) -> Option<(Micros, &'static str)> {
        self.end.filter(|(end, _)| {
            let is_stored =
                |restarted| self.stored.is_some_and(|(at, before)| at == *end && is_stored(before, restarted));
            restarted.is_none_or(|restarted| *end > restarted || is_stored(restarted))
        })
    }

    /// The earliest and the latest end seen: the one can make a start a restart, with the other the run may have ended.
    pub fn ends(&self) -> impl Iterator<Item = Micros> {
        self.earliest_end.into_iter().chain(self.end.map(|(end, _)| end))
    }

    /// Whether there is a start that is none of these.
    pub fn has_other_starts(&self, known: [Option<Micros>; 2]) -> bool {
        self.starts.iter().any(|start| !known.contains(&Some(*start)))
    }
}

/// Whether `time` is what is stored, in microseconds or milliseconds.
pub fn is_stored(stored: Micros, time: Micros) -> bool {
    stored == time || (stored % 1_000 == 0 && (0..1_000).contains(&(time - stored)))
}
