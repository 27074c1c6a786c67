//! The supervisor: every app's processes. Event → `rules::restart` → effects, performed here.
//!
//! Shape: the only owner of app processes. A full inbox makes others wait; it never waits for others itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinSet,
    time::Instant,
};

use super::{
    child::{SpawnError, stop_signal},
    clock::Clock,
    edge_link,
    launch::{Addresses, Started, Workshop},
    nursery::Nursery,
    obituary::Register,
    output::Output,
    places::Places,
    table::Table,
    usage,
    words::{Heard, Notice, Order, Word},
};
use crate::{
    ipc::message::{Incarnation, InstanceId},
    plan::App,
    rules::{
        program,
        restart::{Effect, Event, Exit, Life, Reason, State},
    },
    vocab::AppName,
};

mod arrival;
pub mod carried;
mod hearing;
mod message;
mod prelude;
mod report;
mod rows;
mod stopping;
mod suspects;
mod track;
mod waiter;

pub use message::{Message, Show, Shown};
use stopping::Stopping;
use track::{Process, Track};
use waiter::{Waiter, Wish};

/// Between two looks at what processes use.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For the answers of a new release where nothing says how long a start may take.
const WARM_WITHIN: Duration = Duration::from_secs(30);

pub struct Supervisor {
    clock: Clock,
    nursery: Nursery,
    workshop: Workshop,
    register: Register,
    edge: edge_link::Handle,
    tracks: BTreeMap<AppName, Track>,
    lives: u64,
    inbox: mpsc::Receiver<Message>,
    heard: mpsc::Receiver<Heard>,
    notices: (UnboundedSender<Notice>, UnboundedReceiver<Notice>),
    table: watch::Sender<Table>,
    edge_restarts: u64,
    changed: bool,
    stopping: Option<Stopping>,
    as_root: BTreeSet<AppName>,
    /// What runs before processes are started.
    preludes: JoinSet<()>,
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
    pub heard: mpsc::Receiver<Heard>,
    pub table: watch::Sender<Table>,
}

