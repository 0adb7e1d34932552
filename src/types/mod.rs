//! The words of the domain: values only, no input or output, no clock, no chance.
//!
//! Every other layer speaks in these types; this one names no other layer.
//! Modules stand in reading order: what a node is called, what it counts, when
//! things happen, what is stored, what a client asks, and who owns what.

mod ids;
mod counters;
mod time;
mod clock;
mod token;
mod key;
mod version;
mod mutation;
mod consistency;
mod request;
mod bounded;
mod cluster_map;
pub mod limits;

pub use clock::{ClockSkew, HybridClock, Timestamp};
pub use cluster_map::{Assignment, ClusterId, ClusterMap, MapError, Member, Namespace};
pub use consistency::{ConsistencyLevel, UnknownLevel};
pub use counters::{CommitNumber, Counter, Epoch, Incarnation};
pub use ids::{Actor, InvalidNodeId, NamespaceId, NodeId, Zone};
pub use key::{Key, KeyError};
pub use mutation::{Applied, Mutation, ScanRange, ScanResult};
pub use request::{
    Expiry, Failure, Operation, Outcome, ReadReply, Refusal, Request, Response, ScanEntry, ScanPage, WriteReply,
};
pub use time::{Moment, Now, WallTime};
pub use token::{Partition, PartitionCount, Token};
pub use version::{Content, Dot, Stamp, Summary, Version};
