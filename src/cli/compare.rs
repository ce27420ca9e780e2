//! `compare RUN...`: one field of several runs beside each other.

use serde_json::Value;

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    cells,
    lookup::{find_run, id},
    output, spark, table,
};
use crate::config::Settings;

/// Points of a curve in one line.
const SPARKLINE_WIDTH: usize = 60;

/// Arguments of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// The runs: ids or names, or the beginning of either.
    #[arg(required = true)]
    pub runs: Vec<String>,
    /// What to compare: a column, or a number in `extra`, whatever is in its name; may be repeated.
    #[arg(long, default_value = "train_loss", value_name = "NAME")]
    pub field: Vec<String>,
    /// How to align the runs.
    #[arg(long, default_value = "epoch", value_parser = ["epoch", "step", "time"])]
    pub by: String,
    /// Points of a curve, at most; absent: 60, with --json 1000.
    #[arg(long, value_name = "N")]
    pub points: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Compares.
///
/// # Errors
/// When a run is not found, or the store or the output fails.
pub async fn run(settings: Settings, args: CompareArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let points = args.points.unwrap_or(if json { 1_000 } else { SPARKLINE_WIDTH });
    let mut path = format!("/api/compare?by={}&max_points={points}", args.by);
    for field in &args.field {
        path.push_str(&format!("&field={}", escape(field)));
    }
    for run in &args.runs {
        path.push_str(&format!("&run_id={}", id(&find_run(&client, run).await?)));
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
            table::text(id(curve).get(..8)),
            cells::text(curve, "run_name"),
            cells::text(curve, "status"),
            table::number(least),
            table::number(greatest),
            table::number(last.iter().flatten().next_back().copied()),
            comfy_table::Cell::new(spark::line(last.into_iter())),
        ]
    };
    let (curves, fields) = (cells::list(&answer, "curves"), cells::list(&answer, "fields"));
    // Field by field, each as often as there are runs.
    for (n, curves) in curves.chunks(args.runs.len()).enumerate() {
        if n > 0 {
            output::line("")?;
        }
        let field = fields.get(n).and_then(Value::as_str).unwrap_or(&args.field[0]);
        let curve = format!("{field} BY {}", args.by).to_uppercase();
        table::table(&["RUN", "NAME", "STATUS", "MIN", "MAX", "LAST", &curve], curves.iter().map(row).collect())?;
        if curves.iter().all(|curve| cells::list(curve, "last").iter().all(Value::is_null)) {
            let none = format!("no row of these runs that has its {} has a finite number `{field}`", args.by);
            output::line(&format!("\n{none}"))?;
        }
    }
    Ok(())
}
