//! The table of runs.

use serde_json::Value;

use super::{
    CliError,
    cells::{self, FieldColumn},
    field_names::{FieldArgs, KnownFields},
    lookup,
    output::{self, Further},
    table::{self, Cell, Column, Table},
};

/// Columns of the list. Every command accepts a shortened id.
static COLUMNS: [FieldColumn; 9] = [
    FieldColumn::new("run_id", Column::key("RUN"), cells::short_id),
    FieldColumn::new("run_name", Column::ranked("NAME", 1), name),
    FieldColumn::new("status", Column::ranked("STATUS", 2), cells::status),
    FieldColumn::new("start_time", Column::ranked("STARTED (UTC)", 5), cells::moment),
    FieldColumn::new("final_epoch", Column::key("EPOCH"), cells::count),
    FieldColumn::new("final_train_loss", Column::key("LOSS"), cells::number),
    FieldColumn::new("best_val_accuracy", Column::ranked("BEST VAL ACC", 3), cells::number),
    FieldColumn::new("total_hidden_units", Column::ranked("UNITS", 6), cells::count),
    FieldColumn::new("dataset_name", Column::ranked("DATASET", 4), cells::text),
];

/// Prints runs: the usual columns, or these fields beside what tells one run from another.
///
/// # Errors
/// When a field is not there, or the output cannot be written.
pub fn print(runs: &[Value], fields: &FieldArgs) -> Result<(), CliError> {
    if !fields.is_empty() {
        return print_fields(runs, fields);
    }
    let rows: Vec<_> = runs.iter().map(|run| cells::row(&COLUMNS, run)).collect();
    // One column shows either name.
    let is_renamed = |run: &Value| !run["display_name"].is_null() && !run["run_name"].is_null();
    let name = if runs.iter().any(is_renamed) { "display_name" } else { "run_name" };
    let shown = COLUMNS.iter().map(|column| column.name).filter(|column| *column != "run_name").chain([name]);
    let names = cells::further(runs, &shown.collect::<Vec<_>>());
    let shown_by = "`show RUN`, --fields NAME,... or --json shows them";
    output::more_rows(&mut Table::new(cells::columns(&COLUMNS)), &rows, &Further { names, shown_by })
}

/// The name that people gave the run, else that of its producer.
fn name(run: &Value, _: &str) -> Cell {
    table::text(lookup::name(run))
}

fn print_fields(runs: &[Value], names: &FieldArgs) -> Result<(), CliError> {
    let runs: Vec<Value> = runs.iter().map(with_configuration).collect();
    let present = runs.iter().filter_map(Value::as_object).flat_map(|run| run.keys().cloned()).collect();
    let fields = names.resolve(&KnownFields { present, ..KnownFields::default() })?;
    let keys = &COLUMNS[..2];
    let named = fields.iter().zip(2..).map(|(field, rank)| Column::named(field, rank));
    let columns: Vec<_> = cells::columns(keys).into_iter().chain(named).collect();
    let cell = |run, field: &String| if field == "status" { cells::status(run, field) } else { cells::any(run, field) };
    let row = |run| cells::row(keys, run).into_iter().chain(fields.iter().map(|field| cell(run, field))).collect();
    output::rows(&columns, &runs.iter().map(row).collect::<Vec<Vec<Cell>>>())
}

/// The run with each key of its configuration as a field: `config.optimizer.rate`.
fn with_configuration(run: &Value) -> Value {
    let mut run = run.clone();
    for (name, value) in cells::configuration(&run) {
        run[format!("config.{name}")] = value;
    }
    run
}
