//! The only place where tokio meets `protocol`: one event loop that owns the machine,
//! feeds it what happens, and carries out what it says.
//!
//! A running node is these threads: `node` (event loop and network, one current-thread
//! runtime), `committer` and `reader` (the store), and whatever front ends hold a
//! [`NodeHandle`]. Only the event loop touches the machine, so there is no lock around it.

mod options;
mod inbox;
mod event_loop;
mod handle;
mod members;
mod samples;
mod start;
pub mod map_file;

pub use handle::{NodeHandle, NodeStatus, PeerStatus};
pub use members::{MemberStatus, MembersStatus, Relation};
pub use options::{NodeOptions, StartError};
pub use samples::{Sample, SampleKind};
pub use start::{RunningNode, StopReason, start};
