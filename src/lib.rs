//! Dogsled: a durable, leaderless, self-healing distributed key-value store.
//!
//! The layers stand in reading order; each names only layers above it in this list
//! (`ARCHITECTURE.md` has the picture, and `tests/it/tidy.rs` enforces it).

pub mod types;
pub mod wire;
pub mod ambient;
pub mod protocol;
pub mod storage;
pub mod transport;
pub mod node;
pub mod server;
pub mod client;
pub mod config;
pub mod sim;
pub mod bench;
pub mod cli;
