//! The parts of the master: made, wired and started; and how they all end.

use std::{fs, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use tokio::{
    net::UnixListener,
    sync::{RwLock, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    fatal::{Fatal, os},
    post::Post,
    signals::{self, Signals},
    takeover::TakeOver,
};
use crate::{
    ipc::message::{Generation, TicketKeys},
    master::{
        bag,
        clock::Clock,
        control,
        deploy::{self, Deployer},
        edge_link::{self, EdgeLink, Program, Setting},
        handle::Handle,
        herald::Herald,
        jobs::{self, Jobs},
        materials::{self, Print, Watcher},
        nursery::Nursery,
        obituary::Register,
        output::Output,
        places::Places,
        releases::{Ledger, Overlay},
        reload::{self, Conductor, InForce, Load},
        score::Score,
        shutdown::{self, MARGIN},
        sockets::Sockets,
        status,
        supervisor::{self, Message, Supervisor},
        switches::Switchboard,
        table::Table,
        tickets,
        upgrade::{Go, Upgrader},
        words::Heard,
    },
    plan::Plan,
    store::{atomic, lock::StateLock},
    vocab::chain,
};

/// What all of it is made of.
pub(super) struct Parts {
    pub(super) load: Load,
    pub(super) in_force: InForce,
    pub(super) config: PathBuf,
    pub(super) upgrades_to: PathBuf,
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    pub(super) overlay: Overlay,
    pub(super) places: Places,
    pub(super) nursery: Nursery,
    pub(super) lock: StateLock,
    pub(super) sockets: Sockets,
    pub(super) listener: std::os::unix::net::UnixListener,
    pub(super) output: Output,
    pub(super) clock: Clock,
    pub(super) carried: Option<TakeOver>,
    pub(super) program: Program,
}

/// What more than one part is given.
struct Hub {
    clock: Clock,
    nursery: Nursery,
    output: Output,
    places: Places,
    ledger: Ledger,
    register: Register,
    switchboard: Switchboard,
    herald: Herald,
    /// A reload and the placing of a release never overlap.
    gate: Arc<RwLock<()>>,
    supervisor: mpsc::Sender<Message>,
    heard: mpsc::Sender<Heard>,
    jobs: mpsc::Sender<jobs::Message>,
    table: watch::Sender<Table>,
    table_out: watch::Receiver<Table>,
    score_out: watch::Receiver<Score>,
}

/// The other ends, each for one part.
struct Ends {
    supervisor: mpsc::Receiver<Message>,
    heard: mpsc::Receiver<Heard>,
    jobs: mpsc::Receiver<jobs::Message>,
    score: watch::Sender<Score>,
}

/// A part that was taken over from the binary before, where there was one.
struct Succession {
    supervisor: Supervisor,
    /// Who asked for the upgrade, and waits for an answer.
    client: Option<OwnedFd>,
    /// The version before.
    from: Option<String>,
}

/// The master at work.
pub(super) struct Conduct {
    plan: Arc<Plan>,
    signals: Signals,
    herald: Herald,
    nursery: Nursery,
    output: Output,
    places: Places,
    handle: Handle,
    upgrader: Arc<Upgrader>,
    tasks: JoinSet<()>,
    gone: mpsc::Receiver<Go>,
    client: Option<OwnedFd>,
    from: Option<String>,
}

impl Conduct {
    /// Everything is made before anything runs; then signals are let in.
    ///
    /// Errors: a part cannot be made or taken over.
    pub(super) fn set_up(parts: Parts) -> Result<Self, Fatal> {
        let Parts { plan, carried, listener, ledger, .. } = parts;
        let signals = Signals::catch().map_err(os("catch signals"))?;
        ledger.in_force(parts.overlay);
        let plan = Arc::new(plan);
        let (setting, print) = setting(&plan, parts.sockets, carried.as_ref());
        let (hub, ends) = Hub::new(parts.clock, parts.nursery, parts.output, parts.places, ledger, &setting);
        let (material_plan, material_plan_out) = watch::channel((plan.clone(), print));
        // Reloads and upgrades are done one after the other; more than these wait at their door.
        let (reloads, asks) = mpsc::channel(16);
        // The conductor sends one and waits for its end.
        let (going, gone) = mpsc::channel(1);

        let (rotator, keys) = rotator(carried.as_ref())?;
        let (mut link, edge) = hub.link(parts.program, keys.seen.clone(), setting);
        let jobs = hub.jobs(ends.jobs);
        let Succession { supervisor, client, from } = hub.supervisor(&edge, (ends.supervisor, ends.heard), carried, &mut link, &plan)?;
        let control = listener.try_clone().map_err(os("open the control socket"))?.into();
        let pen = status::Pen::default();
        let means = Means { program: parts.upgrades_to, config: parts.config, lock: parts.lock, control, pen: pen.clone() };
        let upgrader = Arc::new(hub.upgrader(&edge, keys, means));
        let (deployer, deploys) = hub.deployer();
        let (load, in_force) = (parts.load, parts.in_force);
        let conductor = hub.conductor(
            &edge,
            &upgrader,
            Baton { load, in_force, asks, score: ends.score, materials: material_plan, going, deploys: deploys.clone() },
        );
        let handle = hub.handle(&edge, reloads, deploys);
        let listener = UnixListener::from_std(listener).map_err(os("open the control socket"))?;
        signals::release();

        let mut tasks = JoinSet::new();
        let children = hub.nursery.clone();
        tasks.spawn(async move { drop(children.run().await) });
        tasks.spawn(link.run());
        tasks.spawn(rotator.run());
        tasks.spawn(supervisor.run());
        tasks.spawn(jobs.run());
        tasks.spawn(conductor.run());
        tasks.spawn(deployer.run());
        tasks.spawn(control::serve(listener, handle.clone()));
        tasks.spawn(Watcher { plan: material_plan_out, edge }.run());
        tasks.spawn(status::Writer { sources: handle.sources.clone(), path: hub.places.status(), pen }.run());
        let Hub { nursery, output, places, herald, .. } = hub;
        Ok(Self { plan, signals, herald, nursery, output, places, handle, upgrader, tasks, gone, client, from })
    }

    /// Until everything has stopped.
    ///
    /// Errors: a part of the master ended by itself.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        self.begin().await;
        let post = Post { handle: &self.handle, output: &self.output, herald: &self.herald, upgrader: &self.upgrader };
        let broken = post.watch_over(&mut self.tasks, &mut self.signals, &mut self.gone, self.client.take()).await;
        self.herald.stopping(shutdown::over_within(&self.handle));
        if !broken {
            tracing::info!("stopping");
            shutdown::orderly(&self.handle, self.signals.stop.wait()).await;
        }
        self.end().await;
        if broken { Err(Fatal::Broken) } else { Ok(()) }
    }

    async fn begin(&self) {
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        let config = self.plan.files.first().map(|file| file.display().to_string());
        match &self.from {
            None => tracing::info!(version, pid, config, "gateway starts"),
            Some(from) => tracing::info!(version, pid, config, from, "gateway was upgraded and goes on"),
        }
        if self.from.is_none() {
            // Only a closed channel could refuse it, and the supervisor has just been started.
            let _ = self.handle.supervisor.send(Message::Apps(self.plan.apps.clone())).await;
        }
        let _ = self.handle.jobs.send(jobs::Message::Apps(self.plan.apps.clone())).await;
    }

    /// What is left is killed, and the last word is written.
    async fn end(mut self) {
        self.nursery.kill_all();
        let _ = timeout(MARGIN, shutdown::all_gone(&self.nursery)).await;
        self.tasks.shutdown().await;
        let status = format!("{:#}\n", self.handle.sources.json());
        if let Err(error) = atomic::publish(&self.places.status(), status.as_bytes(), 0o644) {
            tracing::error!(error = chain(&error), "status.json cannot be written");
        }
        let _ = fs::remove_file(self.places.control());
        tracing::info!("gateway ends");
        self.output.finish(MARGIN);
    }
}

/// What only the upgrader is given.
struct Means {
    program: PathBuf,
    config: PathBuf,
    lock: StateLock,
    control: OwnedFd,
    pen: status::Pen,
}

/// What only the conductor is given.
struct Baton {
    load: Load,
    in_force: InForce,
    asks: mpsc::Receiver<reload::Ask>,
    score: watch::Sender<Score>,
    materials: watch::Sender<(Arc<Plan>, Print)>,
    going: mpsc::Sender<Go>,
    deploys: deploy::Handle,
}

impl Hub {
    fn new(clock: Clock, nursery: Nursery, output: Output, places: Places, ledger: Ledger, setting: &Setting) -> (Self, Ends) {
        let (score, score_out) = watch::channel(score(setting));
        let (table, table_out) = watch::channel(Table::default());
        // Orders of people and reloads; what the edge tells of each probe and request that was lost. Full: control connections, or the edge link, wait.
        let (supervisor, inbox) = mpsc::channel(64);
        let (heard, heard_inbox) = mpsc::channel(256);
        // Orders of people and reloads only; full: they wait.
        let (jobs, jobs_inbox) = mpsc::channel(16);
        let hub = Self {
            clock,
            nursery,
            output,
            places,
            ledger,
            register: Register::default(),
            switchboard: Switchboard::open(&setting.plan.state),
            herald: Herald::of_env(),
            gate: Arc::default(),
            supervisor,
            heard,
            jobs,
            table,
            table_out,
            score_out,
        };
        (hub, Ends { supervisor: inbox, heard: heard_inbox, jobs: jobs_inbox, score })
    }

    fn link(&self, program: Program, tickets: watch::Receiver<TicketKeys>, setting: Setting) -> (EdgeLink, edge_link::Handle) {
        let wiring = edge_link::Wiring {
            program,
            nursery: self.nursery.clone(),
            output: self.output.clone(),
            table: self.table_out.clone(),
            heard: self.heard.clone(),
            started_ms: self.clock.start_ms,
            tickets,
            switches: self.switchboard.seen(),
        };
        EdgeLink::new(wiring, setting)
    }

    fn jobs(&self, inbox: mpsc::Receiver<jobs::Message>) -> Jobs {
        Jobs::new(jobs::Wiring {
            clock: self.clock,
            nursery: self.nursery.clone(),
            output: self.output.clone(),
            places: self.places.clone(),
            register: self.register.clone(),
            inbox,
            table: self.table.clone(),
        })
    }

    /// A new one, or with the processes of the binary before; then the link takes over its edges and the output its pipes.
    ///
    /// Errors: something did not come along.
    fn supervisor(
        &self,
        edge: &edge_link::Handle,
        inbox: (mpsc::Receiver<Message>, mpsc::Receiver<Heard>),
        carried: Option<TakeOver>,
        link: &mut EdgeLink,
        plan: &Plan,
    ) -> Result<Succession, Fatal> {
        let wiring = supervisor::Wiring {
            clock: self.clock,
            nursery: self.nursery.clone(),
            output: self.output.clone(),
            register: self.register.clone(),
            places: self.places.clone(),
            edge: edge.clone(),
            inbox: inbox.0,
            heard: inbox.1,
            table: self.table.clone(),
        };
        let Some(TakeOver { state, source, mut adopted, client }) = carried else {
            return Ok(Succession { supervisor: Supervisor::new(wiring), client: None, from: None });
        };
        let supervisor = Supervisor::adopt(wiring, &state.apps, source.specs(plan), &mut adopted, bag::claim)?;
        link.adopt(&state.edges, bag::claim)?;
        self.output.adopt(adopted);
        Ok(Succession { supervisor, client, from: Some(state.version) })
    }

    fn upgrader(&self, edge: &edge_link::Handle, tickets: tickets::Keys, means: Means) -> Upgrader {
        let Means { program, config, lock, control, pen } = means;
        Upgrader {
            program,
            config,
            clock: self.clock,
            nursery: self.nursery.clone(),
            output: self.output.clone(),
            edge: edge.clone(),
            supervisor: self.supervisor.clone(),
            score: self.score_out.clone(),
            tickets,
            lock,
            control,
            pen,
            ledger: self.ledger.clone(),
        }
    }

    fn conductor(&self, edge: &edge_link::Handle, upgrader: &Arc<Upgrader>, baton: Baton) -> Conductor {
        let Baton { load, in_force, asks, score, materials, going, deploys } = baton;
        Conductor {
            load,
            in_force,
            edge: edge.clone(),
            supervisor: self.supervisor.clone(),
            jobs: self.jobs.clone(),
            output: self.output.clone(),
            ledger: self.ledger.clone(),
            gate: self.gate.clone(),
            deploys,
            asks,
            score,
            materials,
            upgrader: upgrader.clone(),
            going,
            herald: self.herald.clone(),
        }
    }

    fn deployer(&self) -> (Deployer, deploy::Handle) {
        Deployer::new(deploy::Wiring {
            clock: self.clock,
            nursery: self.nursery.clone(),
            output: self.output.clone(),
            ledger: self.ledger.clone(),
            supervisor: self.supervisor.clone(),
            score: self.score_out.clone(),
            table: self.table_out.clone(),
            gate: self.gate.clone(),
        })
    }

    fn handle(&self, edge: &edge_link::Handle, reloads: mpsc::Sender<reload::Ask>, deploys: deploy::Handle) -> Handle {
        let sources =
            status::Sources { clock: self.clock, table: self.table_out.clone(), edge: edge.facts(), score: self.score_out.clone() };
        Handle {
            supervisor: self.supervisor.clone(),
            jobs: self.jobs.clone(),
            edge: edge.clone(),
            reloads,
            deploys,
            sources,
            register: self.register.clone(),
            output: self.output.clone(),
            ledger: self.ledger.clone(),
            switchboard: self.switchboard.clone(),
        }
    }
}

/// The first configuration, or the one that the binary before had in force.
fn setting(plan: &Arc<Plan>, sockets: Sockets, carried: Option<&TakeOver>) -> (Setting, Print) {
    let (materials, print) = match carried.and_then(|carried| carried.state.edges.materials()) {
        // What the edge has had nothing against; that nothing is known of the files makes the watcher read them anew.
        Some(materials) => (materials, Print::default()),
        None => materials::read(plan),
    };
    let (generation, reloads) =
        carried.map_or((Generation(1), (0, 0)), |carried| (Generation(carried.state.generation), carried.state.reloads));
    (Setting { generation, plan: plan.clone(), sockets: Arc::new(sockets), materials, reloads }, print)
}

fn score(setting: &Setting) -> Score {
    let Setting { generation, plan, sockets, materials: _, reloads } = setting;
    Score { plan: plan.clone(), generation: *generation, sockets: sockets.clone(), reloads: *reloads }
}

fn rotator(carried: Option<&TakeOver>) -> Result<(tickets::Rotator, tickets::Keys), Fatal> {
    match carried {
        Some(carried) => Ok(tickets::Rotator::adopt(carried.state.tickets.clone())),
        None => tickets::Rotator::new().map_err(os("make ticket keys")),
    }
}
