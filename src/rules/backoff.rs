//! Backoff rule: how long to wait before the next start of an instance that ended unexpectedly.
//!
//! Pure. Doubles from `delay` to `max_delay`, ±20 % jitter, forgotten only after a good long time of service.
//! Shape: every delay lies within [`delay`, `max_delay`].
//! Source: a process that lives 1.5 s each time must not restart at once for ever (supervisord's blind spot).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The shortest service after which the past is forgotten.
pub const SERVED: Duration = Duration::from_secs(60);

/// What is remembered of earlier failures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Without jitter, so that the dice do not add up.
    last: Option<Duration>,
}

impl Backoff {
    /// One more failure: the time to wait.
    pub fn fail(&mut self, delay: Duration, max_delay: Duration, dice: u64) -> Duration {
        let max_delay = max_delay.max(delay);
        let nominal = self.last.map_or(delay, |last| last.saturating_mul(2)).clamp(delay, max_delay);
        self.last = Some(nominal);
        // 800 to 1200 thousandths.
        let thousandths = 800 + u32::try_from(dice % 401).unwrap_or(200);
        (nominal / 1000).saturating_mul(thousandths).clamp(delay, max_delay)
    }

    /// It was ready for so long: forgets, if that was long enough.
    pub fn served(&mut self, ready_for: Duration) {
        if ready_for >= self.served_after() {
            self.last = None;
        }
    }

    /// How long an instance must be ready until its failures are forgotten.
    #[must_use]
    pub fn served_after(&self) -> Duration {
        self.last.map_or(SERVED, |last| SERVED.max(last.saturating_mul(2)))
    }

    pub fn forget(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..9).map(|_| backoff.fail(ms(250), ms(30_000), 200).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn short_lives_do_not_reset_it_and_a_long_one_does() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.served(ms(1500));
            backoff.fail(ms(250), ms(40_000), 200);
        }
        backoff.served(Duration::from_secs(79));
        assert_eq!(backoff.fail(ms(250), ms(40_000), 200), ms(40_000));
        backoff.served(Duration::from_secs(80));
        assert_eq!(backoff.fail(ms(250), ms(40_000), 200), ms(250));
    }

    proptest! {
        #[test]
        fn every_delay_is_within_the_shortest_and_the_longest(
            shortest in 0u64..100_000,
            longest in 0u64..1_000_000,
            dice in prop::collection::vec(any::<u64>(), 1..40),
        ) {
            let mut backoff = Backoff::default();
            for die in dice {
                let delay = backoff.fail(ms(shortest), ms(longest), die);
                prop_assert!(delay >= ms(shortest) && delay <= ms(longest.max(shortest)));
            }
        }
    }
}
