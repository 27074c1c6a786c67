//! Succession: a new process of an instance starts beside the old one and takes its place when it may serve.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: Spawning ─Spawned→ Starting ─Ready→ takes over; in a deploy it is asked for `deploy.warm` first and waits for the others.
//!        What it replaced leaves: Draining → Stopping → Killing → gone; in a deploy it stands by before that.
//!        A successor that fails is gone, and nothing has changed for anybody.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{After, Cell, Duty, Effect, Life, Phase, Reason, Report, State, View, ending::KILL_AGAIN, recycle::AGAIN};
use crate::{
    plan::{App, AppPort, Ready},
    vocab::units::duration_text,
};

/// Where nothing says how long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next process of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Successor {
    pub(super) incarnation: u64,
    pub(super) stage: Stage,
    pub(super) since: Duration,
    #[serde(with = "super::shared")]
    pub(super) spec: Arc<App>,
    pub(super) reason: Reason,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum Stage {
    Spawning,
    Starting {
        deadline: Option<Duration>,
    },
    Warming {
        deadline: Duration,
    },
    /// Waits for those of the other instances.
    Warm,
}

/// A process that has been replaced, or was not good enough to replace one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) n: u16,
    pub(super) stage: Leave,
    /// It was an instance's process in its own right: its end is the instance's last exit.
    #[serde(default)]
    pub(super) served: bool,
    /// Why it was replaced, where that says more than how it ended.
    pub(super) told: Option<String>,
    pub(super) since: Duration,
    #[serde(with = "super::shared")]
    pub(super) spec: Arc<App>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum Leave {
    /// It was asked for and is not wanted any more.
    Spawning,
    StandsBy,
    Draining {
        deadline: Duration,
    },
    Stopping {
        deadline: Duration,
    },
    Killing {
        again: Duration,
    },
}

impl Successor {
    pub(super) fn due(&self) -> Option<Duration> {
        match self.stage {
            Stage::Starting { deadline } => deadline,
            Stage::Warming { deadline } => Some(deadline),
            Stage::Spawning | Stage::Warm => None,
        }
    }

    pub(super) fn view(&self, n: u16, cell: &Cell) -> View {
        View {
            n,
            incarnation: self.incarnation,
            state: State::Starting,
            duty: Duty::Serves,
            release: self.spec.release.clone(),
            since: self.since,
            restarts: cell.restarts,
            last_exit: cell.last_exit.clone(),
            last_restart: cell.last_restart,
            due: None,
            taken: None,
        }
    }
}

impl Leaving {
    pub(super) fn due(&self) -> Option<Duration> {
        match self.stage {
            Leave::Spawning | Leave::StandsBy => None,
            Leave::Draining { deadline } | Leave::Stopping { deadline } => Some(deadline),
            Leave::Killing { again } => Some(again),
        }
    }

    pub(super) fn view(&self, incarnation: u64, cell: Option<&Cell>) -> View {
        let (state, duty) = match self.stage {
            Leave::StandsBy => (State::Ready, Duty::StandsBy),
            Leave::Draining { .. } => (State::Draining, Duty::Serves),
            Leave::Spawning | Leave::Stopping { .. } | Leave::Killing { .. } => (State::Stopping, Duty::Serves),
        };
        View {
            n: self.n,
            incarnation,
            state,
            duty,
            release: self.spec.release.clone(),
            since: self.since,
            restarts: cell.map_or(0, |cell| cell.restarts),
            last_exit: cell.and_then(|cell| cell.last_exit.clone()),
            last_restart: cell.and_then(|cell| cell.last_restart),
            due: None,
            taken: None,
        }
    }
}

impl Life {
    /// Whether two processes of an instance can run side by side. A worker may be one that must be alone.
    pub(super) fn surges(spec: &App) -> bool {
        match spec.port {
            AppPort::Allotted | AppPort::Socket => true,
            AppPort::None | AppPort::Fixed { .. } => false,
        }
    }

