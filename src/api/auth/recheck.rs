//! Ends streams and exports whose caller may no longer read: its token was removed, its session ended, or the rule changed.
//!
//! While such an answer is sent, the task of its connection repeats the check of the route twice a second, so that the check does
//! not depend on how fast the client reads. The connection is then closed without the end of the body, so that neither an export
//! nor a compressed answer looks complete.

use std::{future::pending, pin::pin, time::Duration};

use axum::{http::HeaderMap, response::Response};
use hyper::body::Body as _;
use tokio::{sync::watch, time::sleep};
use tracing::info;

use super::{authenticator::Authenticator, caller::Caller, scope::Scope};

/// How often the right to read is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The repeated check of an answer; an extension of the answer.
#[derive(Clone)]
pub struct Recheck {
    authenticator: Authenticator,
    headers: HeaderMap,
    caller: Caller,
}

impl Recheck {
    /// Of an admitted request.
    pub fn new(authenticator: Authenticator, headers: HeaderMap, caller: Caller) -> Self {
        Self { authenticator, headers, caller }
    }

    /// Attaches the check to the answer, unless its body is complete already.
    pub fn attach(self, mut response: Response) -> Response {
        if response.body().size_hint().exact().is_none() {
            response.extensions_mut().insert(self);
        }
        response
    }

    /// Returns when the caller may no longer read.
    async fn revoked(&self) {
        loop {
            sleep(RECHECK_INTERVAL).await;
            if !self.is_still_allowed().await {
                self.authenticator.token_store.audit().metrics().api_bodies_cut.inc();
                info!(token = self.caller.name(), "a stream or an export is closed: its token or session has ended");
                return;
            }
        }
    }

    /// Whether the caller's token and session are in force, as far as is known without asking Redis.
    fn is_in_force(&self) -> bool {
        self.caller.is_in_force(&self.authenticator.token_store)
    }

    async fn is_still_allowed(&self) -> bool {
        let mut checked = pin!(self.authenticator.check(Scope::Read, &self.headers));
        loop {
            // Checked without Redis first, which may be slow.
            if !self.is_in_force() {
                return false;
            }
            tokio::select! {
                checked = checked.as_mut() => return match checked {
                    Ok(_) => true,
                    // The session cannot be looked up while Redis is away.
                    Err(refused) => refused.error.status().is_server_error(),
                },
                () = sleep(RECHECK_INTERVAL) => {}
            }
        }
    }
}

/// The answer that a connection is sending, if it has a check.
#[derive(Clone)]
pub struct CurrentAnswer(watch::Sender<Option<Recheck>>);

/// Held while the answer is sent.
pub struct OngoingAnswer {
    current: CurrentAnswer,
    recheck: Recheck,
}

impl CurrentAnswer {
    /// For one connection.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Begins an answer; `None` if it has no check. Kept with the body.
    pub fn begin(&self, response: &mut Response) -> Option<OngoingAnswer> {
        let recheck = response.extensions_mut().remove::<Recheck>()?;
        self.0.send_replace(Some(recheck.clone()));
        Some(OngoingAnswer { current: self.clone(), recheck })
    }

    /// Returns when the caller of the current answer may no longer read.
    pub async fn revoked(&self) {
        let mut current = self.0.subscribe();
        loop {
            let recheck = current.borrow_and_update().clone();
            let ended = async {
                match recheck {
                    // Boxed: few connections have one, and all would carry its size.
                    Some(recheck) => Box::pin(async move { recheck.revoked().await }).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = ended => return,
                _ = current.changed() => {}
            }
        }
    }
}

impl OngoingAnswer {
    /// Whether more may be sent, as far as is known without Redis. If not, the next check closes the connection.
    pub fn is_in_force(&self) -> bool {
        self.recheck.is_in_force()
    }
}

impl Drop for OngoingAnswer {
    fn drop(&mut self) {
        self.current.0.send_replace(None);
    }
}
