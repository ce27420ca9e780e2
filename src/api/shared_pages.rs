//! Pages that requests share: `/metrics` and `/readyz`, which are requested often, and without a token.

use std::sync::{Mutex, PoisonError};

use axum::{Extension, body::Bytes, http::StatusCode};
use tokio::time::Instant;

/// When the head of a request had been received; an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Arrived(pub Instant);

/// Requests that arrived before a page was begun share it: many at once cost little more than one, and no request gets a page older
/// than itself.
#[derive(Debug, Default)]
pub struct SharedPages {
    /// `/metrics`.
    pub metrics: Shared<Bytes>,
    /// `/readyz`.
    pub ready: Shared<(StatusCode, String)>,
}

#[derive(Debug)]
pub struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// The last page if it was begun after the request arrived, else a new one.
    pub fn since(&self, arrived: Option<Extension<Arrived>>, make: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let arrived = arrived.map_or(now, |Extension(Arrived(at))| at);
        match &*last {
            Some((begun, value)) if *begun > arrived => value.clone(),
            _ => last.insert((now, make())).1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_is_shared_by_requests_that_arrived_before_it() {
        let (shared, mut made) = (Shared::default(), 0);
        let mut since = |at: Option<Instant>| {
            let arrived = at.map(|at| Extension(Arrived(at)));
            shared.since(arrived, || {
                made += 1;
                made
            })
        };
        let first = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([since(Some(first)), since(Some(first))], [1, 1], "both came before it");
        let second = Instant::now();
        assert_eq!(since(Some(second)), 2, "as it came");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(since(Some(second)), 3);
        assert_eq!([since(Some(first)), since(Some(second)), since(None)], [3, 3, 4]);
    }
}
