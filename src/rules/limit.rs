//! Zone rule: whether one more request of a key fits its budget, at once or after a wait, and what it holds of the budget until it is over.
//!
//! Pure: time is an argument. GCRA in whole nanoseconds, over a store of our own that is bounded ([`cells`]).
//!
//! Shape: [`Limiter::hold`] → [`Asked::judge`] → [`Asked::take`], the cell locked from the first to the last: whoever asks several zones holds all their cells, in one
//!        order for all, before it takes of any. So a refusal has spent nothing, and needs no refund.
//!        Budget: rate and burst, a number of requests at once, or both.
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

use cells::{Cell, Cells, Held};
pub use key::{KeyHash, Plus, Print, cookie, only, query};

/// What a full zone costs at most for each of its `max_keys`: a slot and its index entry, each just after their tables have doubled, and its share of the overflow.
pub const BYTES_PER_KEY: usize = 96;

/// Longer than any pace is meant; keeps 64-bit nanoseconds from overflowing.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// One zone: its rule, and the cells that it is applied to.
#[derive(Debug)]
pub struct Limiter {
    pace: Option<Gcra>,
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
        Self { pace, concurrent: zone.concurrent.map_or(u32::MAX, |most| most.get()), max_keys: zone.max_keys.get() as usize, cells }
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
        let Limiter { pace, concurrent, .. } = self.limiter;
        let Cell { full_at, running, .. } = *self.held.cell();
        let ahead = full_at.saturating_sub(self.now);
        match pace {
            Some(Gcra { burst, .. }) if ahead > *burst => Judgement::Refuse(Some(Duration::from_nanos(ahead - burst))),
            Some(_) | None if running >= *concurrent => Judgement::Refuse(None),
            Some(Gcra { free, .. }) => Judgement::Admit(Duration::from_nanos(ahead.saturating_sub(*free))),
            None => Judgement::Admit(Duration::ZERO),
        }
    }

    /// The request is admitted.
    #[must_use]
    pub fn take(mut self) -> Ticket {
        let Self { limiter: Limiter { pace, concurrent, .. }, print, now, .. } = self;
        let cell = self.held.cell();
        if let Some(Gcra { every, .. }) = pace {
            cell.full_at = cell.full_at.max(now).saturating_add(*every);
        }
        let runs = *concurrent < u32::MAX;
        if runs {
            cell.running += 1;
        }
        Ticket { print, full_at: cell.full_at, runs }
    }
}

/// What an admitted request has of a zone, to be given back.
#[derive(Debug)]
pub struct Ticket {
    print: Print,
    /// As it was when this request, and nobody after it, had spent.
    full_at: u64,
    runs: bool,
}

impl Ticket {
    /// Whether there is anything to give back.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.runs
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
