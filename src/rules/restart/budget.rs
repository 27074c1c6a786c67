//! The budget of unexpected exits: what it allows, and the cooldown when it is spent.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use super::{Cell, Effect, Life, Phase, Reason, Report};
use crate::plan::app::Policy;

/// Between two tries of an app whose budget is spent.
pub const COOLDOWN: Duration = Duration::from_secs(60);

impl Life {
    /// It ended and should not have.
    pub(super) fn fail(&mut self, n: u16, reason: Reason, why: String, now: Duration, dice: u64) {
        let policy = &self.spec.restart;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        if policy.policy == Policy::Never {
            return self.end(n, why, now);
        }
        cell.pending = Some(reason);
        let die = dice.wrapping_add(u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let delay = cell.backoff.fail(policy.delay, policy.max_delay, die);
        cell.trial = false;
        self.exits.push_back(now);
        let (count, window) = (policy.budget.count().get() as usize, policy.budget.per());
        while self.exits.len() > count + 1 || self.exits.front().is_some_and(|at| *at + window <= now) {
            self.exits.pop_front();
        }
        if self.cells.get(&n).is_some_and(|cell| cell.successor.is_none()) {
            self.abort_roll(Some(n), &why);
        }
        if self.cooling.is_none() && self.exits.len() > count {
            self.cooling = Some(now + COOLDOWN);
            self.effects.push(Effect::Report(Report::BudgetSpent { exits: self.exits.len() }));
            if let Some(charge) = self.cells.get_mut(&n).and_then(|cell| cell.charge.as_mut()) {
                charge.spent = true;
            }
        }
        let due = now + delay;
        if let Some(at) = self.cooling.filter(|_| self.cools_down(n, now)) {
            self.effects.push(Effect::Report(Report::Again { n, why, delay: at.max(due).saturating_sub(now) }));
            self.enter(n, Phase::Cooldown { not_before: due }, now);
        } else {
            self.effects.push(Effect::Report(Report::Again { n, why, delay }));
            self.enter(n, Phase::Backoff { due }, now);
        }
    }

    /// In cooldown: lets the instance that has waited longest try.
    pub(super) fn try_one(&mut self, now: Duration) {
        if self.cooling.is_none_or(|at| at > now) {
            return;
        }
        let waits = |cell: &Cell| matches!(cell.phase, Phase::Cooldown { not_before } if not_before <= now);
        let longest = self.cells.iter().filter(|(_, cell)| waits(cell)).min_by_key(|(n, cell)| (cell.since, **n)).map(|(n, _)| *n);
        if let Some(n) = longest {
            self.cooling = Some(now + COOLDOWN);
            self.spawn(n, now);
        }
    }

    /// A try has served: the budget is whole again, and the others may come back.
    pub(super) fn recover(&mut self, n: u16, now: Duration) {
        if self.cooling.is_some() {
            self.effects.push(Effect::Report(Report::Recovered));
            self.thaw(now);
        }
        if let Some(cell) = self.cells.get_mut(&n) {
            cell.backoff.forget();
        }
    }

    /// The budget is whole again; what cooled down waits only for its own delay.
    pub(super) fn thaw(&mut self, now: Duration) {
        self.cooling = None;
        self.exits.clear();
        self.warm_up(now);
    }

    /// Nothing cools down any more.
    pub(super) fn warm_up(&mut self, now: Duration) {
        for n in self.numbers() {
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            cell.trial = false;
            if let Phase::Cooldown { not_before } = cell.phase {
                self.enter(n, Phase::Backoff { due: not_before }, now);
            }
        }
    }

    pub(super) fn forget_old_exits(&mut self, now: Duration) {
        let window = self.spec.restart.budget.per();
        while self.exits.front().is_some_and(|at| *at + window <= now) {
            self.exits.pop_front();
        }
    }

    /// One more exit would spend it.
    pub(super) fn is_budget_used_up(&self) -> bool {
        self.cooling.is_some() || self.exits.len() >= self.spec.restart.budget.count().get() as usize
    }

    /// When an unhealthy instance that is left alone for want of a budget may be looked at again.
    pub(super) fn mercy_ends(&self) -> Option<Duration> {
        let waits = self.cells.values().any(|cell| cell.phase == Phase::Ready && cell.dead.is_some());
        let window = self.spec.restart.budget.per();
        self.exits.front().filter(|_| waits && self.cooling.is_none() && self.is_budget_used_up()).map(|at| *at + window)
    }
}
