//! The log of a node: which lines are kept, and in which file each goes.
//!
//! Problem: many threads log at once, and none of them may wait for a disk; yet the last
//! lines before an end are the ones that matter.
//! Invariant: a line that was logged before [`LogGuard`] is dropped, or before a fatal
//! line, is in its file afterwards, unless the disk refuses it or takes longer than the
//! bound; lines that found the queue full are counted, and the count is logged.
//!
//! The environment decides:
//! - `SERVER_HOME` (must be set): files go to `$SERVER_HOME/log/`.
//! - `SERVER_LOG_LEVEL`: see [`Level`].
//! - `SERVER_ID`: the number in the names of the files, the node's own by default. Where one
//!   process emulates several nodes, a thread named `replica<id>-<role>` says its own.
//! - `PROCESS_LOGGER`: unset, each thread has its file `replica<id>-<thread>.log`; set, all
//!   share `replica<id>.log`. What is older than today (UTC) is `….<yyyy-mm-dd>.log`.
//!
//! A fatal line is an error with the target `fatal`: `tracing::error!(target: "fatal", …)`.
//! It is in its file before that call returns. Panics are logged as fatal.

mod level;
mod line;
mod files;
mod sink;

use std::path::PathBuf;

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use level::{Level, UnknownLevel};
pub use sink::LogGuard;

use crate::ambient::Clock;
use crate::types::NodeId;

/// The target that makes an error fatal.
pub const FATAL: &str = "fatal";

/// What is logged, and where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// The directory of the files.
    pub directory: PathBuf,
    /// Which lines are kept.
    pub level: Level,
    /// The id in the names of the files.
    pub server_id: String,
    /// One file for the whole process instead of one for each thread.
    pub per_process: bool,
    /// Days of which files are kept, today included.
    pub keep_days: u32,
}

/// The log cannot be begun. A directory may have been made, nothing else.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No place was named.
    #[error(
        "SERVER_HOME is not set: set it to the directory of this node, for the log under $SERVER_HOME/log \
         (`dogsled up` sets it by itself)"
    )]
    NoHome,
    /// The level is none.
    #[error("SERVER_LOG_LEVEL: {0}")]
    Level(#[from] UnknownLevel),
    /// The id cannot be part of a file's name.
    #[error("SERVER_ID: '{0}' cannot be part of a file name: use up to 64 letters, digits, '-' and '_'")]
    ServerId(String),
    /// The directory cannot be written to.
    #[error("SERVER_HOME: {path}: {source}; name a directory that this user may write to")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in this process logs already.
    #[error("the log of this process has been set up before")]
    SetUpBefore,
}

impl LogSettings {
    /// What the environment says; `variable` looks one up.
    ///
    /// # Errors
    /// [`LogError`] if it says too little or something unknown. Nothing was touched.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
        node: NodeId,
        keep_days: u32,
    ) -> Result<LogSettings, LogError> {
        let home = variable("SERVER_HOME").filter(|home| !home.is_empty()).ok_or(LogError::NoHome)?;
        let level = variable("SERVER_LOG_LEVEL").filter(|level| !level.is_empty());
        let server_id = variable("SERVER_ID").filter(|id| !id.is_empty()).unwrap_or_else(|| node.number().to_string());
        if server_id.len() > 64 || !server_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(LogError::ServerId(server_id));
        }
        Ok(LogSettings {
            directory: PathBuf::from(home).join("log"),
            level: level.map_or(Ok(Level::Info), |level| level.parse())?,
            server_id,
            per_process: variable("PROCESS_LOGGER").is_some(),
            keep_days,
        })
    }
}

/// A subscriber that writes the log, and the guard that brings the last lines to their files.
///
/// # Errors
/// [`LogError::Directory`] if the directory cannot be made or written to.
pub fn subscriber(
    settings: &LogSettings,
    clock: Clock,
) -> Result<(impl Subscriber + Send + Sync + use<>, LogGuard), LogError> {
    let (sink, guard) = sink::start(settings, clock)?;
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(line::Line { clock })
        .with_writer(sink::ByThread::new(sink, settings));
    Ok((tracing_subscriber::registry().with(settings.level.filter()).with(layer), guard))
}

/// Makes this the log of the process, and logs its panics.
///
/// # Errors
/// [`LogError`]: then nothing is logged.
pub fn start(settings: &LogSettings, clock: Clock) -> Result<LogGuard, LogError> {
    let (subscriber, guard) = subscriber(settings, clock)?;
    subscriber.try_init().map_err(|_| LogError::SetUpBefore)?;
    log_panics();
    Ok(guard)
}

fn log_panics() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        tracing::error!(target: FATAL, %place, "panic: {message}");
        previous(panic);
    }));
}

#[cfg(test)]
#[path = "logging_tests.rs"]
mod tests;
