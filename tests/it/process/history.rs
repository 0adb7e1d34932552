//! What one writer did to its keys, and what may therefore be found there.
//!
//! Only one writer writes a key, one value after the other, so that the check is exact:
//! a read must return the last acknowledged value, or one whose outcome was in doubt and
//! that was sent after it. Anything older has come back, anything else is invented, and
//! nothing at all means an acknowledged write was lost.

use dogsled::ambient::wall;
use std::time::Duration;

/// The writes to one key.
#[derive(Clone, Debug, Default)]
pub struct KeyHistory {
    acknowledged: Option<String>,
    in_doubt: Vec<String>,
}

impl KeyHistory {
    pub fn acknowledged(&mut self, value: String) {
        self.acknowledged = Some(value);
        // What was sent earlier has an earlier timestamp and can never win again.
        self.in_doubt.clear();
    }

    pub fn in_doubt(&mut self, value: String) {
        self.in_doubt.push(value);
    }

    /// Whether a read may return this.
    pub fn allows(&self, found: Option<&str>) -> bool {
        match found {
            None => self.acknowledged.is_none(),
            Some(found) => {
                self.acknowledged.as_deref() == Some(found) || self.in_doubt.iter().any(|value| value == found)
            }
        }
    }
}

/// Waits until the clock has moved on, so that a write whose outcome is in doubt has an
/// earlier timestamp than the next one, whichever node gives it: timestamps of two nodes
/// within one millisecond are not ordered by when they were given.
pub fn let_the_clock_move_on() {
    let before = wall();
    while wall().0 < before.0 + 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_lost_or_an_older_value_is_noticed() {
    let mut history = KeyHistory::default();
    assert!(history.allows(None) && !history.allows(Some("invented")));
    history.in_doubt("a".to_owned());
    assert!(history.allows(None) && history.allows(Some("a")));
    history.acknowledged("b".to_owned());
    assert!(history.allows(Some("b")));
    assert!(!history.allows(None), "an acknowledged write was lost");
    assert!(!history.allows(Some("a")), "an older value has come back");
    history.in_doubt("c".to_owned());
    history.in_doubt("d".to_owned());
    assert!(["b", "c", "d"].iter().all(|value| history.allows(Some(value))));
    history.acknowledged("e".to_owned());
    assert!(!["b", "c", "d"].iter().any(|value| history.allows(Some(value))));
}
