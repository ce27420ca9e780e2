//! `export RUN...`: writes whole runs to a file or to standard output.
//!
//! An export is written to `FILE.part`, described by `FILE.part.meta.json`, and renamed once it is complete and its checksum is
//! right. `FILE.meta.json` then has the number of rows, their checksum and the gaps of the run. `--resume` continues after the last
//! whole row of the part, or of a finished file of a run that has more rows by now.

mod head;
mod resume;

use std::{
    fs::{self, File, Permissions as Mode},
    future,
    io::{self, BufWriter, IsTerminal, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::HeaderMap;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::{
    CliError,
    args::moment,
    ask::{QueryClient, QueryResponse, Target, escape},
    lookup::{find_run, id},
    output::{self, Permissions},
    progress::{bar_style, style},
};
use crate::{config::Settings, files, render, terminal, units::Micros, words::counted};

/// Arguments of `export`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The runs: ids or names, or the beginning of either.
    #[arg(required = true)]
    pub runs: Vec<String>,
    /// File to write; absent: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub permissions: Permissions,
    /// csv, json or ndjson; absent: what the name of the file ends in, or json with --json and no file, else csv.
    #[arg(long, value_parser = ["csv", "json", "ndjson"])]
    format: Option<String>,
    /// Table to export.
    #[arg(long, default_value = "training_metrics",
          value_parser = ["training_metrics", "network_topology", "training_events"])]
    pub table: String,
    /// CSV: `names` gives each metric a column, `fixed` keeps metrics without a column of their own in `extra`; absent: names, and
    /// with --resume the columns of the file.
    #[arg(long, value_name = "WHICH", value_parser = ["names", "fixed"])]
    pub columns: Option<String>,
    /// CSV: leave texts as they are; otherwise a text that a spreadsheet would run as a formula gets a `'` in front.
    #[arg(long)]
    pub raw: bool,
    /// CSV: begin with a byte-order mark, by which spreadsheets recognise UTF-8; a resumed file stays as it began.
    #[arg(long)]
    pub bom: bool,
    /// Only rows at this time or later; `1h`: of the last hour.
    #[arg(long = "since", alias = "start", value_name = "TIME", value_parser = moment)]
    pub start: Option<Micros>,
    /// Only rows at this time or earlier; `1h`: older than an hour.
    #[arg(long = "until", alias = "end", value_name = "TIME", value_parser = moment)]
    pub end: Option<Micros>,
    /// Only rows after this cursor (of an earlier export).
    #[arg(long, value_name = "CURSOR", conflicts_with = "resume")]
    pub cursor: Option<String>,
    /// Continue an earlier export into the same file.
    #[arg(long, requires = "output")]
    pub resume: bool,
    #[command(flatten)]
    pub target: Target,
}

