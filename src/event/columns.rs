//! The columns of `training_metrics` beside its key, declared once. The row, its JSON and CSV, both stores' statements, the
//! latest keys, the names in messages and the fields of curves derive from the list.
//!
//! To add a column: a line in [`metric_columns!`] and a migration for each store in `schema/` that adds the column.

use serde::{Serialize, Serializer};

/// Passes the list of columns to a macro, in the order used by rows, CSV files and statements.
///
/// A line is `Variant column: type, [aliases], drawn;`. The aliases are alternative names in messages, in order of preference.
/// The type is `i32`, `i64` (a counter, never negative), `f64` or `Text`. `drawn` selects the curves that include the column:
/// `by_default`, `on_request` or `never`; an optional short name for requests may follow.
macro_rules! metric_columns {
    ($callback:ident) => {
        $callback! {
            Epoch epoch: i32, ["current_epoch"], never;
            Step step: i32, ["global_step", "iteration", "trainer/global_step"], never;
            TrainLoss train_loss: f64, ["loss", "training_loss", "train/loss", "train.loss"], by_default "loss";
            TrainAccuracy train_accuracy: f64, ["accuracy", "acc", "training_accuracy", "train_acc", "train/accuracy",
                "train/acc", "train.accuracy", "train.acc"], by_default "accuracy";
            ValLoss val_loss: f64, ["validation_loss", "value_loss", "valid_loss", "eval_loss", "val/loss", "eval/loss",
                "val.loss", "eval.loss"], by_default;
            ValAccuracy val_accuracy: f64, ["validation_accuracy", "value_accuracy", "val_acc", "valid_accuracy",
                "eval_accuracy", "val/accuracy", "val/acc", "eval/accuracy", "val.accuracy", "val.acc", "eval.accuracy"],
                by_default;
            LearningRate learning_rate: f64, ["lr"], by_default "lr";
            HiddenUnits hidden_units: i32, ["hidden_units_count", "num_hidden_units", "n_hidden", "total_hidden_units"],
                on_request;
            Phase phase: Text, ["cascade_phase", "training_phase"], never;
            Seq seq: i64, ["sequence", "seq_no"], never;
        }
    };
}
pub(crate) use metric_columns;

/// A column of `training_metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricColumn {
    /// Its name in tables, JSON and CSV.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Curves that include it.
    pub drawn: Drawn,
    /// Short name for requests.
    pub short_name: Option<&'static str>,
}

/// The types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// 32 bits.
    Int,
    /// 64 bits.
    BigInt,
    /// A double; NaN and the infinities are values.
    Double,
    /// Text.
    Text,
}

/// Curves that include a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Curves that do not name their fields.
    ByDefault,
    /// Curves that name it.
    OnRequest,
    /// No curves.
    Never,
}

/// The value of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "one per type")]
pub enum ColumnValue<'a> {
    Int(Option<i32>),
    BigInt(Option<i64>),
    Double(Option<f64>),
    Text(Option<&'a str>),
}

impl ColumnValue<'_> {
    /// The value as a number; `None` for text and for integers that a double cannot hold exactly.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Int(value) => value.map(f64::from),
            Self::Double(value) => value,
            Self::BigInt(_) | Self::Text(_) => None,
        }
    }

    /// Whether it is NaN or an infinity, which JSON cannot represent.
    pub fn is_non_finite(self) -> bool {
        matches!(self, Self::Double(Some(value)) if !value.is_finite())
    }
}

/// NaN and infinities are `null`.
impl Serialize for ColumnValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => value.serialize(serializer),
            Self::BigInt(value) => value.serialize(serializer),
            Self::Double(value) => value.serialize(serializer),
            Self::Text(value) => value.serialize(serializer),
        }
    }
}

/// Source of a row's columns. `at` is the position in [`METRIC_COLUMNS`]; columns are requested in that order.
#[allow(missing_docs, reason = "one per type")]
pub trait ReadColumns<T> {
    /// Error of a column read.
    type Error;
    fn int(&mut self, at: usize) -> Result<Option<i32>, Self::Error>;
    fn bigint(&mut self, at: usize) -> Result<Option<i64>, Self::Error>;
    fn double(&mut self, at: usize) -> Result<Option<f64>, Self::Error>;
    fn text(&mut self, at: usize) -> Result<Option<T>, Self::Error>;
}

