//! Waiting until a moment, to some ten microseconds: the runtime's timer counts whole milliseconds, which is longer than what is
//! measured.
//!
//! Owns: the kernel's timer. Does not own: which moment.

use std::io;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One timer.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(deprecated, reason = "its successor is not safe to call; a file that is owned stays what it is")]
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Returns at `at` or a little later; at once if that is past. May be dropped half-way and called again.
    pub(crate) async fn until(&self, at: Instant) -> io::Result<()> {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.set(left)?;
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            // What rang for an earlier moment is read away as well.
            let _ = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut count)?));
        }
    }

    fn set(&self, left: Duration) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_never_early() {
        let alarm = Alarm::new().unwrap();
        let start = Instant::now();
        for n in 1..=20 {
            let at = start + Duration::from_micros(300) * n;
            alarm.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
        // One that was given up does not ring for the next.
        let given_up = alarm.until(Instant::now() + Duration::from_millis(50));
        assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
        let at = Instant::now() + Duration::from_millis(5);
        alarm.until(at).await.unwrap();
        assert!(Instant::now() >= at);
    }
}
