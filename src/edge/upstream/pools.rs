//! All upstreams and apps of one plan.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    check::Check,
    group::Manner,
    hold::Room,
    instances::{Instances, Known},
    pool::{self, AppSpec, Pool, Prospect, Spec},
    server::{self, Address, Server, Shared, Vitals},
};
use crate::{
    ipc::message::{AppTable, Duty, Incarnation, Instance, InstanceId, InstanceState, Tally},
    plan::{self, Action, Balance, Passive, Plan, Retry, RetryOn, UpstreamHttp, UpstreamTimeouts},
    rules::{
        balance::Role,
        health::{Ejection, Verdict},
    },
    telemetry::{Series, UpstreamMetrics},
    vocab::{AppName, HostPattern, UpstreamName},
};

/// The pools by name.
///
/// Shape: immutable but for the servers of apps, which follow [`Pools::apps`]; part of a `Live`.
#[derive(Debug)]
pub struct Pools {
    pools: HashMap<UpstreamName, Arc<Pool>>,
    instances: Arc<Instances>,
}

impl Pools {
    /// Pools for `plan`. One whose name and spec are those of `old` is carried over as it is. Else a new one is made, and a server whose address `old` knew
    /// keeps what was known of it; if its health spec has changed too, one that was not up is a new server.
    ///
    /// Changes nothing of what is in force; [`Pools::enter`] follows, once.
    pub fn prepare(plan: &Plan, old: Option<&Self>, series: &Series) -> Self {
        let instances = old.map_or_else(Instances::new, |old| old.instances.clone());
        let upstreams = plan.upstreams.iter().map(|(name, spec)| (name.clone(), Spec::Upstream(spec.clone())));
        let apps = plan.apps.iter().filter_map(|(name, app)| Some((UpstreamName::from(name), Spec::App(app_spec(plan, name, app)?))));
        let pools = upstreams.chain(apps).map(|(name, spec)| {
            let before = old.and_then(|old| old.pools.get(&name));
            let pool = match before {
                Some(before) if before.spec == spec => before.clone(),
                Some(_) | None => Arc::new(make(&name, spec, before.map(Arc::as_ref), series)),
            };
            (name, pool)
        });
        Self { pools: pools.collect(), instances }
    }

    /// They are in force from now on: those who wait in a room find its pool here, and the instances of apps become servers.
    pub fn enter(&self, series: &Series) {
        for pool in self.iter() {
            if let Some(room) = pool.room() {
                room.is_of(pool);
            }
        }
        self.follow(&self.instances.table(), series);
    }

    #[must_use]
    pub fn get(&self, name: &UpstreamName) -> Option<&Arc<Pool>> {
        self.pools.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// Time since this edge started: the `now` of every pool and lease.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.instances.epoch.elapsed()
    }

    /// The master's table, whole: instances become servers, ready ones take requests, draining ones take no more.
    pub fn apps(&self, table: &AppTable, series: &Series) {
        self.instances.take(table);
        self.follow(table, series);
    }

    /// Requests that are on this start of an instance, those of pools that a reload has replaced included.
    #[must_use]
    pub fn in_flight(&self, id: &InstanceId, incarnation: Incarnation) -> u32 {
        self.instances.find(id, incarnation).map_or(0, |known| known.vitals.in_flight())
    }

