//! Data missing from a run: sequence gaps, and gap rows.

use axum::extract::{Path, State};
use serde_json::json;

use crate::{
    api::{
        error::{ApiResult, json as json_answer},
        memory_budget::Reservation,
        params::Params,
        run_lookup,
        state::ApiState,
    },
    gap_reader::{
        ledger::{self, Filter},
        missing::{SeqGap, missing},
    },
    render::{self, JsonRows},
};

/// Maximum sequence gaps and gap rows reported.
const MAX_GAPS: usize = 1_000;

/// `GET /api/runs/{run_id}/gaps`
pub async fn gaps(State(state): State<ApiState>, Path(run_id): Path<String>, params: Params) -> ApiResult {
    params.allow_only(&[], &[])?;
    let run = run_lookup::find(&state, &run_id).await?;
    let reservation = Reservation::reserve_page(&state.memory).await;
    let missing = missing(&*state.store, run.run_id).await?;
    drop(reservation);
    let gaps = ledger::read(&*state.store, &Filter::of_run(&run), MAX_GAPS).await?;
    let seq_gap = |seq_gap: &SeqGap| {
        json!({
            "from": seq_gap.first, "to": seq_gap.last, "count": seq_gap.last.abs_diff(seq_gap.first) + 1,
            "after": render::time(seq_gap.after), "before": render::time(seq_gap.before),
        })
    };
    json_answer(&json!({
        "run_id": run.run_id,
        "first_seq": missing.range.map(|range| range.0),
        "last_seq": missing.range.map(|range| range.1),
        "missing": missing.gaps.iter().take(MAX_GAPS).map(seq_gap).collect::<Vec<_>>(),
        "missing_count": missing.lost,
        "truncated": !missing.exact || missing.gaps.len() > MAX_GAPS,
        "gaps": JsonRows(&gaps),
        "count": gaps.len(),
    }))
}
