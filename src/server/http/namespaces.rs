//! The namespaces of the cluster: which there are, and changing them.
//!
//! Problem: the cluster map has one writer at a time, and there is no agreement on it yet.
//! So a change is written into the map file that this node begins with, one epoch on, and
//! takes effect when the node is restarted: it then hands the newer map to its peers.
//! Invariant: what is in use does not change while the node runs. Changes must all be made
//! through one node: two nodes would give one epoch to two maps.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::encoding::percent_decode;
use super::params::Params;
use super::problem::Problem;
use super::routes::App;
use super::{body, json};
use crate::node::map_file::{self, ChangeError};
use crate::types::{ClusterMap, MergePolicy, Namespace, NamespaceId};

/// The longest body of a change, in bytes.
const BODY_BYTES: usize = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    policy: MergePolicy,
}

pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<json::Namespaces>, Problem> {
    Params::parse(uri.query(), &[])?;
    Ok(Json(json::Namespaces::new(&app.backend.map(), &after_restart(&app).await?)))
}

pub(super) async fn show(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<json::NamespaceState>, Problem> {
    Params::parse(uri.query(), &[])?;
    let name = name_of(&uri)?;
    let all = json::Namespaces::new(&app.backend.map(), &after_restart(&app).await?);
    let found = all.namespaces.into_iter().find(|state| state.namespace.name == name);
    found.map(Json).ok_or_else(|| unknown(&name))
}

/// Makes one. Making one that is there as wanted is no error.
pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    Params::parse(request.uri().query(), &[])?;
    let name = name_of(request.uri())?;
    Namespace::check_name(&name).map_err(Problem::bad_request)?;
    let bytes = body::read(request.into_body(), BODY_BYTES, app.options.body_deadline, &app.bodies).await?;
    let Wanted { policy } = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::bad_request(format!("the body is not {{\"policy\": \"lww\"}} or \"siblings\": {error}"))
    })?;
    change(&app, move |map| {
        match map.namespaces.values().find(|namespace| namespace.name == name) {
            None => {}
            Some(there) if there.policy == policy => return Ok((map.clone(), there.clone())),
            Some(_) => {
                let detail = format!("there is a namespace '{name}' with another policy, which cannot be changed");
                return Err(Problem::conflict("namespace-exists", detail));
            }
        }
        let changed = map.with_namespace(&name, policy).map_err(|error| Problem::conflict("namespace", error.0))?;
        let id = changed.namespace(&name).ok_or_else(super::keys::mismatch)?;
        let namespace = changed.namespaces.get(&id).cloned().ok_or_else(super::keys::mismatch)?;
        Ok((changed, namespace))
    })
    .await
}

/// Removes one, and with it all its keys.
pub(super) async fn remove(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(uri.query(), &[])?;
    let name = name_of(&uri)?;
    change(&app, move |map| {
        let there = map.namespaces.values().find(|namespace| namespace.name == name);
        let namespace = there.cloned().ok_or_else(|| unknown(&name))?;
        if namespace.id == NamespaceId::DEFAULT {
            return Err(Problem::conflict("namespace", "the namespace 'default' cannot be removed"));
        }
        let changed = map.without_namespace(&name).map_err(|error| Problem::conflict("namespace", error.0))?;
        Ok((changed, namespace))
    })
    .await
}

fn name_of(uri: &Uri) -> Result<String, Problem> {
    let encoded = uri.path().strip_prefix("/v1/namespaces/").unwrap_or_default();
    let name = percent_decode(encoded, false).and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| Problem::bad_request("the namespace is not percent-encoded UTF-8"))
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no namespace {name:?}"))
}

fn path_of(app: &App) -> Result<PathBuf, Problem> {
    let refused = || Problem::not_offered("this node was not started from a map file that can be changed");
    app.options.map_file.clone().ok_or_else(refused)
}

/// The map that the node will begin with: the newer one of its file and the one it lives by.
async fn after_restart(app: &App) -> Result<ClusterMap, Problem> {
    let now = app.backend.map();
    let Some(path) = app.options.map_file.clone() else { return Ok((*now).clone()) };
    let read = tokio::task::spawn_blocking(move || map_file::read(&path)).await;
    let file = read.map_err(|_| super::keys::mismatch())?.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(newer(&now, file))
}

fn newer(now: &ClusterMap, file: ClusterMap) -> ClusterMap {
    if file.cluster == now.cluster && file.epoch > now.epoch { file } else { now.clone() }
}

/// Changes the file, and says so.
async fn change(
    app: &App,
    how: impl FnOnce(&ClusterMap) -> Result<(ClusterMap, Namespace), Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let (path, now) = (path_of(app)?, app.backend.map());
    let running = Arc::clone(&now);
    let changed = tokio::task::spawn_blocking(move || {
        let mut affected = None;
        let changed = map_file::change(&path, |file| {
            let (changed, namespace) = how(&newer(&running, file))?;
            affected = Some(namespace);
            Ok(changed)
        });
        (changed, affected)
    });
    let (changed, affected) = changed.await.map_err(|_| super::keys::mismatch())?;
    let changed = changed.map_err(|error| match error {
        ChangeError::Refused(problem) => problem,
        ChangeError::File(error) => Problem::internal(error.to_string()),
    })?;
    let namespace = affected.ok_or_else(super::keys::mismatch)?;
    let pending = now.namespaces.contains_key(&namespace.id) != changed.namespaces.contains_key(&namespace.id);
    let (status, takes_effect) = if pending { (StatusCode::ACCEPTED, "restart") } else { (StatusCode::OK, "now") };
    tracing::info!(namespace = namespace.name, epoch = changed.epoch.0, takes_effect, "the namespaces were changed");
    let change = json::NamespaceChange {
        namespace: json::Namespace::from(&namespace),
        epoch: changed.epoch.0,
        takes_effect: takes_effect.to_owned(),
    };
    Ok((status, Json(change)).into_response())
}
