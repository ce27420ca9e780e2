//! Reads the rows of an export page by page, and hands them to the encoder.

use tokio::sync::mpsc;

use super::{
    csv::ExportRow,
    encode::{Encoder, Page},
    job::ExportJob,
    trailer::BodyChunk,
};
use crate::{
    api::{memory_budget::Reservation, paging::Paged},
    event::{EventRow, MetricsRow, TopologyRow},
    store::{Prefetch, READ_BYTES, RangeQuery, StoreError},
};

/// Rows of a page of small rows. An export holds two pages (a command one more, as received from the server) and a chunk of text.
const PAGE_ROWS: usize = 5_000;
/// Reservation of a page of small rows.
const PAGE_BYTES: usize = 2 * READ_BYTES;

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
    // One page is encoded while the next one is read.
    let (pages, mut queue) = mpsc::channel::<Page<T>>(1);
    let reading = async {
        let read = read(job, &pages).await;
        drop(pages);
        read
    };
    let writing = async {
        let mut text = Encoder::new(job, chunks.clone()).encode_head::<T>(job).await?;
        while let Some(page) = queue.recv().await {
            text = text.encode_page(page).await?;
        }
        Some(text)
    };
    tokio::pin!(writing);
    tokio::pin!(reading);
    let text = tokio::select! {
        // The client has gone: the pending read is dropped.
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
            // A place in the queue first, then the read: there are never three pages.
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
