//! Reads the rows of an export page by page, and writes them as text.

use std::{fmt::Write as _, mem, sync::Arc};

use tokio::sync::mpsc;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::{
    body::{Piece, Trailer},
    csv::Line,
};
use crate::{
    api::{
        room::{Memory, Room, SLICE},
        rows::Paged,
    },
    event::{EventRow, MetricsRow, TopologyRow},
    gaps::ledger::{self, Filter},
    render,
    store::{Ahead, READ_BYTES, RangeQuery, Store, StoreError},
    units::{self, Micros},
};

/// Rows of a page that are small. Two pages (a command has one more, as the server sends it) and the text that a client has not
/// taken yet are all the memory of an export.
const STEP: usize = 5_000;
/// What a page takes unless its rows are large.
const PAGE: usize = 2 * READ_BYTES;
/// Gap rows told of each run, at most.
const GAPS: usize = 1_000;

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
pub struct Part {
    /// The run.
    pub run_id: Uuid,
    /// When it began, for the gaps.
    pub start: Micros,
    /// Only rows behind this.
    pub after: Option<(Micros, i64)>,
}

/// Everything that an export needs to know.
pub struct Job {
    /// Read only.
    pub store: Arc<dyn Store>,
    /// At least one, in order.
    pub parts: Vec<Part>,
    /// First moment.
    pub start: Option<Micros>,
    /// Last moment.
    pub end: Option<Micros>,
    /// One of [`TABLES`].
    pub table: &'static str,
    /// Shape of the body.
    pub format: Format,
    /// Whether the trailer is a line of the body, too.
    pub line: bool,
    /// Of CSV: whether texts stay as they are even where a spreadsheet would run them.
    pub raw: bool,
    /// Of CSV: whether a byte-order mark tells a spreadsheet that this is UTF-8.
    pub bom: bool,
    /// For the rows, and their text.
    pub memory: Memory,
}

/// Rows, and the room that they and their text have.
struct Page<T> {
    rows: Vec<T>,
    room: Room,
}

/// Writes the body into the queue; ends early, without an error, when nobody takes it any more.
///
/// # Errors
/// As the store fails; what was written until then has no end.
pub async fn write(job: Job, pieces: mpsc::Sender<Piece>) -> Result<(), StoreError> {
    match job.table {
        "network_topology" => write_rows::<TopologyRow>(&job, pieces).await,
        "training_events" => write_rows::<EventRow>(&job, pieces).await,
        _ => write_rows::<MetricsRow>(&job, pieces).await,
    }
}

async fn write_rows<T: Line + Paged + 'static>(job: &Job, pieces: mpsc::Sender<Piece>) -> Result<(), StoreError> {
    // One page is made into text while the next one is read.
    let (pages, mut queue) = mpsc::channel::<Page<T>>(1);
    let reading = async {
        let read = read(job, &pages).await;
        drop(pages);
        read
    };
    let writing = async {
        let mut text = Text::new(job);
        text.head(T::HEADER, job);
        while let Some(page) = queue.recv().await {
            let room;
            (text, room) = text.with(page).await?;
            if !text.send(&pieces, Some(room)).await {
                return None;
            }
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
        text.end(job, &pieces).await?;
    }
    Ok(())
}

async fn read<T: Line + Paged>(job: &Job, pages: &mpsc::Sender<Page<T>>) -> Result<(), StoreError> {
    let limit = if T::STEP < 1_000 { T::STEP } else { STEP };
    for part in &job.parts {
        let mut query = RangeQuery {
            start: job.start,
            end: job.end,
            ascending: true,
            after: part.after,
            ahead: Some(Ahead::default()),
            ..RangeQuery::newest(part.run_id, limit)
        };
        loop {
            // Only once there is room for it: two pages, however large their rows, are never three.
            let Ok(place) = pages.reserve().await else { return Ok(()) };
            // Behind large rows the next are likely to be large, too.
            let mut room = Room::for_bytes(&job.memory, 2 * PAGE.max(query.largest)).await;
            let rows = room.rows::<T>(&*job.store, &query).await?;
            let complete = !query.is_filled(&rows);
            query.largest = rows.iter().map(T::bytes).max().unwrap_or(0);
            query.after = rows.last().map(|row| row.key().place()).or(query.after);
            place.send(Page { rows, room });
            if complete {
                break;
            }
        }
    }
    Ok(())
}

