//! Small clients of a running node, for the command line, the benchmark and the tests.

pub mod http;
pub mod resp;
