//! Everything that is tested from outside the crate, in one binary: a module a subject.

mod node;
mod power_cut;
mod sim;
mod storage;
mod storage_model;
mod transport;
mod transport_garbage;
mod transport_rotation;
mod transport_security;
mod transport_suite;
