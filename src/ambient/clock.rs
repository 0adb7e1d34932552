//! The real clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use crate::types::{Moment, Now, WallTime};

/// A way to ask for the time, so that tests can hand in their own.
pub type Clock = fn() -> Now;

static START: OnceLock<Instant> = OnceLock::new();

/// Time since this process first asked.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn moment() -> Moment {
    let now = Instant::now();
    let start = *START.get_or_init(|| now);
    Moment(u64::try_from(now.duration_since(start).as_micros()).expect("no process runs 500,000 years"))
}

/// The time of day; 1970 if the machine's clock stands before it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both.
pub fn now() -> Now {
    Now { moment: moment(), wall: wall() }
}
