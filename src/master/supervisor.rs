//! The supervisor: every app's processes. Event → `rules::restart` → effects, performed here.
//!
//! Shape: the only owner of app processes. A full inbox makes others wait; it never waits for others itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    time::Instant,
};

use super::{
    child::{SpawnError, stop_signal},
    clock::Clock,
    edge_link,
    handoff::{Bag, UpgradeError},
    launch::{Addresses, Notify, Started, Workshop},
    nursery::Nursery,
    obituary::Register,
    output::{Output, Tail},
    places::Places,
    usage,
};
use crate::{
    ipc::message::{AppTable, Duty, Health, Incarnation, Instance, InstanceId, InstanceState, Tally},
    plan::{self, App, AppPort},
    rules::restart::{self, Effect, Event, Exit, Life, Reason, Report, State},
    vocab::{AppName, ServerAddr, units::duration_text},
};

/// Between two looks at what processes use.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For the answers of a new release where nothing says how long a start may take.
const WARM_WITHIN: Duration = Duration::from_secs(30);

/// What others ask of the supervisor.
#[derive(Debug)]
pub enum Message {
    Command {
        app: AppName,
        order: Order,
        tell: mpsc::Sender<Word>,
    },
    /// The apps of a configuration that is now in force.
    Apps(BTreeMap<AppName, App>),
    /// A new release beside the old one; it is back if the new one fails. `tell` hears how it goes, and last `Done` or `Failed`.
    Deploy {
        app: AppName,
        spec: Arc<App>,
        tell: mpsc::Sender<Word>,
    },
    Health {
        id: InstanceId,
        incarnation: Incarnation,
        health: Health,
    },
    Drained {
        id: InstanceId,
        incarnation: Incarnation,
    },
    /// Whether an instance that is not in rotation yet has answered what it was asked.
    Warmed {
        id: InstanceId,
        incarnation: Incarnation,
        result: Result<(), String>,
    },
    /// How many requests the instances have had.
    Tallies(Vec<Tally>),
    EdgeDied,
    /// All apps in reverse order, one after the other.
    StopAll {
        done: oneshot::Sender<()>,
    },
    KillAll,
    /// Shows all of it as it stands, between two events.
    Export(Show),
    /// Whoever waits for an order is told that he must look for himself.
    HangUp,
}

/// Is given the supervisor's state and may not come back: a process that executes another binary does not.
pub struct Show(pub Box<dyn FnOnce(Shown) + Send>);

/// The state and the descriptors in it, or why it cannot be handed over now.
pub type Shown = Result<(Carried, Bag), UpgradeError>;

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    Start,
    Stop,
    Restart,
    /// So many processes, until the configuration asks for another number.
    Scale(NonZeroU16),
}

/// To whoever waits for an order. A full inbox loses progress, never the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    Progress(String),
    Done(String),
    Failed(String),
}

/// What a process of ours tells; unbounded, because each process tells at most twice.
#[derive(Debug)]
pub enum Notice {
    Exited {
        id: InstanceId,
        incarnation: u64,
        exit: Exit,
    },
    /// It wrote the awaited line, or notified.
    Seen {
        id: InstanceId,
        incarnation: u64,
    },
    /// WATCHDOG=1. `told` is cleared when it has been heard: one of a process at a time.
    Pinged {
        id: InstanceId,
        incarnation: u64,
        told: Arc<AtomicBool>,
    },
}

pub mod carried;

use carried::Carried;

/// The state of all apps, for the edge and for people.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Counts changes of state; what processes use is not one.
    pub version: u64,
    pub apps: AppTable,
}

/// A process of an instance.
#[derive(Default)]
struct Process {
    n: u16,
    pid: Option<Pid>,
    addr: Option<ServerAddr>,
    tail: Option<Arc<Tail>>,
    notify: Option<Notify>,
    cpu_ms: u64,
    memory_bytes: u64,
}

struct Waiter {
    wish: Wish,
    tell: mpsc::Sender<Word>,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Up,
    Stopped,
    Restarted,
    Deployed,
}