    /// Starts the process that is to replace the present one of instance `n`.
    pub(super) fn succeed(&mut self, n: u16, spec: Arc<App>, reason: Reason, now: Duration) {
        self.dismiss(n, now);
        let incarnation = self.next_incarnation;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        self.next_incarnation += 1;
        cell.successor = Some(Successor { incarnation, stage: Stage::Spawning, since: now, spec, reason });
        self.effects.push(Effect::Spawn { n, incarnation, beside: Some(cell.incarnation) });
        self.changed = true;
    }

    /// The successor is not wanted any more.
    pub(super) fn dismiss(&mut self, n: u16, now: Duration) {
        let Some(Successor { incarnation, stage, spec, .. }) = self.cells.get_mut(&n).and_then(|cell| cell.successor.take()) else {
            return;
        };
        let stage = match stage {
            Stage::Spawning => Leave::Spawning,
            Stage::Starting { .. } | Stage::Warming { .. } | Stage::Warm => {
                self.effects.push(Effect::Signal { n, incarnation });
                Leave::Stopping { deadline: now + spec.stop.timeout }
            }
        };
        self.leave(n, incarnation, stage, spec, now);
    }

    pub(super) fn leave(&mut self, n: u16, incarnation: u64, stage: Leave, spec: Arc<App>, now: Duration) {
        self.leaving.insert(incarnation, Leaving { n, stage, served: false, told: None, since: now, spec });
        self.changed = true;
    }

    pub(super) fn next_spawned(&mut self, n: u16, now: Duration, dice: u64) {
        let Some(next) = self.cells.get_mut(&n).and_then(|cell| cell.successor.as_mut()) else { return };
        if next.stage == Stage::Spawning {
            next.stage = Stage::Starting { deadline: next.spec.ready.timeout().map(|timeout| now + timeout) };
            self.changed = true;
            if next.spec.ready == Ready::Started {
                self.next_ready(n, now, dice);
            }
        }
    }

    pub(super) fn next_ready(&mut self, n: u16, now: Duration, dice: u64) {
        let Some(next) = self.cells.get_mut(&n).and_then(|cell| cell.successor.as_mut()) else { return };
        let Stage::Starting { .. } = next.stage else { return };
        self.effects.push(Effect::Report(Report::Ready { n, took: now.saturating_sub(next.since) }));
        if next.reason != Reason::Deploy {
            return self.take_over(n, None, now, dice);
        }
        if next.spec.deploy.warm.is_empty() || next.spec.port == AppPort::None {
            next.stage = Stage::Warm;
        } else {
            next.stage = Stage::Warming { deadline: now + next.spec.ready.timeout().unwrap_or(PATIENCE) };
            self.effects.push(Effect::Warm { n, incarnation: next.incarnation });
        }
    }

    pub(super) fn warmed(&mut self, n: u16, result: Result<(), String>, now: Duration) {
        let Some(next) = self.cells.get_mut(&n).and_then(|cell| cell.successor.as_mut()) else { return };
        let Stage::Warming { .. } = next.stage else { return };
        match result {
            Ok(()) => {
                next.stage = Stage::Warm;
                self.effects.push(Effect::Report(Report::Warmed { n }));
            }
            Err(why) => self.next_failed_alive(n, format!("warm-up: {why}"), now),
        }
    }

    /// Its process is gone, or never was.
    pub(super) fn next_failed(&mut self, n: u16, why: String, now: Duration) {
        let Some(next) = self.cells.get_mut(&n).and_then(|cell| cell.successor.take()) else { return };
        self.changed = true;
        self.regret(n, next.reason, why, now);
    }

    /// Its leader ended before it could serve, and left others running.
    pub(super) fn next_left(&mut self, n: u16, why: String, now: Duration) {
        self.next_failed_alive(n, why, now);
    }

