//! The edge as a child: started, given its configuration, watched, and replaced at once when it dies.
//!
//! Shape: Down ─start→ Greeting ─Hello, Ready→ Serving ─death→ Down … ; the sockets stay open all the while, so connections wait and none is refused.
//!        One that leaves, and those of the binary before, drain beside it as [`Elders`]; a drain of an instance is over when no elder may use it either.
//!        A configuration is in force when the edge says so: a refusal, a death or silence leaves the one before.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    child::{self, Identity, Launch, Limits, SpawnError},
    elders::{self, Elders},
    handoff::{Bag, TakeOverError, UpgradeError},
    nursery::Nursery,
    output::Output,
    sockets::Sockets,
    supervisor::{self, Table},
};
use crate::{
    ipc::{
        link::{Link, LinkError, Receiver, Sender},
        message::{Build, Config, Generation, Incarnation, InstanceId, Materials, Query, Switches, TicketKeys, ToEdge, ToMaster},
    },
    plan::Plan,
    rules::restart::Exit,
};

/// From its start until every listener accepts.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// It says that it lives once a second.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
const APPLY_WITHIN: Duration = Duration::from_secs(10);
/// One that served so long may start again at once.
const SETTLED: Duration = Duration::from_secs(10);
/// Before the next start, by how often in a row it died young.
const DELAYS_MS: [u64; 6] = [0, 100, 200, 400, 800, 1000];
/// Of our environment, what an edge may see.
const ENVIRONMENT: [&str; 7] = ["PATH", "LANG", "LC_ALL", "TZ", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// A configuration as an edge gets it, with the sockets that belong to it.
#[derive(Clone, Debug)]
pub struct Setting {
    pub generation: Generation,
    pub plan: Arc<Plan>,
    pub sockets: Arc<Sockets>,
    pub materials: Materials,
    /// Done and refused so far.
    pub reloads: (u64, u64),
}

/// Why a configuration is not in force.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ApplyError {
    #[error("apply the configuration: the edge refuses it: {0}")]
    Refused(String),
    #[error("apply the configuration: the edge did not answer within {} s", APPLY_WITHIN.as_secs())]
    Silent,
    #[error("apply the configuration: the edge died of it")]
    Died,
    #[error("apply the configuration: gateway is stopping")]
    Stopping,
}

/// How the edge stands, for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    pub pid: Option<u32>,
    pub ready: bool,
    pub restarts: u64,
    /// Edges before it that finish what is in flight.
    pub draining: usize,
    pub connections: u64,
    pub in_flight: u64,
}

/// Which program is the edge: itself, but for tests.
#[derive(Clone, Debug)]
pub struct Program {
    pub argv: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
}

impl Program {
    /// This very binary, even if its file was replaced meanwhile.
    #[must_use]
    pub fn this() -> Self {
        let env = ENVIRONMENT.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        Self { argv: vec!["/proc/self/exe".into(), "edge".into()], env: env.collect() }
    }
}

enum Command {
    Apply { setting: Box<Setting>, reply: oneshot::Sender<Result<(), ApplyError>> },
    Ask { query: Query, reply: oneshot::Sender<String> },
    Materials(Materials),
    Drain { id: InstanceId, incarnation: Incarnation, within: Duration },
    Warm { id: InstanceId, incarnation: Incarnation, paths: Vec<String>, within: Duration },
    Refused,
    Shutdown { within: Duration, done: oneshot::Sender<()> },
    Export { reply: oneshot::Sender<Result<(Carried, Bag), UpgradeError>>, thaw: Option<oneshot::Receiver<()>> },
    KillNow,
}

/// The actor's door.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    facts: watch::Receiver<Facts>,
}

