//! Restart rule: what to do with the processes of one app when something happens to them.
//!
//! Pure. `master::supervisor` brings the event, the time and the dice, and performs the effects.
//!
//! Shape: Stopped ─Start→ Spawning ─Spawned→ Starting ─Ready→ Ready ─Exited→ Backoff{due} ─Tick→ Spawning …
//!        Ready ─Stop→ Draining ─Drained→ Stopping ─late→ Killing ─Exited→ Stopped.
//!        Too many unexpected exits of the app in its window: Cooldown, one try of the app every [`COOLDOWN`], until a try has served.
//!        Total: every state answers every event, so a late or doubled event is a no-op, not a bug.
//!        One process an instance; while it is replaced one more, which takes its place when it may serve ([`succession`]). Three things replace: a restart goes
//!        from instance to instance ([`roll`]), wear takes one at a time ([`recycle`]), a deploy all at once, on trial ([`deploy`]).
//! Units: `now` is monotonic; the wall clock never enters.
//! Source: supervision.md rules 1 to 7, 10, 11 and 16; intensity/window after OTP supervisors.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use crate::{
    plan::{App, AppPort, Ready, app::Policy, diff::same_process},
    vocab::{ByteSize, units::duration_text},
};

mod deploy;
mod recycle;
mod roll;
mod succession;
#[cfg(test)]
mod tests;

use deploy::Deploy;
use recycle::Wear;
use roll::Roll;
use succession::{Leaving, Successor};

/// Between two tries of an app whose budget is spent.
pub const COOLDOWN: Duration = Duration::from_secs(60);
/// After KILL: how long until it is sent again to what still has not gone.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// What happened. Instances are meant by number and incarnation; an event about an earlier incarnation is void.
#[derive(Clone, Debug)]
pub enum Event {
    /// Also clears the budget and every delay.
    Start,
    /// What it needs is not there yet: [`Event::Start`] follows.
    Await,
    Stop,
    /// One instance after the other.
    Restart(Reason),
    /// A new release: beside the old one, on trial, and back again if it fails.
    Deploy(Arc<App>),
    /// A reload changed its block: what can be is applied live, the rest instance by instance.
    Change(Arc<App>),
    /// A reload took it away: stop, then [`Life::is_gone`].
    Remove,
    /// No more patience: KILL everything that runs.
    KillNow,
    /// Time has passed; see [`Life::due`].
    Tick,
    Spawned {
        n: u16,
        incarnation: u64,
    },
    SpawnFailed {
        n: u16,
        incarnation: u64,
        why: String,
    },
    Exited {
        n: u16,
        incarnation: u64,
        exit: Exit,
    },
    Ready {
        n: u16,
        incarnation: u64,
    },
    /// It failed its liveness probes.
    Dead {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// It passes them again.
    Alive {
        n: u16,
        incarnation: u64,
    },
    Drained {
        n: u16,
        incarnation: u64,
    },
    /// There is not the memory for one more process.
    NoRoom {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// It was asked for what a new release must answer.
    Warmed {
        n: u16,
        incarnation: u64,
        result: Result<(), String>,
    },
    /// So many requests since it was started, and so many of them failed.
    Tallied {
        n: u16,
        incarnation: u64,
        requests: u64,
        failures: u64,
    },
    /// A look at its memory.
    Weighed {
        n: u16,
        incarnation: u64,
        bytes: u64,
    },
    /// WATCHDOG=1
    Pinged {
        n: u16,
        incarnation: u64,
    },
}

/// What the shell must do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Answered by `Spawned` or `SpawnFailed`; with [`Life::spec_of`]. `beside` the process that it will replace, if there is memory for both: else `NoRoom`.
    Spawn {
        n: u16,
        incarnation: u64,
        beside: Option<u64>,
    },
    /// Ask it for the paths of `deploy.warm`; answered by `Warmed`.
    Warm {
        n: u16,
        incarnation: u64,
    },
    /// Take it out of rotation; answered by `Drained`, or not.
    Drain {
        n: u16,
        incarnation: u64,
        within: Duration,
    },
    /// The app's stop signal to the leader.
    Signal {
        n: u16,
        incarnation: u64,
    },
    /// KILL to the whole group.
    KillGroup {
        n: u16,
        incarnation: u64,
    },
    /// The table changed.
    Publish,
    Report(Report),
}

/// For the log and for whoever waits.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Report {
    Ready {
        n: u16,
        took: Duration,
    },
    /// It ended and is started again after `delay`.
    Again {
        n: u16,
        why: String,
        delay: Duration,
    },
    /// It ended and its policy leaves it so.
    Ended {
        n: u16,
        why: String,
    },
    Stopped {
        n: u16,
    },
    Unhealthy {
        n: u16,
        why: String,
    },
    /// KILL was necessary.
    Stubborn {
        n: u16,
    },
    BudgetSpent {
        exits: usize,
    },
    /// A try in cooldown has served long enough.
    Recovered,
    /// It goes first and the next one comes after it, because both have no room.
    NoRoom {
        n: u16,
        why: String,
    },
    RollDone,
    RollAborted {
        n: u16,
        why: String,
    },
    Recycling {
        n: u16,
        why: String,
    },
    RecycleFailed {
        n: u16,
        why: String,
    },
    Warmed {
        n: u16,
    },
    /// The new release takes the requests; the old one stands by for so long.
    Switched {
        guard: Duration,
    },
    DeployDone,
    /// The old release serves on, or again.
    DeployFailed {
        why: String,
    },
}