struct Track {
    life: Life,
    /// By incarnation.
    processes: BTreeMap<u64, Process>,
    /// How many processes a person asked for, and how many the configuration did at that time.
    scaled: Option<(NonZeroU16, NonZeroU16)>,
    waiters: Vec<Waiter>,
    /// Removed by a reload and added by a later one before it was gone.
    again: Option<Arc<App>>,
    removed: bool,
}

struct Stopping {
    queue: VecDeque<AppName>,
    current: Option<AppName>,
    done: Option<oneshot::Sender<()>>,
}

pub struct Supervisor {
    clock: Clock,
    nursery: Nursery,
    workshop: Workshop,
    edge: edge_link::Handle,
    tracks: BTreeMap<AppName, Track>,
    lives: u64,
    inbox: mpsc::Receiver<Message>,
    notices: (UnboundedSender<Notice>, UnboundedReceiver<Notice>),
    table: watch::Sender<Table>,
    edge_restarts: u64,
    changed: bool,
    stopping: Option<Stopping>,
    as_root: BTreeSet<AppName>,
}

/// What the actor needs from others.
pub struct Wiring {
    pub clock: Clock,
    pub nursery: Nursery,
    pub output: Output,
    pub register: Register,
    pub places: Places,
    pub edge: edge_link::Handle,
    pub inbox: mpsc::Receiver<Message>,
    pub table: watch::Sender<Table>,
}

