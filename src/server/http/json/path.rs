//! The way of a request, and what became of an op-id, as JSON.

use serde::{Deserialize, Serialize};

use super::{NodeName, Value, Version, Written};
use crate::types::{PathEvent, RequestPath, WriteReply};

/// An answer with the way that its request took, as `?explain=true` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What a read found; none if it found nothing, or was none.
    pub value: Option<Value>,
    /// What a write came to; none if it was none.
    pub written: Option<Written>,
    /// The way.
    pub path: Path,
}

/// The way that a request took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The node that coordinated it.
    pub coordinator: NodeName,
    /// The epoch of the map that it was planned with.
    pub epoch: u64,
    /// The partition of the key.
    pub partition: u16,
    /// Its replicas, primary first.
    pub replicas: Vec<NodeName>,
    /// How many of them the level asks for.
    pub needed: u8,
    /// How many replicas were sent what they lacked.
    pub repaired: usize,
    /// How often a further replica was asked because one was late.
    pub hedges: usize,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// Something that happened on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long after the beginning, in microseconds.
    pub after_us: u64,
    /// With which node.
    pub node: NodeName,
    /// What: `asked_value`, `asked_versions`, `sent_write`, `repaired`, `asked_claim`, `asked`,
    /// `answered`, `durable`, `superseded`, `failed` or `late`.
    pub event: String,
    /// The newest version that the node knew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<Version>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl From<&RequestPath> for Path {
    fn from(path: &RequestPath) -> Path {
        let number = |event: &PathEvent| path.steps.iter().filter(|step| step.event == *event).count();
        Path {
            coordinator: NodeName(path.coordinator),
            epoch: path.epoch.0,
            partition: path.partition.0,
            replicas: path.replicas.iter().copied().map(NodeName).collect(),
            needed: path.needed,
            repaired: number(&PathEvent::Repaired),
            hedges: number(&PathEvent::Late),
            steps: path.steps.iter().map(Step::from).collect(),
        }
    }
}

impl From<&crate::types::PathStep> for Step {
    fn from(step: &crate::types::PathStep) -> Step {
        let (event, version, reason) = match &step.event {
            PathEvent::AskedValue => ("asked_value", None, None),
            PathEvent::AskedVersions => ("asked_versions", None, None),
            PathEvent::SentWrite => ("sent_write", None, None),
            PathEvent::Repaired => ("repaired", None, None),
            PathEvent::AskedClaim => ("asked_claim", None, None),
            PathEvent::Asked => ("asked", None, None),
            PathEvent::Answered(stamp) => ("answered", stamp.as_ref(), None),
            PathEvent::Durable => ("durable", None, None),
            PathEvent::Superseded(stamp) => ("superseded", Some(stamp), None),
            PathEvent::Failed(reason) => ("failed", None, Some(reason.clone())),
            PathEvent::Late => ("late", None, None),
        };
        Step {
            after_us: step.after_us,
            node: NodeName(step.node),
            event: event.to_owned(),
            version: version.map(Version::from),
            reason,
        }
    }
}

/// What became of the write of an op-id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// `applied`, or `not-applied`: then it never will be.
    pub outcome: String,
    /// The version that it made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<Version>,
    /// How many replicas have it on disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged: Option<u8>,
}

impl Resolved {
    /// It was applied.
    pub fn applied(reply: &WriteReply) -> Resolved {
        let version = Some(Version::from(&reply.stamp));
        Resolved { outcome: "applied".into(), version, acknowledged: Some(reply.acknowledged) }
    }

    /// It was not, and never will be.
    pub fn not_applied() -> Resolved {
        Resolved { outcome: "not-applied".into(), version: None, acknowledged: None }
    }
}
