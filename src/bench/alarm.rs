//! An alarm that rings to the microsecond.
//!
//! tokio's own timers are rounded up to a millisecond, which an open loop would report as
//! latency of the server. On Linux a timer of the kernel is used in their place.

use std::io;
use std::time::Duration;

/// One alarm of one thread.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Alarm(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Alarm {
    #[expect(
        deprecated,
        reason = "the safe constructor is deprecated because a type might close or swap its descriptor; OwnedFd does not"
    )]
    pub(super) fn new() -> io::Result<Alarm> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Alarm(tokio::io::unix::AsyncFd::new(timer)?))
    }

    /// Waits this long.
    pub(super) async fn sleep(&self, time: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        // Zero would disarm the timer.
        let time = time.max(Duration::from_nanos(1));
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        timerfd_settime(
            self.0.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: never, it_value: value },
        )?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0_u8; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(rung) => return rung.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

/// One alarm of one thread.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        Ok(Alarm)
    }

    /// Waits this long, rounded up to a millisecond.
    pub(super) async fn sleep(&self, time: Duration) -> io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::moment;

    #[test]
    fn the_alarm_does_not_ring_early_and_can_be_set_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            for micros in [0, 300, 2_000] {
                let before = moment();
                alarm.sleep(Duration::from_micros(micros)).await.unwrap();
                assert!(moment().since(before) >= Duration::from_micros(micros));
            }
        });
    }
}
