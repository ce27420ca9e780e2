//! Exports: the rows of whole runs, exact and in order, sent while they are read, with one page in memory and the next being
//! fetched.
//!
//! A trailer lets the receiver check the body: the number of rows, their checksum (XXH3-64 of the body up to there), gaps while the
//! run was recorded, and a cursor from which a later export continues. It is in the trailer section of the answer (for clients that
//! send `TE: trailers`), for JSON in the object itself, and with `trailer=line` in a last line. When the client goes away, reading
//! stops.

mod body;
mod csv;
mod encode;
mod job;
mod trailer;
mod write;

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::OwnedSemaphorePermit;

pub use self::job::{BOM, head};
use self::{
    body::ExportBody,
    job::{ExportJob, Format, RunRange, TABLES},
    trailer::Trailer,
};
use super::{
    error::{ApiError, ApiResult},
    memory_budget::HoldsMemory,
    params::Params,
    run_lookup,
    state::ApiState,
};
use crate::{memory::LARGE_VALUE, render};

/// `GET /api/export`
pub async fn export(State(state): State<ApiState>, params: Params) -> ApiResult {
    let names = ["format", "table", "start_time", "end_time", "cursor", "trailer", "raw", "bom"];
    let params = params.allow_only(&names, &["run_id"])?;
    let format = Format::named(params.word("format", &["csv", "json", "ndjson"])?);
    let table = params.word("table", &TABLES)?;
    let trailer_line = params.word("trailer", &["header", "line"])? == "line";
    let [raw, bom] = ["raw", "bom"].map(|name| csv_only(&params, name, format));
    let (raw, bom) = (raw?, bom?);
    let ids = params.runs("run_id");
    if ids.is_empty() || ids.len() > state.config.max_runs {
        return Err(ApiError::bad_request(format!("give `run_id` 1 to {} times", state.config.max_runs)));
    }
    let mut ranges = Vec::new();
    for id in ids {
        let run = run_lookup::find(&state, id).await?;
        ranges.push(RunRange { run_id: run.run_id, start: run.start_time.unwrap_or(0), after: None });
    }
    // A cursor names its run; the runs before it are complete.
    let read = |text: &str| {
        let (run_id, key) = text.split_once('.')?;
        let at = ranges.iter().position(|range| range.run_id.as_simple().to_string() == run_id)?;
        Some((at, render::parse_event_cursor(key)?))
    };
    if let Some((at, key)) = params.cursor("cursor", read)? {
        ranges.drain(..at);
        ranges[0].after = Some(key);
    }
    let permit = acquire_slot(&state)?;
    let job = ExportJob {
        store: Arc::clone(&state.store),
        ranges,
        start: params.time("start_time")?,
        end: params.time("end_time")?,
        table,
        format,
        trailer_line,
        raw,
        bom,
        memory: state.memory.clone(),
    };
    Ok(answer(job, permit))
}

/// A boolean that only CSV has.
fn csv_only(params: &Params, name: &str, format: Format) -> Result<bool, ApiError> {
    let yes = params.word(name, &["false", "true"])? == "true";
    if yes && format != Format::Csv {
        return Err(ApiError::bad_request(format!("`{name}` needs `format=csv`")));
    }
    Ok(yes)
}

fn acquire_slot(state: &ApiState) -> Result<OwnedSemaphorePermit, ApiError> {
    let busy = || {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{} exports are running (`http.exports`); try again", state.config.exports),
        )
    };
    if state.exports.available_permits() <= state.reserved.exports {
        return Err(busy());
    }
    Arc::clone(&state.exports).try_acquire_owned().map_err(|_| busy())
}

fn answer(job: ExportJob, permit: OwnedSemaphorePermit) -> Response {
    let (kind, extension) = job.format.kind();
    let name = match &job.ranges[..] {
        [one] => format!("attachment; filename=\"{}-{}.{extension}\"", job.table, one.run_id),
        _ => format!("attachment; filename=\"{}.{extension}\"", job.table),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::TRAILER, HeaderValue::from_static(Trailer::NAMES)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    let has_large_rows = job.memory.process().max_row() >= LARGE_VALUE;
    let mut response = (headers, axum::body::Body::new(ExportBody::new(job, permit))).into_response();
    if has_large_rows {
        response.extensions_mut().insert(HoldsMemory);
    }
    response
}
