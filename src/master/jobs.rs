//! The jobs: apps with a schedule. Event → `rules::job` → effects, performed here.
//!
//! Shape: an actor beside the supervisor, with the same nursery and the same table, of which it writes its own rows. What is kept of a job lies
//!        in STATE/jobs/NAME.json, written in order and off this thread. A full inbox makes others wait; it never waits for others itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use jiff::Timestamp;
use nix::unistd::Pid;
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot, watch,
    },
    task::JoinSet,
    time::Instant,
};

use super::{
    child::{SpawnError, stop_signal},
    clock::Clock,
    launch::{Addresses, Started, Workshop},
    nursery::Nursery,
    obituary::Register,
    output::{Output, Tail},
    places::Places,
    table::Table,
    usage,
    words::{Notice, Order, Word},
};
use crate::{
    ipc::message::{Duty, Incarnation, Instance, InstanceId, InstanceState},
    plan::App,
    rules::{
        job::{Effect, Event, Job, Now, Outcome, Record, Report, Run},
        restart::Exit,
    },
    store::atomic,
    vocab::{AppName, chain, units::duration_text},
};

/// Between two looks at what running jobs use.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The last words of a process may still be in its pipes when it is gone: so long they are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Far above those of the supervisor, so that no process of one is taken for one of the other.
const FIRST_RUN: u64 = 1 << 62;

/// What others ask of the jobs.
#[derive(Debug)]
pub enum Message {
    Command {
        app: AppName,
        order: Order,
        tell: mpsc::Sender<Word>,
    },
    /// The apps of a configuration that is now in force; those with a schedule are ours.
    Apps(BTreeMap<AppName, App>),
    StopAll {
        done: oneshot::Sender<()>,
    },
    KillAll,
}

/// The process of a run.
struct Process {
    run: u64,
    pid: Pid,
    tail: Arc<Tail>,
    cpu_ms: u64,
    memory_bytes: u64,
}

struct Track {
    job: Job,
    process: Option<Process>,
    waiters: Vec<Waiter>,
    /// When the last run ended, or the job came.
    since: Duration,
    removed: bool,
    /// Removed by a reload and added by a later one before its run was over.
    again: Option<Arc<App>>,
}

/// Waits for the end of the run that goes now, or for the one after it.
struct Waiter {
    order: Order,
    tell: mpsc::Sender<Word>,
}

/// What the actor needs from others.
pub struct Wiring {
    pub clock: Clock,
    pub nursery: Nursery,
    pub output: Output,
    pub places: Places,
    pub register: Register,
    pub inbox: mpsc::Receiver<Message>,
    pub table: watch::Sender<Table>,
}

pub struct Jobs {
    clock: Clock,
    nursery: Nursery,
    workshop: Workshop,
    dir: PathBuf,
    tracks: BTreeMap<AppName, Track>,
    lives: u64,
    inbox: mpsc::Receiver<Message>,
    /// Unbounded, because each process tells at most twice.
    notices: (UnboundedSender<Notice>, UnboundedReceiver<Notice>),
    /// Processes that are gone and whose last words are awaited.
    settling: JoinSet<(AppName, u64, Exit, Vec<String>)>,
    /// The newest record of each job that is not on disk yet; `None`: its file is to go.
    unsaved: BTreeMap<AppName, Option<Record>>,
    saving: JoinSet<()>,
    table: watch::Sender<Table>,
    changed: bool,
    stopping: Option<oneshot::Sender<()>>,
    stopped: bool,
}

