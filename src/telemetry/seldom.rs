//! Lines that strangers can cause: told at a pace, so that nobody fills a log; what was kept back is counted on the next one.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// One line, or a few of a kind, at a pace.
#[derive(Debug)]
pub struct Seldom<C: Clock = MonotonicClock> {
    pace: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    kept_back: AtomicU64,
}

impl Seldom {
    /// So many at once, and so many a second.
    #[must_use]
    pub fn a_second(lines: NonZeroU32) -> Self {
        Self::new(Quota::per_second(lines), MonotonicClock)
    }

    /// One a minute.
    #[must_use]
    pub fn a_minute() -> Self {
        Self::new(Quota::per_minute(NonZeroU32::MIN), MonotonicClock)
    }
}

impl<C: Clock> Seldom<C> {
    fn new(quota: Quota, clock: C) -> Self {
        Self { pace: RateLimiter::direct_with_clock(quota, clock), kept_back: AtomicU64::new(0) }
    }

    /// How many were kept back since the last one; `None`: this one is too.
    pub fn may(&self) -> Option<u64> {
        if self.pace.check().is_ok() {
            return Some(self.kept_back.swap(0, Relaxed));
        }
        self.kept_back.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_none_is_forgotten() {
        let clock = FakeRelativeClock::default();
        let seldom = Seldom::new(Quota::per_second(NonZeroU32::MIN), clock.clone());
        let said: Vec<u64> = (0..6000)
            .filter_map(|_| {
                clock.advance(Duration::from_millis(10));
                seldom.may()
            })
            .collect();
        assert_eq!(said.len(), 60);
        assert_eq!(said.iter().sum::<u64>() + 60, 5901, "99 wait to be counted on the next");
        clock.advance(Duration::from_secs(1));
        assert_eq!(seldom.may(), Some(99));
    }

    #[test]
    fn a_few_come_at_once() {
        let clock = FakeRelativeClock::default();
        let seldom = Seldom::new(Quota::per_second(NonZeroU32::new(10).expect("not zero")), clock.clone());
        assert_eq!((0..100).filter_map(|_| seldom.may()).count(), 10);
        clock.advance(Duration::from_secs(1));
        assert_eq!(seldom.may(), Some(90));
    }
}