    /// It runs, and will not do.
    fn next_failed_alive(&mut self, n: u16, why: String, now: Duration) {
        let Some(reason) = self.cells.get(&n).and_then(|cell| cell.successor.as_ref()).map(|next| next.reason) else { return };
        self.dismiss(n, now);
        self.regret(n, reason, why, now);
    }

    /// Tells whoever wanted the successor.
    fn regret(&mut self, n: u16, reason: Reason, why: String, now: Duration) {
        match reason {
            Reason::Deploy => self.fail_deploy(Some(n), &format!("instance {n} of the new release: {why}"), now),
            Reason::Recycle => self.put_off(n, why, AGAIN, now),
            Reason::Unhealthy => {
                let policy = &self.spec.restart;
                let delay = self.cells.get_mut(&n).map(|cell| cell.backoff.fail(policy.delay, policy.max_delay, 200));
                self.put_off(n, why, delay.unwrap_or_default(), now);
            }
            Reason::Exit | Reason::Signal | Reason::Memory | Reason::Unready | Reason::Command | Reason::Reload => {
                self.abort_roll(Some(n), &why);
            }
        }
    }

    /// Not both at once: the old one goes first, and requests are held meanwhile.
    pub(super) fn no_room(&mut self, n: u16, why: String, now: Duration) {
        let Some(next) = self.cells.get_mut(&n).and_then(|cell| cell.successor.take()) else { return };
        self.changed = true;
        if next.reason == Reason::Deploy {
            return self.fail_deploy(Some(n), &format!("there is no room for it beside the old one: {why}"), now);
        }
        self.effects.push(Effect::Report(Report::NoRoom { n, why }));
        // One that has ended meanwhile comes back by itself.
        if self.cells.get(&n).is_some_and(|cell| cell.phase == Phase::Ready) {
            self.take_down(n, After::Again(next.reason), now);
        }
    }