impl Handle {
    /// Waits until the configuration is in force, or is not.
    pub async fn apply(&self, setting: Setting) -> Result<(), ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Apply { setting: Box::new(setting), reply }).await;
        answer.await.unwrap_or(Err(ApplyError::Stopping))
    }

    /// A JSON document; `None`: the edge is down or silent.
    pub async fn ask(&self, query: Query, within: Duration) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.tell(Command::Ask { query, reply }).await;
            answer.await.ok()
        };
        tokio::time::timeout(within, asked).await.ok().flatten()
    }

    pub async fn materials(&self, materials: Materials) {
        self.tell(Command::Materials(materials)).await;
    }

    /// Takes an instance out of rotation; false: the edge cannot be told now, so it serves nobody either.
    #[must_use]
    pub fn drain(&self, id: InstanceId, incarnation: Incarnation, within: Duration) -> bool {
        self.commands.try_send(Command::Drain { id, incarnation, within }).is_ok()
    }

    /// Has an instance asked for these paths before it serves; false: the edge cannot be told now.
    #[must_use]
    pub fn warm(&self, id: InstanceId, incarnation: Incarnation, paths: Vec<String>, within: Duration) -> bool {
        self.commands.try_send(Command::Warm { id, incarnation, paths, within }).is_ok()
    }

    /// A reload was refused before the edge saw it.
    pub async fn refused(&self) {
        self.tell(Command::Refused).await;
    }

    /// Waits until it has finished what is in flight and is gone.
    pub async fn shutdown(&self, within: Duration) {
        let (done, gone) = oneshot::channel();
        self.tell(Command::Shutdown { within, done }).await;
        let _ = gone.await;
    }

    /// The edge and those before it, as they stand. With `thaw` nothing is done or heard any more until its sender is dropped.
    pub async fn export(&self, thaw: Option<oneshot::Receiver<()>>) -> Result<(Carried, Bag), UpgradeError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Export { reply, thaw }).await;
        answer.await.unwrap_or(Err(UpgradeError::Stopping))
    }

    pub async fn kill_now(&self) {
        self.tell(Command::KillNow).await;
    }

    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.clone()
    }

    async fn tell(&self, command: Command) {
        // The actor lives as long as the master; at its end nobody needs an answer.
        let _ = self.commands.send(command).await;
    }
}

/// Something to send, with its descriptors.
struct Parcel {
    message: ToEdge,
    descriptors: Vec<Arc<OwnedFd>>,
}

/// A configuration on trial.
struct Trial {
    setting: Setting,
    reply: oneshot::Sender<Result<(), ApplyError>>,
    deadline: Instant,
    /// The edge did not serve when it came: should that one die, the next starts with this.
    fresh: bool,
}

/// A running edge.
struct Running {
    pid: Pid,
    exit: oneshot::Receiver<Exit>,
    parcels: mpsc::Sender<Parcel>,
    receiver: Receiver<ToMaster>,
    /// Sends; ends with the link.
    writer: JoinSet<Result<(), LinkError>>,
    since: Instant,
    greeted: bool,
    ready: bool,
    /// It is killed if nothing is heard until then.
    patience: Instant,
    /// The setting it was started with was the one on trial.
    on_trial: bool,
    /// Our end of the link once more, for whoever comes after us.
    line: OwnedFd,
    /// It has said that it leaves.
    leaving: bool,
}

/// The edges, and what is only known here, on their way to the binary that takes over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// The one that serves comes last.
    edges: Vec<elders::Carried>,
    restarts: u64,
    /// [`Materials`] that the edge had nothing against. A build that has another idea of them reads the files.
    materials: Value,
}

impl Carried {
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.edges.iter().map(|edge| Pid::from_raw(edge.pid)).collect()
    }

    /// `None`: they are to be read anew.
    #[must_use]
    pub fn materials(&self) -> Option<Materials> {
        serde_json::from_value(self.materials.clone()).ok()
    }
}

/// How a life of the edge ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Died,
    /// It leaves in order, and is an elder now.
    Left,
    Stopped,
}

/// The actor.
pub struct EdgeLink {
    program: Program,
    nursery: Nursery,
    output: Output,
    table: watch::Receiver<Table>,
    supervisor: mpsc::Sender<supervisor::Message>,
    started_ms: u64,
    tickets: watch::Receiver<TicketKeys>,
    switches: watch::Receiver<Switches>,
    setting: Setting,
    /// The last that the edge had nothing against: what one that follows is given where newer ones are no good.
    good_materials: Materials,
    commands: mpsc::Receiver<Command>,
    facts: watch::Sender<Facts>,
    trial: Option<Trial>,
    asks: HashMap<u64, oneshot::Sender<String>>,
    next_ask: u64,
    drains: Vec<(InstanceId, Incarnation)>,
    warms: Vec<(InstanceId, Incarnation)>,
    elders: Elders,
    /// Drained by the edge, and perhaps not yet by the elders, who know nothing of it: their requests are waited for.
    held: Vec<(InstanceId, Incarnation)>,
    deaths: usize,
    /// Since a shutdown was asked for: KILL at the moment, and whom to tell.
    stopping: Option<(Instant, Vec<oneshot::Sender<()>>)>,
}

