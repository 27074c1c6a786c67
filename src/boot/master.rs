//! The master put together: what `gateway -c FILE` is, from the first line of the configuration to the exit code.

use std::{error::Error as StdError, fs, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    config::{complaint::Complaints, load},
    ipc::{
        control::{Answer, Failure},
        message::{Generation, Role},
    },
    master::{
        child,
        clock::Clock,
        control::{self, ControlError},
        deploy::{self, Deployer},
        edge_link::{self, EdgeLink, Program, Setting},
        handle::Handle,
        handoff::{self, TakeOverError, UpgradeError},
        herald::Herald,
        jobs::{self, Jobs},
        materials,
        nursery::{Nursery, Strangers},
        obituary::Register,
        output::{Files, Output},
        places::{PlaceError, Places},
        releases::{Ledger, Moment, Overlay},
        reload::{self, Conductor, InForce, Load, Score},
        sockets::{BindError, Sockets},
        status,
        supervisor::{self, Message, Supervisor, Table},
        switches::Switchboard,
        tickets,
        upgrade::{self, Go, Upgrader},
    },
    plan::{Plan, access},
    store::{
        atomic,
        lock::{LockError, StateLock},
        releases::Releases,
    },
    telemetry::log::{self, InstallError},
};

mod signals;
mod takeover;

#[cfg(test)]
mod tests;

use signals::{Held, Signals, Stop};
use takeover::TakeOver;
pub use takeover::{Refusal, self_check};
pub use upgrade::REFUSED;

/// After everything has been told to stop: until what is left is killed.
const MARGIN: Duration = Duration::from_secs(2);

/// Why the master did not start, or does not go on.
#[derive(Debug, Error)]
pub enum Fatal {
    #[error("{0}")]
    Configuration(Complaints),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Log(#[from] InstallError),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error("{what}")]
    Os {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("go on: a part of the master ended")]
    Broken,
}

impl Fatal {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Lock(error) => error.advice(),
            Self::Place(error) => error.advice(),
            Self::Bind(error) => error.advice(),
            Self::Control(error) => error.advice(),
            Self::TakeOver(error) => error.advice(),
            Self::Configuration(_) | Self::Log(_) | Self::Os { .. } | Self::Broken => None,
        }
    }

    /// 78 a bad configuration, 77 no permission, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Configuration(_) => 78,
            Self::Bind(BindError::Denied { .. }) => 77,
            Self::Place(PlaceError::Make { source, .. }) | Self::Control(ControlError::Open { source, .. }) | Self::Os { source, .. }
                if denied(source) =>
            {
                77
            }
            Self::Lock(_)
            | Self::Place(_)
            | Self::Bind(_)
            | Self::Control(_)
            | Self::Log(_)
            | Self::TakeOver(_)
            | Self::Os { .. }
            | Self::Broken => 1,
        }
    }

    /// What to print: the configuration's complaints as they are, anything else in one sentence with its causes.
    #[must_use]
    pub fn story(&self) -> String {
        if let Self::Configuration(complaints) = self {
            return complaints.to_string();
        }
        let mut text = format!("could not {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        if let Some(advice) = self.advice() {
            text.push_str(&format!("\n  {advice}"));
        }
        text
    }
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> Fatal {
    move |source| Fatal::Os { what, source }
}

/// Runs until TERM or INT. Returns when everything has stopped.
pub fn run(config: &Path) -> Result<(), Fatal> {
    run_with(config, Program::this())
}

