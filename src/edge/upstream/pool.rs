//! One upstream: its servers, and the pick of one for a request.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use thiserror::Error;

use super::{
    budget::{Budget, Move},
    hold::Room,
    lease::Lease,
    server::{Server, ServerId, Shared},
};
use crate::{
    ipc::message::Duty,
    plan::{self, Balance, Retry, RetryOn, UpstreamHttp, UpstreamTimeouts},
    rules::{
        attempt::Trust,
        balance::{self, Candidate, Least, Refused, Role, Standing, Tier, Wheel},
    },
    vocab::{AppName, UpstreamName, lock::lock},
};

/// What a pool was built from; equal specs mean that a reload carries the pool over as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spec {
    Upstream(plan::Upstream),
    App(AppSpec),
}

/// What a pool and its probes need to know of an app.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AppSpec {
    pub(super) name: AppName,
    pub(super) procs: u16,
    pub(super) timeouts: UpstreamTimeouts,
    pub(super) http: UpstreamHttp,
    pub(super) ready: plan::Ready,
    pub(super) live: Option<plan::Live>,
    pub(super) hold: Option<plan::Hold>,
    /// The Host that probes name: the first that is routed to the app, so that an app which checks its hosts (Django) knows it.
    pub(super) host: Option<String>,
}

/// Servers to pick from.
///
/// Shape: an `[upstream]` keeps its servers for life; the servers of an app are its instances and follow the master's table.
#[derive(Debug)]
pub struct Pool {
    pub(super) spec: Spec,
    pub(super) shared: Arc<Shared>,
    balance: Balance,
    timeouts: UpstreamTimeouts,
    retry: Retry,
    http: UpstreamHttp,
    budget: Arc<Budget>,
    /// Swapped alone: no other state must agree with it (a pick reads it once).
    set: ArcSwap<Set>,
    /// Where requests wait while no instance of an app is ready.
    room: Option<Arc<Room>>,
    /// Some instance of the app is on its way.
    coming: AtomicBool,
    /// Unix milliseconds at which the next start of an app's instance is due; 0: unknown.
    due_ms: AtomicU64,
    /// The second, since the epoch and plus one, in which a request last found nobody.
    asked: AtomicU64,
    /// Keeps the series of instances that are not running at the moment.
    _series: Vec<Arc<crate::telemetry::ServerMetrics>>,
}

#[derive(Debug)]
struct Set {
    servers: Box<[Arc<Server>]>,
    /// Held for one turn over the servers; round robin and ties alone need it.
    wheel: Mutex<Wheel>,
}

/// Why no server was given. `Refused::Tried`: the last server's failure is the answer (502, 504); else 503 with `Retry-After`.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[error("find a server that may take the request: {}", match why { Refused::Down => "none is up", Refused::Full => "all are full", Refused::Tried => "all were tried" })]
pub struct Unavailable {
    pub retry_after: Duration,
    pub why: Refused,
}

/// A pool as `gateway upstreams` and the admin interface show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolView {
    pub upstream: UpstreamName,
    /// Its servers are the instances of the app of this name.
    pub app: bool,
    pub balance: &'static str,
    /// No server is well: requests go to doubtful ones.
    pub panic: bool,
    pub servers: Vec<ServerView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerView {
    pub server: String,
    /// As resolved at the moment, where that differs from `server`.
    pub addr: Option<String>,
    /// `up` `down` `slow` `ejected` `suspect` `draining` `unresolved`
    pub state: &'static str,
    pub in_flight: u32,
    pub weight: u16,
    pub backup: bool,
    /// Why it is not up, in the words of the last probe; or that it hangs.
    pub reason: Option<String>,
}

pub(super) struct Parts {
    pub(super) spec: Spec,
    pub(super) shared: Arc<Shared>,
    pub(super) balance: Balance,
    pub(super) timeouts: UpstreamTimeouts,
    pub(super) retry: Retry,
    pub(super) http: UpstreamHttp,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) series: Vec<Arc<crate::telemetry::ServerMetrics>>,
    pub(super) room: Option<Arc<Room>>,
}

/// How likely an app is to serve soon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Prospect {
    /// Some instance starts, serves, or is about to be replaced.
    pub(super) coming: bool,
    /// Unix milliseconds at which the next start is due; 0: unknown.
    pub(super) due_ms: u64,
}

thread_local! {
    /// Spares an allocation a pick.
    static CANDIDATES: RefCell<Vec<Candidate>> = const { RefCell::new(Vec::new()) };
}

