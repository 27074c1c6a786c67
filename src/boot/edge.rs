//! The edge's composition root: takes the link from the master, becomes nobody in particular, builds the first `Live`, starts the threads, and does what the
//! master says until the link closes.
//!
//! Shape: this thread serves no request. It reads the link, probes, answers on the admin listener; K others do the traffic.
//!        Whatever cannot be healed ends the process: the master starts the next one on the same sockets.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    acme::{
        self,
        challenge::Board,
        steward::{self, Setting, Steward as Tending},
        vault::Vault,
    },
    edge::{
        conn::buffers::Buffers,
        listen::{Common, Crowd, Pulses},
        live::{Base, Live, LiveError},
        tls::{
            self, OnBadPair, TlsBase, TlsError,
            ca::{Authority, AuthorityError},
        },
        upstream::Prober,
        warden::{Ledger, Warden},
        witness::Witness,
    },
    ipc::{
        fds,
        link::{Link, LinkError, Receiver, Sender},
        message::{AppTable, Build, Config, Switches, TicketKeys, ToEdge, ToMaster},
    },
    plan::SiteTls,
    rules::screen::Screen,
    store::certs::Certs,
    telemetry::{
        Metrics,
        accesslog::AccessWriter,
        log::{self, InstallError, LogHandle},
    },
    vocab::chain,
};

mod doors;
mod identity;
mod office;
mod source;
mod threads;

use doors::Doors;
use identity::{IdentityError, Parent};
use office::Office;
use source::EdgeSource;
use threads::Threads;

