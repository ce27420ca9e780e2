//! `gaps`: gaps that the daemons recorded, and the rows that a run's tables lack by `seq`.

use std::sync::Arc;

use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CliError,
    args::at_least_one,
    ask::QueryClient,
    lookup::{find_run, id},
    output, table,
};
use crate::{
    app::stores,
    config::Settings,
    event::GapRow,
    gap_reader::{
        ledger::{self, Filter},
        missing::{Missing, SeqGap, missing},
    },
    gaps::GapReason,
    render::{self, JsonRows},
    store::StoreError,
    units::Micros,
};

/// Arguments of `gaps`.
#[derive(Clone, Debug, clap::Args)]
pub struct GapsArgs {
    /// The rows that this run lacks by `seq`, and the gaps of its time: its id or name, or the beginning of either.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only gaps with this reason, such as `disconnected`.
    #[arg(long, value_parser = reason)]
    pub reason: Option<GapReason>,
    /// Only gaps that ended at this time or later.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub since: Option<Micros>,
    /// Only gaps that began at this time or earlier.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub until: Option<Micros>,
    /// Only gaps of this daemon; `--instance` is a flag of every subcommand.
    #[arg(skip)]
    pub instance: Option<String>,
    /// At most this many gaps, the newest; of a run, also at most this many missing ranges, the lowest.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
}

#[derive(Serialize)]
struct GapsAnswer<'a> {
    gaps: JsonRows<'a, GapRow>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Value>,
}

/// Prints gaps.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: GapsArgs, json: bool) -> Result<(), CliError> {
    let store = stores::open_once(&settings).await;
    let store = store.map_err(|error| CliError::failed("failed to reach the store", error))?;
    let run = match &args.run {
        Some(text) => {
            let found = find_run(&QueryClient::in_process(Arc::clone(&store), &settings.http), text).await?;
            let run_id = Uuid::try_parse(id(&found)).unwrap_or_default();
            Some(
                store
                    .read_run(run_id)
                    .await
                    .map_err(unreadable)?
                    .ok_or_else(|| CliError::NegativeAnswer(format!("no run `{text}`")))?,
            )
        }
        None => None,
    };
    let mut filter = run.as_ref().map(Filter::of_run).unwrap_or_default();
    (filter.since, filter.until) = (args.since, args.until);
    (filter.reason, filter.instance) = (args.reason, args.instance);
    let rows = ledger::read(&*store, &filter, args.limit).await.map_err(unreadable)?;
    let lacking = match &run {
        Some(run) => Some(missing(&*store, run.run_id).await.map_err(unreadable)?),
        None => None,
    };
    if json {
        let missing = lacking.as_ref().map(|missing| value(missing, args.limit));
        return output::json(&GapsAnswer { gaps: JsonRows(&rows), count: rows.len(), missing });
    }
    if let Some(missing) = &lacking {
        print_missing(missing, args.limit)?;
        output::line("")?;
    }
    if rows.is_empty() {
        return output::line("no gaps");
    }
    let headers = ["STARTED (UTC)", "SECONDS", "REASON", "LOST", "CHANNEL", "RUN", "SOURCE", "INSTANCE"];
    table::table(&headers, rows.iter().map(cells).collect())
}

fn unreadable(error: StoreError) -> CliError {
    CliError::failed("failed to read the store", error)
}

fn reason(text: &str) -> Result<GapReason, String> {
    GapReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| format!("one of {}", GapReason::ALL.map(GapReason::as_str).join(", ")))
}

fn cells(gap: &GapRow) -> Vec<Cell> {
    vec![
        table::moment(Some(gap.started_at)),
        table::count(Some(format!("{:.3}", (gap.ended_at - gap.started_at) as f64 / 1e6))),
        table::text(Some(&gap.reason)),
        table::count(Some(gap.lost.map_or_else(|| "?".into(), |lost| lost.to_string()))),
        table::text(gap.channel.as_deref()),
        table::text(gap.run_id.map(|run| run.to_string()).as_deref().map(|run| &run[..8])),
        table::text(Some(&gap.source)),
        table::text(Some(&gap.instance)),
    ]
}

fn print_missing(missing: &Missing, limit: usize) -> Result<(), CliError> {
    let Some((first, last)) = missing.range else {
        return output::line("no stored row of this run has a `seq`, so missing rows cannot be determined");
    };
    let at_least = if missing.exact { "" } else { "at least " };
    let Missing { stored, lost, .. } = missing;
    output::line(&format!("seq {first} to {last}: {stored} stored, {at_least}{lost} missing"))?;
    if missing.gaps.is_empty() {
        return Ok(());
    }
    let cells = |gap: &SeqGap| {
        vec![
            table::count(Some(gap.first)),
            table::count(Some(gap.last)),
            table::count(Some(gap.last.abs_diff(gap.first) + 1)),
            table::moment(Some(gap.after)),
            table::moment(Some(gap.before)),
        ]
    };
    let rows = missing.gaps.iter().take(limit).map(cells).collect();
    table::table(&["FIRST", "LAST", "MISSING", "AFTER (UTC)", "BEFORE (UTC)"], rows)?;
    match missing.gaps.len().saturating_sub(limit) {
        0 => Ok(()),
        more => output::line(&format!("{more} more; see them with a higher --limit")),
    }
}

fn value(missing: &Missing, limit: usize) -> Value {
    let range = |gap: &SeqGap| {
        json!({
            "first": gap.first,
            "last": gap.last,
            "lost": gap.last.abs_diff(gap.first) + 1,
            "after": render::time(gap.after),
            "before": render::time(gap.before),
        })
    };
    json!({
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "stored": missing.stored,
        "lost": missing.lost,
        "exact": missing.exact,
        "ranges": missing.gaps.len(),
        "holes": missing.gaps.iter().take(limit).map(range).collect::<Vec<_>>(),
    })
}