/// What the actor needs from others.
pub struct Wiring {
    pub program: Program,
    pub nursery: Nursery,
    pub output: Output,
    pub table: watch::Receiver<Table>,
    pub supervisor: mpsc::Sender<supervisor::Message>,
    pub started_ms: u64,
    pub tickets: watch::Receiver<TicketKeys>,
    pub switches: watch::Receiver<Switches>,
}

impl EdgeLink {
    #[must_use]
    pub fn new(wiring: Wiring, setting: Setting) -> (Self, Handle) {
        // One command for each draining instance or control connection; full: `drain` says so, the others wait.
        let (send, commands) = mpsc::channel(128);
        let (facts, facts_out) = watch::channel(Facts::default());
        let Wiring { program, nursery, output, table, supervisor, started_ms, tickets, switches } = wiring;
        let link = Self {
            program,
            elders: Elders::new(nursery.clone()),
            held: Vec::new(),
            nursery,
            output,
            table,
            supervisor,
            started_ms,
            tickets,
            switches,
            good_materials: setting.materials.clone(),
            setting,
            commands,
            facts,
            trial: None,
            asks: HashMap::new(),
            next_ask: 0,
            drains: Vec::new(),
            warms: Vec::new(),
            deaths: 0,
            stopping: None,
        };
        (link, Handle { commands: send, facts: facts_out })
    }

    /// The edges of the binary before serve on until the first of ours is ready.
    ///
    /// Errors: a link did not come along.
    pub fn adopt(&mut self, carried: &Carried, mut claim: impl FnMut(RawFd) -> io::Result<OwnedFd>) -> Result<(), TakeOverError> {
        for elders::Carried { pid, line, drain, left } in &carried.edges {
            let pid = Pid::from_raw(*pid);
            let (told, exit) = oneshot::channel();
            self.nursery.take_over(pid, None, move |how| {
                // Whoever waited has given it up.
                let _ = told.send(how);
            });
            let line = claim(*line).map_err(TakeOverError::Descriptor)?;
            self.elders.add(pid, exit, line, *drain, *left).map_err(TakeOverError::Descriptor)?;
        }
        self.facts.send_modify(|facts| (facts.restarts, facts.draining) = (carried.restarts, self.elders.count()));
        Ok(())
    }

    /// Until the handles are gone.
    pub async fn run(mut self) {
        loop {
            let end = match self.launch() {
                Ok(running) => {
                    tracing::info!(pid = running.pid.as_raw(), "edge started");
                    self.live(running).await
                }
                Err(error) => {
                    tracing::error!(error = error.story(), "edge could not be started");
                    self.deaths += 1;
                    End::Died
                }
            };
            self.mourn().await;
            if end == End::Stopped || self.wait_for_next().await == End::Stopped {
                break;
            }
            self.facts.send_modify(|facts| facts.restarts += 1);
            let _ = self.supervisor.send(supervisor::Message::EdgeDied).await;
        }
        self.elders.retire();
        while !self.elders.is_empty() {
            self.elders.gone().await;
        }
        if let Some((_, told)) = self.stopping.take() {
            for done in told {
                let _ = done.send(());
            }
        }
        while let Some(command) = self.commands.recv().await {
            self.answer_without_edge(command).await;
        }
    }

    /// Starts one. Its first message waits in the link already.
    fn launch(&mut self) -> Result<Running, SpawnError> {
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
        let (greeted, ready, leaving) = (false, false, false);
        Ok(Running { pid, exit, parcels, receiver, writer, since: now, greeted, ready, patience, on_trial, line, leaving })
    }

