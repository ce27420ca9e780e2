//! `runs`: the newest runs.

use std::io::Write;

use serde::Serialize;

use super::{
    CliError,
    lookup::{STALE_AFTER, unreadable},
    table,
};
use crate::{
    event::{RunRow, status},
    render::{self, RunJson, STALE},
    store::{RunsQuery, Store},
    units::{self, Micros},
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
    let now = units::now();
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

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::{
        cli::{
            metrics::{MetricsArgs, metrics},
            show::{ShowArgs, show},
        },
        event::{EventKey, MetricsRow, Row, run_id_from_text},
        store::{Batch, memory::MemoryStore},
    };

    /// Six runs, the newest first: run-5 (running), run-4 (silent, though running), run-3 (completed), ...
    async fn filled() -> MemoryStore {
        let store = MemoryStore::new();
        for n in 0..6 {
            let status = [status::COMPLETED, status::RUNNING][usize::from(n >= 4)];
            let name = format!("run-{n}");
            let start = units::now() - (6 - n) * 3_600_000_000;
            let run = RunRow {
                run_id: run_id_from_text(&name),
                run_name: Some(name),
                start_time: Some(start),
                status: Some(status.into()),
                notes: Some("\u{1b}[31mred".into()),
                last_event_time: Some(if n == 5 { units::now() } else { start }),
                ..RunRow::default()
            };
            store.write_run(&run, None).await.unwrap();
        }
        let row = |n: i64| {
            Row::Metrics(MetricsRow {
                key: EventKey { run_id: run_id_from_text("run-5"), timestamp: n * 1_000_000, event_id: n },
                epoch: Some(n as i32),
                step: None,
                train_loss: Some(if n == 3 { f64::NAN } else { 0.5 }),
                train_accuracy: None,
                val_loss: None,
                val_accuracy: None,
                learning_rate: None,
                hidden_units: None,
                phase: None,
                seq: None,
                extra: [].into(),
                rest_json: None,
            })
        };
        let rows: Vec<Row> = (0..4).map(row).collect();
        let (table, partition) = rows[0].destination();
        store.write(&Batch { table, partition, rows }).await.unwrap();
        store
    }

    async fn list_json(store: &MemoryStore, status: Option<&str>, limit: usize, before: Option<&str>) -> Value {
        let args = RunsArgs { limit, status: status.map(Into::into), dataset: None, before: before.map(Into::into) };
        let mut out = Vec::new();
        runs(store, args, true, &mut out).await.unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    fn names(answer: &Value) -> Vec<&str> {
        answer["runs"].as_array().unwrap().iter().map(|run| run["run_name"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn runs_are_paged_and_filtered_by_the_status_that_is_shown() {
        let store = filled().await;
        for (status, expected) in [
            (None, &["run-5", "run-4", "run-3", "run-2", "run-1", "run-0"][..]),
            (Some("running"), &["run-5"]),
            (Some("stale"), &["run-4"]),
            (Some("failed"), &[]),
        ] {
            let answer = list_json(&store, status, 10, None).await;
            assert_eq!((names(&answer), answer["next"].is_null()), (expected.to_vec(), true), "{status:?}");
            assert_eq!(answer["count"], expected.len());
        }
        let first = list_json(&store, Some("completed"), 3, None).await;
        assert_eq!(names(&first), ["run-3", "run-2", "run-1"]);
        let second = list_json(&store, Some("completed"), 3, first["next"].as_str()).await;
        assert_eq!((names(&second), second["next"].is_null()), (vec!["run-0"], true));
    }

    #[tokio::test]
    async fn a_run_is_shown_with_its_metrics() {
        let store = filled().await;
        let mut out = Vec::new();
        show(&store, ShowArgs { run: "run-5".into(), limit: None }, true, &mut out).await.unwrap();
        let answer: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&answer["metric_count"], &answer["run"]["run_name"]), (&4.into(), &"run-5".into()));
        assert_eq!(answer["metrics"][0]["timestamp"], "1970-01-01T00:00:03.000000Z");
        assert_eq!(
            (&answer["metrics"][0]["train_loss"], &answer["metrics"][0]["non_finite"][0]),
            (&Value::Null, &"train_loss".into())
        );

        let mut out = Vec::new();
        show(&store, ShowArgs { run: "run-5".into(), limit: None }, false, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("NaN") && text.contains("metrics: 4"), "{text}");
        assert!(!text.contains('\u{1b}'), "what a producer sent does not steer the terminal: {text}");

        let missing = show(&store, ShowArgs { run: Uuid::nil().to_string(), limit: None }, true, &mut Vec::new()).await;
        assert!(matches!(missing, Err(CliError::No(_))));
    }

    #[tokio::test]
    async fn metrics_are_paged_in_either_order() {
        let store = filled().await;
        for (ascending, expected) in [(true, [0, 1, 2, 3]), (false, [3, 2, 1, 0])] {
            let (mut epochs, mut cursor) = (Vec::new(), None);
            loop {
                let run = "run-5".into();
                let args = MetricsArgs { run, limit: 3, ascending, start: None, end: None, cursor };
                let mut out = Vec::new();
                metrics(&store, args, true, &mut out).await.unwrap();
                let answer: Value = serde_json::from_slice(&out).unwrap();
                epochs.extend(answer["metrics"].as_array().unwrap().iter().map(|row| row["epoch"].as_i64().unwrap()));
                cursor = answer["next"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(epochs, expected);
        }
    }
}
