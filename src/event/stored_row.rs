//! Rows whose columns are declared once. The list yields the row, and both stores, merging and JSON loop over it.
//!
//! To add a column: a line in the list and a migration for each store in `schema/`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ColumnType, ColumnValue, EventKey, ReadColumns, SharedText};
use crate::units::Micros;

/// A row with a list of columns.
pub trait StoredRow: Sized {
    /// Its columns, in the order of statements and JSON.
    const COLUMNS: &'static [StoredColumn];

    /// The values, in the order of [`COLUMNS`](Self::COLUMNS).
    fn values(&self) -> impl Iterator<Item = StoredValue<'_>>;

    /// The key of an event; it is not among the columns.
    fn event_key(&self) -> Option<&EventKey>;

    /// Reads the key of an event, then all columns.
    ///
    /// # Errors
    /// The first error of the reader.
    fn read<R: ReadStored>(reader: &mut R) -> Result<Self, R::Error>;

    /// Applies the present values of `change`.
    fn merge(&mut self, change: &Self);

    /// The names of the columns.
    fn names() -> Vec<&'static str> {
        Self::COLUMNS.iter().map(|column| column.name).collect()
    }
}

/// A column of a [`StoredRow`].
#[derive(Clone, Copy, Debug)]
pub struct StoredColumn {
    /// Its name in tables and JSON.
    pub name: &'static str,
    /// Its type.
    pub stored_type: StoredType,
}

/// The types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "one per type")]
pub enum StoredType {
    Column(ColumnType),
    Id,
    Time,
    Flag,
    Texts,
    Counts,
}

/// The value of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "one per type")]
pub enum StoredValue<'a> {
    Column(ColumnValue<'a>),
    Id(Option<Uuid>),
    Time(Option<Micros>),
    Flag(Option<bool>),
    Texts(&'a BTreeSet<String>),
    Counts(&'a BTreeMap<String, i32>),
}

impl StoredValue<'_> {
    /// Whether the row has no value for the column.
    pub fn is_absent(self) -> bool {
        match self {
            Self::Column(value) => value.is_absent(),
            Self::Id(id) => id.is_none(),
            Self::Time(value) => value.is_none(),
            Self::Flag(value) => value.is_none(),
            Self::Texts(texts) => texts.is_empty(),
            Self::Counts(counts) => counts.is_empty(),
        }
    }
}

/// Source of a stored row's columns; `at` is the position in [`StoredRow::COLUMNS`].
#[allow(missing_docs, reason = "one per type")]
pub trait ReadStored: ReadColumns<String> {
    /// The key of an event.
    fn key(&mut self) -> Result<EventKey, Self::Error>;
    fn id(&mut self, at: usize) -> Result<Option<Uuid>, Self::Error>;
    fn time(&mut self, at: usize) -> Result<Option<Micros>, Self::Error>;
    fn flag(&mut self, at: usize) -> Result<Option<bool>, Self::Error>;
    /// A text that may be as long as a message.
    fn document(&mut self, at: usize) -> Result<SharedText, Self::Error>;
    fn texts(&mut self, at: usize) -> Result<BTreeSet<String>, Self::Error>;
    fn counts(&mut self, at: usize) -> Result<BTreeMap<String, i32>, Self::Error>;
}

/// How a kind of column is held in a row.
pub trait ColumnKind {
    /// Type of the row's field.
    type Field;
    /// Type of the column.
    const TYPE: StoredType;
    /// The value of a field.
    fn value(field: &Self::Field) -> StoredValue<'_>;
    /// Reads a field.
    ///
    /// # Errors
    /// An error of the reader.
    fn read<R: ReadStored>(reader: &mut R, at: usize) -> Result<Self::Field, R::Error>;
}

macro_rules! kinds {
    ($($kind:ident $field:ty: $type:expr, $read:ident, $from_read:expr, $value:expr;)+) => {$(
        #[allow(missing_docs, reason = "named like the type of the column")]
        #[derive(Debug)]
        pub struct $kind;

        impl ColumnKind for $kind {
            type Field = $field;
            const TYPE: StoredType = $type;

            fn value(field: &Self::Field) -> StoredValue<'_> {
                let value: fn(&Self::Field) -> StoredValue<'_> = $value;
                value(field)
            }

            fn read<R: ReadStored>(reader: &mut R, at: usize) -> Result<Self::Field, R::Error> {
                reader.$read(at).map($from_read)
            }
        }
    )+};
}