    /// Until it is gone.
    async fn live(&mut self, mut edge: Running) -> End {
        let mut open = true;
        loop {
            let deadline = self.deadline(&edge);
            tokio::select! {
                biased;
                exit = &mut edge.exit => return self.ended(&edge, exit.ok()),
                message = edge.receiver.receive(), if open => match message {
                    Ok(Some((message, _))) => {
                        open = self.hear(&mut edge, message).await;
                        if edge.leaving && self.stopping.is_none() {
                            return self.part(edge);
                        }
                    }
                    Ok(None) => {
                        // It closes the link when it ends; one that only closes the link is of no use.
                        open = false;
                        edge.patience = Instant::now() + Duration::from_secs(1);
                    }
                    Err(error) => {
                        tracing::error!(error = story(&error), "edge speaks wrongly, killing it");
                        open = false;
                        self.nursery.kill_group(edge.pid);
                    }
                },
                Some(sent) = edge.writer.join_next() => {
                    if let Ok(Err(error)) = sent {
                        tracing::debug!(error = story(&error), "edge cannot be spoken to");
                    }
                    edge.patience = edge.patience.min(Instant::now() + Duration::from_secs(1));
                }
                () = self.elders.gone(), if !self.elders.is_empty() => self.elder_gone().await,
                command = self.commands.recv() => match command {
                    Some(Command::Export { reply, thaw }) => self.show(&edge, reply, thaw).await,
                    Some(command) => self.obey(&edge, command),
                    None => {
                        self.nursery.kill_group(edge.pid);
                        let _ = edge.exit.await;
                        return End::Stopped;
                    }
                },
                () = tokio::time::sleep_until(deadline) => self.late(&mut edge),
            }
        }
    }

    async fn elder_gone(&mut self) {
        self.facts.send_modify(|facts| facts.draining = self.elders.count());
        if self.elders.is_empty() {
            for (id, incarnation) in std::mem::take(&mut self.held) {
                let _ = self.supervisor.send(supervisor::Message::Drained { id, incarnation }).await;
            }
        }
    }

    /// While an elder is about, what the edge has drained may be in use there: then the instance's own deadline decides, or the elder's end.
    async fn drained(&mut self, id: InstanceId, incarnation: Incarnation) {
        if self.elders.is_empty() {
            let _ = self.supervisor.send(supervisor::Message::Drained { id, incarnation }).await;
        } else {
            self.held.push((id, incarnation));
        }
    }

    /// Told from outside to leave: it drains as one that an upgrade left behind, and the next is started at once.
    fn part(&mut self, edge: Running) -> End {
        let Running { pid, exit, line, .. } = edge;
        tracing::warn!(pid = pid.as_raw(), "edge was told to leave, starting another");
        let drain = self.setting.plan.timeouts.drain;
        if let Err(error) = self.elders.add(pid, exit, line, drain, Some(Elders::patience(drain))) {
            tracing::error!(%error, "edge that leaves was killed");
        }
        if let Some(Trial { reply, .. }) = self.trial.take() {
            self.setting.reloads.1 += 1;
            let _ = reply.send(Err(ApplyError::Died));
        }
        let draining = self.elders.count();
        self.facts.send_modify(|facts| *facts = Facts { pid: None, ready: false, connections: 0, in_flight: 0, draining, ..*facts });
        End::Left
    }

    async fn show(
        &self,
        edge: &Running,
        reply: oneshot::Sender<Result<(Carried, Bag), UpgradeError>>,
        thaw: Option<oneshot::Receiver<()>>,
    ) {
        let shown = self.export(edge);
        let good = shown.is_ok();
        // Whoever asked may have given up; then there is nothing to wait for.
        let heard = reply.send(shown).is_ok();
        if let Some(thaw) = thaw.filter(|_| good && heard) {
            let _ = thaw.await;
        }
    }

    fn export(&self, edge: &Running) -> Result<(Carried, Bag), UpgradeError> {
        if self.stopping.is_some() {
            return Err(UpgradeError::Stopping);
        }
        if !edge.ready || edge.leaving {
            return Err(UpgradeError::EdgeDown);
        }
        if self.elders.count() >= elders::MOST {
            return Err(UpgradeError::Elders { count: self.elders.count() });
        }
        let mut bag = Bag::default();
        let mut edges = self.elders.export(&mut bag).map_err(UpgradeError::Descriptors)?;
        let line = bag.put(&edge.line).map_err(UpgradeError::Descriptors)?;
        edges.push(elders::Carried { pid: edge.pid.as_raw(), line, drain: self.setting.plan.timeouts.drain, left: None });
        let materials = serde_json::to_value(&self.good_materials).map_err(UpgradeError::Write)?;
        Ok((Carried { edges, restarts: self.facts.borrow().restarts, materials }, bag))
    }

