//! Streams and exports end with the right to read them: their token is taken out, their session ends, the rule changes.
//!
//! The check of the route is made again twice a second for as long as such an answer is under way, by the task of its connection:
//! it must not depend on a client that takes the answer slowly, or not at all. The connection then ends without the end of the
//! body, so that neither an export nor a compressed answer looks whole.

use std::{future::pending, pin::pin, time::Duration};

use axum::{http::HeaderMap, response::Response};
use hyper::body::Body as _;
use tokio::{sync::watch, time::sleep};
use tracing::info;

use super::{authenticator::Authenticator, caller::Caller, scope::Scope};

/// How often the right to read is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// What the check needs; an extension of an answer that must be looked after.
#[derive(Clone)]
pub struct Recheck {
    authenticator: Authenticator,
    headers: HeaderMap,
    caller: Caller,
}

impl Recheck {
    /// For a request that was let in.
    pub fn new(authenticator: Authenticator, headers: HeaderMap, caller: Caller) -> Self {
        Self { authenticator, headers, caller }
    }

    /// Its answer, with the check for its connection. What is whole already is not looked after.
    pub fn attach(self, mut response: Response) -> Response {
        if response.body().size_hint().exact().is_none() {
            response.extensions_mut().insert(self);
        }
        response
    }

    /// Returns when the right to read has ended.
    async fn revoked(&self) {
        loop {
            sleep(RECHECK_INTERVAL).await;
            if !self.is_still_allowed().await {
                self.authenticator.token_store.audit().metrics().api_bodies_cut.inc();
                info!(token = self.caller.name(), "a stream or an export is ended: its token or session was");
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
            // Known at once, however long Redis takes.
            if !self.is_in_force() {
                return false;
            }
            tokio::select! {
                checked = checked.as_mut() => return match checked {
                    Ok(_) => true,
                    // Redis is away, and the session cannot be looked up there.
                    Err(refused) => refused.error.status().is_server_error(),
                },
                () = sleep(RECHECK_INTERVAL) => {}
            }
        }
    }
}

/// The answer that a connection is giving, if it must be looked after.
#[derive(Clone)]
pub struct CurrentAnswer(watch::Sender<Option<Recheck>>);

/// While it lives, the answer is under way.
pub struct OngoingAnswer {
    current: CurrentAnswer,
    recheck: Recheck,
}

impl CurrentAnswer {
    /// For one connection.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// An answer begins; kept with its body. `None`: there is nothing to look after.
    pub fn begin(&self, response: &mut Response) -> Option<OngoingAnswer> {
        let recheck = response.extensions_mut().remove::<Recheck>()?;
        self.0.send_replace(Some(recheck.clone()));
        Some(OngoingAnswer { current: self.clone(), recheck })
    }

    /// Returns when the right to read the answer under way has ended. Without one, nothing runs.
    pub async fn revoked(&self) {
        let mut current = self.0.subscribe();
        loop {
            let recheck = current.borrow_and_update().clone();
            let ended = async {
                match recheck {
                    // Few connections have one; all would pay for what is not in a box.
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
    /// Whether more may be handed over, as far as is known at once. If not, the next check ends the connection.
    pub fn is_in_force(&self) -> bool {
        self.recheck.is_in_force()
    }
}

impl Drop for OngoingAnswer {
    fn drop(&mut self) {
        self.current.0.send_replace(None);
    }
}
