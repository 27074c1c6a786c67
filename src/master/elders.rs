//! Edges that have had their time: of a binary before this one, or told to leave. They finish what is in flight beside the one that serves.
//!
//! Shape: serving until [`Elders::retire`], which comes when another edge is ready; then TERM, the drain time of the plan it serves, KILL.
//!        Their words may be of another build (D5): they are read, so that nobody waits in vain for us to read, and thrown away.
//!        Bounded: [`MOST`] at a time; an upgrade beyond that is refused.

use std::{
    io,
    os::fd::{AsFd, OwnedFd, RawFd},
    os::unix::net::UnixStream as StdUnixStream,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{bag::Bag, nursery::Nursery};
use crate::rules::restart::Exit;

/// At a time. Each costs the memory of an edge for as long as its last request takes, at most its drain time.
pub const MOST: usize = 8;
/// Beyond its drain time, until it is killed.
const SLACK: Duration = Duration::from_secs(4);
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// One, as it is handed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    pub pid: i32,
    pub line: RawFd,
    pub drain: Duration,
    /// Until it is killed, where it has been told to leave.
    pub left: Option<Duration>,
}

struct Elder {
    pid: Pid,
    line: OwnedFd,
    drain: Duration,
    /// Set once: when it is killed.
    until: watch::Sender<Option<Instant>>,
}

/// All of them.
pub struct Elders {
    nursery: Nursery,
    list: Vec<Elder>,
    tasks: JoinSet<Pid>,
}

impl Elders {
    #[must_use]
    pub fn new(nursery: Nursery) -> Self {
        Self { nursery, list: Vec::new(), tasks: JoinSet::new() }
    }

    /// `exit` is told when it is gone; `line` is our end of its link; `left` as in [`Carried`].
    ///
    /// Errors: the link is of no use; then it is killed.
    pub fn add(
        &mut self,
        pid: Pid,
        exit: oneshot::Receiver<Exit>,
        line: OwnedFd,
        drain: Duration,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let stream = line.try_clone().and_then(|line| {
            let line = StdUnixStream::from(line);
            line.set_nonblocking(true)?;
            UnixStream::from_std(line)
        });
        let stream = stream.inspect_err(|_| self.nursery.kill_group(pid))?;
        let (until, seen) = watch::channel(left.map(|left| Instant::now() + left));
        self.list.push(Elder { pid, line, drain, until });
        self.tasks.spawn(attend(self.nursery.clone(), pid, stream, exit, seen));
        Ok(())
    }

    /// Another edge serves now: those that still do may leave.
    pub fn retire(&mut self) {
        for Elder { pid, line: _, drain, until } in &self.list {
            if until.borrow().is_none() {
                tracing::info!(pid = pid.as_raw(), within_ms = drain.as_millis(), "edge before this one drains");
                until.send_replace(Some(Instant::now() + *drain + SLACK));
                self.nursery.signal(*pid, Signal::SIGTERM);
            }
        }
    }

    /// The time that one has which leaves by itself.
    #[must_use]
    pub fn patience(drain: Duration) -> Duration {
        drain + SLACK
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Waits for the next to end; at once where there is none.
    ///
    /// Cancel-safety: safe.
    pub async fn gone(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(pid)) => self.list.retain(|elder| elder.pid != pid),
            // A task of ours cannot be cancelled while we hold it; should one have panicked, its edge is looked after by nobody.
            Some(Err(_)) | None => {
                self.list.drain(..).for_each(|elder| self.nursery.kill_group(elder.pid));
            }
        }
    }

    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.list.iter().map(|elder| elder.pid)
    }

    /// Errors: no descriptor is left for a copy.
    pub fn export(&self, bag: &mut Bag) -> io::Result<Vec<Carried>> {
        let now = Instant::now();
        let carry = |Elder { pid, line, drain, until }: &Elder| {
            let left = until.borrow().map(|until| until.saturating_duration_since(now));
            Ok(Carried { pid: pid.as_raw(), line: bag.put(line.as_fd())?, drain: *drain, left })
        };
        self.list.iter().map(carry).collect()
    }
}

/// Until it has ended.
async fn attend(
    nursery: Nursery,
    pid: Pid,
    mut line: UnixStream,
    mut exit: oneshot::Receiver<Exit>,
    mut until: watch::Receiver<Option<Instant>>,
) -> Pid {
    let mut words = [0; 4096];
    let (mut talks, mut told) = (true, true);
    let mut again = None;
    loop {
        let deadline = again.or(*until.borrow_and_update());
        tokio::select! {
            biased;
            exit = &mut exit => {
                let how = exit.map_or_else(|_| String::new(), |exit| exit.to_string());
                tracing::info!(pid = pid.as_raw(), exit = how, "edge before this one has ended");
                return pid;
            }
            changed = until.changed(), if told => told = changed.is_ok(),
            read = line.read(&mut words), if talks => talks = matches!(read, Ok(1..)),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                tracing::warn!(pid = pid.as_raw(), "edge before this one did not end in time, killing it");
                nursery.kill_group(pid);
                again = Some(Instant::now() + KILL_AGAIN);
            }
        }
    }
}