    /// The successor becomes the process of the instance; the one before drains, or stands by.
    pub(super) fn take_over(&mut self, n: u16, stand_by: Option<&Arc<App>>, now: Duration, dice: u64) {
        let spec = stand_by.unwrap_or(&self.spec).clone();
        let drain = spec.stop.drain;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let Some(next) = cell.successor.take() else { return };
        let old = std::mem::replace(&mut cell.incarnation, next.incarnation);
        let phase = std::mem::replace(&mut cell.phase, Phase::Ready);
        cell.since = now;
        cell.spawned = next.since;
        let told = cell.dead.take().filter(|_| next.reason == Reason::Unhealthy).map(|why| format!("unhealthy: {why}"));
        cell.pending = None;
        cell.trial = false;
        cell.restarts += 1;
        cell.last_restart = Some(now);
        *self.restarts.entry(next.reason).or_default() += 1;
        self.changed = true;
        self.begin_wear(n, now, dice);
        let stage = match phase {
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                return;
            }
            Phase::Spawning { .. } => Leave::Spawning,
            Phase::Ready if stand_by.is_some() => Leave::StandsBy,
            Phase::Ready if spec.port != AppPort::None && !drain.is_zero() => {
                self.effects.push(Effect::Drain { n, incarnation: old, within: drain });
                Leave::Draining { deadline: now + drain }
            }
            Phase::Ready | Phase::Starting { .. } => {
                self.effects.push(Effect::Signal { n, incarnation: old });
                Leave::Stopping { deadline: now + spec.stop.timeout }
            }
            Phase::Draining { deadline, .. } => Leave::Draining { deadline },
            Phase::Stopping { deadline, .. } => Leave::Stopping { deadline },
            Phase::Killing { again, .. } => Leave::Killing { again },
        };
        self.leave(n, old, stage, spec, now);
        if let Some(leaving) = self.leaving.get_mut(&old) {
            (leaving.served, leaving.told) = (true, told);
        }
    }

    pub(super) fn leaver_spawned(&mut self, incarnation: u64, now: Duration) {
        if self.leaving.get(&incarnation).is_some_and(|leaving| leaving.stage == Leave::Spawning) {
            self.stop_leaver(incarnation, now);
        }
    }

    pub(super) fn leaver_drained(&mut self, incarnation: u64, now: Duration) {
        if self.leaving.get(&incarnation).is_some_and(|leaving| matches!(leaving.stage, Leave::Draining { .. })) {
            self.stop_leaver(incarnation, now);
        }
    }

    /// Its leader ended: who stands by cannot take over any more. Whoever drains goes on with what it has.
    pub(super) fn leaver_left(&mut self, incarnation: u64, now: Duration) {
        if self.leaving.get(&incarnation).is_some_and(|leaving| leaving.stage == Leave::StandsBy) {
            self.stop_leaver(incarnation, now);
        }
    }

    pub(super) fn leaver_gone(&mut self, incarnation: u64) {
        self.changed |= self.leaving.remove(&incarnation).is_some();
    }

    /// Out of rotation, then its end.
    pub(super) fn drain_leaver(&mut self, incarnation: u64, now: Duration) {
        let Some(leaving) = self.leaving.get_mut(&incarnation) else { return };
        let within = leaving.spec.stop.drain;
        if within.is_zero() || leaving.spec.port == AppPort::None {
            return self.stop_leaver(incarnation, now);
        }
        leaving.stage = Leave::Draining { deadline: now + within };
        leaving.since = now;
        self.effects.push(Effect::Drain { n: leaving.n, incarnation, within });
        self.changed = true;
    }

    fn stop_leaver(&mut self, incarnation: u64, now: Duration) {
        let Some(leaving) = self.leaving.get_mut(&incarnation) else { return };
        leaving.stage = Leave::Stopping { deadline: now + leaving.spec.stop.timeout };
        leaving.since = now;
        self.effects.push(Effect::Signal { n: leaving.n, incarnation });
        self.changed = true;
    }

    fn kill_leaver(&mut self, incarnation: u64, now: Duration) {
        let Some(leaving) = self.leaving.get_mut(&incarnation) else { return };
        leaving.stage = Leave::Killing { again: now + KILL_AGAIN };
        self.effects.push(Effect::KillGroup { n: leaving.n, incarnation });
    }

    pub(super) fn kill_leavers(&mut self, now: Duration) {
        let running = self.leaving.iter().filter(|(_, leaving)| leaving.stage != Leave::Spawning);
        for incarnation in running.map(|(incarnation, _)| *incarnation).collect::<Vec<_>>() {
            self.kill_leaver(incarnation, now);
        }
    }

    pub(super) fn tick_next(&mut self, now: Duration) {
        for n in self.numbers() {
            let Some(next) = self.cells.get(&n).and_then(|cell| cell.successor.as_ref()) else { continue };
            if next.due().is_none_or(|due| due > now) {
                continue;
            }
            let within = duration_text(next.spec.ready.timeout().unwrap_or(PATIENCE));
            let what = if matches!(next.stage, Stage::Warming { .. }) { "not warm" } else { "not ready" };
            self.next_failed_alive(n, format!("{what} within {within}"), now);
        }
    }

    pub(super) fn tick_leavers(&mut self, now: Duration) {
        let late = self.leaving.iter().filter(|(_, leaving)| leaving.due().is_some_and(|due| due <= now));
        for (incarnation, n, stage) in late.map(|(incarnation, leaving)| (*incarnation, leaving.n, leaving.stage)).collect::<Vec<_>>() {
            match stage {
                Leave::Draining { .. } => self.stop_leaver(incarnation, now),
                Leave::Stopping { .. } => {
                    self.effects.push(Effect::Report(Report::Stubborn { n }));
                    self.kill_leaver(incarnation, now);
                }
                Leave::Killing { .. } => self.kill_leaver(incarnation, now),
                Leave::Spawning | Leave::StandsBy => {}
            }
        }
    }
}
