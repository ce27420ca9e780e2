//! Order of a sorted list of runs.
//!
//! Numbers and times come first, then text, then NaN, then runs without a value, in both directions: what has no order is never on
//! top. Text is compared by its first [`TEXT_CHARS`] characters without upper and lower case, by code point. Equal runs are listed
//! newest first.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
    sync::LazyLock,
};

use serde_json::Value;
use uuid::Uuid;

use super::{config_value, fold::fold};
use crate::{
    event::{ColumnValue, EditedRun, RunRow, StoredRow, StoredValue},
    render,
    units::Micros,
};

/// Characters by which texts are sorted; limits the size of a cursor.
const TEXT_CHARS: usize = 64;

/// Maximum number of configuration keys named in place of one that is not there.
const KEYS_MAX: usize = 64;

/// Prefix of a configuration key in the name of a column.
pub const CONFIG_PREFIX: &str = "config.";

/// Columns beside those of the run's row. `name` is the given name, else the published one.
const OTHER_COLUMNS: [&str; 5] = ["name", "display_name", "archived", "edited_at", "edited_by"];

static COLUMNS: LazyLock<Vec<&str>> = LazyLock::new(|| RunRow::names().into_iter().chain(OTHER_COLUMNS).collect());

/// The columns by which runs can be sorted, beside configuration keys.
pub fn sort_columns() -> &'static [&'static str] {
    &COLUMNS
}

/// What a list is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub enum SortBy {
    /// One of [`sort_columns`].
    Column(&'static str),
    /// A key of the configuration.
    Config(String),
}

impl SortBy {
    /// The column of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix(CONFIG_PREFIX).filter(|key| !key.is_empty()) {
            Some(key) => Some(Self::Config(key.to_owned())),
            None => COLUMNS.iter().find(|column| **column == name).map(|column| Self::Column(column)),
        }
    }

    /// The value of a run; see [`RunsQuery::stale_before`](super::RunsQuery::stale_before).
    pub fn key(&self, run: &EditedRun, stale_before: Micros) -> SortKey {
        match self {
            Self::Config(key) => {
                let config = run.row.config_json.as_deref().unwrap_or_default();
                config_value::exact(config, key).map_or(SortKey::Absent, |value| SortKey::json(&value))
            }
            Self::Column("name") => SortKey::text(run.name()),
            Self::Column("display_name") => SortKey::text(run.display_name.as_deref()),
            Self::Column("edited_by") => SortKey::text(run.edited_by.as_deref()),
            Self::Column("edited_at") => SortKey::time(run.edited_at),
            Self::Column("archived") => SortKey::number(f64::from(u8::from(run.archived))),
            Self::Column("status") => SortKey::text(render::shown_status(&run.row, stale_before, 0)),
            Self::Column(name) => {
                let at = RunRow::COLUMNS.iter().position(|column| column.name == *name);
                at.and_then(|at| run.row.values().nth(at)).map_or(SortKey::Absent, SortKey::stored)
            }
        }
    }
}

/// A value by which a run is sorted.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "one per kind of value")]
pub enum SortKey {
    Number(f64),
    Text(String),
    Nan,
    Absent,
}

impl SortKey {
    fn number(value: f64) -> Self {
        // Adding zero makes -0.0 equal to 0.0.
        if value.is_nan() { Self::Nan } else { Self::Number(value + 0.0) }
    }

    /// Exact for the years up to 2255.
    fn time(at: Option<Micros>) -> Self {
        at.map_or(Self::Absent, |at| Self::Number(at as f64))
    }

    fn text(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Absent };
        let end = text.char_indices().nth(TEXT_CHARS).map_or(text.len(), |(at, _)| at);
        Self::Text(fold(&text[..end]).chars().take(TEXT_CHARS).collect())
    }

    fn stored(value: StoredValue<'_>) -> Self {
        if value.is_absent() {
            return Self::Absent;
        }
        match value {
            StoredValue::Column(ColumnValue::Int(value)) => {
                value.map_or(Self::Absent, |value| Self::number(value.into()))
            }
            StoredValue::Column(ColumnValue::BigInt(value)) | StoredValue::Time(value) => Self::time(value),
            StoredValue::Column(ColumnValue::Double(value)) => value.map_or(Self::Absent, Self::number),
            StoredValue::Column(ColumnValue::Text(text)) => Self::text(text),
            StoredValue::Id(id) => Self::text(id.map(|id| id.to_string()).as_deref()),
            StoredValue::Flag(flag) => flag.map_or(Self::Absent, |flag| Self::number(u8::from(flag).into())),
            StoredValue::Texts(texts) => {
                Self::text(Some(&texts.iter().map(String::as_str).collect::<Vec<_>>().join(",")))
            }
            StoredValue::Counts(_) => Self::Absent,
        }
    }

    fn json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Absent,
            Value::Number(number) => number.as_f64().map_or(Self::Absent, Self::number),
            Value::String(text) if text == "NaN" => Self::Nan,
            Value::String(text) => Self::text(Some(text)),
            other => Self::text(Some(&other.to_string())),
        }
    }

    /// Which kinds of values come first.
    pub(super) fn rank(&self) -> OrderRank {
        match self {
            Self::Number(_) => OrderRank::Number,
            Self::Text(_) => OrderRank::Text,
            Self::Nan => OrderRank::Nan,
            Self::Absent => OrderRank::Absent,
        }
    }

    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let values = match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        RunsSort::order(self.rank().cmp(&other.rank()), values, descending)
    }
}

/// Kinds of values, in the order of every list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OrderRank {
    Number,
    Text,
    Nan,
    Absent,
}

