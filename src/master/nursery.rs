//! The nursery: every child of the master, and who wants to know how it ends.
//!
//! Shape: a child is known from its start until nothing of its group is left; then, once, its owner is told.
//!        Strangers (orphans that the kernel gave us as sub-reaper or PID 1) are reaped silently.

use std::{
    collections::HashMap,
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
use tokio::signal::unix::{SignalKind, signal};

use super::child::{self, Launch, SpawnError};
use crate::rules::restart::Exit;

/// How long the rest of a group may take to vanish after KILL before its owner is told all the same.
const LINGER: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

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
}

struct Guard {
    pid: Pid,
    pipe: File,
}

struct Inner {
    kids: HashMap<Pid, Kid>,
    guard: Option<Guard>,
    strangers: Strangers,
    /// Nobody is reaped: who ends now is found by the binary that takes over.
    paused: bool,
}

/// A cloneable door to the nursery. The lock is held for moments only, never across a wait.
#[derive(Clone)]
pub struct Nursery {
    inner: Arc<Mutex<Inner>>,
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
        let inner = Inner { kids: HashMap::new(), guard: Some(guard), strangers, paused: false };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A child of the binary before is a child of ours: the process is the same.
    pub fn take_over(&self, pid: Pid, tell: impl FnOnce(Exit) + Send + 'static) {
        self.lock().kids.insert(pid, Kid { tell: Box::new(tell), leaving: None });
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
        let pid = child::spawn(launch)?;
        inner.watch(pid.as_raw());
        inner.kids.insert(pid, Kid { tell: Box::new(tell), leaving: None });
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

    pub fn kill_group(&self, pid: Pid) {
        // One that is leaving was killed with its group when it was reaped; its number may be somebody else's by now.
        if self.lock().kids.get(&pid).is_some_and(|kid| kid.leaving.is_none()) {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().kids.is_empty()
    }

    /// KILL to everything; for the very end.
    pub fn kill_all(&self) {
        for (pid, _) in self.lock().kids.iter().filter(|(_, kid)| kid.leaving.is_none()) {
            let _ = killpg(*pid, Signal::SIGKILL);
        }
    }

    /// Reaps for ever.
    pub async fn run(self) -> io::Result<()> {
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
    fn look(&mut self, now: Instant) -> (Vec<(Tell, Exit)>, bool) {
        while let Some(pid) = self.next_ended() {
            if self.kids.contains_key(&pid) {
                // While the leader lies unreaped its number cannot be anybody else's.
                let _ = killpg(pid, Signal::SIGKILL);
            }
            let Some(exit) = child::reap(pid) else { break };
            if let Some(kid) = self.kids.get_mut(&pid) {
                kid.leaving = Some((exit, now + LINGER));
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
            if let Some(Kid { tell, leaving: Some((exit, _)) }) = self.kids.remove(&pid) {
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
