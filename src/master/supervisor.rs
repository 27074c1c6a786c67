//! The supervisor: every app's processes. Event → `rules::restart` → effects, performed here.
//!
//! Shape: the only owner of app processes. A full inbox makes others wait; it never waits for others itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    time::Instant,
};

use super::{
    child::SpawnError,
    clock::Clock,
    edge_link,
    handoff::{Bag, UpgradeError},
    launch::{Notify, Started, Workshop},
    nursery::Nursery,
    output::{Output, Tail},
    places::Places,
    usage,
};
use crate::{
    ipc::message::{AppTable, Duty, Health, Incarnation, Instance, InstanceId, InstanceState, Tally},
    plan::{self, App, app::StopSignal},
    rules::restart::{Effect, Event, Exit, Life, Reason, Report, State},
    vocab::{AppName, ServerAddr},
};

/// Between two looks at what processes use.
const LOOK_EVERY: Duration = Duration::from_secs(5);

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
    incarnation: u64,
    pid: Option<Pid>,
    addr: Option<ServerAddr>,
    tail: Option<Arc<Tail>>,
    notify: Option<Notify>,
    cpu_ms: u64,
    memory_bytes: u64,
}

struct Waiter {
    order: Order,
    tell: mpsc::Sender<Word>,
}

struct Track {
    life: Life,
    processes: BTreeMap<u16, Process>,
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
    pub places: Places,
    pub edge: edge_link::Handle,
    pub inbox: mpsc::Receiver<Message>,
    pub table: watch::Sender<Table>,
}

impl Supervisor {
    #[must_use]
    pub fn new(wiring: Wiring) -> Self {
        let Wiring { clock, nursery, output, places, edge, inbox, table } = wiring;
        Self {
            clock,
            workshop: Workshop::new(places, nursery.clone(), output),
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
            self.publish();
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Exited { id, incarnation, exit } => {
                if let Some(process) = self.process(&id).filter(|p| p.incarnation == incarnation) {
                    process.pid = None;
                    if let Some(task) = process.notify.take() {
                        task.abort();
                    }
                }
                self.step(&id.app, Event::Exited { n: id.n, incarnation, exit });
            }
            Notice::Seen { id, incarnation } => self.step(&id.app, Event::Ready { n: id.n, incarnation }),
        }
    }

