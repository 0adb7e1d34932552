//! The protocols as machines without input, output, clocks or chance.
//!
//! Each machine has `handle(now, input, &mut Vec<Action>)`, `next_timeout()` and getters.
//! Whoever drives it (the node, the simulator) carries out the actions in their order.
//!
//! - [`ring`] decides who owns what, as a pure function.
//! - [`request`] holds a client's request as a value: plan, write, read.
//! - `clock_watch` says whether this node's clock may stamp writes.
//! - `repair` tells what this node covers, fetches what it lacks, lets go of what all have.
//! - [`Node`] joins them and only routes.

pub mod ring;
pub mod peers;
pub mod request;
mod view;
mod detector;
mod broadcast;
pub mod membership;
mod clock_watch;
mod repair;
mod io;
mod node;

/// The longest time that a request may take, whatever its sender asks for.
pub const LONGEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

pub use clock_watch::ClockWatch;
pub use io::{Action, Input, LocalRead, LocalReadResult, NodeSettings, RequestToken, StorageTicket};
pub use node::{Node, NodeCounters};
