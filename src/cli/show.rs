//! `show RUN`: one run: its fields, its configuration, each of its metrics, its newest rows and events.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    CliError,
    ask::{QueryClient, Target, escape},
    cells::{self, FieldColumn},
    curves::print_curves,
    field_names,
    lookup::{find_run, id},
    metrics,
    output::{self, Told},
    table::{self, Cell, Column},
};
use crate::{
    config::Settings,
    event::{Drawn, METRIC_COLUMNS},
};

/// Points of a curve in one line.
const SPARKLINE_WIDTH: usize = 60;
/// Metrics that one request aggregates.
const FIELDS_PER_REQUEST: usize = 16;
/// Metrics of a run that are aggregated; further ones are named. Each request reads all rows of the run.
const AGGREGATES_MAX: usize = 64;
/// The configuration, which has a list of its own, and what names the numbers that are not finite.
const OTHERWISE_SHOWN: [&str; 3] = ["config_json", "non_finite", "infinite"];
/// Fields of a run in the order in which people look for them; any other field follows.
const ORDER: [&str; 26] = [
    "run_id",
    "display_name",
    "run_name",
    "status",
    "start_time",
    "restarted_at",
    "end_time",
    "duration_seconds",
    "last_event_time",
    "dataset_name",
    "dataset_size",
    "final_epoch",
    "final_train_loss",
    "final_train_accuracy",
    "final_val_loss",
    "final_val_accuracy",
    "best_val_accuracy",
    "best_epoch",
    "total_hidden_units",
    "total_parameters",
    "notes",
    "tags",
    "created_by",
    "archived",
    "edited_at",
    "edited_by",
];
static AGGREGATE_COLUMNS: [Column; 9] = [
    Column::name("METRIC"),
    Column::key("LAST"),
    Column::ranked("BEST", 1),
    Column::ranked("BEST EPOCH", 4),
    Column::ranked("MIN", 2),
    Column::ranked("MAX", 3),
    Column::ranked("MEAN", 5),
    Column::ranked("COUNT", 6),
    Column::ranked("NON-FINITE", 1),
];
/// What shows the fields of events that their table leaves out.
const EVENTS_SHOWN_BY: &str = "`export RUN --table training_events --format json` has them";
static EVENT_COLUMNS: [FieldColumn; 3] = [
    FieldColumn::new("timestamp", Column::ranked("TIME (UTC)", 1), cells::moment),
    FieldColumn::new("type", Column::key("TYPE"), cells::text),
    FieldColumn::new("epoch", Column::key("EPOCH"), cells::count),
];

/// Arguments of `show`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The run: its id or its name, or the beginning of either.
    pub run: String,
    /// How many of its newest metrics and events; absent: 10, with --json 1000 metrics.
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true)]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub target: Target,
}

/// Shows one run.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: ShowArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let run_id = id(&find_run(&client, &args.run).await?).to_owned();
    let limit = args.limit.unwrap_or(if json { 1_000 } else { 10 });
    let answer = client.json(&format!("/api/runs/{run_id}?limit={limit}")).await?;
    if json {
        return output::json(&answer);
    }
    let events = client.json(&format!("/api/runs/{run_id}/events?limit={}", limit.max(1))).await?;
    let events = cells::list(&events, "events");
    print_run(&answer["run"], end_reason(&answer["run"], events))?;
    let path = format!("/api/metrics/range?run_id={run_id}&max_points={SPARKLINE_WIDTH}&order=asc");
    let curve = client.json(&path).await?;
    output::line("")?;
    print_curves(&curve)?;
    output::line(&format!("\nmetrics: {}", answer["metric_count"]))?;
    print_aggregates(&client, &run_id, &field_names::extra_names(&answer)).await?;
    let rows = cells::list(&answer, "metrics");
    if !rows.is_empty() {
        output::line("\nnewest rows:")?;
        metrics::print(rows)?;
    }
    if events.is_empty() {
        return Ok(());
    }
    output::line("\nevents:")?;
    output::records(&EVENT_COLUMNS, events, &Told { elsewhere: &["run_id"], shown_by: EVENTS_SHOWN_BY })
}

/// What the message that ended the run says of why: its error, else its reason.
fn end_reason(run: &Value, events: &[Value]) -> Option<String> {
    let ended = run["end_time"].as_str()?;
    let end = events.iter().find(|event| event["timestamp"] == ended)?;
    let payload: Value = serde_json::from_str(end["payload_json"].as_str()?).ok()?;
    let sections = [&payload["data"]["details"], &payload["data"], &payload["details"], &payload];
    let text =
        |name: &&str| sections.iter().find_map(|section| section[*name].as_str()).filter(|text| !text.is_empty());
    ["error", "exception", "reason"].iter().find_map(text).map(str::to_owned)
}

