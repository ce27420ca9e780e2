//! Requests of lists of runs: what each waits for, and for how long.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{OrderState, by_order, by_reading_all, newest_first, orders};
use crate::store::{
    StoreError,
    run_list::{Runs, RunsQuery, RunsSort, SortBy},
    sqlite::{
        SqliteStore,
        error::{self, TransientError},
    },
};

/// Orders that may be outdated by the time they are computed, before all runs are read for one page.
const ATTEMPTS_MAX: usize = 3;

impl SqliteStore {
    /// One page of a list.
    pub(in crate::store::sqlite) async fn list_runs(&self, query: &RunsQuery) -> Result<Runs, StoreError> {
        let Some(sort) = query.sort.clone() else {
            let query = OpenQuery::new(query);
            return self.query("runs", move |connection| newest_first(connection, &query.begin())).await;
        };
        for _ in 0..ATTEMPTS_MAX {
            match self.order(&sort.by, query).await? {
                OrderState::Sorting(read) => return Ok(still_sorting(query, orders::progress(&read))),
                OrderState::TooMany => break,
                OrderState::Failed(error) => return Err(error::duplicate(&error)),
                OrderState::Sorted(order) => {
                    let (query, by, remembered) = (OpenQuery::new(query), sort.clone(), Arc::clone(&order));
                    let read = move |open: &_| by_order(open, &query.begin(), &by, &remembered);
                    if let Some(page) = self.query_file("runs", read).await? {
                        if order.needs_refresh() {
                            self.orders.refresh(&sort.by, |work| self.spawn_reader("sqlite-sort", work));
                        }
                        return Ok(page);
                    }
                    self.orders.forget(&order);
                }
            }
        }
        self.read_all(query, sort).await
    }

    /// What is known of an order by the deadline.
    async fn order(&self, by: &SortBy, query: &RunsQuery) -> Result<OrderState, StoreError> {
        let mut state = self.orders.get(by, query.stale_after, |work| self.spawn_reader("sqlite-sort", work));
        let is_settled = |state: &OrderState| !matches!(state, OrderState::Sorting(_));
        let settled = match query.deadline {
            Some(deadline) => timeout_at(deadline, state.wait_for(is_settled)).await.ok().map(|found| found.map(drop)),
            None => Some(state.wait_for(is_settled).await.map(drop)),
        };
        if let Some(Err(_)) = settled {
            return Err(error::unavailable(TransientError::NotSorted));
        }
        Ok(state.borrow().clone())
    }

    async fn read_all(&self, query: &RunsQuery, sort: RunsSort) -> Result<Runs, StoreError> {
        let query = query.clone();
        self.query("runs", move |connection| by_reading_all(connection, &query, &sort)).await
    }
}

/// A query whose time begins when a thread reads it.
struct OpenQuery {
    query: RunsQuery,
    budget: Option<Duration>,
}

impl OpenQuery {
    fn new(query: &RunsQuery) -> Self {
        let budget = query.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Self { query: query.clone(), budget }
    }

    fn begin(self) -> RunsQuery {
        RunsQuery { deadline: self.budget.map(|budget| Instant::now() + budget), ..self.query }
    }
}

/// The answer while there is no order: the list goes on where it was asked to.
fn still_sorting(query: &RunsQuery, read: usize) -> Runs {
    Runs { next: Some(query.from.clone()), sorted: read, is_sorting: true, ..Runs::default() }
}
