//! A running edge, and how it is started.

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::Pid,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::{
    EdgeLink,
    post::{Parcel, write_all},
    setting::config,
};
use crate::{
    ipc::{
        link::{Link, LinkError, Receiver},
        message::{Build, ToEdge, ToMaster},
    },
    master::{
        child::{self, Identity, Launch, Limits, SpawnError},
        sockets::Sockets,
    },
    rules::restart::Exit,
};

/// From its start until every listener accepts.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// A running edge.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) exit: oneshot::Receiver<Exit>,
    pub(super) parcels: mpsc::Sender<Parcel>,
    pub(super) receiver: Receiver<ToMaster>,
    /// Sends; ends with the link.
    pub(super) writer: JoinSet<Result<(), LinkError>>,
    pub(super) since: Instant,
    pub(super) greeted: bool,
    pub(super) ready: bool,
    /// It is killed if nothing is heard until then.
    pub(super) patience: Instant,
    /// The setting it was started with was the one on trial.
    pub(super) on_trial: bool,
    /// Our end of the link once more, for whoever comes after us.
    pub(super) line: OwnedFd,
    /// It has said that it leaves.
    pub(super) leaving: bool,
    /// How many records of the access log it knows to be lost.
    pub(super) told_lost: u64,
}

impl EdgeLink {
    /// Starts one. Its first message waits in the link already.
    pub(super) fn launch(&mut self) -> Result<Running, SpawnError> {
        let prepare = |what: &str| {
            let what = what.to_owned();
            move |source| SpawnError::Prepare { what, source }
        };
        let (ours, theirs) = Link::<ToEdge, ToMaster>::pair().map_err(prepare("the link to the edge"))?;
        let (access, stderr) = self.output.edge_pipes().map_err(prepare("pipes for the edge's logs"))?;
        let stdout = stderr.try_clone().map_err(prepare("pipes for the edge's logs"))?;
        let descriptors = vec![
            (child::high(&theirs).map_err(prepare("the link to the edge"))?, 3),
            (child::high(&access).map_err(prepare("pipes for the edge's logs"))?, 4),
        ];
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from).map_err(prepare("its limit of open files"))?;
        let launch = Launch {
            argv: self.program.argv.clone(),
            nice: None,
            arg0: Some("gateway".to_owned()),
            dir: None,
            env: self.program.env.clone(),
            identity: Identity::of(None, None)?,
            umask: 0o077,
            limits: Limits::nofile(most, most),
            memory: None,
            stdout,
            stderr,
            descriptors,
        };
        let line = OwnedFd::from(ours.try_clone().map_err(prepare("the link to the edge"))?);
        let link = Link::<ToEdge, ToMaster>::from_std(ours).map_err(prepare("the link to the edge"))?;
        let (told, exit) = oneshot::channel();
        let pid = self.nursery.spawn(launch, move |how| {
            // Whoever waited has given it up.
            let _ = told.send(how);
        })?;
        let (sender, receiver) = link.split();
        // A few hundred messages are minutes of silence from an edge: full, it is given up.
        let (parcels, outgoing) = mpsc::channel(256);
        let mut writer = JoinSet::new();
        let mut tickets = self.tickets.clone();
        let keys = tickets.borrow_and_update().clone();
        writer.spawn(write_all(sender, outgoing, self.table.clone(), tickets));
        let on_trial = self.trial.as_ref().is_some_and(|trial| trial.fresh);
        let setting = if on_trial { self.trial.as_ref().map_or(&self.setting, |trial| &trial.setting) } else { &self.setting };
        let apps = self.table.borrow().apps.clone();
        let (config, descriptors) = config(setting, &Sockets::default());
        let message = ToEdge::Hello {
            build: Build::this(),
            config: Box::new(config),
            apps,
            reloads: setting.reloads,
            started_ms: self.started_ms,
            tickets: keys,
            switches: self.switches.borrow().clone(),
        };
        // Empty as it is, it takes one.
        let _ = parcels.try_send(Parcel { message, descriptors });
        let now = Instant::now();
        self.facts.send_modify(|facts| {
            facts.pid = u32::try_from(pid.as_raw()).ok();
            facts.ready = false;
        });
        let patience = now + READY_WITHIN;
        let (greeted, ready, leaving, told_lost) = (false, false, false, 0);
        Ok(Running { pid, exit, parcels, receiver, writer, since: now, greeted, ready, patience, on_trial, line, leaving, told_lost })
    }
}
