//! The upgrade: what is on disk is asked whether it can go on with the state as it is, and then this process becomes it.
//!
//! Shape: [`Upgrader::prove`] changes nothing and takes as long as it may; [`Upgrader::go`] stands still for some milliseconds and does not come back, or undoes everything.
//!        What children write waits in their pipes meanwhile, what they end with waits to be reaped, what clients ask waits in the accept queues.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    bag::Bag,
    child::{self, Identity, Launch, Limits, SpawnError},
    clock::Clock,
    edge_link,
    handoff::{self, FORMAT, PROOF, PROVEN, State},
    herald,
    nursery::Nursery,
    obstacle::UpgradeError,
    output::{self, Output},
    releases::Ledger,
    score::Score,
    status::Pen,
    supervisor::{self, Message, Show},
    tickets,
};
use crate::{rules::restart::Exit, store::lock::StateLock};

/// The self-check reads the configuration and the state: both are files.
const PROVE_WITHIN: Duration = Duration::from_secs(10);
/// For a killed self-check to be gone, and for the rest of a group that is vanishing.
const CLEAR_WITHIN: Duration = Duration::from_secs(3);
/// For the log files to take what is queued.
const LOGS_WITHIN: Duration = Duration::from_secs(2);
/// For clients that were hung up on to hear it.
const HANG_UP: Duration = Duration::from_millis(50);
/// Of what a self-check says.
const LONGEST: u64 = 64 * 1024;
const SHOWN: usize = 4000;

/// Asks for an upgrade. Answered only if it fails: else the next binary answers `client`.
pub struct Ask {
    pub client: Option<OwnedFd>,
    pub reply: Option<oneshot::Sender<UpgradeError>>,
}

/// Proven: to be done by the run loop, which holds the signals.
pub struct Go {
    pub client: Option<OwnedFd>,
    pub file_in_force: bool,
    /// Reloads wait at the door: they are asked for again on the other side.
    pub reloads: bool,
    pub failed: oneshot::Sender<UpgradeError>,
}

/// Everything that goes along.
pub struct Upgrader {
    /// What is run.
    pub program: PathBuf,
    pub config: PathBuf,
    pub clock: Clock,
    pub nursery: Nursery,
    pub output: Output,
    pub edge: edge_link::Handle,
    pub supervisor: mpsc::Sender<Message>,
    pub score: watch::Receiver<Score>,
    pub tickets: tickets::Keys,
    pub lock: StateLock,
    /// The control socket once more.
    pub control: OwnedFd,
    pub pen: Pen,
    pub ledger: Ledger,
}

/// What has been shown of the rooms.
struct Shown {
    edges: edge_link::Carried,
    apps: supervisor::carried::Carried,
    output: output::carried::Carried,
}

impl Upgrader {
    /// Runs the self-check of the binary on disk, on the configuration and on the state as it is now.
    pub async fn prove(&self, file_in_force: bool) -> Result<(), UpgradeError> {
        let (edges, mut bag) = self.edge.export(None).await?;
        let (tell, told) = oneshot::channel();
        let show = Show(Box::new(move |shown| drop(tell.send(shown))));
        let _ = self.supervisor.send(Message::Export(show)).await;
        let (apps, more) = told.await.unwrap_or(Err(UpgradeError::Stopping))?;
        bag.add(more);
        let shown = Shown { edges, apps, output: output::carried::Carried::default() };
        let state = self.state(shown, None, file_in_force, &mut bag)?;
        self.run(&state).await
    }

    async fn run(&self, state: &State) -> Result<(), UpgradeError> {
        let program = self.program.clone();
        let os = |source: io::Error| UpgradeError::Start {
            program: self.program.clone(),
            source: SpawnError::Prepare { what: "its pipes".to_owned(), source },
        };
        let memory = state.write()?;
        let (out, to_out) = io::pipe().map_err(os)?;
        let (err, to_err) = io::pipe().map_err(os)?;
        let receiver = |fd: io::PipeReader| pipe::Receiver::from_owned_fd(fd.into());
        let (out, err) = (receiver(out).map_err(os)?, receiver(err).map_err(os)?);
        let env: BTreeMap<_, _> =
            std::env::vars_os().filter(|(name, _)| herald::OURS.iter().chain([&handoff::VARIABLE]).all(|ours| name != ours)).collect();
        let launch = || -> Result<Launch, SpawnError> {
            Ok(Launch {
                argv: vec![program.clone().into(), "-c".into(), self.config.clone().into(), "self-check".into()],
                nice: None,
                arg0: None,
                dir: None,
                env,
                identity: Identity::of(None, None)?,
                umask: 0o077,
                limits: Limits::default(),
                memory: None,
                stdout: to_out.into(),
                stderr: to_err.into(),
                descriptors: vec![(
                    child::high(&memory).map_err(|source| SpawnError::Prepare { what: "the state for it".to_owned(), source })?,
                    PROOF,
                )],
            })
        };
        let (tell, exit) = oneshot::channel();
        let tell = move |how| {
            // Given up at the deadline.
            let _ = tell.send(how);
        };
        let spawned = launch().and_then(|launch| self.nursery.spawn(launch, tell));
        let pid = spawned.map_err(|source| UpgradeError::Start { program: program.clone(), source })?;
        let all = async { tokio::join!(text(out), text(err), exit) };
        let Ok((out, err, how)) = timeout(PROVE_WITHIN, all).await else {
            self.clear(pid).await;
            return Err(UpgradeError::Silent { program, within: PROVE_WITHIN });
        };
        let said = if err.trim().is_empty() { &out } else { &err };
        let said: String = said.trim().chars().take(SHOWN).collect();
        let how = how.unwrap_or(Exit::Code(-1));
        match how {
            Exit::Code(0) if out.contains(PROVEN) => Ok(()),
            Exit::Code(_) if out.contains(REFUSED) => Err(UpgradeError::Refused { program, said }),
            Exit::Code(_) | Exit::Signal(_) | Exit::Memory { .. } => Err(UpgradeError::Stranger { program, how: how.to_string(), said }),
        }
    }