fn run_with(config: &Path, program: Program) -> Result<(), Fatal> {
    let path = config.to_owned();
    let env = |name: &str| std::env::var(name).ok();
    let upgrades_to = handoff::program();
    let before = handoff::inherited()?;
    let _low = child::reserve_low_descriptors().map_err(os("open /dev/null"))?;
    let Begun { plan, ledger, overlay, places, nursery, lock, sockets, listener, output, clock, carried } = match before {
        Some(state) => takeover::begin(state, &path)?,
        None => begin(&path)?,
    };
    let log = log::install_master(plan.log.level, plan.log.format, output.own_log())?;
    warn(&plan);
    let parts = Parts {
        load: Arc::new({
            let path = path.clone();
            move || load::load_running(&path, &env).map_err(|complaints| Box::new(complaints) as Box<dyn StdError + Send + Sync>)
        }),
        in_force: Box::new(move |plan| {
            log.set(plan.log.level, plan.log.format);
            warn(plan);
        }),
        config: path,
        upgrades_to,
        plan,
        ledger,
        overlay,
        places,
        nursery,
        lock,
        sockets,
        listener,
        output,
        clock,
        carried,
        program,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(os("start the runtime"))?;
    runtime.block_on(conduct(parts))
}

/// Of what is allowed, and yet hardly meant.
fn warn(plan: &Plan) {
    for site in access::in_the_clear(plan) {
        tracing::warn!(
            site = site.name,
            "passwords cross the network in the clear: give the site a certificate, or listen on loopback alone"
        );
    }
}

/// The first start: nothing is there yet.
fn begin(path: &Path) -> Result<Begun, Fatal> {
    child::lower_oom_score();
    // The guard is a fork: before any thread, and while there is little to copy.
    let nursery = Nursery::new(Strangers::Reap).map_err(os("start the guard"))?;
    let mut plan = load::load(path, &|name| std::env::var(name).ok()).map_err(Fatal::Configuration)?;
    let lock = StateLock::take(&plan.state)?;
    let ledger = Ledger::new(Releases::of(&plan.state));
    let overlay = ledger.overlay(&mut plan.apps, Moment::Start);
    let places = Places::prepare(&plan)?;
    let sockets = Sockets::bind(&plan, &Sockets::default())?;
    let listener = control::open(&places.control())?;
    let output = Output::start(&Files::of(&plan)).map_err(os("start the log threads"))?;
    Ok(Begun { plan, ledger, overlay, places, nursery, lock, sockets, listener, output, clock: Clock::start(), carried: None })
}

/// What stands before the runtime does, new or taken over.
struct Begun {
    plan: Plan,
    ledger: Ledger,
    overlay: Overlay,
    places: Places,
    nursery: Nursery,
    lock: StateLock,
    sockets: Sockets,
    listener: std::os::unix::net::UnixListener,
    output: Output,
    clock: Clock,
    carried: Option<TakeOver>,
}

/// What the run loop is made of.
struct Parts {
    load: Load,
    in_force: InForce,
    config: std::path::PathBuf,
    upgrades_to: std::path::PathBuf,
    plan: Plan,
    ledger: Ledger,
    overlay: Overlay,
    places: Places,
    nursery: Nursery,
    lock: StateLock,
    sockets: Sockets,
    listener: std::os::unix::net::UnixListener,
    output: Output,
    clock: Clock,
    carried: Option<TakeOver>,
    program: Program,
}

async fn conduct(parts: Parts) -> Result<(), Fatal> {
    let Parts {
        load,
        in_force,
        config,
        upgrades_to,
        plan,
        ledger,
        overlay,
        places,
        nursery,
        lock,
        sockets,
        listener,
        output,
        clock,
        carried,
        program,
    } = parts;
    let mut signals = Signals::catch().map_err(os("catch signals"))?;
    let herald = Herald::of_env();
    ledger.in_force(overlay);
    let gate = Arc::default();
    let (plan, sockets) = (Arc::new(plan), Arc::new(sockets));
    let (found, print) = match carried.as_ref().and_then(|carried| carried.state.edges.materials()) {
        // What the edge has had nothing against; that nothing is known of the files makes the watcher read them anew.
        Some(materials) => (materials, materials::Print::default()),
        None => materials::read(&plan),
    };
    let (generation, reloads) = carried.as_ref().map_or((Generation(1), (0, 0)), |c| (Generation(c.state.generation), c.state.reloads));
    let score = Score { plan: plan.clone(), generation, sockets: sockets.clone(), reloads };
    let setting = Setting { generation, plan: plan.clone(), sockets, materials: found, reloads };
    let (table, table_out) = watch::channel(Table::default());
    let (score, score_out) = watch::channel(score);
    let (material_plan, material_plan_out) = watch::channel((plan.clone(), print));
    // A message for each verdict of a probe or order of a person; full: the edge link and control connections wait.
    let (to_supervisor, inbox) = mpsc::channel(256);
    // Reloads and upgrades are done one after the other; more than these wait at their door.
    let (reloads, asks) = mpsc::channel(16);
    // Orders of people and reloads only; full: they wait.
    let (to_jobs, jobs_inbox) = mpsc::channel(16);
    // The conductor sends one and waits for its end.
    let (going, mut gone) = mpsc::channel(1);

    let (rotator, ticket_keys) = match &carried {
        Some(carried) => tickets::Rotator::adopt(carried.state.tickets.clone()),
        None => tickets::Rotator::new().map_err(os("make ticket keys"))?,
    };

    let switchboard = Switchboard::open(&plan.state);
    let (mut link, edge) = EdgeLink::new(
        edge_link::Wiring {
            program,
            nursery: nursery.clone(),
            output: output.clone(),
            table: table_out.clone(),
            supervisor: to_supervisor.clone(),
            started_ms: clock.start_ms,
            tickets: ticket_keys.seen.clone(),
            switches: switchboard.seen(),
        },
        setting,
    );
    let register = Register::default();
    let jobs = Jobs::new(jobs::Wiring {
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        places: places.clone(),
        register: register.clone(),
        inbox: jobs_inbox,
        table: table.clone(),
    });
    let wiring = supervisor::Wiring {
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        register: register.clone(),
        places: places.clone(),
        edge: edge.clone(),
        inbox,
        table,
    };
    let (supervisor, mut client, from) = match carried {
        None => (Supervisor::new(wiring), None, None),
        Some(TakeOver { state, source, mut adopted, client }) => {
            let supervisor = Supervisor::adopt(wiring, &state.apps, source.specs(&plan), &mut adopted, handoff::claim)?;
            link.adopt(&state.edges, handoff::claim)?;
            output.adopt(adopted);
            (supervisor, client, Some(state.version))
        }
    };
    let control = listener.try_clone().map_err(os("open the control socket"))?;
    let pen = status::Pen::default();
    let upgrader = Arc::new(Upgrader {
        program: upgrades_to,
        config,
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        edge: edge.clone(),
        supervisor: to_supervisor.clone(),
        score: score_out.clone(),
        tickets: ticket_keys,
        lock,
        control: control.into(),
        pen: pen.clone(),
        ledger: ledger.clone(),
    });
    let conductor = Conductor {
        load,
        in_force,
        edge: edge.clone(),
        supervisor: to_supervisor.clone(),
        jobs: to_jobs.clone(),
        output: output.clone(),
        ledger: ledger.clone(),
        gate: Arc::clone(&gate),
        asks,
        score,
        materials: material_plan,
        upgrader: upgrader.clone(),
        going,
        herald: herald.clone(),
    };
    let (deployer, deploys) = Deployer::new(deploy::Wiring {
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        ledger,
        supervisor: to_supervisor.clone(),
        score: score_out.clone(),
        table: table_out.clone(),
        gate,
    });
    let sources = status::Sources { clock, table: table_out, edge: edge.facts(), score: score_out };
    let handle = Handle {
        supervisor: to_supervisor,
        jobs: to_jobs,
        edge: edge.clone(),
        reloads,
        deploys,
        sources: sources.clone(),
        register,
        output: output.clone(),
        switchboard,
    };
    let listener = UnixListener::from_std(listener).map_err(os("open the control socket"))?;
    signals::release();

    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    match &from {
        None => tracing::info!(version, pid, "gateway starts"),
        Some(from) => tracing::info!(version, pid, from, "gateway was upgraded and goes on"),
    }
    let mut tasks = JoinSet::new();
    let children = nursery.clone();
    tasks.spawn(async move { drop(children.run().await) });
    tasks.spawn(link.run());
    tasks.spawn(rotator.run());
    tasks.spawn(supervisor.run());
    tasks.spawn(jobs.run());
    tasks.spawn(conductor.run());
    tasks.spawn(deployer.run());
    tasks.spawn(control::serve(listener, handle.clone()));
    tasks.spawn(materials::Watcher { plan: material_plan_out, edge: edge.clone() }.run());
    tasks.spawn(status::Writer { sources: sources.clone(), path: places.status(), pen }.run());
    if from.is_none() {
        // Only a closed channel could refuse it, and the supervisor has just been started.
        let _ = handle.supervisor.send(Message::Apps(plan.apps.clone())).await;
    }
    let _ = handle.jobs.send(jobs::Message::Apps(plan.apps.clone())).await;

    let post = Post { handle: &handle, output: &output, herald: &herald, upgrader: &upgrader };
    let broken = post.watch_over(&mut tasks, &mut signals, &mut gone, client.take()).await;
    herald.stopping();
    let result = if broken {
        Err(Fatal::Broken)
    } else {
        tracing::info!("stopping");
        stop(&mut signals.stop, &handle).await;
        Ok(())
    };
    nursery.kill_all();
    let _ = timeout(MARGIN, all_gone(&nursery)).await;
    tasks.shutdown().await;
    let status = format!("{:#}\n", sources.json());
    if let Err(error) = atomic::publish(&places.status(), status.as_bytes(), 0o644) {
        tracing::error!(%error, "status.json cannot be written");
    }
    let _ = fs::remove_file(places.control());
    tracing::info!("gateway ends");
    output.finish(MARGIN);
    result
}

/// What the run loop acts on.
struct Post<'a> {
    handle: &'a Handle,
    output: &'a Output,
    herald: &'a Herald,
    upgrader: &'a Arc<Upgrader>,
}

