//! Exports: the rows of whole runs, exact and in order, sent while they are read, with one page in memory and the next being
//! fetched.
//!
//! A trailer lets the receiver check the body: the number of rows, their checksum (XXH3-64 of the body up to there), gaps while the
//! run was recorded, and a cursor from which a later export continues. It is in the trailer section of the answer (for clients that
//! send `TE: trailers`), for JSON in the object itself, and with `trailer=line` in a last line. When the client goes away, reading
//! stops.

mod body;
mod columns;
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

use self::{
    body::ExportBody,
    columns::{Columns, CsvStyle},
    job::{ExportJob, Format, RunRange, TABLES},
    trailer::Trailer,
};
pub use self::{
    columns::{HeadId, is_formula},
    job::{BOM, fixed_head, metric_columns},
};
use super::{
    error::{ApiError, ApiResult},
    fields,
    memory_budget::HoldsMemory,
    params::Params,
    run_lookup,
    state::ApiState,
};
use crate::{memory::LARGE_VALUE, render, units::Micros};

/// `GET /api/export`
pub async fn export(State(state): State<ApiState>, params: Params) -> ApiResult {
    let names = ["format", "table", "start_time", "end_time", "cursor", "trailer", "raw", "bom", "columns"];
    let params = params.allow_only(&names, &["run_id"])?;
    let format = Format::named(params.word("format", &["csv", "json", "ndjson"])?);
    let table = params.word("table", &TABLES)?;
    let trailer_line = params.word("trailer", &["header", "line"])? == "line";
    let [raw, bom] = ["raw", "bom"].map(|name| csv_only(&params, name, format));
    let (raw, bom) = (raw?, bom?);
    let mut ranges = Vec::new();
    for run_id in run_lookup::resolve_runs(&state, &params, 1).await? {
        let run = run_lookup::small_row(&state, run_id).await?;
        ranges.push(RunRange { run_id: run.run_id, start: run.start_time.unwrap_or(0), after: None });
    }
    let cursor = params.cursor("cursor", |text| Cursor::parse(text, &ranges))?;
    let form = form(&params, format, cursor.as_ref())?;
    let (columns, names) = match form {
        Form::Named(head) if table == TABLES[0] && format == Format::Csv => {
            let runs: Vec<_> = ranges.iter().map(|range| range.run_id).collect();
            let (names, reservation) = fields::metric_names(&state, &runs).await?;
            let columns = match head {
                Some(head) => head.select(names, raw).ok_or_else(other_columns)?,
                None => Columns::Names(names.into_iter().collect()),
            };
            (columns, Some(reservation))
        }
        _ => (Columns::Fixed, None),
    };
    // A cursor names its run; the runs before it are complete.
    if let Some(cursor) = cursor {
        ranges.drain(..cursor.range);
        ranges[0].after = Some(cursor.after);
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
        style: CsvStyle { raw, columns },
        bom,
        memory: state.memory.clone(),
        _names: names,
    };
    Ok(answer(job, permit))
}

/// Where an export continues.
struct Cursor {
    /// Index of the run.
    range: usize,
    /// The last row before.
    after: (Micros, i64),
    /// The columns of the file.
    head: Option<HeadId>,
}

impl Cursor {
    /// `RUN.TIMESTAMP.EVENT_ID`, and the columns unless they are the fixed ones.
    fn parse(text: &str, ranges: &[RunRange]) -> Option<Self> {
        let (run_id, key) = text.split_once('.')?;
        let range = ranges.iter().position(|range| range.run_id.as_simple().to_string() == run_id)?;
        let (key, head) = match key.match_indices('.').nth(1) {
            Some((at, _)) => (&key[..at], Some(HeadId::parse(&key[at + 1..])?)),
            None => (key, None),
        };
        Some(Self { range, after: render::parse_event_cursor(key)?, head })
    }
}

/// The form of CSV.
enum Form {
    /// The fixed columns.
    Fixed,
    /// A column for each metric; of a continued file those that it has.
    Named(Option<HeadId>),
}

/// The form that a request asks for. A cursor without columns continues a file with the fixed ones, as all files had once.
fn form(params: &Params, format: Format, cursor: Option<&Cursor>) -> Result<Form, ApiError> {
    let columns = params.text("columns").map(|_| params.word("columns", &["names", "fixed"])).transpose()?;
    if columns.is_some() && format != Format::Csv {
        return Err(ApiError::bad_request("`columns` needs `format=csv`"));
    }
    let (is_fixed, head) = match cursor {
        Some(cursor) => (cursor.head.is_none(), cursor.head.clone()),
        None => (columns == Some("fixed"), None),
    };
    let found = if is_fixed { "fixed" } else { "names" };
    match columns {
        Some(columns) if columns != found => {
            Err(ApiError::bad_request(format!("`cursor` continues a file with `columns={found}`: leave out `columns`")))
        }
        _ if is_fixed => Ok(Form::Fixed),
        _ => Ok(Form::Named(head)),
    }
}

fn other_columns() -> ApiError {
    ApiError::bad_request(
        "the file that `cursor` continues has columns that cannot be found among the metrics of these runs now: export from the \
         beginning",
    )
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
