//! The hybrid logical clock.
//!
//! Problem: last-write-wins needs timestamps that follow cause and effect even when
//! the machines' clocks disagree or jump.
//! Invariant: a timestamp is above every one that this clock gave or accepted before,
//! and no more than `max_skew` ahead of this machine's time of day unless the time of
//! day itself went back.
//! Source: Kulkarni et al., "Logical Physical Clocks", 2014, section 3.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WallTime;

/// 48 bits of milliseconds since 1970 and 16 bits that count within one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

const LOGICAL_BITS: u32 = 16;

impl Timestamp {
    /// The first timestamp of a millisecond.
    pub fn at(wall: WallTime) -> Timestamp {
        Timestamp(wall.0.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS)
    }

    /// The millisecond it lies in.
    pub fn wall(self) -> WallTime {
        WallTime(self.0 >> LOGICAL_BITS)
    }

    /// The timestamp that lies this much later.
    pub fn plus(self, after: Duration) -> Timestamp {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX >> LOGICAL_BITS);
        Timestamp(self.0.saturating_add(millis.saturating_mul(1 << LOGICAL_BITS)))
    }

    /// The smallest timestamp above this one.
    pub fn next(self) -> Timestamp {
        Timestamp(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.0 & ((1 << LOGICAL_BITS) - 1))
    }
}

/// A timestamp from another machine lies too far in the future to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is {ahead_ms} ms ahead of this node's clock; set the clocks right (NTP)")]
pub struct ClockSkew {
    /// By how much, in milliseconds.
    pub ahead_ms: u64,
}

/// Gives timestamps and takes in those of others.
#[derive(Clone, Debug)]
pub struct HybridClock {
    last: Timestamp,
    max_skew: Duration,
}

impl HybridClock {
    /// A clock that continues after `last`, the highest timestamp that this node's store knows.
    pub fn new(last: Timestamp, max_skew: Duration) -> HybridClock {
        HybridClock { last, max_skew }
    }

    /// The highest timestamp given or accepted.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// A new timestamp, above all earlier ones.
    pub fn tick(&mut self, wall: WallTime) -> Timestamp {
        self.last = self.last.next().max(Timestamp::at(wall));
        self.last
    }

    /// A new timestamp that is above all earlier ones and not above `ceiling`; none if
    /// there is no such. It may lie behind the time of day then.
    pub fn tick_below(&mut self, wall: WallTime, ceiling: Timestamp) -> Option<Timestamp> {
        let next = self.last.next();
        if next > ceiling {
            return None;
        }
        self.last = next.max(Timestamp::at(wall).min(ceiling));
        Some(self.last)
    }

    /// Takes in a timestamp from elsewhere, so that later ones lie above it.
    ///
    /// # Errors
    /// [`ClockSkew`] if it is too far ahead; the clock is as it was.
    pub fn observe(&mut self, remote: Timestamp, wall: WallTime) -> Result<(), ClockSkew> {
        let ahead_ms = remote.wall().0.saturating_sub(wall.0);
        if u128::from(ahead_ms) > self.max_skew.as_millis() && remote > self.last {
            return Err(ClockSkew { ahead_ms });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_millis(500);

    #[test]
    fn timestamps_grow_even_if_the_time_of_day_goes_back() {
        let mut clock = HybridClock::new(Timestamp::default(), SKEW);
        let first = clock.tick(WallTime(10_000));
        let second = clock.tick(WallTime(10_000));
        let third = clock.tick(WallTime(9_000));
        assert!(first < second && second < third);
        assert_eq!(first.wall(), WallTime(10_000));
    }

    #[test]
    fn a_ceiling_is_kept_below() {
        let mut clock = HybridClock::new(Timestamp::default(), SKEW);
        let ceiling = Timestamp::at(WallTime(10_000)).plus(Duration::from_millis(250));
        assert_eq!(ceiling.wall(), WallTime(10_250));
        assert_eq!(clock.tick_below(WallTime(10_100), ceiling), Some(Timestamp::at(WallTime(10_100))));
        assert_eq!(clock.tick_below(WallTime(20_000), ceiling), Some(ceiling));
        assert_eq!(clock.tick_below(WallTime(20_000), ceiling), None);
        assert_eq!(clock.last(), ceiling);
    }

    #[test]
    fn what_was_observed_lies_below_what_is_given_next() {
        let mut clock = HybridClock::new(Timestamp::default(), SKEW);
        let remote = Timestamp::at(WallTime(10_400));
        clock.observe(remote, WallTime(10_000)).expect("within the allowed skew");
        assert!(clock.tick(WallTime(10_000)) > remote);
    }

    #[test]
    fn a_timestamp_from_the_far_future_is_refused_and_leaves_no_mark() {
        let mut clock = HybridClock::new(Timestamp::default(), SKEW);
        let before = clock.tick(WallTime(10_000));
        let refused = clock.observe(Timestamp::at(WallTime(10_501)), WallTime(10_000));
        assert_eq!(refused, Err(ClockSkew { ahead_ms: 501 }));
        assert_eq!(clock.last(), before);
    }
}