    fn process(&mut self, id: &InstanceId) -> Option<&mut Process> {
        self.tracks.get_mut(&id.app)?.processes.get_mut(&id.n)
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
            Message::Warmed { .. } | Message::Tallies(_) => {}
            Message::EdgeDied => {
                self.edge_restarts += 1;
                self.changed = true;
            }
            Message::StopAll { done } => {
                for track in self.tracks.values_mut() {
                    track.again = None;
                }
                self.stopping = Some(Stopping { queue: self.tracks.keys().rev().cloned().collect(), current: None, done: Some(done) });
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
        track.waiters.push(Waiter { order, tell });
        let event = match order {
            Order::Start => Event::Start,
            Order::Stop => Event::Stop,
            Order::Restart => Event::Restart(Reason::Command),
        };
        tracing::info!(%app, ?order, "told by the control socket");
        self.step(app, event);
    }

    /// What a reload means for the apps: unchanged ones are not touched.
    fn apply(&mut self, apps: BTreeMap<AppName, App>) {
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
        for (app, spec) in apps {
            let spec = Arc::new(spec);
            match self.tracks.get_mut(&app) {
                Some(track) if track.removed => track.again = Some(spec),
                Some(track) if **track.life.spec() == *spec => {}
                Some(_) => {
                    tracing::info!(%app, "changed by the configuration");
                    self.step(&app, Event::Change(spec));
                }
                None => self.add(&app, spec),
            }
        }
    }

    fn add(&mut self, app: &AppName, spec: Arc<App>) {
        self.lives += 1;
        // Incarnations of an app that comes again never meet those of its earlier life.
        let life = Life::new(spec, self.lives << 32);
        let track = Track { life, processes: BTreeMap::new(), waiters: Vec::new(), again: None, removed: false };
        self.tracks.insert(app.clone(), track);
        self.step(app, Event::Start);
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
        let mut drains = Vec::new();
        while let Some(event) = events.pop_front() {
            let now = self.clock.now();
            let Some(track) = self.tracks.get_mut(app) else { return };
            for effect in track.life.step(event, now, fastrand::u64(..)) {
                match effect {
                    Effect::Spawn { n, incarnation } => events.push_back(self.spawn(app, n, incarnation)),
                    Effect::Drain { n, incarnation, within } => drains.push((n, incarnation, within)),
                    Effect::Signal { n, incarnation } => self.signal(app, n, incarnation, false),
                    Effect::KillGroup { n, incarnation } => self.signal(app, n, incarnation, true),
                    Effect::Publish => self.changed = true,
                    Effect::Report(report) => self.report(app, &report),
                }
            }
            if events.is_empty() && !drains.is_empty() {
                // The table that shows them goes first.
                self.publish();
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
        let known: BTreeSet<u16> = track.life.view().map(|view| view.n).collect();
        track.processes.retain(|n, process| known.contains(n) || process.pid.is_some());
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

    fn spawn(&mut self, app: &AppName, n: u16, incarnation: u64) -> Event {
        let Some(track) = self.tracks.get_mut(app) else {
            return Event::SpawnFailed { n, incarnation, why: "the app is gone".to_owned() };
        };
        let id = InstanceId { app: app.clone(), n };
        let spec = track.life.spec().clone();
        let process = track.processes.entry(n).or_default();
        if let Some(task) = process.notify.take() {
            task.abort();
        }
        *process = Process { incarnation, addr: process.addr.take(), ..Process::default() };
        match self.workshop.start(&id, incarnation, &spec, process.addr.as_ref(), &self.notices.0) {
            Ok(Started { pid, addr, tail, notify, root }) => {
                tracing::info!(%app, instance = n, pid = pid.as_raw(), "started");
                tail.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
                *process = Process { incarnation, pid: Some(pid), addr, tail: Some(tail), notify, cpu_ms: 0, memory_bytes: 0 };
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

    fn signal(&self, app: &AppName, n: u16, incarnation: u64, kill: bool) {
        let Some(track) = self.tracks.get(app) else { return };
        let process = track.processes.get(&n).filter(|process| process.incarnation == incarnation);
        let Some(pid) = process.and_then(|process| process.pid) else { return };
        if kill { self.nursery.kill_group(pid) } else { self.nursery.signal(pid, stop_signal(track.life.spec().stop.signal)) }
    }

    fn report(&mut self, app: &AppName, report: &Report) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        let last_line = |n: &u16| {
            let tail = track.processes.get(n).and_then(|process| process.tail.as_ref());
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
            table.apps = apps;
        });
    }

    fn rows(&self) -> AppTable {
        let mut instances = Vec::new();
        let mut restarts = BTreeMap::new();
        for (app, track) in &self.tracks {
            restarts.insert(app.clone(), track.life.restarts().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect());
            for view in track.life.view() {
                let process = track.processes.get(&view.n).filter(|process| process.incarnation == view.incarnation);
                instances.push(Instance {
                    id: InstanceId { app: app.clone(), n: view.n },
                    incarnation: Incarnation(view.incarnation),
                    state: state(view.state),
                    duty: Duty::Serves,
                    release: None,
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
        AppTable { instances, restarts, edge_restarts: self.edge_restarts }
    }

    fn look(&mut self) {
        for process in self.tracks.values_mut().flat_map(|track| track.processes.values_mut()) {
            if let Some(usage) = process.pid.and_then(usage::of) {
                process.cpu_ms = usage.cpu_ms;
                process.memory_bytes = usage.memory_bytes;
            }
        }
        let apps = self.rows();
        self.table.send_if_modified(|table| {
            let differs = table.apps != apps;
            table.apps = apps;
            differs
        });
    }
}

impl Waiter {
    /// False: it has heard the end.
    fn hears(&self, report: &Report, text: &str) -> bool {
        let end = match (self.order, report) {
            (Order::Restart, Report::RollDone) => Some(Word::Done(text.to_owned())),
            (Order::Restart, Report::RollAborted { .. }) | (Order::Start, Report::Again { .. } | Report::BudgetSpent { .. }) => {
                Some(Word::Failed(text.to_owned()))
            }
            (
                Order::Start | Order::Stop | Order::Restart,
                Report::Ready { .. }
                | Report::Again { .. }
                | Report::Ended { .. }
                | Report::Stopped { .. }
                | Report::Unhealthy { .. }
                | Report::Stubborn { .. }
                | Report::BudgetSpent { .. }
                | Report::Recovered
                | Report::RollDone
                | Report::RollAborted { .. },
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
        let all = |good: &[State]| life.view().all(|view| good.contains(&view.state));
        let end = match self.order {
            Order::Start => all(&[State::Ready, State::Exited]).then_some("all instances are up"),
            Order::Stop => all(&[State::Stopped, State::Exited]).then_some("all instances are stopped"),
            Order::Restart => None,
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

fn stop_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Hup => Signal::SIGHUP,
        StopSignal::Usr1 => Signal::SIGUSR1,
        StopSignal::Usr2 => Signal::SIGUSR2,
        StopSignal::Kill => Signal::SIGKILL,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