    /// How many requests the instances have had: of those that have had more than when it was last asked.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.instances.tallies()
    }

    /// Asks an instance that is not in rotation for these paths.
    ///
    /// Errors: which path was not answered below 500, and how.
    pub fn warm(
        &self,
        id: &InstanceId,
        incarnation: Incarnation,
        paths: Vec<String>,
        within: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static {
        let address = self.instances.find(id, incarnation).map(|known| known.address);
        let pool = self.pools.get(&UpstreamName::from(&id.app));
        let host = pool.and_then(|pool| pool.probe_host());
        let version = pool.map_or(UpstreamHttp::V1, |pool| pool.http());
        async move { warm(address, host, version, paths, within).await }
    }

    /// Closes it to new requests, then waits until none is on it or `within` has passed. Gives how many are left.
    ///
    /// Cancel-safety: safe; it stays closed.
    pub fn drained(&self, id: &InstanceId, incarnation: Incarnation, within: Duration) -> impl Future<Output = u32> + Send + 'static {
        let (instances, id) = (self.instances.clone(), id.clone());
        async move { instances.drained(&id, incarnation, within).await }
    }

    /// See [`Pool::observe`].
    pub fn observe(&self) {
        let now = self.now();
        self.iter().for_each(|pool| pool.observe(now));
    }

    pub(super) fn instances(&self) -> &Arc<Instances> {
        &self.instances
    }

    fn follow(&self, table: &AppTable, series: &Series) {
        for pool in self.pools.values() {
            let Spec::App(app) = &pool.spec else { continue };
            let before = pool.servers();
            let of_app = || table.instances.iter().filter(|instance| instance.id.app == app.name);
            let servers = of_app().filter_map(|instance| {
                let known = self.instances.find(&instance.id, instance.incarnation)?;
                let same = |server: &&Arc<Server>| {
                    server.duty == instance.duty
                        && Arc::ptr_eq(&server.vitals, &known.vitals)
                        && Arc::ptr_eq(&server.address, &known.address)
                };
                Some(before.iter().find(same).cloned().unwrap_or_else(|| instance_server(pool, instance, known, series)))
            });
            pool.replace(servers.collect(), prospect(of_app()));
            pool.observe(self.now());
        }
    }
}

/// 1xx to 4xx: of what is not there or not allowed an app says so in good health.
const WELL: (u16, u16) = (100, 499);

async fn warm(
    address: Option<Arc<Address>>,
    host: Option<String>,
    version: UpstreamHttp,
    paths: Vec<String>,
    within: Duration,
) -> Result<(), String> {
    let addr = address.and_then(|address| address.found()).ok_or_else(|| "it is gone".to_owned())?;
    let host = host.unwrap_or_else(|| "localhost".into());
    for path in paths {
        let check = Check::Http { path: path.clone(), host: host.clone(), expect: vec![WELL], version };
        check.run(&addr, within).await.map_err(|fault| format!("{path}: {fault}"))?;
    }
    Ok(())
}

/// `None`: a worker, nothing is routed to it.
fn app_spec(plan: &Plan, name: &AppName, app: &plan::App) -> Option<AppSpec> {
    match app.port {
        plan::AppPort::None => None,
        plan::AppPort::Allotted | plan::AppPort::Fixed { .. } | plan::AppPort::Socket => Some(AppSpec {
            name: name.clone(),
            procs: app.procs.get(),
            timeouts: app.timeouts.clone(),
            http: app.http,
            ready: app.ready.clone(),
            live: app.live.clone(),
            hold: app.hold.clone(),
            host: probe_host(plan, &UpstreamName::from(name)),
        }),
    }
}