macro_rules! column_type {
    (i32) => {
        ColumnType::Int
    };
    (i64) => {
        ColumnType::BigInt
    };
    (f64) => {
        ColumnType::Double
    };
    (Text) => {
        ColumnType::Text
    };
}

macro_rules! drawn {
    (by_default) => {
        Drawn::ByDefault
    };
    (on_request) => {
        Drawn::OnRequest
    };
    (never) => {
        Drawn::Never
    };
}

macro_rules! short_name {
    () => {
        None
    };
    ($name:literal) => {
        Some($name)
    };
}

macro_rules! column_value {
    (i32, $value:expr) => {
        ColumnValue::Int($value)
    };
    (i64, $value:expr) => {
        ColumnValue::BigInt($value)
    };
    (f64, $value:expr) => {
        ColumnValue::Double($value)
    };
    (Text, $value:expr) => {
        ColumnValue::Text($value.as_ref().map(AsRef::as_ref))
    };
}

macro_rules! read_column {
    (i32, $reader:ident, $at:expr) => {
        $reader.int($at)
    };
    (i64, $reader:ident, $at:expr) => {
        $reader.bigint($at)
    };
    (f64, $reader:ident, $at:expr) => {
        $reader.double($at)
    };
    (Text, $reader:ident, $at:expr) => {
        $reader.text($at)
    };
}

macro_rules! owned {
    (Text, $value:expr) => {
        $value.as_ref().map(|text| text.as_ref().to_owned())
    };
    ($type:ident, $value:expr) => {
        $value
    };
}

macro_rules! define_columns {
    ($($variant:ident $column:ident: $type:ident, [$($alias:literal),*], $drawn:ident $($short:literal)?;)+) => {
        /// The columns of `training_metrics` beside its key, `extra` and `rest_json`.
        pub const METRIC_COLUMNS: [MetricColumn; Position::COUNT] = [$(MetricColumn {
            name: stringify!($column),
            column_type: column_type!($type),
            drawn: drawn!($drawn),
            short_name: short_name!($($short)?),
        }),+];

        /// The position of each column in [`METRIC_COLUMNS`].
        #[derive(Clone, Copy)]
        enum Position {
            $($variant,)+
        }

        impl Position {
            const COUNT: usize = [$(Self::$variant),+].len();
        }

        /// The values of [`METRIC_COLUMNS`] in one row.
        #[derive(Clone, Debug, Default, PartialEq)]
        #[allow(missing_docs, reason = "the columns of the contract, by name")]
        pub struct MetricColumns<Text = String> {
            $(pub $column: Option<$type>,)+
        }

        impl<T: AsRef<str>> MetricColumns<T> {
            /// The values, in the order of [`METRIC_COLUMNS`].
            pub fn values(&self) -> [ColumnValue<'_>; Position::COUNT] {
                [$(column_value!($type, self.$column)),+]
            }
        }

        impl<T: AsRef<str>> MetricColumns<T> {
            /// Copies the values, with owned text.
            pub fn to_owned_text(&self) -> MetricColumns {
                MetricColumns { $($column: owned!($type, self.$column),)+ }
            }
        }

        impl<T> MetricColumns<T> {
            /// Reads all columns.
            ///
            /// # Errors
            /// The first error of the reader.
            pub fn read<R: ReadColumns<T>>(reader: &mut R) -> Result<Self, R::Error> {
                Ok(Self { $($column: read_column!($type, reader, Position::$variant as usize)?,)+ })
            }
        }
    };
}
metric_columns!(define_columns);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_the_order_of_the_columns() {
        let columns = MetricColumns {
            step: Some(7),
            val_loss: Some(f64::NAN),
            phase: Some("output".to_owned()),
            seq: Some(1 << 40),
            ..MetricColumns::default()
        };
        let of = |name| columns.values()[METRIC_COLUMNS.iter().position(|column| column.name == name).unwrap()];
        assert_eq!((of("step"), of("epoch")), (ColumnValue::Int(Some(7)), ColumnValue::Int(None)));
        assert_eq!((of("phase"), of("seq").number()), (ColumnValue::Text(Some("output")), None));
        assert!(of("val_loss").is_non_finite() && !of("train_loss").is_non_finite());
    }
}
