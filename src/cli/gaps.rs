//! `gaps`: gaps that the daemons recorded, and the rows that a run's tables lack by `seq`.

use serde_json::{Value, json};

use super::{
    CliError,
    args::{at_least_one, moment},
    ask::{QueryClient, Target, escape},
    cells::{self, FieldColumn},
    lookup::{find_run, id},
    output::{self, Told},
    table::{self, Cell, Column},
};
use crate::{config::Settings, gaps::GapReason, render, units::Micros};

/// Columns of the recorded gaps.
static COLUMNS: [FieldColumn; 8] = [
    FieldColumn::new("started_at", Column::ranked("STARTED (UTC)", 1), cells::moment),
    FieldColumn::new("seconds", Column::ranked("SECONDS", 2), seconds),
    FieldColumn::new("reason", Column::key("REASON"), cells::text),
    FieldColumn::new("lost", Column::key("LOST"), lost),
    FieldColumn::new("channel", Column::ranked("CHANNEL", 4), cells::whole_text),
    FieldColumn::new("run_id", Column::ranked("RUN", 3), cells::short_id),
    FieldColumn::new("source", Column::ranked("SOURCE", 6), cells::whole_text),
    FieldColumn::new("instance", Column::ranked("INSTANCE", 5), cells::whole_text),
];
/// Columns of the missing ranges of a run.
static MISSING_COLUMNS: [FieldColumn; 5] = [
    FieldColumn::new("first", Column::key("FIRST"), cells::count),
    FieldColumn::new("last", Column::key("LAST"), cells::count),
    FieldColumn::new("lost", Column::ranked("MISSING", 1), cells::count),
    FieldColumn::new("after", Column::ranked("AFTER (UTC)", 2), cells::moment),
    FieldColumn::new("before", Column::ranked("BEFORE (UTC)", 3), cells::moment),
];
/// What is told beside either table.
const TOLD: Told = Told { elsewhere: &[], shown_by: "a wider terminal or --json shows them" };

/// Arguments of `gaps`.
#[derive(Clone, Debug, clap::Args)]
pub struct GapsArgs {
    /// The rows that this run lacks by `seq`, and the gaps of its time: its id or name, or the beginning of either.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only gaps with this reason, such as `disconnected`.
    #[arg(long)]
    pub reason: Option<GapReason>,
    /// Only gaps that ended at this time or later; `1h`: in the last hour.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Micros>,
    /// Only gaps that began at this time or earlier; `1h`: more than an hour ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Micros>,
    /// Only gaps of this daemon; `--instance` is a flag of every subcommand.
    #[arg(skip)]
    pub instance: Option<String>,
    /// At most this many gaps, the newest; of a run, also at most this many missing ranges, the lowest.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub limit: usize,
    #[command(flatten)]
    pub target: Target,
}

/// Prints gaps.
///
/// # Errors
/// When there is no such run, or the store or the output fails.
pub async fn run(settings: Settings, args: GapsArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let route = match &args.run {
        Some(text) => format!("/api/runs/{}/gaps", id(&find_run(&client, text).await?)),
        None => "/api/gaps".to_owned(),
    };
    let mut answer = client.json(&format!("{route}?{}", parameters(&args))).await?;
    if json {
        let missing = args.run.is_some().then(|| missing(&answer));
        let mut printed = json!({ "gaps": answer["gaps"].take(), "count": answer["count"] });
        if let Some(missing) = missing {
            printed["missing"] = missing;
        }
        return output::json(&printed);
    }
    if args.run.is_some() {
        print_missing(&answer)?;
        output::line("")?;
    }
    let rows = cells::list(&answer, "gaps");
    if rows.is_empty() {
        return output::line("no gaps");
    }
    output::records(&COLUMNS, rows, &TOLD)
}

fn parameters(args: &GapsArgs) -> String {
    let texts = [
        ("reason", args.reason.map(|reason| reason.as_str().to_owned())),
        ("instance", args.instance.clone()),
        ("start_time", args.since.map(render::time)),
        ("end_time", args.until.map(render::time)),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some(format!("&{name}={}", escape(&text?))));
    format!("limit={}{}", args.limit, texts.collect::<String>())
}

/// How long a gap lasted.
fn seconds(gap: &Value, _: &str) -> Cell {
    let at = |field: &str| gap[field].as_str().and_then(|text| render::parse_time(text).ok());
    let seconds = at("ended_at").zip(at("started_at")).map(|(end, start)| (end - start) as f64 / 1e6);
    table::count(seconds.map(|seconds| format!("{seconds:.3}")))
}

/// How many messages a gap cost, if that is known.
fn lost(gap: &Value, field: &str) -> Cell {
    table::count(Some(gap[field].as_u64().map_or_else(|| "?".into(), |lost| lost.to_string())))
}

fn print_missing(answer: &Value) -> Result<(), CliError> {
    let (Some(first), Some(last)) = (answer["first_seq"].as_i64(), answer["last_seq"].as_i64()) else {
        return output::line("no stored row of this run has a `seq`, so missing rows cannot be determined");
    };
    let at_least = if answer["exact"] == false { "at least " } else { "" };
    let (stored, lost) = (&answer["stored"], &answer["missing_count"]);
    output::line(&format!("seq {first} to {last}: {stored} stored, {at_least}{lost} missing"))?;
    let missing = missing(answer);
    let ranges = cells::list(&missing, "holes");
    if ranges.is_empty() {
        return Ok(());
    }
    output::records(&MISSING_COLUMNS, ranges, &TOLD)?;
    match answer["missing_ranges"].as_u64().unwrap_or(0).saturating_sub(ranges.len() as u64) {
        0 => Ok(()),
        more => output::line(&format!("{more} more; see them with a higher --limit")),
    }
}

/// What the run lacks, as `--json` prints it.
fn missing(answer: &Value) -> Value {
    let range = |range: &Value| {
        json!({
            "first": range["from"], "last": range["to"], "lost": range["count"],
            "after": range["after"], "before": range["before"],
        })
    };
    json!({
        "first_seq": answer["first_seq"],
        "last_seq": answer["last_seq"],
        "stored": answer["stored"],
        "lost": answer["missing_count"],
        "exact": answer["exact"],
        "ranges": answer["missing_ranges"],
        "holes": cells::list(answer, "missing").iter().map(range).collect::<Vec<_>>(),
    })
}
