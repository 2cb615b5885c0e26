//! The shim's own clock for the end of the lease: it also counts while the machine sleeps, and needs no runner.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Mutex;

use super::term::BootTime;

/// Burns down at a moment that can be moved until then.
pub(super) struct Fuse {
    timer: OwnedFd,
    /// The same timer: reading it waits for its end as reading a pipe waits for bytes.
    end: Mutex<Receiver>,
}

impl Fuse {
    pub(super) fn new(at: BootTime) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let end = Mutex::new(Receiver::from_owned_fd_unchecked(timer.try_clone()?)?);
        let fuse = Self { timer, end };
        fuse.set(at)?;
        Ok(fuse)
    }

    /// A moment that is past burns it down at once.
    pub(super) fn set(&self, at: BootTime) -> io::Result<()> {
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Nothing at all would disarm it.
        let millis = i64::try_from(at.0.max(1)).unwrap_or(i64::MAX);
        let at = Timespec {
            tv_sec: millis / 1000,
            tv_nsec: (millis % 1000) * 1_000_000,
        };
        let timer = Itimerspec {
            it_interval: never,
            it_value: at,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer)?;
        Ok(())
    }

    /// Ends when it has burnt down; also when there is no clock, since without one nobody may live on.
    pub(super) async fn burnt(&self) {
        let _ = self.end.lock().await.read_u64().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_burns_down_at_its_moment_and_not_where_it_was_before() {
        let fuse = Fuse::new(BootTime::now().after(Duration::from_secs(600))).expect("a fuse");
        let moved = BootTime::now().after(Duration::from_millis(30));
        fuse.set(moved).expect("moved");
        fuse.burnt().await;
        assert!(BootTime::now() >= moved);
        let past = Fuse::new(BootTime(0)).expect("a fuse");
        past.burnt().await;
    }
}
