//! Metrics of a run, as they are stored, page by page.

use axum::extract::State;
use serde::Serialize;

use super::{
    Sight,
    error::Answer,
    json,
    params::Params,
    rows::{self, RANGE},
};
use crate::{event::MetricsRow, render::JsonRows};

#[derive(Serialize)]
struct Exact<'a> {
    metrics: JsonRows<'a, MetricsRow>,
    count: usize,
    next: Option<String>,
    exact: bool,
}

/// `GET /api/metrics/range`
pub async fn range(State(sight): State<Sight>, params: Params) -> Answer {
    let names: Vec<_> = RANGE.into_iter().chain(["run_id"]).collect();
    let params = params.known(&names, &[])?;
    let query = rows::range(&params, params.run_id()?, 1_000, sight.config.page_rows)?;
    let (rows, next) = rows::page::<MetricsRow>(&*sight.store, query).await?;
    json(&Exact { metrics: JsonRows(&rows), count: rows.len(), next, exact: true })
}