impl Jobs {
    #[must_use]
    pub fn new(wiring: Wiring) -> Self {
        let Wiring { clock, nursery, output, places, register, inbox, table } = wiring;
        Self {
            clock,
            dir: places.jobs(),
            workshop: Workshop::new(places, nursery.clone(), output, register),
            nursery,
            tracks: BTreeMap::new(),
            lives: 0,
            inbox,
            notices: unbounded_channel(),
            settling: JoinSet::new(),
            unsaved: BTreeMap::new(),
            saving: JoinSet::new(),
            table,
            changed: false,
            stopping: None,
            stopped: false,
        }
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = self.now();
            let due = self.tracks.values().map(|track| track.job.due(now)).min();
            let due = due.map_or_else(|| Instant::now() + Duration::from_secs(86_400), |at| self.clock.instant(at));
            let runs = self.tracks.values().any(|track| track.process.is_some());
            tokio::select! {
                biased;
                Some(notice) = self.notices.1.recv() => self.notice(notice),
                Some(Ok((app, run, exit, lines))) = self.settling.join_next() => self.step(&app, Event::Exited { run, exit, lines }),
                message = self.inbox.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                Some(_) = self.saving.join_next() => {}
                () = tokio::time::sleep_until(due) => self.tick(),
                _ = look.tick(), if runs => self.look(),
            }
            self.save();
            self.publish();
            self.go_on_stopping();
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.now(), wall: Timestamp::now() }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Exited { id, incarnation: run, exit } => {
                let Some(track) = self.tracks.get_mut(&id.app) else { return };
                let Some(process) = track.process.take_if(|process| process.run == run) else { return };
                self.settling.spawn(last_words(id.app, run, exit, process.tail));
            }
            Notice::Left { id, incarnation: run, exit, names } => {
                tracing::warn!(app = %id.app, %exit, names = names.join(", "), "job's leader ended and left others running: they are told to stop");
                self.step(&id.app, Event::Left { run });
            }
            // Started is ready: nothing of a job is waited for, and it has no watchdog.
            Notice::Seen { .. } | Notice::Pinged { .. } | Notice::Prepared { .. } => {}
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Command { app, order, tell } => self.command(&app, order, tell),
            // What a reload adds now would be started and never told to stop.
            Message::Apps(_) if self.stopped => {}
            Message::Apps(apps) => self.apply(apps),
            Message::StopAll { done } => {
                self.stopping = Some(done);
                self.all(&Event::Close);
            }
            Message::KillAll => self.all(&Event::KillNow),
        }
    }

    fn all(&mut self, event: &Event) {
        self.stopped = true;
        for track in self.tracks.values_mut() {
            track.again = None;
        }
        for app in self.names() {
            self.step(&app, event.clone());
        }
    }

    fn names(&self) -> Vec<AppName> {
        self.tracks.keys().cloned().collect()
    }

    /// Told once nothing runs and everything is on disk.
    fn go_on_stopping(&mut self) {
        let busy = self.tracks.values().any(|track| !track.job.is_gone()) || !self.saving.is_empty() || !self.unsaved.is_empty();
        if busy {
            return;
        }
        if let Some(done) = self.stopping.take() {
            let _ = done.send(());
        }
    }

    fn command(&mut self, app: &AppName, order: Order, tell: mpsc::Sender<Word>) {
        let track = self.tracks.get_mut(app).filter(|track| !track.removed);
        let word = match track {
            _ if self.stopped => Some(Word::Failed("gateway is stopping".to_owned())),
            None => Some(Word::Failed(format!("there is no app {:?}", app.as_str()))),
            Some(track) => match (order, track.job.going()) {
                (Order::Scale(_), _) => Some(Word::Failed(format!("{app} is a job: it has one process, when it is due"))),
                (Order::Start, Some((_, since, _))) => {
                    Some(Word::Failed(format!("job {app} runs already, since {}; it never overlaps itself", clock_text(since.wall))))
                }
                (Order::Stop, None) => Some(Word::Done(format!("job {app} does not run"))),
                (Order::Start | Order::Restart, None) | (Order::Stop | Order::Restart, Some(_)) => {
                    track.waiters.push(Waiter { order, tell: tell.clone() });
                    None
                }
            },
        };
        if let Some(word) = word {
            let _ = tell.try_send(word);
            return;
        }
        tracing::info!(%app, ?order, "told by the control socket");
        let event = match order {
            Order::Scale(_) => return,
            Order::Start => Event::Start,
            Order::Stop => Event::Stop,
            Order::Restart => Event::Restart,
        };
        self.step(app, event);
    }

    fn apply(&mut self, apps: BTreeMap<AppName, App>) {
        let jobs: BTreeMap<AppName, Arc<App>> =
            apps.into_iter().filter(|(_, app)| app.schedule.is_some()).map(|(name, app)| (name, Arc::new(app))).collect();
        if self.lives == 0 {
            forget_others(&self.dir, &jobs.keys().map(file_name).collect());
        }
        for app in self.names() {
            if !jobs.contains_key(&app) {
                tracing::info!(%app, "job removed by the configuration");
                if let Some(track) = self.tracks.get_mut(&app) {
                    track.removed = true;
                    track.again = None;
                }
                self.step(&app, Event::Close);
            }
        }
        for (app, spec) in jobs {
            match self.tracks.get_mut(&app) {
                Some(track) if track.removed => track.again = Some(spec),
                Some(track) if **track.job.spec() == *spec => {}
                Some(_) => {
                    tracing::info!(%app, "job changed by the configuration");
                    self.step(&app, Event::Change(spec));
                }
                // Files of a few KB, read at start and at a reload only.
                None => {
                    let record = match self.unsaved.get(&app) {
                        Some(unsaved) => unsaved.clone(),
                        None => read(&self.dir.join(file_name(&app))),
                    };
                    self.add(&app, spec, record);
                }
            }
        }
    }

    fn add(&mut self, app: &AppName, spec: Arc<App>, record: Option<Record>) {
        self.lives += 1;
        let now = self.now();
        let (job, effects) = Job::new(spec, record, FIRST_RUN + (self.lives << 32), now);
        let track = Track { job, process: None, waiters: Vec::new(), since: now.mono, removed: false, again: None };
        self.tracks.insert(app.clone(), track);
        self.perform(app, effects);
        self.step(app, Event::Tick);
    }

    fn tick(&mut self) {
        for app in self.names() {
            let now = self.now();
            if self.tracks.get(&app).is_some_and(|track| track.job.due(now) <= now.mono + Duration::from_millis(1)) {
                self.step(&app, Event::Tick);
            }
        }
    }

    fn step(&mut self, app: &AppName, event: Event) {
        let now = self.now();
        let Some(track) = self.tracks.get_mut(app) else { return };
        let effects = track.job.step(event, now);
        self.perform(app, effects);
        self.settle(app);
    }

    fn perform(&mut self, app: &AppName, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Spawn { run } => self.spawn(app, run),
                Effect::Signal { run } => self.signal(app, run, false),
                Effect::KillGroup { run } => self.signal(app, run, true),
                Effect::Save => {
                    if let Some(track) = self.tracks.get(app) {
                        self.unsaved.insert(app.clone(), Some(track.job.record().clone()));
                    }
                }
                Effect::Publish => self.changed = true,
                Effect::Report(report) => self.report(app, &report),
            }
        }
    }

    /// After a job that was removed has ended.
    fn settle(&mut self, app: &AppName) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        track.waiters.retain(|waiter| !waiter.tell.is_closed());
        if !track.removed || !track.job.is_gone() {
            return;
        }
        let again = track.again.take();
        let record = track.job.record().clone();
        self.tracks.remove(app);
        self.changed = true;
        match again {
            Some(spec) => self.add(app, spec, Some(record)),
            None => {
                self.unsaved.insert(app.clone(), None);
            }
        }
    }

    fn spawn(&mut self, app: &AppName, run: u64) {
        let Some(track) = self.tracks.get_mut(app) else { return };
        let id = InstanceId { app: app.clone(), n: 0 };
        let spec = track.job.spec().clone();
        match self.workshop.start(&id, run, &spec, &Addresses::default(), &self.notices.0) {
            Ok(Started { pid, addr: _, tail, notify, root }) => {
                tracing::info!(%app, pid = pid.as_raw(), "job started");
                tail.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
                if let Some(task) = notify {
                    task.abort();
                }
                if root && spec.user.as_deref() != Some("root") {
                    tracing::warn!(%app, "runs as root: set `user` to one without privileges, or write user = \"root\" if it must");
                }
                track.process = Some(Process { run, pid, tail, cpu_ms: 0, memory_bytes: 0 });
                track.answer(&[Order::Start, Order::Restart], &Word::Done(format!("job {app} runs (pid {pid})")));
            }
            Err(error) => {
                let why = SpawnError::story(&error);
                tracing::error!(%app, error = why, "job could not be started");
                track.answer(&[Order::Start, Order::Restart], &Word::Failed(why.clone()));
                self.step(app, Event::SpawnFailed { run, why });
            }
        }
    }

    fn signal(&self, app: &AppName, run: u64, kill: bool) {
        let Some(track) = self.tracks.get(app) else { return };
        let Some(process) = track.process.as_ref().filter(|process| process.run == run) else { return };
        if kill {
            self.nursery.kill_group(process.pid);
        } else {
            let stop = &track.job.spec().stop;
            self.nursery.stop(process.pid, stop_signal(stop.signal), stop.timeout);
        }
    }

    fn report(&mut self, app: &AppName, report: &Report) {
        let now = self.clock.now();
        let Some(track) = self.tracks.get_mut(app) else { return };
        match report {
            Report::Ended(Run { started_ms: _, ended_ms: _, took_ms, outcome, exit, lines }) => {
                let last_line = lines.last().map_or("", String::as_str);
                match outcome {
                    Outcome::Succeeded => tracing::info!(%app, exit, took_ms, "job done"),
                    Outcome::Stopped => tracing::info!(%app, exit, took_ms, "job was stopped"),
                    Outcome::Failed => tracing::error!(%app, exit, took_ms, last_line, "job failed"),
                }
                track.since = now;
                track.answer(&[Order::Stop], &Word::Done(format!("job {app} ended: {exit}")));
                if track.job.going().is_none() {
                    track.answer(&[Order::Start, Order::Restart], &Word::Failed(format!("job {app} ended and is not run again: {exit}")));
                }
            }
            Report::Skipped { due, started } => {
                tracing::warn!(%app, due = clock_text(*due), "skipped: the run of {} still goes", clock_text(*started));
            }
            Report::Missed { count, more, since } => {
                let more = if *more { "more than " } else { "" };
                let runs = if *count == 1 { "run" } else { "runs" };
                tracing::warn!(%app, "missed {more}{count} {runs} since {}: gateway did not run, or the machine slept, or its clock was put forward", clock_text(*since));
            }
            Report::Lost { started } => {
                tracing::error!(%app, started = clock_text(*started), "gateway ended in the middle of a run of this job");
            }
            Report::TimedOut { after } => tracing::error!(%app, after = duration_text(*after), "job takes too long, told to stop"),
            Report::Stubborn => {
                tracing::warn!(%app, "job did not stop in time, killing its group");
                track.tell(&Word::Progress(format!("job {app} did not stop in time and is killed")));
            }
            Report::ClockPutBack { by } => {
                tracing::warn!(%app, by_s = by.as_secs(), "the clock was put back: the times of this job come again");
            }
            Report::Unreadable { why } => tracing::error!(%app, why, "the schedule of this job cannot be read: it will not run by itself"),
        }
    }

    /// Writes what has changed, all at once and in order: a new write begins when the one before is done.
    fn save(&mut self) {
        if self.unsaved.is_empty() || !self.saving.is_empty() {
            return;
        }
        let (dir, records) = (self.dir.clone(), std::mem::take(&mut self.unsaved));
        self.saving.spawn_blocking(move || {
            for (app, record) in records {
                write(&dir.join(file_name(&app)), &app, record);
            }
        });
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let rows = self.rows();
        let jobs = self.tracks.iter().map(|(app, track)| (app.clone(), track.job.record().clone())).collect();
        self.table.send_modify(|table| {
            table.version += 1;
            table.apps.put_jobs(rows, jobs);
        });
    }

    fn rows(&self) -> Vec<Instance> {
        self.tracks.iter().map(|(app, track)| self.row(app, track)).collect()
    }

    fn row(&self, app: &AppName, track: &Track) -> Instance {
        let Track { job, process, waiters: _, since, removed: _, again: _ } = track;
        let unix = |ms: i64| u64::try_from(ms).unwrap_or(0);
        let last = job.record().last.as_ref();
        let (run, state) = match job.going() {
            Some((run, _, false)) => (run, InstanceState::Ready),
            Some((run, _, true)) => (run, InstanceState::Stopping),
            None if last.is_some_and(|run| run.outcome == Outcome::Failed) => (0, InstanceState::Failed),
            None => (0, InstanceState::Stopped),
        };
        Instance {
            id: InstanceId { app: app.clone(), n: 0 },
            incarnation: Incarnation(run),
            state,
            duty: Duty::Serves,
            release: None,
            since_ms: self.clock.wall(job.going().map_or(*since, |(_, started, _)| started.mono)),
            pid: process.as_ref().map(|process| process.pid.as_raw().cast_unsigned()),
            addr: None,
            restarts: 0,
            last_exit: last.map(|run| (format!("{} after {}", run.exit, took(run.took_ms)), unix(run.ended_ms))),
            last_restart_ms: None,
            due_ms: job.next().map(|next| unix(next.as_millisecond())),
            manual: false,
            note: None,
            cpu_ms: process.as_ref().map_or(0, |process| process.cpu_ms),
            memory_bytes: process.as_ref().map_or(0, |process| process.memory_bytes),
        }
    }

    fn look(&mut self) {
        for process in self.tracks.values_mut().filter_map(|track| track.process.as_mut()) {
            if let Some(usage) = usage::of(process.pid) {
                process.cpu_ms = usage.cpu_ms;
                process.memory_bytes = usage.memory_bytes;
            }
        }
        let rows = self.rows();
        self.table.send_modify(|table| {
            let jobs = std::mem::take(&mut table.apps.jobs);
            table.apps.instances.retain(|row| !jobs.contains_key(&row.id.app));
            table.apps.put_jobs(rows, jobs);
        });
    }
}

