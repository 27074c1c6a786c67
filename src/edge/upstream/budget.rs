//! How much may be tried again: retries are a share of the requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::telemetry::UpstreamMetrics;

/// Retries may be a share of the requests of the last ten seconds, or ten a second, whichever is more: so that a retry never doubles the load of servers in need.
///
/// Shape: lock-free; two threads that open the same second may lose a few counts, never invent any.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    seconds: [Second; Self::WINDOW as usize],
}

#[derive(Debug, Default)]
struct Second {
    /// Since the epoch, plus one; 0: never used.
    at: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Budget {
    const WINDOW: u64 = 10;
    /// Retries in a window that are always allowed.
    const FLOOR: u64 = 10 * Self::WINDOW;

    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, seconds: Default::default() }
    }

    pub fn request(&self, now: Duration) {
        self.second(now).requests.fetch_add(1, Relaxed);
    }

    /// Takes one retry; `false` when it is spent.
    pub fn take(&self, now: Duration) -> bool {
        let oldest = (now.as_secs() + 1).saturating_sub(Self::WINDOW - 1);
        let (requests, retries) = self
            .seconds
            .iter()
            .filter(|second| (oldest..=now.as_secs() + 1).contains(&second.at.load(Relaxed)))
            .fold((0, 0), |(requests, retries), second| {
                (requests + u64::from(second.requests.load(Relaxed)), retries + u64::from(second.retries.load(Relaxed)))
            });
        let allowed = ((requests as f64 * self.share) as u64).max(Self::FLOOR);
        if retries >= allowed {
            return false;
        }
        self.second(now).retries.fetch_add(1, Relaxed);
        true
    }

    fn second(&self, now: Duration) -> &Second {
        let at = now.as_secs() + 1;
        let second = &self.seconds[(at % Self::WINDOW) as usize];
        let seen = second.at.load(Relaxed);
        if seen < at && second.at.compare_exchange(seen, at, Relaxed, Relaxed).is_ok() {
            second.requests.store(0, Relaxed);
            second.retries.store(0, Relaxed);
        }
        second
    }
}

/// What a request has that may leave a server which hangs, for a sibling: the budget that it is paid from.
#[derive(Clone, Debug)]
pub struct Move {
    budget: Arc<Budget>,
    metrics: Arc<UpstreamMetrics>,
}

impl Move {
    pub(super) fn new(budget: &Arc<Budget>, metrics: &Arc<UpstreamMetrics>) -> Self {
        Self { budget: budget.clone(), metrics: metrics.clone() }
    }

    /// Takes one retry, and counts it; `false`: the budget is spent.
    pub(super) fn pay(&self, now: Duration) -> bool {
        let may = self.budget.take(now);
        if may {
            self.metrics.retried();
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hundred_retries_in_ten_seconds_are_always_allowed_and_no_more_without_requests() {
        let budget = Budget::new(0.2);
        let now = Duration::from_secs(5);
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 100);
        assert!(!budget.take(now + Duration::from_millis(9_900)));
        assert!(budget.take(now + Duration::from_secs(10)), "the window has moved on");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_their_share_of_the_requests_in_the_window(share in 0.0..1.0_f64, steps in proptest::collection::vec((0..3_000_u64, 0..400_u32, 0..400_u32), 1..40)) {
            let budget = Budget::new(share);
            let (mut now, mut log) = (Duration::ZERO, Vec::new());
            for (wait, requests, wishes) in steps {
                now += Duration::from_millis(wait);
                (0..requests).for_each(|_| budget.request(now));
                let taken = (0..wishes).filter(|_| budget.take(now)).count() as u64;
                log.push((now.as_secs(), u64::from(requests), taken));
                let window = || log.iter().filter(|(at, _, _)| at + 10 > now.as_secs());
                let (asked, retried) = window().fold((0, 0), |(a, r), (_, requests, retries)| (a + requests, r + retries));
                if taken > 0 {
                    prop_assert!(retried <= ((asked as f64 * share) as u64).max(100));
                }
            }
        }
    }
}
