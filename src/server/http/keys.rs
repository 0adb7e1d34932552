//! One key: `PUT`, `GET`, `HEAD`, `DELETE`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::body;
use super::encoding::{etag, percent_decode};
use super::json;
use super::params::Params;
use super::problem::{Access, Problem};
use super::routes::App;
use super::terms::{Terms, ask, context};
use crate::ambient;
use crate::server::token;
use crate::types::{
    self, CausalContext, Expiry, Key, MergePolicy, NamespaceId, Operation, ReadReply, WallTime, WriteReply,
};

/// How many replicas had a write on disk when it was answered.
const ACKNOWLEDGED: HeaderName = HeaderName::from_static("dogsled-acknowledged");
/// When a value ends, in milliseconds since 1970.
const EXPIRES_AT: HeaderName = HeaderName::from_static("dogsled-expires-at");

const ON_KEYS: [&str; 4] = ["consistency", "timeout", "format", "explain"];

/// The namespace and key that a path names.
pub(super) struct Place {
    /// The namespace's name.
    pub namespace: String,
    pub key: Key,
}

/// The namespace that a path names: what stands between `/v1/ns/` or the like and the next slash.
pub(super) fn namespace_of(app: &App, encoded: &str) -> Result<(String, NamespaceId), Problem> {
    let name = percent_decode(encoded, false).and_then(|name| String::from_utf8(name).ok());
    let name = name.ok_or_else(|| Problem::bad_request("the namespace is not percent-encoded UTF-8"))?;
    match app.backend.map().namespace(&name) {
        Some(id) => Ok((name, id)),
        None => Err(Problem::not_found(format!("there is no namespace {name:?}"))),
    }
}

impl Place {
    /// Reads a path by its own bytes: the router's captures are UTF-8, and keys need not be.
    pub fn of_path(app: &App, path: &str, before: &str, between: &str) -> Result<Place, Problem> {
        let named = path.strip_prefix(before).and_then(|rest| rest.split_once('/'));
        let named = named.and_then(|(namespace, rest)| Some((namespace, rest.strip_prefix(between)?)));
        let (namespace, key) = named.ok_or_else(|| Problem::not_found("there is nothing at this path"))?;
        let (namespace, id) = namespace_of(app, namespace)?;
        let key = percent_decode(key, false).ok_or_else(|| Problem::bad_request("the key is not percent-encoded"))?;
        Ok(Place { namespace, key: Key::new(id, key)? })
    }

    /// Whether its namespace keeps concurrent values.
    fn keeps_siblings(&self, app: &App) -> bool {
        app.backend.map().policy(self.key.namespace()) == MergePolicy::Siblings
    }

    fn under_ns(app: &App, uri: &Uri) -> Result<Place, Problem> {
        Place::of_path(app, uri.path(), "/v1/ns/", "keys/")
    }
}

/// The node answered with something that is no answer to what it was asked.
pub(super) fn mismatch() -> Problem {
    Problem::internal("the answer of the node does not fit the request")
}

/// Conditions that would need a compare-and-set are refused: ignoring them would lose updates.
fn refuse_conditions(headers: &HeaderMap, refused: &[HeaderName]) -> Result<(), Problem> {
    match refused.iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(Problem::not_offered(format!("{name} is not offered yet: it needs SERIAL consistency"))),
        None => Ok(()),
    }
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("it is made of letters, digits and quotes")
}

pub(super) async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let place = Place::under_ns(&app, request.uri())?;
    let params = Params::parse(request.uri().query(), &["consistency", "timeout", "format", "ttl", "explain"])?;
    refuse_conditions(request.headers(), &[header::IF_MATCH, header::IF_NONE_MATCH])?;
    let mut terms = Terms::of(&params, request.headers(), Access::Write)?;
    let context = context(request.headers())?.unwrap_or_default();
    let expiry = match params.ttl {
        None => Expiry::Never,
        Some(ttl) => {
            let at = ambient::wall().checked_plus(ttl).filter(|at| i64::try_from(at.0).is_ok());
            Expiry::At(at.ok_or_else(|| Problem::bad_request("ttl: the time lies too far ahead"))?)
        }
    };
    let deadline = app.options.body_deadline;
    let value = body::read(request.into_body(), app.max_value_bytes, deadline, &app.bodies).await?;
    let operation = Operation::Put { key: place.key.clone(), value, expiry, context };
    let result = write(&app, &place, &params, operation, &mut terms).await;
    Ok(terms.answer(result))
}

pub(super) async fn delete(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let place = Place::under_ns(&app, &uri)?;
    let params = Params::parse(uri.query(), &ON_KEYS)?;
    refuse_conditions(&headers, &[header::IF_MATCH, header::IF_NONE_MATCH])?;
    let mut terms = Terms::of(&params, &headers, Access::Write)?;
    let context = context(&headers)?;
    let result = delete_seen(&app, &place, &params, context, &mut terms).await;
    Ok(terms.answer(result))
}

/// Deletes what a context has seen. Where siblings are kept and there is none, what a read
/// sees: a deletion that has seen nothing would delete nothing.
async fn delete_seen(
    app: &App,
    place: &Place,
    params: &Params,
    context: Option<CausalContext>,
    terms: &mut Terms,
) -> Result<Response, Problem> {
    let context = match context {
        Some(context) => context,
        None if place.keeps_siblings(app) && terms.op_id.is_none() => {
            let operation = Operation::Get { key: place.key.clone() };
            let types::Response::Read(found) = ask(app, Access::Read, operation, terms).await? else {
                return Err(mismatch());
            };
            found.ok_or_else(|| absent(place))?.context
        }
        None => CausalContext::default(),
    };
    let operation = Operation::Delete { key: place.key.clone(), context };
    write(app, place, params, operation, terms).await
}

