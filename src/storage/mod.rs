//! What a replica keeps, and the promise that it is kept.
//!
//! Invariant: when [`Storage::sync`] has returned, every mutation that was applied
//! before it was called survives a power cut; after one, what is found is a prefix of
//! what was applied, cut between mutations.
//!
//! The [`Committer`] is the only writer of a store and the [`Readers`] read it beside
//! the node's event loop; both sit behind bounded queues and answer in batches.

mod error;
mod engine;
mod log;
mod verdict;
mod pull_room;
mod files;
pub mod incarnation;
pub mod memory;
pub mod sled;
mod counters;
mod committer;
mod readers;

pub use committer::{Committer, OnCommitted, OnFailure, Refused};
pub use counters::{Counters, CountersSnapshot};
pub use engine::{Held, Recovered, Storage};
pub use error::StorageError;
pub use readers::{OnAnswers, ReadAnswer, ReadOrder, Readers, StoreStatistics};

/// Keys of all namespaces that one scan looks at before it closes its page.
const SCAN_EXAMINED_KEYS: usize = 4 * crate::types::limits::SCAN_PAGE_ENTRIES as usize;