impl Pool {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { spec, shared, balance, timeouts, retry, http, servers, series, room } = parts;
        let budget = Arc::new(Budget::new(retry.budget));
        let set = ArcSwap::from_pointee(Set::new(servers));
        let coming = AtomicBool::new(true);
        Self {
            spec,
            shared,
            balance,
            timeouts,
            retry,
            http,
            budget,
            set,
            room,
            coming,
            due_ms: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            _series: series,
        }
    }

    #[must_use]
    pub fn name(&self) -> &UpstreamName {
        &self.shared.name
    }

    /// The app whose instances its servers are.
    #[must_use]
    pub fn app(&self) -> Option<&AppName> {
        match &self.spec {
            Spec::Upstream(_) => None,
            Spec::App(app) => Some(&app.name),
        }
    }

    #[must_use]
    pub fn timeouts(&self) -> &UpstreamTimeouts {
        &self.timeouts
    }

    #[must_use]
    pub fn http(&self) -> UpstreamHttp {
        self.http
    }

    #[must_use]
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    pub(in crate::edge) fn room(&self) -> Option<&Arc<Room>> {
        self.room.as_ref()
    }

    /// The Host that probes of an app name.
    pub(super) fn probe_host(&self) -> Option<String> {
        match &self.spec {
            Spec::Upstream(_) => None,
            Spec::App(app) => match &app.ready {
                plan::Ready::Http { host: Some(host), .. } => Some(host.clone()),
                plan::Ready::Http { host: None, .. }
                | plan::Ready::Tcp { .. }
                | plan::Ready::Log { .. }
                | plan::Ready::Notify { .. }
                | plan::Ready::Started => app.host.clone(),
            },
        }
    }

    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.set.load().servers.to_vec()
    }

    /// Where a request may wait for an instance of this app, and within which bounds; `None`: it may not, or in vain.
    #[must_use]
    pub fn waiting_room(&self) -> Option<(&Arc<Room>, &plan::Hold)> {
        let (Spec::App(AppSpec { hold: Some(hold), .. }), Some(room)) = (&self.spec, &self.room) else { return None };
        let due = Duration::from_millis(self.due_ms.load(Ordering::Relaxed));
        let soon = || !due.is_zero() && due.saturating_sub(unix()) < hold.time;
        (self.coming.load(Ordering::Relaxed) || soon()).then_some((room, hold))
    }

    /// Some server can do what a release on trial could not: one that stands by, or serves again.
    #[must_use]
    pub fn has_proven(&self, now: Duration) -> bool {
        self.set.load().servers.iter().any(|server| server.standing(now) != Standing::Out && server.vitals.duty() != Duty::OnTrial)
    }

    /// Too many requests failed on a server: it is out until then, where another one serves.
    pub fn eject(&self, server: ServerId, now: Duration, until: Duration) {
        let set = self.set.load();
        let others = || set.servers.iter().any(|other| other.id() != server && other.standing(now) == Standing::Well);
        if let Some(found) = set.servers.iter().find(|known| known.id() == server)
            && others()
        {
            found.eject(now, until);
        }
    }

    /// The app to be told that a request finds none of its processes: once a second.
    #[must_use]
    pub fn asks(&self, now: Duration) -> Option<&AppName> {
        let second = now.as_secs() + 1;
        self.app().filter(|_| self.asked.swap(second, Ordering::Relaxed) != second)
    }

    /// The pool that is in force for its app: a reload may have replaced this one, which is not kept up to date any more.
    #[must_use]
    pub fn in_force(&self) -> Option<Arc<Self>> {
        self.room.as_ref()?.pool()
    }

    /// A request is on its way: retries are a share of those.
    pub(super) fn enter(&self, now: Duration) {
        if self.retry.tries.get() > 1 {
            self.budget.request(now);
        }
    }

    /// Takes one retry of the budget, and counts it; `false`: it is spent.
    pub(super) fn spend(&self, now: Duration) -> bool {
        let may = self.budget.take(now);
        if may {
            self.shared.metrics.retried();
        }
        may
    }

    /// This very server, where it still takes requests.
    pub(super) fn again(&self, server: ServerId) -> Option<Lease> {
        self.set.load().servers.iter().find(|known| known.id() == server).and_then(Lease::of)
    }

    /// A server for one request. `tried`: those it has been to already.
    ///
    /// Shape: waits for nothing; `max_conns` holds exactly, over all threads.
    /// Errors: [`Unavailable`]
    pub fn pick(&self, now: Duration, tried: &[ServerId], trust: Trust, dice: &mut impl FnMut() -> u64) -> Result<Lease, Unavailable> {
        let set = self.set.load();
        // What was chosen may fill up or close before it is taken: then the choice is made anew. A few times: after that it is full indeed.
        for _ in 0..4 {
            let chosen = CANDIDATES.with_borrow_mut(|candidates| {
                candidates.clear();
                candidates.extend(set.servers.iter().map(|server| server.candidate(now, tried, trust)));
                self.choose(&set, candidates, dice)
            });
            let index = chosen.map_err(|why| self.unavailable(why))?;
            if let Some(lease) = Lease::of(&set.servers[index]) {
                return Ok(lease);
            }
        }
        Err(self.unavailable(Refused::Full))
    }

    fn choose(&self, set: &Set, candidates: &[Candidate], dice: &mut impl FnMut() -> u64) -> Result<usize, Refused> {
        let tier = Tier::of(candidates)?;
        let admits = |candidate: &Candidate| tier.admits(candidate);
        let chosen = match self.balance {
            Balance::RoundRobin => set.turn(candidates, admits),
            Balance::LeastConn => balance::least(candidates, admits).and_then(|least| match least {
                Least::One(index) => Some(index),
                Least::Tie(load) => set.turn(candidates, |candidate| admits(candidate) && balance::Load::of(candidate) == load),
            }),
            Balance::P2c => balance::p2c(candidates, admits, dice),
        };
        chosen.ok_or(Refused::Full)
    }

    fn unavailable(&self, why: Refused) -> Unavailable {
        let second = Duration::from_secs(1);
        let retry_after = match (why, &self.spec) {
            (Refused::Full | Refused::Tried, _) => second,
            (Refused::Down, Spec::Upstream(spec)) => {
                spec.health.as_ref().map_or(5 * second, |health| health.interval.clamp(second, 60 * second))
            }
            (Refused::Down, Spec::App(_)) => {
                let due = Duration::from_millis(self.due_ms.load(Ordering::Relaxed));
                due.saturating_sub(unix()).clamp(second, 60 * second)
            }
        };
        Unavailable { retry_after, why }
    }

    /// What a request needs that may leave a server which hangs; `None`: there is no sibling, or `retry` says no.
    #[must_use]
    pub fn moves(&self) -> Option<Move> {
        let named = self.retry.on.iter().any(|on| matches!(on, RetryOn::Connect | RetryOn::Timeout));
        let may = named && self.retry.tries.get() > 1 && self.set.load().servers.len() > 1;
        may.then(|| Move::new(&self.budget, &self.shared.metrics))
    }

    /// Brings the gauges up to date: ejections end without an event. For the prober, once a second, and whoever renders metrics, just before.
    pub fn observe(&self, now: Duration) {
        let set = self.set.load();
        for server in &set.servers {
            server.metrics.set_up(server.standing(now) == Standing::Well);
        }
        self.shared.metrics.set_panic(set.panic(now));
    }

    /// Some server may take requests, in panic mode too.
    #[must_use]
    pub fn serves(&self, now: Duration) -> bool {
        self.set.load().servers.iter().any(|server| server.standing(now) != Standing::Out)
    }

    #[must_use]
    pub fn view(&self, now: Duration) -> PoolView {
        let set = self.set.load();
        let servers = set.servers.iter().map(|server| {
            let found = server.address.found().map(|found| match &*found {
                super::PeerAddr::Tcp(addr) => addr.to_string(),
                super::PeerAddr::Unix(path) => format!("unix:{}", path.display()),
            });
            ServerView {
                server: server.label.clone(),
                addr: found.filter(|found| *found != server.label),
                state: server.state(now),
                in_flight: server.in_flight(),
                weight: server.weight,
                backup: server.role == Role::Backup,
                reason: server.reason(now),
            }
        });
        PoolView {
            upstream: self.shared.name.clone(),
            app: matches!(self.spec, Spec::App(_)),
            balance: match self.balance {
                Balance::RoundRobin => "round_robin",
                Balance::LeastConn => "least_conn",
                Balance::P2c => "p2c",
            },
            panic: set.panic(now),
            servers: servers.collect(),
        }
    }

    /// The instances of an app have changed.
    pub(super) fn replace(&self, servers: Vec<Arc<Server>>, prospect: Prospect) {
        self.due_ms.store(prospect.due_ms, Ordering::Relaxed);
        self.coming.store(prospect.coming, Ordering::Relaxed);
        let same = {
            let set = self.set.load();
            set.servers.len() == servers.len() && set.servers.iter().zip(&servers).all(|(old, new)| Arc::ptr_eq(old, new))
        };
        if !same {
            let gone = self.set.swap(Arc::new(Set::new(servers)));
            for server in &gone.servers {
                server.metrics.set_up(false);
            }
        }
        if let Some(room) = &self.room {
            room.ring();
        }
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Set {
    fn new(servers: Vec<Arc<Server>>) -> Self {
        Self { servers: servers.into(), wheel: Mutex::default() }
    }

    fn turn(&self, candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) -> Option<usize> {
        lock(&self.wheel).turn(candidates, fits)
    }

    fn panic(&self, now: Duration) -> bool {
        let standing = |wanted| self.servers.iter().any(|server| server.standing(now) == wanted);
        !standing(Standing::Well) && (standing(Standing::Doubtful) || standing(Standing::Suspect))
    }
}