/// The text so far, and what is said about it at the end.
struct Text {
    format: Format,
    raw: bool,
    out: String,
    hash: Xxh3,
    trailer: Trailer,
}

impl Text {
    fn new(job: &Job) -> Self {
        let (format, raw) = (job.format, job.raw);
        Self { format, raw, out: String::new(), hash: Xxh3::new(), trailer: Trailer::default() }
    }

    fn head(&mut self, columns: &str, job: &Job) {
        // Appended to what was exported before, a continued file has its head already.
        let continued = job.parts[0].after.is_some();
        match self.format {
            Format::Csv if !continued => {
                self.out.push_str(if job.bom { BOM } else { "" });
                self.out.push_str(columns);
            }
            Format::Json => {
                let _ = write!(self.out, "{{\"table\":\"{}\",\"rows\":[", job.table);
            }
            _ => {}
        }
    }

    /// With these rows, too. A page takes milliseconds, in which its thread could not ask the store for the next one: so it is
    /// made on another. The room goes with them: they are there until that is done, even where nobody waits for it any more.
    /// `None`: everything ends.
    async fn with<T: Line + Paged + 'static>(mut self, Page { rows, room }: Page<T>) -> Option<(Self, Room)> {
        let work = move || {
            self.rows(&rows);
            drop(rows);
            (self, room)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(made) => Some(made),
            Err(error) => error.try_into_panic().map(|panic| std::panic::resume_unwind(panic)).ok(),
        }
    }

    fn rows<T: Line + Paged>(&mut self, rows: &[T]) {
        match self.format {
            Format::Csv => rows.iter().for_each(|row| row.csv(&mut self.out, self.raw)),
            format => {
                let mut bytes = mem::take(&mut self.out).into_bytes();
                for (n, row) in rows.iter().enumerate() {
                    if format == Format::Json && self.trailer.rows + n as u64 > 0 {
                        bytes.push(b',');
                    }
                    row.json(&mut bytes);
                    if format == Format::Ndjson {
                        bytes.push(b'\n');
                    }
                }
                self.out = String::from_utf8(bytes).unwrap_or_default();
            }
        }
        self.trailer.rows += rows.len() as u64;
        if let Some(last) = rows.last() {
            let key = last.key();
            self.trailer.cursor = Some(format!("{}.{}", key.run_id.as_simple(), render::event_cursor(key)));
        }
    }

    /// Hands over what there is, in slices; it has its room until the last of them is taken. Whether anybody takes it.
    async fn send(&mut self, pieces: &mpsc::Sender<Piece>, room: Option<Room>) -> bool {
        let text = mem::take(&mut self.out).into_bytes();
        self.hash.update(&text);
        let mut rest = match room {
            Some(room) => room.hold(text),
            None => text.into(),
        };
        while !rest.is_empty() {
            let slice = rest.split_to(rest.len().min(SLICE));
            if pieces.send(Piece::Bytes(slice)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn end(mut self, job: &Job, pieces: &mpsc::Sender<Piece>) -> Result<(), StoreError> {
        if !self.send(pieces, None).await {
            return Ok(());
        }
        self.trailer.checksum = self.hash.digest();
        for part in &job.parts {
            let filter = Filter::of_span(part.run_id, part.start, units::now());
            for gap in ledger::read(&*job.store, &filter, GAPS).await? {
                if !self.trailer.gaps.contains(&gap) {
                    self.trailer.gaps.push(gap);
                }
            }
        }
        let trailer = self.trailer.json();
        match self.format {
            Format::Json => {
                let _ = write!(self.out, "],\"count\":{},\"trailer\":{trailer}}}", self.trailer.rows);
            }
            Format::Ndjson if job.line => {
                let _ = writeln!(self.out, "{{\"_trailer\":{trailer}}}");
            }
            Format::Csv if job.line => {
                let _ = write!(self.out, "# {trailer}\r\n");
            }
            _ => {}
        }
        // Whoever has gone meanwhile needs no trailer.
        let _ = self.send(pieces, None).await && pieces.send(Piece::End(Box::new(self.trailer))).await.is_ok();
        Ok(())
    }
}
