//! Renewal rule: when a certificate is renewed, and after a failure when, where and how it is tried again.
//!
//! Pure. The steward brings the moment, the dice and what the CA said; it orders, and keeps the [`History`] on disk.
//!
//! Shape: [`due`] lies within the certificate's life, a margin before its end. A failure waits by a table ([`ATTEMPTS_IN_48H`] at most), never less than the CA asks for;
//!        where a certificate is in service, no longer than a thirtieth of its life, so that a short one is tried again in time.
//!        Every failure counts against its CA, a rehearsal's too: after [`SWITCH_AFTER`] in a row the next one has its turn, round again. That holds for validation as
//!        well, because what one CA cannot see or is forbidden (CAA) another may.
//!        After a failure of validation a CA that has a staging directory is only rehearsed with, until one rehearsal passes; a staging directory that is itself broken
//!        ([`SWITCH_AFTER`] failures in a row of another kind) stands in the way no longer.
//!        What a CA asks for by Retry-After closes that CA alone: the others may be tried meanwhile.
//! Units: Unix seconds. No sum overflows: it ends at the ends of `i64`.
//! Source: RFC 9773 §4 (a time within the suggested window; the past means at once); Let's Encrypt's integration guide (two thirds; half below ten days);
//!         the weighted table after Caddy's certmagic.

use std::fmt;

use serde::{Deserialize, Serialize};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Renewed this long before its end at the latest, or a tenth of its life where that is less.
pub const MARGIN: i64 = DAY;
/// Below this lifetime a certificate is renewed at half of it.
pub const SHORT: i64 = 10 * DAY;
/// Failures in a row at one CA after which the next is tried.
pub const SWITCH_AFTER: u32 = 3;
/// The longest that a CA can silence us for.
pub const RETRY_AFTER_MAX: i64 = 7 * DAY;
/// The most attempts that can fail within 48 hours, whatever the dice say: what the table allows. Holds where no certificate is in service, or one that lives for 7.5 days
/// or more: a thirtieth of that is the longest wait of the table. A shorter one is tried at [`PATIENCE`]'s pace.
pub const ATTEMPTS_IN_48H: u32 = 34;
/// After a success the next order waits for an hour, or a third of the life of the certificate: a CA whose windows all lie in the past is no tight loop.
const REST: i64 = HOUR;
/// Waits after a failure, and how often each.
const TABLE: [(i64, u32); 8] =
    [(MINUTE, 2), (2 * MINUTE, 2), (5 * MINUTE, 3), (10 * MINUTE, 3), (20 * MINUTE, 4), (30 * MINUTE, 4), (HOUR, 6), (3 * HOUR, 4)];
/// Then this, for ever.
const LONGEST: i64 = 6 * HOUR;
/// No wait is longer than one in so many parts of the life of the certificate in service, but a second: some ten tries in the third of it that the alarm rings for.
pub const PATIENCE: i64 = 30;
/// After an attempt that was cut off, the first few times.
const CUT: i64 = 10;
const CUTS: u32 = 3;

/// The life of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// Never negative.
    fn lifetime(self) -> i128 {
        (i128::from(self.not_after) - i128::from(self.not_before)).max(0)
    }

    /// The last moment at which it may be renewed.
    fn latest(self) -> i128 {
        let life = self.lifetime();
        i128::from(self.not_before) + life - (life / 10).min(i128::from(MARGIN))
    }
}

/// ARI's `suggestedWindow`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

/// Why then.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Why {
    Suggested,
    TwoThirds,
    Half,
    /// `gateway certs renew`
    Asked,
    First,
    /// Which try it will be.
    Retry(u32),
    /// The rehearsal passed.
    Rehearsed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suggested => f.write_str("suggested by the CA"),
            Self::TwoThirds => f.write_str("two thirds of its life are over"),
            Self::Half => f.write_str("half of its short life is over"),
            Self::Asked => f.write_str("asked for by hand"),
            Self::First => f.write_str("there is none yet"),
            Self::Retry(n) => write!(f, "try {n} after a failure"),
            Self::Rehearsed => f.write_str("the rehearsal passed"),
        }
    }
}

