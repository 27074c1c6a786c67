//! Zone rule: whether one more request of a key fits its budget, at once or after a wait, and what it holds of the budget until it is over.
//!
//! Pure: time is an argument. GCRA in whole nanoseconds, over a store of our own that is bounded ([`cells`]).
//!
//! Shape: [`Limiter::hold`] → [`Asked::judge`] → [`Asked::take`], the cell locked from the first to the last: whoever asks several zones holds all their cells, in one
//!        order for all, before it takes of any. So a refusal has spent nothing, and needs no refund.
//!        Budget: rate and burst, a number of requests at once, or both.
//!        Where only some answers spend (`count`), a request reserves and its answer decides: what is spent and what is reserved never exceed the budget together, so
//!        what is spent never does, however many come at once; a refund is exact because a reservation has no time in it. Whom reservations alone keep out waits
//!        for their outcome ([`Judgement::Unsettled`]).
//!        Turns: what exceeds `delay` is admitted with a wait, and has spent from then on. A turn that nobody waits for any more is given back where nobody has
//!        come after it, which is where that is exact; else its slot stays empty.
//! Units: `now` is monotonic, since an epoch that the caller chose and keeps. Memory: at most [`BYTES_PER_KEY`] a key of `max_keys`, taken as keys come.
//! Source: GCRA (ITU-T I.371); nginx's `limit_req`, which admits burst + 1 at once with `nodelay`, and makes what exceeds `delay` wait; `limit_conn`.

use std::{sync::Arc, time::Duration};

use crate::plan;

mod cells;
mod key;

#[cfg(test)]
mod tests;

use cells::{Cells, Held};
pub use key::{KeyHash, Plus, Print, cookie, only, query};

/// What a full zone costs at most for each of its `max_keys`: a slot and its index entry, each just after their tables have doubled, and its share of the overflow.
pub const BYTES_PER_KEY: usize = 96;

/// Longer than any pace is meant; keeps 64-bit nanoseconds from overflowing.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// One zone: its rule, and the cells that it is applied to.
#[derive(Debug)]
pub struct Limiter {
    pace: Option<Gcra>,
    /// A request reserves, and its answer decides.
    counts: bool,
    /// At once, of one key.
    concurrent: u32,
    max_keys: usize,
    cells: Arc<Cells>,
}

/// A pace in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gcra {
    /// One permit takes so long to come back.
    every: u64,
    /// So much may be spent ahead.
    burst: u64,
    /// So much of it without a wait.
    free: u64,
}

/// What a zone says of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// After so long, which is zero where nobody waits.
    Admit(Duration),
    /// What is left is reserved by requests that may not spend it.
    Unsettled,
    /// The wait until the pace admits one; `None`: until another request of the key is over.
    Refuse(Option<Duration>),
}

impl Limiter {
    #[must_use]
    pub fn new(zone: &plan::Zone) -> Self {
        Self::over(zone, Arc::new(Cells::new(zone.max_keys.get() as usize)))
    }

    /// Keeps the cells of `old` where a key's budget is what it was: the same key, rate and burst. Whatever else has changed counts from now on.
    #[must_use]
    pub fn succeed(zone: &plan::Zone, old: &Self, before: &plan::Zone) -> Self {
        let same = (&zone.key, zone.rate, zone.burst) == (&before.key, before.rate, before.burst);
        if same { Self::over(zone, Arc::clone(&old.cells)) } else { Self::new(zone) }
    }

    fn over(zone: &plan::Zone, cells: Arc<Cells>) -> Self {
        let pace = zone.rate.map(|rate| {
            let every = nanos(rate.every().min(LONGEST));
            let many = |requests: u32| every.saturating_mul(u64::from(requests)).min(nanos(LONGEST));
            Gcra { every, burst: many(zone.burst), free: many(zone.delay) }
        });
        let counts = !zone.count.is_empty();
        Self {
            pace,
            counts,
            concurrent: zone.concurrent.map_or(u32::MAX, |most| most.get()),
            max_keys: zone.max_keys.get() as usize,
            cells,
        }
    }

    /// A key to be put together.
    #[must_use]
    pub fn key(&self) -> KeyHash {
        self.cells.key()
    }

