//! All upstreams and apps of one plan.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use super::{
    instances::{Instances, Known},
    pool::{self, AppSpec, Pool, Spec},
    server::{self, Address, Server, Shared, Vitals},
};
use crate::{
    ipc::message::{AppTable, Incarnation, InstanceId},
    plan::{self, Action, Balance, Passive, Plan, Retry, RetryOn, UpstreamHttp, UpstreamTimeouts},
    rules::{
        balance::Role,
        health::{Ejection, Verdict},
    },
    telemetry::{Metrics, UpstreamMetrics},
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
    pub fn build(plan: &Plan, old: Option<&Self>, metrics: &Metrics) -> Self {
        let instances = old.map_or_else(Instances::new, |old| old.instances.clone());
        let upstreams = plan.upstreams.iter().map(|(name, spec)| (name.clone(), Spec::Upstream(spec.clone())));
        let apps = plan.apps.iter().filter_map(|(name, app)| Some((UpstreamName::from(name), Spec::App(app_spec(plan, name, app)?))));
        let pools = upstreams.chain(apps).map(|(name, spec)| {
            let before = old.and_then(|old| old.pools.get(&name));
            let pool = match before {
                Some(before) if before.spec == spec => before.clone(),
                Some(_) | None => Arc::new(make(&name, spec, before.map(Arc::as_ref), metrics)),
            };
            (name, pool)
        });
        let pools = Self { pools: pools.collect(), instances };
        pools.follow(&pools.instances.table(), metrics);
        pools
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
    pub fn apps(&self, table: &AppTable, metrics: &Metrics) {
        self.instances.take(table);
        self.follow(table, metrics);
    }

    /// Requests that are on this start of an instance, those of pools that a reload has replaced included.
    #[must_use]
    pub fn in_flight(&self, id: &InstanceId, incarnation: Incarnation) -> u32 {
        self.instances.find(id, incarnation).map_or(0, |known| known.vitals.in_flight())
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

    fn follow(&self, table: &AppTable, metrics: &Metrics) {
        for pool in self.pools.values() {
            let Spec::App(app) = &pool.spec else { continue };
            let before = pool.servers();
            let of_app = || table.instances.iter().filter(|instance| instance.id.app == app.name);
            let servers = of_app().filter_map(|instance| {
                let known = self.instances.find(&instance.id, instance.incarnation)?;
                let same =
                    |server: &&Arc<Server>| Arc::ptr_eq(&server.vitals, &known.vitals) && Arc::ptr_eq(&server.address, &known.address);
                Some(
                    before
                        .iter()
                        .find(same)
                        .cloned()
                        .unwrap_or_else(|| instance_server(pool, &instance.id, instance.incarnation, known, metrics)),
                )
            });
            let due = of_app().filter_map(|instance| instance.due_ms).min();
            pool.replace(servers.collect(), due.unwrap_or(0));
            pool.observe(self.now());
        }
    }
}

/// `None`: a worker, nothing is routed to it.
fn app_spec(plan: &Plan, name: &AppName, app: &plan::App) -> Option<AppSpec> {
    match app.port {
        plan::AppPort::None => None,
        plan::AppPort::Allotted | plan::AppPort::Fixed { .. } | plan::AppPort::Socket => Some(AppSpec {
            name: name.clone(),
            procs: app.procs.get(),
            timeouts: app.timeouts.clone(),
            ready: app.ready.clone(),
            live: app.live.clone(),
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
fn app_upstream(timeouts: &UpstreamTimeouts) -> plan::Upstream {
    let seconds = Duration::from_secs;
    plan::Upstream {
        servers: Vec::new(),
        balance: Balance::RoundRobin,
        health: None,
        passive: Passive { fails: ONE.saturating_add(2), within: seconds(10), eject: seconds(10) },
        retry: Retry { tries: ONE.saturating_add(2), on: vec![RetryOn::Connect], budget: 0.2 },
        timeouts: timeouts.clone(),
        http: UpstreamHttp::V1,
    }
}

fn make(name: &UpstreamName, spec: Spec, old: Option<&Pool>, metrics: &Metrics) -> Pool {
    let upstream = match &spec {
        Spec::Upstream(upstream) => upstream.clone(),
        Spec::App(app) => app_upstream(&app.timeouts),
    };
    let plan::Upstream { servers, balance, health, passive, retry, timeouts, http } = upstream;
    let shared = Arc::new(shared(name, &passive, &retry, metrics.upstream(name)));
    let group = hash(&(format!("{timeouts:?}"), format!("{http:?}")));
    let servers = servers.iter().map(|server| {
        let plan::Server { addr, weight, backup, max_conns } = server;
        let (address, vitals) = adopt(addr, health.as_ref(), old);
        let label = addr.to_string();
        Server::new(server::Parts {
            metrics: metrics.server(name, &label),
            label,
            address,
            weight: weight.get(),
            role: if *backup { Role::Backup } else { Role::Primary },
            max_conns: *max_conns,
            spec: group,
            instance: None,
            vitals,
            shared: shared.clone(),
        })
    });
    let servers = servers.collect();
    let series = match &spec {
        Spec::Upstream(_) => Vec::new(),
        Spec::App(app) => (0..app.procs).map(|n| metrics.server(name, &InstanceId { app: app.name.clone(), n }.to_string())).collect(),
    };
    Pool::new(pool::Parts { spec, shared, balance, timeouts, retry, http, servers, series })
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

fn instance_server(pool: &Pool, id: &InstanceId, incarnation: Incarnation, known: Known, metrics: &Metrics) -> Arc<Server> {
    let label = id.to_string();
    Server::new(server::Parts {
        metrics: metrics.server(pool.name(), &label),
        label,
        address: known.address,
        weight: 1,
        role: Role::Primary,
        max_conns: None,
        spec: hash(&format!("{:?}", pool.timeouts())),
        instance: Some((id.clone(), incarnation)),
        vitals: known.vitals,
        shared: pool.shared.clone(),
    })
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{
        super::{Cause, Lease, ServerId},
        *,
    };
    use crate::{
        edge::upstream::testing::{self, TestPlan},
        ipc::message::InstanceState,
        rules::balance::Refused,
    };

    fn pick(pools: &Pools, name: &str, tried: &[ServerId]) -> Result<Lease, super::super::Unavailable> {
        pick_at(pools, name, tried, Duration::from_secs(100))
    }

    fn pick_at(pools: &Pools, name: &str, tried: &[ServerId], now: Duration) -> Result<Lease, super::super::Unavailable> {
        let name = UpstreamName::parse(name).expect("a name");
        pools.get(&name).expect("a pool").pick(now, tried, &mut || 4)
    }

    fn verdict(pools: &Pools, name: &str, server: usize, verdict: Verdict) {
        pools.get(&UpstreamName::parse(name).expect("a name")).expect("a pool").servers()[server].vitals.set_verdict(verdict, None);
    }

    #[test]
    fn a_probed_server_is_down_until_it_has_passed_once() {
        let plan = TestPlan::new().upstream("api", |api| api.health = Some(testing::health())).plan();
        let pools = Pools::build(&plan, None, &Metrics::new());
        let refused = pick(&pools, "api", &[]).expect_err("none has passed");
        assert_eq!((refused.why, refused.retry_after), (Refused::Down, Duration::from_secs(10)));
        verdict(&pools, "api", 1, Verdict::Up);
        assert_eq!(pick(&pools, "api", &[]).expect("it passed").label(), "127.0.0.1:2");
    }

    #[test]
    fn what_a_reload_does_not_change_is_carried_over_as_it_is() {
        let metrics = Metrics::new();
        let plan = TestPlan::new().upstream("api", |api| api.health = Some(testing::health())).upstream("other", |_| {});
        let old = Pools::build(&plan.clone().plan(), None, &metrics);
        verdict(&old, "api", 0, Verdict::Up);
        let lease = pick(&old, "api", &[]).expect("up");
        // Another weight: the pool is new, its servers are known.
        let new = Pools::build(
            &plan.clone().upstream("api", |api| api.servers[0].weight = std::num::NonZeroU16::MAX).plan(),
            Some(&old),
            &metrics,
        );
        let name = |name| UpstreamName::parse(name).expect("a name");
        assert!(Arc::ptr_eq(old.get(&name("other")).expect("there"), new.get(&name("other")).expect("there")));
        assert!(!Arc::ptr_eq(old.get(&name("api")).expect("there"), new.get(&name("api")).expect("there")));
        assert_eq!(new.get(&name("api")).expect("there").servers()[0].in_flight(), 1, "a request of before counts on");
        assert_eq!(pick(&new, "api", &[]).expect("still up").label(), lease.label());
        // Another probe: what was up stays up until the new one says otherwise, what was down is new.
        verdict(&old, "api", 1, Verdict::Down);
        let new = Pools::build(&plan.upstream("api", |api| api.health.as_mut().expect("set").interval *= 2).plan(), Some(&new), &metrics);
        let servers = new.get(&name("api")).expect("there").servers();
        assert_eq!((servers[0].vitals.verdict(), servers[1].vitals.verdict()), (Verdict::Up, Verdict::New));
    }

    #[test]
    fn failures_in_a_row_eject_a_server_but_never_the_last_one() {
        let pools = Pools::build(&TestPlan::new().upstream("api", |_| {}).plan(), None, &Metrics::new());
        let now = Duration::from_secs(50);
        let fail = |label: &str, now| {
            for _ in 0..100 {
                let lease = pick_at(&pools, "api", &[], now).expect("one");
                if lease.label() == label {
                    return lease.failed(now, Cause::Connect);
                }
                lease.answered(now, 200, Duration::ZERO);
            }
            panic!("{label} is never picked");
        };
        (0..3).for_each(|_| fail("127.0.0.1:1", now));
        for _ in 0..10 {
            assert_eq!(pick_at(&pools, "api", &[], now).expect("the other").label(), "127.0.0.1:2");
        }
        (0..3).for_each(|_| fail("127.0.0.1:2", now));
        let name = UpstreamName::parse("api").expect("a name");
        let view = pools.get(&name).expect("there").view(now);
        assert!(view.panic && view.servers.iter().all(|server| server.state == "ejected"));
        assert!(pick_at(&pools, "api", &[], now).is_ok(), "panic mode");
        let later = now + Duration::from_secs(10);
        assert!(!pools.get(&name).expect("there").view(later).panic, "ejection is over");
    }

    #[test]
    fn a_tried_server_is_not_picked_again_and_a_full_one_refuses() {
        let plan = TestPlan::new().upstream("api", |api| {
            api.servers.truncate(1);
            api.servers[0].max_conns = NonZeroU32::new(2);
        });
        let pools = Pools::build(&plan.plan(), None, &Metrics::new());
        let first = pick(&pools, "api", &[]).expect("free");
        assert_eq!(pick(&pools, "api", &[first.id()]).expect_err("tried").why, Refused::Tried);
        let second = pick(&pools, "api", &[]).expect("free");
        assert_eq!(pick(&pools, "api", &[]).expect_err("two are on it").why, Refused::Full);
        drop(second);
        assert!(pick(&pools, "api", &[]).is_ok());
    }

    #[test]
    fn retries_end_with_the_tries_and_stale_connections_are_free() {
        let pools = Pools::build(&TestPlan::new().upstream("api", |_| {}).plan(), None, &Metrics::new());
        let pool = pools.get(&UpstreamName::parse("api").expect("a name")).expect("there");
        let now = Duration::from_secs(1);
        assert!(pool.may_retry(now, Cause::Connect, false, 1));
        assert!(!pool.may_retry(now, Cause::Connect, false, 2), "tries = 2");
        assert!(!pool.may_retry(now, Cause::Reset, false, 1));
        assert!(pool.may_retry(now, Cause::Stale, true, 2));
        assert_eq!((0..200).filter(|_| pool.may_retry(now, Cause::Connect, false, 1)).count(), 99, "budget");
    }

    #[test]
    fn only_ready_instances_take_requests() {
        let metrics = Metrics::new();
        let pools = Pools::build(&TestPlan::new().app("web", 2).plan(), None, &metrics);
        let refused = pick(&pools, "web", &[]).expect_err("nothing runs");
        assert_eq!((refused.why, refused.retry_after), (Refused::Down, Duration::from_secs(1)));
        pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Ready), ("web", 1, 1, InstanceState::Starting)]), &metrics);
        for _ in 0..4 {
            assert_eq!(pick(&pools, "web", &[]).expect("one is ready").label(), "web.0");
        }
        let before = pick(&pools, "web", &[]).expect("one is ready").group();
        pools.apps(&testing::table(&[("web", 0, 2, InstanceState::Ready)]), &metrics);
        assert_ne!(pick(&pools, "web", &[]).expect("ready").group(), before, "connections to a process that is gone are not used again");
        // A reload builds the pool anew: the table is known already.
        let plan = TestPlan::new().app("web", 3).plan();
        assert!(pick(&Pools::build(&plan, Some(&pools), &metrics), "web", &[]).is_ok());
    }

    #[tokio::test]
    async fn draining_waits_for_exactly_the_requests_that_are_on_it() {
        let metrics = Metrics::new();
        let plan = TestPlan::new().app("web", 1).plan();
        let pools = Pools::build(&plan, None, &metrics);
        let (id, incarnation) = (InstanceId { app: AppName::parse("web").expect("a name"), n: 0 }, Incarnation(7));
        pools.apps(&testing::table(&[("web", 0, 7, InstanceState::Ready)]), &metrics);
        let leases = [pick(&pools, "web", &[]).expect("ready"), pick(&pools, "web", &[]).expect("ready")];
        assert_eq!(pools.in_flight(&id, incarnation), 2);
        assert_eq!(pools.drained(&id, incarnation, Duration::from_millis(10)).await, 2, "the deadline");
        assert!(leases[0].draining());
        assert_eq!(pick(&pools, "web", &[]).expect_err("closed").why, Refused::Down);
        // The app leaves the plan and the table while its requests go on.
        pools.apps(&testing::table(&[]), &metrics);
        let pools = Pools::build(&TestPlan::new().plan(), Some(&pools), &metrics);
        assert_eq!(pools.in_flight(&id, incarnation), 2);
        let mut drained = tokio::task::JoinSet::new();
        drained.spawn(pools.drained(&id, incarnation, Duration::from_secs(60)));
        tokio::task::yield_now().await;
        drop(leases);
        assert_eq!(drained.join_next().await.expect("one").expect("no panic"), 0);
        assert_eq!(pools.in_flight(&id, incarnation), 0);
        assert_eq!(pools.drained(&id, Incarnation(8), Duration::from_secs(60)).await, 0, "never heard of");
    }

    #[test]
    fn no_request_slips_onto_an_instance_that_was_closed() {
        for _ in 0..50 {
            let metrics = Metrics::new();
            let pools = Pools::build(&TestPlan::new().app("web", 1).plan(), None, &metrics);
            let (id, incarnation) = (InstanceId { app: AppName::parse("web").expect("a name"), n: 0 }, Incarnation(1));
            pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Ready)]), &metrics);
            let after_close = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Ok(lease) = pick(&pools, "web", &[]) {
                            drop(lease)
                        }
                    });
                }
                scope.spawn(|| {
                    pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Draining)]), &metrics);
                    let known = pools.instances.find(&id, incarnation).expect("known");
                    while known.vitals.in_flight() > 0 {
                        std::hint::spin_loop();
                    }
                    for _ in 0..1000 {
                        after_close.fetch_add(known.vitals.in_flight(), Ordering::Relaxed);
                    }
                });
            });
            assert_eq!(after_close.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn max_conns_holds_over_all_threads() {
        let plan = TestPlan::new().upstream("api", |api| api.servers.iter_mut().for_each(|server| server.max_conns = NonZeroU32::new(3)));
        let pools = Pools::build(&plan.plan(), None, &Metrics::new());
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..3000 {
                        let leases: Vec<_> = (0..3).filter_map(|_| pick(&pools, "api", &[]).ok()).collect();
                        for server in pools.get(&UpstreamName::parse("api").expect("a name")).expect("there").servers() {
                            most.fetch_max(server.in_flight(), Ordering::Relaxed);
                        }
                        drop(leases);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::Relaxed), 3);
    }
}
