//! What replicas hold of a key, and the way that a read takes, for people.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use super::{short, shown};
use crate::cli::output::{Show, count, lines, table};
use crate::client::http::{ClientError, HttpClient, encode_segment};
use crate::server::http::json;

/// A read with the way it took, and what the replicas held before it.
#[derive(Serialize)]
pub(super) struct Explanation {
    pub(super) explained: json::Explained,
    pub(super) history: json::History,
}

pub(super) fn read(client: &HttpClient, namespace: &str, key: &OsStr) -> Result<json::History, ClientError> {
    let namespace = encode_segment(namespace.as_bytes());
    client.read_json(&format!("/v1/history/{namespace}/{}", encode_segment(key.as_bytes())))
}

/// What a version holds.
fn kind(version: &json::ReplicaVersion) -> String {
    match (version.value_bytes, version.expires_at_ms) {
        (None, _) => "deleted".into(),
        (Some(bytes), None) => count(bytes as usize, "byte"),
        (Some(bytes), Some(at)) => format!("{}, ends at {at}", count(bytes as usize, "byte")),
    }
}

/// What a replica has not seen of the partition, by what it has seen itself.
fn gaps(replica: &json::ReplicaHistory) -> String {
    let missing = replica.coverage.iter().flat_map(|coverage| &coverage.actors).map(|actor| actor.missing).sum();
    match missing {
        0u64 => "-".into(),
        missing => missing.to_string(),
    }
}

fn held(history: &json::History) -> String {
    let mut rows = table(&["NODE", "VERSION", "WRITTEN (MS)", "HOLDS", "IN LOG", "COMMIT", "GAPS"]);
    for replica in &history.replicas {
        let node = replica.node.to_string();
        if !replica.answered {
            rows.add_row([node.as_str(), "-", "-", "no answer", "-", "-", "-"]);
            continue;
        }
        let in_log = format!("{}{}", replica.log.len(), if replica.more { "+" } else { "" });
        let commit = replica.commit.map_or_else(|| "-".to_owned(), |commit| commit.to_string());
        if replica.versions.is_empty() {
            rows.add_row([&*node, "-", "-", "nothing", &*in_log, &*commit, &*gaps(replica)]);
        }
        for version in &replica.versions {
            let (etag, written) = (version.version.etag.clone(), version.version.written_at_ms.to_string());
            rows.add_row([&*node, &*etag, &*written, &*kind(version), &*in_log, &*commit, &*gaps(replica)]);
        }
    }
    lines(&rows)
}

impl Show for json::History {
    fn text(&self) -> String {
        let mut text = format!(
            "{} is in partition {} (token {}, epoch {})\n\n{}",
            shown(&self.key),
            self.partition,
            self.token,
            self.epoch,
            held(self)
        );
        let mut rows = table(&["NODE", "COMMIT", "VERSION", "WRITTEN (MS)", "COORDINATED BY"]);
        let mut entries = 0;
        for replica in &self.replicas {
            for entry in &replica.log {
                entries += 1;
                rows.add_row([
                    replica.node.to_string(),
                    entry.commit.to_string(),
                    entry.version.etag.clone(),
                    entry.version.written_at_ms.to_string(),
                    entry.version.node.to_string(),
                ]);
            }
        }
        if entries > 0 {
            text += &format!("\nin the logs, newest first:\n\n{}", lines(&rows));
        }
        text
    }
}

impl Show for Explanation {
    fn text(&self) -> String {
        let path = &self.explained.path;
        let found = match &self.explained.value {
            None => "nothing".to_owned(),
            Some(value) if value.siblings.is_empty() => {
                format!("{} (version {})", short(&shown(&value.value)), value.version.etag)
            }
            Some(value) => format!("{} at once", count(value.siblings.len() + 1, "value")),
        };
        let replicas: Vec<_> = path.replicas.iter().map(ToString::to_string).collect();
        let mut rows = table(&["AFTER (US)", "NODE", "WHAT", "VERSION"]);
        for step in &path.steps {
            let what = match &step.reason {
                Some(reason) => format!("{}: {reason}", step.event.replace('_', " ")),
                None => step.event.replace('_', " "),
            };
            let version = step.version.as_ref().map_or_else(|| "-".to_owned(), |version| version.etag.clone());
            rows.add_row([step.after_us.to_string(), step.node.to_string(), what, version]);
        }
        format!(
            "found {found}\n{} coordinated; {} of {} were needed, {} repaired, {} late\n\n{}\nbefore the read:\n\n{}",
            path.coordinator,
            path.needed,
            replicas.join(", "),
            path.repaired,
            path.hedges,
            lines(&rows),
            held(&self.history)
        )
    }
}
