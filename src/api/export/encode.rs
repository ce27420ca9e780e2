//! Writes rows as the text of an export.

use std::fmt::Write as _;

use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
};

use super::{
    columns::{Columns, CsvStyle, HeadId, TRAILER_CELLS_MAX},
    csv::{ExportRow, write_header},
    job::{BOM, ExportJob, Format},
    trailer::{BodyChunk, Trailer},
};
use crate::{
    api::{
        memory_budget::{ChunkWriter, Reservation},
        paging::Paged,
    },
    gap_reader::ledger::{self, Filter},
    render,
    store::StoreError,
    units,
};

/// Maximum gap rows reported of each run.
const MAX_GAP_ROWS: usize = 1_000;

/// Rows, and their reservation.
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Their reservation.
    pub reservation: Reservation,
}

/// Writes the text, and collects the trailer.
pub struct Encoder {
    format: Format,
    style: CsvStyle,
    /// Identifies the columns in cursors; absent: the fixed ones.
    head: Option<HeadId>,
    out: ChunkWriter<BodyChunk>,
    trailer: Trailer,
}

impl Encoder {
    /// An encoder that has written nothing.
    pub fn new(job: &ExportJob, chunks: mpsc::Sender<BodyChunk>) -> Self {
        let has_names = job.format == Format::Csv && matches!(job.style.columns, Columns::Names(_));
        let head = has_names.then(|| HeadId::of(&job.style.metric_cells().collect::<Vec<_>>(), TRAILER_CELLS_MAX));
        let (out, trailer) = (ChunkWriter::new(chunks), Trailer::default());
        Self { format: job.format, style: job.style.clone(), head, out, trailer }
    }

    /// Writes what comes before the rows. `None`: the client has gone.
    pub async fn encode_head<T: ExportRow>(mut self, job: &ExportJob) -> Option<Self> {
        // A continued export is appended to a file that has its head already.
        let (continued, bom, table) = (job.ranges[0].after.is_some(), job.bom, job.table);
        let work = move || {
            match self.format {
                Format::Csv if !continued => {
                    let _ = self.out.write_str(if bom { BOM } else { "" });
                    write_header(&mut self.out, &T::header(&self.style));
                }
                Format::Json => _ = write!(self.out, "{{\"table\":\"{table}\",\"rows\":["),
                _ => {}
            }
            self.out.flush_blocking();
            self
        };
        encoded(spawn_blocking(work).await)
    }

    /// Writes these rows on a thread that may block. Their reservation is held until they are dropped, even if the export is
    /// cancelled meanwhile. `None`: the client has gone.
    pub async fn encode_page<T: ExportRow + Paged + 'static>(
        mut self,
        Page { rows, reservation }: Page<T>,
    ) -> Option<Self> {
        let work = move || {
            self.encode_rows(&rows);
            drop((rows, reservation));
            self
        };
        encoded(spawn_blocking(work).await)
    }

    fn encode_rows<T: ExportRow + Paged>(&mut self, rows: &[T]) {
        for (n, row) in rows.iter().enumerate() {
            match self.format {
                Format::Csv => row.csv(&mut self.out, &self.style),
                format => {
                    let comma = if format == Format::Json && self.trailer.rows + n as u64 > 0 { "," } else { "" };
                    let _ = self.out.write_str(comma);
                    row.json(&mut self.out);
                    let _ = self.out.write_str(if format == Format::Ndjson { "\n" } else { "" });
                }
            }
        }
        // Sent before the next page is awaited.
        self.out.flush_blocking();
        self.trailer.rows += rows.len() as u64;
        if let Some(last) = rows.last() {
            let key = last.key();
            let after = format!("{}.{}", key.run_id.as_simple(), render::event_cursor(key));
            self.trailer.cursor = Some(match &self.head {
                Some(head) => format!("{after}.{head}"),
                None => after,
            });
        }
    }

    /// Writes what follows the rows, and the trailer.
    ///
    /// # Errors
    /// As the store fails while gaps are read.
    pub async fn finish(mut self, job: &ExportJob, chunks: &mpsc::Sender<BodyChunk>) -> Result<(), StoreError> {
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

/// The encoder after its work, if its client is still there.
fn encoded(done: Result<Encoder, JoinError>) -> Option<Encoder> {
    match done {
        Ok(text) => Some(text).filter(|text| !text.out.is_closed()),
        Err(error) => error.try_into_panic().map(|panic| std::panic::resume_unwind(panic)).ok(),
    }
}
