//! Apps on their way to the binary that takes over: every life as it stands, every process with its last words.
//!
//! Shape: what was waiting stays waiting and what ran runs on; nothing is started, stopped or counted because of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU16,
    os::fd::{OwnedFd, RawFd},
    sync::Arc,
};

use nix::unistd::Pid;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Process, Supervisor, Track, Wiring, track::Arrival};
use crate::{
    ipc::message::InstanceId,
    master::{
        bag::Bag,
        launch, nursery,
        obstacle::{TakeOverError, UpgradeError},
        output::{Awaited, carried::Adopted},
    },
    plan::{App, Ready},
    rules::restart::{Life, State},
    vocab::{AppName, ServerAddr},
};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    lives: u64,
    edge_restarts: u64,
    as_root: BTreeSet<AppName>,
    tracks: BTreeMap<AppName, Carriage>,
    ports: Vec<(u16, InstanceId)>,
}

/// One app.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Carriage {
    /// A [`Life`]; as a value, because another build may have to put its own idea of an app into it.
    life: Value,
    again: Option<Value>,
    /// Asked for by hand, and configured at that time.
    scaled: Option<(NonZeroU16, NonZeroU16)>,
    removed: bool,
    processes: Vec<Passenger>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Passenger {
    n: u16,
    incarnation: u64,
    pid: Option<i32>,
    addr: Option<ServerAddr>,
    notify: Option<RawFd>,
    /// Of its tail, which may outlive the process.
    tail_pid: Option<u32>,
    last_lines: Vec<String>,
    note: Option<String>,
    cpu_ms: u64,
    memory_bytes: u64,
    /// What is known of those that came of it.
    #[serde(default)]
    family: nursery::Carried,
}

/// Where the apps' blocks come from.
#[derive(Clone, Copy, Debug)]
pub enum Specs<'a> {
    /// From the binary before: it describes an app as we do.
    Carried,
    /// From the file, which says what is in force.
    File(&'a BTreeMap<AppName, App>),
}

impl Carried {
    /// Every life, as this build understands it.
    ///
    /// Errors: one is not understood.
    pub fn lives(&self, specs: Specs<'_>) -> Result<BTreeMap<AppName, Life>, TakeOverError> {
        self.tracks.iter().map(|(app, carriage)| Ok((app.clone(), carriage.life(app, specs)?))).collect()
    }

    /// The processes that are alive.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.tracks.values().flat_map(|track| &track.processes).filter_map(|process| process.pid).map(Pid::from_raw)
    }
}

impl Carriage {
    fn life(&self, app: &AppName, specs: Specs<'_>) -> Result<Life, TakeOverError> {
        let misread = |source| TakeOverError::App { app: app.clone(), source };
        let mut life = self.life.clone();
        match specs {
            Specs::Carried => {}
            Specs::File(apps) => {
                let spec = apps.get(app).filter(|_| !self.removed && self.again.is_none());
                let spec = spec.ok_or_else(|| TakeOverError::Leaving { app: app.clone() })?;
                life["spec"] = serde_json::to_value(spec).map_err(misread)?;
            }
        }
        serde_json::from_value(life).map_err(misread)
    }
}