impl ExportArgs {
    fn format(&self) -> &str {
        self.format.as_deref().unwrap_or("csv")
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CliError {
    move |error| CliError::failed(format!("failed to write `{}`", path.display()), error)
}

/// Exports.
///
/// # Errors
/// When a run is not found, the store fails, or the file cannot be written or is not what it should be.
pub async fn run(settings: Settings, mut args: ExportArgs, json: bool) -> Result<(), CliError> {
    let client = QueryClient::connect(&settings, &args.target).await?;
    let by_name = args.output.as_ref().and_then(|file| file.extension()?.to_str()).map(str::to_ascii_lowercase);
    let by_name = by_name.filter(|ending| ["csv", "json", "ndjson"].contains(&ending.as_str()));
    args.format = args.format.or(by_name).or((json && args.output.is_none()).then(|| "json".into()));
    let args = &args;
    if args.resume && args.format() == "json" {
        return Err(CliError::Usage("--resume appends, which JSON cannot: use csv or ndjson".into()));
    }
    for (flag, given) in [("--raw", args.raw), ("--bom", args.bom), ("--columns", args.columns.is_some())] {
        if given && args.format() != "csv" {
            return Err(CliError::Usage(format!("{flag} is for csv")));
        }
    }
    let mut ids = Vec::new();
    for run in &args.runs {
        ids.push(id(&find_run(&client, run).await?).to_owned());
    }
    let Some(file) = &args.output else {
        let reply = client.get(&path(args, &ids, args.cursor.as_deref())).await?;
        let mut sink = Sink::new(BufWriter::new(terminal::stdout()), Xxh3::new(), bar());
        let reply = sink.write_body(reply, &output::failed).await?;
        return verify_checksum(args.format(), &sink, reply.trailers()).map(drop);
    };
    output::require_directory_of(file)?;
    let part = file.with_file_name(format!("{}.part", name(file)?));
    let partial = if args.resume { find_partial_export(args, &ids, file, &part)? } else { None };
    let cursor = partial.as_ref().map(|partial| partial.cursor.clone()).or(args.cursor.clone());
    let response = client.get(&path(args, &ids, cursor.as_deref())).await?;
    let part_meta = meta_path(&part)?;
    let mode = args.permissions.mode;
    let head = head_of(partial.as_ref(), args.cursor.as_deref());
    let text = format!("{:#}\n", export_properties(args, &ids, head.as_deref()));
    files::replace(&part_meta, text.as_bytes(), mode).map_err(failed(&part_meta))?;
    let open = open(&part, partial.is_some(), mode).map_err(failed(&part))?;
    let target = BufWriter::with_capacity(1 << 20, open);
    let bar = bar();
    let mut sink = Sink::new(target, Xxh3::new(), bar.clone());
    // The number of rows is only for the progress bar; the export does not wait for it.
    let progress = async {
        set_length(&bar, expected_rows(&client, args, &ids).await);
        future::pending().await
    };
    let failed_part = failed(&part);
    let reply = tokio::select! {
        reply = sink.write_body(response, &failed_part) => reply?,
        reply = progress => reply,
    };
    let trailer = verify_checksum(args.format(), &sink, reply.trailers())?;
    sink.target.get_ref().sync_all().map_err(failed(&part))?;
    let mut meta = export_properties(args, &ids, head.as_deref());
    describe(&mut meta, &part, partial.map_or(0, |partial| partial.rows), &trailer)?;
    fs::rename(&part, file).map_err(failed(file))?;
    let meta_file = meta_path(file)?;
    files::replace(&meta_file, format!("{meta:#}\n").as_bytes(), mode).map_err(failed(&meta_file))?;
    // The side file of the whole export replaces that of the part.
    let _ = fs::remove_file(&part_meta);
    if json {
        output::json(&meta)
    } else {
        output::line(&format!("{} in {}", counted(meta["rows"].as_u64().unwrap_or(0), "row", "rows"), file.display()))
    }
}

/// The earlier export to continue; an error, and nothing changed, if it is a different one.
fn find_partial_export(
    args: &ExportArgs,
    ids: &[String],
    file: &Path,
    part: &Path,
) -> Result<Option<resume::PartialExport>, CliError> {
    let refuse = |what: &str| {
        let file = file.display();
        Err(CliError::NegativeAnswer(format!(
            "`{file}` cannot be resumed: {what}; name another file, or leave out --resume"
        )))
    };
    // Files of two tables, or with and without --raw, may look alike; the side file tells them apart.
    let there = if part.exists() { part } else { file };
    let meta = fs::read(meta_path(there)?).unwrap_or_default();
    let meta: Value = serde_json::from_slice(&meta).unwrap_or_default();
    if meta["table"].as_str().is_some_and(|table| table != args.table) {
        return refuse("it is of another table");
    }
    match meta["raw"].as_bool() {
        Some(true) if !args.raw => return refuse("it was written with --raw"),
        Some(false) if args.raw => return refuse("it was written without --raw"),
        _ => {}
    }
    let request = resume::ExportRequest {
        format: args.format(),
        table: &args.table,
        ids,
        columns: args.columns.as_deref(),
        head: meta["head"].as_str().map(str::to_owned),
    };
    match resume::find_partial(file, part, &request) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => refuse(&error.to_string()),
        partial => partial.map_err(failed(there)),
    }
}

/// The part to write to: the one to resume, or a new file in place of an earlier part.
fn open(part: &Path, resumed: bool, mode: u32) -> io::Result<File> {
    if resumed {
        let file = files::open_own(part)?;
        file.set_permissions(Mode::from_mode(mode))?;
        return Ok(file);
    }
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => files::create_new(part, mode),
    }
}

/// The side file of an export, or of the part of one.
fn meta_path(file: &Path) -> Result<PathBuf, CliError> {
    Ok(file.with_file_name(format!("{}.meta.json", name(file)?)))
}

/// The metric columns of a file without a head: it began at a cursor, which has them.
fn head_of(partial: Option<&resume::PartialExport>, cursor: Option<&str>) -> Option<String> {
    match partial {
        Some(partial) => partial.head.clone(),
        None => cursor?.splitn(4, '.').nth(3).map(str::to_owned),
    }
}

/// What is exported, and how.
fn export_properties(args: &ExportArgs, ids: &[String], head: Option<&str>) -> Value {
    let mut properties = json!({ "runs": ids, "table": args.table, "format": args.format(), "raw": args.raw });
    if let Some(head) = head {
        properties["head"] = head.into();
    }
    properties
}

