//! What can go wrong with a store. After any of these the node stops: nothing that
//! was not acknowledged before is acknowledged after.

use std::any::Any;
use std::path::{Path, PathBuf};

/// A store that can no longer be trusted to keep what it is given.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file or directory cannot be used as needed. Nothing was changed.
    #[error("{path}: {action}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// sled reported an error, or panicked. What was not synced before is in doubt.
    #[error("sled: {0}")]
    Engine(String),
    /// Stored bytes are not what was written: never served, never taken for "not found".
    #[error("corrupt data in {tree}: {what}")]
    Corrupt {
        /// In which tree.
        tree: &'static str,
        /// What was found.
        what: String,
    },
    /// The self-test found that syncing does not reach the disk's file.
    #[error("self-test: {0}")]
    SelfTest(String),
    /// The store was made by another version, or with other settings that cannot change.
    /// Nothing was changed.
    #[error("{path}: {what}")]
    Incompatible {
        /// Where the store lies.
        path: PathBuf,
        /// What differs, and what to do.
        what: String,
    },
    /// Another process has the store open.
    #[error("{0}: the store is in use by another process")]
    Locked(PathBuf),
}

impl StorageError {
    /// For `map_err` on the operations of files.
    pub(super) fn file(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> StorageError {
        move |source| StorageError::File { path: path.to_owned(), action, source }
    }

    /// What a panic said, as an error.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> StorageError {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        StorageError::Engine(format!("panicked: {}", said.unwrap_or("without a message")))
    }
}