    /// Kills a self-check and sees it gone: it must not be among our children when they are handed over.
    async fn clear(&self, pid: Pid) {
        self.nursery.kill_group(pid);
        let end = Instant::now() + CLEAR_WITHIN;
        while self.nursery.pids().contains(&pid) && Instant::now() < end {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn state(&self, shown: Shown, client: Option<&OwnedFd>, file_in_force: bool, bag: &mut Bag) -> Result<State, UpgradeError> {
        let Shown { edges, apps, output } = shown;
        let score = self.score.borrow().clone();
        let guard = self.nursery.guard(|pid, pipe| Ok((pid.as_raw(), bag.put(pipe)?)));
        let guard = guard.ok_or(UpgradeError::NoGuard)?.map_err(UpgradeError::Descriptors)?;
        let mut put = |fd: &dyn std::os::fd::AsFd| bag.put(fd.as_fd()).map_err(UpgradeError::Descriptors);
        let (lock, control) = (put(&self.lock)?, put(&self.control)?);
        let client = client.map(|client| put(client)).transpose()?;
        let state = State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: serde_json::to_value(&*score.plan).map_err(UpgradeError::Write)?,
            file_in_force,
            configured: self.ledger.all_configured(),
            fixed: handoff::Fixed::of(&score.plan),
            generation: score.generation.0,
            reloads: score.reloads,
            clock: self.clock.export().map_err(UpgradeError::Descriptors)?,
            oom_score: child::oom_score(),
            guard,
            lock,
            control,
            client,
            listeners: handoff::listening(&score.sockets, bag).map_err(UpgradeError::Descriptors)?,
            tickets: self.tickets.export(),
            output,
            edges,
            apps,
        };
        let known: BTreeSet<Pid> = state.pids().into_iter().collect();
        let count = self.nursery.pids().iter().filter(|pid| !known.contains(pid)).count();
        if count > 0 { Err(UpgradeError::Busy { count }) } else { Ok(state) }
    }

    /// Becomes the binary that was proven. `hold` holds the signals back and says whether to go on; `release` lets them come again.
    ///
    /// Errors: it comes back only with one, and then everything goes on as before.
    pub async fn go(
        self: &Arc<Self>,
        client: Option<&OwnedFd>,
        file_in_force: bool,
        hold: impl AsyncFnOnce() -> Result<(), UpgradeError>,
        release: impl FnOnce(),
    ) -> UpgradeError {
        let _ = self.supervisor.send(Message::HangUp).await;
        sleep(HANG_UP).await;
        let end = Instant::now() + CLEAR_WITHIN;
        // Groups that are vanishing are seen to their end: their owners are told before anything is shown.
        while !self.nursery.pause() {
            if Instant::now() > end {
                self.nursery.resume();
                return UpgradeError::Leaving;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let Some(paused) = self.output.pause(LOGS_WITHIN).await else {
            self.nursery.resume();
            return UpgradeError::Logs;
        };
        let error = self.freeze(&paused, client, file_in_force, hold).await;
        self.output.resume(paused);
        self.nursery.resume();
        release();
        error
    }

    async fn freeze(
        self: &Arc<Self>,
        paused: &output::carried::Paused,
        client: Option<&OwnedFd>,
        file_in_force: bool,
        hold: impl AsyncFnOnce() -> Result<(), UpgradeError>,
    ) -> UpgradeError {
        let output = self.output.clone();
        match tokio::task::spawn_blocking(move || output.flush(LOGS_WITHIN)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return UpgradeError::Logs,
        }
        let _whole = self.pen.lock().await;
        // Dropped at the end of this function: the edge's actor goes on.
        let (_thaw, frozen) = oneshot::channel();
        let (edges, mut bag) = match self.edge.export(Some(frozen)).await {
            Ok(shown) => shown,
            Err(error) => return error,
        };
        let output = match paused.export(&mut bag) {
            Ok(output) => output,
            Err(error) => return UpgradeError::Descriptors(error),
        };
        let client = match client.map(OwnedFd::try_clone).transpose() {
            Ok(client) => client,
            Err(error) => return UpgradeError::Descriptors(error),
        };
        if let Err(error) = hold().await {
            return error;
        }
        let (tell, failed) = oneshot::channel();
        let upgrader = self.clone();
        // On this very thread, between two events of the supervisor: nothing happens between what it shows and the exec.
        let show = Show(Box::new(move |shown: Result<_, UpgradeError>| {
            let state = shown.and_then(|(apps, more)| {
                bag.add(more);
                upgrader.state(Shown { edges, apps, output }, client.as_ref(), file_in_force, &mut bag)
            });
            let error = match state {
                Ok(state) => handoff::exec(&upgrader.program, &state, bag),
                Err(error) => error,
            };
            // Whoever waits is told what kept us here.
            let _ = tell.send(error);
        }));
        let _ = self.supervisor.send(Message::Export(show)).await;
        failed.await.unwrap_or(UpgradeError::Stopping)
    }
}

/// What a self-check says on standard output when it has understood the question and says no.
pub const REFUSED: &str = "gateway cannot go on";

/// All of it, within bounds. A broken pipe is the end.
async fn text(from: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut from = from.take(LONGEST);
    // What came before an error is what there is.
    let _ = from.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
