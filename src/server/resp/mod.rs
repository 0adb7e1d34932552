//! The Redis protocol, RESP2 and RESP3, for every client library that speaks it.
//!
//! Problem: commands come pipelined from clients that wait for nothing, and each is a
//! request to a quorum. Invariants: replies leave in order; a connection behaves as if its
//! commands ran one after the other (`window`); what it may hold of memory is bounded on
//! every side (`connection`); no command costs a task of its own.
//! What is offered, and the exact texts, are in `table` and the modules of `commands`.

mod ask;
mod clients;
mod commands;
mod connection;
mod executor;
mod decode;
mod dispatch;
mod finish;
mod glob;
mod inline;
mod options;
mod reply;
mod serve;
mod session;
mod table;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clients::Clients;

pub use decode::{Args, DecodeLimits, Decoded, Decoder, ProtocolError};
pub use options::{RespOptions, Transactions};
pub use serve::serve;

use super::Backend;
use crate::types::limits;

/// The names of all commands, by their place in the table.
pub(in crate::server) fn command_names() -> impl Iterator<Item = &'static str> {
    table::TABLE.iter().map(|spec| spec.name)
}

/// What all connections of one server share.
struct Shared {
    backend: Arc<dyn Backend>,
    options: RespOptions,
    clients: Clients,
    max_value_bytes: usize,
    /// Bytes held by half-sent commands, above what every connection may hold.
    input_bytes: AtomicUsize,
    /// Bytes of values that commands under way may bring in, at the worst.
    read_bytes: Arc<AtomicUsize>,
}

impl Shared {
    /// Changes what a connection holds of the common input memory; false if there is none left.
    fn recharge(&self, held: &mut usize, wanted: usize) -> bool {
        if wanted > *held {
            let more = wanted - *held;
            let before = self.input_bytes.fetch_add(more, Ordering::Relaxed);
            if before + more > limits::RESP_INPUT_BYTES {
                self.input_bytes.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            self.input_bytes.fetch_sub(*held - wanted, Ordering::Relaxed);
        }
        *held = wanted;
        true
    }
}