/// Why it was started again: a label of `gateway_app_restarts_total`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Reason {
    Exit,
    Signal,
    Memory,
    /// Could not be started, or was not ready in time.
    Unready,
    Unhealthy,
    Command,
    Reload,
    Recycle,
    Deploy,
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Memory => "memory",
            Self::Unready => "unready",
            Self::Unhealthy => "unhealthy",
            Self::Command => "command",
            Self::Reload => "reload",
            Self::Recycle => "recycle",
            Self::Deploy => "deploy",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Ended because it used more than its `memory_max`, whoever saw to that; `None`: killed by the kernel because the machine had none left.
    Memory {
        max: Option<u64>,
    },
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Memory { max: Some(max) } => write!(f, "killed for memory: over memory_max {}", ByteSize(max)),
            Self::Memory { max: None } => f.write_str("killed for memory: the machine had none left"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        24 => "XCPU",
        31 => "SYS",
        _ => return None,
    })
}

/// Where an instance stands, as people see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Stopped,
    Starting,
    Ready,
    Draining,
    Stopping,
    Exited,
    Backoff,
    Cooldown,
}

/// Where an instance stands, with what comes next.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
enum Phase {
    Stopped,
    /// Until what it needs is there.
    Awaiting,
    /// The policy leaves it so.
    Exited,
    /// `then`: it was told to stop meanwhile.
    Spawning {
        then: Option<After>,
    },
    Starting {
        deadline: Option<Duration>,
    },
    Ready,
    Draining {
        deadline: Duration,
        then: After,
    },
    Stopping {
        deadline: Duration,
        then: After,
    },
    Killing {
        again: Duration,
        then: After,
    },
    Backoff {
        due: Duration,
    },
    Cooldown {
        not_before: Duration,
    },
}

/// What follows when the process is gone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
enum After {
    Rest,
    Again(Reason),
    Fail(Reason, String),
    Remove,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cell {
    phase: Phase,
    incarnation: u64,
    since: Duration,
    /// When the present process was asked for.
    spawned: Duration,
    backoff: Backoff,
    /// Why its liveness probes say that it is dead.
    dead: Option<String>,
    /// Its next start is a restart for this reason.
    pending: Option<Reason>,
    /// Started in cooldown: if it serves, the app has recovered.
    trial: bool,
    restarts: u64,
    last_exit: Option<(String, Duration)>,
    last_restart: Option<Duration>,
    wear: Wear,
    /// Its next process, which does not serve yet.
    successor: Option<Successor>,
}

/// Which requests a process gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    Serves,
    OnTrial,
    StandsBy,
}

/// What is known of one process of an instance; the newest of an instance comes last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    pub n: u16,
    pub incarnation: u64,
    pub state: State,
    pub duty: Duty,
    pub release: Option<String>,
    pub since: Duration,
    pub restarts: u64,
    pub last_exit: Option<(String, Duration)>,
    pub last_restart: Option<Duration>,
    /// When the next start is due, in backoff and cooldown.
    pub due: Option<Duration>,
}

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
    roll: Option<Roll>,
    deploy: Option<Deploy>,
    restarts: BTreeMap<Reason, u64>,
    effects: Vec<Effect>,
    changed: bool,
}

