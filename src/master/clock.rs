//! The two clocks: monotonic for decisions, the wall for people.

use std::{
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Fixed at start, so that `now` and `wall` agree for the life of the master.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Unix time in milliseconds at `start`.
    pub start_ms: u64,
}

/// A clock on its way to the binary that takes over: the start on the system's own monotonic clock, which both read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Carried {
    start: Duration,
    start_ms: u64,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Errors: the system has no monotonic clock.
    pub fn export(&self) -> io::Result<Carried> {
        Ok(Carried { start: monotonic()?.saturating_sub(self.now()), start_ms: self.start_ms })
    }

    /// Means the same moments as the clock that was exported.
    pub fn adopt(carried: Carried) -> io::Result<Self> {
        let Carried { start, start_ms } = carried;
        let now = Instant::now();
        let age = monotonic()?.saturating_sub(start);
        Ok(Self { start: now.checked_sub(age).unwrap_or(now), start_ms })
    }

    /// Since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[must_use]
    pub fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.start + at).into()
    }

    /// Unix time in milliseconds of a moment since the start.
    #[must_use]
    pub fn wall(&self, at: Duration) -> u64 {
        self.start_ms.saturating_add(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
    }
}

/// CLOCK_MONOTONIC, which goes on over an exec and is what systemd wants to hear.
///
/// Errors: the system has none.
pub fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// As RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_handed_over_means_the_same_moments() {
        let clock = Clock::start();
        let taken = Clock::adopt(clock.export().expect("a clock")).expect("a clock");
        assert_eq!(taken.start_ms, clock.start_ms);
        let (before, now, after) = (clock.now(), taken.now(), clock.now());
        let slack = Duration::from_millis(5);
        assert!(before <= now + slack && now <= after + slack, "{before:?} {now:?} {after:?}");
    }
}
