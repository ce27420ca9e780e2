//! Signing in and out.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::body::{allow_only, object};
use crate::api::{
    auth::{ClientAddress, Refusal, Scope, cookie},
    error::{ApiError, ApiResult, json as json_answer},
    state::ApiState,
};

/// `POST /api/session`
pub async fn sign_in(
    State(state): State<ApiState>,
    client: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult {
    let secret = secret(&body)?;
    if !state.token_store.has_tokens() {
        return Err(ApiError::bad_request("there are no tokens; see `http.tokens_file`"));
    }
    let client = client.map(|Extension(address)| address);
    let Some(token) = state.token_store.with_secret(secret.trim()) else {
        return Err(state.token_store.wrong_token(client));
    };
    if token.scope == Scope::Publish {
        state.token_store.audit().refused(Refusal::Scope, Some(&token.name), client);
        let detail = format!("the token `{}` may only publish; there is nothing to sign in for", token.name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
    }
    let (session, cookie) = state.token_store.sessions()?.begin(token).await?;
    state.token_store.audit().signed_in(&session.token.name, client);
    let answer = (StatusCode::CREATED, Json(session.json())).into_response();
    let (tls, lifetime) = (state.certificate.is_used(), state.config.session_lifetime.as_secs());
    Ok(cookie::set(answer, &headers, tls, &cookie, i64::try_from(lifetime).unwrap_or(0)))
}

/// The token in the body of a request to sign in.
fn secret(body: &Bytes) -> Result<String, ApiError> {
    let wrong = || ApiError::bad_request("the body must be {\"token\": \"...\"}");
    let request = object(body).map_err(|_| wrong())?;
    allow_only(&request, &["token"])?;
    request.get("token").and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong)
}

/// `GET /api/session`
pub async fn current(State(state): State<ApiState>, headers: HeaderMap) -> ApiResult {
    let session = match state.token_store.sessions() {
        Ok(_) if state.token_store.has_tokens() => state.token_store.find_session(&headers).await?,
        _ => None,
    };
    let none = || json!({ "name": null, "scope": null, "csrf": null, "sign_in": state.token_store.has_tokens() });
    json_answer(&session.map_or_else(none, |session| session.json()))
}

/// `DELETE /api/session`
pub async fn sign_out(State(state): State<ApiState>, headers: HeaderMap) -> ApiResult {
    if let Some(session) = state.token_store.find_session(&headers).await? {
        session.verify_csrf(&headers, &state.config)?;
        state.token_store.sessions()?.end(&session).await?;
        state.token_store.audit().signed_out(&session.token.name);
    }
    Ok(cookie::set(StatusCode::NO_CONTENT.into_response(), &headers, state.certificate.is_used(), "", 0))
}
