//! The way a request took, for people: whom it asked, what was answered, what was mended.

use serde::{Deserialize, Serialize};

use super::bounded::bounded_list;
use super::{Epoch, NodeId, Partition, Stamp, limits};

/// The way one request took.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestPath {
    /// Who was its request coordinator.
    pub coordinator: NodeId,
    /// The epoch of the map that it was planned with.
    pub epoch: Epoch,
    /// The partition that it was about.
    pub partition: Partition,
    /// The replicas of the partition, primary first.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::MAX_REPLICATION_FACTOR as usize }>")]
    pub replicas: Vec<NodeId>,
    /// How many of them its level asks for.
    pub needed: u8,
    /// What happened, in order; long ones are cut off.
    #[serde(deserialize_with = "bounded_list::<_, _, { limits::PATH_STEPS }>")]
    pub steps: Vec<PathStep>,
}

/// Something that happened on the way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathStep {
    /// How long after the beginning, in microseconds.
    pub after_us: u64,
    /// With which node.
    pub node: NodeId,
    /// What.
    pub event: PathEvent,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathEvent {
    /// It was asked for a record with its values.
    AskedValue,
    /// It was asked for a record's versions only.
    AskedVersions,
    /// It was sent a write.
    SentWrite,
    /// It was sent what it lacked.
    Repaired,
    /// It was asked what an op-id stands for.
    AskedClaim,
    /// It was asked for something else.
    Asked,
    /// It answered with this as the newest version it knows.
    Answered(Option<Stamp>),
    /// It has made the write durable.
    Durable,
    /// It holds something newer.
    Superseded(Stamp),
    /// It refused, or its answer cannot come any more.
    Failed(String),
    /// It was late, so a further one was asked.
    Late,
}
