//! The nursery: every child of the master, and who wants to know how it ends.
//!
//! Shape: a child is known from its start until nothing is left of it and of its kin ([`kin`]); then, once, its owner is told. When the leader ends before the
//!        others, they are killed, or an owner who wants to end them in good order hears of them first and says [`Nursery::stop`]: then whoever leads what
//!        remains gets the stop signal, again and again until nobody is left, and KILL is the owner's last word.
//!        One whose memory is capped lives in a cage of the kernel's where we can have one; else it is weighed now and then.
//!        Strangers (orphans that the kernel gave us as sub-reaper or PID 1) are reaped silently.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::{
    cgroup::{Cage, Cgroups},
    child::{self, Launch, MemoryCap, SpawnError},
    guard::Guard,
    kin::{self, Kin, Marks},
    usage,
};
use crate::{
    rules::restart::Exit,
    vocab::{lock, story},
};

mod kid;

pub use kid::Carried;
use kid::{Kid, Memory, Rest, Tell, Verdict, Word};

/// Between two walks over /proc, however many orphans end.
const WALK_APART: Duration = Duration::from_millis(5);
/// Between two looks at what those use that no cage holds.
const WEIGH_EVERY: Duration = Duration::from_secs(2);

/// What to do with children nobody knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strangers {
    Reap,
    /// Where others in the process wait for children of their own.
    Leave,
}

struct Inner {
    kids: HashMap<Pid, Kid>,
    guard: Option<Guard>,
    strangers: Strangers,
    /// Asked for by the first child that is capped. `Some(None)`: they cannot be had.
    cgroups: Option<Option<Cgroups>>,
    /// Cages of children that are gone, in which something still vanishes.
    rest: Vec<Cage>,
    /// Nobody is reaped: who ends now is found by the binary that takes over.
    paused: bool,
    marks: Marks,
    /// The number of the mark that was given last.
    marked: u64,
    walked: Option<Instant>,
}

/// A cloneable door to the nursery. The lock is held for moments only, never across a wait.
#[derive(Clone)]
pub struct Nursery {
    inner: Arc<Mutex<Inner>>,
    /// Somebody is to be weighed.
    weighs: Arc<Notify>,
    /// Somebody is to be looked at sooner.
    look: Arc<Notify>,
}

impl Nursery {
    /// Starts the guard. Call it before any thread is started: the guard is a fork of this process.
    pub fn new(strangers: Strangers) -> io::Result<Self> {
        if strangers == Strangers::Reap {
            prctl::set_child_subreaper(true)?;
        }
        let marks = Marks::own();
        Ok(Self::with(Guard::start(marks)?, strangers, marks))
    }

    /// In the place of the binary before, whose guard goes on: it knows every group already.
    #[must_use]
    pub fn adopt(guard: Pid, pipe: OwnedFd) -> Self {
        // Kept over exec where the binary before asked for it; that it did is not ours to know.
        if let Err(error) = prctl::set_child_subreaper(true) {
            tracing::error!(%error, "orphans of apps will not come to us");
        }
        Self::with(Guard::adopt(guard, pipe), Strangers::Reap, Marks::own())
    }

