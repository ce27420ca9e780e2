//! The check as a layer of a route. Every route has a [`Scope`]; the check is made here, once, before its handler.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    anonymous_body,
    audit::Refusal,
    authenticator::{Authenticator, Refused},
    caller::Caller,
    client_address::ClientAddress,
    origin::fetch_site,
    policy::AccessPolicy,
    recheck::Recheck,
    scope::Scope,
    token_store::TokenStore,
};
use crate::api::error::ApiError;

/// The layer.
pub async fn guard(
    State((authenticator, scope)): State<(Authenticator, Scope)>,
    request: Request,
    next: Next,
) -> Response {
    let client = request.extensions().get().copied();
    let checked = authenticator.check(scope, request.headers()).await;
    let caller = match checked.and_then(|caller| check_site(&authenticator, &request, caller)) {
        Ok(caller) => caller,
        Err(refused) => return refusal(&authenticator.token_store, refused, client).into_response(),
    };
    let mut request = match bound_body(&authenticator, scope, &caller, request).await {
        Ok(request) => request,
        Err(refused) => return refused.into_response(),
    };
    // An answer to a reading request may be a stream, which is sent only while its caller may read.
    let recheck =
        (scope == Scope::Read).then(|| Recheck::new(authenticator, request.headers().clone(), caller.clone()));
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    match recheck {
        Some(recheck) => recheck.attach(response),
        None => response,
    }
}

/// Refuses what a page of another site may not do.
fn check_site(authenticator: &Authenticator, request: &Request, caller: Caller) -> Result<Caller, Refused> {
    let bearer = caller.token.is_some() && caller.session.is_none();
    match fetch_site::check(&authenticator.config, request, bearer) {
        Ok(()) => Ok(caller),
        Err(error) => Err(Refused { error, why: Refusal::Origin, name: caller.name().map(str::to_owned) }),
    }
}

/// The request, with its body read within the limits for clients without a token.
async fn bound_body(
    authenticator: &Authenticator,
    scope: Scope,
    caller: &Caller,
    request: Request,
) -> Result<Request, ApiError> {
    // Messages have limits of their own, and reserve memory.
    let exempt = matches!(scope, Scope::Open | Scope::Read | Scope::Publish);
    if exempt || caller.token.is_some() || authenticator.policy == AccessPolicy::Internal {
        return Ok(request);
    }
    anonymous_body::read(&authenticator.config, request).await
}

/// Records a refusal in the audit, and returns its answer.
fn refusal(token_store: &TokenStore, refused: Refused, client: Option<ClientAddress>) -> ApiError {
    match refused.why {
        Refusal::WrongToken => token_store.wrong_token(client),
        // The check could not be made.
        _ if refused.error.status().is_server_error() => refused.error,
        why => {
            token_store.audit().refused(why, refused.name.as_deref(), client);
            refused.error
        }
    }
}
