//! The cluster, the ring, and the health of this node.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::json;
use super::keys::Place;
use super::params::Params;
use super::problem::Problem;
use super::routes::App;

pub(super) async fn cluster(State(app): State<Arc<App>>) -> Json<json::Cluster> {
    Json(json::Cluster::new(&app.backend.map(), &app.backend.status(), &app.backend.members()))
}

pub(super) async fn members(State(app): State<Arc<App>>) -> Json<json::Members> {
    Json(json::Members::new(&app.backend.map(), app.backend.status().id, &app.backend.members()))
}

pub(super) async fn ring(State(app): State<Arc<App>>) -> Json<json::Ring> {
    Json(json::Ring::from(&*app.backend.map()))
}

pub(super) async fn place(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<json::Where>, Problem> {
    Params::parse(uri.query(), &[])?;
    let place = Place::of_path(&app, uri.path(), "/v1/where/", "")?;
    let (map, status, members) = (app.backend.map(), app.backend.status(), app.backend.members());
    Ok(Json(json::Where::new(&place.namespace, &place.key, &map, &status, &members)))
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether clients should be sent here: this node reaches a quorum of every partition.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    let status = app.backend.status();
    if status.ready {
        return Ok("ready\n");
    }
    let all = app.backend.map().partitions.get();
    let detail = format!("{} of {all} partitions have no quorum from here", status.partitions_without_quorum);
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail))
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let page = app.options.metrics.page(app.backend.samples()).map_err(|_| super::keys::mismatch())?;
    let mut response = page.into_response();
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