impl Supervisor {
    #[must_use]
    pub fn new(wiring: Wiring) -> Self {
        let Wiring { clock, nursery, output, register, places, edge, inbox, table } = wiring;
        Self {
            clock,
            workshop: Workshop::new(places, nursery.clone(), output, register),
            nursery,
            edge,
            tracks: BTreeMap::new(),
            lives: 0,
            inbox,
            notices: unbounded_channel(),
            table,
            edge_restarts: 0,
            changed: false,
            stopping: None,
            as_root: BTreeSet::new(),
        }
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.tracks.values().filter_map(|track| track.life.due()).min();
            let due = due.map_or_else(|| Instant::now() + Duration::from_secs(86_400), |at| self.clock.instant(at));
            let runs = self.tracks.values().any(|track| track.processes.values().any(|p| p.pid.is_some()));
            tokio::select! {
                biased;
                Some(notice) = self.notices.1.recv() => self.notice(notice),
                message = self.inbox.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => self.tick(),
                _ = look.tick(), if runs => self.look(),
            }
            self.go_on_stopping();
            self.start_waiting();
            self.publish();
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Exited { id, incarnation, exit } => {
                if let Some(process) = self.process(&id.app, incarnation) {
                    process.pid = None;
                    if let Some(task) = process.notify.take() {
                        task.abort();
                    }
                }
                self.step(&id.app, Event::Exited { n: id.n, incarnation, exit });
            }
            Notice::Seen { id, incarnation } => self.step(&id.app, Event::Ready { n: id.n, incarnation }),
            Notice::Pinged { id, incarnation, told } => {
                told.store(false, Relaxed);
                self.step(&id.app, Event::Pinged { n: id.n, incarnation });
            }
        }
    }

    fn process(&mut self, app: &AppName, incarnation: u64) -> Option<&mut Process> {
        self.tracks.get_mut(app)?.processes.get_mut(&incarnation)
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Command { app, order, tell } => self.command(&app, order, tell),
            // What a reload adds now would be started and never told to stop.
            Message::Apps(_) if self.stopping.is_some() => {}
            Message::Apps(apps) => self.apply(apps),
            Message::Health { id: InstanceId { app, n }, incarnation: Incarnation(incarnation), health } => {
                let seen_by_us = |track: &Track| matches!(track.life.spec().ready, plan::Ready::Log { .. } | plan::Ready::Notify { .. });
                let event = match health {
                    Health::Ready if self.tracks.get(&app).is_some_and(seen_by_us) => return,
                    Health::Ready => Event::Ready { n, incarnation },
                    Health::Live => Event::Alive { n, incarnation },
                    Health::Dead { reason } => Event::Dead { n, incarnation, why: reason },
                };
                self.step(&app, event);
            }
            Message::Drained { id, incarnation } => self.step(&id.app, Event::Drained { n: id.n, incarnation: incarnation.0 }),
            Message::Deploy { app, spec, tell } => self.deploy(&app, spec, tell),
            Message::Warmed { id, incarnation, result } => {
                self.step(&id.app, Event::Warmed { n: id.n, incarnation: incarnation.0, result });
            }
            Message::Tallies(tallies) => {
                for Tally { id, incarnation, requests, failures } in tallies {
                    self.step(&id.app, Event::Tallied { n: id.n, incarnation: incarnation.0, requests, failures });
                }
            }
            Message::EdgeDied => {
                self.edge_restarts += 1;
                self.changed = true;
            }
            Message::StopAll { done } => {
                for track in self.tracks.values_mut() {
                    track.again = None;
                }
                let mut queue = self.in_order();
                queue.reverse();
                self.stopping = Some(Stopping { queue: queue.into(), current: None, done: Some(done) });
            }
            Message::Export(Show(show)) => {
                // What has been told already is part of the state.
                while let Ok(notice) = self.notices.1.try_recv() {
                    self.notice(notice);
                }
                show(self.export());
            }
            Message::HangUp => {
                for waiter in self.tracks.values_mut().flat_map(|track| track.waiters.drain(..)) {
                    let _ = waiter.tell.try_send(Word::Failed("gateway is upgraded meanwhile; it goes on: see `gateway apps`".to_owned()));
                }
            }
            Message::KillAll => {
                for app in self.names() {
                    self.step(&app, Event::KillNow);
                }
            }
        }
    }

    fn names(&self) -> Vec<AppName> {
        self.tracks.keys().cloned().collect()
    }

    /// The next app's turn when the one before is at rest.
    fn go_on_stopping(&mut self) {
        while let Some(Stopping { queue, current, done }) = &mut self.stopping {
            let busy = current.as_ref().and_then(|app| self.tracks.get(app)).is_some_and(|track| !track.life.is_at_rest());
            if busy {
                return;
            }
            *current = queue.pop_front();
            let Some(app) = current.clone() else {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
                return;
            };
            self.step(&app, Event::Stop);
        }
    }

    fn command(&mut self, app: &AppName, order: Order, tell: mpsc::Sender<Word>) {
        if self.stopping.is_some() {
            let _ = tell.try_send(Word::Failed("gateway is stopping".to_owned()));
            return;
        }
        let Some(track) = self.tracks.get_mut(app).filter(|track| !track.removed) else {
            let _ = tell.try_send(Word::Failed(format!("there is no app {:?}", app.as_str())));
            return;
        };
        let (wish, event) = match order {
            Order::Start => (Wish::Up, Event::Start),
            Order::Stop => (Wish::Stopped, Event::Stop),
            Order::Restart => (Wish::Restarted, Event::Restart(Reason::Command)),
            Order::Scale(procs) => match track.scale(procs) {
                Ok(spec) => (Wish::Up, Event::Change(spec)),
                Err(why) => {
                    let _ = tell.try_send(Word::Failed(why));
                    return;
                }
            },
        };
        track.waiters.push(Waiter { wish, tell });
        tracing::info!(%app, ?order, "told by the control socket");
        self.step(app, event);
    }

    fn deploy(&mut self, app: &AppName, spec: Arc<App>, tell: mpsc::Sender<Word>) {
        let refused = match self.tracks.get(app) {
            _ if self.stopping.is_some() => Some("gateway is stopping".to_owned()),
            Some(track) if track.removed => Some(format!("there is no app {:?} any more", app.as_str())),
            Some(track) if track.waiters.iter().any(|waiter| waiter.wish == Wish::Deployed) || track.life.is_deploying() => {
                Some(format!("another deploy of {app} is under way"))
            }
            Some(_) => None,
            None => Some(format!("there is no app {:?}", app.as_str())),
        };
        if let Some(why) = refused {
            let _ = tell.try_send(Word::Failed(why));
            return;
        }
        if let Some(track) = self.tracks.get_mut(app) {
            let procs = track.life.spec().procs;
            let mut spec = spec;
            if spec.procs != procs {
                // It was scaled by hand.
                Arc::make_mut(&mut spec).procs = procs;
            }
            track.waiters.push(Waiter { wish: Wish::Deployed, tell });
            tracing::info!(%app, release = spec.release.as_deref(), "a new release is deployed");
            self.step(app, Event::Deploy(spec));
        }
    }

    /// What a reload means for the apps: unchanged ones are not touched.
    fn apply(&mut self, mut apps: BTreeMap<AppName, App>) {
        // The others are jobs: see `master::jobs`.
        apps.retain(|_, app| app.schedule.is_none());
        for app in self.names() {
            if !apps.contains_key(&app) {
                tracing::info!(%app, "removed by the configuration");
                if let Some(track) = self.tracks.get_mut(&app) {
                    track.removed = true;
                    track.again = None;
                }
                self.step(&app, Event::Remove);
            }
        }
        for (app, spec) in in_order(apps) {
            let mut spec = Arc::new(spec);
            match self.tracks.get_mut(&app) {
                Some(track) if track.removed => track.again = Some(spec),
                Some(track) => {
                    if !track.is_at(&mut spec) {
                        tracing::info!(%app, "changed by the configuration");
                        self.step(&app, Event::Change(spec));
                    }
                }
                None => self.add(&app, spec),
            }
        }
    }

    fn add(&mut self, app: &AppName, spec: Arc<App>) {
        self.lives += 1;
        // Incarnations of an app that comes again never meet those of its earlier life.
        let life = Life::new(spec, self.lives << 32);
        let track = Track { life, processes: BTreeMap::new(), scaled: None, waiters: Vec::new(), again: None, removed: false };
        self.tracks.insert(app.clone(), track);
        let lacks = self.lacks(app);
        if lacks.is_empty() {
            self.step(app, Event::Start);
        } else {
            tracing::info!(%app, after = lacks.join(", "), "waits until these are ready");
            self.step(app, Event::Await);
        }
    }

    /// What an app must wait for at its start.
    fn lacks(&self, app: &AppName) -> Vec<String> {
        let Some(track) = self.tracks.get(app) else { return Vec::new() };
        let there = |other: &&AppName| self.tracks.get(*other).is_some_and(|other| other.life.are(&[State::Ready, State::Exited]));
        track.life.spec().after.iter().filter(|other| !there(other)).map(ToString::to_string).collect()
    }

    /// Starts what has waited long enough.
    fn start_waiting(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let waiting: Vec<AppName> = self.tracks.iter().filter(|(_, track)| track.life.is_awaiting()).map(|(app, _)| app.clone()).collect();
        for app in waiting {
            if self.lacks(&app).is_empty() {
                self.step(&app, Event::Start);
            }
        }
    }

    /// Every app after those that it needs.
    fn in_order(&self) -> Vec<AppName> {
        let apps = self.tracks.iter().map(|(app, track)| (app.clone(), (**track.life.spec()).clone())).collect();
        in_order(apps).into_iter().map(|(app, _)| app).collect()
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for app in self.names() {
            if self.tracks.get(&app).and_then(|track| track.life.due()).is_some_and(|due| due <= now) {
                self.step(&app, Event::Tick);
            }
        }
    }

    /// Event in, effects performed; what they give at once is the next event.
    fn step(&mut self, app: &AppName, event: Event) {
        let mut events = VecDeque::from([event]);
        let (mut drains, mut warm) = (Vec::new(), Vec::new());
        while let Some(event) = events.pop_front() {
            let now = self.clock.now();
            let Some(track) = self.tracks.get_mut(app) else { return };
            for effect in track.life.step(event, now, fastrand::u64(..)) {
                match effect {
                    Effect::Spawn { n, incarnation, beside } => events.push_back(self.spawn(app, n, incarnation, beside)),
                    Effect::Warm { n, incarnation } => warm.push((n, incarnation)),
                    Effect::Drain { n, incarnation, within } => drains.push((n, incarnation, within)),
                    Effect::Signal { n, incarnation } => self.signal(app, incarnation, n, false),
                    Effect::KillGroup { n, incarnation } => self.signal(app, incarnation, n, true),
                    Effect::Publish => self.changed = true,
                    Effect::Report(report) => self.report(app, &report),
                }
            }
            if events.is_empty() && !(drains.is_empty() && warm.is_empty()) {
                // The table that shows them goes first.
                self.publish();
                for (n, incarnation) in warm.drain(..) {
                    if let Err(why) = self.warm(app, n, incarnation) {
                        events.push_back(Event::Warmed { n, incarnation, result: Err(why) });
                    }
                }
                for (n, incarnation, within) in drains.drain(..) {
                    let id = InstanceId { app: app.clone(), n };
                    if !self.edge.drain(id, Incarnation(incarnation), within) {
                        events.push_back(Event::Drained { n, incarnation });
                    }
                }
            }
        }
        self.settle(app);
    }

    /// After an app came to rest or went.
    fn settle(&mut self, app: &AppName) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        track.waiters.retain(|waiter| !waiter.is_over(&track.life));
        let known: BTreeSet<u64> = track.life.view().map(|view| view.incarnation).collect();
        let gone = track.processes.extract_if(.., |incarnation, process| !known.contains(incarnation) && process.pid.is_none());
        for addr in gone.filter_map(|(_, process)| process.addr) {
            self.workshop.release(&addr);
        }
        if track.life.is_gone() {
            let again = track.again.take();
            self.tracks.remove(app);
            self.workshop.forget(app);
            self.changed = true;
            if let Some(spec) = again {
                self.add(app, spec);
            }
        }
    }

    fn spawn(&mut self, app: &AppName, n: u16, incarnation: u64, beside: Option<u64>) -> Event {
        let Some(track) = self.tracks.get_mut(app) else {
            return Event::SpawnFailed { n, incarnation, why: "the app is gone".to_owned() };
        };
        if let Some(why) = beside.and_then(|old| no_room_beside(track.processes.get(&old)?.memory())) {
            return Event::NoRoom { n, incarnation, why };
        }
        let id = InstanceId { app: app.clone(), n };
        let spec = track.life.spec_of(n, incarnation).clone();
        let taken = track.processes.values().filter(|process| process.pid.is_some()).filter_map(|process| process.addr.clone()).collect();
        // The address of the process before, where nothing has it any more.
        let before = track
            .processes
            .values_mut()
            .rev()
            .find(|process| process.n == n && process.pid.is_none())
            .and_then(|process| process.addr.take());
        let others = track.processes.extract_if(.., |_, process| process.n == n && process.pid.is_none());
        for addr in others.filter_map(|(_, process)| process.addr) {
            self.workshop.release(&addr);
        }
        track.processes.insert(incarnation, Process { n, ..Process::default() });
        match self.workshop.start(&id, incarnation, &spec, &Addresses { before, taken }, &self.notices.0) {
            Ok(Started { pid, addr, tail, notify, root }) => {
                tracing::info!(%app, instance = n, pid = pid.as_raw(), "started");
                tail.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
                if let Some(process) = self.process(app, incarnation) {
                    *process = Process { n, pid: Some(pid), addr, tail: Some(tail), notify, cpu_ms: 0, memory_bytes: 0 };
                }
                if root && spec.user.as_deref() != Some("root") && self.as_root.insert(app.clone()) {
                    tracing::warn!(%app, "runs as root: set `user` to one without privileges, or write user = \"root\" if it must");
                }
                Event::Spawned { n, incarnation }
            }
            Err(error) => {
                let why = SpawnError::story(&error);
                tracing::error!(%app, instance = n, error = why, "could not be started");
                Event::SpawnFailed { n, incarnation, why }
            }
        }
    }

    fn warm(&self, app: &AppName, n: u16, incarnation: u64) -> Result<(), String> {
        let Some(track) = self.tracks.get(app) else { return Err("the app is gone".to_owned()) };
        let spec = track.life.spec_of(n, incarnation);
        let within = spec.ready.timeout().unwrap_or(WARM_WITHIN);
        let asked = self.edge.warm(InstanceId { app: app.clone(), n }, Incarnation(incarnation), spec.deploy.warm.clone(), within);
        if asked { Ok(()) } else { Err("the edge does not listen: it is down or busy".to_owned()) }
    }

    fn signal(&self, app: &AppName, incarnation: u64, n: u16, kill: bool) {
        let Some(track) = self.tracks.get(app) else { return };
        let Some(pid) = track.processes.get(&incarnation).and_then(|process| process.pid) else { return };
        if kill {
            self.nursery.kill_group(pid)
        } else {
            self.nursery.signal(pid, stop_signal(track.life.spec_of(n, incarnation).stop.signal))
        }
    }

    fn report(&mut self, app: &AppName, report: &Report) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        let last_line = |n: &u16| {
            let tail = track.processes.values().rev().find(|process| process.n == *n).and_then(|process| process.tail.as_ref());
            tail.and_then(|tail| tail.lines().pop()).unwrap_or_default()
        };
        let text = match report {
            Report::Ready { n, took } => {
                tracing::info!(%app, instance = n, took_ms = millis(*took), "ready");
                format!("{app}.{n} is ready after {} ms", millis(*took))
            }
            Report::Again { n, why, delay } => {
                tracing::warn!(%app, instance = n, why, delay_ms = millis(*delay), last_line = last_line(n), "ended, will be started again");
                let last = last_line(n);
                let last = if last.is_empty() { last } else { format!(", its last words: {last}") };
                format!("{app}.{n} ended: {why}; it is started again in {} ms{last}", millis(*delay))
            }
            Report::Ended { n, why } => {
                tracing::info!(%app, instance = n, why, "ended, and stays so");
                format!("{app}.{n} ended: {why}")
            }
            Report::Stopped { n } => {
                tracing::info!(%app, instance = n, "stopped");
                format!("{app}.{n} is stopped")
            }
            Report::Unhealthy { n, why } => {
                tracing::warn!(%app, instance = n, why, "unhealthy");
                format!("{app}.{n} is unhealthy: {why}")
            }
            Report::Stubborn { n } => {
                tracing::warn!(%app, instance = n, "did not stop in time, killing its group");
                format!("{app}.{n} did not stop in time and is killed")
            }
            Report::BudgetSpent { exits } => {
                tracing::error!(%app, exits, "keeps failing: one try a minute from now on, until one holds or `gateway start`");
                format!("{app} keeps failing: {exits} exits; from now on one try a minute")
            }
            Report::Recovered => {
                tracing::info!(%app, "has recovered");
                format!("{app} has recovered")
            }
            Report::RollDone => format!("all of {app} are new"),
            Report::RollAborted { n, why } => {
                tracing::error!(%app, instance = n, why, "restart given up, the rest stays as it is");
                format!("the restart of {app} was given up at instance {n}: {why}")
            }
            Report::NoRoom { n, why } => {
                tracing::warn!(%app, instance = n, why, "no memory for two: the old one goes first, requests are held meanwhile");
                format!("{app}.{n}: {why}: the old one goes first, requests are held meanwhile")
            }
            Report::Recycling { n, why } => {
                tracing::info!(%app, instance = n, why, "is replaced");
                format!("{app}.{n} is replaced: {why}")
            }
            Report::RecycleFailed { n, why } => {
                tracing::error!(%app, instance = n, why, last_line = last_line(n), "its replacement did not come up: the old one goes on for now");
                format!("the replacement of {app}.{n} did not come up: {why}")
            }
            Report::Warmed { n } => format!("{app}.{n} is warm"),
            Report::Switched { guard } if guard.is_zero() => format!("switched: the new release of {app} serves"),
            Report::Switched { guard } => {
                tracing::info!(%app, guard_ms = millis(*guard), "the new release serves, the old one stands by");
                format!("switched: the new release of {app} serves, the old one stands by for {}", duration_text(*guard))
            }
            Report::DeployDone => {
                tracing::info!(%app, "deployed");
                format!("{app} is deployed")
            }
            Report::DeployFailed { why } => {
                tracing::error!(%app, why, "deploy failed, the old release serves");
                format!("the deploy of {app} failed, the old release serves: {why}")
            }
        };
        track.waiters.retain(|waiter| waiter.hears(report, &text));
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let apps = self.rows();
        self.table.send_modify(|table| {
            table.version += 1;
            table.apps.put_apps(apps);
        });
    }

    fn rows(&self) -> AppTable {
        let mut instances = Vec::new();
        let mut restarts = BTreeMap::new();
        for (app, track) in &self.tracks {
            restarts.insert(app.clone(), track.life.restarts().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect());
            for view in track.life.view() {
                let process = track.processes.get(&view.incarnation);
                instances.push(Instance {
                    id: InstanceId { app: app.clone(), n: view.n },
                    incarnation: Incarnation(view.incarnation),
                    state: state(view.state),
                    duty: duty(view.duty),
                    release: view.release,
                    since_ms: self.clock.wall(view.since),
                    pid: process.and_then(|p| p.pid).map(|pid| pid.as_raw().cast_unsigned()),
                    addr: process.and_then(|p| p.addr.clone()),
                    restarts: view.restarts,
                    last_exit: view.last_exit.map(|(why, at)| (why, self.clock.wall(at))),
                    last_restart_ms: view.last_restart.map(|at| self.clock.wall(at)),
                    due_ms: view.due.map(|at| self.clock.wall(at)),
                    cpu_ms: process.map_or(0, |p| p.cpu_ms),
                    memory_bytes: process.map_or(0, |p| p.memory_bytes),
                });
            }
        }
        AppTable { instances, restarts, edge_restarts: self.edge_restarts, jobs: BTreeMap::new() }
    }

    fn look(&mut self) {
        let mut weights = Vec::new();
        for (app, track) in &mut self.tracks {
            for (incarnation, process) in &mut track.processes {
                if let Some(usage) = process.pid.and_then(usage::of) {
                    process.cpu_ms = usage.cpu_ms;
                    process.memory_bytes = usage.memory_bytes;
                    weights.push((app.clone(), Event::Weighed { n: process.n, incarnation: *incarnation, bytes: usage.memory_bytes }));
                }
            }
        }
        for (app, event) in weights {
            self.step(&app, event);
        }
        let apps = self.rows();
        self.table.send_if_modified(|table| {
            let before = table.apps.clone();
            table.apps.put_apps(apps);
            table.apps != before
        });
    }
}