    fn deadline(&self, edge: &Running) -> Instant {
        let stop = self.stopping.as_ref().map(|(at, _)| *at);
        let trial = self.trial.as_ref().map(|trial| trial.deadline);
        // While it drains it may be busy with that alone: its own deadline counts.
        stop.unwrap_or_else(|| trial.map_or(edge.patience, |at| at.min(edge.patience)))
    }

    fn late(&mut self, edge: &mut Running) {
        let now = Instant::now();
        if self.stopping.is_some() {
            tracing::warn!("edge did not end in time, killing it");
        } else if edge.patience <= now {
            let what = if edge.ready { "edge is silent, killing it" } else { "edge was not ready in time, killing it" };
            tracing::error!(pid = edge.pid.as_raw(), "{what}");
        } else {
            // Whether it will still apply what it was sent nobody knows: only a new one is certain.
            tracing::error!(pid = edge.pid.as_raw(), "edge does not answer to a configuration, killing it");
        }
        if let Some(Trial { reply, .. }) = self.trial.take_if(|trial| trial.deadline <= now) {
            self.setting.reloads.1 += 1;
            let _ = reply.send(Err(ApplyError::Silent));
        }
        self.nursery.kill_group(edge.pid);
        edge.patience = now + Duration::from_secs(5);
        if let Some((at, _)) = &mut self.stopping {
            *at = now + Duration::from_secs(5);
        }
    }

