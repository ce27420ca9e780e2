//! The list of runs, page by page: the command goes on until it has as many runs as it was asked for, or until all were searched.

use serde_json::{Value, json};

use super::{
    CliError,
    args::{at_least_one, moment},
    ask::{QueryClient, escape},
    cells, output,
    progress::SearchLine,
};
use crate::{
    event::status,
    render::{self, STALE},
    units::Micros,
};

/// Runs of one request.
const PAGE_RUNS: usize = 1_000;

/// Which runs to list.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// At most this many runs.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub limit: usize,
    /// Every run.
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Only runs in which all of these words occur: in the name, id, dataset, tags, notes, creator or configuration, in any case.
    /// KEY=VALUE compares a key of the configuration.
    #[arg(long, short = 'q', value_name = "WORDS")]
    pub query: Option<String>,
    /// Only runs with this status.
    #[arg(long, value_parser = [status::RUNNING, STALE, status::COMPLETED, status::FAILED, status::STOPPED])]
    pub status: Option<String>,
    /// Only runs on this dataset.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Only runs that started at this time or later; `1h`: in the last hour.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Micros>,
    /// Only runs with this tag; may be repeated: with all of them.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Sort by a column of `--json`, by `name`, or by `config.KEY`, a key of the configuration; absent: newest first.
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Largest or newest first (desc, the default), or smallest or oldest first.
    #[arg(long, value_parser = ["desc", "asc"])]
    pub order: Option<String>,
    /// Only archived runs; `--archived any`: archived or not. Absent: runs that are not archived.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "true")]
    #[arg(value_parser = ["true", "any"])]
    pub archived: Option<String>,
    /// Only runs after this cursor (`next` of the previous page).
    #[arg(long, value_name = "CURSOR")]
    pub before: Option<String>,
}

impl ListArgs {
    /// The filters and the order, as parameters.
    fn parameters(&self) -> String {
        let one = [
            ("q", &self.query),
            ("status", &self.status),
            ("dataset", &self.dataset),
            ("sort", &self.sort),
            ("order", &self.order),
            ("archived", &self.archived),
        ];
        let one = one.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        one.chain(self.tags.iter().map(|tag| ("tag", tag)))
            .map(|(name, value)| format!("&{name}={}", escape(value)))
            .collect()
    }

    /// Whether some runs are left out.
    fn is_filtered(&self) -> bool {
        [&self.query, &self.status, &self.dataset].into_iter().any(Option::is_some)
            || !self.tags.is_empty()
            || self.since.is_some()
    }
}

