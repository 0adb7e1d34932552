//! The words of the domain: values only, no input or output, no clock, no chance.
//!
//! Every other layer speaks in these types; this one names no other layer.
//! Modules stand in reading order: what a node is called, what it counts, when
//! things happen, what is stored, what a client asks, and who owns what.

mod ids;
mod counters;
mod time;
mod liveness;
mod clock;
mod token;
mod key;
mod vector;
mod version;
mod record;
mod op_id;
mod mutation;
mod session;
mod seeded_bugs;
mod path;
mod consistency;
mod request;
mod bounded;
mod cluster_map;
pub mod limits;

pub use bounded::bounded_list;
pub use clock::{ClockSkew, HybridClock, Timestamp};
pub use cluster_map::{Assignment, ClusterId, ClusterMap, MapError, Member, Namespace};
pub use consistency::{ConsistencyLevel, UnknownLevel};
pub use counters::{CommitNumber, Counter, Epoch, Incarnation};
pub use ids::{Actor, InvalidNodeId, NamespaceId, NodeId, Zone};
pub use key::{Key, KeyError};
pub use liveness::{Health, Life, Load};
pub use mutation::{
    Applied, Coverage, LocalHistory, LogPosition, Mutation, PeerMemory, Pulled, PulledItem, ScanRange, ScanResult,
    StoreId,
};
pub use op_id::{Claim, InvalidOpId, OpId};
pub use path::{PathEvent, PathStep, RequestPath};
pub use record::{Digest, MergePolicy, Record, Siblings};
pub use request::{
    Expiry, Failure, KeyHistory, Operation, Outcome, ReadReply, Refusal, ReplicaHistory, Request, Response, ScanEntry,
    ScanPage, Sibling, WriteReply,
};
pub use seeded_bugs::SeededBug;
pub use session::{InvalidSession, Session, SessionFull};
pub use time::{Moment, Now, WallTime};
pub use token::{Partition, PartitionCount, Token};
pub use vector::{CausalContext, Counters, VersionVector};
pub use version::{Content, Dot, Stamp, Stamped, Summary, Version};
