//! What one server owes and has said, in atomics: the facts of [`crate::rules::suspicion`].
//!
//! Shape: a request that is sent sets the debt where there is none, a byte of any answer clears it, for all. Between the two nothing is written, and a byte of a server that
//!        owes nothing costs one relaxed load. A race loses one request from sight at most, until the next is sent.
//! Units: milliseconds since the epoch of [`super::Pools::now`], plus one; 0: never.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::rules::suspicion::{Known, PATIENCE, Verdict};

#[derive(Debug, Default)]
pub(super) struct Silence {
    owes_since: AtomicU64,
    /// When the latest of what it has answered in good time was sent.
    answered: AtomicU64,
    /// The debt for which it is asked.
    doubted_for: AtomicU64,
    /// The debt for which it is suspect: the next one is another matter, and no look need come first.
    suspect_for: AtomicU64,
    /// The log knows that it is suspect.
    told: AtomicBool,
    /// Someone asks it.
    questioned: AtomicBool,
}

impl Silence {
    /// A request was sent to it, whole.
    pub(super) fn asked(&self, now: Duration) {
        if self.owes_since.load(Relaxed) == 0 {
            // Another thread may have been first.
            let _ = self.owes_since.compare_exchange(0, stamp(now), Relaxed, Relaxed);
        }
    }

    /// A byte came.
    pub(super) fn heard(&self) {
        if self.owes_since.load(Relaxed) != 0 {
            self.owes_since.store(0, Relaxed);
        }
    }

    /// It answers what it was sent then.
    pub(super) fn answered(&self, asked: Duration, now: Duration) {
        self.heard();
        if now.saturating_sub(asked) < PATIENCE {
            self.answered.fetch_max(stamp(asked), Relaxed);
        }
    }

    /// Nobody waits for what it owes since then.
    pub(super) fn forget(&self, since: Duration) {
        let _ = self.owes_since.compare_exchange(stamp(since), 0, Relaxed, Relaxed);
    }

    pub(super) fn owes_since(&self) -> Option<Duration> {
        time(&self.owes_since)
    }

    pub(super) fn known(&self, serves: bool) -> Known {
        Known { owes_since: self.owes_since(), answered: time(&self.answered), serves }
    }

    /// Shape: a byte ends it at once, before the next verdict.
    pub(super) fn is_suspect(&self) -> bool {
        self.owes(&self.suspect_for)
    }

    pub(super) fn is_trusted(&self) -> bool {
        !self.owes(&self.doubted_for)
    }

    /// Whether it owes still what it did then.
    fn owes(&self, then: &AtomicU64) -> bool {
        let then = then.load(Relaxed);
        then != 0 && then == self.owes_since.load(Relaxed)
    }

    /// The verdict on what it owes since then. Whether that is news for the log.
    pub(super) fn judged(&self, verdict: Verdict, since: Option<Duration>) -> bool {
        let debt = since.map_or(0, stamp);
        let (doubted, suspect) = match verdict {
            Verdict::Trusted => (0, 0),
            Verdict::Questioned => (debt, 0),
            Verdict::Suspect => (debt, debt),
        };
        self.doubted_for.store(doubted, Relaxed);
        self.suspect_for.store(suspect, Relaxed);
        self.told.swap(verdict == Verdict::Suspect, Relaxed) != (verdict == Verdict::Suspect)
    }

    /// Whether nobody asks it yet.
    pub(super) fn begin_question(&self) -> bool {
        !self.questioned.swap(true, Relaxed)
    }

    pub(super) fn end_question(&self) {
        self.questioned.store(false, Relaxed);
    }
}

fn stamp(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
}

fn time(stamp: &AtomicU64) -> Option<Duration> {
    stamp.load(Relaxed).checked_sub(1).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_request_since_the_last_byte_counts() {
        let silence = Silence::default();
        silence.asked(ms(0));
        silence.asked(ms(500));
        assert_eq!(silence.known(true), Known { owes_since: Some(ms(0)), answered: None, serves: true });
        silence.answered(ms(0), ms(600));
        assert_eq!(silence.known(true), Known { owes_since: None, answered: Some(ms(0)), serves: true });
        silence.asked(ms(900));
        silence.answered(ms(500), ms(1_000));
        silence.answered(ms(100), ms(1_000));
        assert_eq!(silence.known(false), Known { owes_since: None, answered: Some(ms(500)), serves: false });
        silence.answered(ms(1_000), ms(3_000));
        assert_eq!(silence.known(false).answered, Some(ms(500)), "too slow to speak for anyone");
    }

    #[test]
    fn a_byte_ends_a_suspicion_before_the_next_verdict_and_each_turn_is_told_once() {
        let silence = Silence::default();
        silence.asked(ms(10));
        let debt = Some(ms(10));
        assert!(silence.judged(Verdict::Suspect, debt) && silence.is_suspect() && !silence.is_trusted());
        assert!(!silence.judged(Verdict::Suspect, debt));
        silence.heard();
        assert!(!silence.is_suspect() && silence.is_trusted());
        // Nor does the next request bring it back.
        silence.asked(ms(9_000));
        assert!(!silence.is_suspect() && silence.is_trusted());
        assert!(silence.judged(Verdict::Trusted, None) && !silence.judged(Verdict::Questioned, Some(ms(9_000))));
        assert!(!silence.is_suspect() && !silence.is_trusted());
    }

    #[test]
    fn only_the_debt_that_is_meant_is_forgotten() {
        let silence = Silence::default();
        silence.asked(ms(10));
        silence.forget(ms(9));
        assert_eq!(silence.owes_since(), Some(ms(10)));
        silence.forget(ms(10));
        assert_eq!(silence.owes_since(), None);
    }
}