/// When to renew. `spread` in [0, 1) is fixed for each certificate, so that the answer does not wander; anything else counts as the nearer end.
///
/// By the CA's window, at a point that `spread` chooses: in the part of it that ends before [`at_risk`] begins, where it has one, so that a renewal that goes well
/// never raises the alarm. Let's Encrypt's windows lie across that very moment. A window that ends where it starts, or before, is no window.
/// Else at two thirds of its life, or half of a short one, less one to four percent by `spread`.
///
/// Shape: within [`not_before`, `not_after` − margin]. A moment that is over means: now.
#[must_use]
pub fn due(validity: Validity, window: Option<Window>, spread: f64) -> (i64, Why) {
    let life = validity.lifetime();
    let born = i128::from(validity.not_before);
    let (at, why) = match window {
        Some(Window { start, end }) if end > start => {
            let (start, end) = (i128::from(start), i128::from(end));
            let calm = born + life * 2 / 3 - life / 200;
            let end = if start < calm { end.min(calm) } else { end };
            (start + share(end - start, spread), Why::Suggested)
        }
        Some(_) | None => {
            let (most, why) = if life < i128::from(SHORT) { (life / 2, Why::Half) } else { (life * 2 / 3, Why::TwoThirds) };
            (born + most - life / 100 - share(life * 3 / 100, spread), why)
        }
    };
    (narrow(at.min(validity.latest()).max(born)), why)
}

/// A third of its life or less is left: somebody should look.
#[must_use]
pub fn at_risk(validity: Validity, now: i64) -> bool {
    (i128::from(validity.not_after) - i128::from(now)) * 3 <= validity.lifetime()
}

/// What kind of failure an attempt ended with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The CA could not see that the names are ours, or is forbidden to sign for them (CAA).
    Validation,
    RateLimited,
    /// The account or the order.
    Refused,
    /// The CA is down: no connection, no answer in time, 5xx.
    Unreachable,
    Broken,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    pub failure: Failure,
    /// The moment from which on the CA will hear us again, where it named one.
    pub retry_after: Option<i64>,
}

/// What the orders of a certificate may use.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// For each CA in its order: has it a staging directory?
    pub staging: &'a [bool],
    /// How many kinds of challenge can work.
    pub challenges: usize,
}

/// What to try next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// Index of the CA.
    pub ca: usize,
    /// At its staging directory: a rehearsal.
    pub staging: bool,
    /// Index of the kind of challenge to begin with; the others follow within the attempt.
    pub challenge: usize,
}

/// What is remembered of a certificate's attempts; kept on disk, so that a restart is not one more beginning.
///
/// Shape: indices are taken modulo what there is, so one that outlived a change of the configuration is harmless.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Since the last success.
    failures: u32,
    /// No attempt earlier.
    not_before: i64,
    /// No renewal earlier: there was a certificate just now.
    rest: i64,
    ca: usize,
    /// Failures in a row at `ca`.
    streak: u32,
    /// Of these the last so many that were rehearsals and failed by no fault of the names.
    stage_faults: u32,
    /// Validation failed, and no rehearsal has passed since.
    rehearse: bool,
    /// The rehearsal passed, and its order proper is still to be made.
    passed: bool,
    challenge: usize,
    /// Until when each CA asked to be left alone.
    closed: Vec<i64>,
    /// Attempts in a row that began and never came to an end.
    cuts: u32,
}

impl History {
    #[must_use]
    pub fn attempt(&self, options: &Options) -> Attempt {
        let ca = self.ca % options.staging.len().max(1);
        let staging = self.rehearse && options.staging.get(ca).copied().unwrap_or(false);
        Attempt { ca, staging, challenge: self.challenge % options.challenges.max(1) }
    }

