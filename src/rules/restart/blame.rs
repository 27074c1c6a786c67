//! Exits that a request is to blame for, and requests that find nobody.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: an exit is charged to the budget and to the delay of its instance at once; who is to blame is known a moment later. If it is a request, and the process
//!        had answered others, the charge is taken back: the program is as good as it was, and its next process comes after the shortest delay. Else one who
//!        knows a path that crashes it could keep it down with a request a minute. A process that answers nothing before it ends pays as ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cell, Effect, Life, Phase, Report};
use crate::rules::backoff::Backoff;

/// While requests have come so lately, they come.
const ASKED: Duration = Duration::from_secs(60);

/// What an exit has cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    incarnation: u64,
    at: Duration,
    /// The delays as they were before.
    backoff: Backoff,
    /// It had answered requests, by its tallies.
    useful: bool,
    /// It has spent the budget.
    pub(super) spent: bool,
}

impl Charge {
    /// Of a process that serves.
    pub(super) fn of(cell: &Cell, now: Duration) -> Self {
        let useful = cell.wear.requests > cell.wear.failures;
        Self { incarnation: cell.incarnation, at: now, backoff: cell.backoff, useful, spent: false }
    }
}

impl Life {
    pub(super) fn blamed(&mut self, n: u16, incarnation: u64, answered: bool, now: Duration) {
        self.asked = Some(now);
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let Some(charge) = cell.charge.take_if(|charge| charge.incarnation == incarnation && (charge.useful || answered)) else { return };
        cell.backoff = charge.backoff;
        let waits = cell.incarnation == incarnation && matches!(cell.phase, Phase::Backoff { .. } | Phase::Cooldown { .. });
        if let Some(at) = self.exits.iter().rposition(|at| *at == charge.at) {
            self.exits.remove(at);
        }
        if charge.spent && self.cooling.take().is_some() {
            self.effects.push(Effect::Report(Report::Recovered));
            self.warm_up(now);
        }
        if waits {
            let due = (charge.at + self.spec.restart.delay).max(now);
            self.enter(n, Phase::Backoff { due }, now);
        }
    }

    pub(super) fn wanted_by_requests(&mut self, now: Duration) {
        self.asked = Some(now);
        self.let_one_come(now);
    }

    /// Whether an instance that ends is to cool down: one of the app goes on by its own delay while requests come.
    pub(super) fn cools_down(&self, n: u16, now: Duration) -> bool {
        self.cooling.is_some() && !(self.is_asked_for(now) && self.is_alone(Some(n)))
    }

    /// Of those that cool down, the first that may come does.
    fn let_one_come(&mut self, now: Duration) {
        if self.cooling.is_none() || !self.is_alone(None) {
            return;
        }
        let waits = self.cells.iter().filter_map(|(n, cell)| match cell.phase {
            Phase::Cooldown { not_before } => Some((not_before, *n)),
            Phase::Stopped
            | Phase::Awaiting
            | Phase::Exited
            | Phase::Spawning { .. }
            | Phase::Starting { .. }
            | Phase::Ready
            | Phase::Draining { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Taken { .. }
            | Phase::Backoff { .. } => None,
        });
        if let Some((due, n)) = waits.min() {
            self.enter(n, Phase::Backoff { due }, now);
        }
    }

    fn is_asked_for(&self, now: Duration) -> bool {
        self.asked.is_some_and(|at| at + ASKED > now)
    }

    /// Whether no instance, but perhaps this one, serves or is on its way.
    fn is_alone(&self, but: Option<u16>) -> bool {
        let rests = |cell: &Cell| matches!(cell.phase, Phase::Stopped | Phase::Exited | Phase::Cooldown { .. } | Phase::Taken { .. });
        self.cells.iter().all(|(n, cell)| Some(*n) == but || rests(cell))
    }
}