impl Track {
    /// The end of what these wait for.
    fn answer(&mut self, orders: &[Order], word: &Word) {
        self.waiters.retain(|waiter| {
            let over = orders.contains(&waiter.order);
            if over {
                let _ = waiter.tell.try_send(word.clone());
            }
            !over
        });
    }

    fn tell(&self, word: &Word) {
        for waiter in self.waiters.iter().filter(|waiter| waiter.tell.capacity() > 1) {
            let _ = waiter.tell.try_send(word.clone());
        }
    }
}

/// A run is over when its pipes are at their end: until then its last line may be missing.
async fn last_words(app: AppName, run: u64, exit: Exit, tail: Arc<Tail>) -> (AppName, u64, Exit, Vec<String>) {
    let until = Instant::now() + LAST_WORDS;
    // Each reader holds the tail; something that escaped the group may hold a pipe for ever.
    while Arc::strong_count(&tail) > 1 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (app, run, exit, tail.lines())
}

fn file_name(app: &AppName) -> String {
    format!("{app}.json")
}

fn read(path: &Path) -> Option<Record> {
    let bytes = fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "what was kept of this job cannot be read: it begins anew");
            None
        }
    }
}

fn write(path: &Path, app: &AppName, record: Option<Record>) {
    let Some(record) = record else {
        // Gone already is as good.
        let _ = fs::remove_file(path);
        return;
    };
    let written = serde_json::to_vec_pretty(&record).map(|bytes| atomic::write(path, &bytes, atomic::PRIVATE));
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%app, error = chain(&error), "what is kept of this job cannot be written"),
        Err(error) => tracing::error!(%app, %error, "what is kept of this job cannot be written"),
    }
}

/// Records of jobs that the configuration does not know.
fn forget_others(dir: &Path, known: &BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let ours = entry.file_name().to_str().is_some_and(|name| name.ends_with(".json") && !known.contains(name));
        if ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A moment for people, in the machine's zone.
fn clock_text(at: Timestamp) -> String {
    let zone = jiff::tz::TimeZone::system();
    at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn took(ms: u64) -> String {
    if ms < 10_000 { format!("{ms}ms") } else { duration_text(Duration::from_secs(ms / 1000)) }
}
