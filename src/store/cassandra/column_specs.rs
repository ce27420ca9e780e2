//! The columns of a statement, with their CQL types.

use scylla::cluster::metadata::{CollectionType, ColumnType, NativeType};

use crate::event::{self, METRIC_COLUMNS, StoredRow, StoredType};

/// CQL types of our columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CqlType {
    Uuid,
    Int,
    BigInt,
    Double,
    Text,
    Timestamp,
    Boolean,
    TextDoubles,
    TextInts,
    Texts,
}

impl CqlType {
    fn of(column_type: event::ColumnType) -> Self {
        match column_type {
            event::ColumnType::Int => Self::Int,
            event::ColumnType::BigInt => Self::BigInt,
            event::ColumnType::Double => Self::Double,
            event::ColumnType::Text => Self::Text,
        }
    }

    pub(super) fn is(self, actual: &ColumnType<'_>) -> bool {
        use NativeType as N;
        let native = |typ: &ColumnType<'_>, native| matches!(typ, ColumnType::Native(typ) if *typ == native);
        match (self, actual) {
            (Self::Uuid, typ) => native(typ, N::Uuid),
            (Self::Int, typ) => native(typ, N::Int),
            (Self::BigInt, typ) => native(typ, N::BigInt),
            (Self::Double, typ) => native(typ, N::Double),
            (Self::Text, typ) => native(typ, N::Text),
            (Self::Timestamp, typ) => native(typ, N::Timestamp),
            (Self::Boolean, typ) => native(typ, N::Boolean),
            (Self::TextDoubles, ColumnType::Collection { typ: CollectionType::Map(key, value), .. }) => {
                native(key, N::Text) && native(value, N::Double)
            }
            (Self::TextInts, ColumnType::Collection { typ: CollectionType::Map(key, value), .. }) => {
                native(key, N::Text) && native(value, N::Int)
            }
            (Self::Texts, ColumnType::Collection { typ: CollectionType::Set(item), .. }) => native(item, N::Text),
            _ => false,
        }
    }
}

/// Columns, by name and type.
pub(super) type ColumnSpecs<'a> = &'a [(&'static str, CqlType)];

/// Places the metric columns between the leading and trailing ones.
pub(super) fn with_metrics(before: ColumnSpecs<'_>, after: ColumnSpecs<'_>) -> Vec<(&'static str, CqlType)> {
    let columns = METRIC_COLUMNS.iter().map(|column| (column.name, CqlType::of(column.column_type)));
    before.iter().copied().chain(columns).chain(after.iter().copied()).collect()
}

/// The leading columns, and those of a declared row.
pub(super) fn stored<R: StoredRow>(before: ColumnSpecs<'_>) -> Vec<(&'static str, CqlType)> {
    let columns = R::COLUMNS.iter().map(|column| {
        let cql_type = match column.stored_type {
            StoredType::Column(column_type) => CqlType::of(column_type),
            StoredType::Id => CqlType::Uuid,
            StoredType::Time => CqlType::Timestamp,
            StoredType::Flag => CqlType::Boolean,
            StoredType::Texts => CqlType::Texts,
            StoredType::Counts => CqlType::TextInts,
        };
        (column.name, cql_type)
    });
    before.iter().copied().chain(columns).collect()
}

/// The names, as statements list them.
pub(super) fn names(columns: ColumnSpecs<'_>) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