    fn ended(&mut self, edge: &Running, exit: Option<Exit>) -> End {
        let how = exit.map_or_else(String::new, |exit| exit.to_string());
        self.facts.send_modify(|facts| *facts = Facts { pid: None, ready: false, connections: 0, in_flight: 0, ..*facts });
        if self.stopping.is_some() {
            tracing::info!(exit = how, "edge stopped");
            return End::Stopped;
        }
        let lived = edge.since.elapsed();
        self.deaths = if edge.ready && lived >= SETTLED { 0 } else { self.deaths + 1 };
        tracing::error!(exit = how, lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX), "edge died, starting another");
        // One that came while no edge served gets its own start; one that killed a serving edge, or has had its start, is refused.
        if let Some(trial) = self.trial.take() {
            if trial.fresh && !edge.on_trial {
                self.trial = Some(trial);
            } else {
                self.setting.reloads.1 += 1;
                let _ = trial.reply.send(Err(ApplyError::Died));
            }
        }
        End::Died
    }

    /// Whoever waited for the edge waits no longer.
    async fn mourn(&mut self) {
        self.asks.clear();
        for (id, incarnation) in std::mem::take(&mut self.drains) {
            self.drained(id, incarnation).await;
        }
        for (id, incarnation) in std::mem::take(&mut self.warms) {
            self.not_warmed(id, incarnation).await;
        }
    }

    /// The pause before the next start; commands are answered meanwhile.
    async fn wait_for_next(&mut self) -> End {
        let delay = DELAYS_MS[self.deaths.saturating_sub(1).min(DELAYS_MS.len() - 1)];
        let due = Instant::now() + Duration::from_millis(delay);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return End::Died,
                command = self.commands.recv() => match command {
                    Some(Command::Apply { setting, reply }) => {
                        self.put_on_trial(*setting, reply, true);
                        return End::Died;
                    }
                    Some(Command::Shutdown { done, .. }) => {
                        // Told when those before it are gone too.
                        self.stopping.get_or_insert_with(|| (Instant::now(), Vec::new())).1.push(done);
                        return End::Stopped;
                    }
                    Some(Command::KillNow) => return End::Stopped,
                    Some(command) => self.answer_without_edge(command).await,
                    None => return End::Stopped,
                },
            }
        }
    }

    async fn answer_without_edge(&mut self, command: Command) {
        match command {
            Command::Apply { reply, .. } => {
                let _ = reply.send(Err(ApplyError::Stopping));
            }
            // Dropped: who asks learns that nobody is there.
            Command::Ask { .. } | Command::KillNow => {}
            Command::Materials(materials) => self.setting.materials = materials,
            Command::Drain { id, incarnation, .. } => self.drained(id, incarnation).await,
            Command::Export { reply, .. } => {
                let _ = reply.send(Err(if self.stopping.is_some() { UpgradeError::Stopping } else { UpgradeError::EdgeDown }));
            }
            Command::Warm { id, incarnation, .. } => self.not_warmed(id, incarnation).await,
            Command::Refused => self.setting.reloads.1 += 1,
            Command::Shutdown { done, .. } => {
                let _ = done.send(());
            }
        }
    }

    async fn not_warmed(&self, id: InstanceId, incarnation: Incarnation) {
        let result = Err("the edge ended before it had asked".to_owned());
        let _ = self.supervisor.send(supervisor::Message::Warmed { id, incarnation, result }).await;
    }

    fn put_on_trial(&mut self, setting: Setting, reply: oneshot::Sender<Result<(), ApplyError>>, fresh: bool) {
        let deadline = Instant::now() + APPLY_WITHIN;
        if let Some(earlier) = self.trial.replace(Trial { setting, reply, deadline, fresh }) {
            let _ = earlier.reply.send(Err(ApplyError::Silent));
        }
    }

    fn obey(&mut self, edge: &Running, command: Command) {
        let send = |message, descriptors| {
            if edge.parcels.try_send(Parcel { message, descriptors }).is_err() {
                tracing::error!("edge does not take its messages, killing it");
                self.nursery.kill_group(edge.pid);
            }
        };
        match command {
            Command::Apply { setting, reply } => {
                if edge.ready {
                    let (config, descriptors) = config(&setting, &self.setting.sockets);
                    send(ToEdge::Apply(Box::new(config)), descriptors);
                } else {
                    // The one that is starting may be the one that cannot: the next gets the new configuration.
                    self.nursery.kill_group(edge.pid);
                }
                self.put_on_trial(*setting, reply, !edge.ready);
            }
            Command::Ask { query, reply } => {
                self.asks.retain(|_, reply| !reply.is_closed());
                self.next_ask += 1;
                self.asks.insert(self.next_ask, reply);
                send(ToEdge::Ask { ask: self.next_ask, query }, Vec::new());
            }
            Command::Materials(materials) => {
                self.setting.materials.clone_from(&materials);
                send(ToEdge::Materials(materials), Vec::new());
            }
            Command::Drain { id, incarnation, within } => {
                self.drains.push((id.clone(), incarnation));
                send(ToEdge::Drain { id, incarnation, within }, Vec::new());
            }
            Command::Warm { id, incarnation, paths, within } => {
                self.warms.push((id.clone(), incarnation));
                send(ToEdge::Warm { id, incarnation, paths, within }, Vec::new());
            }
            Command::Refused => {
                self.setting.reloads.1 += 1;
                send(ToEdge::ReloadRefused, Vec::new());
            }
            Command::Shutdown { within, done } => {
                send(ToEdge::Shutdown { within }, Vec::new());
                let at = Instant::now() + within + Duration::from_secs(1);
                self.stopping.get_or_insert_with(|| (at, Vec::new())).1.push(done);
            }
            // The loop answers it, which may wait.
            Command::Export { reply, .. } => drop(reply),
            Command::KillNow => {
                self.stopping.get_or_insert_with(|| (Instant::now() + Duration::from_secs(1), Vec::new()));
                self.nursery.kill_group(edge.pid);
            }
        }
    }

    /// False: it must not be listened to any more.
    async fn hear(&mut self, edge: &mut Running, message: ToMaster) -> bool {
        if !edge.greeted {
            if message == (ToMaster::Hello { build: Build::this() }) {
                edge.greeted = true;
                return true;
            }
            tracing::error!("edge is of another build, killing it");
            self.nursery.kill_group(edge.pid);
            return false;
        }
        edge.patience = if edge.ready { Instant::now() + ALIVE_WITHIN } else { edge.patience };
        match message {
            ToMaster::Hello { .. } => {}
            ToMaster::Ready { generation } => {
                edge.ready = true;
                edge.patience = Instant::now() + ALIVE_WITHIN;
                let took_ms = u64::try_from(edge.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(pid = edge.pid.as_raw(), generation = generation.0, took_ms, "edge is ready");
                self.facts.send_modify(|facts| facts.ready = true);
                self.elders.retire();
                if edge.on_trial {
                    self.commit();
                }
            }
            ToMaster::Applied { generation } => {
                if self.trial.as_ref().is_some_and(|trial| trial.setting.generation == generation) {
                    self.commit();
                }
            }
            ToMaster::Refused { generation, reason } => {
                if let Some(trial) = self.trial.take_if(|trial| trial.setting.generation == generation) {
                    self.setting.reloads.1 += 1;
                    let _ = trial.reply.send(Err(ApplyError::Refused(reason)));
                } else if !edge.ready {
                    tracing::error!(reason, "edge refuses the configuration it was started with");
                }
            }
            ToMaster::Health { id, incarnation, health } => {
                let _ = self.supervisor.send(supervisor::Message::Health { id, incarnation, health }).await;
            }
            ToMaster::Drained { id, incarnation, in_flight } => {
                if in_flight > 0 {
                    tracing::warn!(app = %id.app, instance = id.n, in_flight, "requests were cut at the end of the drain");
                }
                self.drains.retain(|drain| *drain != (id.clone(), incarnation));
                self.drained(id, incarnation).await;
            }
            ToMaster::Warmed { id, incarnation, result } => {
                self.warms.retain(|warm| *warm != (id.clone(), incarnation));
                let _ = self.supervisor.send(supervisor::Message::Warmed { id, incarnation, result }).await;
            }
            ToMaster::Tallies(tallies) => {
                let _ = self.supervisor.send(supervisor::Message::Tallies(tallies)).await;
            }
            ToMaster::PassedOver { files } => {
                self.setting.materials.put_back(&files, &self.good_materials);
                self.good_materials.clone_from(&self.setting.materials);
            }
            ToMaster::Answer { ask, json } => {
                if let Some(reply) = self.asks.remove(&ask) {
                    let _ = reply.send(json);
                }
            }
            ToMaster::Leaving => edge.leaving = true,
            ToMaster::Alive { connections, in_flight } => self.facts.send_modify(|facts| {
                facts.connections = connections;
                facts.in_flight = in_flight;
            }),
        }
        true
    }

    fn commit(&mut self) {
        if let Some(Trial { setting, reply, .. }) = self.trial.take() {
            self.good_materials.clone_from(&setting.materials);
            self.setting = setting;
            let _ = reply.send(Ok(()));
        }
    }
}