/// The place of a run in a sorted list.
#[derive(Clone, Debug, PartialEq)]
pub struct SortPosition {
    /// The value by which it is sorted.
    pub key: SortKey,
    /// Its start.
    pub start: Micros,
    /// Its id.
    pub run_id: Uuid,
}

/// Order of a list other than newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct RunsSort {
    /// The column.
    pub by: SortBy,
    /// Largest first.
    pub descending: bool,
}

impl RunsSort {
    /// The place of a run; `None` for a run that no list has, because it has no start.
    pub(in crate::store) fn position(&self, run: &EditedRun, stale_before: Micros) -> Option<SortPosition> {
        let start = run.row.start_time?;
        Some(SortPosition { key: self.by.key(run, stale_before), start, run_id: run.row.run_id })
    }

    /// The configuration keys of these runs of a page, at most [`KEYS_MAX`], when the list is sorted by one that neither they nor later
    /// runs have.
    pub fn keys_instead(&self, runs: &[EditedRun]) -> Option<BTreeSet<String>> {
        let SortBy::Config(_) = self.by else { return None };
        if self.by.key(runs.first()?, 0) != SortKey::Absent {
            return None;
        }
        let mut keys = BTreeSet::new();
        for config in runs.iter().filter_map(|run| run.row.config_json.as_deref()) {
            config_value::keys(config, KEYS_MAX, &mut keys);
        }
        Some(keys)
    }

    /// The order of two places.
    pub(in crate::store) fn compare(&self, a: &SortPosition, b: &SortPosition) -> Ordering {
        let key = a.key.compare(&b.key, self.descending);
        key.then_with(|| b.start.cmp(&a.start)).then_with(|| a.run_id.cmp(&b.run_id))
    }

    /// Only values of one kind have another order in a list that is descending.
    pub(super) fn order(ranks: Ordering, values: Ordering, descending: bool) -> Ordering {
        ranks.then(if descending { values.reverse() } else { values })
    }
}

/// The first runs of a sorted list, of any number that is offered.
pub(in crate::store) struct TopRuns<'q> {
    sort: &'q RunsSort,
    after: Option<&'q SortPosition>,
    limit: usize,
    /// The last of them on top.
    heap: BinaryHeap<Ranked<'q>>,
}

impl<'q> TopRuns<'q> {
    /// The first `limit` runs after this place.
    pub fn new(sort: &'q RunsSort, after: Option<&'q SortPosition>, limit: usize) -> Self {
        Self { sort, after, limit, heap: BinaryHeap::new() }
    }

    /// Takes a run, if it is among the first.
    pub fn offer(&mut self, position: SortPosition) {
        if self.after.is_some_and(|after| self.sort.compare(&position, after).is_le()) {
            return;
        }
        let is_behind = |last: &Ranked<'_>| self.sort.compare(&position, &last.position).is_ge();
        if self.heap.len() >= self.limit && self.heap.peek().is_none_or(is_behind) {
            return;
        }
        self.heap.push(Ranked { position, sort: self.sort });
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    /// The runs in order.
    pub fn into_sorted(self) -> Vec<SortPosition> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.position).collect()
    }
}

struct Ranked<'q> {
    position: SortPosition,
    sort: &'q RunsSort,
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.compare(&self.position, &other.position)
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_order_is_last_in_both_directions() {
        let keys = [
            SortKey::Absent,
            SortKey::text(Some("B")),
            SortKey::number(f64::NAN),
            SortKey::number(2.0),
            SortKey::text(Some("a")),
            SortKey::number(f64::INFINITY),
            SortKey::number(-0.0),
        ];
        for (descending, expected) in [
            (false, ["Number(0.0)", "Number(2.0)", "Number(inf)", "Text(\"a\")", "Text(\"b\")", "Nan", "Absent"]),
            (true, ["Number(inf)", "Number(2.0)", "Number(0.0)", "Text(\"b\")", "Text(\"a\")", "Nan", "Absent"]),
        ] {
            let sort = RunsSort { by: SortBy::Column("status"), descending };
            let positions: Vec<_> = keys
                .iter()
                .map(|key| SortPosition { key: key.clone(), start: 1, run_id: Uuid::from_u128(1) })
                .collect();
            let sorted = |after: Option<&SortPosition>, limit| {
                let mut top = TopRuns::new(&sort, after, limit);
                positions.iter().cloned().for_each(|position| top.offer(position));
                top.into_sorted()
            };
            let all = sorted(None, 99);
            assert_eq!(all.iter().map(|position| format!("{:?}", position.key)).collect::<Vec<_>>(), expected);
            assert_eq!([sorted(None, 3), sorted(Some(&all[2]), 3), sorted(Some(&all[5]), 3)].concat(), all);
        }
    }

    #[test]
    fn equal_runs_are_listed_newest_first() {
        let sort = RunsSort { by: SortBy::Column("status"), descending: false };
        let at = |start, id| SortPosition { key: SortKey::Absent, start, run_id: Uuid::from_u128(id) };
        let mut top = TopRuns::new(&sort, None, 9);
        [at(1, 2), at(2, 3), at(1, 1)].into_iter().for_each(|position| top.offer(position));
        assert_eq!(top.into_sorted(), [at(2, 3), at(1, 1), at(1, 2)]);
    }

    #[test]
    fn every_column_has_a_name() {
        assert!(sort_columns().contains(&"final_val_loss") && SortBy::named("name").is_some());
        assert_eq!(SortBy::named("config.a.b"), Some(SortBy::Config("a.b".into())));
        for unknown in ["config.", "config", "loss", "", "Name"] {
            assert_eq!(SortBy::named(unknown), None, "{unknown}");
        }
    }
}