fn name(file: &Path) -> Result<String, CliError> {
    let name = file.file_name().ok_or_else(|| CliError::Usage(format!("`{}` names no file", file.display())))?;
    Ok(name.to_string_lossy().into_owned())
}

fn path(args: &ExportArgs, ids: &[String], cursor: Option<&str>) -> String {
    let mut path = format!("/api/export?format={}&table={}", args.format(), args.table);
    for id in ids {
        path.push_str(&format!("&run_id={id}"));
    }
    if let Some(columns) = &args.columns {
        path.push_str(&format!("&columns={columns}"));
    }
    for (name, given) in [("raw", args.raw), ("bom", args.bom)] {
        if given {
            path.push_str(&format!("&{name}=true"));
        }
    }
    for (name, at) in [("start_time", args.start), ("end_time", args.end)] {
        if let Some(at) = at {
            path.push_str(&format!("&{name}={}", escape(&render::time(at))));
        }
    }
    if let Some(cursor) = cursor {
        path.push_str(&format!("&cursor={}", escape(cursor)));
    }
    path
}

/// How many rows there will be, if known; for the progress bar.
async fn expected_rows(client: &QueryClient, args: &ExportArgs, ids: &[String]) -> u64 {
    if args.table != "training_metrics" || !io::stderr().is_terminal() {
        return 0;
    }
    let mut rows = 0;
    for id in ids {
        let answer = client.json(&format!("/api/runs/{id}?limit=0")).await;
        rows += answer.ok().and_then(|answer| answer["metric_count"].as_u64()).unwrap_or(0);
    }
    rows
}

/// A progress bar with rows and their rate; hidden without a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(style("{spinner} {prefix} {human_pos}")).with_prefix("rows")
}

/// Sets how many rows there will be.
fn set_length(bar: &ProgressBar, rows: u64) {
    if rows > 0 {
        bar.set_length(rows);
        bar.set_style(bar_style());
    }
}

/// Where the body goes, with its checksum and size.
struct Sink<W: Write> {
    target: W,
    hash: Xxh3,
    bytes: u64,
    bar: ProgressBar,
}

impl<W: Write> Sink<W> {
    fn new(target: W, hash: Xxh3, bar: ProgressBar) -> Self {
        Self { target, hash, bytes: 0, bar }
    }

    async fn write_body(
        &mut self,
        mut response: QueryResponse,
        failed: &impl Fn(io::Error) -> CliError,
    ) -> Result<QueryResponse, CliError> {
        while let Some(bytes) = response.next().await? {
            self.target.write_all(&bytes).map_err(failed)?;
            self.hash.update(&bytes);
            self.bytes += bytes.len() as u64;
            // A row is a line, except for line ends within texts: precise enough for a progress bar.
            self.bar.inc(bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
        self.target.flush().map_err(failed)?;
        self.bar.finish_and_clear();
        Ok(response)
    }
}

/// The trailers of the answer, once their checksum matches the body.
fn verify_checksum(format: &str, sink: &Sink<impl Write>, trailers: &HeaderMap) -> Result<Value, CliError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let said = text("x-checksum-xxh3")
        .ok_or_else(|| CliError::NegativeAnswer("the answer has no trailer: it is incomplete".into()))?;
    let found = format!("{:016x}", sink.hash.digest());
    // In JSON the closing of the object is not part of the checksum.
    if format != "json" && said != found {
        return Err(CliError::NegativeAnswer(format!(
            "the checksum is {found}, and should be {said}: the file is damaged"
        )));
    }
    let gaps = text("x-gaps").and_then(|gaps| serde_json::from_str::<Value>(gaps).ok());
    Ok(json!({
        "rows": text("x-row-count").and_then(|rows| rows.parse::<u64>().ok()),
        "cursor": text("x-cursor"),
        "gap_count": text("x-gap-count").and_then(|count| count.parse::<u64>().ok()),
        "gaps": gaps,
    }))
}

/// Adds what describes the whole file; this export may have written only its end.
fn describe(meta: &mut Value, part: &Path, before: u64, trailer: &Value) -> Result<(), CliError> {
    let mut file = File::open(part).map_err(failed(part))?;
    let (mut hash, mut buffer, mut bytes) = (Xxh3::new(), vec![0; 1 << 20], 0_u64);
    loop {
        match file.read(&mut buffer).map_err(failed(part))? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    meta["rows"] = json!(before + trailer["rows"].as_u64().unwrap_or(0));
    meta["bytes"] = json!(bytes);
    meta["checksum_xxh3"] = json!(format!("{:016x}", hash.digest()));
    for name in ["cursor", "gap_count", "gaps"] {
        meta[name] = trailer[name].clone();
    }
    Ok(())
}
