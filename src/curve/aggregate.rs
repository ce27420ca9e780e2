//! Aggregates of a whole run, field by field.

use super::{Effective, Phases, Sample, SampleSink, Samples};
use crate::units::Micros;

/// A value and the row it is from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the columns of the contract, by name")]
pub struct Extreme {
    pub value: f64,
    pub timestamp: Micros,
    pub epoch: Option<i32>,
    pub step: Option<i32>,
}

/// Of one field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregate {
    /// Number of values.
    pub count: u64,
    /// How many are NaN or infinite; they take part in nothing else but `last`.
    pub non_finite: u64,
    /// The smallest, at its first occurrence.
    pub min: Option<Extreme>,
    /// The greatest, likewise.
    pub max: Option<Extreme>,
    /// The newest.
    pub last: Option<Extreme>,
    /// The first that is NaN or infinite.
    pub first_non_finite: Option<Extreme>,
    mean: f64,
}

impl Aggregate {
    /// The mean of the finite values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > self.non_finite).then_some(self.mean)
    }

    /// Takes the value of an older row than all before.
    pub fn add(&mut self, at: Extreme) {
        self.count += 1;
        self.last.get_or_insert(at);
        if !at.value.is_finite() {
            self.non_finite += 1;
            self.first_non_finite = Some(at);
            return;
        }
        // Welford's: no sum that could overflow.
        self.mean += (at.value - self.mean) / (self.count - self.non_finite) as f64;
        // Walked backwards: an equal value that is met later is earlier.
        if self.min.is_none_or(|min| at.value <= min.value) {
            self.min = Some(at);
        }
        if self.max.is_none_or(|max| at.value >= max.value) {
            self.max = Some(at);
        }
    }
}

/// Of several fields of a run, the newest row first.
#[derive(Debug)]
pub struct Aggregates {
    /// One a field.
    pub fields: Vec<Aggregate>,
    /// Rows seen.
    pub rows: u64,
    /// Rows with a value that a later attempt replaced.
    pub replaced: u64,
    /// The newest and the oldest row.
    pub bounds: Option<(Micros, Micros)>,
    effective: Vec<Effective>,
    phases: Phases,
}

impl Aggregates {
    /// Of this many fields; `raw`: of every attempt, not only of what counts.
    pub fn new(fields: usize, raw: bool) -> Self {
        Self {
            fields: vec![Aggregate::default(); fields],
            rows: 0,
            replaced: 0,
            bounds: None,
            effective: vec![Effective::default(); if raw { 0 } else { fields }],
            phases: Phases::default(),
        }
    }

    fn take(&mut self, sample: &Sample, values: &[Option<f64>]) {
        let newest = self.bounds.map_or(sample.timestamp, |(newest, _)| newest);
        self.bounds = Some((newest, sample.timestamp));
        self.rows += 1;
        let mut replaced = false;
        for (n, value) in values.iter().enumerate() {
            let Some(value) = *value else { continue };
            let counts = |effective: &mut Effective| effective.counts(sample.hidden_units, sample.phase, sample.epoch);
            if self.effective.get_mut(n).is_none_or(counts) {
                let (timestamp, epoch, step) = (sample.timestamp, sample.epoch, sample.step);
                self.fields[n].add(Extreme { value, timestamp, epoch, step });
            } else {
                replaced = true;
            }
        }
        self.replaced += u64::from(replaced);
    }
}

impl SampleSink for Aggregates {
    fn add(&mut self, page: &Samples) {
        for (sample, values) in page.numbered(self.fields.len(), &mut self.phases) {
            self.take(&sample, values);
        }
    }
}