    /// An attempt begins. Kept on disk before it does, it is what a crash in the middle leaves behind: at first a short wait, then by the table.
    #[must_use]
    pub fn begun(mut self, now: i64) -> Self {
        self.cuts = self.cuts.saturating_add(1);
        let wait = match self.cuts.checked_sub(CUTS) {
            None | Some(0) => CUT,
            Some(more) => nominal(self.failures.saturating_add(more)),
        };
        self.not_before = now.saturating_add(wait);
        self
    }

    /// It failed. `served`: the certificate in service meanwhile.
    #[must_use]
    pub fn failed(mut self, options: &Options, attempt: Attempt, fault: Fault, served: Option<Validity>, now: i64, dice: f64) -> Self {
        let Fault { failure, retry_after } = fault;
        let cas = options.staging.len().max(1);
        let ca = attempt.ca % cas;
        self.cuts = 0;
        self.passed = false;
        self.failures = self.failures.saturating_add(1);
        self.streak = if self.ca % cas == ca { self.streak.saturating_add(1) } else { 1 };
        self.ca = ca;
        match failure {
            Failure::Validation => {
                self.rehearse = true;
                self.stage_faults = 0;
                self.challenge = (attempt.challenge.saturating_add(1)) % options.challenges.max(1);
            }
            Failure::RateLimited | Failure::Refused | Failure::Unreachable | Failure::Broken => {
                self.stage_faults = if attempt.staging { self.stage_faults.saturating_add(1) } else { 0 };
                if self.stage_faults >= SWITCH_AFTER {
                    self.rehearse = false;
                    self.stage_faults = 0;
                }
            }
        }
        self.closed.resize(cas, i64::MIN);
        if let Some(moment) = retry_after {
            self.closed[ca] = moment.min(now.saturating_add(RETRY_AFTER_MAX));
        }
        let by_table = i128::from(nominal(self.failures)) * 9 / 10 + share(i128::from(nominal(self.failures)) / 5, dice);
        let patience = served.map_or(i128::MAX, |validity| (validity.lifetime() / i128::from(PATIENCE)).max(1));
        let soon = now.saturating_add(narrow(by_table.min(patience)));
        let first = if self.streak >= SWITCH_AFTER { (ca + 1) % cas } else { ca };
        let next = open(&self.closed, first, soon);
        if next != ca || self.streak >= SWITCH_AFTER {
            self.streak = 0;
        }
        self.ca = next;
        self.not_before = soon.max(self.closed[next]);
        self
    }

    /// A rehearsal passed: the order proper follows at once. Not a success yet.
    #[must_use]
    pub fn rehearsed(mut self, now: i64) -> Self {
        self.cuts = 0;
        self.rehearse = false;
        self.stage_faults = 0;
        self.passed = true;
        self.not_before = now;
        self
    }

    /// There is a new certificate: all is forgotten, but that there was one just now.
    #[must_use]
    pub fn succeeded(self, validity: Validity, now: i64) -> Self {
        let rest = narrow((validity.lifetime() / 3).min(i128::from(REST)));
        Self { rest: now.saturating_add(rest), ..Self::default() }
    }

    /// It is to be for other names than what was tried, or by other ways: what failed says nothing of that. What a CA asked for stands, and so does the wait after a crash.
    #[must_use]
    pub fn afresh(self, now: i64) -> Self {
        let Self { closed, cuts, not_before, failures, rest, .. } = self;
        let ca = open(&closed, 0, now);
        let heard = closed.get(ca).copied().unwrap_or(i64::MIN);
        Self { not_before: if failures == 0 { not_before } else { heard }, ca, closed, cuts, rest, ..Self::default() }
    }

    /// As read from disk, or after the clock was set back: no wait is longer than any that could be asked for, so a clock that was wrong for a while does not silence
    /// us for years; nor longer than the table's, where no CA has asked for it.
    #[must_use]
    pub fn restored(mut self, now: i64) -> Self {
        let most = now.saturating_add(RETRY_AFTER_MAX);
        self.rest = self.rest.min(now.saturating_add(REST));
        for moment in &mut self.closed {
            *moment = (*moment).min(most);
        }
        let asked = self.closed.iter().copied().max().unwrap_or(i64::MIN);
        self.not_before = self.not_before.min(now.saturating_add(LONGEST * 11 / 10).max(asked));
        self
    }

