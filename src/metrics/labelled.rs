//! Metrics of one name that differ in one label.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family},
};

/// One metric for each value of a label such as `reason` or `table`.
#[derive(Clone, Debug)]
pub struct Labelled<M> {
    key: &'static str,
    former_label: bool,
    family: Family<Label, M, fn() -> M>,
}

/// Counters by one label.
pub type Counters = Labelled<Counter>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Label {
    key: &'static str,
    value: &'static str,
    /// Whether the label `name`, the only one of before, has the value, too.
    former_label: bool,
}

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        (self.key, self.value).encode(encoder.encode_label())?;
        if self.former_label { ("name", self.value).encode(encoder.encode_label()) } else { Ok(()) }
    }
}

impl<M: Clone + Default> Labelled<M> {
    /// None yet, with the label `key`.
    pub(super) fn by(key: &'static str, former_label: bool) -> Self {
        Self::made_by(M::default, key, former_label)
    }
}

impl<M: Clone> Labelled<M> {
    /// The same for metrics without a default.
    pub(super) fn made_by(make: fn() -> M, key: &'static str, former_label: bool) -> Self {
        Self { key, former_label, family: Family::new_with_constructor(make) }
    }

    /// The metric of this value of the label.
    pub fn of(&self, value: &'static str) -> M {
        self.family.get_or_create_owned(&Label { key: self.key, value, former_label: self.former_label })
    }

    /// Shows these values from the first scrape on: without a zero to compare with, the first event of a reason is no increase.
    pub fn show(&self, values: impl IntoIterator<Item = &'static str>) {
        for value in values {
            let _ = self.of(value);
        }
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Labelled<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.family.is_empty()
    }
}