/// Every field that the run has, with all its digits, why it ended, and its configuration.
fn print_run(run: &Value, end_reason: Option<String>) -> Result<(), CliError> {
    let Some(all) = run.as_object() else { return Ok(()) };
    let is_shown = |name: &&str| ORDER.contains(name) || OTHERWISE_SHOWN.contains(name);
    let rest = all.keys().map(String::as_str).filter(|name| !is_shown(name));
    let field = |name: &str| {
        let cell = match &run[name] {
            Value::String(text) if name == "status" => table::status(Some(text)),
            _ => cells::whole_field(run, name),
        };
        (!cell.is_empty()).then(|| (table::escaped(&name.replace('_', " ")), cell))
    };
    let mut fields: Vec<_> = ORDER.into_iter().chain(rest).filter_map(field).collect();
    if let Some(reason) = end_reason {
        let behind = fields.iter().position(|(name, _)| name == "status").map_or(fields.len(), |at| at + 1);
        fields.insert(behind, ("ended because".into(), table::text(Some(&reason))));
    }
    output::fields(&fields)?;
    let configuration = cells::configuration(run);
    if configuration.is_empty() {
        return Ok(());
    }
    output::line("\nconfiguration:")?;
    let field = |(name, value): &(String, Value)| (table::escaped(name), cells::whole(value));
    output::fields(&configuration.iter().map(field).collect::<Vec<_>>())
}

/// The last and the best value of each metric.
async fn print_aggregates(client: &QueryClient, run_id: &str, extra: &BTreeSet<String>) -> Result<(), CliError> {
    let columns = METRIC_COLUMNS.iter().filter(|column| column.drawn != Drawn::Never).map(|column| column.name);
    let names: Vec<&str> = columns.chain(extra.iter().map(String::as_str)).collect();
    let mut rows = Vec::new();
    for names in names[..names.len().min(AGGREGATES_MAX)].chunks(FIELDS_PER_REQUEST) {
        let fields: Vec<_> = names.iter().map(|name| format!("field={}", escape(name))).collect();
        let answer = client.json(&format!("/api/runs/{run_id}/aggregates?{}", fields.join("&"))).await?;
        rows.extend(names.iter().filter_map(|name| aggregate(name, &answer["fields"][*name])));
    }
    if rows.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::rows(&AGGREGATE_COLUMNS, &rows)?;
    match names.get(AGGREGATES_MAX..) {
        Some(more) if !more.is_empty() => {
            let more = field_names::listed(more.iter().copied());
            output::line(&format!("further metrics, for `metrics --fields`: {more}"))
        }
        _ => Ok(()),
    }
}

/// The row of a metric; none when the run has no value of it.
fn aggregate(name: &str, of: &Value) -> Option<Vec<Cell>> {
    let is_empty = of["count"].as_u64().unwrap_or(0) + of["non_finite"].as_u64().unwrap_or(0) == 0;
    let number = |name: &str| table::number(of[name].as_f64());
    let non_finite = of["non_finite"].as_u64().filter(|count| *count > 0);
    (!is_empty).then(|| {
        vec![
            table::text(Some(name)),
            // JSON has no non-finite numbers: they have names.
            table::number(of["last"].as_f64().or_else(|| of["last_non_finite"].as_str()?.parse().ok())),
            table::number(of["best"]["value"].as_f64()),
            table::count(of["best_epoch"].as_i64()),
            number("min"),
            number("max"),
            number("avg"),
            table::count(of["count"].as_u64()),
            table::count(non_finite),
        ]
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_message_that_ended_a_run_says_why() {
        let (ended, other) = ("2026-11-20T10:15:00.000000Z", "2026-11-20T10:14:00.000000Z");
        let run = json!({"status": "failed", "end_time": ended});
        let event =
            |at: &str, payload: Value| json!({"timestamp": at, "type": "x", "payload_json": payload.to_string()});
        for (payload, why) in [
            (
                json!({"type": "training_end", "error": "ValueError: nan", "reason": "exception"}),
                Some("ValueError: nan"),
            ),
            (json!({"type": "training_end", "data": {"reason": "out of memory"}}), Some("out of memory")),
            (json!({"type": "training_failed", "data": {"details": {"exception": "KeyError"}}}), Some("KeyError")),
            (json!({"type": "training_end", "error": 0, "reason": ""}), None),
        ] {
            let events = [event(other, json!({"reason": "another"})), event(ended, payload.clone())];
            assert_eq!(end_reason(&run, &events).as_deref(), why, "{payload}");
        }
        assert_eq!(end_reason(&json!({"end_time": null}), &[event(ended, json!({"reason": "x"}))]), None);
        assert_eq!(end_reason(&run, &[]), None);
    }
}
