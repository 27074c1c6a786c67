//! The master put together: what `gateway -c FILE` is, from the first line of the configuration to the exit code.

use std::{error::Error as StdError, fs, io, path::Path, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    config::{complaint::Complaints, load},
    ipc::message::{Generation, Role},
    master::{
        child,
        clock::Clock,
        control::{self, ControlError},
        deploy::{self, Deployer},
        edge_link::{self, EdgeLink, Program, Setting},
        handle::Handle,
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
        tickets,
    },
    plan::Plan,
    store::{
        atomic,
        lock::{LockError, StateLock},
        releases::Releases,
    },
    telemetry::log::{self, InstallError},
};

#[cfg(test)]
mod tests;

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
            Self::Lock(_) | Self::Place(_) | Self::Bind(_) | Self::Control(_) | Self::Log(_) | Self::Os { .. } | Self::Broken => 1,
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
    let _low = child::reserve_low_descriptors().map_err(os("open /dev/null"))?;
    child::lower_oom_score();
    // The guard is a fork: before any thread, and while there is little to copy.
    let nursery = Nursery::new(Strangers::Reap).map_err(os("start the guard"))?;
    let mut plan = load::load(&path, &env).map_err(Fatal::Configuration)?;
    let _lock = StateLock::take(&plan.state)?;
    let ledger = Ledger::new(Releases::of(&plan.state));
    let overlay = ledger.overlay(&mut plan.apps, Moment::Start);
    let places = Places::prepare(&plan)?;
    let sockets = Sockets::bind(&plan, &Sockets::default())?;
    let listener = control::open(&places.control())?;
    let output = Output::start(&Files::of(&plan)).map_err(os("start the log threads"))?;
    let log = log::install_master(plan.log.level, plan.log.format, output.own_log())?;
    let parts = Parts {
        load: Arc::new(move || {
            load::load_running(&path, &env).map_err(|complaints| Box::new(complaints) as Box<dyn StdError + Send + Sync>)
        }),
        in_force: Box::new(move |plan| log.set(plan.log.level, plan.log.format)),
        plan,
        ledger,
        overlay,
        places,
        nursery,
        sockets,
        listener,
        output,
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

/// What the run loop is made of.
struct Parts {
    load: Load,
    in_force: InForce,
    plan: Plan,
    ledger: Ledger,
    overlay: Overlay,
    places: Places,
    nursery: Nursery,
    sockets: Sockets,
    listener: std::os::unix::net::UnixListener,
    output: Output,
    program: Program,
}

/// The signals that concern us.
struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    stop: Stop,
}

/// TERM and INT mean the same.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            stop: Stop { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? },
        })
    }
}

impl Stop {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

async fn conduct(parts: Parts) -> Result<(), Fatal> {
    let Parts { load, in_force, plan, ledger, overlay, places, nursery, sockets, listener, output, program } = parts;
    let mut signals = Signals::catch().map_err(os("catch signals"))?;
    let clock = Clock::start();
    ledger.in_force(overlay);
    let gate = Arc::default();
    let (plan, sockets) = (Arc::new(plan), Arc::new(sockets));
    let (found, print) = materials::read(&plan);
    let score = Score { plan: plan.clone(), generation: Generation(1), sockets: sockets.clone(), reloads: (0, 0) };
    let setting = Setting { generation: Generation(1), plan: plan.clone(), sockets, materials: found, reloads: (0, 0) };
    let (table, table_out) = watch::channel(Table::default());
    let (score, score_out) = watch::channel(score);
    let (material_plan, material_plan_out) = watch::channel((plan.clone(), print));
    // A message for each verdict of a probe or order of a person; full: the edge link and control connections wait.
    let (to_supervisor, inbox) = mpsc::channel(256);
    // Reloads run one after the other; more than these wait at their door.
    let (reloads, asks) = mpsc::channel(16);
    // Orders of people and reloads only; full: they wait.
    let (to_jobs, jobs_inbox) = mpsc::channel(16);

    let (rotator, ticket_keys) = tickets::Rotator::new().map_err(os("make ticket keys"))?;

    let (link, edge) = EdgeLink::new(
        edge_link::Wiring {
            program,
            nursery: nursery.clone(),
            output: output.clone(),
            table: table_out.clone(),
            supervisor: to_supervisor.clone(),
            started_ms: clock.start_ms,
            tickets: ticket_keys,
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
    let supervisor = Supervisor::new(supervisor::Wiring {
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        register: register.clone(),
        places: places.clone(),
        edge: edge.clone(),
        inbox,
        table,
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
    };
    let listener = UnixListener::from_std(listener).map_err(os("open the control socket"))?;

    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "gateway starts");
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
    tasks.spawn(status::Writer { sources: sources.clone(), path: places.status() }.run());
    // Only a closed channel could refuse it, and the supervisor has just been started.
    let _ = handle.supervisor.send(Message::Apps(plan.apps.clone())).await;
    let _ = handle.jobs.send(jobs::Message::Apps(plan.apps.clone())).await;

    let broken = watch_over(&mut tasks, &mut signals, &handle, &output).await;
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

/// Until somebody wants us to stop; true: a part of us broke.
async fn watch_over(tasks: &mut JoinSet<()>, signals: &mut Signals, handle: &Handle, output: &Output) -> bool {
    let Signals { hup, usr1, usr2, stop } = signals;
    let mut facts = handle.edge.facts();
    let mut announced = false;
    loop {
        tokio::select! {
            ended = tasks.join_next() => {
                let why = ended.and_then(Result::err).map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                tracing::error!(why, "a part of the master ended, stopping everything");
                return true;
            }
            () = stop.wait() => return false,
            _ = hup.recv() => {
                // Full: as many reloads wait already.
                let _ = handle.reloads.try_send(reload::Ask { reply: None });
            }
            _ = usr1.recv() => {
                tracing::info!("opening log files again");
                output.reopen();
            }
            _ = usr2.recv() => tracing::error!("upgrade by USR2 is not supported yet: nothing was changed"),
            _ = facts.wait_for(|facts| facts.ready), if !announced => {
                announced = true;
                eprintln!("{}", announcement(&handle.sources.score.borrow()));
            }
        }
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
