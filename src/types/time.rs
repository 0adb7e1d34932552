//! Time as the machines see it: given to them, never taken by them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on a clock that never goes back, in microseconds since some start.
/// Comparable only with moments of the same process (or the same simulation).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment that lies `after` behind this one.
    pub fn plus(self, after: Duration) -> Moment {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(micros))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The time of day, in milliseconds since 1970: it jumps, and differs between machines.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This time and `after` more, or none past the end of time.
    pub fn checked_plus(self, after: Duration) -> Option<WallTime> {
        let millis = u64::try_from(after.as_millis()).ok()?;
        self.0.checked_add(millis).map(WallTime)
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Now {
    /// For timers and deadlines.
    pub moment: Moment,
    /// For timestamps and expiry.
    pub wall: WallTime,
}
