//! Reads the rows of an export page by page, and writes them as text.

use std::{fmt::Write as _, sync::Arc};

use tokio::{sync::mpsc, task::spawn_blocking};
use uuid::Uuid;

use super::{
    body::{BodyChunk, Trailer},
    csv::ExportRow,
};
use crate::{
    api::{
        chunked::ChunkWriter,
        memory_budget::{MemoryBudget, Reservation},
        rows::Paged,
    },
    event::{EventRow, MetricsRow, TopologyRow},
    gap_reader::ledger::{self, Filter},
    render,
    store::{Prefetch, READ_BYTES, RangeQuery, Store, StoreError},
    units::{self, Micros},
};

/// Rows of a page that are small. Two pages (a command has one more, as the server sends it) and a chunk of text are all the memory of
/// an export.
const PAGE_ROWS: usize = 5_000;
/// What a page takes unless its rows are large.
const PAGE_BYTES: usize = 2 * READ_BYTES;
/// Gap rows reported of each run, at most.
const MAX_GAP_ROWS: usize = 1_000;

/// The byte-order mark, without which spreadsheets take UTF-8 for something else.
pub const BOM: &str = "\u{feff}";

/// The tables that can be exported; the first unless told otherwise.
pub const TABLES: [&str; 3] = ["training_metrics", "network_topology", "training_events"];

/// The columns of one of [`TABLES`], as the first line of a CSV file.
pub fn head(table: &str) -> &'static str {
    match table {
        "network_topology" => TopologyRow::HEADER,
        "training_events" => EventRow::HEADER,
        _ => MetricsRow::HEADER,
    }
}

/// The shape of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names")]
pub enum Format {
    Csv,
    Json,
    Ndjson,
}

impl Format {
    /// By its name; CSV when it is another.
    pub fn named(name: &str) -> Self {
        match name {
            "json" => Self::Json,
            "ndjson" => Self::Ndjson,
            _ => Self::Csv,
        }
    }

    /// The type of the body, and the end of a file's name.
    pub fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("text/csv; charset=utf-8", "csv"),
            Self::Json => ("application/json", "json"),
            Self::Ndjson => ("application/x-ndjson", "ndjson"),
        }
    }
}

/// One run of an export.
pub struct RunRange {
    /// The run.
    pub run_id: Uuid,
    /// When it began, for the gaps.
    pub start: Micros,
    /// Only rows behind this.
    pub after: Option<(Micros, i64)>,
}

/// Everything that an export needs to know.
pub struct ExportJob {
    /// Read only.
    pub store: Arc<dyn Store>,
    /// At least one, in order.
    pub ranges: Vec<RunRange>,
    /// First moment.
    pub start: Option<Micros>,
    /// Last moment.
    pub end: Option<Micros>,
    /// One of [`TABLES`].
    pub table: &'static str,
    /// Shape of the body.
    pub format: Format,
    /// Whether the trailer is a line of the body, too.
    pub trailer_line: bool,
    /// Of CSV: whether texts stay as they are even where a spreadsheet would run them.
    pub raw: bool,
    /// Of CSV: whether a byte-order mark tells a spreadsheet that this is UTF-8.
    pub bom: bool,
    /// For the rows.
    pub memory: MemoryBudget,
}

/// Rows, and the memory that they have.
struct Page<T> {
    rows: Vec<T>,
    reservation: Reservation,
}

/// Writes the body into the queue; ends early, without an error, when the client has gone.
///
/// # Errors
/// As the store fails; what was written until then has no end.
pub async fn write(job: ExportJob, chunks: mpsc::Sender<BodyChunk>) -> Result<(), StoreError> {
    match job.table {
        "network_topology" => write_rows::<TopologyRow>(&job, chunks).await,
        "training_events" => write_rows::<EventRow>(&job, chunks).await,
        _ => write_rows::<MetricsRow>(&job, chunks).await,
    }
}

async fn write_rows<T: ExportRow + Paged + 'static>(
    job: &ExportJob,
    chunks: mpsc::Sender<BodyChunk>,
) -> Result<(), StoreError> {
    // One page is made into text while the next one is read.
    let (pages, mut queue) = mpsc::channel::<Page<T>>(1);
    let reading = async {
        let read = read(job, &pages).await;
        drop(pages);
        read
    };
    let writing = async {
        let mut text = Encoder::new(job, chunks.clone());
        let head = text.write_head(T::HEADER, job);
        if !text.out.send(&head).await {
            return None;
        }
        while let Some(page) = queue.recv().await {
            text = text.encode_page(page).await?;
        }
        Some(text)
    };
    tokio::pin!(writing);
    tokio::pin!(reading);
    let text = tokio::select! {
        // Nobody listens any more: what is still being read is let go.
        text = &mut writing => text,
        read = &mut reading => { read?; writing.await }
    };
    if let Some(text) = text {
        text.finish(job, &chunks).await?;
    }
    Ok(())
}