    /// Asks for one request of a key. Nobody else asks for that key until the answer is dropped.
    #[must_use]
    pub fn hold(&self, print: Print, now: Duration) -> Asked<'_> {
        let now = nanos(now);
        Asked { limiter: self, held: self.cells.hold(print, self.max_keys, now), print, now }
    }

    /// A request is over that held something.
    pub fn leave(&self, ticket: &Ticket) {
        if ticket.runs
            && let Some(mut held) = self.cells.find(ticket.print)
        {
            let cell = held.cell();
            cell.running = cell.running.saturating_sub(1);
        }
    }

    /// The answer of a request is known, or will never be: whether it spends.
    pub fn settle(&self, ticket: &mut Ticket, now: Duration, spends: bool) {
        let claim = std::mem::replace(&mut ticket.claim, Claim::Nothing);
        let (Some(Gcra { every, burst, .. }), Some(mut held)) = (self.pace, self.cells.find(ticket.print)) else { return };
        let (cell, now) = (held.cell(), nanos(now));
        let spends = spends
            && match claim {
                Claim::Nothing => false,
                Claim::Reserved => true,
                Claim::Open => cell.ahead(now, every) <= burst,
            };
        if claim == Claim::Reserved {
            cell.reserved = cell.reserved.saturating_sub(1);
        }
        if spends {
            cell.full_at = cell.full_at.max(now).saturating_add(every);
        }
    }

    /// What a key has left.
    #[must_use]
    pub fn standing(&self, print: Print, now: Duration) -> Standing {
        let cell = self.cells.find(print).map(|mut held| *held.cell()).unwrap_or_default();
        let pace = self.pace.map(|Gcra { every, burst, .. }| {
            let ahead = cell.ahead(nanos(now), every);
            let left = burst.checked_sub(ahead).map_or(0, |left| left / every + 1);
            let whole = burst.saturating_add(every);
            Budget { limit: burst / every + 1, left, back: Duration::from_nanos(ahead), whole: Duration::from_nanos(whole) }
        });
        let at_once = (self.concurrent < u32::MAX).then(|| (self.concurrent, self.concurrent.saturating_sub(cell.running)));
        Standing { pace, at_once }
    }

    /// A request has left before its turn.
    pub fn refund(&self, ticket: &Ticket) {
        if let (Some(Gcra { every, .. }), Some(mut held)) = (self.pace, self.cells.find(ticket.print)) {
            let cell = held.cell();
            if cell.full_at == ticket.full_at {
                cell.full_at = cell.full_at.saturating_sub(every);
            }
        }
    }

    /// Cells in use, idle ones included; never more than `max_keys`.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.cells.len()
    }

    /// Bytes that the cells take now, by the capacity of their tables.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.cells.memory()
    }
}

/// One zone, asked for one request.
pub struct Asked<'a> {
    limiter: &'a Limiter,
    held: Held<'a>,
    print: Print,
    now: u64,
}

impl Asked<'_> {
    #[must_use]
    pub fn judge(&mut self) -> Judgement {
        let Limiter { pace, counts, concurrent, .. } = self.limiter;
        let cell = *self.held.cell();
        let busy = cell.running >= *concurrent;
        let Some(Gcra { every, burst, free }) = *pace else {
            return if busy { Judgement::Refuse(None) } else { Judgement::Admit(Duration::ZERO) };
        };
        let (spent, ahead) = (cell.full_at.saturating_sub(self.now), cell.ahead(self.now, every));
        match (spent > burst, ahead > burst) {
            (true, _) => Judgement::Refuse(Some(Duration::from_nanos(spent - burst))),
            (false, _) if busy => Judgement::Refuse(None),
            (false, true) => Judgement::Unsettled,
            (false, false) if *counts => Judgement::Admit(Duration::ZERO),
            (false, false) => Judgement::Admit(Duration::from_nanos(ahead.saturating_sub(free))),
        }
    }

    /// The request goes on although what is left is reserved: it spends, if something is left by then.
    #[must_use]
    pub fn pass(self) -> Ticket {
        Ticket { print: self.print, full_at: 0, claim: Claim::Open, runs: false }
    }

    /// The request is admitted.
    #[must_use]
    pub fn take(mut self) -> Ticket {
        let Self { limiter: Limiter { pace, counts, concurrent, .. }, print, now, .. } = self;
        let cell = self.held.cell();
        let mut claim = Claim::Nothing;
        match pace {
            Some(_) if *counts => {
                cell.reserved += 1;
                claim = Claim::Reserved;
            }
            Some(Gcra { every, .. }) => cell.full_at = cell.full_at.max(now).saturating_add(*every),
            None => {}
        }
        let runs = *concurrent < u32::MAX;
        if runs {
            cell.running += 1;
        }
        Ticket { print, full_at: cell.full_at, claim, runs }
    }
}

/// What an admitted request has of a zone, to be given back.
#[derive(Debug)]
pub struct Ticket {
    print: Print,
    /// As it was when this request, and nobody after it, had spent.
    full_at: u64,
    claim: Claim,
    runs: bool,
}

/// What an answer will settle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    Nothing,
    Reserved,
    /// Nothing was left to reserve.
    Open,
}

/// What a key has left of each of its limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    pub pace: Option<Budget>,
    /// The limit, and how many more may come at once.
    pub at_once: Option<(u32, u32)>,
}

/// Of a pace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Admitted at one moment when nothing is spent.
    pub limit: u64,
    pub left: u64,
    /// Until all of it is back.
    pub back: Duration,
    /// The time that all of it takes to come back.
    pub whole: Duration,
}

impl Ticket {
    /// Of a key that was asked and got nothing.
    #[must_use]
    pub fn empty(print: Print) -> Self {
        Self { print, full_at: 0, claim: Claim::Nothing, runs: false }
    }

    #[must_use]
    pub fn print(&self) -> Print {
        self.print
    }

    /// Whether its answer decides of something.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.claim != Claim::Nothing
    }

    /// Whether there is anything to give back.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.runs || self.is_open()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
