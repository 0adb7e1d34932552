//! The keys of a namespace, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;

use super::json::{Entry, Page};
use super::keys::{mismatch, namespace_of};
use super::params::Params;
use super::problem::{Access, Problem};
use super::routes::App;
use super::terms::{Terms, ask};
use crate::ambient;
use crate::types::{Operation, Response, Token, limits};

/// Keys in a page unless `?limit=` says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// Requests to replicas that one page may take: the rest is for the next page.
const REQUESTS_A_PAGE: usize = 64;

/// A page may be short or even empty without being the last: only a missing cursor ends the walk.
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Page>, Problem> {
    let named = uri.path().strip_prefix("/v1/ns/").and_then(|rest| rest.strip_suffix("/keys"));
    let (_, namespace) = namespace_of(&app, named.unwrap_or_default())?;
    let params = Params::parse(uri.query(), &["consistency", "timeout", "prefix", "limit", "cursor"])?;
    let mut terms = Terms::of_params(&params, Access::Read)?;
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT).min(limits::HTTP_PAGE_KEYS);
    let mut next = Some(Token(params.cursor.unwrap_or(0)));
    let mut keys = Vec::new();
    for _ in 0..REQUESTS_A_PAGE {
        let Some(from) = next.filter(|_| keys.len() < limit) else { break };
        let limit = u32::try_from(limit - keys.len()).unwrap_or(u32::MAX);
        let operation = Operation::Scan { namespace, from, limit };
        let response = ask(&app, Access::Read, operation, &mut terms).await?;
        let Response::Page(page) = response else { return Err(mismatch()) };
        next = page.next;
        let wall = ambient::wall();
        let wanted = page.entries.iter().filter(|entry| entry.key.starts_with(&params.prefix));
        keys.extend(wanted.filter_map(|entry| Entry::new(entry, wall)));
    }
    Ok(Json(Page { keys, cursor: next.map(|token| token.0.to_string()) }))
}
