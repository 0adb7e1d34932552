//! How much is logged.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The levels of `SERVER_LOG_LEVEL`, each with those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Nothing.
    Off,
    /// What ends the process.
    Fatal,
    /// What failed.
    Error,
    /// What is wrong but dealt with.
    Warn,
    /// What an operator wants to know; from here on, libraries still only warn.
    Info,
    /// What a developer wants to know; libraries inform.
    Debug,
    /// Every step of this program; libraries inform.
    Trace,
    /// Every step of every library too.
    All,
}

/// Not a level.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no level: use OFF, FATAL, ERROR, WARN, INFO, DEBUG, TRACE or ALL")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        Ok(match text.trim().to_ascii_uppercase().as_str() {
            "OFF" => Level::Off,
            "FATAL" => Level::Fatal,
            "ERROR" => Level::Error,
            "WARN" => Level::Warn,
            "INFO" => Level::Info,
            "DEBUG" => Level::Debug,
            "TRACE" => Level::Trace,
            "ALL" => Level::All,
            _ => return Err(UnknownLevel(text.chars().take(40).collect())),
        })
    }
}

impl Level {
    /// What lets through the lines of this level.
    pub(super) fn filter(self) -> Targets {
        let (own, libraries) = match self {
            Level::Off | Level::Fatal => (LevelFilter::OFF, LevelFilter::OFF),
            Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
            Level::Warn => (LevelFilter::WARN, LevelFilter::WARN),
            Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
            Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
            Level::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
            Level::All => (LevelFilter::TRACE, LevelFilter::TRACE),
        };
        let fatal = if self == Level::Off { LevelFilter::OFF } else { LevelFilter::ERROR };
        Targets::new().with_default(libraries).with_target("dogsled", own).with_target(super::FATAL, fatal)
    }
}
