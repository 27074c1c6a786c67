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
mod tests;
