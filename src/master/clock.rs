//! The two clocks: monotonic for decisions, the wall for people.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Fixed at start, so that `now` and `wall` agree for the life of the master.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Unix time in milliseconds at `start`.
    pub start_ms: u64,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
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

/// As RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}