    fn with(guard: Guard, strangers: Strangers, marks: Marks) -> Self {
        let inner = Inner {
            kids: HashMap::new(),
            guard: Some(guard),
            strangers,
            paused: false,
            cgroups: None,
            rest: Vec::new(),
            marks,
            marked: 0,
            walked: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), weighs: Arc::default(), look: Arc::default() }
    }

    /// A child of the binary before is a child of ours: the process is the same. Those that outlive it are killed.
    pub fn take_over(&self, pid: Pid, tell: impl FnOnce(Exit) + Send + 'static) {
        self.seat(pid, None, Carried::default(), Rest::Kill, Box::new(tell));
    }

    /// As [`Nursery::take_over`], of one that [`Nursery::spawn_family`] started.
    pub fn take_over_family(
        &self,
        pid: Pid,
        memory: Option<MemoryCap>,
        carried: Carried,
        left: impl FnOnce(Exit, Vec<String>) + Send + 'static,
        tell: impl FnOnce(Exit) + Send + 'static,
    ) {
        self.seat(pid, memory, carried, Rest::Owned(Some(Box::new(left))), Box::new(tell));
    }

    fn seat(&self, pid: Pid, memory: Option<MemoryCap>, carried: Carried, rest: Rest, tell: Tell) {
        let mut inner = self.lock();
        // A cage of that name is there already, with the process in it.
        let memory = memory.map_or(Memory::Free, |cap| inner.confine(cap));
        if matches!(memory, Memory::Weighed { .. }) {
            self.weighs.notify_one();
        }
        let mut kid = Kid::new(tell, rest, inner.marks.of(pid), memory);
        kid.import(carried, Instant::now());
        inner.kids.insert(pid, kid);
        self.look.notify_one();
    }

    /// As the binary that takes over needs it; nothing of a child that is not known.
    #[must_use]
    pub fn export(&self, pid: Pid) -> Carried {
        self.lock().kids.get(&pid).map(|kid| kid.export(Instant::now())).unwrap_or_default()
    }

    /// Reaps nobody from now on; false: some group is still vanishing, whose owner has not been told.
    #[must_use]
    pub fn pause(&self) -> bool {
        let mut inner = self.lock();
        inner.paused = true;
        !inner.kids.values().any(Kid::is_vanishing)
    }

    /// Reaps again, those first who ended meanwhile.
    pub fn resume(&self) {
        self.lock().paused = false;
        self.look();
        self.look.notify_one();
    }

    /// The guard, and its pipe for as long as `with` looks at it.
    pub fn guard<T>(&self, with: impl FnOnce(Pid, BorrowedFd<'_>) -> T) -> Option<T> {
        self.lock().guard.as_ref().map(|guard| with(guard.pid, guard.pipe()))
    }

    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.lock().kids.keys().copied().collect()
    }

    /// Starts a child; `tell` is called once, when nothing of it is left. Those that outlive it are killed.
    pub fn spawn(&self, launch: Launch, tell: impl FnOnce(Exit) + Send + 'static) -> Result<Pid, SpawnError> {
        self.start(launch, Rest::Kill, Box::new(tell))
    }

    /// As [`Nursery::spawn`], but those that outlive it are its owner's: `left` is called first where there are some, with the names of those.
    pub fn spawn_family(
        &self,
        launch: Launch,
        left: impl FnOnce(Exit, Vec<String>) + Send + 'static,
        tell: impl FnOnce(Exit) + Send + 'static,
    ) -> Result<Pid, SpawnError> {
        self.start(launch, Rest::Owned(Some(Box::new(left))), Box::new(tell))
    }

    fn start(&self, launch: Launch, rest: Rest, tell: Tell) -> Result<Pid, SpawnError> {
        let mut inner = self.lock();
        let memory = launch.memory.clone().map_or(Memory::Free, |cap| inner.confine(cap));
        let door = match &memory {
            Memory::Caged { cage, .. } => Some(cage.door()),
            Memory::Weighed { .. } | Memory::Free => None,
        };
        let marked = inner.marks.next(inner.marked, |mark| inner.kids.values().any(|kid| kid.mark == Some(mark)));
        let mark = marked.map(|(_, mark)| mark);
        let pid = match child::spawn(launch, door, mark) {
            Ok(pid) => pid,
            Err(error) => {
                inner.let_go(memory);
                return Err(error);
            }
        };
        inner.marked = marked.map_or(inner.marked, |(number, _)| number);
        inner.watch(pid.as_raw());
        if matches!(memory, Memory::Weighed { .. }) {
            self.weighs.notify_one();
        }
        inner.kids.insert(pid, Kid::new(tell, rest, mark, memory));
        Ok(pid)
    }

    /// To the leader. A child that has ended is left alone, so no stranger is ever hit.
    pub fn signal(&self, pid: Pid, signal: Signal) {
        let inner = self.lock();
        if inner.kids.get(&pid).is_some_and(Kid::runs) {
            // Only ESRCH can come of it, and that is an exit we have not looked at yet.
            let _ = kill(pid, signal);
        }
    }

    /// The stop signal to the leader, and to those that lead what remains when it has gone; a wrapper that is still there after a third of `within` is passed by.
    pub fn stop(&self, pid: Pid, signal: Signal, within: Duration) {
        if let Some(kid) = self.lock().kids.get_mut(&pid) {
            kid.stop(pid, signal, within, Instant::now());
        }
        self.look.notify_one();
    }

    /// KILL to it and all its kin.
    pub fn kill_group(&self, pid: Pid) {
        self.lock().kill(&[pid]);
        self.look.notify_one();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().kids.is_empty()
    }

    /// KILL to everything; for the very end.
    pub fn kill_all(&self) {
        let mut inner = self.lock();
        let all: Vec<Pid> = inner.kids.keys().copied().collect();
        inner.kill(&all);
        self.look.notify_one();
    }

    /// Reaps and weighs for ever.
    pub async fn run(self) -> io::Result<()> {
        tokio::select! {
            reaped = self.reap() => reaped,
            () = self.weigh() => Ok(()),
        }
    }

    async fn weigh(&self) {
        loop {
            let caps = self.lock().weighed();
            if caps.is_empty() {
                self.weighs.notified().await;
                continue;
            }
            // The walk over /proc is short; on another thread it delays nobody.
            let over = tokio::task::spawn_blocking(move || usage::over(&caps)).await.unwrap_or_default();
            self.lock().weighed_in(&over, Instant::now());
            tokio::time::sleep(WEIGH_EVERY).await;
        }
    }

    async fn reap(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            let again = self.look().unwrap_or(Duration::MAX);
            tokio::select! {
                _ = ended.recv() => {}
                () = self.look.notified() => {}
                () = tokio::time::sleep(again), if again < Duration::MAX => {}
            }
        }
    }

    /// Reaps what has ended and looks at what it left; says when to look again at the latest.
    fn look(&self) -> Option<Duration> {
        let (told, again) = self.lock().look(Instant::now());
        for tell in told {
            tell();
        }
        again
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// A cage for it, or the word that it is to be weighed.
    fn confine(&mut self, cap: MemoryCap) -> Memory {
        let cgroups = self.cgroups.get_or_insert_with(|| match Cgroups::prepare() {
            Ok(cgroups) => {
                tracing::info!(cgroup = %cgroups.path().display(), "memory_max is kept by cgroups");
                Some(cgroups)
            }
            Err(error) => {
                let every_s = WEIGH_EVERY.as_secs();
                tracing::warn!(every_s, why = story(&error, error.advice()), "memory_max is looked at now and then: cgroups cannot be had");
                None
            }
        });
        match cgroups.as_ref().map(|cgroups| cgroups.cage(&cap.name, cap.max)) {
            Some(Ok(cage)) => Memory::Caged { cage, max: cap.max },
            Some(Err(error)) => {
                tracing::warn!(
                    process = cap.name,
                    why = story(&error, error.advice()),
                    "no cgroup for this one, its memory is looked at now and then"
                );
                Memory::Weighed { cap, kill_at: None }
            }
            None => Memory::Weighed { cap, kill_at: None },
        }
    }

    fn let_go(&mut self, memory: Memory) {
        match memory {
            Memory::Caged { cage, .. } if !cage.remove() => self.rest.push(cage),
            Memory::Caged { .. } | Memory::Weighed { .. } | Memory::Free => {}
        }
    }

    /// Who is to be weighed, and what it may use.
    fn weighed(&self) -> BTreeMap<Pid, u64> {
        let of = |(pid, kid): (&Pid, &Kid)| match &kid.memory {
            Memory::Weighed { cap, .. } if kid.runs() => Some((*pid, cap.max)),
            Memory::Weighed { .. } | Memory::Caged { .. } | Memory::Free => None,
        };
        self.kids.iter().filter_map(of).collect()
    }

    /// Tells those to go that use too much, and ends those who were told and did not, or grow on.
    fn weighed_in(&mut self, over: &BTreeMap<Pid, u64>, now: Instant) {
        let mut late = Vec::new();
        for (pid, kid) in self.kids.iter_mut().filter(|(_, kid)| kid.runs()) {
            let Memory::Weighed { cap, kill_at } = &mut kid.memory else { continue };
            let used = over.get(pid).copied();
            match (*kill_at, used) {
                (None, None) => {}
                (None, Some(used)) => {
                    tracing::warn!(process = cap.name, used, memory_max = cap.max, "uses more memory than it may, told to stop");
                    *kill_at = Some(now + cap.patience);
                    let _ = kill(*pid, cap.signal);
                }
                (Some(at), used) => {
                    if at <= now || used.is_some_and(|used| used > cap.max.saturating_add(cap.max / 2)) {
                        late.push(*pid);
                    }
                }
            }
        }
        self.kill(&late);
    }

    fn kill(&mut self, pids: &[Pid]) {
        let now = Instant::now();
        for pid in pids {
            if let Some(kid) = self.kids.get_mut(pid) {
                kid.kill(*pid, now);
            }
        }
        // Groups are gone already; this is for those that left them.
        for kin in self.families(pids).into_values().flatten() {
            kin.signal(Signal::SIGKILL);
        }
    }

    /// Who runs of the kin of these.
    fn families(&self, pids: &[Pid]) -> BTreeMap<Pid, Vec<Kin>> {
        let leaders: Vec<_> = pids.iter().filter_map(|pid| Some(self.kids.get(pid)?.leader(*pid))).collect();
        if leaders.is_empty() {
            return BTreeMap::new();
        }
        // Where orphans come to us, whoever does not descend from us is nobody's kin.
        let below = (self.strangers == Strangers::Reap).then(Pid::this);
        kin::of(&leaders, self.marks, below)
    }

    fn look(&mut self, now: Instant) -> (Vec<Word>, Option<Duration>) {
        if self.paused {
            return (Vec::new(), None);
        }
        self.rest.retain(|cage| !cage.remove());
        while let Some(pid) = self.next_ended() {
            if let Some(kid) = self.kids.get_mut(&pid) {
                kid.leader_ends(pid, now);
            }
            let Some(exit) = child::reap(pid) else { break };
            if let Some(kid) = self.kids.get_mut(&pid) {
                kid.leader_ended(exit, now);
            } else if self.guard.as_ref().is_some_and(|guard| guard.pid == pid) {
                self.replace_guard();
            }
        }
        let asks: Vec<Pid> = self.kids.iter().filter(|(_, kid)| kid.asks(now)).map(|(pid, _)| *pid).collect();
        if !asks.is_empty() && self.walked.is_some_and(|at| now < at + WALK_APART) {
            return (Vec::new(), Some(WALK_APART));
        }
        let told = self.regard(&asks, now);
        (told, self.kids.values().filter_map(|kid| kid.again(now)).min())
    }

    fn regard(&mut self, asks: &[Pid], now: Instant) -> Vec<Word> {
        let (mut told, mut gone): (Vec<Word>, Vec<Pid>) = (Vec::new(), Vec::new());
        let families = self.families(asks);
        for pid in asks {
            let family = families.get(pid).map(Vec::as_slice).unwrap_or_default();
            let verdict = self.kids.get_mut(pid).map(|kid| kid.regard(*pid, family, now, &mut told));
            if verdict == Some(Verdict::Gone) {
                gone.push(*pid);
            }
        }
        // What forked and went during the walk may have been overlooked once.
        let again = self.families(&gone);
        let vanished = |pid: &Pid| !again.contains_key(pid) || self.kids.get(pid).is_some_and(|kid| kid.killed.is_some());
        for pid in gone.into_iter().filter(vanished).collect::<Vec<_>>() {
            self.watch(-pid.as_raw());
            if let Some(Kid { tell, ended: Some(ended), memory, .. }) = self.kids.remove(&pid) {
                self.let_go(memory);
                told.push(Box::new(move || tell(ended.exit)));
            }
        }
        if !asks.is_empty() {
            self.walked = Some(Instant::now());
        }
        told
    }

    fn next_ended(&self) -> Option<Pid> {
        match self.strangers {
            Strangers::Reap => child::ended(None),
            Strangers::Leave => self.kids.iter().filter(|(_, kid)| kid.runs()).find_map(|(pid, _)| child::ended(Some(*pid))),
        }
    }

    /// Tells the guard: `+` a group to end with us, `-` one that is gone.
    fn watch(&mut self, group: i32) {
        if let Some(guard) = &mut self.guard {
            guard.watch(group);
        }
    }

    fn replace_guard(&mut self) {
        tracing::warn!("guard was killed, starting another");
        self.guard = Guard::start(self.marks).inspect_err(|error| tracing::error!(%error, "guard could not be started")).ok();
        let groups: Vec<i32> = self.kids.keys().map(|pid| pid.as_raw()).collect();
        for group in groups {
            self.watch(group);
        }
    }
}
