//! A reload changed the block of an app.
//!
//! Pure; a part of the restart rule.

use std::{sync::Arc, time::Duration};

use super::{After, Life, Phase, Reason, roll::Roll};
use crate::plan::{App, diff::same_process};

impl Life {
    pub(super) fn change(&mut self, spec: Arc<App>, now: Duration) {
        if self.removed {
            return;
        }
        self.fail_deploy(None, "the configuration of the app was changed", now);
        let old = std::mem::replace(&mut self.spec, spec);
        let procs = self.spec.procs.get();
        for n in self.numbers().into_iter().filter(|n| *n >= procs) {
            self.dismiss(n, now);
            self.take_down(n, After::Remove, now);
        }
        let kept: Vec<u16> = self.numbers().into_iter().filter(|n| *n < procs).collect();
        for n in &kept {
            // It was on its way out by an earlier change and is wanted again.
            if let Some(cell) = self.cells.get_mut(n) {
                match &mut cell.phase {
                    Phase::Spawning { then: Some(then) }
                    | Phase::Draining { then, .. }
                    | Phase::Stopping { then, .. }
                    | Phase::Killing { then, .. } => {
                        if *then == After::Remove {
                            *then = if self.wanted { After::Again(Reason::Reload) } else { After::Rest };
                        }
                    }
                    Phase::Spawning { then: None }
                    | Phase::Stopped
                    | Phase::Awaiting
                    | Phase::Exited
                    | Phase::Starting { .. }
                    | Phase::Ready
                    | Phase::Backoff { .. }
                    | Phase::Taken { .. }
                    | Phase::Cooldown { .. } => {}
                }
            }
        }
        self.add_cells(now);
        self.changed = true;
        if !self.wanted {
            return;
        }
        for n in self.numbers().into_iter().filter(|n| *n < procs && !kept.contains(n)) {
            self.spawn(n, now);
        }
        if !same_process(&old, &self.spec) {
            self.thaw(now);
            for n in &kept {
                self.dismiss(*n, now);
            }
            self.roll = Some(Roll::new(kept.into(), Reason::Reload));
        }
        self.rearm(&old, now);
    }
}
