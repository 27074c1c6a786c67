//! An address that somebody else has: nothing is started until he is gone.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: no exit, so it costs no budget, and a roll lives through the first try: one who is only slow to let go of the address ends nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{After, Backoff, Effect, Life, Phase, Report};

/// What the last tries of an instance found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) why: String,
    /// Of its own: a stranger that stays for an hour must not make the next crash wait longer.
    backoff: Backoff,
}

impl Life {
    pub(super) fn taken(&mut self, n: u16, why: String, now: Duration, dice: u64) {
        let policy = &self.spec.restart;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let Phase::Spawning { then } = cell.phase.clone() else { return };
        if let Some(then @ (After::Rest | After::Remove)) = then {
            cell.taken = None;
            return self.settle(n, then, now, dice);
        }
        let lasts = cell.taken.is_some();
        let mut backoff = cell.taken.take().map(|taken| taken.backoff).unwrap_or_default();
        let delay = backoff.fail(policy.delay, policy.max_delay, dice);
        cell.taken = Some(Taken { why: why.clone(), backoff });
        if lasts {
            self.abort_roll(Some(n), &why);
        }
        self.effects.push(Effect::Report(Report::Taken { n, why, delay, lasts }));
        self.enter(n, Phase::Taken { due: now + delay }, now);
    }
}
