//! Messages between peers and the bytes they travel as.
//!
//! A frame is `length: u32 LE ‖ kind: u8 ‖ body`. The kind says what the body is, so
//! that a node can answer a kind it does not know (rolling upgrades) while a body that
//! contradicts its kind is an error and ends the connection. Bodies are postcard.
//!
//! Invariant: decoding what encoding gave returns the same value; decoding anything
//! else returns an error, never panics, and takes no more memory than 64 times the length
//! of the input and 2 MiB (a list gets room for 1 MiB on its word, see `memory_tests`).

mod gossip;
mod datagram;
mod message;
mod frame;
mod hello;
#[cfg(test)]
mod strategies_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod format_tests;

pub use datagram::{Datagram, DatagramError, Probe, ProbeId};
pub use frame::{FrameError, FrameReader, write_frame};
pub use gossip::{Gossip, Rumour, RumourId};
pub use hello::{Hello, HelloError, PROTOCOL_VERSION};
pub use message::{
    DecodeError, Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId, Statistics, decode, encode,
};
