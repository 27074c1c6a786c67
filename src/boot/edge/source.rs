//! What the edge tells about itself on the admin listener and to `gateway status`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    acme::handle::Handle as Steward,
    admin::{
        api::{Rates, Source},
        view::{self, moment},
    },
    edge::{
        listen::Pulses,
        live::{LiveCell, LiveSite},
        tls::Tls,
        upstream::{PoolView, ServerView},
    },
    ipc::message::{AppTable, Role},
    plan,
    telemetry::{LookedAfter, Metrics, Totals, node::NodeSample},
    vocab::lock,
};

/// Looks at what is in force whenever it is asked.
pub struct EdgeSource {
    live: LiveCell,
    metrics: Arc<Metrics>,
    steward: Steward,
    /// The master's table, as it came last.
    apps: Mutex<AppTable>,
    started_ms: u64,
    edge_started_ms: u64,
    reloads: AtomicU64,
    refused: AtomicU64,
    rates: Rates,
    pulses: Arc<Pulses>,
}

impl EdgeSource {
    #[must_use]
    pub fn new(
        live: LiveCell,
        metrics: Arc<Metrics>,
        steward: Steward,
        apps: AppTable,
        // Of the master and of the edge, in Unix milliseconds.
        (started_ms, edge_started_ms): (u64, u64),
        reloads: (u64, u64),
        pulses: Arc<Pulses>,
    ) -> Self {
        Self {
            live,
            metrics,
            steward,
            apps: Mutex::new(apps),
            started_ms,
            edge_started_ms,
            reloads: AtomicU64::new(reloads.0),
            refused: AtomicU64::new(reloads.1),
            rates: Rates::default(),
            pulses,
        }
    }

    /// To be called every few seconds.
    pub fn note(&self) {
        self.rates.note(Instant::now(), &self.metrics.totals());
    }

    #[must_use]
    pub fn edge_started_ms(&self) -> u64 {
        self.edge_started_ms
    }

    pub fn apps_are(&self, table: AppTable) {
        *self.table() = table;
    }

    pub fn reloaded(&self) {
        self.reloads.fetch_add(1, Relaxed);
    }

    pub fn reload_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The newest, and how many there are.
    pub fn bans(&self) -> view::Bans {
        let (listed, count) = self.live.load().sentry.list(view::Bans::MOST);
        view::Bans {
            count: count as u64,
            bans: listed.iter().map(|(who, sentence, enforced)| view::Ban::new(*who, sentence, *enforced)).collect(),
        }
    }

    fn table(&self) -> MutexGuard<'_, AppTable> {
        // Replaced whole: whoever panicked left one or the other.
        lock(&self.apps)
    }
}

impl Source for EdgeSource {
    fn process(&self) -> view::Process {
        let live = self.live.load();
        view::Process {
            config: live.plan.files.first().map(|file| file.display().to_string()).unwrap_or_default(),
            master_pid: std::os::unix::process::parent_id(),
            edge_pid: std::process::id(),
            started: moment(self.started_ms),
            edge_started: moment(self.edge_started_ms),
            edge_restarts: self.table().edge_restarts,
            generation: live.generation.0,
            reloads: self.reloads.load(Relaxed),
            reloads_refused: self.refused.load(Relaxed),
        }
    }

    fn listeners(&self) -> Vec<view::Listener> {
        let listeners = self.live.load_full();
        let listener = |listener: &crate::ipc::message::Listener| view::Listener {
            role: match listener.role {
                Role::Http => "http",
                Role::Https => "https",
                Role::Admin => "admin",
            }
            .to_owned(),
            address: listener.asked.to_string(),
            bound: listener.bound.to_string(),
            accepting: self.pulses.accepts((listener.role, listener.asked)),
        };
        listeners.listeners.iter().map(listener).collect()
    }

    fn sites(&self) -> Vec<view::Site> {
        let live = self.live.load();
        let site = |(site, live): (&plan::Site, &LiveSite)| {
            let maintenance = live.gate.is_in_maintenance();
            view::Site { maintenance, ..view::Site::new(site, self.metrics.site_totals(&site.name)) }
        };
        live.plan.sites.iter().zip(&live.sites).map(site).collect()
    }

    fn apps(&self) -> Vec<view::App> {
        view::apps(&self.table())
    }

    fn upstreams(&self) -> Vec<view::Upstream> {
        let live = self.live.load();
        let now = live.now();
        let mut all: Vec<_> = live.pools.iter().map(|pool| upstream(pool.view(now))).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn zones(&self) -> Vec<view::Zone> {
        let zone = |zone: &Arc<crate::edge::gate::LiveZone>| {
            view::Zone::new(zone.name.as_str(), &zone.spec, zone.limiter.keys() as u64, zone.queue.len().into(), zone.metrics.read())
        };
        self.live.load().zones.iter().map(zone).collect()
    }

    fn certificates(&self) -> Vec<view::Certificate> {
        let live = self.live.load();
        let certificate = |served: &crate::edge::tls::Served| view::Certificate {
            host: served.host.clone(),
            not_after: served.not_after.and_then(|at| u64::try_from(at).ok()).map(|at| moment(at * 1000)),
            source: served.source.to_owned(),
            problem: served.problem.clone(),
            ..view::Certificate::default()
        };
        let standings = self.steward.standings();
        let now = now();
        let others = live.tls.iter().flat_map(Tls::served).filter(|served| !standings.iter().any(|standing| standing.site == served.host));
        others.map(certificate).chain(standings.iter().map(|standing| view::Certificate::looked_after(standing, now))).collect()
    }

    fn bans(&self) -> u64 {
        self.live.load().sentry.count()
    }

    fn recent(&self) -> Option<view::Recent> {
        self.rates.read(Instant::now(), &self.metrics.totals())
    }

    fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    fn node(&self) -> NodeSample {
        self.metrics.node()
    }

    fn metrics(&self) -> String {
        let live = self.live.load();
        live.zones.report();
        live.sentry.report();
        live.pools.observe();
        let now = now();
        self.metrics.looked_after(self.steward.standings().iter().flat_map(|standing| {
            let facts = LookedAfter { not_after: standing.cert.as_ref().map(|cert| cert.not_after), at_risk: standing.at_risk(now) };
            standing.names.iter().map(move |name| (name.clone(), facts))
        }));
        let mut text = String::with_capacity(16 * 1024);
        self.metrics.render(&mut text);
        text
    }
}

/// In Unix seconds.
fn now() -> i64 {
    Timestamp::now().as_second()
}

fn upstream(pool: PoolView) -> view::Upstream {
    let PoolView { upstream, app, balance: _, panic, servers } = pool;
    let server = |server: ServerView| {
        let ServerView { server, addr, state, in_flight, weight, backup, reason } = server;
        let up = state == "up";
        view::Server {
            address: addr.unwrap_or_else(|| server.clone()),
            reason: reason.or_else(|| (!up).then(|| state.to_owned())),
            server,
            up,
            state: state.to_owned(),
            in_flight: in_flight.into(),
            weight,
            backup,
        }
    };
    view::Upstream { name: upstream.to_string(), app, panic, servers: servers.into_iter().map(server).collect() }
}