    /// No attempt before this moment.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.not_before
    }

    /// No renewal before this moment. What lacks a name need not wait for it.
    #[must_use]
    pub fn rested(&self) -> i64 {
        self.rest
    }

    /// Since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the next attempt is made, where that is for what came before it.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        match (self.passed, self.failures) {
            (true, _) => Some(Why::Rehearsed),
            (false, 0) => None,
            (false, failures) => Some(Why::Retry(failures.saturating_add(1))),
        }
    }
}

/// The first CA from `first` on that may be asked at `soon`; where none may, the one that may be asked first.
fn open(closed: &[i64], first: usize, soon: i64) -> usize {
    let turn = (0..closed.len()).map(|step| (first + step) % closed.len());
    turn.clone().find(|&ca| closed[ca] <= soon).or_else(|| turn.min_by_key(|&ca| closed[ca])).unwrap_or(first)
}

/// The wait after this many failures, without dice.
fn nominal(failures: u32) -> i64 {
    let mut left = failures.saturating_sub(1);
    for (wait, times) in TABLE {
        match left.checked_sub(times) {
            None => return wait,
            Some(rest) => left = rest,
        }
    }
    LONGEST
}

/// `part` of `whole`, in steps of a millionth.
#[expect(clippy::cast_possible_truncation, reason = "within 0..=1_000_000 by the clamp; NaN becomes 0")]
fn share(whole: i128, part: f64) -> i128 {
    whole * i128::from((part.clamp(0.0, 1.0) * 1e6) as i64) / 1_000_000
}

