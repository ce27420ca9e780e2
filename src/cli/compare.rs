//! `compare RUN...`: fields of several runs, side by side.

use serde_json::Value;

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    cells,
    field_names::{self, KnownFields},
    lookup::{self, find_run, id},
    output::{self, Further},
    table::{self, Cell, Column, Table},
};
use crate::config::Settings;

/// Points of a curve in one line.
const SPARKLINE_WIDTH: usize = 60;

/// Fields of a curve that the table shows, one way or another.
const SHOWN: [&str; 9] = ["run_id", "run_name", "display_name", "status", "min", "max", "last", "field", "non_finite"];

/// Arguments of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// The runs: ids or names, or the beginning of either.
    #[arg(required = true)]
    pub runs: Vec<String>,
    /// A column to compare, or another metric of the runs; may be repeated. Several are separated by commas.
    #[arg(long, visible_alias = "fields", default_value = "train_loss", value_name = "NAME,...")]
    pub field: Vec<String>,
    /// How to align the runs.
    #[arg(long, default_value = "epoch", value_parser = ["epoch", "step", "time"])]
    pub by: String,
    /// Most points of a curve; absent: 60, with --json 1000.
    #[arg(long, value_name = "N")]
    pub points: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Compares runs.
///
/// # Errors
/// When a run is not found, or the store or the output fails.
pub async fn run(settings: Settings, args: CompareArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let points = args.points.unwrap_or(if json { 1_000 } else { SPARKLINE_WIDTH });
    let mut path = format!("/api/compare?by={}&max_points={points}", args.by);
    let mut known = KnownFields::default();
    for run in &args.runs {
        let found = find_run(&client, run).await?;
        let mut of_run = field_names::of_run(&client, id(&found)).await?;
        known.present.append(&mut of_run.present);
        known.may_be_empty = of_run.may_be_empty;
        path.push_str(&format!("&run_id={}", id(&found)));
    }
    for field in field_names::resolve(&args.field, &known)? {
        path.push_str(&format!("&field={}", escape(&field)));
    }
    let answer = client.json(&path).await?;
    if json {
        return output::json(&answer);
    }
    let row = |curve: &Value| {
        let column = |name| cells::list(curve, name).iter().map(Value::as_f64).collect::<Vec<_>>();
        let last = column("last");
        let least = column("min").into_iter().flatten().reduce(f64::min);
        let greatest = column("max").into_iter().flatten().reduce(f64::max);
        vec![
            cells::short_id(curve, "run_id"),
            table::text(lookup::name(curve)),
            cells::status(curve, "status"),
            table::number(least),
            table::number(greatest),
            table::number(last.iter().flatten().next_back().copied()),
            table::count(curve["non_finite"].as_u64().filter(|count| *count > 0)),
            Cell::Curve(last),
        ]
    };
    let (curves, fields) = (cells::list(&answer, "curves"), cells::list(&answer, "fields"));
    // Field by field, one curve a run.
    for (n, curves) in curves.chunks(args.runs.len()).enumerate() {
        if n > 0 {
            output::line("")?;
        }
        let field = fields.get(n).and_then(Value::as_str).unwrap_or(&args.field[0]);
        let curve = format!("{field} BY {}", args.by).to_uppercase();
        let columns = [
            Column::key("RUN").of("run_id"),
            Column::ranked("NAME", 1).of("run_name"),
            Column::ranked("STATUS", 5).of("status"),
            Column::ranked("MIN", 3).of("min"),
            Column::ranked("MAX", 4).of("max"),
            Column::key("LAST").of("last"),
            Column::ranked("NON-FINITE", 2).of("non_finite"),
            Column::named(&curve, 3).of(&format!("{field} by {}", args.by)),
        ];
        let rows: Vec<_> = curves.iter().map(row).collect();
        let further = Further { names: cells::further(curves, &SHOWN), ..Further::default() };
        output::more_rows(&mut Table::new(columns.into()), &rows, &further)?;
        if curves.iter().all(|curve| cells::list(curve, "last").iter().all(Value::is_null)) {
            let none = format!("no row of these runs that has its {} has a finite number `{field}`", args.by);
            output::line(&format!("\n{none}"))?;
        }
    }
    Ok(())
}
