//! Several rows as one point that hides none of their extremes.

use super::Sample;
use crate::units::Micros;

/// What the rows of a bucket say about one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The oldest value.
    pub first: f64,
    /// The smallest finite value; infinity when there is none.
    pub min: f64,
    /// The greatest finite value; minus infinity when there is none.
    pub max: f64,
    /// The newest value.
    pub last: f64,
    /// When it was.
    pub last_at: Micros,
    first_at: Micros,
    /// Number of values; 0: the rest means nothing.
    pub count: u32,
    /// How many of them are NaN or infinite.
    pub non_finite: u32,
}

impl Spread {
    const EMPTY: Self = Self {
        first: f64::NAN,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        last: f64::NAN,
        last_at: Micros::MIN,
        first_at: Micros::MAX,
        count: 0,
        non_finite: 0,
    };

    fn one(value: f64, at: Micros) -> Self {
        let (min, max) = if value.is_finite() { (value, value) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        let non_finite = u32::from(!value.is_finite());
        Self { first: value, min, max, last: value, last_at: at, first_at: at, count: 1, non_finite }
    }

    fn merge(&mut self, other: &Self) {
        // Of two at one moment, the one that is walked first is the newer.
        if other.last_at > self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
        if other.count > 0 && other.first_at <= self.first_at {
            (self.first, self.first_at) = (other.first, other.first_at);
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.non_finite += other.non_finite;
    }

    /// Whether there is a finite value.
    pub fn has_finite(&self) -> bool {
        self.count > self.non_finite
    }
}

/// Rows that lie together on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The newest of them.
    pub newest: Sample,
    /// When the oldest was.
    pub oldest_at: Micros,
    /// Where the bucket begins on the axis; of a single row, where the row is.
    pub x: i64,
    /// How many they are.
    pub rows: u32,
    /// What they say, field by field.
    pub fields: Box<[Spread]>,
}

impl Bucket {
    pub(super) fn one(x: i64, sample: &Sample, values: &[Option<f64>]) -> Self {
        let spread = |value: &Option<f64>| value.map_or(Spread::EMPTY, |value| Spread::one(value, sample.timestamp));
        Self { newest: *sample, oldest_at: sample.timestamp, x, rows: 1, fields: values.iter().map(spread).collect() }
    }

    /// Adds a row that is older than all in it.
    pub(super) fn add(&mut self, sample: &Sample, values: &[Option<f64>]) {
        self.oldest_at = sample.timestamp;
        self.rows += 1;
        for (spread, value) in self.fields.iter_mut().zip(values) {
            if let Some(value) = *value {
                if value.is_finite() && spread.count > 0 {
                    spread.min = spread.min.min(value);
                    spread.max = spread.max.max(value);
                    (spread.first, spread.first_at) = (value, sample.timestamp);
                    spread.count += 1;
                } else {
                    spread.merge(&Spread::one(value, sample.timestamp));
                }
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        if (other.newest.timestamp, other.newest.event_id) > (self.newest.timestamp, self.newest.event_id) {
            self.newest = other.newest;
        }
        self.oldest_at = self.oldest_at.min(other.oldest_at);
        self.rows += other.rows;
        for (spread, other) in self.fields.iter_mut().zip(&other.fields) {
            spread.merge(other);
        }
    }
}
