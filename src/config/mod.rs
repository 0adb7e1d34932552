//! What a node is told: one TOML file, each key of which an environment variable or a
//! flag may override.
//!
//! Problem: a wrong setting must be found before anything is opened, and all wrong
//! settings at once, each with its key, where it came from and what to do about it.
//! Invariant: whoever holds a [`NodeConfig`] from [`load()`] holds one that passed
//! `validate`: required keys are there, numbers are in range,
//! files exist, and no client port is open to other machines without a password.

mod setting;
mod sections;
mod load;
mod validate;
pub mod logging;

pub use load::{ConfigError, Override, Problem, environment_name, load, parse_set};
pub use sections::{
    ClientsSection, ClusterSection, FieldReference, ListenSection, LogSection, NodeConfig, NodeSection,
    RequestsSection, SectionReference, StorageSection, TlsSection, reference,
};
pub use setting::{Secret, Setting, Transactions};
