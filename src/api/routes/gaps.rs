//! Recorded gaps, and the data missing from a run.

use axum::extract::{Path, State};
use serde_json::json;

use crate::{
    api::{
        error::{ApiError, ApiResult, json as json_answer},
        memory_budget::Reservation,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    gap_reader::{
        ledger::{self, Filter},
        missing::{SeqGap, missing},
    },
    gaps::GapReason,
    render::{self, JsonRows},
};

/// Sequence gaps and gap rows reported unless `limit` says otherwise.
const DEFAULT_GAPS: usize = 1_000;
const PARAMETERS: [&str; 5] = ["reason", "instance", "start_time", "end_time", "limit"];

/// `GET /api/gaps`
pub async fn all(State(state): State<ApiState>, params: Params) -> ApiResult {
    let params = params.allow_only(&PARAMETERS, &[])?;
    let (filter, limit) = (filter(Filter::default(), &params)?, limit(&params, &state)?);
    let _read_permit = state.memory.read_permit().await;
    let gaps = ledger::read(&*state.store, &filter, limit).await?;
    json_answer(&json!({ "gaps": JsonRows(&gaps), "count": gaps.len() }))
}

/// `GET /api/runs/{run_id}/gaps`: all rows of the run are read for it.
pub async fn gaps(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    let params = params.allow_only(&PARAMETERS, &[])?;
    let limit = limit(&params, &state)?;
    let run = run_lookup::find(&state, &run_id).await?;
    let filter = filter(Filter::of_run(&run), &params)?;
    let read = async {
        let _reservation = Reservation::reserve_page(&state.memory).await;
        missing(&*state.store, run.run_id).await
    };
    let answer = state.missing_messages.get(run.run_id, read).await?;
    let missing = &*answer.value;
    let gaps = ledger::read(&*state.store, &filter, limit).await?;
    let seq_gap = |seq_gap: &SeqGap| {
        json!({
            "from": seq_gap.first, "to": seq_gap.last, "count": seq_gap.last.abs_diff(seq_gap.first) + 1,
            "after": render::time(seq_gap.after), "before": render::time(seq_gap.before),
        })
    };
    let mut shown = json!({
        "run_id": run.run_id,
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "stored": missing.stored,
        "missing": missing.gaps.iter().take(limit).map(seq_gap).collect::<Vec<_>>(),
        "missing_count": missing.lost,
        "missing_ranges": missing.gaps.len(),
        "exact": missing.exact,
        "truncated": !missing.exact || missing.gaps.len() > limit,
        "gaps": JsonRows(&gaps),
        "count": gaps.len(),
    });
    if let Some(as_of) = answer.as_of {
        shown["as_of"] = json!(render::time(as_of));
    }
    json_answer(&shown)
}

fn limit(params: &Params, state: &ApiState) -> Result<usize, ApiError> {
    params.number("limit", DEFAULT_GAPS, 1, state.config.page_rows)
}

/// The filter with what the parameters add.
fn filter(base: Filter, params: &Params) -> Result<Filter, ApiError> {
    let known = GapReason::ALL.map(GapReason::as_str);
    let reason = params.text("reason").map(|_| params.word("reason", &known)).transpose()?;
    Ok(Filter {
        reason: reason.and_then(|name| name.parse().ok()),
        instance: params.text("instance").map(str::to_owned),
        since: params.time("start_time")?,
        until: params.time("end_time")?,
        ..base
    })
}
