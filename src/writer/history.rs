//! Part of the history of a run, read from its stored rows of metrics and events, for updates that the run row alone cannot decide.
//!
//! Bounded: the newest metrics down to the requested time, and the newest events. Older rows are treated as unknown.

use tracing::warn;
use uuid::Uuid;

use super::summary::{History, HistoryRequest};
use crate::{
    event::{EventRow, MetricsRow, Resolved, RunRow, RunUpdate},
    logging::Chain,
    store::{RangeQuery, Store, StoreError},
    units::Micros,
    wire,
};

/// Rows of each kind, and bytes.
const HISTORY_ROWS: usize = 256;
const HISTORY_BYTES: usize = 256 << 10;

/// Reads what is wanted.
///
/// # Errors
/// The error of the store, unless the read is rejected for ever: then the history counts as empty.
pub async fn read(store: &dyn Store, run_id: Uuid, request: HistoryRequest) -> Result<History, StoreError> {
    match read_rows(store, run_id, request).await {
        Err(StoreError::Rejected(error)) => {
            warn!(run_id = %run_id, error = %Chain(&*error), "store refuses to read the history of a run; its row counts as it is");
            Ok(History::none())
        }
        result => result,
    }
}

async fn read_rows(store: &dyn Store, run_id: Uuid, request: HistoryRequest) -> Result<History, StoreError> {
    let newest = RangeQuery { bytes: HISTORY_BYTES, ..RangeQuery::newest(run_id, HISTORY_ROWS) };
    let events = store.events(&newest).await?;
    let oldest = events.last().map(|row| row.key.timestamp).filter(|_| newest.is_filled(&events));
    let mut updates: Vec<RunUpdate> = events.iter().filter_map(update_of_event).collect();
    if let (Some(end), Some(oldest)) = (request.end, oldest)
        && end < oldest
    {
        // Stored times may have lost their microseconds.
        let at = RangeQuery { start: Some(end), end: Some(end.saturating_add(999)), ..newest.clone() };
        updates.extend(store.events(&at).await?.iter().filter_map(update_of_event));
    }
    let since = RangeQuery { start: Some(request.from), ..newest };
    let metrics = store.metrics(&since).await?;
    let metrics_from = metrics.last().map(|row| row.key.timestamp).filter(|_| since.is_filled(&metrics));
    updates.extend(metrics.iter().map(update_of_metrics));
    Ok(History {
        updates,
        metrics_from: metrics_from.unwrap_or(request.from),
        events_from: oldest.unwrap_or(Micros::MIN),
    })
}

fn update_of_metrics(row: &MetricsRow) -> RunUpdate {
    let total_hidden_units = row.columns.hidden_units;
    let mut values = Box::new(RunRow { total_hidden_units, ..RunRow::default() });
    wire::set_finals(&mut values, &row.columns);
    RunUpdate { event_time: row.key.timestamp, lifecycle: None, values }
}

/// An event holds its message whole, so that it is read as it was; `None`: it is no message, which a person wrote.
fn update_of_event(row: &EventRow) -> Option<RunUpdate> {
    let decided = Resolved {
        run_id: row.key.run_id,
        event_time: row.key.timestamp,
        received_at: row.key.timestamp,
        has_event_time: true,
        opened_run: false,
    };
    let message = wire::decode_accepted(row.payload_json.as_bytes()).ok()?;
    Some(wire::rows(&message, &decided, "", b"").run_update)
}
