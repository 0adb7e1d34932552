//! Who is alive: the words that nodes use of each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Incarnation;

/// Up to when a node has spoken for itself: its start, and how often it has refuted since.
///
/// Whatever is said of a node is said of one life, and a later life refutes it (SWIM,
/// section 4.2). The first part is kept on disk, so a restarted node need not know what was
/// said of it before.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Life {
    /// Which start of the node.
    pub incarnation: Incarnation,
    /// How often it has refuted what was said of it since that start.
    pub refutation: u32,
}

impl Life {
    /// The life that begins with a start.
    pub fn begun(incarnation: Incarnation) -> Life {
        Life { incarnation, refutation: 0 }
    }

    /// The life that refutes what was said of this one.
    ///
    /// # Panics
    /// After four thousand million refutations.
    pub fn refuted(self) -> Life {
        let refutation = self.refutation.checked_add(1).expect("nobody refutes that often");
        Life { refutation, ..self }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.refutation)
    }
}

/// What one observer thinks of a node that it watches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answers.
    Alive,
    /// It does not answer, and has some time left to refute that.
    Suspect,
    /// It did not answer, nor refute it in time.
    Down,
}

impl Health {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Health::Alive => "alive",
            Health::Suspect => "suspect",
            Health::Down => "down",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How busy a node says it is.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Less than half of what it can take is under way.
    #[default]
    Normal,
    /// Half or more.
    High,
    /// Nine tenths or more: it is about to refuse.
    Full,
}

impl Load {
    /// The load of a node that has `under_way` of at most `most` things to do.
    pub fn of(under_way: usize, most: usize) -> Load {
        match under_way {
            few if few < most / 2 => Load::Normal,
            many if many < most - most / 10 => Load::High,
            _ => Load::Full,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Load::Normal => "normal",
            Load::High => "high",
            Load::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_is_above_any_refutation() {
        let first = Life::begun(Incarnation(1));
        assert!(first < first.refuted());
        assert!(first.refuted().refuted() < Life::begun(Incarnation(2)));
        assert_eq!(first.refuted().to_string(), "1.1");
    }

    #[test]
    fn load_has_three_levels() {
        let loads = [0, 49, 50, 89, 90, 100].map(|under_way| Load::of(under_way, 100));
        assert_eq!(loads, [Load::Normal, Load::Normal, Load::High, Load::High, Load::Full, Load::Full]);
    }
}