impl Post<'_> {
    /// Until somebody wants us to stop; true: a part of us broke. `client` asked the binary before for this one.
    async fn watch_over(
        &self,
        tasks: &mut JoinSet<()>,
        signals: &mut Signals,
        gone: &mut mpsc::Receiver<Go>,
        mut client: Option<OwnedFd>,
    ) -> bool {
        let mut facts = self.handle.edge.facts();
        let mut losses = facts.clone();
        let before = facts.borrow().restarts;
        let mut announced = false;
        let mut errands = JoinSet::new();
        let mut watchdog = self.herald.watchdog.map(tokio::time::interval);
        loop {
            tokio::select! {
                ended = tasks.join_next() => {
                    let why = ended.and_then(Result::err).map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    tracing::error!(why, "a part of the master ended, stopping everything");
                    return true;
                }
                () = signals.stop.wait() => return false,
                _ = signals.hup.recv() => {
                    // Full: as many reloads wait already.
                    let _ = self.handle.reloads.try_send(reload::Ask::Reload { reply: None });
                }
                _ = signals.usr1.recv() => {
                    tracing::info!("opening log files again");
                    self.output.reopen();
                }
                _ = signals.usr2.recv() => {
                    let _ = self.handle.reloads.try_send(reload::Ask::Upgrade(upgrade::Ask { client: None, reply: None }));
                }
                Some(go) = gone.recv() => {
                    if self.go(go, signals).await == Then::Stop {
                        return false;
                    }
                }
                _ = facts.wait_for(|facts| facts.ready), if !announced => {
                    announced = true;
                    let text = announcement(&self.handle.sources.score.borrow());
                    eprintln!("{text}");
                    self.herald.ready(&text);
                    if let Some(client) = client.take() {
                        let message = format!("upgraded to {}: pid {}, the edge before drains", env!("CARGO_PKG_VERSION"), std::process::id());
                        errands.spawn(reply(client, Answer::Done { result: serde_json::json!({ "message": message }) }));
                    }
                }
                _ = losses.wait_for(|facts| facts.restarts > before), if client.is_some() => {
                    let error = "gateway was upgraded, but its new edge did not come up: the one before serves on while it is tried again";
                    if let Some(client) = client.take() {
                        errands.spawn(reply(client, Answer::Failed { error: error.to_owned(), kind: Failure::Refused }));
                    }
                }
                Some(_) = errands.join_next() => {}
                () = beat(&mut watchdog) => self.herald.alive(),
            }
        }
    }

    /// Does not come back where the upgrade is done.
    async fn go(&self, go: Go, signals: &mut Signals) -> Then {
        let Go { client, file_in_force, reloads, failed } = go;
        let mut held = Held { stop: false };
        let hold = async || {
            held = signals.hold(reloads).await;
            if held.stop { Err(UpgradeError::Stopping) } else { Ok(()) }
        };
        tracing::info!(program = %self.upgrader.program.display(), "upgrade: the self-check is good, becoming it");
        let error = self.upgrader.go(client.as_ref(), file_in_force, hold, signals::release).await;
        // The conductor may be gone at the end of all.
        let _ = failed.send(error);
        if held.stop { Then::Stop } else { Then::GoOn }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    GoOn,
    Stop,
}

