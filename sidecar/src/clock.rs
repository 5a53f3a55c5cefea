//! A coarse clock: ticks of a tenth of a second, counted by the janitor, read for nothing.
//!
//! Timeouts of requests and connections are compared in ticks by a scan (see [`crate::janitor`]), so that a request sets no
//! timer. A timeout of n ticks ends between n and n + 1 ticks after the last activity.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Ticks since the worker began.
pub(crate) type Ticks = u32;

/// The clock of one worker.
pub(crate) struct Clock {
    now: Cell<Ticks>,
    began: Instant,
    /// Wall clock at `began`, as last read: the wall clock may be set while we run.
    began_wall: Cell<Duration>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self {
            now: Cell::new(0),
            began: Instant::now(),
            began_wall: Cell::new(Duration::ZERO),
        };
        clock.advance();
        clock
    }

    /// Reads the real clocks; the janitor calls it every [`TICK`].
    pub(crate) fn advance(&self) {
        let elapsed = self.began.elapsed();
        let ticks = elapsed.as_millis() / TICK.as_millis();
        self.now.set(Ticks::try_from(ticks).unwrap_or(Ticks::MAX));
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.began_wall.set(wall.saturating_sub(elapsed));
    }

    pub(crate) fn now(&self) -> Ticks {
        self.now.get()
    }

    /// Wall-clock time of `instant`, since the epoch.
    pub(crate) fn wall(&self, instant: Instant) -> Duration {
        self.began_wall.get() + instant.saturating_duration_since(self.began)
    }
}

/// Whole ticks that are not shorter than `duration`.
pub(crate) fn ticks(duration: Duration) -> Ticks {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    Ticks::try_from(ticks).unwrap_or(Ticks::MAX).max(1)
}

/// Whether more than `limit` passed since `since`.
pub(crate) fn is_over(now: Ticks, since: Ticks, limit: Ticks) -> bool {
    now.saturating_sub(since) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_up_and_never_are_zero() {
        for (ms, expected) in [(0, 1), (1, 1), (100, 1), (101, 2), (5_000, 50)] {
            assert_eq!(ticks(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }

    #[test]
    fn nothing_is_over_before_its_limit() {
        assert!(!is_over(10, 0, 10));
        assert!(is_over(11, 0, 10));
        assert!(!is_over(0, 5, 10));
    }
}
