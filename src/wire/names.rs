//! The contract's field names: which column a name means, and whether it is its canonical name or an alias.

use super::status_words::{self, DECIDING_NAMES};
use crate::event::{Kind, METRIC_COLUMNS, metric_columns};

/// What values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedType {
    /// A number.
    Number,
    /// Text, or a number as text.
    Text,
    /// Anything.
    Any,
}

/// What is known of a field.
struct FieldSpec {
    field_id: FieldId,
    name: &'static str,
    expected_type: ExpectedType,
    aliases: &'static [&'static str],
}

macro_rules! expected_type {
    (Text) => {
        ExpectedType::Text
    };
    (Any) => {
        ExpectedType::Any
    };
    ($number:ident) => {
        ExpectedType::Number
    };
}

macro_rules! define_fields {
    ($($variant:ident $name:ident: $type:ident, [$($alias:literal),*] $(, $drawn:ident $($short:literal)?)?;)+) => {
        /// What a field of a message can mean. The columns of metrics come first, in the order of `METRIC_COLUMNS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum FieldId {
            $($variant,)+
        }

        /// In the order of [`FieldId`].
        const FIELDS: [FieldSpec; FieldId::COUNT] = [$(FieldSpec {
            field_id: FieldId::$variant,
            name: stringify!($name),
            expected_type: expected_type!($type),
            aliases: &[$($alias),*],
        }),+];

        impl FieldId {
            pub(super) const COUNT: usize = [$(Self::$variant),+].len();
        }
    };
}

/// The fields of messages: those of metrics, then those that other rows have.
macro_rules! with_other_fields {
    ($($columns:tt)+) => {
        define_fields! {
            $($columns)+
            RunId run_id: Text, ["training_run_id", "training_id", "runId", "run"];
            Timestamp timestamp: Any, ["time", "ts", "created_at"];
            InputSize input_size: Int, ["input_units"];
            OutputSize output_size: Int, ["output_units"];
            TotalParameters total_parameters: Int, [];
            WeightsSummary weights_summary: Any, [];
            DatasetName dataset_name: Any, ["dataset"];
            DatasetSize dataset_size: Int, [];
            Config config: Any, ["params", "hyperparameters"];
            Notes notes: Text, ["description"];
            Tags tags: Any, [];
            CreatedBy created_by: Text, ["user"];
            Status status: Any, ["final_status", "outcome"];
            EventType event_type: Text, ["event"];
            Nodes nodes: Any, [];
            Connections connections: Any, [];
        }
    };
}
metric_columns!(with_other_fields);

impl FieldId {
    /// The field of the column at this position in `METRIC_COLUMNS`.
    pub(super) fn of_column(at: usize) -> Self {
        FIELDS[at].field_id
    }

    /// The canonical name.
    pub(super) fn name(self) -> &'static str {
        FIELDS[self as usize].name
    }

    /// What values this field takes.
    pub(super) fn expected_type(self) -> ExpectedType {
        FIELDS[self as usize].expected_type
    }
}

/// The names of the fields that a run start gives its run, but for those of the run itself.
pub fn run_start_names() -> impl Iterator<Item = &'static str> {
    use FieldId::{Config, CreatedBy, DatasetName, DatasetSize, Notes, Tags, Timestamp};
    let of_start = |spec: &&FieldSpec| {
        matches!(spec.field_id, Timestamp | DatasetName | DatasetSize | Config | Notes | Tags | CreatedBy)
    };
    FIELDS.iter().filter(of_start).flat_map(names_of)
}

/// The names by which a run start may give its configuration.
pub fn config_names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().filter(|spec| spec.field_id == FieldId::Config).flat_map(names_of)
}

/// The names of the fields that a run end may have: its outcome, and the last metrics.
pub fn run_end_names() -> impl Iterator<Item = &'static str> {
    let of_end =
        |spec: &&FieldSpec| is_column(spec.field_id) || matches!(spec.field_id, FieldId::Status | FieldId::Timestamp);
    FIELDS.iter().filter(of_end).flat_map(names_of).chain(DECIDING_NAMES).chain(["final_metrics", "metrics"])
}

/// What a field of a message holds, as far as a writer of messages has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldUse {
    /// The run.
    Run,
    /// The time.
    Time,
    /// A text, even one that looks like a number.
    Text,
    /// A number, or anything.
    Value,
}

/// The use of the field with this canonical name or alias.
pub fn field_use(name: &str) -> Option<FieldUse> {
    let (field_id, _) = lookup(name)?;
    Some(match field_id {
        FieldId::RunId => FieldUse::Run,
        FieldId::Timestamp => FieldUse::Time,
        other if other.expected_type() == ExpectedType::Text => FieldUse::Text,
        _ => FieldUse::Value,
    })
}

fn is_column(field_id: FieldId) -> bool {
    (field_id as usize) < METRIC_COLUMNS.len()
}

