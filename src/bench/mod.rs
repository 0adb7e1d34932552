//! A load generator for any server of the Redis protocol.
//!
//! Problem: compare stores under the same load, honestly. The loop is *closed* (each
//! connection sends its next operation when one has been answered) or *open* (operations
//! are due at a fixed rate, whether or not the server keeps up). An open loop counts
//! latency from the moment an operation was due, so that a stall is charged to every
//! operation it held up and not only to the few that were under way (coordinated
//! omission). Every value that is written differs from the one before, because stores
//! skip writes that change nothing. The generator is frugal: it shares the machine with
//! the servers it measures, so its own CPU time is reported beside theirs.
//!
//! Sources: YCSB (Cooper et al., 2010) for workloads and the scrambled zipfian; Tene,
//! "How not to measure latency", for coordinated omission. Left out: YCSB's workload E,
//! because the Redis protocol has no ordered range scan for strings.

mod args;
mod keys;
mod operation;
mod schedule;
mod alarm;
mod connection;
mod worker;
mod measure;
mod processes;
mod report;
mod run;

pub use args::{BenchArgs, Distribution, Mix, OutputFormat, Workload};
pub use report::{BenchReport, KindReport, Latency, LoadReport, ProcessCpu, ServerCpu};
pub use run::{BenchError, run};
