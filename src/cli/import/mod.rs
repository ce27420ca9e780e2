//! `import FILE...`: messages (NDJSON) and tables of metrics (CSV), through a daemon, as if they had been published.
//!
//! A file that is imported again gives the same rows: a message that it makes of a line is always the same, and has a time of its
//! own. Where the file has none, the time is a start, which is the same each time, and the number of the row.

mod columns;
mod csv;
mod ends;
mod exported;
mod input;
mod ndjson;
mod report;
mod row;
mod upload;

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
};

use jiff::tz::TimeZone;

use self::{
    columns::{Columns, Defaults},
    csv::CsvReader,
    ends::Ends,
    exported::Exported,
    input::{Input, stem},
    report::Report,
    upload::{Message, Uploader},
};
use super::{
    CliError,
    ask::{QueryClient, Target},
    output,
    progress::Bar,
};
use crate::{
    config::Settings,
    event::{run_id_from_text, status},
    render,
    units::{self, Micros},
};

/// Between two rows of a file without times.
const ROW_INTERVAL: Micros = 1_000;
/// How long before the last change of such a file its rows begin, so that the last row is not ahead of now.
const BEFORE_CHANGE: Micros = 86_400 * SECOND;
const SECOND: Micros = 1_000_000;

/// Arguments of `import`.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// Files of messages or of an export (NDJSON), or of metrics with a header (CSV), also compressed by gzip; `-`: standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The run, by id or name: of every row of a CSV file or an export (absent: what the file says, else the name of the CSV file
    /// without the ending), and of messages that name none.
    #[arg(long, visible_alias = "name", value_name = "RUN")]
    run: Option<String>,
    /// When rows without a time begin; they are a millisecond apart. Absent: when the run began, if it exists; else one day before
    /// the last change of the file. Give it to import a file again that has changed.
    #[arg(long, value_name = "TIME", value_parser = render::parse_time)]
    start: Option<Micros>,
    /// Absent: by the first character, `{` for ndjson.
    #[arg(long, value_parser = ["csv", "ndjson"])]
    format: Option<String>,
    /// How the runs of CSV files and exports ended: `completed`, unless this says otherwise; `running` leaves them open. Messages tell the ends
    /// of their runs themselves, unless this is given. A run that has newer events than the files is left as it is.
    #[arg(long, value_name = "STATUS")]
    #[arg(value_parser = [status::COMPLETED, status::FAILED, status::STOPPED, status::RUNNING])]
    status: Option<String>,
    /// Texts of a CSV export are as they were (`export --raw`); otherwise the `'` in front of a formula is taken away.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    target: Target,
}

/// Imports.
///
/// # Errors
/// When a file cannot be read, the daemon does not answer, or something was refused.
pub async fn run(settings: Settings, args: ImportArgs, json: bool) -> Result<(), CliError> {
    if args.run.as_deref().is_some_and(|run| run.trim().is_empty()) {
        return Err(CliError::Usage("--run must not be blank".into()));
    }
    let client = connect(&settings, &args.target).await?;
    let zone = TimeZone::get(&settings.intake.time_zone).unwrap_or(TimeZone::UTC);
    let mut import = Import { args: &args, client: &client, zone, ends: Ends::default(), report: Report::default() };
    for path in &args.files {
        if let Err(error) = import.file(path).await {
            // What was accepted until then stays.
            if import.report.read > 0 {
                let _ = import.report.print(json);
            }
            return Err(error);
        }
    }
    let Import { ends, mut report, .. } = import;
    let ended = ends.send(&client, args.status.as_deref().unwrap_or(status::COMPLETED), &mut report).await;
    let printed = report.print(json);
    ended.and(printed)
}

/// The daemon that `target` names, else the configured one; it must take messages.
async fn connect(settings: &Settings, target: &Target) -> Result<QueryClient, CliError> {
    let hint = "import needs a running daemon: start `cascor-ingest run`, or name one with --url";
    let url = match (&target.url, settings.http.listen.parse::<SocketAddr>()) {
        (Some(url), _) => url.clone(),
        (None, Ok(listen)) => format!("http://{}", reachable(listen)),
        (None, Err(_)) => return Err(CliError::NegativeAnswer(format!("{hint} (`http.listen` is empty)"))),
    };
    let client = QueryClient::connect(settings, &Target { url: Some(url), ..target.clone() }).await?;
    match client.publish("[]".into()).await {
        Ok(_) => Ok(client),
        Err(error @ CliError::Failed { .. }) if target.url.is_none() => Err(CliError::failed(hint, error)),
        Err(error) => Err(error),
    }
}

/// The address on this machine of a daemon that listens on `listen`.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

struct Import<'a> {
    args: &'a ImportArgs,
    client: &'a QueryClient,
    zone: TimeZone,
    ends: Ends,
    report: Report,
}

/// What was read of a line.
struct Line {
    line: u64,
    message: Result<String, String>,
    /// Whether the file does not tell the end of the run.
    ends: bool,
}

/// The progress in one file.
struct Progress {
    bar: Bar,
    read: Rc<Cell<u64>>,
    size: u64,
}

impl Progress {
    fn show(&self) {
        self.bar.show(self.read.get(), self.size.max(self.read.get()));
    }
}

