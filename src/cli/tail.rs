//! `tail`: rows of a run as they come. It asks for what is behind the last row, again and again, so that what it shows is what
//! is stored: whole, in order, once, from any store and any daemon.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    cells,
    lookup::{find_run, id},
    output, spark, table,
};
use crate::{config::Settings, render, units};

/// How often it asks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often it looks for a newer run, where none was named.
const NEW_RUN_INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `tail`.
#[derive(Clone, Debug, clap::Args)]
pub struct TailArgs {
    /// The run: its id or its name, or the beginning of either; absent: the newest, and each that begins later.
    pub run: Option<String>,
    /// How many of its rows to begin with.
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    pub limit: usize,
    /// End after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub target: Target,
}

/// Follows until interrupted.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: TailArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let until = args.duration.map(|duration| Instant::now() + duration);
    let over = || until.is_some_and(|until| Instant::now() >= until);
    let mut run = match &args.run {
        Some(text) => Some(id(&find_run(&client, text).await?).to_owned()),
        None => newest_run(&client).await?,
    };
    let mut cursor = None;
    let mut checked_at = Instant::now();
    if !json {
        let head = ["TIME (UTC)", "RUN", "EPOCH", "UNITS", "LOSS", "ACC", "VAL LOSS", "VAL ACC", "PHASE"];
        line(&head.map(str::to_owned))?;
    }
    while !over() {
        if args.run.is_none() && (run.is_none() || checked_at.elapsed() >= NEW_RUN_INTERVAL) {
            checked_at = Instant::now();
            let found = newest_run(&client).await?;
            if found != run {
                (run, cursor) = (found, None);
            }
        }
        let Some(run_id) = &run else {
            sleep(POLL_INTERVAL).await;
            continue;
        };
        let rows = rows_after(&client, run_id, cursor.as_deref(), args.limit).await?;
        for row in &rows {
            show(row, json)?;
        }
        output::flush()?;
        match rows.last() {
            Some(last) => cursor = row_cursor(last),
            None => sleep(POLL_INTERVAL).await,
        }
    }
    Ok(())
}

async fn newest_run(client: &QueryClient) -> Result<Option<String>, CliError> {
    let answer = client.json("/api/runs?limit=1").await?;
    Ok(cells::list(&answer, "runs").first().map(|run| id(run).to_owned()))
}

/// The next rows, oldest first; at the beginning, the newest that there are.
async fn rows_after(
    client: &QueryClient,
    run: &str,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Vec<Value>, CliError> {
    let more = match cursor {
        Some(cursor) => format!("order=asc&limit=1000&cursor={}", escape(cursor)),
        None => format!("order=desc&limit={}", limit.max(1)),
    };
    let mut answer = client.json(&format!("/api/metrics/range?run_id={run}&{more}")).await?;
    let mut rows = match answer["metrics"].take() {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    };
    if cursor.is_none() {
        rows.reverse();
    }
    Ok(rows)
}

/// The cursor behind a row.
fn row_cursor(row: &Value) -> Option<String> {
    let at = render::parse_time(row["timestamp"].as_str()?).ok()?;
    Some(format!("{at}.{}", row["event_id"].as_i64()?))
}

fn show(row: &Value, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(row);
    }
    let number = |field: &str| match row[field].as_f64() {
        Some(value) => table::number(Some(value)).content(),
        None if spark::listed(row, field) => "NaN".into(),
        None => String::new(),
    };
    let whole = |field: &str| row[field].as_i64().map(|n| n.to_string()).unwrap_or_default();
    line(&[
        cells::moment(row, "timestamp").content(),
        row["run_id"].as_str().and_then(|id| id.get(..8)).unwrap_or_default().to_owned(),
        whole("epoch"),
        whole("hidden_units"),
        number("train_loss"),
        number("train_accuracy"),
        number("val_loss"),
        number("val_accuracy"),
        cells::text(row, "phase").content(),
    ])
}

fn line(cells: &[String; 9]) -> Result<(), CliError> {
    let [time, run, epoch, units, loss, accuracy, val_loss, val_accuracy, phase] = cells;
    output::line(&format!(
        "{time:<19}  {run:<8}  {epoch:>8}  {units:>5}  {loss:>11}  {accuracy:>9}  {val_loss:>11}  {val_accuracy:>9}  {phase}"
    ))
}