fn names_of(spec: &'static FieldSpec) -> impl Iterator<Item = &'static str> {
    std::iter::once(spec.name).chain(spec.aliases.iter().copied())
}

/// A name that a field may have.
#[derive(Clone, Copy)]
struct Name {
    text: &'static str,
    last_byte: u8,
    field_id: FieldId,
    /// 0: the canonical name; then the aliases, in the order of their list.
    rank: u8,
}

/// Calls `$each` with every name, its field and its rank; usable in constants.
macro_rules! for_each_name {
    (|$field:ident, $rank:ident, $text:ident| $each:block) => {
        let mut at = 0;
        while at < FIELDS.len() {
            let $field = &FIELDS[at];
            let mut $rank = 0;
            while $rank <= $field.aliases.len() {
                let $text = if $rank == 0 { $field.name } else { $field.aliases[$rank - 1] };
                $each
                $rank += 1;
            }
            at += 1;
        }
    };
}

/// The longest name of a field, in bytes, and how many names there are.
const LENGTH_MAX: usize = NAME_SIZES.0;
const NAMES_COUNT: usize = NAME_SIZES.1;
const NAME_SIZES: (usize, usize) = {
    let (mut longest, mut count) = (0, 0);
    for_each_name!(|field, rank, text| {
        longest = if text.len() > longest { text.len() } else { longest };
        count += 1;
    });
    (longest, count)
};

/// All names, the shortest first, and where those of each length begin. [`lookup`] runs for every field of every message, and most
/// names meet a handful of others of their length.
static NAMES: ([Name; NAMES_COUNT], [u8; LENGTH_MAX + 2]) = names_by_length();

const fn names_by_length() -> ([Name; NAMES_COUNT], [u8; LENGTH_MAX + 2]) {
    let mut names = [Name { text: "", last_byte: 0, field_id: FieldId::RunId, rank: 0 }; NAMES_COUNT];
    let mut starts = [0; LENGTH_MAX + 2];
    let (mut count, mut length) = (0, 0);
    while length <= LENGTH_MAX {
        starts[length] = count as u8;
        for_each_name!(|field, rank, text| {
            assert!(rank < 16, "a rank has four bits of a score");
            if text.len() == length {
                let last_byte = text.as_bytes()[length - 1];
                names[count] = Name { text, last_byte, field_id: field.field_id, rank: rank as u8 };
                count += 1;
            }
        });
        length += 1;
    }
    starts[LENGTH_MAX + 1] = count as u8;
    assert!(count <= u8::MAX as usize, "the starts are bytes");
    (names, starts)
}

/// The meaning of a name, and its rank among the names of that meaning: 0 is the canonical one.
#[inline]
pub(super) fn lookup(name: &str) -> Option<(FieldId, u8)> {
    let (names, starts) = &NAMES;
    let last_byte = *name.as_bytes().last()?;
    let (start, end) = (starts.get(name.len())?, starts.get(name.len() + 1)?);
    names[usize::from(*start)..usize::from(*end)]
        .iter()
        .find(|candidate| candidate.last_byte == last_byte && candidate.text == name)
        .map(|found| (found.field_id, found.rank))
}

/// The kind that a `type` (or the `event_type` of an `event`) names.
pub(super) fn kind(name: &str) -> Kind {
    match name {
        "metrics" | "metrics_update" | "metric" | "training_metrics" | "training_update" | "epoch" | "epoch_end" => {
            Kind::Metrics
        }
        "topology" | "topology_update" | "network_topology" => Kind::Topology,
        "training_start" | "training_started" | "training_begin" | "run_start" | "run_started" => Kind::RunStart,
        "training_end" | "run_end" => Kind::RunEnd,
        "dataset" | "dataset_info" => Kind::Dataset,
        "state" | "state_change" | "status" => Kind::State,
        name if status_words::named_by_type(name).is_some() => Kind::RunEnd,
        _ => Kind::Other,
    }
}

/// A map whose fields count as fields of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Section {
    /// `metrics` or `final_metrics`; looked at first.
    Metrics,
    /// `network_topology`.
    Network,
    /// `details`.
    Details,
    /// `data`.
    Data,
    /// The message itself.
    Top,
}

impl Section {
    pub(super) const COUNT: usize = 5;

    /// The section that a field of this one opens when it holds a map.
    pub(super) fn inner(self, name: &str) -> Option<Self> {
        let inner = match name {
            "metrics" | "final_metrics" => Self::Metrics,
            "network_topology" => Self::Network,
            "details" => Self::Details,
            "data" => Self::Data,
            _ => return None,
        };
        // A section holds only sections that are looked at before it.
        (inner < self && self > Self::Network).then_some(inner)
    }

    /// The name that tells a field apart from one of the same name elsewhere.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Network => "network_topology",
            Self::Details => "details",
            Self::Data => "data",
            Self::Top => "message",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_means_one_field() {
        for (at, field) in FIELDS.iter().enumerate() {
            assert_eq!(field.field_id as usize, at);
            for (rank, name) in std::iter::once(&field.name).chain(field.aliases).enumerate() {
                assert_eq!(lookup(name), Some((field.field_id, rank as u8)), "{name}");
            }
        }
        for name in ["", "x", "Loss", "los", "losses", "a_name_that_is_longer_than_any"] {
            assert_eq!(lookup(name), None, "{name}");
        }
    }

    #[test]
    fn the_first_fields_are_the_columns_of_metrics() {
        for (at, column) in METRIC_COLUMNS.iter().enumerate() {
            assert_eq!(FieldId::of_column(at).name(), column.name);
        }
    }
}
