//! A curve with as many points as were asked for, however long the run.
//!
//! Up to that number of rows it is exact. Beyond, rows are gathered in buckets whose width is a power of two and whose bounds are
//! its multiples: they depend neither on where the range begins nor on what arrives later. More rows make the width double now
//! and then, and two neighbours become one; between, no point moves.

use std::{collections::BTreeMap, mem};

use super::{Bucket, Effective, Phases, Sample, SampleSink, Samples};
use crate::units::Micros;

/// Points of a curve, at least: the buckets on either side of zero never become one, however wide they are.
pub const POINTS_MIN: usize = 2;

/// The widest bucket as a power of two; the width of a wider one would overflow.
pub const SHIFT_MAX: u32 = 62;

/// What the buckets divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Microseconds since this moment.
    Time(Micros),
    /// Epochs; rows without one are left out.
    Epoch,
    /// Steps; likewise.
    Step,
}

impl Axis {
    fn of(self, sample: &Sample) -> Option<i64> {
        match self {
            Self::Time(origin) => Some(sample.timestamp.saturating_sub(origin)),
            Self::Epoch => sample.epoch.map(i64::from),
            Self::Step => sample.step.map(i64::from),
        }
    }
}

/// Makes a [`Curve`] of the rows of a run, the newest first.
#[derive(Debug)]
pub struct Reducer {
    axis: Axis,
    points: usize,
    /// Rows after it only tell which of those before still count.
    until: Option<Micros>,
    /// One a field; empty: every value counts.
    effective: Vec<Effective>,
    fields: usize,
    phases: Phases,
    /// The rows themselves, as long as they are few enough.
    exact: Option<Vec<Bucket>>,
    shift: u32,
    buckets: BTreeMap<i64, Bucket>,
    current: Option<(i64, Bucket)>,
    values: Vec<Option<f64>>,
    of: u64,
    replaced: u64,
    off_axis: u64,
}

/// What a [`Reducer`] has made.
#[derive(Clone, Debug)]
pub struct Curve {
    /// In the order of the axis (of time, when exact).
    pub points: Vec<Bucket>,
    /// The width of a bucket as a power of two; absent: each point is a row.
    pub shift: Option<u32>,
    /// How many rows the points stand for.
    pub of: u64,
    /// How many rows had a value that was replaced by a later attempt.
    pub replaced: u64,
    /// How many rows have no place on the axis.
    pub off_axis: u64,
    phases: Phases,
}

impl Reducer {
    /// At most `points` points ([`POINTS_MIN`] at least) of `fields` fields; `raw`: every attempt, not only what counts.
    pub fn new(axis: Axis, fields: usize, points: usize, raw: bool) -> Self {
        Self {
            axis,
            points: points.max(POINTS_MIN),
            until: None,
            effective: vec![Effective::default(); if raw { 0 } else { fields }],
            fields,
            phases: Phases::default(),
            exact: Some(Vec::new()),
            shift: 0,
            buckets: BTreeMap::new(),
            current: None,
            values: Vec::new(),
            of: 0,
            replaced: 0,
            off_axis: 0,
        }
    }

    /// The part up to this moment of the curve that all rows make: those after it are to be added, too, and are not drawn.
    pub fn until(self, until: Option<Micros>) -> Self {
        Self { until, ..self }
    }

    fn take(&mut self, sample: &Sample, values: &[Option<f64>]) {
        let mut values = values;
        let beyond = self.until.is_some_and(|until| sample.timestamp > until);
        let mut kept = mem::take(&mut self.values);
        if !self.effective.is_empty() {
            kept.clear();
            let counts = self.effective.iter_mut().zip(values).map(|(effective, value)| {
                value.filter(|_| effective.counts(sample.hidden_units, sample.phase, sample.epoch))
            });
            kept.extend(counts);
            let present = |values: &[Option<f64>]| values.iter().flatten().count();
            let (before, after) = (present(values), present(&kept));
            values = &kept;
            if after < before && !beyond {
                self.replaced += 1;
            }
            if after == 0 && before > 0 {
                self.values = kept;
                return;
            }
        }
        match self.axis.of(sample) {
            _ if beyond => {}
            Some(x) => self.place(x, sample, values),
            None => self.off_axis += 1,
        }
        self.values = kept;
    }

    fn place(&mut self, x: i64, sample: &Sample, values: &[Option<f64>]) {
        self.of += 1;
        if let Some(rows) = &mut self.exact {
            rows.push(Bucket::one(x, sample, values));
            if rows.len() > self.points {
                let rows = self.exact.take().unwrap_or_default();
                for row in rows {
                    put(&mut self.buckets, row.x, row);
                }
                self.widen();
            }
            return;
        }
        let at = x >> self.shift;
        match &mut self.current {
            Some((current, bucket)) if *current == at => bucket.add(sample, values),
            _ => {
                self.settle();
                self.current = Some((x >> self.shift, Bucket::one(x, sample, values)));
            }
        }
    }

    /// Puts the current bucket to the others.
    fn settle(&mut self) {
        if let Some((at, bucket)) = self.current.take() {
            put(&mut self.buckets, at, bucket);
            self.widen();
        }
    }

    /// Doubles the width until there are few enough.
    fn widen(&mut self) {
        while self.buckets.len() > self.points && self.shift < SHIFT_MAX {
            self.shift += 1;
            // From the later to the earlier: of two at one moment the newer is met first.
            for (at, bucket) in mem::take(&mut self.buckets).into_iter().rev() {
                put(&mut self.buckets, at >> 1, bucket);
            }
        }
    }

    /// The curve.
    pub fn finish(mut self) -> Curve {
        self.settle();
        let shift = self.exact.is_none().then_some(self.shift);
        let points = match self.exact {
            Some(mut rows) => {
                rows.reverse();
                rows
            }
            None => self.buckets.into_iter().map(|(at, bucket)| Bucket { x: at << self.shift, ..bucket }).collect(),
        };
        Curve { points, shift, of: self.of, replaced: self.replaced, off_axis: self.off_axis, phases: self.phases }
    }
}

impl SampleSink for Reducer {
    fn add(&mut self, page: &Samples) {
        for (sample, values) in page.numbered(self.fields, &mut self.phases) {
            self.take(&sample, values);
        }
    }
}

impl Curve {
    /// The name of the phase of a point's newest row.
    pub fn phase(&self, point: &Bucket) -> Option<&str> {
        self.phases.name(point.newest.phase)
    }

    /// Whether any row has a value of this field.
    pub fn has_value(&self, field: usize) -> bool {
        self.points.iter().any(|point| point.fields[field].count > 0)
    }

    /// The points by buckets of at least this width, so that curves can be laid beside each other.
    pub fn widened(&self, shift: u32) -> BTreeMap<i64, Bucket> {
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        for point in self.points.iter().rev() {
            let at = (point.x >> shift) << shift;
            put(&mut buckets, at, Bucket { x: at, ..point.clone() });
        }
        buckets
    }
}

fn put(buckets: &mut BTreeMap<i64, Bucket>, at: i64, bucket: Bucket) {
    match buckets.get_mut(&at) {
        Some(known) => known.merge(bucket),
        None => _ = buckets.insert(at, bucket),
    }
}
