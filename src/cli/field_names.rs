//! `--fields`: columns on request, by the names that a run has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{CliError, ask::QueryClient, cells};
use crate::{curve::Field, event::METRIC_COLUMNS, terminal::Escaped};

/// Newest rows in which names of metrics are looked for.
const LOOKED_AT_ROWS: usize = 100;
/// Names in an error message.
const NAMES_MAX: usize = 100;

/// The flag of the commands that show rows.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FieldArgs {
    /// Only these fields, separated by commas: columns, or names of other metrics of the run. May be repeated; a name that has a
    /// comma is found, too, when the run has it.
    #[arg(long, visible_alias = "field", value_name = "NAME,...")]
    fields: Vec<String>,
}

impl FieldArgs {
    /// Whether fields are named.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields as they were given, for a run that is not known yet.
    pub fn unchecked(&self) -> Vec<String> {
        self.fields
            .iter()
            .flat_map(|text| text.split(','))
            .map(|name| Field::canonical(name.trim()).to_owned())
            .collect()
    }

    /// The fields by their full names.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&self, known: &KnownFields) -> Result<Vec<String>, CliError> {
        resolve(&self.fields, known)
    }
}

/// The fields that may be named.
#[derive(Clone, Debug, Default)]
pub struct KnownFields {
    /// Those that have values.
    pub present: BTreeSet<String>,
    /// Columns that may have no value, which an error does not list.
    pub may_be_empty: BTreeSet<String>,
}

impl KnownFields {
    fn contains(&self, name: &str) -> bool {
        self.present.contains(name) || self.may_be_empty.contains(name)
    }
}

/// The named fields: a text that is not a name as a whole is a list.
///
/// # Errors
/// When a name is not known; the message lists those that have values.
pub fn resolve(texts: &[String], known: &KnownFields) -> Result<Vec<String>, CliError> {
    let mut fields: Vec<String> = Vec::new();
    for text in texts {
        let whole = [text.as_str()].into_iter().filter(|name| known.contains(Field::canonical(name)));
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let names: Vec<&str> = if known.contains(Field::canonical(text)) { whole.collect() } else { parts.collect() };
        if names.is_empty() {
            return Err(CliError::Usage("--fields names no field".into()));
        }
        for name in names.into_iter().map(Field::canonical) {
            if !known.contains(name) {
                return Err(unknown(name, known));
            }
            if !fields.iter().any(|field| field == name) {
                fields.push(name.to_owned());
            }
        }
    }
    Ok(fields)
}

fn unknown(name: &str, known: &KnownFields) -> CliError {
    if known.present.is_empty() {
        return CliError::NegativeAnswer(format!("there is no field `{}`, and no other yet", Escaped(name)));
    }
    let some = listed(known.present.iter().take(NAMES_MAX).map(String::as_str));
    let more = match known.present.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    CliError::NegativeAnswer(format!("there is no field `{}`; there are {some}{more}", Escaped(name)))
}

/// Names as a list for people, separated by commas. A name that would not be read as one is quoted, as `--fields` takes it in a
/// shell.
pub fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let shown = |name: &str| {
        let escaped = Escaped(name).to_string();
        let is_plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || ",'\"`".contains(c));
        if is_plain { escaped } else { format!("'{escaped}'") }
    };
    names.map(shown).collect::<Vec<_>>().join(", ")
}

/// The fields that the metrics of a run have.
///
/// # Errors
/// When the query fails.
pub async fn of_run(client: &QueryClient, run_id: &str) -> Result<KnownFields, CliError> {
    let answer = client.json(&format!("/api/runs/{run_id}?limit={LOOKED_AT_ROWS}&count=none")).await?;
    let present = columns().filter(|name| has_values(&answer, name)).map(str::to_owned);
    Ok(KnownFields {
        present: present.chain(extra_names(&answer)).collect(),
        may_be_empty: columns().map(str::to_owned).collect(),
    })
}

fn columns() -> impl Iterator<Item = &'static str> {
    METRIC_COLUMNS.iter().map(|column| column.name).chain(["timestamp", "event_id", "rest_json"])
}

/// Whether a run has values in a column, as far as its row and its newest metrics tell. A number that is not finite is `null`, and
/// listed.
fn has_values(answer: &Value, column: &str) -> bool {
    let has = |row: &Value, name: &str| {
        !row[name].is_null() || cells::list(row, "non_finite").iter().any(|lost| lost == name)
    };
    has(&answer["run"], &format!("final_{column}")) || cells::list(answer, "metrics").iter().any(|row| has(row, column))
}

/// The names of the metrics without a column, of a run and of the rows beside it.
pub fn extra_names(answer: &Value) -> BTreeSet<String> {
    let of_run = cells::list(answer, "metric_names").iter().filter_map(Value::as_str).map(str::to_owned);
    of_run.chain(extra_of(cells::list(answer, "metrics"))).collect()
}

/// The names of the metrics without a column in these rows.
pub fn extra_of(rows: &[Value]) -> BTreeSet<String> {
    let names = |row: &Value| row["extra"].as_object().map(|extra| extra.keys().cloned().collect::<Vec<_>>());
    rows.iter().filter_map(names).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_not_be_read_as_one_is_quoted() {
        let names = ["f1", "f1,macro", "grad norm", "", "精度", "config.k"];
        assert_eq!(listed(names.into_iter()), "f1, 'f1,macro', 'grad norm', '', 精度, config.k");
    }

    #[test]
    fn fields_are_named_whole_or_in_a_list() {
        let known = KnownFields {
            present: ["train_loss", "f1,macro", "f1"].map(str::to_owned).into(),
            may_be_empty: ["val_loss"].map(str::to_owned).into(),
        };
        for (texts, fields) in [
            (&["f1,macro"][..], &["f1,macro"][..]),
            (&["f1, loss"], &["f1", "train_loss"]),
            (&["loss", "f1,macro", "loss"], &["train_loss", "f1,macro"]),
            (&["val_loss,f1"], &["val_loss", "f1"]),
        ] {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            assert_eq!(resolve(&texts, &known).unwrap(), fields);
        }
        let error = resolve(&["f1,f2".into()], &known).unwrap_err();
        assert_eq!(error.to_string(), "there is no field `f2`; there are f1, 'f1,macro', train_loss");
        assert_eq!((error.exit_status(), resolve(&[",".into()], &known).unwrap_err().exit_status()), (1, 2));
    }
}