impl Supervisor {
    /// Errors: it is stopping, a deploy is under way, or there is no descriptor left for a copy.
    pub(super) fn export(&self) -> Result<(Carried, Bag), UpgradeError> {
        if self.stopping.is_some() {
            return Err(UpgradeError::Stopping);
        }
        // Whoever writes down how a deploy ends is not handed over.
        if let Some((app, _)) = self.tracks.iter().find(|(_, track)| track.life.is_deploying()) {
            return Err(UpgradeError::Deploying { app: app.clone() });
        }
        // What runs before a start belongs to no process that could be handed over.
        let preludes = self.tracks.values().flat_map(|track| track.processes.values()).filter(|process| process.prelude.is_some()).count();
        if preludes > 0 {
            return Err(UpgradeError::Busy { count: preludes });
        }
        let mut bag = Bag::default();
        let mut tracks = BTreeMap::new();
        for (app, Track { life, processes, scaled, waiters: _, again, removed, unrecorded: _ }) in &self.tracks {
            let mut passengers = Vec::new();
            for (incarnation, Process { n, pid, addr, tail, notify, prelude: _, arrival: _, note, cpu_ms, memory_bytes }) in processes {
                let notify = notify.as_ref().map(|notify| bag.put(&*notify.socket)).transpose().map_err(UpgradeError::Descriptors)?;
                passengers.push(Passenger {
                    n: *n,
                    incarnation: *incarnation,
                    pid: pid.map(Pid::as_raw),
                    addr: addr.clone(),
                    notify,
                    tail_pid: tail.as_ref().map(|tail| tail.pid.load(super::Relaxed)),
                    last_lines: tail.as_ref().map(|tail| tail.lines()).unwrap_or_default(),
                    note: note.clone(),
                    cpu_ms: *cpu_ms,
                    memory_bytes: *memory_bytes,
                    family: pid.map(|pid| self.nursery.export(pid)).unwrap_or_default(),
                });
            }
            let life = serde_json::to_value(life).map_err(UpgradeError::Write)?;
            let again = again.as_deref().map(serde_json::to_value).transpose().map_err(UpgradeError::Write)?;
            tracks.insert(app.clone(), Carriage { life, again, scaled: *scaled, removed: *removed, processes: passengers });
        }
        let carried = Carried {
            lives: self.lives,
            edge_restarts: self.edge_restarts,
            as_root: self.as_root.clone(),
            tracks,
            ports: self.workshop.ports(),
        };
        Ok((carried, bag))
    }

    /// Goes on where the binary before stopped.
    ///
    /// Errors: an app is not understood, or a descriptor did not come along.
    pub fn adopt(
        wiring: Wiring,
        carried: &Carried,
        specs: Specs<'_>,
        output: &mut Adopted,
        mut claim: impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> Result<Self, TakeOverError> {
        let mut supervisor = Self::new(wiring);
        let mut lives = carried.lives(specs)?;
        let Carried { lives: count, edge_restarts, as_root, tracks, ports } = carried;
        supervisor.lives = *count;
        supervisor.edge_restarts = *edge_restarts;
        supervisor.as_root.clone_from(as_root);
        supervisor.workshop.take_ports(ports.clone());
        for (app, carriage) in tracks {
            let Some(life) = lives.remove(app) else { continue };
            let again = carriage.again.clone().map(serde_json::from_value::<App>).transpose();
            let again = again.map_err(|source| TakeOverError::App { app: app.clone(), source })?.map(Arc::new);
            let mut processes = BTreeMap::new();
            for passenger in &carriage.processes {
                let process = supervisor.seat(app, &life, passenger, output, &mut claim).map_err(TakeOverError::Descriptor)?;
                processes.insert(passenger.incarnation, process);
            }
            let track = Track {
                life,
                processes,
                scaled: carriage.scaled,
                waiters: Vec::new(),
                again,
                removed: carriage.removed,
                unrecorded: false,
            };
            supervisor.tracks.insert(app.clone(), track);
        }
        supervisor.changed = true;
        supervisor.publish();
        Ok(supervisor)
    }

    fn seat(
        &mut self,
        app: &AppName,
        life: &Life,
        passenger: &Passenger,
        output: &mut Adopted,
        claim: &mut impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Process> {
        let Passenger { n, incarnation, pid, addr, notify, tail_pid, last_lines, note, cpu_ms, memory_bytes, family } = passenger.clone();
        let id = InstanceId { app: app.clone(), n };
        let starting = life.view().any(|view| view.n == n && view.incarnation == incarnation && view.state == State::Starting);
        let spec = life.spec_of(n, incarnation);
        let awaited = match &spec.ready {
            Ready::Log { pattern, .. } if starting => {
                let pattern = Regex::new(pattern).map_err(io::Error::other)?;
                Some(Awaited { pattern, seen: Box::new(launch::seen(&id, incarnation, &self.notices.0)) })
            }
            Ready::Log { .. } | Ready::Http { .. } | Ready::Tcp { .. } | Ready::Notify { .. } | Ready::Started => None,
        };
        let tail = tail_pid.map(|pid| output.tail(pid, last_lines, awaited));
        let notify = notify.map(claim).transpose()?;
        let pid = pid.map(Pid::from_raw);
        let notify = match pid {
            Some(pid) => self.workshop.take_over(&id, incarnation, spec, (pid, tail.clone(), family), notify, &self.notices.0)?,
            None => None,
        };
        Ok(Process { n, pid, addr, tail, notify, prelude: None, arrival: Arrival::default(), note, cpu_ms, memory_bytes })
    }
}
