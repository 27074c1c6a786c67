//! The floor of pace under an upload: who drips is ended, who pauses is not.
//!
//! Pure; time is an argument.
//!
//! Shape: a body begins with [`PATIENCE`] to its credit; the time that we wait for its client is taken from it, and what comes gives time back, a second for each KB. Without
//!        credit it is too slow.
//! Units: credit is never more than the patience it began with.

use std::time::Duration;

/// Before the floor is asked for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes for a second.
const PACE: u64 = 1024;
/// What comes within so long of the piece before came with it.
const TOGETHER: Duration = Duration::from_millis(100);
/// A client that was kept waiting has sent as much meanwhile as its window, or a socket, holds.
const BURST: u64 = 16 * 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    credit: Duration,
    most: Duration,
    /// When the last piece came, how long it was waited for, and what has come together with it.
    burst: Option<(Duration, Duration, u64)>,
}

impl Floor {
    /// `pause`: as long as a client may be silent; whoever is given more of that has more patience too.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        let most = PATIENCE.max(pause);
        Self { credit: most, most, burst: None }
    }

    /// How long the next piece may take.
    #[must_use]
    pub fn credit(&self) -> Duration {
        self.credit
    }

    /// So many bytes came after so long a wait for the client, who alone was waited for. Whether it is fast enough.
    pub fn waited(&mut self, wait: Duration, bytes: u64) -> bool {
        let Some(left) = self.credit.checked_sub(wait) else { return false };
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / PACE);
        self.credit = left.saturating_add(earned).min(self.most);
        true
    }

    /// So many bytes came at `now`, and whoever takes them may have been what was waited for: then much comes at once, and the wait is not held against the client.
    pub fn passed(&mut self, now: Duration, bytes: u64) -> bool {
        let Some((last, wait, together)) = self.burst else {
            self.burst = Some((now, Duration::ZERO, bytes));
            return true;
        };
        let gap = now.saturating_sub(last);
        if gap < TOGETHER {
            self.burst = Some((now, wait, together + bytes));
            return true;
        }
        self.burst = Some((now, gap, bytes));
        self.waited(if together < BURST { wait } else { Duration::ZERO }, together)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn floor() -> Floor {
        Floor::new(30 * SECOND)
    }

    #[test]
    fn who_drips_is_ended_after_the_first_half_minute() {
        let mut floor = floor();
        let taken = (0..100).take_while(|_| floor.waited(5 * SECOND, 1)).count();
        assert_eq!(taken, 6);
    }

    #[test]
    fn a_kilobyte_a_second_will_do_for_ever() {
        let mut floor = floor();
        assert!((0..10_000).all(|_| floor.waited(5 * SECOND, 5 * PACE)));
    }

    #[test]
    fn much_at_first_buys_no_dripping_for_an_hour() {
        let mut floor = floor();
        assert!(floor.waited(SECOND, 50 << 20));
        assert_eq!(floor.credit(), PATIENCE);
    }

    #[test]
    fn a_long_pause_that_is_allowed_is_no_dripping() {
        let mut floor = Floor::new(300 * SECOND);
        assert!(floor.waited(290 * SECOND, 100) && !floor.waited(290 * SECOND, 100));
    }

    #[test]
    fn an_app_that_takes_its_time_is_not_held_against_the_client() {
        let mut floor = floor();
        let mut now = SECOND;
        for _ in 0..100 {
            // Every 25 s it takes what has come meanwhile.
            now += 25 * SECOND;
            for _ in 0..4 {
                now += Duration::from_millis(1);
                assert!(floor.passed(now, 16 * 1024));
            }
        }
        let taken = (0..100).take_while(|n| floor.passed(now + 5 * SECOND * (n + 1), 1)).count();
        assert!((6..9).contains(&taken), "and one that drips behind it is ended: {taken}");
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_the_patience_and_what_was_paid_for(pieces in prop::collection::vec((0u64..40_000, 0u64..100_000), 1..200)) {
            let mut floor = floor();
            let (mut waited, mut paid) = (Duration::ZERO, Duration::ZERO);
            for (ms, bytes) in pieces {
                let wait = Duration::from_millis(ms);
                if !floor.waited(wait, bytes) {
                    break;
                }
                waited += wait;
                paid += Duration::from_millis(bytes * 1000 / PACE);
                prop_assert!(waited <= PATIENCE + paid);
                prop_assert!(floor.credit() <= PATIENCE);
            }
        }
    }
}
