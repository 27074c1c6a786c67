//! The nursery: every child of the master, and who wants to know how it ends.
//!
//! Shape: a child is known from its start until nothing of its group is left; then, once, its owner is told.
//!        One whose memory is capped lives in a cage of the kernel's where we can have one; else it is weighed now and then.
//!        Strangers (orphans that the kernel gave us as sub-reaper or PID 1) are reaped silently.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::{
    cgroup::{Cage, Cgroups, Short},
    child::{self, Launch, MemoryCap, SpawnError},
    usage,
};
use crate::{rules::restart::Exit, vocab::story};

/// How long the rest of a group may take to vanish after KILL before its owner is told all the same.
const LINGER: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Between two looks at what those use that no cage holds.
const WEIGH_EVERY: Duration = Duration::from_secs(2);

/// What to do with children nobody knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strangers {
    Reap,
    /// Where others in the process wait for children of their own.
    Leave,
}

type Tell = Box<dyn FnOnce(Exit) + Send>;

struct Kid {
    tell: Tell,
    /// The leader has ended; the rest of its group has until then.
    leaving: Option<(Exit, Instant)>,
    memory: Memory,
}

/// How a child's memory is capped.
enum Memory {
    Free,
    Caged { cage: Cage, max: u64 },
    Weighed { cap: MemoryCap, kill_at: Option<Instant> },
}

impl Memory {
    /// How a leader ended that ended so.
    fn judge(&self, exit: Exit) -> Exit {
        match self {
            Self::Caged { cage, max } => match cage.short() {
                Some(Short::Cage) => Exit::Memory { max: Some(*max) },
                Some(Short::Machine) if exit == Exit::Signal(libc::SIGKILL) => Exit::Memory { max: None },
                Some(Short::Machine) | None => exit,
            },
            Self::Weighed { cap, kill_at: Some(_) } => Exit::Memory { max: Some(cap.max) },
            Self::Weighed { kill_at: None, .. } | Self::Free => exit,
        }
    }

    fn kill(&self) {
        match self {
            Self::Caged { cage, .. } => cage.kill(),
            Self::Weighed { .. } | Self::Free => {}
        }
    }
}

struct Guard {
    pid: Pid,
    pipe: File,
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
}

/// A cloneable door to the nursery. The lock is held for moments only, never across a wait.
#[derive(Clone)]
pub struct Nursery {
    inner: Arc<Mutex<Inner>>,
    /// Somebody is to be weighed.
    weighs: Arc<Notify>,
}

impl Nursery {
    /// Starts the guard. Call it before any thread is started: the guard is a fork of this process.
    pub fn new(strangers: Strangers) -> io::Result<Self> {
        if strangers == Strangers::Reap {
            prctl::set_child_subreaper(true)?;
        }
        Ok(Self::with(Guard::start()?, strangers))
    }

    /// In the place of the binary before, whose guard goes on: it knows every group already.
    #[must_use]
    pub fn adopt(guard: Pid, pipe: OwnedFd) -> Self {
        Self::with(Guard { pid: guard, pipe: File::from(pipe) }, Strangers::Reap)
    }

    fn with(guard: Guard, strangers: Strangers) -> Self {
        let inner = Inner { kids: HashMap::new(), guard: Some(guard), strangers, paused: false, cgroups: None, rest: Vec::new() };
        Self { inner: Arc::new(Mutex::new(inner)), weighs: Arc::default() }
    }

    /// A child of the binary before is a child of ours: the process is the same.
    pub fn take_over(&self, pid: Pid, memory: Option<MemoryCap>, tell: impl FnOnce(Exit) + Send + 'static) {
        let mut inner = self.lock();
        // A cage of that name is there already, with the process in it.
        let memory = memory.map_or(Memory::Free, |cap| inner.confine(cap));
        if matches!(memory, Memory::Weighed { .. }) {
            self.weighs.notify_one();
        }
        inner.kids.insert(pid, Kid { tell: Box::new(tell), leaving: None, memory });
    }

    /// Reaps nobody from now on; false: some group is still vanishing, whose owner has not been told.
    #[must_use]
    pub fn pause(&self) -> bool {
        let mut inner = self.lock();
        inner.paused = true;
        inner.kids.values().all(|kid| kid.leaving.is_none())
    }

    /// Reaps again, those first who ended meanwhile.
    pub fn resume(&self) {
        self.lock().paused = false;
        self.look();
    }

    /// The guard, and its pipe for as long as `with` looks at it.
    pub fn guard<T>(&self, with: impl FnOnce(Pid, BorrowedFd<'_>) -> T) -> Option<T> {
        self.lock().guard.as_ref().map(|guard| with(guard.pid, guard.pipe.as_fd()))
    }

    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.lock().kids.keys().copied().collect()
    }

    /// Starts a child; `tell` is called once, when nothing of its group is left.
    pub fn spawn(&self, launch: Launch, tell: impl FnOnce(Exit) + Send + 'static) -> Result<Pid, SpawnError> {
        let mut inner = self.lock();
        let memory = launch.memory.clone().map_or(Memory::Free, |cap| inner.confine(cap));
        let door = match &memory {
            Memory::Caged { cage, .. } => Some(cage.door()),
            Memory::Weighed { .. } | Memory::Free => None,
        };
        let pid = match child::spawn(launch, door) {
            Ok(pid) => pid,
            Err(error) => {
                inner.let_go(memory);
                return Err(error);
            }
        };
        inner.watch(pid.as_raw());
        if matches!(memory, Memory::Weighed { .. }) {
            self.weighs.notify_one();
        }
        inner.kids.insert(pid, Kid { tell: Box::new(tell), leaving: None, memory });
        Ok(pid)
    }

