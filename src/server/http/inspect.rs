//! What became of a write, and what every replica knows of a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};

use super::json;
use super::keys::{Place, mismatch};
use super::params::Params;
use super::problem::{Access, Problem};
use super::routes::{App, wrong_method};
use super::terms::{IDEMPOTENCY_KEY, Terms, ask, attempt};
use crate::types::{Failure, Operation, Refusal, Response};

/// `POST …/resolve`: whether the write of an op-id was applied; if not, it never will be.
pub(super) async fn resolve(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<axum::response::Response, Problem> {
    let path = uri.path().strip_suffix("/resolve");
    let path = path.ok_or_else(wrong_method)?;
    let place = Place::of_path(&app, path, "/v1/ns/", "keys/")?;
    let params = Params::parse(uri.query(), &["consistency", "timeout"])?;
    let mut terms = Terms::of(&params, &headers, Access::Write)?;
    let op = terms.op_id.take().ok_or_else(|| Problem::bad_request(format!("{IDEMPOTENCY_KEY} names the op-id")))?;
    let operation = Operation::Resolve { key: place.key, op };
    let result = match attempt(&app, operation, &mut terms, Access::Write).await? {
        Ok(Response::Written(reply)) => Ok(json::Resolved::applied(&reply)),
        Err(Failure::NotApplied(Refusal::Fenced)) => Ok(json::Resolved::not_applied()),
        Ok(_) => Err(mismatch()),
        Err(failure) => Err(Problem::of(&failure, app.max_value_bytes)),
    };
    Ok(terms.answer(result.map(|resolved| axum::response::IntoResponse::into_response(Json(resolved)))))
}

/// `GET /v1/history/…`. It has a path of its own, since a key may end in anything.
pub(super) async fn history(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<json::History>, Problem> {
    let params = Params::parse(uri.query(), &["timeout"])?;
    let place = Place::of_path(&app, uri.path(), "/v1/history/", "")?;
    let mut terms = Terms::of_params(&params, Access::Read)?;
    let operation = Operation::History { key: place.key.clone() };
    match ask(&app, Access::Read, operation, &mut terms).await? {
        Response::History(history) => Ok(Json(json::History::new(&place.namespace, &place.key, &history))),
        _ => Err(mismatch()),
    }
}
