//! Tests that run the built program: real processes, real sockets, real kills.
//!
//! Each test makes a cluster of its own in a temporary directory, on ports that were free.

pub mod cluster;
mod history;
mod proc_net;

mod deleted;
mod kill;
mod members;
mod namespaces;
mod partition;
mod race;
mod redis_client;
mod sockets;
mod start_and_stop;
mod word_list;
