//! `runs`: the newest runs.

use std::io::Write;

use serde::Serialize;

use super::{
    CliError,
    lookup::{STALE_AFTER, now, unreadable},
    table,
};
use crate::{
    event::{RunRow, status},
    render::{self, RunJson, STALE},
    store::{RunsQuery, Store},
    units::Micros,
};

/// How many runs are looked at for those with the status that was asked for.
const LOOKED_AT: usize = 10_000;

/// Arguments of `runs`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunsArgs {
    /// At most this many.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Only those: running, stale, completed, failed or stopped.
    #[arg(long, value_parser = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED])]
    pub status: Option<String>,
    /// Only on this dataset.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Only those behind this cursor (`next` of the page before).
    #[arg(long, value_name = "CURSOR")]
    pub before: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    runs: Vec<RunJson<'a>>,
    count: usize,
    next: Option<String>,
}

/// Lists the newest runs.
///
/// # Errors
/// When the cursor is none, or the store or the output fails.
pub async fn runs(store: &dyn Store, args: RunsArgs, json: bool, out: &mut impl Write) -> Result<(), CliError> {
    let before = match &args.before {
        Some(text) => Some(
            render::parse_run_cursor(text)
                .ok_or_else(|| CliError::Usage(format!("`{text}` is no cursor of `runs`")))?,
        ),
        None => None,
    };
    let now = now();
    let query = RunsQuery { limit: args.limit, status: args.status, dataset: args.dataset, before };
    let (runs, next) = list(store, query, now, STALE_AFTER).await?;
    if json {
        let shown = runs.iter().map(|run| RunJson { run, now, stale_after: STALE_AFTER }).collect();
        return table::json(out, &Answer { runs: shown, count: runs.len(), next });
    }
    if runs.is_empty() {
        return table::line(out, "no runs");
    }
    let rows = runs.iter().map(|run| cells(run, now)).collect();
    let headers = ["RUN", "NAME", "STATUS", "STARTED", "EPOCH", "LOSS", "BEST VAL ACC", "UNITS", "DATASET"];
    table::table(out, &headers, rows)?;
    match next {
        Some(cursor) => table::line(out, &format!("\nmore with --before {cursor}")),
        None => Ok(()),
    }
}

/// A page of runs by the status that is shown, which tells stale from running; and the cursor of the next page.
async fn list(
    store: &dyn Store,
    query: RunsQuery,
    now: Micros,
    stale_after: Micros,
) -> Result<(Vec<RunRow>, Option<String>), CliError> {
    let wanted = query.status.clone();
    let stored = wanted.as_deref().map(|wanted| if wanted == STALE { status::RUNNING } else { wanted }.to_owned());
    let mut page = RunsQuery { status: stored, ..query };
    let (limit, mut found, mut looked_at) = (page.limit, Vec::new(), 0);
    // One more than is asked for tells whether there is a next page.
    page.limit = limit.saturating_add(1).min(LOOKED_AT);
    while found.len() <= limit && looked_at < LOOKED_AT {
        let runs = store.runs(&page).await.map_err(unreadable)?;
        let (read, last) = (runs.len(), runs.last().and_then(|run| Some((run.start_time?, run.run_id))));
        let is_wanted =
            |run: &RunRow| wanted.is_none() || render::shown_status(run, now, stale_after) == wanted.as_deref();
        found.extend(runs.into_iter().filter(is_wanted));
        looked_at += read;
        page.before = last;
        if read < page.limit || last.is_none() {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).and_then(render::run_cursor);
    Ok((found, next))
}

fn cells(run: &RunRow, now: Micros) -> Vec<comfy_table::Cell> {
    vec![
        // Enough to name it: a shortened id is understood.
        table::text(Some(&run.run_id.to_string()[..8])),
        table::text(run.run_name.as_deref()),
        table::text(render::shown_status(run, now, STALE_AFTER)),
        table::moment(run.start_time),
        table::count(run.final_epoch),
        table::number(run.final_train_loss),
        table::number(run.best_val_accuracy),
        table::count(run.total_hidden_units),
        table::text(run.dataset_name.as_deref()),
    ]
}