async fn write(
    app: &App,
    place: &Place,
    params: &Params,
    operation: Operation,
    terms: &mut Terms,
) -> Result<Response, Problem> {
    let response = ask(app, Access::Write, operation, terms).await?;
    let types::Response::Written(reply) = response else { return Err(mismatch()) };
    let WriteReply { stamp, acknowledged } = reply;
    let written = || json::Written::new(&place.namespace, &place.key, &reply);
    let mut response = match terms.path.take() {
        Some(path) => {
            Json(json::Explained { value: None, written: Some(written()), path: (&path).into() }).into_response()
        }
        None if params.json => Json(written()).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    // Where siblings are kept, only a read tells what a later write has seen.
    if !place.keeps_siblings(app) {
        response.headers_mut().insert(header::ETAG, header_value(&etag(&stamp)));
    }
    response.headers_mut().insert(ACKNOWLEDGED, HeaderValue::from(u16::from(acknowledged)));
    Ok(response)
}

pub(super) async fn get(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let place = Place::under_ns(&app, &uri)?;
    let params = Params::parse(uri.query(), &ON_KEYS)?;
    refuse_conditions(&headers, &[header::IF_MATCH])?;
    let mut terms = Terms::of(&params, &headers, Access::Read)?;
    let result = read(&app, &place, &params, &headers, &mut terms).await;
    Ok(terms.answer(result))
}

async fn read(
    app: &App,
    place: &Place,
    params: &Params,
    headers: &HeaderMap,
    terms: &mut Terms,
) -> Result<Response, Problem> {
    let operation = Operation::Get { key: place.key.clone() };
    let types::Response::Read(found) = ask(app, Access::Read, operation, terms).await? else { return Err(mismatch()) };
    let value = |reply| json::Value::new(&place.namespace, &place.key, reply);
    if let Some(path) = terms.path.take() {
        let explained = json::Explained { value: found.as_ref().map(value), written: None, path: (&path).into() };
        return Ok(Json(explained).into_response());
    }
    let reply = found.ok_or_else(|| absent(place))?;
    let tag = tag_of(&reply);
    let mut response = match params.json {
        _ if is_known(headers, &tag) => StatusCode::NOT_MODIFIED.into_response(),
        _ if !reply.siblings.is_empty() => (StatusCode::MULTIPLE_CHOICES, Json(value(&reply))).into_response(),
        true => Json(value(&reply)).into_response(),
        false => raw(&reply),
    };
    describe(&mut response, &tag, reply.expires_at);
    Ok(response)
}

pub(super) async fn head(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let place = Place::under_ns(&app, &uri)?;
    let params = Params::parse(uri.query(), &["consistency", "timeout"])?;
    refuse_conditions(&headers, &[header::IF_MATCH])?;
    let mut terms = Terms::of(&params, &headers, Access::Read)?;
    let result = match place.keeps_siblings(&app) {
        // Its context and its choices are only known with the values.
        true => read(&app, &place, &params, &headers, &mut terms).await,
        false => look(&app, &place, &headers, &mut terms).await,
    };
    Ok(terms.answer(result))
}

async fn look(app: &App, place: &Place, headers: &HeaderMap, terms: &mut Terms) -> Result<Response, Problem> {
    let operation = Operation::Head { key: place.key.clone() };
    let types::Response::Head(found) = ask(app, Access::Read, operation, terms).await? else { return Err(mismatch()) };
    let summary = found.filter(|summary| summary.is_live(ambient::wall())).ok_or_else(|| absent(place))?;
    let tag = etag(&summary.stamp);
    let mut response = match is_known(headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            let mut response = Response::new(Body::empty());
            let length = HeaderValue::from(summary.value_bytes.unwrap_or(0));
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
            set_type(&mut response);
            response
        }
    };
    describe(&mut response, &tag, summary.expires_at);
    Ok(response)
}

/// What names what was read: the version, or where siblings are kept their context.
fn tag_of(reply: &ReadReply) -> String {
    match reply.context.is_empty() {
        true => etag(&reply.stamp),
        false => format!("\"{}\"", token::of_context(&reply.context)),
    }
}

fn absent(place: &Place) -> Problem {
    let key = String::from_utf8_lossy(place.key.bytes());
    let shown: String = key.chars().take(200).collect();
    Problem::not_found(format!("there is no key {shown:?} in namespace {:?}", place.namespace))
}

fn raw(reply: &ReadReply) -> Response {
    let mut response = Response::new(Body::from(reply.value.clone()));
    set_type(&mut response);
    response
}

fn set_type(response: &mut Response) {
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // A browser must not take somebody's value for a page of this origin.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn describe(response: &mut Response, tag: &str, expires_at: Option<WallTime>) {
    response.headers_mut().insert(header::ETAG, header_value(tag));
    if let Some(at) = expires_at {
        response.headers_mut().insert(EXPIRES_AT, HeaderValue::from(at.0));
    }
}

/// Whether the client says with `If-None-Match` that it has this already.
fn is_known(headers: &HeaderMap, own: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
}