fn probe_host(plan: &Plan, upstream: &UpstreamName) -> Option<String> {
    let serves =
        |site: &&plan::Site| site.routes.iter().any(|route| matches!(&route.action, Action::Proxy { upstream: to } if to == upstream));
    plan.sites.iter().filter(serves).flat_map(|site| &site.hosts).find_map(|host| match host {
        HostPattern::Exact(host) => Some(host.to_string()),
        HostPattern::Wildcard(_) | HostPattern::Any => None,
    })
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// An app as an upstream: what `[upstream]` has by default. One more try than there, as a rolling restart may meet two instances that are going.
fn app_upstream(timeouts: &UpstreamTimeouts, http: UpstreamHttp) -> plan::Upstream {
    let seconds = Duration::from_secs;
    plan::Upstream {
        servers: Vec::new(),
        balance: Balance::RoundRobin,
        health: None,
        passive: Passive { fails: ONE.saturating_add(2), within: seconds(10), eject: seconds(10) },
        retry: Retry { tries: ONE.saturating_add(2), on: vec![RetryOn::Connect], budget: 0.2 },
        timeouts: timeouts.clone(),
        http,
    }
}

fn make(name: &UpstreamName, spec: Spec, old: Option<&Pool>, series: &Series) -> Pool {
    let upstream = match &spec {
        Spec::Upstream(upstream) => upstream.clone(),
        Spec::App(app) => app_upstream(&app.timeouts, app.http),
    };
    let plan::Upstream { servers, balance, health, passive, retry, timeouts, http } = upstream;
    let shared = Arc::new(shared(name, &passive, &retry, series.upstream(name)));
    let manner = Manner::of(&timeouts, &http);
    let servers = servers.iter().map(|server| {
        let plan::Server { addr, weight, backup, max_conns } = server;
        let (address, vitals) = adopt(addr, health.as_ref(), old);
        let label = addr.to_string();
        Server::new(server::Parts {
            metrics: series.server(name, &label),
            label,
            address,
            weight: weight.get(),
            role: if *backup { Role::Backup } else { Role::Primary },
            max_conns: *max_conns,
            manner,
            instance: None,
            duty: Duty::Serves,
            vitals,
            shared: shared.clone(),
        })
    });
    let servers = servers.collect();
    let kept = match &spec {
        Spec::Upstream(_) => Vec::new(),
        Spec::App(app) => (0..app.procs).map(|n| series.server(name, &InstanceId { app: app.name.clone(), n }.to_string())).collect(),
    };
    let room = match &spec {
        Spec::Upstream(_) => None,
        // Who waits there may wait for this pool now.
        Spec::App(app) => Some(old.and_then(|old| old.room().cloned()).unwrap_or_else(|| Room::new(series.hold(&app.name)))),
    };
    Pool::new(pool::Parts { spec, shared, balance, timeouts, retry, http, servers, series: kept, room })
}

/// What the instances of an app let a request hope for.
fn prospect<'a>(instances: impl Iterator<Item = &'a Instance>) -> Prospect {
    let mut prospect = Prospect { coming: false, due_ms: 0 };
    for instance in instances {
        match instance.state {
            InstanceState::Starting | InstanceState::Ready | InstanceState::Draining | InstanceState::Stopping => prospect.coming = true,
            InstanceState::Backoff | InstanceState::Cooldown | InstanceState::Taken => {
                if let Some(due) = instance.due_ms {
                    prospect.due_ms = if prospect.due_ms == 0 { due } else { due.min(prospect.due_ms) };
                }
            }
            InstanceState::Stopped | InstanceState::Exited | InstanceState::Failed => {}
        }
    }
    prospect
}

fn shared(name: &UpstreamName, passive: &Passive, retry: &Retry, metrics: Arc<UpstreamMetrics>) -> Shared {
    let Passive { fails, within, eject } = passive;
    let failures = retry.on.iter().filter_map(|on| match on {
        RetryOn::Status(status) => Some(*status),
        RetryOn::Connect | RetryOn::Timeout => None,
    });
    let ejection = Ejection { fails: *fails, within: *within, eject: *eject };
    Shared { name: name.clone(), metrics, ejection, failures: failures.collect() }
}

fn adopt(addr: &crate::vocab::ServerAddr, health: Option<&plan::Health>, old: Option<&Pool>) -> (Arc<Address>, Arc<Vitals>) {
    let known = old.and_then(|pool| match &pool.spec {
        Spec::Upstream(spec) => Some((spec.health.as_ref(), pool.servers().into_iter().find(|server| server.address.asked() == addr)?)),
        Spec::App(_) => None,
    });
    let fresh = || Vitals::new(if health.is_some() { Verdict::New } else { Verdict::Up });
    match known {
        Some((before, server)) => {
            let keeps = before == health || server.vitals.verdict() == Verdict::Up;
            (server.address.clone(), if keeps { server.vitals.clone() } else { fresh() })
        }
        None => (Address::new(addr.clone()), fresh()),
    }
}

fn instance_server(pool: &Pool, instance: &Instance, known: Known, series: &Series) -> Arc<Server> {
    let Instance { id, incarnation, duty, .. } = instance;
    let label = id.to_string();
    Server::new(server::Parts {
        metrics: series.server(pool.name(), &label),
        label,
        address: known.address,
        weight: 1,
        role: match duty {
            Duty::Serves | Duty::OnTrial => Role::Primary,
            Duty::StandsBy => Role::Backup,
        },
        max_conns: None,
        manner: Manner::of(pool.timeouts(), &pool.http()),
        instance: Some((id.clone(), *incarnation)),
        duty: *duty,
        vitals: known.vitals,
        shared: pool.shared.clone(),
    })
}

#[cfg(test)]
mod tests;
