//! Health rule: when a server counts as up, down or ejected.
//!
//! Pure. `edge::upstream::probe` brings what active probes found, `edge::upstream::pool` how requests went.
//!
//! Shape: New ─Pass→ Up ─`fail` in a row→ Down (or Slow, if every one of them was a timeout) ─`pass` in a row→ Up.
//!        A new server is down until it has passed once (D3). Slow is not dead: the pool may fall back to it when nothing else is up.

use std::{num::NonZeroU32, time::Duration};

/// What one probe found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Pass,
    /// Refused, reset, or answered wrongly.
    Fail,
    /// Connected, but no answer in time.
    Slow,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Never passed.
    New,
    Up,
    /// Was up, then only timed out.
    Slow,
    Down,
}

/// How many probes in a row turn the verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Thresholds {
    pub fail: NonZeroU32,
    pub pass: NonZeroU32,
}

/// What the probes so far amount to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    verdict: Verdict,
    /// Outcomes in a row that speak against the verdict.
    against: u32,
    /// A `Fail` is among them.
    failed: bool,
}

impl Record {
    /// One that was carried over keeps its verdict.
    #[must_use]
    pub fn of(verdict: Verdict) -> Self {
        Self { verdict, against: 0, failed: false }
    }

    #[must_use]
    pub fn verdict(self) -> Verdict {
        self.verdict
    }

    #[must_use]
    pub fn step(self, outcome: Outcome, thresholds: Thresholds) -> Self {
        match (self.verdict, outcome) {
            (Verdict::New, Outcome::Pass) => Self::of(Verdict::Up),
            (Verdict::New, Outcome::Fail | Outcome::Slow) => self,
            (Verdict::Up, Outcome::Pass) => Self::of(Verdict::Up),
            (Verdict::Up, Outcome::Fail | Outcome::Slow) => {
                let next = Self { against: self.against.saturating_add(1), failed: self.failed || outcome == Outcome::Fail, ..self };
                match (next.against >= thresholds.fail.get(), next.failed) {
                    (false, _) => next,
                    (true, true) => Self::of(Verdict::Down),
                    (true, false) => Self::of(Verdict::Slow),
                }
            }
            (Verdict::Slow | Verdict::Down, Outcome::Pass) => {
                let next = Self { against: self.against.saturating_add(1), ..self };
                if next.against >= thresholds.pass.get() { Self::of(Verdict::Up) } else { next }
            }
            (Verdict::Slow | Verdict::Down, Outcome::Fail) => Self::of(Verdict::Down),
            (Verdict::Slow | Verdict::Down, Outcome::Slow) => Self::of(self.verdict),
        }
    }
}

/// Whether a live probe counts: one that timed out while the instance works on requests, and has answered some since the probe before,
/// speaks neither for nor against it. One that answers nothing and nobody is dead, however busy.
#[must_use]
pub fn weigh(outcome: Outcome, in_flight: u32, answered_since: bool) -> Option<Outcome> {
    match outcome {
        Outcome::Pass | Outcome::Fail => Some(outcome),
        Outcome::Slow if in_flight > 0 && answered_since => None,
        Outcome::Slow => Some(Outcome::Fail),
    }
}

/// How a request failed on a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strike {
    /// It took no connection.
    Unreachable,
    /// It broke off, answered so, or did not answer. A page may be bad by itself, and one client may ask for nothing else: these are prints of both.
    Page { page: u32, client: u32 },
}

/// Pages that are remembered; the failure of one of them again counts for nothing.
const PAGES: usize = 16;

/// Failures of requests in a row: connections that were not taken each, pages each once.
///
/// Units: times since an epoch of the caller's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Strikes {
    first: Duration,
    unreachable: u32,
    pages: u32,
    seen: [u32; PAGES],
    client: Option<u32>,
    /// Pages failed for more than one client.
    of_many: bool,
}

