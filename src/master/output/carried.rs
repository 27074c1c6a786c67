//! Pipes on their way to the binary that takes over: where each stands, and the last lines of every process.
//!
//! Shape: between [`Output::pause`] and [`Output::resume`] nothing is read: what children write waits in their pipes.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{OwnedFd, RawFd},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use super::{Await, Awaited, Incoming, Kept, Kind, Output, Stream, Tail, lines::Cutter};
use crate::{ipc::message::InstanceId, master::bag::Bag, vocab::lock};

/// Pipes that are not read at present.
pub struct Paused(Vec<Stream>);

/// The same as numbers and text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    streams: Vec<Pipe>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pipe {
    from: RawFd,
    of: Of,
    cutter: Cutter,
    level: u8,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Of {
    App { err: bool, id: InstanceId, pid: u32 },
    EdgeLog,
    Access,
}

impl Paused {
    /// Errors: no descriptor is left for a copy.
    pub fn export(&self, bag: &mut Bag) -> io::Result<Carried> {
        let mut streams = Vec::new();
        for Stream { from, kind, cutter, level } in &self.0 {
            let of = match kind {
                Kind::App { err, id, tail, awaited: _, _open: _ } => Of::App { err: *err, id: id.clone(), pid: tail.pid.load(Relaxed) },
                Kind::EdgeLog => Of::EdgeLog,
                Kind::Access => Of::Access,
            };
            streams.push(Pipe { from: bag.put(from)?, of, cutter: cutter.clone(), level: *level });
        }
        Ok(Carried { streams })
    }
}

/// Pipes of the binary before, until everybody who waits for a line has said so.
#[derive(Default)]
pub struct Adopted {
    streams: Vec<Stream>,
    processes: BTreeMap<u32, (Arc<Tail>, Await)>,
}

impl Adopted {
    /// `claim` makes a descriptor of a number.
    ///
    /// Errors: a number is not open.
    pub fn new(carried: Carried, mut claim: impl FnMut(RawFd) -> io::Result<OwnedFd>) -> io::Result<Self> {
        let mut adopted = Self::default();
        for Pipe { from, of, cutter, level } in carried.streams {
            let kind = match of {
                Of::App { err, id, pid } => {
                    let (tail, awaited) = adopted.process(pid);
                    Kind::App { err, id, tail, awaited, _open: None }
                }
                Of::EdgeLog => Kind::EdgeLog,
                Of::Access => Kind::Access,
            };
            adopted.streams.push(Stream { from: claim(from)?, kind, cutter, level });
        }
        Ok(adopted)
    }

    fn process(&mut self, pid: u32) -> (Arc<Tail>, Await) {
        self.processes.entry(pid).or_insert_with(|| (Tail::of(pid, Vec::new()), Await::default())).clone()
    }

    /// The tail of a process, filled with its last lines; and what it is to be looked through for.
    pub fn tail(&mut self, pid: u32, lines: Vec<String>, awaited: Option<Awaited>) -> Arc<Tail> {
        let (tail, slot) = self.process(pid);
        *lock(&tail.lines) = lines.into();
        *lock(&slot) = awaited;
        tail
    }
}

impl Tail {
    fn of(pid: u32, lines: Vec<String>) -> Arc<Self> {
        Arc::new(Self { kept: Kept::Stderr, lines: Mutex::new(lines.into()), pid: pid.into() })
    }
}

impl Output {
    /// Stops reading and gives every pipe as it stands; `None`: the log files do not keep up, and everything goes on.
    pub async fn pause(&self, within: Duration) -> Option<Paused> {
        let (given, streams) = oneshot::channel();
        let _ = self.streams.send(Incoming::Pause(given));
        Some(Paused(timeout(within, streams).await.ok()?.ok()?))
    }

    /// Reads on.
    pub fn resume(&self, paused: Paused) {
        self.read(paused.0);
    }

    /// Reads the pipes of the binary before.
    pub fn adopt(&self, adopted: Adopted) {
        self.read(adopted.streams);
    }

    fn read(&self, streams: Vec<Stream>) {
        for stream in streams {
            // Refused only when the reader thread is gone, at the very end.
            let _ = self.streams.send(Incoming::Stream(stream));
        }
    }
}
