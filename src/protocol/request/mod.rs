//! A client's request as a value, held by its request coordinator.
//!
//! Problem: a read or write must reach as many replicas as its level asks for, and its
//! end must be told truthfully: applied, certainly not applied, or in doubt.
//!
//! Messages: the request asks replicas (this node's own store is one of them and is
//! asked the same way) and takes their answers. It never waits for anything else.
//!
//! Invariants:
//! - `Applied` ⇒ at least W replicas have it, or something newer, on disk.
//! - `NotApplied` ⇒ every replica that was asked said that it did nothing.
//! - All else is `InDoubt`.
//! - A read at level R returns what R replicas together know.
//!
//! Source: DeCandia et al., "Dynamo", SOSP 2007, section 4.5 and 5.2; the shape is that of
//! Riak's `riak_kv_put_core` and `riak_kv_get_core`.

mod context;
mod coordination;
mod read;
mod write;
mod amend;
mod siblings;
mod claim;
mod history;
mod scan;
mod confirm;
mod count;
mod forward;

pub use context::{Answer, Context, DotCounters, Effect};
pub use coordination::Coordination;

#[cfg(test)]
#[path = "fixture.rs"]
pub(crate) mod fixture;
