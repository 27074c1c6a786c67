//! Rolling restart: one instance after the other, each replaced before its old process goes.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: max_surge 1, max_unavailable 0. Where two processes cannot be side by side (a fixed port, a worker, no memory), the old one goes first.
//!        The first that does not come up ends it: the others stay as they are.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::{After, Effect, Life, Phase, Reason, Report};

/// A restart under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Roll {
    queue: VecDeque<u16>,
    /// The instances under way and the incarnations they must get rid of: one, or all when nothing served at first.
    current: Vec<(u16, u64)>,
    reason: Reason,
}

impl Roll {
    pub(super) fn new(queue: VecDeque<u16>, reason: Reason) -> Self {
        Self { queue, current: Vec::new(), reason }
    }
}

impl Life {
    pub(super) fn begin_roll(&mut self, reason: Reason, now: Duration) {
        if self.removed {
            return;
        }
        if self.deploy.is_some() {
            self.effects.push(Effect::Report(Report::RollAborted { n: 0, why: "a deploy is under way".to_owned() }));
            return;
        }
        self.abort_roll(None, "another restart was asked for");
        self.wanted = true;
        self.thaw(now);
        for cell in self.cells.values_mut() {
            cell.backoff.forget();
        }
        let procs = self.spec.procs.get();
        let mut roll = Roll::new(self.numbers().into_iter().filter(|n| *n < procs).collect(), reason);
        if self.is_at_rest() || self.is_awaiting() {
            // Nothing serves: all at once.
            roll.current = roll.queue.drain(..).filter_map(|n| Some((n, self.cells.get(&n)?.incarnation))).collect();
            self.start(now);
        }
        self.roll = Some(roll);
    }

    /// The next instance when the one before is ready and its old process is gone.
    pub(super) fn advance_roll(&mut self, now: Duration) {
        while let Some(roll) = &mut self.roll {
            let (cells, leaving) = (&self.cells, &self.leaving);
            roll.current.retain(|(n, old)| {
                let new =
                    cells.get(n).is_none_or(|cell| cell.incarnation != *old && cell.phase == Phase::Ready && cell.successor.is_none());
                !new || leaving.values().any(|leaving| leaving.n == *n)
            });
            if !roll.current.is_empty() {
                return;
            }
            let reason = roll.reason;
            let Some(n) = roll.queue.pop_front() else {
                self.roll = None;
                self.effects.push(Effect::Report(Report::RollDone));
                return;
            };
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            roll.current.push((n, cell.incarnation));
            match cell.phase {
                Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                    cell.pending = Some(reason);
                    self.spawn(n, now);
                }
                Phase::Ready if Self::surges(&self.spec) => self.succeed(n, self.spec.clone(), reason, now),
                Phase::Spawning { .. }
                | Phase::Starting { .. }
                | Phase::Ready
                | Phase::Draining { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. } => self.take_down(n, After::Again(reason), now),
            }
        }
    }

    /// Ends a roll: because of `n` if that is the instance under way, or whatever is under way.
    pub(super) fn abort_roll(&mut self, n: Option<u16>, why: &str) {
        let Some(roll) = &self.roll else { return };
        let current = roll.current.iter().map(|(current, _)| *current).find(|current| n.is_none_or(|n| n == *current));
        if n.is_none() || current.is_some() {
            self.roll = None;
            self.effects.push(Effect::Report(Report::RollAborted { n: current.unwrap_or(0), why: why.to_owned() }));
        }
    }
}
