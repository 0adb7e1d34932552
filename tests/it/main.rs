//! Everything that is tested from outside the crate, in one binary: a module a subject.

mod http_harness;
mod http_hostile;
mod http_keys;
mod node;
mod power_cut;
mod resp_clients;
mod resp_commands;
mod resp_fake;
mod resp_harness;
mod resp_hostile;
mod resp_pipeline;
mod sim;
mod storage;
mod storage_model;
mod transport;
mod transport_garbage;
mod transport_rotation;
mod transport_security;
mod transport_suite;
