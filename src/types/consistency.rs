//! How many replicas must have spoken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SeededBug;

/// The level of one read or write (DESIGN section 5).
///
/// SERIAL is not offered yet and is refused by name where a level is parsed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsistencyLevel {
    /// Two durable copies anywhere; for writes only. Without hints, which are not offered
    /// yet, the copies are those of two replicas.
    Any,
    /// One replica.
    One,
    /// Two replicas.
    Two,
    /// Three replicas.
    Three,
    /// A majority of the replicas.
    #[default]
    Quorum,
    /// Every replica.
    All,
}

/// The text names no level that is offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownLevel {
    /// A level of the design that is not built yet.
    #[error("consistency level '{0}' is not offered yet: use any, one, two, three, quorum or all")]
    NotOffered(String),
    /// No level at all.
    #[error("unknown consistency level '{0}': use any, one, two, three, quorum or all")]
    Unknown(String),
}

impl ConsistencyLevel {
    /// All levels, weakest first.
    pub const ALL_LEVELS: [ConsistencyLevel; 6] = [
        ConsistencyLevel::Any,
        ConsistencyLevel::One,
        ConsistencyLevel::Two,
        ConsistencyLevel::Three,
        ConsistencyLevel::Quorum,
        ConsistencyLevel::All,
    ];

    /// Whether two requests at this level always share a replica.
    pub fn is_quorum(self, replicas: usize) -> bool {
        self.required(replicas) * 2 > replicas
    }

    /// How many of `replicas` must answer. May exceed `replicas`: then the level cannot be met.
    pub fn required(self, replicas: usize) -> usize {
        match self {
            ConsistencyLevel::Any => replicas.clamp(1, 2),
            ConsistencyLevel::One => 1,
            ConsistencyLevel::Two => 2,
            ConsistencyLevel::Three => 3,
            ConsistencyLevel::Quorum if SeededBug::QuorumTooSmall.is_planted() => (replicas / 2).max(1),
            ConsistencyLevel::Quorum => replicas / 2 + 1,
            ConsistencyLevel::All => replicas.max(1),
        }
    }
}

impl fmt::Display for ConsistencyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConsistencyLevel::Any => "any",
            ConsistencyLevel::One => "one",
            ConsistencyLevel::Two => "two",
            ConsistencyLevel::Three => "three",
            ConsistencyLevel::Quorum => "quorum",
            ConsistencyLevel::All => "all",
        })
    }
}

impl FromStr for ConsistencyLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<ConsistencyLevel, UnknownLevel> {
        let lower = text.to_ascii_lowercase();
        ConsistencyLevel::ALL_LEVELS.into_iter().find(|level| level.to_string() == lower).ok_or_else(|| {
            match lower.as_str() {
                "serial" => UnknownLevel::NotOffered(lower),
                _ => UnknownLevel::Unknown(text.to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_replicas_per_level() {
        use ConsistencyLevel::{All, Any, One, Quorum, Three, Two};
        let cases = [
            (Any, 3, 2),
            (Any, 1, 1),
            (One, 3, 1),
            (Two, 3, 2),
            (Three, 3, 3),
            (Quorum, 1, 1),
            (Quorum, 2, 2),
            (Quorum, 3, 2),
            (Quorum, 4, 3),
            (Quorum, 5, 3),
            (All, 3, 3),
            (All, 5, 5),
            (Three, 2, 3),
        ];
        for (level, replicas, required) in cases {
            assert_eq!(level.required(replicas), required, "{level} of {replicas}");
        }
    }

    #[test]
    fn levels_read_back_and_others_are_named() {
        for level in ConsistencyLevel::ALL_LEVELS {
            assert_eq!(level.to_string().to_uppercase().parse(), Ok(level));
        }
        assert_eq!("SERIAL".parse::<ConsistencyLevel>(), Err(UnknownLevel::NotOffered("serial".into())));
        assert_eq!("most".parse::<ConsistencyLevel>(), Err(UnknownLevel::Unknown("most".into())));
    }
}