async fn read<T: ExportRow + Paged>(job: &ExportJob, pages: &mpsc::Sender<Page<T>>) -> Result<(), StoreError> {
    let limit = if T::PAGE_ROWS < 1_000 { T::PAGE_ROWS } else { PAGE_ROWS };
    for range in &job.ranges {
        let mut query = RangeQuery {
            start: job.start,
            end: job.end,
            ascending: true,
            after: range.after,
            prefetch: Some(Prefetch::default()),
            ..RangeQuery::newest(range.run_id, limit)
        };
        loop {
            // Only once there is memory for it: two pages, however large their rows, are never three.
            let Ok(place) = pages.reserve().await else { return Ok(()) };
            // Behind large rows the next are likely to be large, too.
            let mut reservation = Reservation::reserve(&job.memory, PAGE_BYTES.max(query.largest_row)).await;
            let rows = reservation.rows::<T>(&*job.store, &query).await?;
            let complete = !query.is_filled(&rows);
            query.largest_row = rows.iter().map(T::bytes).max().unwrap_or(0);
            query.after = rows.last().map(|row| row.key().cursor()).or(query.after);
            place.send(Page { rows, reservation });
            if complete {
                break;
            }
        }
    }
    Ok(())
}

/// Writes the text, and gathers what is said about it at the end.
struct Encoder {
    format: Format,
    raw: bool,
    out: ChunkWriter<BodyChunk>,
    trailer: Trailer,
}

impl Encoder {
    fn new(job: &ExportJob, chunks: mpsc::Sender<BodyChunk>) -> Self {
        Self { format: job.format, raw: job.raw, out: ChunkWriter::new(chunks), trailer: Trailer::default() }
    }

    fn write_head(&self, columns: &str, job: &ExportJob) -> String {
        // Appended to what was exported before, a continued file has its head already.
        let continued = job.ranges[0].after.is_some();
        match self.format {
            Format::Csv if !continued => [if job.bom { BOM } else { "" }, columns].concat(),
            Format::Json => format!("{{\"table\":\"{}\",\"rows\":[", job.table),
            _ => String::new(),
        }
    }

    /// Writes these rows, on a thread that may wait for the client; they have their memory until they are gone, even where the export
    /// was given up meanwhile. `None`: the client has gone.
    async fn encode_page<T: ExportRow + Paged + 'static>(
        mut self,
        Page { rows, reservation }: Page<T>,
    ) -> Option<Self> {
        let work = move || {
            self.encode_rows(&rows);
            drop((rows, reservation));
            self
        };
        match spawn_blocking(work).await {
            Ok(text) => Some(text).filter(|text| !text.out.is_closed()),
            Err(error) => error.try_into_panic().map(|panic| std::panic::resume_unwind(panic)).ok(),
        }
    }

    fn encode_rows<T: ExportRow + Paged>(&mut self, rows: &[T]) {
        for (n, row) in rows.iter().enumerate() {
            match self.format {
                Format::Csv => row.csv(&mut self.out, self.raw),
                format => {
                    let comma = if format == Format::Json && self.trailer.rows + n as u64 > 0 { "," } else { "" };
                    let _ = self.out.write_str(comma);
                    row.json(&mut self.out);
                    let _ = self.out.write_str(if format == Format::Ndjson { "\n" } else { "" });
                }
            }
        }
        // What was read is on its way before the next page is waited for.
        self.out.flush_blocking();
        self.trailer.rows += rows.len() as u64;
        if let Some(last) = rows.last() {
            let key = last.key();
            self.trailer.cursor = Some(format!("{}.{}", key.run_id.as_simple(), render::event_cursor(key)));
        }
    }

    async fn finish(mut self, job: &ExportJob, chunks: &mpsc::Sender<BodyChunk>) -> Result<(), StoreError> {
        self.trailer.checksum = self.out.checksum();
        for range in &job.ranges {
            let filter = Filter::of_span(range.run_id, range.start, units::now());
            for gap in ledger::read(&*job.store, &filter, MAX_GAP_ROWS).await? {
                if !self.trailer.gaps.contains(&gap) {
                    self.trailer.gaps.push(gap);
                }
            }
        }
        let trailer = self.trailer.json();
        let text = match self.format {
            Format::Json => format!("],\"count\":{},\"trailer\":{trailer}}}", self.trailer.rows),
            Format::Ndjson if job.trailer_line => format!("{{\"_trailer\":{trailer}}}\n"),
            Format::Csv if job.trailer_line => format!("# {trailer}\r\n"),
            _ => String::new(),
        };
        // A client that has gone needs no trailer.
        let _ = self.out.send(&text).await && chunks.send(BodyChunk::End(Box::new(self.trailer))).await.is_ok();
        Ok(())
    }
}