/// A client that has gone is no error.
async fn reply(client: OwnedFd, answer: Answer) {
    let _ = control::answer(client, &answer).await;
}

/// Never, where nobody wants to hear.
async fn beat(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// Which addresses are served, in one line.
fn announcement(score: &Score) -> String {
    let named = |role: Role, scheme: &str| {
        let of = score.sockets.open.iter().filter(move |open| open.role == role);
        of.map(|open| format!("{scheme}://{}", open.bound)).collect::<Vec<_>>()
    };
    let served = [named(Role::Http, "http"), named(Role::Https, "https")].concat().join(", ");
    let served = if served.is_empty() { "no address".to_owned() } else { served };
    let admin = named(Role::Admin, "http").first().map(|admin| format!(", status on {admin}")).unwrap_or_default();
    format!("gateway {} serves {served}{admin}", env!("CARGO_PKG_VERSION"))
}

/// The edge drains, then the apps stop in reverse order, and jobs beside both; a second signal or the total deadline ends it at once.
async fn stop(again: &mut Stop, handle: &Handle) {
    let plan = handle.sources.score.borrow().plan.clone();
    let drain = plan.timeouts.drain;
    let slowest = plan.apps.values().map(|app| app.stop.timeout).max().unwrap_or_default();
    handle.deploys.stop();
    let apps = async {
        handle.edge.shutdown(drain).await;
        let (done, all) = oneshot::channel();
        let _ = handle.supervisor.send(Message::StopAll { done }).await;
        let _ = all.await;
    };
    let jobs = async {
        let (done, all) = oneshot::channel();
        let _ = handle.jobs.send(jobs::Message::StopAll { done }).await;
        let _ = all.await;
    };
    let orderly = async { tokio::join!(apps, jobs) };
    tokio::select! {
        ((), ()) = orderly => return,
        () = again.wait() => tracing::warn!("told twice, stopping now"),
        () = sleep(drain + slowest + MARGIN) => tracing::error!("not everything stopped in time, killing what is left"),
    }
    handle.edge.kill_now().await;
    let _ = handle.supervisor.send(Message::KillAll).await;
    let _ = handle.jobs.send(jobs::Message::KillAll).await;
}

async fn all_gone(nursery: &Nursery) {
    while !nursery.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
}
