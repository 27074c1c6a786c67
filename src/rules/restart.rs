//! Restart rule: what to do with the processes of one app when something happens to them.
//!
//! Pure. `master::supervisor` brings the event, the time and the dice, and performs the effects.
//!
//! Shape: Stopped ─Start→ Spawning ─Spawned→ Starting ─Ready→ Ready ─Exited→ Backoff{due} ─Tick→ Spawning …
//!        Ready ─Stop→ Draining ─Drained→ Stopping ─late→ Killing ─Exited→ Stopped.
//!        Too many unexpected exits of the app in its window: what ends from then on goes into Cooldown, one try of the app every [`COOLDOWN`], until a try has
//!        served. While requests come one process of the app is tried after its own delay all the same, and an exit that a request is to blame for counts for nothing
//!        ([`blame`]).
//!        Total: every state answers every event, so a late or doubled event is a no-op, not a bug.
//!        One process an instance; while it is replaced one more, which takes its place when it may serve ([`succession`]). Three things replace: a restart goes
//!        from instance to instance ([`roll`]), wear takes one at a time ([`recycle`]), a deploy all at once, on trial ([`deploy`]).
//! Units: `now` is monotonic; the wall clock never enters.
//! Source: intensity/window after OTP supervisors.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::{
    plan::{App, Ready},
    vocab::units::duration_text,
};

mod blame;
mod budget;
mod cell;
mod change;
mod dead;
mod deploy;
mod effect;
mod ended;
mod ending;
mod event;
mod exit;
mod phase;
mod recycle;
mod report;
mod roll;
mod shared;
mod succession;
mod taken;
#[cfg(test)]
mod tests;
mod view;

pub use budget::COOLDOWN;
use cell::Cell;
use deploy::Deploy;
pub use effect::Effect;
pub use event::Event;
pub use exit::Exit;
pub use phase::State;
use phase::{After, Phase};
use recycle::Wear;
pub use report::{Reason, Report};
use roll::Roll;
use succession::Leaving;
pub use view::{Duty, View};

/// One app: all its instances and its budget.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Life {
    #[serde(with = "shared")]
    spec: Arc<App>,
    cells: BTreeMap<u16, Cell>,
    /// By incarnation: processes that another one has replaced.
    leaving: BTreeMap<u64, Leaving>,
    wanted: bool,
    removed: bool,
    next_incarnation: u64,
    /// When unexpected exits happened, within the window.
    exits: VecDeque<Duration>,
    /// The budget is spent: no try before this.
    cooling: Option<Duration>,
    /// When requests last came, or found nobody.
    #[serde(default)]
    asked: Option<Duration>,
    roll: Option<Roll>,
    deploy: Option<Deploy>,
    restarts: BTreeMap<Reason, u64>,
    effects: Vec<Effect>,
    changed: bool,
}

impl Life {
    /// All instances stopped. Incarnations count from `first`, so that those of an app removed and added again differ.
    #[must_use]
    pub fn new(spec: Arc<App>, first: u64) -> Self {
        let mut life = Self {
            cells: BTreeMap::new(),
            leaving: BTreeMap::new(),
            wanted: false,
            removed: false,
            next_incarnation: first,
            exits: VecDeque::new(),
            cooling: None,
            asked: None,
            roll: None,
            deploy: None,
            restarts: BTreeMap::new(),
            effects: Vec::new(),
            changed: false,
            spec,
        };
        life.add_cells(Duration::ZERO);
        life
    }

