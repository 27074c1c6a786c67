//! How an instance ends: drained, told to, killed; and what follows.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use super::{After, Effect, Life, Phase, Report};
use crate::plan::AppPort;

/// After KILL: how long until it is sent again to what still has not gone.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(5);

impl Life {
    /// Ends one instance in good order, wherever it stands.
    pub(super) fn take_down(&mut self, n: u16, then: After, now: Duration) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        match &mut cell.phase {
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                self.settle(n, then, now, 0);
            }
            Phase::Spawning { then: later } => *later = Some(then),
            Phase::Starting { .. } => self.signal(n, then, now),
            Phase::Ready => self.drain(n, then, now),
            Phase::Draining { then: later, .. } | Phase::Stopping { then: later, .. } | Phase::Killing { then: later, .. } => *later = then,
        }
    }

    pub(super) fn drain(&mut self, n: u16, then: After, now: Duration) {
        let within = self.spec.stop.drain;
        let Some(cell) = self.cells.get(&n) else { return };
        if within.is_zero() || self.spec.port == AppPort::None {
            return self.signal(n, then, now);
        }
        self.effects.push(Effect::Drain { n, incarnation: cell.incarnation, within });
        self.enter(n, Phase::Draining { deadline: now + within, then }, now);
    }

    pub(super) fn signal(&mut self, n: u16, then: After, now: Duration) {
        self.signal_within(n, then, self.spec.stop.timeout, now);
    }

    pub(super) fn signal_within(&mut self, n: u16, then: After, within: Duration, now: Duration) {
        let Some(cell) = self.cells.get(&n) else { return };
        self.effects.push(Effect::Signal { n, incarnation: cell.incarnation });
        self.enter(n, Phase::Stopping { deadline: now + within, then }, now);
    }

    pub(super) fn kill(&mut self, n: u16, then: After, now: Duration) {
        let Some(cell) = self.cells.get(&n) else { return };
        self.effects.push(Effect::KillGroup { n, incarnation: cell.incarnation });
        self.enter(n, Phase::Killing { again: now + KILL_AGAIN, then }, now);
    }

    pub(super) fn kill_now(&mut self, now: Duration) {
        self.wanted = false;
        self.abort_roll(None, "the app was killed");
        self.fail_deploy(None, "the app was killed", now);
        let end = if self.removed { After::Remove } else { After::Rest };
        for n in self.numbers() {
            self.dismiss(n, now);
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            match &mut cell.phase {
                Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                    self.settle(n, end.clone(), now, 0);
                }
                Phase::Spawning { then } => *then = Some(end.clone()),
                Phase::Starting { .. } | Phase::Ready | Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killing { .. } => {
                    self.kill(n, end.clone(), now);
                }
            }
        }
        self.kill_leavers(now);
    }

    /// No process of it is left: what `then` says.
    pub(super) fn settle(&mut self, n: u16, then: After, now: Duration, dice: u64) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        cell.dead = None;
        match then {
            After::Rest => {
                if cell.phase != Phase::Stopped {
                    cell.pending = None;
                    self.effects.push(Effect::Report(Report::Stopped { n }));
                    self.enter(n, Phase::Stopped, now);
                }
            }
            After::Remove => {
                self.cells.remove(&n);
                self.changed = true;
            }
            After::Again(reason) => {
                cell.pending = Some(reason);
                self.spawn(n, now);
            }
            After::Fail(reason, why) => self.fail(n, reason, why, now, dice),
            After::End(why) => self.end(n, why, now),
        }
    }
}
