//! Streams and exports end with the right to read them: their token is taken out, their session ends, the rule changes.
//!
//! The check of the route is made again for as long as a body goes on, twice a second, before more of it is handed over. A body
//! whose reader is gone ends without its end, so that neither an export nor a compressed answer looks whole.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::HeaderMap,
    response::Response,
};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tracing::info;

use super::{
    Sight,
    access::{Caller, Scope, check},
};

/// How often.
const EVERY: Duration = Duration::from_millis(500);

/// What the check needs.
#[derive(Clone)]
pub struct Recheck {
    sight: Sight,
    headers: HeaderMap,
    caller: Caller,
}

impl Recheck {
    /// For a request that was let in.
    pub fn new(sight: &Sight, headers: &HeaderMap, caller: &Caller) -> Self {
        Self { sight: sight.clone(), headers: headers.clone(), caller: caller.clone() }
    }

    /// Its answer, as long as it may be read. What is whole already is not looked after.
    pub fn watch(self, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| Body::new(Watched { body, due: Box::pin(sleep(EVERY)), asked: None, check: self }))
    }

    async fn may_go_on(self) -> bool {
        // Known at once, however long Redis takes.
        if !self.caller.is_in_force(&self.sight.keys) {
            return false;
        }
        match check(&self.sight, Scope::Read, &self.headers).await {
            Ok(_) => true,
            // Redis is away, and the session cannot be looked up there.
            Err(refused) => refused.error.status().is_server_error(),
        }
    }
}

/// A body under watch.
struct Watched {
    body: Body,
    due: Pin<Box<Sleep>>,
    asked: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    check: Recheck,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some(asked) = &mut self.asked {
                let may_go_on = ready!(asked.as_mut().poll(context));
                self.asked = None;
                if !may_go_on {
                    self.check.sight.metrics.api_bodies_cut.inc();
                    info!(token = self.check.caller.name(), "a stream or an export is ended: its token or session was");
                    return Poll::Ready(Some(Err(axum::Error::new("the right to read this has ended"))));
                }
                self.due = Box::pin(sleep(EVERY));
            }
            if self.due.as_mut().poll(context).is_pending() {
                return Pin::new(&mut self.body).poll_frame(context);
            }
            self.asked = Some(Box::pin(self.check.clone().may_go_on()));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