/// `[upstream] passive`: out for `eject` after `fails` in a row, the first of them at most `within` ago.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejection {
    pub fails: NonZeroU32,
    pub within: Duration,
    pub eject: Duration,
}

impl Strikes {
    /// A request failed. Gives until when the server is out, if this was one too many; then counting starts anew.
    ///
    /// Shape: a success in between is `Strikes::default()`.
    #[must_use]
    pub fn strike(self, rule: Ejection, strike: Strike, now: Duration) -> (Self, Option<Duration>) {
        let old = self.count() == 0 || now.saturating_sub(self.first) > rule.within;
        let mut next = if old { Self { first: now, ..Self::default() } } else { self };
        match strike {
            Strike::Unreachable => next.unreachable = next.unreachable.saturating_add(1),
            Strike::Page { page, client } => next.page(page, client),
        }
        let fails = rule.fails.get();
        let of_all = next.pages == 0 || next.of_many || next.unreachable >= fails;
        if next.count() >= fails && of_all { (Self::default(), Some(now.saturating_add(rule.eject))) } else { (next, None) }
    }

    fn count(&self) -> u32 {
        self.unreachable.saturating_add(self.pages)
    }

    fn page(&mut self, page: u32, client: u32) {
        self.of_many |= *self.client.get_or_insert(client) != client;
        let known = (self.pages as usize).min(PAGES);
        if !self.seen[..known].contains(&page) {
            self.seen[self.pages as usize % PAGES] = page;
            self.pages = self.pages.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(fail: u32, pass: u32) -> Thresholds {
        Thresholds { fail: NonZeroU32::new(fail).expect("not zero"), pass: NonZeroU32::new(pass).expect("not zero") }
    }

    fn after(verdict: Verdict, outcomes: &[Outcome], thresholds: Thresholds) -> Verdict {
        outcomes.iter().fold(Record::of(verdict), |record, outcome| record.step(*outcome, thresholds)).verdict()
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![Just(Outcome::Pass), Just(Outcome::Fail), Just(Outcome::Slow)]
    }

    proptest! {
        #[test]
        fn alternating_results_never_flip_it(fail in 2..5_u32, pass in 2..5_u32, first: bool, up: bool, length in 0..40_usize) {
            let verdict = if up { Verdict::Up } else { Verdict::Down };
            let outcomes: Vec<_> = (0..length).map(|i| if (i % 2 == 0) == first { Outcome::Pass } else { Outcome::Fail }).collect();
            prop_assert_eq!(after(verdict, &outcomes, thresholds(fail, pass)), verdict);
        }

        #[test]
        fn a_new_server_is_down_until_it_has_passed_once(outcomes in proptest::collection::vec(outcome(), 0..20), fail in 1..5_u32, pass in 1..5_u32) {
            let passed = outcomes.contains(&Outcome::Pass);
            prop_assert_eq!(after(Verdict::New, &outcomes, thresholds(fail, pass)) == Verdict::New, !passed);
            if let Some(first) = outcomes.iter().position(|o| *o == Outcome::Pass) {
                prop_assert_eq!(after(Verdict::New, &outcomes[..=first], thresholds(fail, pass)), Verdict::Up);
            }
        }

        #[test]
        fn it_turns_exactly_at_the_threshold(fail in 1..6_u32, pass in 1..6_u32) {
            let rule = thresholds(fail, pass);
            let (fails, passes) = (vec![Outcome::Fail; fail as usize], vec![Outcome::Pass; pass as usize]);
            prop_assert_eq!(after(Verdict::Up, &fails[1..], rule), Verdict::Up);
            prop_assert_eq!(after(Verdict::Up, &fails, rule), Verdict::Down);
            prop_assert_eq!(after(Verdict::Down, &passes[1..], rule), Verdict::Down);
            prop_assert_eq!(after(Verdict::Down, &passes, rule), Verdict::Up);
        }

        #[test]
        fn ejection_is_in_the_future_and_only_for_failures_close_together(gaps in proptest::collection::vec(0..30_u64, 1..30), fails in 1..6_u32) {
            let rule = Ejection { fails: NonZeroU32::new(fails).expect("not zero"), within: Duration::from_secs(10), eject: Duration::from_secs(7) };
            let (mut strikes, mut now, mut times) = (Strikes::default(), Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_secs(gap);
                times.push(now);
                let (next, until) = strikes.strike(rule, Strike::Unreachable, now);
                strikes = next;
                if let Some(until) = until {
                    prop_assert_eq!(until, now + rule.eject);
                    prop_assert!(times.len() >= fails as usize);
                    prop_assert!(now - times[times.len() - fails as usize] <= rule.within);
                    times.clear();
                }
            }
        }
    }

    #[test]
    fn timeouts_alone_make_it_slow_and_a_refusal_among_them_makes_it_down() {
        let rule = thresholds(3, 2);
        assert_eq!(after(Verdict::Up, &[Outcome::Slow; 3], rule), Verdict::Slow);
        assert_eq!(after(Verdict::Up, &[Outcome::Slow, Outcome::Fail, Outcome::Slow], rule), Verdict::Down);
        assert_eq!(after(Verdict::Slow, &[Outcome::Fail], rule), Verdict::Down);
        assert_eq!(after(Verdict::Slow, &[Outcome::Pass, Outcome::Pass], rule), Verdict::Up);
    }

    #[test]
    fn a_busy_instance_that_answers_others_is_slow_not_dead() {
        assert_eq!(weigh(Outcome::Slow, 3, true), None);
        assert_eq!(weigh(Outcome::Slow, 3, false), Some(Outcome::Fail));
        assert_eq!(weigh(Outcome::Slow, 0, true), Some(Outcome::Fail));
        assert_eq!(weigh(Outcome::Fail, 3, true), Some(Outcome::Fail));
        assert_eq!(weigh(Outcome::Pass, 0, false), Some(Outcome::Pass));
    }

    #[test]
    fn a_success_in_between_forgives() {
        let rule =
            Ejection { fails: NonZeroU32::new(2).expect("not zero"), within: Duration::from_secs(10), eject: Duration::from_secs(10) };
        let (_, until) = Strikes::default().strike(rule, Strike::Unreachable, Duration::from_secs(1));
        assert_eq!(until, None);
        let (_, until) = Strikes::default().strike(rule, Strike::Unreachable, Duration::from_secs(2));
        assert_eq!(until, None, "cleared in between");
    }

    #[test]
    fn a_page_that_always_fails_and_a_client_alone_eject_nobody() {
        let rule =
            Ejection { fails: NonZeroU32::new(3).expect("not zero"), within: Duration::from_secs(10), eject: Duration::from_secs(10) };
        let after = |strikes: &[Strike]| {
            let step = |(all, out): (Strikes, bool), strike: &Strike| {
                let (all, until) = all.strike(rule, *strike, Duration::from_secs(1));
                (all, out || until.is_some())
            };
            strikes.iter().fold((Strikes::default(), false), step).1
        };
        let page = |page: u32, client: u32| Strike::Page { page, client };
        assert!(!after(&(0..100).map(|client| page(7, client)).collect::<Vec<_>>()), "one page, whoever asks");
        assert!(!after(&(0..100).map(|at| page(at, 1)).collect::<Vec<_>>()), "one client, whatever it asks for");
        assert!(after(&[page(1, 1), page(2, 1), page(3, 2)]) && after(&[page(1, 1), page(1, 2), page(2, 1), page(3, 1)]));
        assert!(after(&[Strike::Unreachable; 3]) && after(&[page(1, 1), Strike::Unreachable, Strike::Unreachable, Strike::Unreachable]));
        assert!(after(&[page(1, 1), page(1, 2), Strike::Unreachable, Strike::Unreachable]));
    }
}