/// Lists runs.
///
/// # Errors
/// When an argument is invalid, or the store or the output fails.
pub async fn list(
    client: &QueryClient,
    args: &ListArgs,
    as_json: bool,
    table: impl Fn(&[Value]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut pages = Pages::new(client, args.parameters());
    (pages.since, pages.next, pages.is_at_top) = (args.since, args.before.clone(), args.before.is_none());
    if args.all {
        return list_all(&mut pages, args, as_json, table).await;
    }
    let runs = pages.runs(args.limit).await?;
    if as_json {
        let mut answer = json!({ "count": runs.len(), "next": pages.next, "runs": runs });
        if !pages.ordered.is_null() {
            answer["sorted"] = pages.ordered;
        }
        return output::json(&answer);
    }
    if runs.is_empty() {
        none(args)?
    } else {
        table(&runs)?
    }
    if pages.ordered["all"] == false && !runs.is_empty() {
        output::line(&format!("\nsorted among {} runs of the list; older ones follow", pages.ordered["of"]))?;
    }
    match &pages.next {
        Some(cursor) => output::more("--before", cursor),
        None => Ok(()),
    }
}

/// The newest runs, archived or not, in which all of these words occur.
///
/// # Errors
/// When the query fails.
pub async fn search(client: &QueryClient, words: &str, limit: usize) -> Result<Vec<Value>, CliError> {
    let parameters = format!("&archived=any&q={}", escape(words));
    Pages::new(client, parameters).runs(limit).await
}

/// A table for each page, or one JSON object written page by page: there may be a million runs.
async fn list_all(
    pages: &mut Pages<'_>,
    args: &ListArgs,
    as_json: bool,
    table: impl Fn(&[Value]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut count = 0;
    if as_json {
        output::verbatim("{\"runs\":[")?;
    }
    while !pages.ended {
        let runs = pages.runs(PAGE_RUNS).await?;
        if as_json {
            for (n, run) in runs.iter().enumerate() {
                output::verbatim(&format!("{}{run}", if count + n == 0 { "" } else { "," }))?;
            }
        } else if !runs.is_empty() {
            table(&runs)?;
        }
        count += runs.len();
    }
    match (as_json, count) {
        (true, _) => output::verbatim(&format!("],\"count\":{count},\"next\":null}}")),
        (false, 0) => none(args),
        (false, _) => Ok(()),
    }
}

fn none(args: &ListArgs) -> Result<(), CliError> {
    output::line(match (args.is_filtered(), &args.archived) {
        (true, None) => "no run matches; archived runs are left out (--archived=any)",
        (true, Some(_)) => "no run matches",
        (false, None) => "no runs; archived ones are left out (--archived=any)",
        (false, Some(_)) => "no runs",
    })
}

/// The pages of a list.
struct Pages<'c> {
    client: &'c QueryClient,
    parameters: String,
    /// There was no run yet.
    is_at_top: bool,
    /// Runs that started before are left out.
    since: Option<Micros>,
    next: Option<String>,
    /// All runs were searched.
    ended: bool,
    /// `sorted` of the last answer.
    ordered: Value,
}

impl<'c> Pages<'c> {
    fn new(client: &'c QueryClient, parameters: String) -> Self {
        Self { client, parameters, is_at_top: true, since: None, next: None, ended: false, ordered: Value::Null }
    }

    /// The next runs: as many as wanted, unless the list ends before.
    async fn runs(&mut self, wanted: usize) -> Result<Vec<Value>, CliError> {
        let (mut found, mut scanned, line) = (Vec::new(), 0, SearchLine::new());
        while found.len() < wanted && !self.ended {
            let limit = (wanted - found.len()).min(PAGE_RUNS);
            let mut path = format!("/api/runs?limit={limit}{}", self.parameters);
            if let Some(next) = &self.next {
                path.push_str(&format!("&before={}", escape(next)));
            }
            let mut answer = self.client.json(&path).await?;
            let runs = cells::list(&answer, "runs");
            let since = runs.iter().filter(|run| self.since.is_none_or(|since| started(run) >= since));
            let listed = found.len() + runs.len();
            found.extend(since.cloned());
            scanned += answer["scanned"].as_u64().unwrap_or_default();
            self.next = answer["next"].as_str().map(str::to_owned);
            // Newest first, all later runs started before, too.
            if answer["sorted"].is_null() && found.len() < listed {
                self.next = None;
            }
            self.ended = self.next.is_none();
            let has_runs = !runs.is_empty();
            self.ordered = answer["sorted"].take();
            if has_runs && std::mem::take(&mut self.is_at_top) && self.ordered["all"] == true {
                refuse_absent_key(&self.ordered)?;
            }
            // A list that one request answers has no progress to show.
            match self.ordered["of"].as_u64().filter(|_| self.ordered["sorting"] == true) {
                Some(read) => line.show_sorting(read),
                None if found.len() < wanted && !self.ended => line.show(scanned, found.len()),
                None => {}
            }
        }
        Ok(found)
    }
}

/// The start of a run.
fn started(run: &Value) -> Micros {
    run["start_time"].as_str().and_then(|time| render::parse_time(time).ok()).unwrap_or(Micros::MIN)
}

/// A list that is sorted by a key of the configuration that no run has would be one that is newest first.
fn refuse_absent_key(sorted: &Value) -> Result<(), CliError> {
    let Some(keys) = sorted["keys"].as_array() else { return Ok(()) };
    let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
    let by = sorted["by"].as_str().unwrap_or_default();
    let those = if keys.is_empty() { "no configuration".to_owned() } else { keys.join(", ") };
    Err(CliError::NegativeAnswer(format!("no run of the list has `{by}`; its newest runs have {those}")))
}
