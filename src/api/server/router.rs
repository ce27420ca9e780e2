//! The router: every route behind its check, and the layers around all of them.

use std::sync::Arc;

use axum::{
    Router,
    body::HttpBody,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{compress, security_headers};
use crate::api::{
    auth::{CorsDecision, guard, preflight, target},
    dashboard,
    error::ApiError,
    params::Params,
    routes::{Route, messages, routes},
    state::ApiState,
};

/// All routes, each behind its check, and the dashboard, which needs none.
pub fn router(state: ApiState) -> Router {
    let router = Router::new().route("/", get(dashboard::index)).route("/assets/{*name}", get(dashboard::asset));
    let router = add_routes(router, &state, routes()).fallback(|| async { ApiError::not_found("Not Found") });
    add_layers(router, state)
}

/// A router with one answer to every request.
pub fn reject_all<F: Future<Output = ApiError> + Send + 'static>(state: ApiState, answer: fn() -> F) -> Router {
    add_layers(Router::new().fallback(answer), state)
}

fn add_routes(router: Router<ApiState>, state: &ApiState, routes: impl IntoIterator<Item = Route>) -> Router<ApiState> {
    routes.into_iter().fold(router, |router, route| {
        let guard = middleware::from_fn_with_state((state.authenticator(), route.scope), guard);
        let (path, has_query) = (route.path, route.has_query());
        let handler = match has_query {
            true => route.handler,
            false => route.handler.layer(middleware::from_fn(refuse_parameters)),
        };
        router.route(path, handler.layer(guard))
    })
}

/// Refuses a query where a route has none.
async fn refuse_parameters(params: Params, request: Request, next: Next) -> Result<Response, ApiError> {
    params.allow_only(&[], &[])?;
    Ok(next.run(request).await)
}

fn add_layers(router: Router<ApiState>, state: ApiState) -> Router {
    state.metrics.api_requests.show(["2xx", "4xx", "5xx", "other"]);
    router
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(DefaultBodyLimit::max(state.config.max_body.as_usize()))
        .layer(middleware::from_fn_with_state(state.clone(), limit_and_count))
        .layer(middleware::from_fn_with_state(Arc::clone(&state.compressions), compress::layer))
        .layer(middleware::from_fn(security_headers::layer))
        .with_state(state)
}

/// Refuses ambiguous hosts and bodies declared too large, ends requests after `http.request_timeout`, and counts the answers.
async fn limit_and_count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let cors_decision = CorsDecision::of(&state.config, request.headers());
    let early = target::check(&request)
        .err()
        .map(IntoResponse::into_response)
        .or_else(|| preflight(&state.config, request.method(), request.headers()))
        .or_else(|| too_large(&state, &request).map(IntoResponse::into_response));
    let mut response = match early {
        Some(response) => response,
        None => tokio::time::timeout(state.config.request_timeout, next.run(request)).await.unwrap_or_else(|_| {
            ApiError::unavailable("no answer within `http.request_timeout`; ask for less at once").into_response()
        }),
    };
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    };
    state.metrics.api_requests.of(class).inc();
    cors_decision.apply(response.headers_mut());
    response
}

/// Refuses a body by its declared length, before any of it is read.
fn too_large(state: &ApiState, request: &Request) -> Option<ApiError> {
    let declared = request.body().size_hint().exact()?;
    if request.uri().path() == messages::PATH {
        let max = state.config.max_messages_body.as_usize() as u64;
        return (declared > max).then(|| messages::too_large(&state.config));
    }
    (declared > state.config.max_body.as_usize() as u64).then(|| {
        let detail = format!("the body is larger than {}; see `http.max_body`", state.config.max_body);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })
}
