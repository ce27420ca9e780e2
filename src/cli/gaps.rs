//! `gaps`: what was missed, as the daemons wrote it down, and what a run's tables lack by `seq`.

use std::{io::Write, sync::Arc};

use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CliError,
    ask::QueryClient,
    lookup::{find_run, id},
    read, table,
};
use crate::{
    api,
    event::GapRow,
    gap_reader::{
        ledger::{self, Filter},
        missing::{Missing, SeqGap, missing},
    },
    gaps::GapReason,
    render::{self, JsonRows},
    store::{Store, StoreError},
    units::Micros,
};

/// Arguments of `gaps`.
#[derive(Clone, Debug, clap::Args)]
pub struct GapsArgs {
    /// What this run's tables lack by `seq`, and the gaps of its time: its id or its name, or the beginning of either.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only with this reason, such as `disconnected`.
    #[arg(long, value_parser = reason)]
    pub reason: Option<GapReason>,
    /// Only those that were not over before this moment.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub since: Option<Micros>,
    /// Only those that had begun by this moment.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    pub until: Option<Micros>,
    /// Only what this daemon missed: the flag of every subcommand says which.
    #[arg(skip)]
    pub instance: Option<String>,
    /// At most this many, the newest; of a run also at most this many missing ranges, the lowest.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N", value_parser = read::at_least_one)]
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
pub async fn gaps(
    store: Arc<dyn Store>,
    limits: &api::Config,
    args: GapsArgs,
    json: bool,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let run = match &args.run {
        Some(text) => {
            let found = find_run(&QueryClient::in_process(Arc::clone(&store), limits), text).await?;
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
        return table::json(out, &GapsAnswer { gaps: JsonRows(&rows), count: rows.len(), missing });
    }
    if let Some(missing) = &lacking {
        print_missing(out, missing, args.limit)?;
        table::line(out, "")?;
    }
    if rows.is_empty() {
        return table::line(out, "no gaps");
    }
    let headers = ["STARTED (UTC)", "SECONDS", "REASON", "LOST", "CHANNEL", "RUN", "SOURCE", "INSTANCE"];
    table::table(out, &headers, rows.iter().map(cells).collect())
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

fn print_missing(out: &mut impl Write, missing: &Missing, limit: usize) -> Result<(), CliError> {
    let Some((first, last)) = missing.range else {
        return table::line(out, "no stored row of this run has a `seq`: what it lacks cannot be told from it");
    };
    let at_least = if missing.exact { "" } else { "at least " };
    let Missing { stored, lost, .. } = missing;
    table::line(out, &format!("seq {first} to {last}: {stored} stored, {at_least}{lost} missing"))?;
    if missing.gaps.is_empty() {
        return Ok(());
    }
    let cells = |hole: &SeqGap| {
        vec![
            table::count(Some(hole.first)),
            table::count(Some(hole.last)),
            table::count(Some(hole.last.abs_diff(hole.first) + 1)),
            table::moment(Some(hole.after)),
            table::moment(Some(hole.before)),
        ]
    };
    let rows = missing.gaps.iter().take(limit).map(cells).collect();
    table::table(out, &["FIRST", "LAST", "MISSING", "AFTER (UTC)", "BEFORE (UTC)"], rows)?;
    match missing.gaps.len().saturating_sub(limit) {
        0 => Ok(()),
        more => table::line(out, &format!("{more} more; see them with a higher --limit")),
    }
}

fn value(missing: &Missing, limit: usize) -> Value {
    let hole = |hole: &SeqGap| {
        json!({
            "first": hole.first,
            "last": hole.last,
            "lost": hole.last.abs_diff(hole.first) + 1,
            "after": render::time(hole.after),
            "before": render::time(hole.before),
        })
    };
    json!({
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "stored": missing.stored,
        "lost": missing.lost,
        "exact": missing.exact,
        "ranges": missing.gaps.len(),
        "holes": missing.gaps.iter().take(limit).map(hole).collect::<Vec<_>>(),
    })
}
