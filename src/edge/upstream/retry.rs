//! What may be tried again on another server, and how often.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::plan::{Retry, RetryOn};

/// How a request on a server failed, or which answer it gave that might be better elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Refused, unreachable, or no connection within `timeouts.connect`: nothing was sent.
    Connect,
    /// A kept connection was closed before a byte of the answer: the server had most likely given it up, not failed. No strike against it; it may be asked again.
    Stale,
    /// A new connection broke before a byte of the answer.
    Reset,
    /// No byte of the answer within `timeouts.read`.
    Timeout,
    /// An answer with this status, before a byte of it went to the client.
    Status(u16),
    /// Broke after bytes of the answer went to the client, or the answer was no HTTP.
    Broken,
}

impl Cause {
    /// The status it counts as.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Connect | Self::Stale | Self::Reset | Self::Broken => 502,
            Self::Timeout => 504,
            Self::Status(status) => status,
        }
    }

    /// Whether `rule` allows another server, the number of tries and the budget aside.
    ///
    /// Shape: a request that may have had effect goes out again only if it is idempotent; `connect` in `retry.on` covers a broken connection too.
    #[must_use]
    pub fn allows(self, rule: &Retry, idempotent: bool) -> bool {
        match self {
            Self::Connect => rule.on.contains(&RetryOn::Connect),
            Self::Stale => idempotent,
            Self::Reset => idempotent && rule.on.contains(&RetryOn::Connect),
            Self::Timeout => idempotent && rule.on.contains(&RetryOn::Timeout),
            Self::Status(status) => idempotent && rule.on.contains(&RetryOn::Status(status)),
            Self::Broken => false,
        }
    }
}

/// Methods that may be sent twice.
///
/// Source: RFC 9110 §9.2.2.
#[must_use]
pub fn idempotent(method: &http::Method) -> bool {
    use http::Method;
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn rule(on: &[RetryOn]) -> Retry {
        Retry { tries: NonZeroU32::MIN.saturating_add(1), on: on.to_vec(), budget: 0.2 }
    }

    #[test]
    fn what_may_have_had_effect_goes_out_again_only_if_idempotent() {
        let all = rule(&[RetryOn::Connect, RetryOn::Timeout, RetryOn::Status(503)]);
        assert!(Cause::Connect.allows(&all, false), "nothing was sent");
        for cause in [Cause::Stale, Cause::Reset, Cause::Timeout, Cause::Status(503)] {
            assert!(cause.allows(&all, true) && !cause.allows(&all, false), "{cause:?}");
        }
        assert!(!Cause::Status(500).allows(&all, true) && !Cause::Broken.allows(&all, true));
        assert!(!Cause::Connect.allows(&rule(&[]), true) && !Cause::Reset.allows(&rule(&[RetryOn::Timeout]), true));
        assert!(idempotent(&http::Method::PUT) && !idempotent(&http::Method::POST) && !idempotent(&http::Method::PATCH));
    }

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