kinds! {
    Id Uuid: StoredType::Id, id, Option::unwrap_or_default, |id| StoredValue::Id(Some(*id));
    OptionalId Option<Uuid>: StoredType::Id, id, |id| id, |id| StoredValue::Id(*id);
    BigInt Option<i64>: StoredType::Column(ColumnType::BigInt), bigint, |int| int,
        |int| StoredValue::Column(ColumnValue::BigInt(*int));
    RequiredBigInt i64: StoredType::Column(ColumnType::BigInt), bigint, Option::unwrap_or_default,
        |int| StoredValue::Column(ColumnValue::BigInt(Some(*int)));
    RequiredText String: StoredType::Column(ColumnType::Text), text, Option::unwrap_or_default,
        |text| StoredValue::Column(ColumnValue::Text(Some(text)));
    Document SharedText: StoredType::Column(ColumnType::Text), document, |text| text,
        |text| StoredValue::Column(ColumnValue::Text(Some(text)));
    RequiredTime Micros: StoredType::Time, time, Option::unwrap_or_default, |time| StoredValue::Time(Some(*time));
    Int Option<i32>: StoredType::Column(ColumnType::Int), int, |int| int,
        |int| StoredValue::Column(ColumnValue::Int(*int));
    Double Option<f64>: StoredType::Column(ColumnType::Double), double, |double| double,
        |double| StoredValue::Column(ColumnValue::Double(*double));
    Text Option<String>: StoredType::Column(ColumnType::Text), text, |text| text,
        |text| StoredValue::Column(ColumnValue::Text(text.as_deref()));
    LongText Option<SharedText>: StoredType::Column(ColumnType::Text), text, |text| text.map(Into::into),
        |text| StoredValue::Column(ColumnValue::Text(text.as_deref()));
    Time Option<Micros>: StoredType::Time, time, |time| time, |time| StoredValue::Time(*time);
    Flag Option<bool>: StoredType::Flag, flag, |flag| flag, |flag| StoredValue::Flag(*flag);
    Texts BTreeSet<String>: StoredType::Texts, texts, |texts| texts, |texts| StoredValue::Texts(texts);
    Counts BTreeMap<String, i32>: StoredType::Counts, counts, |counts| counts, |counts| StoredValue::Counts(counts);
}

/// A column's name, of a field that may be a raw identifier.
const fn name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

macro_rules! stored_row {
    ($(#[$meta:meta])* $row:ident $([$key:ident])? { $($(#[$doc:meta])* $column:ident: $kind:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        #[allow(missing_docs, reason = "the columns of the contract, by name")]
        pub struct $row {
            $(pub key: $key,)?
            $($(#[$doc])* pub $column: <$kind as ColumnKind>::Field,)+
        }

        impl StoredRow for $row {
            const COLUMNS: &'static [StoredColumn] =
                &[$(StoredColumn { name: name(stringify!($column)), stored_type: $kind::TYPE },)+];

            fn values(&self) -> impl Iterator<Item = StoredValue<'_>> {
                [$($kind::value(&self.$column)),+].into_iter()
            }

            fn event_key(&self) -> Option<&EventKey> {
                [$(&self.key as &$key)?].first().copied()
            }

            fn read<R: ReadStored>(reader: &mut R) -> Result<Self, R::Error> {
                let mut positions = 0..;
                let mut next = || positions.next().expect("the range has no end");
                Ok(Self { $(key: reader.key()? as $key,)? $($column: $kind::read(reader, next())?,)+ })
            }

            fn merge(&mut self, change: &Self) {
                $(if !$kind::value(&change.$column).is_absent() {
                    self.$column.clone_from(&change.$column);
                })+
            }
        }
    };
}

stored_row! {
    /// A row of `network_topology`.
    TopologyRow [EventKey] {
        epoch: Int,
        input_size: Int,
        output_size: Int,
        hidden_units: Int,
        total_parameters: Int,
        topology_json: Document,
        weights_summary: Text,
    }
}

stored_row! {
    /// A row of `training_events`.
    EventRow [EventKey] {
        r#type: RequiredText,
        payload_json: Document,
        epoch: Int,
    }
}

stored_row! {
    /// A row of `control_log`; written at receipt without its outcome, and again with it.
    #[derive(Serialize, Deserialize)]
    ControlRow {
        /// Time of receipt; its UTC day is the partition.
        timestamp: RequiredTime,
        event_id: RequiredBigInt,
        instance: RequiredText,
        command: RequiredText,
        command_id: Text,
        target: Text,
        source: RequiredText,
        outcome: Text,
        payload_json: RequiredText,
    }
}

stored_row! {
    /// A row of `ingest_gaps`.
    GapRow {
        /// Its UTC day is the partition.
        started_at: RequiredTime,
        ended_at: RequiredTime,
        gap_id: Id,
        reason: RequiredText,
        source: RequiredText,
        channel: Text,
        instance: RequiredText,
        run_id: OptionalId,
        /// `None`: unknown.
        lost: BigInt,
    }
}

stored_row! {
    /// A row of `dataset_info`.
    DatasetRow {
        dataset_id: Id,
        name: Text,
        description: Text,
        num_samples: Int,
        num_features: Int,
        num_classes: Int,
        class_distribution: Counts,
        created_at: Time,
        file_path: Text,
        checksum: Text,
    }
}

stored_row! {
    /// A row of `training_runs` as stored. `None` and empty mean that the column is absent.
    RunRow {
        run_id: Id,
        run_name: Text,
        start_time: Time,
        end_time: Time,
        duration_seconds: Int,
        status: Text,
        dataset_name: Text,
        dataset_size: Int,
        config_json: LongText,
        final_epoch: Int,
        final_train_loss: Double,
        final_train_accuracy: Double,
        final_val_loss: Double,
        final_val_accuracy: Double,
        best_val_accuracy: Double,
        best_epoch: Int,
        total_hidden_units: Int,
        total_parameters: Int,
        notes: Text,
        tags: Texts,
        created_by: Text,
        last_event_time: Time,
        /// The latest start after the first. A change with it also sets `end_time` and `duration_seconds`: if absent there, they
        /// are cleared.
        restarted_at: Time,
    }
}

stored_row! {
    /// A row of `run_edits`: what people changed of a run. As a change, `add_tags` and `remove_tags` are the tags that it adds and
    /// removes.
    RunEdit {
        run_id: Id,
        /// Empty: none.
        display_name: Text,
        /// Empty: none.
        notes: Text,
        add_tags: Texts,
        remove_tags: Texts,
        archived: Flag,
        edited_at: Time,
        edited_by: Text,
    }
}