/// An app is written as what it is; sharing is this process's own business.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::plan::App;

    pub fn serialize<S: Serializer>(app: &Arc<App>, to: S) -> Result<S::Ok, S::Error> {
        App::serialize(app, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<App>, D::Error> {
        App::deserialize(from).map(Arc::new)
    }
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

    #[must_use]
    pub fn spec(&self) -> &Arc<App> {
        &self.spec
    }

    /// As the configuration has it: a release on trial does not count yet.
    #[must_use]
    pub fn settled_spec(&self) -> &Arc<App> {
        self.deploy.as_ref().map_or(&self.spec, |deploy| &deploy.old)
    }

    /// What this process is, or is to be, made from.
    #[must_use]
    pub fn spec_of(&self, n: u16, incarnation: u64) -> &Arc<App> {
        let successor = self.cells.get(&n).and_then(|cell| cell.successor.as_ref()).filter(|next| next.incarnation == incarnation);
        let leaving = self.leaving.get(&incarnation).map(|leaving| &leaving.spec);
        successor.map(|next| &next.spec).or(leaving).unwrap_or(&self.spec)
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
            Phase::Backoff { due } => Some(*due),
            Phase::Cooldown { not_before } => Some(self.cooling.unwrap_or_default().max(*not_before)),
        }
    }

    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.removed && self.cells.is_empty() && self.leaving.is_empty()
    }

    /// Whether every instance is in one of these states, whatever else of it is still going.
    #[must_use]
    pub fn are(&self, good: &[State]) -> bool {
        self.cells.values().all(|cell| good.contains(&cell.phase.state()))
    }

    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        self.cells.values().any(|cell| cell.phase == Phase::Awaiting)
    }

    /// Whether no process of it runs or is about to.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let rests = |cell: &Cell| matches!(cell.phase, Phase::Stopped | Phase::Exited) && cell.successor.is_none();
        self.leaving.is_empty() && self.cells.values().all(rests)
    }

    #[must_use]
    pub fn is_cooling(&self) -> bool {
        self.cooling.is_some()
    }

    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.roll.is_some()
    }

    #[must_use]
    pub fn is_deploying(&self) -> bool {
        self.deploy.is_some()
    }

    pub fn restarts(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.restarts.iter().map(|(reason, count)| (*reason, *count))
    }

    pub fn view(&self) -> impl Iterator<Item = View> {
        let numbers: BTreeSet<u16> = self.cells.keys().copied().chain(self.leaving.values().map(|leaving| leaving.n)).collect();
        numbers.into_iter().flat_map(|n| {
            let cell = self.cells.get(&n);
            let leaving = self.leaving.iter().filter(move |(_, leaving)| leaving.n == n);
            let leaving = leaving.map(move |(incarnation, leaving)| leaving.view(*incarnation, cell));
            let current = cell.map(|cell| self.view_of(n, cell));
            let next = cell.and_then(|cell| Some(cell.successor.as_ref()?.view(n, cell)));
            leaving.chain(current).chain(next)
        })
    }

    fn view_of(&self, n: u16, cell: &Cell) -> View {
        View {
            n,
            incarnation: cell.incarnation,
            state: cell.phase.state(),
            duty: if self.is_on_trial() { Duty::OnTrial } else { Duty::Serves },
            release: self.spec.release.clone(),
            since: cell.since,
            restarts: cell.restarts,
            last_exit: cell.last_exit.clone(),
            last_restart: cell.last_restart,
            due: match cell.phase {
                Phase::Backoff { .. } | Phase::Cooldown { .. } => self.cell_due(cell),
                Phase::Stopped
                | Phase::Awaiting
                | Phase::Exited
                | Phase::Spawning { .. }
                | Phase::Starting { .. }
                | Phase::Ready
                | Phase::Draining { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. } => None,
            },
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
            Event::NoRoom { n, incarnation, why } => match self.role(n, incarnation) {
                Role::Next => self.no_room(n, why, now),
                Role::Leaving => self.leaver_gone(incarnation),
                Role::Present | Role::Nobody => {}
            },
            Event::Exited { n, incarnation, exit } => match self.role(n, incarnation) {
                Role::Present => self.exited(n, exit, now, dice),
                Role::Next => self.next_failed(n, exit.to_string(), now),
                Role::Leaving => {
                    let told = self.leaving.get_mut(&incarnation).and_then(|leaving| leaving.told.take());
                    if let Some(cell) = self.cells.get_mut(&n) {
                        cell.last_exit = Some((told.unwrap_or_else(|| exit.to_string()), now));
                    }
                    self.leaver_gone(incarnation);
                }
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
                successor: None,
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
            match &mut cell.phase {
                Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } => self.spawn(n, now),
                Phase::Spawning { then: Some(then) }
                | Phase::Draining { then, .. }
                | Phase::Stopping { then, .. }
                | Phase::Killing { then, .. } => {
                    if *then == After::Rest {
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
        self.fail_deploy("the app was stopped", now);
        self.cooling = None;
        for n in self.numbers() {
            self.dismiss(n, now);
            self.take_down(n, then.clone(), now);
        }
    }

    /// Ends one instance in good order, wherever it stands.
    fn take_down(&mut self, n: u16, then: After, now: Duration) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        match &mut cell.phase {
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } => {
                self.settle(n, then, now, 0);
            }
            Phase::Spawning { then: later } => *later = Some(then),
            Phase::Starting { .. } => self.signal(n, then, now),
            Phase::Ready => self.drain(n, then, now),
            Phase::Draining { then: later, .. } | Phase::Stopping { then: later, .. } | Phase::Killing { then: later, .. } => *later = then,
        }
    }

    fn drain(&mut self, n: u16, then: After, now: Duration) {
        let within = self.spec.stop.drain;
        let Some(cell) = self.cells.get(&n) else { return };
        if within.is_zero() || self.spec.port == AppPort::None {
            return self.signal(n, then, now);
        }
        self.effects.push(Effect::Drain { n, incarnation: cell.incarnation, within });
        self.enter(n, Phase::Draining { deadline: now + within, then }, now);
    }

    fn signal(&mut self, n: u16, then: After, now: Duration) {
        let Some(cell) = self.cells.get(&n) else { return };
        self.effects.push(Effect::Signal { n, incarnation: cell.incarnation });
        self.enter(n, Phase::Stopping { deadline: now + self.spec.stop.timeout, then }, now);
    }

    fn kill(&mut self, n: u16, then: After, now: Duration) {
        let Some(cell) = self.cells.get(&n) else { return };
        self.effects.push(Effect::KillGroup { n, incarnation: cell.incarnation });
        self.enter(n, Phase::Killing { again: now + KILL_AGAIN, then }, now);
    }

    fn kill_now(&mut self, now: Duration) {
        self.wanted = false;
        self.abort_roll(None, "the app was killed");
        self.fail_deploy("the app was killed", now);
        let end = if self.removed { After::Remove } else { After::Rest };
        for n in self.numbers() {
            self.dismiss(n, now);
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            match &mut cell.phase {
                Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } => {
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
    fn settle(&mut self, n: u16, then: After, now: Duration, dice: u64) {
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
        }
    }

    /// It ended and should not have.
    fn fail(&mut self, n: u16, reason: Reason, why: String, now: Duration, dice: u64) {
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
            for other in self.numbers() {
                if let Some(Phase::Backoff { due }) = self.cells.get(&other).map(|c| c.phase.clone()) {
                    self.enter(other, Phase::Cooldown { not_before: due }, now);
                }
            }
        }
        if let Some(at) = self.cooling {
            let not_before = now + delay;
            self.effects.push(Effect::Report(Report::Again { n, why, delay: at.max(not_before).saturating_sub(now) }));
            self.enter(n, Phase::Cooldown { not_before }, now);
        } else {
            self.effects.push(Effect::Report(Report::Again { n, why, delay }));
            self.enter(n, Phase::Backoff { due: now + delay }, now);
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
        let Some(Phase::Spawning { then }) = self.cells.get(&n).map(|cell| cell.phase.clone()) else { return };
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

    fn dead(&mut self, n: u16, incarnation: u64, why: String, now: Duration) {
        if self.role(n, incarnation) != Role::Present {
            return;
        }
        let Some(cell) = self.cells.get_mut(&n).filter(|cell| cell.phase == Phase::Ready) else { return };
        self.effects.push(Effect::Report(Report::Unhealthy { n, why: why.clone() }));
        if self.deploy.as_ref().is_some_and(Deploy::is_guarding) {
            return self.fail_deploy(&format!("instance {n} of the new release is unhealthy: {why}"), now);
        }
        cell.dead = Some(why);
    }

    fn exited(&mut self, n: u16, exit: Exit, now: Duration, dice: u64) {
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let why = exit.to_string();
        let reason = match exit {
            Exit::Code(_) => Reason::Exit,
            Exit::Signal(_) => Reason::Signal,
            Exit::Memory { .. } => Reason::Memory,
        };
        let phase = cell.phase.clone();
        match phase {
            // Nothing of it ran.
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } => return,
            Phase::Draining { then, .. }
            | Phase::Stopping { then, .. }
            | Phase::Killing { then, .. }
            | Phase::Spawning { then: Some(then) } => {
                let told = match &then {
                    After::Fail(_, first) => first.clone(),
                    After::Rest | After::Again(_) | After::Remove => why,
                };
                cell.last_exit = Some((told, now));
                return self.settle(n, then, now, dice);
            }
            Phase::Ready => cell.backoff.served(now.saturating_sub(cell.since)),
            Phase::Spawning { then: None } | Phase::Starting { .. } => {}
        }
        cell.last_exit = Some((why.clone(), now));
        if self.deploy.as_ref().is_some_and(Deploy::is_guarding) {
            self.enter(n, Phase::Stopped, now);
            return self.fail_deploy(&format!("instance {n} of the new release ended: {why}"), now);
        }
        let restart = &self.spec.restart;
        let well = matches!(exit, Exit::Code(code) if code == 0 || restart.success.contains(&code));
        let for_good = matches!(exit, Exit::Code(code) if restart.give_up.contains(&code));
        if for_good || (restart.policy == Policy::OnFailure && well) {
            return self.end(n, why, now);
        }
        self.fail(n, reason, why, now, dice);
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
                Phase::Backoff { .. } if late => self.spawn(n, now),
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
                | Phase::Cooldown { .. } => {}
            }
        }
        self.end_guard(now);
        self.try_one(now);
    }

    /// In cooldown: lets the instance that has waited longest try.
    fn try_one(&mut self, now: Duration) {
        if self.cooling.is_none_or(|at| at > now) {
            return;
        }
        let waits = |cell: &Cell| matches!(cell.phase, Phase::Cooldown { not_before } if not_before <= now);
        let longest = self.cells.iter().filter(|(_, cell)| waits(cell)).min_by_key(|(n, cell)| (cell.since, **n)).map(|(n, _)| *n);
        if let Some(n) = longest {
            self.cooling = Some(now + COOLDOWN);
            if let Some(cell) = self.cells.get_mut(&n) {
                cell.trial = true;
            }
            self.spawn(n, now);
        }
    }

    /// A try has served: the budget is whole again, and the others may come back.
    fn recover(&mut self, n: u16, now: Duration) {
        if self.cooling.is_some() {
            self.effects.push(Effect::Report(Report::Recovered));
            self.thaw(now);
        }
        if let Some(cell) = self.cells.get_mut(&n) {
            cell.backoff.forget();
        }
    }

    /// The budget is whole again; what cooled down waits only for its own delay.
    fn thaw(&mut self, now: Duration) {
        self.cooling = None;
        self.exits.clear();
        for n in self.numbers() {
            let Some(cell) = self.cells.get_mut(&n) else { continue };
            cell.trial = false;
            if let Phase::Cooldown { not_before } = cell.phase {
                self.enter(n, Phase::Backoff { due: not_before }, now);
            }
        }
    }

    fn change(&mut self, spec: Arc<App>, now: Duration) {
        if self.removed {
            return;
        }
        self.fail_deploy("the configuration of the app was changed", now);
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

    /// One at a time, and while another comes or goes none: so never below what serves. Not beyond the budget: what is unhealthy may yet answer, and what cools down
    /// does not.
    fn restart_a_dead_one(&mut self, now: Duration) {
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

    fn forget_old_exits(&mut self, now: Duration) {
        let window = self.spec.restart.budget.per();
        while self.exits.front().is_some_and(|at| *at + window <= now) {
            self.exits.pop_front();
        }
    }

    /// One more exit would spend it.
    fn is_budget_used_up(&self) -> bool {
        self.cooling.is_some() || self.exits.len() >= self.spec.restart.budget.count().get() as usize
    }

    /// When an unhealthy instance that is left alone for want of a budget may be looked at again.
    fn mercy_ends(&self) -> Option<Duration> {
        let waits = self.cells.values().any(|cell| cell.phase == Phase::Ready && cell.dead.is_some());
        let window = self.spec.restart.budget.per();
        self.exits.front().filter(|_| waits && self.cooling.is_none() && self.is_budget_used_up()).map(|at| *at + window)
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
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Ready | Phase::Cooldown { .. } => cell.successor.is_some(),
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

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::Stopped => State::Stopped,
            Self::Awaiting => State::Starting,
            Self::Exited => State::Exited,
            Self::Spawning { .. } | Self::Starting { .. } => State::Starting,
            Self::Ready => State::Ready,
            Self::Draining { .. } => State::Draining,
            Self::Stopping { .. } | Self::Killing { .. } => State::Stopping,
            Self::Backoff { .. } => State::Backoff,
            Self::Cooldown { .. } => State::Cooldown,
        }
    }
}
