//! The master put together: what `gateway -c FILE` is, from the first line of the configuration to the exit code.

use std::{error::Error as StdError, fs, path::Path, sync::Arc, time::Duration};

use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    config::load,
    ipc::message::Generation,
    master::{
        bag, child,
        clock::Clock,
        control,
        deploy::{self, Deployer},
        edge_link::{self, EdgeLink, Program, Setting},
        handle::Handle,
        handoff,
        herald::Herald,
        jobs::{self, Jobs},
        materials,
        nursery::{Nursery, Strangers},
        obituary::Register,
        output::{Files, Output},
        places::{self, Places},
        releases::{Ledger, Moment, Overlay},
        reload::{Conductor, InForce, Load},
        score::Score,
        shutdown::{self, MARGIN},
        sockets::Sockets,
        status,
        supervisor::{self, Message, Supervisor},
        switches::Switchboard,
        table::Table,
        tickets,
        upgrade::{self, Upgrader},
    },
    plan::{Plan, clear},
    store::{atomic, lock::StateLock, releases::Releases},
    telemetry::log,
};

mod fatal;
mod post;
mod signals;
mod takeover;

#[cfg(test)]
mod tests;

pub use fatal::Fatal;
use fatal::os;
use post::Post;
use signals::Signals;
use takeover::TakeOver;
pub use takeover::{Refusal, self_check};
pub use upgrade::REFUSED;

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
    for site in clear::in_the_clear(plan) {
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
    places::inspect(&plan)?;
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
            let supervisor = Supervisor::adopt(wiring, &state.apps, source.specs(&plan), &mut adopted, bag::claim)?;
            link.adopt(&state.edges, bag::claim)?;
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
    let (deployer, deploys) = Deployer::new(deploy::Wiring {
        clock,
        nursery: nursery.clone(),
        output: output.clone(),
        ledger: ledger.clone(),
        supervisor: to_supervisor.clone(),
        score: score_out.clone(),
        table: table_out.clone(),
        gate: Arc::clone(&gate),
    });
    let conductor = Conductor {
        load,
        in_force,
        edge: edge.clone(),
        supervisor: to_supervisor.clone(),
        jobs: to_jobs.clone(),
        output: output.clone(),
        ledger: ledger.clone(),
        gate,
        deploys: deploys.clone(),
        asks,
        score,
        materials: material_plan,
        upgrader: upgrader.clone(),
        going,
        herald: herald.clone(),
    };
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
        ledger,
    };
    let listener = UnixListener::from_std(listener).map_err(os("open the control socket"))?;
    signals::release();

    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    let config = plan.files.first().map(|file| file.display().to_string());
    match &from {
        None => tracing::info!(version, pid, config, "gateway starts"),
        Some(from) => tracing::info!(version, pid, config, from, "gateway was upgraded and goes on"),
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
    herald.stopping(shutdown::over_within(&handle));
    let result = if broken {
        Err(Fatal::Broken)
    } else {
        tracing::info!("stopping");
        shutdown::orderly(&handle, signals.stop.wait()).await;
        Ok(())
    };
    nursery.kill_all();
    let _ = timeout(MARGIN, shutdown::all_gone(&nursery)).await;
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