    /// To the leader. A child that has ended is left alone, so no stranger is ever hit.
    pub fn signal(&self, pid: Pid, signal: Signal) {
        let inner = self.lock();
        if inner.kids.get(&pid).is_some_and(|kid| kid.leaving.is_none()) {
            // Only ESRCH can come of it, and that is an exit we have not looked at yet.
            let _ = kill(pid, signal);
        }
    }

    /// To its whole group.
    pub fn signal_group(&self, pid: Pid, signal: Signal) {
        // One that is leaving was killed with its group when it was reaped; its number may be somebody else's by now.
        if let Some(kid) = self.lock().kids.get(&pid).filter(|kid| kid.leaving.is_none()) {
            let _ = killpg(pid, signal);
            if signal == Signal::SIGKILL {
                kid.memory.kill();
            }
        }
    }

    pub fn kill_group(&self, pid: Pid) {
        self.signal_group(pid, Signal::SIGKILL);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().kids.is_empty()
    }

    /// KILL to everything; for the very end.
    pub fn kill_all(&self) {
        for (pid, kid) in self.lock().kids.iter().filter(|(_, kid)| kid.leaving.is_none()) {
            let _ = killpg(*pid, Signal::SIGKILL);
            kid.memory.kill();
        }
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
            let lingering = self.look();
            if lingering {
                let _ = tokio::time::timeout(LOOK_AGAIN, ended.recv()).await;
            } else {
                ended.recv().await;
            }
        }
    }

    /// Reaps what has ended; says whether some group is still vanishing.
    pub fn look(&self) -> bool {
        let (told, lingering) = self.lock().look(Instant::now());
        for (tell, exit) in told {
            tell(exit);
        }
        lingering
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
            Memory::Weighed { cap, .. } if kid.leaving.is_none() => Some((*pid, cap.max)),
            Memory::Weighed { .. } | Memory::Caged { .. } | Memory::Free => None,
        };
        self.kids.iter().filter_map(of).collect()
    }

    /// Tells those to go that use too much, and ends those who were told and did not, or grow on.
    fn weighed_in(&mut self, over: &BTreeMap<Pid, u64>, now: Instant) {
        for (pid, kid) in self.kids.iter_mut().filter(|(_, kid)| kid.leaving.is_none()) {
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
                        let _ = killpg(*pid, Signal::SIGKILL);
                    }
                }
            }
        }
    }

    fn look(&mut self, now: Instant) -> (Vec<(Tell, Exit)>, bool) {
        self.rest.retain(|cage| !cage.remove());
        while let Some(pid) = self.next_ended() {
            if let Some(kid) = self.kids.get(&pid) {
                // While the leader lies unreaped its number cannot be anybody else's.
                let _ = killpg(pid, Signal::SIGKILL);
                kid.memory.kill();
            }
            let Some(exit) = child::reap(pid) else { break };
            if let Some(kid) = self.kids.get_mut(&pid) {
                kid.leaving = Some((kid.memory.judge(exit), now + LINGER));
            } else if self.guard.as_ref().is_some_and(|guard| guard.pid == pid) {
                self.replace_guard();
            }
        }
        let gone: Vec<Pid> = self
            .kids
            .iter()
            .filter(|(pid, kid)| kid.leaving.is_some_and(|(_, until)| until <= now || !child::group_exists(**pid)))
            .map(|(pid, _)| *pid)
            .collect();
        let mut told = Vec::new();
        for pid in gone {
            self.watch(-pid.as_raw());
            if let Some(Kid { tell, leaving: Some((exit, _)), memory }) = self.kids.remove(&pid) {
                self.let_go(memory);
                told.push((tell, exit));
            }
        }
        (told, self.kids.values().any(|kid| kid.leaving.is_some()))
    }

    fn next_ended(&self) -> Option<Pid> {
        if self.paused {
            return None;
        }
        match self.strangers {
            Strangers::Reap => child::ended(None),
            Strangers::Leave => self.kids.iter().filter(|(_, kid)| kid.leaving.is_none()).find_map(|(pid, _)| child::ended(Some(*pid))),
        }
    }

    /// Tells the guard: `+` a group to end with us, `-` one that is gone.
    fn watch(&mut self, group: i32) {
        if let Some(guard) = &mut self.guard {
            // A full pipe or a dead guard: the death signal still reaches the leaders.
            let _ = guard.pipe.write_all(&group.to_ne_bytes());
        }
    }

    fn replace_guard(&mut self) {
        tracing::warn!("guard was killed, starting another");
        self.guard = Guard::start().inspect_err(|error| tracing::error!(%error, "guard could not be started")).ok();
        let groups: Vec<i32> = self.kids.keys().map(|pid| pid.as_raw()).collect();
        for group in groups {
            self.watch(group);
        }
    }
}

impl Guard {
    fn start() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let pid = child::fork_guard(OwnedFd::from(read))?;
        let pipe = File::from(OwnedFd::from(write));
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        Ok(Self { pid, pipe })
    }
}
