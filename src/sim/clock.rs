//! The clocks of a host: one that only grows and drifts, and a time of day that also jumps.

use std::time::Duration;

use crate::types::{Moment, Now, WallTime};

/// The true time of day when a simulation begins, in milliseconds.
const START_MS: u64 = 1_800_000_000_000;

/// The true time of day.
pub(super) fn true_wall(now: Moment) -> WallTime {
    WallTime(START_MS + now.0 / 1_000)
}

/// A host's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    booted: Moment,
    drift_ppm: i64,
    /// The error of the time of day when it was last set, and when that was.
    error_us: i64,
    set_at: Moment,
}

impl Clock {
    pub(super) fn new(drift_ppm: i64) -> Clock {
        Clock { booted: Moment(0), drift_ppm, error_us: 0, set_at: Moment(0) }
    }

    /// The process starts: its own time begins anew.
    pub(super) fn boot(&mut self, now: Moment) {
        self.booted = now;
    }

    /// Sets the time of day, wrong by this much.
    pub(super) fn set(&mut self, now: Moment, error_us: i64) {
        self.error_us = error_us;
        self.set_at = now;
    }

    fn drifted(&self, micros: u64) -> i64 {
        let micros = i64::try_from(micros).expect("simulations are short");
        micros * self.drift_ppm / 1_000_000
    }

    pub(super) fn now(&self, now: Moment) -> Now {
        let up = now.0 - self.booted.0;
        let error = self.error_us + self.drifted(now.0 - self.set_at.0);
        Now {
            moment: Moment(up.saturating_add_signed(self.drifted(up))),
            wall: WallTime((START_MS * 1_000 + now.0).saturating_add_signed(error) / 1_000),
        }
    }

    /// The first true moment from `now` on at which the host's own moment is `due` or later.
    pub(super) fn when(&self, due: Moment, now: Moment) -> Moment {
        let due_us = i128::from(due.0);
        let up = due_us * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut when = Moment(self.booted.0 + u64::try_from(up).expect("moments are not negative")).max(now);
        while self.now(when).moment < due {
            when = when.plus(Duration::from_micros(1));
        }
        when
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_found_again_whatever_the_drift() {
        for drift in [-200, -1, 0, 1, 200] {
            let mut clock = Clock::new(drift);
            clock.boot(Moment(5_000_000));
            for due in [0, 1, 999, 1_000_000, 123_456_789] {
                let when = clock.when(Moment(due), Moment(5_000_000));
                assert!(clock.now(when).moment >= Moment(due), "drift {drift}, due {due}");
                assert!(when.0 < 5_000_002 || clock.now(Moment(when.0 - 2)).moment < Moment(due));
            }
        }
    }

    #[test]
    fn the_time_of_day_is_wrong_by_what_was_set() {
        let mut clock = Clock::new(0);
        clock.set(Moment(1_000_000), -240_000);
        assert_eq!(clock.now(Moment(2_000_000)).wall.0 + 240, true_wall(Moment(2_000_000)).0);
    }
}
