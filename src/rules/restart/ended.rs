//! A process that ended: its leader, or the last of it.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use super::{After, Exit, Life, Phase, Reason, blame::Charge, deploy::Deploy};
use crate::plan::app::Policy;

/// What those have to end that a crashed leader left. The next process comes after them, and requests that wait for it are held for 15 s by default.
const AFTER_CRASH: Duration = Duration::from_secs(5);

impl Life {
    pub(super) fn exited(&mut self, n: u16, exit: Exit, now: Duration, dice: u64) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let why = exit.to_string();
        let phase = cell.phase.clone();
        match phase {
            // Nothing of it ran.
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                return;
            }
            Phase::Draining { then, .. }
            | Phase::Stopping { then, .. }
            | Phase::Killing { then, .. }
            | Phase::Spawning { then: Some(then) } => {
                let told = match &then {
                    After::Fail(_, first) | After::End(first) => first.clone(),
                    After::Rest | After::Again(_) | After::Remove => why,
                };
                cell.last_exit = Some((told, now));
                if matches!(then, After::Fail(Reason::Exit | Reason::Signal | Reason::Memory, _)) {
                    // Its leader ended some time before.
                    cell.charge = Some(Charge::of(cell, now));
                }
                return self.settle(n, then, now, dice);
            }
            Phase::Ready => {
                cell.backoff.served(now.saturating_sub(cell.since));
                cell.charge = Some(Charge::of(cell, now));
            }
            Phase::Spawning { then: None } | Phase::Starting { .. } => {}
        }
        cell.last_exit = Some((why.clone(), now));
        if self.deploy.as_ref().is_some_and(Deploy::is_guarding) {
            self.enter(n, Phase::Stopped, now);
            return self.fail_deploy(Some(n), &format!("instance {n} of the new release ended: {why}"), now);
        }
        let then = self.after_exit(exit, why);
        self.settle(n, then, now, dice);
    }

    /// Its leader ended by itself and left others running: they are told to stop, and have the app's patience, before what follows from its end. After a crash
    /// less of it: requests are held meanwhile.
    pub(super) fn left(&mut self, n: u16, exit: Exit, why: String, now: Duration) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        match cell.phase {
            // They are told already, or will be.
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Spawning { then: Some(_) } => return,
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                return;
            }
            Phase::Ready => cell.backoff.served(now.saturating_sub(cell.since)),
            Phase::Spawning { then: None } | Phase::Starting { .. } => {}
        }
        cell.last_exit = Some((why.clone(), now));
        if self.deploy.as_ref().is_some_and(Deploy::is_guarding) {
            return self.fail_deploy(Some(n), &format!("instance {n} of the new release ended: {why}"), now);
        }
        let then = self.after_exit(exit, why);
        let timeout = self.spec.stop.timeout;
        self.signal_within(n, then, if exit == Exit::Code(0) { timeout } else { timeout.min(AFTER_CRASH) }, now);
    }

    /// What follows from an end that nobody asked for.
    fn after_exit(&self, exit: Exit, why: String) -> After {
        let reason = match exit {
            Exit::Code(_) => Reason::Exit,
            Exit::Signal(_) => Reason::Signal,
            Exit::Memory { .. } => Reason::Memory,
        };
        let restart = &self.spec.restart;
        let well = matches!(exit, Exit::Code(code) if code == 0 || restart.success.contains(&code));
        let for_good = matches!(exit, Exit::Code(code) if restart.give_up.contains(&code));
        if for_good || (restart.policy == Policy::OnFailure && well) { After::End(why) } else { After::Fail(reason, why) }
    }
}