/// The message and the descriptors that an edge with the listeners of `has` needs.
fn config(setting: &Setting, has: &Sockets) -> (Config, Vec<Arc<OwnedFd>>) {
    let (listeners, descriptors) = setting.sockets.parcel(has);
    let plan = Plan::clone(&setting.plan);
    (Config { generation: setting.generation, plan, listeners, materials: setting.materials.clone() }, descriptors)
}

/// Sends what comes, and the table of apps and the ticket keys whenever they changed; before a drain the table that shows it.
async fn write_all(
    mut to_edge: Sender<ToEdge>,
    mut parcels: mpsc::Receiver<Parcel>,
    mut table: watch::Receiver<Table>,
    mut tickets: watch::Receiver<TicketKeys>,
) -> Result<(), LinkError> {
    loop {
        tokio::select! {
            biased;
            parcel = parcels.recv() => {
                let Some(Parcel { message, descriptors }) = parcel else { return Ok(()) };
                if matches!(message, ToEdge::Drain { .. }) && table.has_changed().unwrap_or(false) {
                    let apps = table.borrow_and_update().apps.clone();
                    to_edge.send(&ToEdge::Apps(apps), &[]).await?;
                }
                let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
                to_edge.send(&message, &borrowed).await?;
            }
            changed = table.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let apps = table.borrow_and_update().apps.clone();
                to_edge.send(&ToEdge::Apps(apps), &[]).await?;
            }
            changed = tickets.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let keys = tickets.borrow_and_update().clone();
                to_edge.send(&ToEdge::Tickets(keys), &[]).await?;
            }
        }
    }
}

fn story(error: &LinkError) -> String {
    let mut text = format!("could not {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