/// The link, as every edge finds it.
const LINK: i32 = 3;
/// The write end of the access log's pipe.
const ACCESS: i32 = 4;
/// What waits for the master to read it. Full: probes and drains wait, which is right, for it is the master who is behind.
const OUTBOX: usize = 256;
/// What the access log may still write when all is over.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the edge cannot run. Told on stderr, which the master reads.
#[derive(Debug, Error)]
pub enum Fatal {
    #[error("find the link to the master: gateway starts its edge itself")]
    NoLink(#[source] io::Error),
    #[error("start a runtime")]
    Runtime(#[source] io::Error),
    #[error("speak with the master")]
    Link(#[from] LinkError),
    #[error("understand the master: it is {theirs:?}, this is {ours:?}")]
    Build { ours: String, theirs: String },
    #[error("begin: the master did not say hello")]
    NoHello,
    #[error("become the edge's user")]
    Identity(#[from] IdentityError),
    #[error("have a log")]
    Log(#[from] InstallError),
    #[error("have an internal CA")]
    Authority(#[from] AuthorityError),
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    #[error("run the configuration")]
    Live(#[from] LiveError),
    #[error("start the access log")]
    Access(#[source] io::Error),
    #[error("catch signals")]
    Signal(#[source] io::Error),
    #[error("start thread {0}")]
    Thread(usize, #[source] io::Error),
    #[error("take the listeners that the master sent")]
    Doors(#[from] doors::DoorError),
    #[error("go on: a worker thread has ended")]
    ThreadEnded,
}

/// Runs as the edge until the master says stop, or goes away.
#[must_use]
pub fn run() -> ExitCode {
    let parent = Parent::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Fatal::Runtime).and_then(|runtime| runtime.block_on(serve(&parent)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "edge ended");
            // There may be no log yet.
            eprintln!("<3>edge could not {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The master's first words.
struct Hello {
    config: Box<Config>,
    apps: AppTable,
    reloads: (u64, u64),
    started_ms: u64,
    tickets: TicketKeys,
    switches: Switches,
    sockets: Vec<OwnedFd>,
}

async fn serve(parent: &Parent) -> Result<(), Fatal> {
    let link = UnixStream::from(fds::inherited(LINK).map_err(Fatal::NoLink)?);
    let access = fds::inherited(ACCESS).ok();
    let (mut to_master, mut from_master) = Link::<ToMaster, ToEdge>::from_std(link).map_err(Fatal::NoLink)?.split();
    let Hello { config, apps, reloads, started_ms, tickets, switches, sockets } = hello(&mut to_master, &mut from_master).await?;
    let log = log::install_edge(config.plan.log.level, config.plan.log.format)?;
    identity::settle(&config.plan.user, parent)?;
    tls::install_provider();
    let metrics = Arc::new(Metrics::new());
    let writer = access.map(|pipe| AccessWriter::start(pipe, metrics.access_dropped())).transpose().map_err(Fatal::Access)?;
    let home = config.plan.state.join("edge");
    let authority = Arc::new(Authority::open(&home)?);
    let (vault, demands) = Vault::new();
    let board = Arc::new(Board::default());
    let (steward, desk) = acme::handle::handle();
    let (settings, in_force) = watch::channel(Arc::new(Setting::of(&config)));
    let parts = steward::Parts {
        certs: Certs::new(home.join("certs")),
        vault: vault.clone(),
        board: board.clone(),
        metrics: metrics.acme(),
        demands,
        desk,
        settings: in_force,
    };
    // Before anything is served: what is on disk is in its place.
    let tending = Tending::new(parts);
    let (outbox, waiting) = mpsc::channel(OUTBOX);
    let base = Base {
        metrics: metrics.clone(),
        tls: TlsBase::new(authority, tickets, vault)?,
        access: writer.clone(),
        screen: Arc::new(Screen::new()),
        board,
        blackbox: Arc::default(),
        witness: Arc::new(Witness::new(outbox.clone())),
        verifier: Arc::default(),
        warden: Arc::new(Warden::new(&metrics)),
        switches,
    };
    // Nobody who is banned slips in while we start.
    let ledger = Ledger::open(home.clone(), base.warden.clone());
    let live = Live::prepare(base.ground(None), &config, OnBadPair::Keep)?.enter(&base);
    live.sentry.takes_over(None);
    if config.plan.sites.iter().any(|site| site.tls == SiteTls::Internal) {
        tracing::info!(cert = %home.join(tls::ca::CERT).display(), "internal CA: trust this certificate to have no warnings");
    }
    live.pools.apps(&apps, &metrics);
    metrics.apps(&apps);
    metrics.reloads(reloads.0, reloads.1);
    metrics.watch_disks([config.plan.state.as_path()]);
    let workers = config.plan.workers.get();
    let live = Arc::new(ArcSwap::from_pointee(live));
    let pulses = Arc::<Pulses>::default();
    let common = Common {
        live: live.clone(),
        crowd: Arc::new(Crowd::default()),
        pressure: Arc::default(),
        leftovers: Arc::default(),
        buffers: Arc::new(Buffers::new(metrics.buffers())),
        pulses: pulses.clone(),
        tls_metrics: metrics.tls(),
    };
    let threads = Threads::start(workers, &common, &home.join(tls::ca::CERT))?;
    let source =
        Arc::new(EdgeSource::new(live.clone(), metrics.clone(), steward.clone(), apps, (started_ms, now_ms()), reloads, pulses.clone()));
    let doors = Doors::new(threads.orders(), metrics, source.clone(), pulses);
    let (pools, pools_seen) = watch::channel(live.load().pools.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(Prober::new(pools_seen, outbox.clone()).run());
    tasks.spawn(tending.run());
    tasks.spawn(ledger.clone().run());
    let office = Office {
        common,
        base,
        log,
        doors,
        threads,
        source,
        steward,
        settings,
        ledger: ledger.clone(),
        pools,
        to_master,
        from_master,
        outbox,
        waiting,
        tasks,
    };
    let result = office.run(&config, sockets).await;
    ledger.save();
    if let Some(writer) = writer {
        writer.close(LAST_LINES);
    }
    result
}

/// Both sides say which build they are; another one is refused.
async fn hello(to_master: &mut Sender<ToMaster>, from_master: &mut Receiver<ToEdge>) -> Result<Hello, Fatal> {
    let ours = Build::this();
    to_master.send(&ToMaster::Hello { build: ours.clone() }, &[]).await?;
    match from_master.receive().await? {
        Some((ToEdge::Hello { build, .. }, _)) if build != ours => Err(Fatal::Build { ours: ours.0, theirs: build.0 }),
        Some((ToEdge::Hello { build: _, config, apps, reloads, started_ms, tickets, switches }, sockets)) => {
            Ok(Hello { config, apps, reloads, started_ms, tickets, switches, sockets })
        }
        Some(_) | None => Err(Fatal::NoHello),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