impl Process {
    /// As it is now, not as it was at the last look.
    fn memory(&self) -> Option<u64> {
        Some(self.pid.and_then(usage::of)?.memory_bytes)
    }
}

impl Track {
    fn scale(&mut self, procs: NonZeroU16) -> Result<Arc<App>, String> {
        let spec = self.life.settled_spec();
        if self.life.is_deploying() {
            return Err("a deploy of it is under way".to_owned());
        }
        if let AppPort::Fixed { first } = spec.port
            && first.get().checked_add(procs.get() - 1).is_none()
        {
            return Err(format!("{procs} processes from port {first} on would need ports beyond 65535"));
        }
        let configured = self.scaled.map_or(spec.procs, |(_, configured)| configured);
        self.scaled = (procs != configured).then_some((procs, configured));
        let mut spec = (**spec).clone();
        spec.procs = procs;
        Ok(Arc::new(spec))
    }

    /// Whether it is as `spec` of the configuration wants it. A number of processes that was asked for by hand stays while the configuration's is the same.
    fn is_at(&mut self, spec: &mut Arc<App>) -> bool {
        match self.scaled {
            Some((asked, configured)) if configured == spec.procs => Arc::make_mut(spec).procs = asked,
            Some(_) => self.scaled = None,
            None => {}
        }
        **self.life.settled_spec() == **spec
    }
}

