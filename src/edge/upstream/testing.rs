//! Plans and tables for this room's tests.

use std::{net::SocketAddr, num::NonZeroU16};

use super::Pools;
pub(super) use crate::plan::testing::server;
use crate::{
    ipc::message::{AppTable, Duty, Incarnation, Instance, InstanceId, InstanceState},
    plan::{
        self, Plan,
        testing::{self, SECOND, count},
    },
    telemetry::Metrics,
    vocab::{AppName, ServerAddr, UpstreamName},
};

impl Pools {
    /// Prepared and in force.
    pub(super) fn build(plan: &Plan, old: Option<&Self>, metrics: &Metrics) -> Self {
        let pools = Self::prepare(plan, old, metrics);
        pools.enter(metrics);
        pools
    }
}

/// A plan of upstreams and apps alone.
#[derive(Clone)]
pub(super) struct TestPlan(Plan);

impl TestPlan {
    pub(super) fn new() -> Self {
        Self(testing::plan())
    }

    /// Two servers, 127.0.0.1:1 and :2, unless it is there already.
    pub(super) fn upstream(mut self, name: &str, change: impl FnOnce(&mut plan::Upstream)) -> Self {
        let upstream = self.0.upstreams.entry(UpstreamName::parse(name).expect("a name")).or_insert_with(testing::upstream);
        change(upstream);
        self
    }

    pub(super) fn app(self, name: &str, procs: u16) -> Self {
        self.app_with(name, procs, |_| {})
    }

    pub(super) fn app_with(mut self, name: &str, procs: u16, change: impl FnOnce(&mut plan::App)) -> Self {
        let mut app = plan::App {
            procs: NonZeroU16::new(procs).expect("not zero"),
            restart: plan::RestartPolicy { delay: SECOND, max_delay: SECOND, budget: testing::pace("10r/s"), ..testing::app().restart },
            stop: plan::Stop { timeout: SECOND, drain: SECOND, ..testing::app().stop },
            ..testing::app()
        };
        change(&mut app);
        self.0.apps.insert(AppName::parse(name).expect("a name"), app);
        self
    }

    pub(super) fn plan(self) -> Plan {
        self.0
    }
}

pub(super) fn health() -> plan::Health {
    let kind = plan::HealthKind::Http { path: "/health".into(), host: None, expect: vec![(200, 200)] };
    plan::Health { kind, interval: 10 * SECOND, timeout: 5 * SECOND, fail: count(3), pass: count(2) }
}

/// Rows of app, instance, incarnation and state. Instance n of an incarnation i listens on 127.0.0.1:1000·i+n.
pub(super) fn table(rows: &[(&str, u16, u64, InstanceState)]) -> AppTable {
    let instances = rows.iter().map(|(app, n, incarnation, state)| {
        let port = u16::try_from(*incarnation * 1000 + u64::from(*n)).expect("a port");
        instance(app, *n, *incarnation, *state, SocketAddr::from(([127, 0, 0, 1], port)))
    });
    AppTable { instances: instances.collect(), ..AppTable::default() }
}

pub(super) fn instance(app: &str, n: u16, incarnation: u64, state: InstanceState, addr: SocketAddr) -> Instance {
    Instance {
        id: InstanceId { app: AppName::parse(app).expect("a name"), n },
        incarnation: Incarnation(incarnation),
        state,
        duty: Duty::Serves,
        release: None,
        since_ms: 0,
        pid: None,
        addr: Some(ServerAddr::Tcp(addr)),
        restarts: 0,
        last_exit: None,
        last_restart_ms: None,
        due_ms: None,
        manual: false,
        note: None,
        cpu_ms: 0,
        memory_bytes: 0,
    }
}