    /// When [`Event::Tick`] is wanted next.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let cells = self.cells.values().filter_map(|cell| self.cell_due(cell));
        let next = self.cells.values().filter_map(|cell| cell.successor.as_ref()?.due());
        let leaving = self.leaving.values().filter_map(Leaving::due);
        let deploy = self.deploy.as_ref().and_then(Deploy::due);
        cells.chain(next).chain(leaving).chain(deploy).chain(self.wear_due()).chain(self.mercy_ends()).min()
    }

    fn cell_due(&self, cell: &Cell) -> Option<Duration> {
        match &cell.phase {
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Spawning { .. } => None,
            Phase::Ready => (cell.trial && self.cooling.is_some()).then(|| cell.since + cell.backoff.served_after()),
            Phase::Starting { deadline } => *deadline,
            Phase::Draining { deadline, .. } | Phase::Stopping { deadline, .. } => Some(*deadline),
            Phase::Killing { again, .. } => Some(*again),
            Phase::Backoff { due } | Phase::Taken { due } => Some(*due),
            Phase::Cooldown { not_before } => Some(self.cooling.unwrap_or_default().max(*not_before)),
        }
    }

    /// Answers one event.
    pub fn step(&mut self, event: Event, now: Duration, dice: u64) -> Vec<Effect> {
        match event {
            Event::Start => self.start(now),
            Event::Await => self.wait_for_others(now),
            Event::Stop => self.stop(now, &After::Rest),
            Event::Remove => {
                self.removed = true;
                self.stop(now, &After::Remove);
            }
            Event::KillNow => self.kill_now(now),
            Event::Restart(reason) => self.begin_roll(reason, now),
            Event::Change(spec) => self.change(spec, now),
            Event::Deploy(spec) => self.begin_deploy(spec, now),
            Event::Tick => self.tick(now),
            Event::Spawned { n, incarnation } => match self.role(n, incarnation) {
                Role::Present => self.spawned(n, now, dice),
                Role::Next => self.next_spawned(n, now, dice),
                Role::Leaving => self.leaver_spawned(incarnation, now),
                Role::Nobody => {}
            },
            Event::SpawnFailed { n, incarnation, why } => match self.role(n, incarnation) {
                Role::Present => self.spawn_failed(n, &why, now, dice),
                Role::Next => self.next_failed(n, why, now),
                Role::Leaving => self.leaver_gone(incarnation),
                Role::Nobody => {}
            },
            Event::Taken { n, incarnation, why } => match self.role(n, incarnation) {
                Role::Present => self.taken(n, why, now, dice),
                Role::Next => self.next_failed(n, why, now),
                Role::Leaving => self.leaver_gone(incarnation),
                Role::Nobody => {}
            },
            Event::NoRoom { n, incarnation, why } => match self.role(n, incarnation) {
                Role::Next => self.no_room(n, why, now),
                Role::Leaving => self.leaver_gone(incarnation),
                Role::Present | Role::Nobody => {}
            },
            Event::Left { n, incarnation, exit, why } => match self.role(n, incarnation) {
                Role::Present => self.left(n, exit, why, now),
                Role::Next => self.next_left(n, why, now),
                Role::Leaving => self.leaver_left(incarnation, now),
                Role::Nobody => {}
            },
            Event::Exited { n, incarnation, exit } => match self.role(n, incarnation) {
                Role::Present => self.exited(n, exit, now, dice),
                Role::Next => self.next_failed(n, exit.to_string(), now),
                Role::Leaving => self.leaver_exited(n, incarnation, exit, now),
                Role::Nobody => {}
            },
            Event::Ready { n, incarnation } => match self.role(n, incarnation) {
                Role::Present => self.ready(n, now, dice),
                Role::Next => self.next_ready(n, now, dice),
                Role::Leaving | Role::Nobody => {}
            },
            Event::Dead { n, incarnation, why } => self.dead(n, incarnation, why, now),
            Event::Alive { n, incarnation } => {
                if let (Role::Present, Some(cell)) = (self.role(n, incarnation), self.cells.get_mut(&n)) {
                    cell.dead = None;
                }
            }
            Event::Drained { n, incarnation } => match self.role(n, incarnation) {
                Role::Present => self.drained(n, now),
                Role::Leaving => self.leaver_drained(incarnation, now),
                Role::Next | Role::Nobody => {}
            },
            Event::Warmed { n, incarnation, result } => {
                if self.role(n, incarnation) == Role::Next {
                    self.warmed(n, result, now);
                }
            }
            Event::Tallied { n, incarnation, requests, failures } => self.tallied(n, incarnation, requests, failures, now),
            Event::Weighed { n, incarnation, bytes } => self.weighed(n, incarnation, bytes),
            Event::Blamed { n, incarnation, answered } => self.blamed(n, incarnation, answered, now),
            Event::Wanted => self.wanted_by_requests(now),
            Event::Pinged { n, incarnation } => self.pinged(n, incarnation, now),
        }
        self.advance_deploy(now, dice);
        self.advance_roll(now);
        self.restart_a_dead_one(now);
        self.recycle_one(now);
        if std::mem::take(&mut self.changed) {
            self.effects.push(Effect::Publish);
        }
        std::mem::take(&mut self.effects)
    }

    fn enter(&mut self, n: u16, phase: Phase, now: Duration) {
        if let Some(cell) = self.cells.get_mut(&n) {
            if cell.phase.state() != phase.state() {
                cell.since = now;
            }
            cell.phase = phase;
            self.changed = true;
        }
    }

    fn numbers(&self) -> Vec<u16> {
        self.cells.keys().copied().collect()
    }

    fn add_cells(&mut self, now: Duration) {
        for n in 0..self.spec.procs.get() {
            self.cells.entry(n).or_insert_with(|| Cell {
                phase: Phase::Stopped,
                incarnation: 0,
                since: now,
                spawned: now,
                backoff: Backoff::default(),
                dead: None,
                pending: None,
                trial: false,
                restarts: 0,
                last_exit: None,
                last_restart: None,
                wear: Wear::default(),
                charge: None,
                successor: None,
                taken: None,
            });
        }
    }

    fn spawn(&mut self, n: u16, now: Duration) {
        let incarnation = self.next_incarnation;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        self.next_incarnation += 1;
        cell.incarnation = incarnation;
        cell.spawned = now;
        cell.dead = None;
        cell.trial = self.cooling.is_some();
        if let Some(reason) = cell.pending.take() {
            cell.restarts += 1;
            cell.last_restart = Some(now);
            *self.restarts.entry(reason).or_default() += 1;
        }
        self.enter(n, Phase::Spawning { then: None }, now);
        self.effects.push(Effect::Spawn { n, incarnation, beside: None });
    }

    fn wait_for_others(&mut self, now: Duration) {
        for n in self.numbers() {
            if self.cells.get(&n).is_some_and(|cell| cell.phase == Phase::Stopped) && !self.removed {
                self.enter(n, Phase::Awaiting, now);
            }
        }
    }

    fn start(&mut self, now: Duration) {
        if self.removed {
            return;
        }
        self.wanted = true;
        self.exits.clear();
        self.cooling = None;
        for n in self.numbers() {
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            cell.backoff.forget();
            cell.trial = false;
            cell.taken = None;
            match &mut cell.phase {
                Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                    self.spawn(n, now)
                }
                Phase::Spawning { then: Some(then) }
                | Phase::Draining { then, .. }
                | Phase::Stopping { then, .. }
                | Phase::Killing { then, .. } => {
                    if matches!(then, After::Rest | After::End(_)) {
                        *then = After::Again(Reason::Command);
                    }
                }
                Phase::Spawning { then: None } | Phase::Starting { .. } | Phase::Ready => {}
            }
        }
    }

    fn stop(&mut self, now: Duration, then: &After) {
        self.wanted = false;
        self.abort_roll(None, "the app was stopped");
        self.fail_deploy(None, "the app was stopped", now);
        self.cooling = None;
        for n in self.numbers() {
            self.dismiss(n, now);
            self.take_down(n, then.clone(), now);
        }
    }

    /// It ended and stays so.
    fn end(&mut self, n: u16, why: String, now: Duration) {
        self.abort_roll(Some(n), &why);
        self.effects.push(Effect::Report(Report::Ended { n, why }));
        self.enter(n, Phase::Exited, now);
    }

    fn spawned(&mut self, n: u16, now: Duration, dice: u64) {
        let timeout = self.spec.ready.timeout();
        let Some(cell) = self.cells.get_mut(&n) else { return };
        cell.taken = None;
        let Phase::Spawning { then } = cell.phase.clone() else { return };
        match then {
            Some(then) => self.signal(n, then, now),
            None => {
                self.enter(n, Phase::Starting { deadline: timeout.map(|t| now + t) }, now);
                if self.spec.ready == Ready::Started {
                    self.ready(n, now, dice);
                }
            }
        }
    }

    fn spawn_failed(&mut self, n: u16, why: &str, now: Duration, dice: u64) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let Phase::Spawning { then } = cell.phase.clone() else { return };
        cell.last_exit = Some((why.to_owned(), now));
        self.settle(n, then.unwrap_or_else(|| After::Fail(Reason::Unready, why.to_owned())), now, dice);
    }

    fn ready(&mut self, n: u16, now: Duration, dice: u64) {
        let Some(cell) = self.cells.get(&n) else { return };
        if matches!(cell.phase, Phase::Starting { .. }) {
            self.effects.push(Effect::Report(Report::Ready { n, took: now.saturating_sub(cell.spawned) }));
            self.enter(n, Phase::Ready, now);
            self.begin_wear(n, now, dice);
        }
    }

    fn drained(&mut self, n: u16, now: Duration) {
        if let Some(Phase::Draining { then, .. }) = self.cells.get(&n).map(|cell| cell.phase.clone()) {
            self.signal(n, then, now);
        }
    }

    fn tick(&mut self, now: Duration) {
        self.tick_next(now);
        self.tick_leavers(now);
        self.look_at_watchdogs(now);
        // What recovers lets the others go on in this very turn.
        for n in self.numbers() {
            let served = |cell: &&Cell| cell.phase == Phase::Ready && self.cell_due(cell).is_some_and(|due| due <= now);
            if self.cells.get(&n).filter(served).is_some() {
                self.recover(n, now);
            }
        }
        for n in self.numbers() {
            let Some(cell) = self.cells.get(&n) else { continue };
            let late = self.cell_due(cell).is_some_and(|due| due <= now);
            match cell.phase.clone() {
                Phase::Starting { deadline } if late => {
                    let within = self.spec.ready.timeout().or(deadline).unwrap_or_default();
                    let why = format!("not ready within {}", duration_text(within));
                    self.signal(n, After::Fail(Reason::Unready, why), now);
                }
                Phase::Draining { then, .. } if late => self.signal(n, then, now),
                Phase::Stopping { then, .. } if late => {
                    self.effects.push(Effect::Report(Report::Stubborn { n }));
                    self.kill(n, then, now);
                }
                Phase::Killing { then, .. } if late => self.kill(n, then, now),
                Phase::Backoff { .. } | Phase::Taken { .. } if late => self.spawn(n, now),
                Phase::Stopped
                | Phase::Awaiting
                | Phase::Exited
                | Phase::Spawning { .. }
                | Phase::Starting { .. }
                | Phase::Ready
                | Phase::Draining { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. }
                | Phase::Backoff { .. }
                | Phase::Taken { .. }
                | Phase::Cooldown { .. } => {}
            }
        }
        self.end_guard(now);
        self.try_one(now);
    }
}

impl Life {
    /// Some process comes or goes.
    fn is_in_motion(&self) -> bool {
        let moves = |cell: &Cell| match cell.phase {
            Phase::Spawning { .. }
            | Phase::Starting { .. }
            | Phase::Draining { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Backoff { .. } => true,
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Ready | Phase::Cooldown { .. } | Phase::Taken { .. } => {
                cell.successor.is_some()
            }
        };
        !self.leaving.is_empty() || self.cells.values().any(moves)
    }

    /// Which of an instance's processes is meant.
    fn role(&self, n: u16, incarnation: u64) -> Role {
        let cell = self.cells.get(&n);
        if cell.is_some_and(|cell| cell.incarnation == incarnation) {
            Role::Present
        } else if cell.and_then(|cell| cell.successor.as_ref()).is_some_and(|next| next.incarnation == incarnation) {
            Role::Next
        } else if self.leaving.get(&incarnation).is_some_and(|leaving| leaving.n == n) {
            Role::Leaving
        } else {
            Role::Nobody
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    Present,
    Next,
    Leaving,
    /// It is gone: what is said of it is void.
    Nobody,
}
