//! `tail`: follows the rows of a run. It polls for rows after the last one, so that it shows every stored row once, in order, from
//! any store and any daemon.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    cells,
    field_names::{self, FieldArgs},
    lookup::{find_run, id},
    metrics, output,
    table::{Column, Table},
};
use crate::{config::Settings, render, units};

/// How often it asks for rows.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often it looks for a newer run, if none was named.
const NEW_RUN_INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `tail`.
#[derive(Clone, Debug, clap::Args)]
pub struct TailArgs {
    /// The run: its id or its name, or the beginning of either; absent: the newest run, and each newer one.
    pub run: Option<String>,
    /// How many stored rows to begin with.
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N", allow_negative_numbers = true)]
    pub limit: usize,
    /// End after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub fields: FieldArgs,
    #[command(flatten)]
    pub target: Target,
}

/// Follows until interrupted.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: TailArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let mut run = match &args.run {
        Some(text) => Some(id(&find_run(&client, text).await?).to_owned()),
        None => newest_run(&client).await?,
    };
    let mut cursor = None;
    let mut checked_at = Instant::now();
    let mut printer = Printer::new(&client, &args, run.as_deref(), json).await?;
    // From here on, so that rows are read at least once.
    let until = args.duration.map(|duration| Instant::now() + duration);
    let over = || until.is_some_and(|until| Instant::now() >= until);
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
        printer.print(&rows)?;
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

/// The rows after the cursor, oldest first; without one, the newest rows.
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

/// The cursor after a row.
fn row_cursor(row: &Value) -> Option<String> {
    let at = render::parse_time(row["timestamp"].as_str()?).ok()?;
    Some(format!("{at}.{}", row["event_id"].as_i64()?))
}

/// Prints rows as they come.
struct Printer {
    fields: Vec<String>,
    /// Absent: as JSON.
    table: Option<Table>,
}

impl Printer {
    async fn new(client: &QueryClient, args: &TailArgs, run: Option<&str>, json: bool) -> Result<Self, CliError> {
        // A run that has not begun has no names yet; then they are taken as they are.
        let fields = match run {
            Some(run) if !args.fields.is_empty() => args.fields.resolve(&field_names::of_run(client, run).await?)?,
            _ => args.fields.unchecked(),
        };
        let named: Vec<&str> = fields.iter().map(String::as_str).collect();
        let columns =
            [Column::ranked("RUN", u8::MAX).of("run_id")].into_iter().chain(metrics::columns(&named)).collect();
        Ok(Self { table: (!json).then(|| Table::following(columns)), fields })
    }

    fn print(&mut self, rows: &[Value]) -> Result<(), CliError> {
        let Some(table) = &mut self.table else { return rows.iter().try_for_each(output::json) };
        if rows.is_empty() {
            return Ok(());
        }
        let fields: Vec<&str> = self.fields.iter().map(String::as_str).collect();
        let row = |row| [cells::short_id(row, "run_id")].into_iter().chain(metrics::cells(row, &fields)).collect();
        let shown: Vec<_> = rows.iter().map(row).collect();
        output::more_rows(table, &shown, &metrics::further(rows, &fields))
    }
}
