//! The audit of access decisions: counted in metrics, and logged with the name of the token, never the token.
//!
//! A client decides how often it is refused, so refusals are logged at a bounded rate; the counters count all of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::client_address::ClientAddress;
use crate::{metrics::Metrics, words::words};

/// Refusals of one kind that are logged within [`LOG_WINDOW`].
const MAX_LOGGED: u32 = 20;
/// See [`MAX_LOGGED`].
const LOG_WINDOW: Duration = Duration::from_secs(10);

words! {
    /// Why a request was refused.
    pub enum Refusal(name) {
        /// Its token is unknown.
        WrongToken "wrong_token",
        /// Too many unknown tokens came from its address.
        Throttled "throttled",
        /// The scope of its token is too small.
        Scope "scope",
        /// It needs a token and has none, or its session has ended.
        Anonymous "anonymous",
        /// It comes from a page of another site, or its `Host` is not this server.
        Origin "origin",
    }
}

/// Log lines written for refusals in the current window.
#[derive(Debug)]
struct LogBudget {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Audit {
    metrics: Arc<Metrics>,
    /// One each for refusals without a known token, with one, and throttled: wrong tokens must hide neither refusals of known
    /// tokens nor the throttling.
    log_budgets: [Mutex<Option<LogBudget>>; 3],
}

/// Takes a log line from the budget: `None` if it is used up, else the number of lines left out in the window before.
fn take_log_line(budget: &Mutex<Option<LogBudget>>) -> Option<u64> {
    let now = Instant::now();
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    let budget = budget.get_or_insert(LogBudget { since: now, written: 0, left_out: 0 });
    let mut left_out = 0;
    if now.duration_since(budget.since) >= LOG_WINDOW {
        left_out = budget.left_out;
        *budget = LogBudget { since: now, written: 0, left_out: 0 };
    }
    if budget.written == MAX_LOGGED {
        budget.left_out += 1;
        return None;
    }
    budget.written += 1;
    Some(left_out)
}

impl Audit {
    /// An audit that counts in these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.api_refusals.show(Refusal::ALL.map(Refusal::name));
        metrics.api_sessions.show(["begun", "signed_out"]);
        Self { metrics, log_budgets: Default::default() }
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Records a refusal; `name` is that of the request's token.
    pub fn refused(&self, why: Refusal, name: Option<&str>, client: Option<ClientAddress>) {
        self.metrics.api_refusals.of(why.name()).inc();
        // Requests without credentials are counted, not logged.
        if why == Refusal::Anonymous {
            return;
        }
        let kind = if why == Refusal::Throttled { 2 } else { usize::from(name.is_some()) };
        let Some(left_out) = take_log_line(&self.log_budgets[kind]) else { return };
        warn!(why = why.name(), token = name, client = client.map(tracing::field::display), "a request was refused");
        if left_out > 0 {
            warn!(left_out, "more requests were refused, and are only counted");
        }
    }

    /// Records a sign-in.
    pub fn signed_in(&self, name: &str, client: Option<ClientAddress>) {
        self.metrics.api_sessions.of("begun").inc();
        info!(token = name, client = client.map(tracing::field::display), "signed in");
    }

    /// Records a sign-out.
    pub fn signed_out(&self, name: &str) {
        self.metrics.api_sessions.of("signed_out").inc();
        info!(token = name, "signed out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_all_counted_and_logged_at_a_bounded_rate() {
        let audit = Audit::new(Metrics::new());
        let written = |times| (0..times).filter(|_| take_log_line(&audit.log_budgets[0]).is_some()).count();
        assert_eq!(written(1_000), MAX_LOGGED as usize);
        tokio::time::advance(LOG_WINDOW).await;
        assert_eq!(take_log_line(&audit.log_budgets[0]), Some(1_000 - u64::from(MAX_LOGGED)));
        assert_eq!(take_log_line(&audit.log_budgets[0]), Some(0));
        (0..30).for_each(|_| audit.refused(Refusal::Throttled, None, None));
        let left_out = audit.log_budgets[2].lock().unwrap().as_ref().map(|budget| (budget.written, budget.left_out));
        assert_eq!(left_out, Some((MAX_LOGGED, 10)), "whatever else was refused");
        let page = audit.metrics.page();
        assert!(page.contains("cascor_api_refusals_total{reason=\"throttled\"} 30"), "{page}");
        assert!(page.contains("cascor_api_refusals_total{reason=\"scope\"} 0"), "{page}");
    }
}
