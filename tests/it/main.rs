//! Everything that is tested from outside the crate, in one binary: a module a subject.

mod cli_commands;
mod cli_docs;
mod cli_namespace;
mod cli_up;
mod docs;
mod http_harness;
mod http_hostile;
mod http_keys;
mod http_values;
mod logging;
mod node;
mod power_cut;
mod process;
mod readme;
mod resp_clients;
mod resp_commands;
mod resp_fake;
mod resp_harness;
mod resp_hostile;
mod resp_pipeline;
mod resp_values;
mod sim;
#[cfg(feature = "seeded-bugs")]
mod sim_teeth;
mod storage;
mod storage_deletes;
mod storage_model;
mod storage_peers;
mod storage_pull;
mod tidy;
mod transport;
mod transport_garbage;
mod transport_rotation;
mod transport_security;
mod transport_suite;
