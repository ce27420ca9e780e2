//! The columns of `training_metrics` beside its key, declared once. The row, its JSON and CSV, both stores' statements, the
//! latest keys, the names in messages and the fields of curves derive from the list.
//!
//! To add a column: a line in [`metric_columns!`] and a migration for each store in `schema/` that adds the column.

use serde::{Serialize, Serializer};

/// Passes the list of columns to a macro, in the order used by rows, CSV files and statements.
///
/// A line is `Variant column: type, [aliases], drawn;`. The aliases are alternative names in messages, in order of preference.
/// The type is a [`ColumnType`]; a `BigInt` is a counter, never negative. `drawn` selects the curves that include the column
/// ([`Drawn`]); an optional short name for requests may follow.
macro_rules! metric_columns {
    ($callback:ident) => {
        $callback! {
            Epoch epoch: Int, ["current_epoch"], OnRequest;
            Step step: Int, ["global_step", "iteration", "trainer/global_step"], OnRequest;
            TrainLoss train_loss: Double, ["loss", "training_loss", "train/loss", "train.loss"], ByDefault "loss";
            TrainAccuracy train_accuracy: Double, ["accuracy", "acc", "training_accuracy", "train_acc", "train/accuracy",
                "train/acc", "train.accuracy", "train.acc"], ByDefault "accuracy";
            ValLoss val_loss: Double, ["validation_loss", "value_loss", "valid_loss", "eval_loss", "val/loss", "eval/loss",
                "val.loss", "eval.loss"], ByDefault;
            ValAccuracy val_accuracy: Double, ["validation_accuracy", "value_accuracy", "val_acc", "valid_accuracy",
                "eval_accuracy", "val/accuracy", "val/acc", "eval/accuracy", "val.accuracy", "val.acc", "eval.accuracy"],
                ByDefault;
            LearningRate learning_rate: Double, ["lr"], ByDefault "lr";
            HiddenUnits hidden_units: Int, ["hidden_units_count", "num_hidden_units", "n_hidden", "total_hidden_units"],
                OnRequest;
            Phase phase: Text, ["cascade_phase", "training_phase"], Never;
            Seq seq: BigInt, ["sequence", "seq_no"], OnRequest;
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
    /// No curves: it is text.
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
    /// The value as a number, for curves; a 64-bit integer is rounded to a double. `None` for text.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Int(value) => value.map(f64::from),
            Self::Double(value) => value,
            Self::BigInt(value) => value.map(|value| value as f64),
            Self::Text(_) => None,
        }
    }

    /// Whether the row has no value for the column.
    pub fn is_absent(self) -> bool {
        match self {
            Self::Int(value) => value.is_none(),
            Self::BigInt(value) => value.is_none(),
            Self::Double(value) => value.is_none(),
            Self::Text(value) => value.is_none(),
        }
    }

    /// NaN or an infinity, which JSON cannot represent; `None`: it is neither.
    pub fn non_finite(self) -> Option<f64> {
        match self {
            Self::Double(value) => value.filter(|value| !value.is_finite()),
            Self::Int(_) | Self::BigInt(_) | Self::Text(_) => None,
        }
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

type Int = i32;
type BigInt = i64;
type Double = f64;

macro_rules! column_value {
    (Text, $value:expr) => {
        ColumnValue::Text($value.as_ref().map(AsRef::as_ref))
    };
    ($type:ident, $value:expr) => {
        ColumnValue::$type($value)
    };
}

macro_rules! read_column {
    (Int, $reader:ident, $at:expr) => {
        $reader.int($at)
    };
    (BigInt, $reader:ident, $at:expr) => {
        $reader.bigint($at)
    };
    (Double, $reader:ident, $at:expr) => {
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
            column_type: ColumnType::$type,
            drawn: Drawn::$drawn,
            short_name: <[&str]>::first(&[$($short)?]).copied(),
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
        assert_eq!((of("phase").number(), of("seq").number()), (None, Some((1_u64 << 40) as f64)));
        assert!(of("val_loss").non_finite().is_some() && of("train_loss").non_finite().is_none());
    }
}
