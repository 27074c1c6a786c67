//! An instance that fails its liveness probes or its watchdog.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use super::{After, Effect, Life, Phase, Reason, Report, Role, deploy::Deploy};

impl Life {
    pub(super) fn dead(&mut self, n: u16, incarnation: u64, why: String, now: Duration) {
        if self.role(n, incarnation) != Role::Present {
            return;
        }
        let Some(cell) = self.cells.get_mut(&n).filter(|cell| cell.phase == Phase::Ready) else { return };
        self.effects.push(Effect::Report(Report::Unhealthy { n, why: why.clone() }));
        if self.deploy.as_ref().is_some_and(Deploy::is_guarding) {
            return self.fail_deploy(Some(n), &format!("instance {n} of the new release is unhealthy: {why}"), now);
        }
        cell.dead = Some(why);
    }

    /// One at a time, and while another comes or goes none: so never below what serves. Not beyond the budget: what is unhealthy may yet answer, and what cools down
    /// does not.
    pub(super) fn restart_a_dead_one(&mut self, now: Duration) {
        self.forget_old_exits(now);
        if !self.wanted || self.roll.is_some() || self.deploy.is_some() || self.is_in_motion() || self.is_budget_used_up() {
            return;
        }
        let dead = self.cells.iter().find_map(|(n, cell)| {
            let due = cell.phase == Phase::Ready && cell.wear.not_before.is_none_or(|at| at <= now);
            cell.dead.clone().filter(|_| due).map(|why| (*n, why))
        });
        let Some((n, why)) = dead else { return };
        let others_serve = self.cells.values().any(|cell| cell.phase == Phase::Ready && cell.dead.is_none());
        if let Some(cell) = self.cells.get_mut(&n) {
            cell.backoff.served(now.saturating_sub(cell.since));
        }
        if Self::surges(&self.spec) {
            self.exits.push_back(now);
            return self.succeed(n, self.spec.clone(), Reason::Unhealthy, now);
        }
        let then = After::Fail(Reason::Unhealthy, format!("unhealthy: {why}"));
        // Requests that hang in it may yet be answered; but not while everybody waits for it.
        if others_serve { self.drain(n, then, now) } else { self.signal(n, then, now) }
    }
}