fn narrow(seconds: i128) -> i64 {
    i64::try_from(seconds).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_767_225_600;
    const NINETY: Validity = Validity { not_before: NOW, not_after: NOW + 90 * DAY };

    fn of(failure: Failure) -> Fault {
        Fault { failure, retry_after: None }
    }

    fn limited(moment: i64) -> Fault {
        Fault { failure: Failure::RateLimited, retry_after: Some(moment) }
    }

    fn one(staging: &[bool]) -> Options<'_> {
        Options { staging, challenges: 2 }
    }

    /// Fails the next attempt; gives what it was.
    fn fail(history: &mut History, options: &Options, failure: Failure) -> Attempt {
        let attempt = history.attempt(options);
        let now = history.next().max(NOW);
        *history = history.clone().failed(options, attempt, of(failure), None, now, 0.5);
        attempt
    }

    fn cas(history: &mut History, options: &Options, failure: Failure, times: usize) -> Vec<(usize, bool)> {
        (0..times).map(|_| fail(history, options, failure)).map(|attempt| (attempt.ca, attempt.staging)).collect()
    }

    #[test]
    fn a_window_of_the_ca_is_kept_to() {
        let window = Window { start: NOW + 40 * DAY, end: NOW + 44 * DAY };
        assert_eq!(due(NINETY, Some(window), 0.0), (window.start, Why::Suggested));
        assert_eq!(due(NINETY, Some(window), 0.5), (NOW + 42 * DAY, Why::Suggested));
        let revoked = Window { start: NOW - DAY, end: NOW - HOUR };
        assert_eq!(due(NINETY, Some(revoked), 0.5), (NOW, Why::Suggested));
        let late = Window { start: NOW + 100 * DAY, end: NOW + 101 * DAY };
        assert_eq!(due(NINETY, Some(late), 0.5), (NOW + 89 * DAY, Why::Suggested));
        let nonsense = Window { start: NOW + 40 * DAY, end: NOW + 40 * DAY };
        assert_eq!(due(NINETY, Some(nonsense), 0.5).1, Why::TwoThirds);
    }

    #[test]
    fn a_renewal_that_goes_well_never_raises_the_alarm() {
        // As Boulder computes it: two percent of the life, around two thirds of it.
        let lets_encrypt = Window { start: NOW + 60 * DAY - DAY * 9 / 10, end: NOW + 60 * DAY + DAY * 9 / 10 };
        for spread in [0.0, 0.3, 0.999_999] {
            for window in [None, Some(lets_encrypt)] {
                assert!(!at_risk(NINETY, due(NINETY, window, spread).0 + HOUR), "{window:?} {spread}");
            }
        }
        assert!(!at_risk(NINETY, NOW + 60 * DAY - 1));
        assert!(at_risk(NINETY, NOW + 60 * DAY));
        assert!(at_risk(NINETY, NOW + 100 * DAY));
    }

    #[test]
    fn without_a_window_it_is_two_thirds_and_half_of_a_short_life() {
        let (early, why) = due(NINETY, None, 0.999_999);
        assert_eq!(why, Why::TwoThirds);
        assert!((NOW + 56 * DAY..NOW + 57 * DAY).contains(&early), "{early}");
        assert_eq!(due(NINETY, None, 0.0).0, NOW + 60 * DAY - 90 * DAY / 100);
        let six = Validity { not_before: NOW, not_after: NOW + 6 * DAY };
        let (at, why) = due(six, None, 0.0);
        assert_eq!(why, Why::Half);
        assert_eq!(at, NOW + 3 * DAY - 6 * DAY / 100);
    }

    #[test]
    fn reasons_read_as_words() {
        assert_eq!(Why::Suggested.to_string(), "suggested by the CA");
        assert_eq!(Why::TwoThirds.to_string(), "two thirds of its life are over");
        let mut history = History::default();
        assert_eq!(history.why(), None);
        cas(&mut history, &one(&[true]), Failure::Validation, 2);
        assert_eq!(history.why().map(|why| why.to_string()).as_deref(), Some("try 3 after a failure"));
        assert_eq!(history.rehearsed(NOW).why(), Some(Why::Rehearsed));
    }

    #[test]
    fn after_three_failures_the_next_ca_has_its_turn() {
        let options = one(&[false, false]);
        for failure in [Failure::Unreachable, Failure::Validation, Failure::Refused] {
            let seen: Vec<_> = cas(&mut History::default(), &options, failure, 8).into_iter().map(|(ca, _)| ca).collect();
            assert_eq!(seen, [0, 0, 0, 1, 1, 1, 0, 0], "{failure:?}");
        }
    }

    #[test]
    fn a_failed_validation_is_rehearsed_until_it_passes() {
        let options = one(&[true]);
        let mut history = History::default();
        assert_eq!(cas(&mut history, &options, Failure::Validation, 5), [(0, false), (0, true), (0, true), (0, true), (0, true)]);
        let history = history.rehearsed(NOW);
        assert_eq!(history.next(), NOW);
        assert_eq!(history.failures(), 5);
        let attempt = history.attempt(&options);
        assert!(!attempt.staging);
        let history = history.failed(&options, attempt, of(Failure::Validation), None, NOW, 0.5);
        assert!(history.attempt(&options).staging);
    }

    #[test]
    fn the_second_ca_is_rehearsed_too_where_it_can_be() {
        let seen = cas(&mut History::default(), &one(&[true, false]), Failure::Validation, 7);
        assert_eq!(seen, [(0, false), (0, true), (0, true), (1, false), (1, false), (1, false), (0, true)]);
        let seen = cas(&mut History::default(), &one(&[true, true]), Failure::Validation, 4);
        assert_eq!(seen[3], (1, true));
    }

    #[test]
    fn a_staging_directory_that_is_down_stands_in_the_way_no_longer() {
        let options = one(&[true]);
        let mut history = History::default();
        fail(&mut history, &options, Failure::Validation);
        assert_eq!(cas(&mut history, &options, Failure::Unreachable, 4), [(0, true), (0, true), (0, true), (0, false)]);
    }

    #[test]
    fn each_failed_validation_begins_with_the_next_challenge() {
        let options = one(&[false]);
        let mut history = History::default();
        let seen: Vec<_> = (0..3).map(|_| fail(&mut history, &options, Failure::Validation).challenge).collect();
        assert_eq!(seen, [0, 1, 0]);
        fail(&mut history, &options, Failure::Unreachable);
        assert_eq!(history.attempt(&options).challenge, 1);
    }

    #[test]
    fn a_ca_that_asks_for_time_gets_it_and_the_other_is_tried_meanwhile() {
        let later = NOW + 2 * DAY;
        let history = |staging: &[bool], moment| {
            let options = one(staging);
            let first = History::default();
            let attempt = first.attempt(&options);
            let history = first.failed(&options, attempt, limited(moment), None, NOW, 0.5);
            (history.attempt(&options).ca, history.next())
        };
        assert_eq!(history(&[false], later), (0, later));
        assert_eq!(history(&[false], i64::MAX), (0, NOW + RETRY_AFTER_MAX));
        assert_eq!(history(&[false], 0), (0, NOW + MINUTE));
        assert_eq!(history(&[false, false], later), (1, NOW + MINUTE));
        // Both closed: the one that opens first.
        let options = one(&[false, false]);
        let mut both = History::default();
        for moment in [later, NOW + 3 * DAY] {
            let attempt = both.attempt(&options);
            both = both.failed(&options, attempt, limited(moment), None, NOW, 0.5);
        }
        assert_eq!((both.attempt(&options).ca, both.next()), (0, later));
    }

    #[test]
    fn an_attempt_cut_off_again_and_again_waits_by_the_table() {
        let mut history = History::default();
        let mut now = NOW;
        let waits: Vec<_> = (0..6)
            .map(|_| {
                history = history.clone().begun(now);
                let wait = history.next() - now;
                now = history.next();
                wait
            })
            .collect();
        assert_eq!(waits, [10, 10, 10, 60, 60, 120]);
    }

    #[test]
    fn a_success_forgets_the_failures_but_not_itself() {
        let mut history = History::default();
        cas(&mut history, &one(&[true, false]), Failure::Validation, 9);
        let history = history.succeeded(NINETY, NOW);
        assert_eq!((history.failures(), history.rested()), (0, NOW + HOUR));
        assert!(history.next() <= NOW, "what lacks a name is ordered at once");
        assert_eq!(history.attempt(&one(&[true, false])), Attempt { ca: 0, staging: false, challenge: 0 });
        let minute = Validity { not_before: NOW, not_after: NOW + 60 };
        assert_eq!(history.succeeded(minute, NOW).rested(), NOW + 20);
    }

    #[test]
    fn what_is_changed_is_tried_at_once_but_for_what_the_ca_asked_for() {
        let options = one(&[true, false]);
        let mut history = History::default();
        cas(&mut history, &options, Failure::Validation, 9);
        let afresh = history.clone().afresh(NOW);
        assert_eq!((afresh.failures(), afresh.why()), (0, None));
        assert!(afresh.next() <= NOW && !afresh.attempt(&options).staging);
        let attempt = history.attempt(&options);
        let told = history.failed(&options, Attempt { ca: 0, ..attempt }, limited(NOW + DAY), None, NOW, 0.5);
        assert_eq!(told.clone().afresh(NOW).attempt(&options).ca, 1, "the other CA may be asked meanwhile");
        let alone = told.failed(&options, Attempt { ca: 1, ..attempt }, limited(NOW + 2 * DAY), None, NOW, 0.5).afresh(NOW);
        assert_eq!((alone.attempt(&options).ca, alone.next()), (0, NOW + DAY));
        assert_eq!(History::default().begun(NOW).afresh(NOW).next(), NOW + CUT);
    }

    #[test]
    fn a_history_survives_a_restart_and_a_clock_that_was_wrong() {
        let options = one(&[true, true]);
        let mut history = History::default();
        cas(&mut history, &options, Failure::Validation, 12);
        let text = serde_json::to_string(&history).expect("json");
        let again: History = serde_json::from_str(&text).expect("the same");
        assert_eq!(again, history);
        assert_eq!(again.attempt(&options), history.attempt(&options));
        assert_eq!(again.next(), history.next());
        assert_eq!(serde_json::from_str::<History>("{}").expect("of an older version"), History::default());
        let earlier = NOW - 20 * 365 * DAY;
        assert_eq!(history.clone().restored(earlier).next(), earlier + LONGEST * 11 / 10);
        let attempt = history.attempt(&options);
        let limited = Fault { failure: Failure::RateLimited, retry_after: Some(NOW + 2 * DAY) };
        let closed = history.failed(&one(&[false]), attempt, limited, None, NOW, 0.5);
        assert_eq!(closed.clone().restored(earlier).next(), earlier + RETRY_AFTER_MAX);
        assert_eq!(closed.restored(NOW).next(), NOW + 2 * DAY);
    }

    /// 48 hours in which validation never passes on production. Gives attempts that failed, those on production, rehearsals that passed.
    fn two_days(staging: &[bool], served: Option<Validity>, dice: &[f64], passes: &[bool]) -> (u32, u32, u32) {
        let options = one(staging);
        let mut history = History::default();
        let (mut now, mut failed, mut production, mut passed) = (NOW, 0, 0, 0);
        let mut turn = 0;
        while now < NOW + 48 * HOUR {
            let attempt = history.attempt(&options);
            history = serde_json::from_slice(&serde_json::to_vec(&history).expect("json")).expect("the same");
            history = history.restored(now).begun(now);
            if attempt.staging && passes[turn % passes.len()] {
                passed += 1;
                history = history.rehearsed(now);
            } else {
                failed += 1;
                production += u32::from(!attempt.staging);
                history = history.failed(&options, attempt, of(Failure::Validation), served, now, dice[turn % dice.len()]);
            }
            turn += 1;
            now = history.next();
        }
        (failed, production, passed)
    }

    #[test]
    fn the_constant_is_what_the_table_allows() {
        assert_eq!(two_days(&[false], None, &[0.0], &[false]), (ATTEMPTS_IN_48H, ATTEMPTS_IN_48H, 0));
        assert_eq!(two_days(&[true], None, &[0.0], &[false]), (ATTEMPTS_IN_48H, 1, 0));
    }

    proptest! {
        #[test]
        fn validation_that_never_passes_costs_no_more_than_the_table(
            staging in prop::collection::vec(any::<bool>(), 1..4),
            dice in prop::collection::vec(0.0..1.0f64, 1..50),
            passes in prop::collection::vec(any::<bool>(), 1..50),
            life in prop::option::of(15 * DAY / 2..400 * DAY),
        ) {
            let served = life.map(|life| Validity { not_before: NOW, not_after: NOW + life });
            let (failed, production, passed) = two_days(&staging, served, &dice, &passes);
            prop_assert!(failed <= ATTEMPTS_IN_48H);
            if staging.iter().all(|has| *has) {
                prop_assert!(production <= passed + 1, "{production} on production, {passed} rehearsals passed");
            }
        }

        #[test]
        fn a_renewal_is_due_within_the_life_and_a_margin_before_its_end(
            not_before in any::<i64>(),
            not_after in any::<i64>(),
            start in any::<i64>(),
            end in any::<i64>(),
            spread in any::<f64>(),
            now in any::<i64>(),
        ) {
            let validity = Validity { not_before, not_after };
            for window in [None, Some(Window { start, end })] {
                let (at, _) = due(validity, window, spread);
                prop_assert!(at >= not_before);
                if not_after > not_before {
                    prop_assert!(i128::from(at) <= validity.latest());
                }
            }
            prop_assert!(at_risk(validity, now.max(not_after)));
        }

        #[test]
        fn a_real_life_is_renewed_in_time(life in 1..400 * DAY, spread in 0.0..1.0f64, start in -10 * DAY..400 * DAY, width in 1..30 * DAY) {
            let validity = Validity { not_before: NOW, not_after: NOW + life };
            let window = Window { start: NOW + start, end: NOW + start + width };
            let (at, _) = due(validity, Some(window), spread);
            prop_assert!(at <= NOW + life - (life / 10).min(MARGIN));
            if at > NOW && at < NOW + life - (life / 10).min(MARGIN) {
                prop_assert!(at >= window.start && at < window.end);
            }
            let (plain, _) = due(validity, None, spread);
            prop_assert!(plain >= NOW + life * 45 / 100 - 2 && plain <= NOW + life * 2 / 3 + 1);
        }

        #[test]
        fn waits_never_shrink_and_stay_below_the_longest(failures in any::<u32>(), more in 0..100u32, now in -1e15 as i64..1e15 as i64, dice in any::<f64>()) {
            prop_assert!(nominal(failures) <= nominal(failures.saturating_add(more)));
            let history = History { failures, ..History::default() };
            let options = one(&[false]);
            let next = history.clone().failed(&options, history.attempt(&options), of(Failure::Unreachable), None, now, dice).next();
            prop_assert!(next - now >= MINUTE * 9 / 10 && next - now <= LONGEST * 11 / 10);
        }

        #[test]
        fn a_certificate_in_service_is_tried_again_within_a_thirtieth_of_its_life(failures in any::<u32>(), life in 0..400 * DAY, dice in any::<f64>()) {
            let history = History { failures, ..History::default() };
            let options = one(&[false]);
            let served = Some(Validity { not_before: NOW, not_after: NOW + life });
            let after = |fault| history.clone().failed(&options, history.attempt(&options), fault, served, NOW, dice).next() - NOW;
            prop_assert!((1..=(life / PATIENCE).max(1)).contains(&after(of(Failure::Unreachable))));
            prop_assert_eq!(after(limited(NOW + 8 * HOUR)), 8 * HOUR, "but the CA has the last word");
        }

        #[test]
        fn any_sequence_of_calls_on_any_history_survives(
            start in (any::<u32>(), any::<i64>(), any::<usize>(), any::<u32>(), any::<bool>(), any::<usize>(), prop::collection::vec(any::<i64>(), 0..5)),
            calls in prop::collection::vec((0..5u8, 0..5u8, any::<Option<i64>>(), any::<i64>(), any::<f64>(), any::<usize>()), 0..40),
            staging in prop::collection::vec(any::<bool>(), 0..4),
            challenges in 0..3usize,
        ) {
            let (failures, not_before, ca, streak, rehearse, challenge, closed) = start;
            let mut history = History { failures, not_before, ca, streak, rehearse, challenge, closed, cuts: streak, stage_faults: streak, passed: rehearse, rest: not_before };
            let options = Options { staging: &staging, challenges };
            for (call, kind, moment, now, dice, any) in calls {
                let attempt = history.attempt(&options);
                prop_assert!(attempt.ca < staging.len().max(1) && attempt.challenge < challenges.max(1));
                prop_assert!(!attempt.staging || staging[attempt.ca]);
                let failure = [Failure::Validation, Failure::RateLimited, Failure::Refused, Failure::Unreachable, Failure::Broken][usize::from(kind)];
                history = match call {
                    0 => history.begun(now),
                    1 => history.rehearsed(now),
                    2 => history.succeeded(Validity { not_before: now, not_after: moment.unwrap_or(now) }, now),
                    3 if kind == 0 => history.afresh(now),
                    3 => history.restored(now),
                    _ => {
                        // Whatever an earlier configuration may have handed out.
                        let served = (kind > 2).then_some(Validity { not_before: any as i64, not_after: now });
                        let attempt = if kind == 0 { Attempt { ca: any, staging: true, challenge: any } } else { attempt };
                        let next = history.failed(&options, attempt, Fault { failure, retry_after: moment }, served, now, dice);
                        prop_assert!(next.next() > now || now > i64::MAX - DAY);
                        next
                    }
                };
            }
        }
    }
}
