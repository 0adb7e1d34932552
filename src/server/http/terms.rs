//! The terms of a request about keys: its level, its time, its session, its op-id.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::params::Params;
use super::problem::{Access, Problem};
use super::routes::App;
use crate::server::seen::{Place, Seen};
use crate::server::token;
use crate::types::{self, CausalContext, ConsistencyLevel, OpId, Operation, Request, RequestPath};

/// A client's session: empty to begin one, and given back with every answer.
pub(super) const SESSION: HeaderName = HeaderName::from_static("dogsled-session");
/// What a write has seen, where siblings are kept.
pub(super) const CONTEXT: HeaderName = HeaderName::from_static("dogsled-context");
/// The client's name for a write.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// On what terms a request is carried out.
#[derive(Debug)]
pub(super) struct Terms {
    pub consistency: ConsistencyLevel,
    timeout: Option<Duration>,
    pub op_id: Option<OpId>,
    explain: bool,
    /// None if the client keeps no session.
    seen: Option<Seen>,
    /// The way that the last request took, if that is wanted.
    pub path: Option<RequestPath>,
}

impl Terms {
    /// Those of the query alone.
    ///
    /// # Errors
    /// A level for writes on a read.
    pub fn of_params(params: &Params, access: Access) -> Result<Terms, Problem> {
        let consistency = params.consistency.unwrap_or_default();
        if access == Access::Read && consistency == ConsistencyLevel::Any {
            let detail = "the level 'any' is for writes; read at one, two, three, quorum or all";
            return Err(Problem::bad_request(detail));
        }
        let (timeout, explain) = (params.timeout, params.explain);
        Ok(Terms { consistency, timeout, op_id: None, explain, seen: None, path: None })
    }

    /// Those of the query and the headers.
    ///
    /// # Errors
    /// A header that cannot be understood, or has no meaning here.
    pub fn of(params: &Params, headers: &HeaderMap, access: Access) -> Result<Terms, Problem> {
        let mut terms = Terms::of_params(params, access)?;
        let refused = |error: token::InvalidToken| Problem::bad_request(format!("{SESSION}: {error}"));
        terms.seen = single(headers, &SESSION)?.map(Seen::of_token).transpose().map_err(refused)?;
        if let Some(text) = single(headers, &IDEMPOTENCY_KEY)? {
            if access == Access::Read {
                return Err(Problem::bad_request(format!("{IDEMPOTENCY_KEY} goes with PUT and DELETE")));
            }
            let text = String::from_utf8_lossy(text);
            // The draft of the header wants a quoted string; hardly anybody sends one.
            let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&text);
            let refused = |error| Problem::bad_request(format!("{IDEMPOTENCY_KEY}: {error}"));
            terms.op_id = Some(bare.parse().map_err(refused)?);
        }
        Ok(terms)
    }

    /// An answer with the session as it is now.
    pub fn answer(&self, result: Result<Response, Problem>) -> Response {
        let mut response = result.unwrap_or_else(IntoResponse::into_response);
        if let Some(seen) = &self.seen
            && let Ok(token) = HeaderValue::try_from(seen.token())
        {
            response.headers_mut().insert(SESSION, token);
        }
        response
    }
}

/// What a header that may be there once says.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Problem::bad_request(format!("{name} is given twice"))),
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
    }
}

/// What a write says that it has seen.
///
/// # Errors
/// If it is no context.
pub(super) fn context(headers: &HeaderMap) -> Result<Option<CausalContext>, Problem> {
    let Some(text) = single(headers, &CONTEXT)? else { return Ok(None) };
    // An ETag may be handed on with its quotes.
    let bare = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    token::context(bare).map(Some).map_err(|error| Problem::bad_request(format!("{CONTEXT}: {error}")))
}

/// Asks the node, and turns what fails into a problem.
pub(super) async fn ask(
    app: &App,
    access: Access,
    operation: Operation,
    terms: &mut Terms,
) -> Result<types::Response, Problem> {
    match attempt(app, operation, terms, access).await? {
        Ok(response) => Ok(response),
        Err(failure) => Err(Problem::of(&failure, app.max_value_bytes)),
    }
}

/// The same for whom some failures are answers.
pub(super) async fn attempt(
    app: &App,
    operation: Operation,
    terms: &mut Terms,
    access: Access,
) -> Result<Result<types::Response, types::Failure>, Problem> {
    let mut consistency = terms.consistency;
    if access == Access::Read && consistency == ConsistencyLevel::Any {
        // What a deletion has to read first.
        consistency = ConsistencyLevel::Quorum;
    }
    let mut request = Request {
        timeout: Some(terms.timeout.unwrap_or(app.options.request_timeout)),
        op_id: terms.op_id.filter(|_| access == Access::Write),
        explain: terms.explain,
        ..Request::new(operation, consistency)
    };
    let place = Place::of(&app.backend.map(), &request.operation, consistency);
    if let (Some(seen), Some(place)) = (&terms.seen, place) {
        seen.guard(&mut request, place);
    }
    let outcome = app.backend.submit(request).await.map_err(|_| Problem::stopped(access))?;
    Ok(outcome.map(|response| {
        if let (Some(seen), Some(place)) = (&mut terms.seen, place) {
            seen.note(place, &response);
        }
        let (response, path) = response.unexplained();
        terms.path = path.or(terms.path.take());
        response
    }))
}
