//! Which path leads where, and what every request passes first.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::body::BodyBudget;
use super::encoding::base64_decode;
use super::problem::Problem;
use super::{HttpOptions, cluster, inspect, keys, listing, namespaces};
use crate::ambient;
use crate::server::{Backend, password};

/// What all handlers share.
pub(super) struct App {
    pub backend: Arc<dyn Backend>,
    pub options: HttpOptions,
    pub max_value_bytes: usize,
    pub bodies: BodyBudget,
}

pub(super) fn router(app: Arc<App>) -> Router {
    let key = get(keys::get).head(keys::head).put(keys::put).delete(keys::delete).post(inspect::resolve);
    Router::new()
        .route("/v1/ns/{namespace}/keys/{*key}", key)
        .route("/v1/ns/{namespace}/keys", get(listing::list))
        .route("/v1/where/{namespace}/{*key}", get(cluster::place))
        .route("/v1/history/{namespace}/{*key}", get(inspect::history))
        .route("/v1/namespaces", get(namespaces::list))
        .route("/v1/namespaces/{name}", get(namespaces::show).put(namespaces::create).delete(namespaces::remove))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/members", get(cluster::members))
        .route("/v1/ring", get(cluster::ring))
        .route("/healthz", get(cluster::healthz))
        .route("/readyz", get(cluster::readyz))
        .route("/metrics", get(cluster::metrics))
        .fallback(nowhere)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), authenticate))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), measure))
        .with_state(app)
}

async fn nowhere() -> Problem {
    Problem::not_found("there is nothing at this path")
}

async fn method_not_allowed() -> Problem {
    wrong_method()
}

pub(super) fn wrong_method() -> Problem {
    let title = "The method is not possible here";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, "see the header Allow")
}

/// What a path is called in the metrics; whatever clients make up has one name.
fn route_of(path: &str) -> &'static str {
    match path {
        "/v1/cluster" => "cluster",
        "/v1/members" => "members",
        "/v1/ring" => "ring",
        "/healthz" => "healthz",
        "/readyz" => "readyz",
        "/metrics" => "metrics",
        _ if path.starts_with("/v1/ns/") && path.ends_with("/keys") => "list",
        _ if path.starts_with("/v1/ns/") => "keys",
        _ if path.starts_with("/v1/where/") => "where",
        _ if path.starts_with("/v1/history/") => "history",
        _ if path.starts_with("/v1/namespaces") => "namespaces",
        _ => "other",
    }
}

async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = ambient::moment();
    let route = route_of(request.uri().path());
    let method = request.method().clone();
    let response = next.run(request).await;
    let took = ambient::moment().since(began);
    app.options.metrics.http_request(route, method.as_str(), response.status().as_u16(), took);
    response
}

async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/healthz" | "/readyz");
    match &app.options.password {
        Some(secret) if !open && !is_authorized(request.headers(), secret) => {
            let detail = "give the password with Basic authentication as user default, or as a Bearer token";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "The password is missing or wrong", detail)
                .into_response()
        }
        _ => next.run(request).await,
    }
}

fn is_authorized(headers: &HeaderMap, secret: &str) -> bool {
    let Some((scheme, credentials)) =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| text.split_once(' '))
    else {
        return false;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return password::matches(secret.as_bytes(), credentials.trim().as_bytes());
    }
    scheme.eq_ignore_ascii_case("basic")
        && base64_decode(credentials.trim())
            .as_deref()
            .and_then(|both| both.strip_prefix(b"default:"))
            .is_some_and(|guess| password::matches(secret.as_bytes(), guess))
}