impl Supervisor {
    #[must_use]
    pub fn new(wiring: Wiring) -> Self {
        let Wiring { clock, nursery, output, register, places, edge, inbox, heard, table } = wiring;
        Self {
            clock,
            workshop: Workshop::new(places, nursery.clone(), output, register.clone()),
            register,
            nursery,
            edge,
            tracks: BTreeMap::new(),
            lives: 0,
            inbox,
            heard,
            notices: unbounded_channel(),
            table,
            edge_restarts: 0,
            changed: false,
            stopping: None,
            as_root: BTreeSet::new(),
            preludes: JoinSet::new(),
        }
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut arrivals = tokio::time::interval(arrival::LOOK_EVERY);
        arrivals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.tracks.values().filter_map(|track| track.life.due()).min();
            let due = due.map_or_else(|| Instant::now() + Duration::from_secs(86_400), |at| self.clock.instant(at));
            let runs = self.tracks.values().any(|track| track.processes.values().any(|p| p.pid.is_some()));
            tokio::select! {
                biased;
                Some(notice) = self.notices.1.recv() => self.notice(notice),
                Some(heard) = self.heard.recv() => self.hear(heard),
                message = self.inbox.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => self.tick(),
                _ = look.tick(), if runs => self.look(),
                _ = arrivals.tick(), if self.somebody_arrives() => self.look_at_arrivals(),
            }
            self.go_on_stopping();
            self.start_waiting();
            self.publish();
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Exited { id, incarnation, exit } => {
                self.ended_early(&id.app, incarnation);
                if let Some(process) = self.process(&id.app, incarnation) {
                    process.pid = None;
                    if let Some(task) = process.notify.take() {
                        task.abort();
                    }
                }
                let asked_for = !self.serves(&id, incarnation);
                self.step(&id.app, Event::Exited { n: id.n, incarnation, exit });
                if !asked_for {
                    self.blame_known(&id, incarnation, exit);
                }
            }
            Notice::Left { id, incarnation, exit, names } => self.left_behind(&id, incarnation, exit, &names),
            Notice::Prepared { id, incarnation, result } => self.prepared(&id.app, id.n, incarnation, result),
            Notice::Seen { id, incarnation } => {
                if let Some(process) = self.process(&id.app, incarnation) {
                    process.arrival.seen = true;
                }
                self.arrived(&id.app, id.n, incarnation);
            }
            Notice::Pinged { id, incarnation, told } => {
                told.store(false, Relaxed);
                self.step(&id.app, Event::Pinged { n: id.n, incarnation });
            }
        }
    }

    /// A leader has ended before those that came of it.
    fn left_behind(&mut self, id: &InstanceId, incarnation: u64, exit: Exit, names: &[String]) {
        let InstanceId { app, n } = id;
        let Some(track) = self.tracks.get(app) else { return };
        let why = program::left(exit, &track.life.spec_of(*n, incarnation).command, names);
        let stopping = track.life.view().any(|view| view.incarnation == incarnation && view.state == State::Stopping);
        if stopping {
            tracing::debug!(%app, instance = n, %exit, names = names.join(", "), "its leader has gone, others of it end now");
        } else {
            tracing::warn!(%app, instance = n, why, names = names.join(", "), "its leader ended and left others running: they are told to stop");
        }
        self.step(app, Event::Left { n: *n, incarnation, exit, why });
    }

    fn process(&mut self, app: &AppName, incarnation: u64) -> Option<&mut Process> {
        self.tracks.get_mut(app)?.processes.get_mut(&incarnation)
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Command { app, order, tell } => self.command(&app, order, tell),
            // What a reload adds now would be started and never told to stop.
            Message::Recorded { app } => {
                if let Some(track) = self.tracks.get_mut(&app) {
                    track.unrecorded = false;
                }
            }
            Message::Apps(_) if self.stopping.is_some() => {}
            Message::Apps(apps) => self.apply(apps),
            Message::Deploy { app, spec, tell } => self.deploy(&app, spec, tell),
            Message::StopAll { done } => self.begin_stopping(done),
            Message::Export(Show(show)) => {
                // What has been told already is part of the state.
                while let Ok(notice) = self.notices.1.try_recv() {
                    self.notice(notice);
                }
                while let Ok(heard) = self.heard.try_recv() {
                    self.hear(heard);
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
                    if track.unrecorded {
                        // Read before the deploy was written down: it knows of the release before alone.
                        let (now, spec) = (track.life.spec(), Arc::make_mut(&mut spec));
                        spec.dir.clone_from(&now.dir);
                        spec.release.clone_from(&now.release);
                    }
                    if !track.is_at(&mut spec) {
                        tracing::info!(%app, "changed by the configuration");
                        // One that was left alone because nobody was to start it by himself.
                        let comes = spec.autostart && !track.life.spec().autostart && !track.life.is_wanted();
                        self.step(&app, Event::Change(spec));
                        if comes {
                            self.begin(&app);
                        }
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
        let track =
            Track { life, processes: BTreeMap::new(), scaled: None, waiters: Vec::new(), again: None, removed: false, unrecorded: false };
        self.tracks.insert(app.clone(), track);
        self.begin(app);
    }

    /// Starts it, or has it wait for what it needs; one that only a person starts is left alone.
    fn begin(&mut self, app: &AppName) {
        if self.tracks.get(app).is_some_and(|track| !track.life.spec().autostart) {
            tracing::info!(%app, "not started: autostart is off; `gateway start` does it");
            self.changed = true;
            return;
        }
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
                    Effect::Spawn { n, incarnation, beside } => events.extend(self.spawn(app, n, incarnation, beside)),
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
                    self.edge.drain(InstanceId { app: app.clone(), n }, Incarnation(incarnation), within);
                }
            }
        }
        self.settle(app);
    }

    /// After an app came to rest or went.
    fn settle(&mut self, app: &AppName) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        track.waiters.retain(|waiter| !waiter.is_over(&track.life));
        track.end_preludes();
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

    /// `None`: what goes before it runs first.
    fn spawn(&mut self, app: &AppName, n: u16, incarnation: u64, beside: Option<u64>) -> Option<Event> {
        let Some(track) = self.tracks.get_mut(app) else {
            return Some(Event::SpawnFailed { n, incarnation, why: "the app is gone".to_owned() });
        };
        if let Some(why) = beside.and_then(|old| no_room_beside(track.processes.get(&old)?.memory())) {
            return Some(Event::NoRoom { n, incarnation, why });
        }
        let spec = track.life.spec_of(n, incarnation).clone();
        if spec.before_start.commands.is_empty() {
            return Some(self.launch(app, n, incarnation));
        }
        self.prepare(InstanceId { app: app.clone(), n }, incarnation, spec);
        None
    }

    fn launch(&mut self, app: &AppName, n: u16, incarnation: u64) -> Event {
        let Some(track) = self.tracks.get_mut(app) else {
            return Event::SpawnFailed { n, incarnation, why: "the app is gone".to_owned() };
        };
        let id = InstanceId { app: app.clone(), n };
        let spec = track.life.spec_of(n, incarnation).clone();
        let taken = track.processes.values().filter(|process| process.pid.is_some()).filter_map(|process| process.addr.clone()).collect();
        // The address of the process before, where nothing has it any more.
        let is_over = |process: &Process| process.n == n && process.pid.is_none() && process.prelude.is_none();
        let before = track.processes.values_mut().rev().filter(|process| is_over(process)).find_map(|process| process.addr.take());
        let others = track.processes.extract_if(.., |_, process| is_over(process));
        for addr in others.filter_map(|(_, process)| process.addr) {
            self.workshop.release(&addr);
        }
        track.processes.insert(incarnation, Process { n, ..Process::default() });
        match self.workshop.start(&id, incarnation, &spec, &Addresses { before, taken }, &self.notices.0) {
            Ok(Started { pid, addr, tail, notify, root }) => {
                tracing::info!(%app, instance = n, pid = pid.as_raw(), "started");
                tail.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
                if let Some(process) = self.process(app, incarnation) {
                    *process = Process { n, pid: Some(pid), addr, tail: Some(tail), notify, ..Process::default() };
                }
                if root && spec.user.as_deref() != Some("root") && self.as_root.insert(app.clone()) {
                    tracing::warn!(%app, "runs as root: set `user` to one without privileges, or write user = \"root\" if it must");
                }
                Event::Spawned { n, incarnation }
            }
            Err(SpawnError::Taken { why }) => Event::Taken { n, incarnation, why },
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
        self.edge.warm(InstanceId { app: app.clone(), n }, Incarnation(incarnation), spec.deploy.warm.clone(), within);
        Ok(())
    }

    fn signal(&self, app: &AppName, incarnation: u64, n: u16, kill: bool) {
        let Some(track) = self.tracks.get(app) else { return };
        let Some(pid) = track.processes.get(&incarnation).and_then(|process| process.pid) else { return };
        if kill {
            self.nursery.kill_group(pid)
        } else {
            let stop = &track.life.spec_of(n, incarnation).stop;
            self.nursery.stop(pid, stop_signal(stop.signal), stop.timeout)
        }
    }
}

/// Why there is no memory for one more process of this size and a fifth more, if there is not.
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
