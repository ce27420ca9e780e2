//! When each hidden unit came, and what it did to one field.

use super::{Effective, Phases, SampleSink, Samples};
use crate::units::Micros;

/// Levels kept; a network that grows further is told by its newest.
const LEVELS_MAX: usize = 4_096;

/// The time with one number of hidden units.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// That number.
    pub hidden_units: i32,
    /// Its first row.
    pub from: Micros,
    /// The epoch of that row.
    pub epoch: Option<i32>,
    /// The phase of that row.
    pub phase: Option<String>,
    /// Its last row.
    pub to: Micros,
    /// How many rows.
    pub rows: u64,
    /// The field's first finite value.
    pub first: Option<f64>,
    /// Its smallest and greatest.
    pub range: Option<(f64, f64)>,
    /// Its last.
    pub last: Option<f64>,
}

/// The levels of a run, the newest row first. Takes samples of one field.
#[derive(Debug, Default)]
pub struct Growth {
    /// The newest first.
    pub levels: Vec<Level>,
    /// Whether there were more before them than are kept.
    pub truncated: bool,
    effective: Effective,
    phases: Phases,
}

impl SampleSink for Growth {
    fn add(&mut self, page: &Samples) {
        if self.truncated {
            return;
        }
        for (sample, values) in page.numbered(1, &mut self.phases) {
            let (Some(units), value) = (sample.hidden_units, values[0]) else { continue };
            if !self.effective.counts(Some(units), sample.phase, sample.epoch) {
                continue;
            }
            if self.levels.last().is_none_or(|level| level.hidden_units != units) {
                if self.levels.len() == LEVELS_MAX {
                    self.truncated = true;
                    return;
                }
                self.levels.push(Level {
                    hidden_units: units,
                    from: sample.timestamp,
                    epoch: sample.epoch,
                    phase: None,
                    to: sample.timestamp,
                    rows: 0,
                    first: None,
                    range: None,
                    last: None,
                });
            }
            let Some(level) = self.levels.last_mut() else { continue };
            (level.from, level.epoch) = (sample.timestamp, sample.epoch);
            level.phase = self.phases.name(sample.phase).map(str::to_owned);
            level.rows += 1;
            if let Some(value) = value.filter(|value| value.is_finite()) {
                level.last.get_or_insert(value);
                level.first = Some(value);
                let (min, max) = level.range.unwrap_or((value, value));
                level.range = Some((min.min(value), max.max(value)));
            }
        }
    }
}