/// Why there is no memory for one more process of this size, if there is not.
///
/// Source: supervision.md rule 10.
fn no_room_beside(bytes: Option<u64>) -> Option<String> {
    let (bytes, available) = (bytes?, usage::available()?);
    let wanted = bytes.saturating_add(bytes / 5);
    (available < wanted)
        .then(|| format!("{} MB of memory are available, and a second process would need {} MB", available >> 20, wanted >> 20))
}

/// Every app after those that it needs, else by name.
fn in_order(mut apps: BTreeMap<AppName, App>) -> Vec<(AppName, App)> {
    let mut ordered = Vec::new();
    while !apps.is_empty() {
        let free = apps.iter().find(|(_, spec)| !spec.after.iter().any(|other| apps.contains_key(other))).map(|(app, _)| app.clone());
        // A ring is refused at load.
        let Some(next) = free.or_else(|| apps.keys().next().cloned()) else { break };
        ordered.extend(apps.remove_entry(&next));
    }
    ordered
}

impl Waiter {
    /// False: it has heard the end.
    fn hears(&self, report: &Report, text: &str) -> bool {
        let failed = || Some(Word::Failed(text.to_owned()));
        let done = || Some(Word::Done(text.to_owned()));
        let end = match (self.wish, report) {
            (Wish::Restarted, Report::RollDone) | (Wish::Deployed, Report::DeployDone) => done(),
            (Wish::Restarted, Report::RollAborted { .. })
            | (Wish::Deployed, Report::DeployFailed { .. })
            | (Wish::Up, Report::Again { .. } | Report::BudgetSpent { .. }) => failed(),
            (
                Wish::Up | Wish::Stopped | Wish::Restarted | Wish::Deployed,
                Report::Ready { .. }
                | Report::Again { .. }
                | Report::Ended { .. }
                | Report::Stopped { .. }
                | Report::Unhealthy { .. }
                | Report::Stubborn { .. }
                | Report::BudgetSpent { .. }
                | Report::Recovered
                | Report::NoRoom { .. }
                | Report::RollDone
                | Report::RollAborted { .. }
                | Report::Recycling { .. }
                | Report::RecycleFailed { .. }
                | Report::Warmed { .. }
                | Report::Switched { .. }
                | Report::DeployDone
                | Report::DeployFailed { .. },
            ) => None,
        };
        match end {
            Some(end) => {
                // There is room: progress leaves the last place free.
                let _ = self.tell.try_send(end);
                false
            }
            None => {
                // A client that does not read loses words, not the supervisor's time.
                if self.tell.capacity() > 1 {
                    let _ = self.tell.try_send(Word::Progress(text.to_owned()));
                }
                !self.tell.is_closed()
            }
        }
    }

    fn is_over(&self, life: &Life) -> bool {
        let end = match self.wish {
            Wish::Up => life.are(&[State::Ready, State::Exited]).then_some("all instances are up"),
            Wish::Stopped => life.is_at_rest().then_some("all instances are stopped"),
            Wish::Restarted | Wish::Deployed => None,
        };
        if let Some(text) = end {
            let _ = self.tell.try_send(Word::Done(text.to_owned()));
        }
        end.is_some() || self.tell.is_closed()
    }
}

fn state(state: State) -> InstanceState {
    match state {
        State::Stopped => InstanceState::Stopped,
        State::Starting => InstanceState::Starting,
        State::Ready => InstanceState::Ready,
        State::Draining => InstanceState::Draining,
        State::Stopping => InstanceState::Stopping,
        State::Exited => InstanceState::Exited,
        State::Backoff => InstanceState::Backoff,
        State::Cooldown => InstanceState::Cooldown,
    }
}

fn duty(duty: restart::Duty) -> Duty {
    match duty {
        restart::Duty::Serves => Duty::Serves,
        restart::Duty::OnTrial => Duty::OnTrial,
        restart::Duty::StandsBy => Duty::StandsBy,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