impl Import<'_> {
    async fn file(&mut self, path: &Path) -> Result<(), CliError> {
        let name = path.display().to_string();
        let failed = |error: io::Error| CliError::failed(format!("failed to read `{name}`"), error);
        self.report.file = name.clone();
        let mut input = Input::open(path).map_err(failed)?;
        let progress = Progress { bar: Bar::new("import"), read: Rc::clone(&input.read), size: input.size };
        let first = input.first_byte().map_err(failed)?;
        match (self.args.format.as_deref(), first) {
            (None, Some(b'[')) => {
                Err(CliError::Usage(format!("`{name}` begins with `[`; write its messages one a line, without it")))
            }
            (Some("ndjson"), _) | (None, Some(b'{')) => self.lines(path, input, &progress).await,
            _ => self.rows(path, input, &progress).await,
        }
    }

    /// Messages, or rows of an export, one a line.
    async fn lines(&mut self, path: &Path, mut input: Input, progress: &Progress) -> Result<(), CliError> {
        let mut uploader = Uploader::new(self.client);
        let mut start = None;
        let mut line = 0;
        while let Some(text) = ndjson::next_line(&mut input.reader).map_err(|error| self.broken(path, line, error))? {
            line += 1;
            if text.is_empty() {
                continue;
            }
            let run = self.args.run.as_deref();
            let (message, ends) = match exported::read(&text, run) {
                Some(Exported::Trailer) => continue,
                Some(Exported::Row(message)) => (message, true),
                None => {
                    start = start.or(self.args.start).or(input.modified.map(before_change));
                    let time = || start.map(|start| start + line as Micros * ROW_INTERVAL);
                    (ndjson::message(text, run, time), self.args.status.is_some())
                }
            };
            self.push(&mut uploader, Line { line, message, ends }, progress).await?;
        }
        uploader.flush(&mut self.report).await
    }

    /// Rows of CSV.
    async fn rows(&mut self, path: &Path, input: Input, progress: &Progress) -> Result<(), CliError> {
        let mut reader = CsvReader::new(input.reader, 0);
        let Some(header) = reader.next().map_err(|error| self.broken(path, 0, error))? else { return Ok(()) };
        let usage = |why: String| CliError::Usage(format!("`{}`: {why}", path.display()));
        let columns = Columns::parse(&header, self.args.raw).map_err(usage)?;
        let fallback_run = stem(path);
        let run = self.args.run.as_deref();
        let start = match columns.have_time() {
            true => None,
            false => Some(self.start(run.or(fallback_run.as_deref()), input.modified).await?),
        };
        let mut uploader = Uploader::new(self.client);
        let (mut count, mut line) = (0, header.line);
        while let Some(record) = reader.next().map_err(|error| self.broken(path, line, error))? {
            line = record.line;
            if columns.is_trailer(&record) {
                continue;
            }
            let time = start.map(|start| start + count * ROW_INTERVAL);
            count += 1;
            let message = columns.message(&record, Defaults { run, fallback_run: fallback_run.as_deref(), time });
            self.push(&mut uploader, Line { line, message, ends: true }, progress).await?;
        }
        uploader.flush(&mut self.report).await
    }

    async fn push(&mut self, uploader: &mut Uploader<'_>, read: Line, progress: &Progress) -> Result<(), CliError> {
        self.report.read += 1;
        let Line { line, message, ends } = read;
        let checked = message.and_then(|json| ndjson::check(&json, &self.zone).map(|event| (json, event)));
        match checked {
            Ok((json, (run, at))) => {
                if ends {
                    self.ends.note(run, at);
                }
                if uploader.push(Message { line, json }, &mut self.report).await? {
                    progress.show();
                }
            }
            Err(reason) => self.report.refuse(line, &reason),
        }
        Ok(())
    }

    /// When rows without a time begin, said on standard error.
    async fn start(&self, run: Option<&str>, modified: Option<Micros>) -> Result<Micros, CliError> {
        if let Some(start) = self.args.start {
            return Ok(start);
        }
        let known = match run {
            Some(run) => self.run_start(run).await,
            None => None,
        };
        let needed = || CliError::Usage("the rows have no time: say with --start when they begin".into());
        let start = known.or(modified.map(before_change)).ok_or_else(needed)?;
        let file = &self.report.file;
        output::error(&format!(
            "{file}: the rows have no time; they begin at {}, a millisecond apart (--start)",
            render::time(start)
        ));
        Ok(start)
    }

    /// When a run began that the daemon has; a token that only publishes may not ask.
    async fn run_start(&self, run: &str) -> Option<Micros> {
        let path = format!("/api/runs/{}?limit=0&count=none", run_id_from_text(run));
        let answer = self.client.json(&path).await.ok()?;
        let start = render::parse_time(answer["run"]["start_time"].as_str()?).ok()?;
        Some(start.div_euclid(SECOND) * SECOND)
    }

    fn broken(&self, path: &Path, line: u64, error: io::Error) -> CliError {
        CliError::failed(format!("failed to read `{}` behind line {line}", path.display()), error)
    }
}

/// A whole second before a file was last changed.
fn before_change(modified: Micros) -> Micros {
    (modified.min(units::now()) - BEFORE_CHANGE).div_euclid(SECOND) * SECOND
}
