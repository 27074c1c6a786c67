//! Plans and tables for this room's tests.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    time::Duration,
};

use crate::{
    ipc::message::{AppTable, Duty, Incarnation, Instance, InstanceId, InstanceState},
    plan::{self, Plan},
    vocab::{AppName, ByteSize, Pace, ServerAddr, UpstreamName},
};

const SECOND: Duration = Duration::from_secs(1);

fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

/// A plan of upstreams and apps alone.
#[derive(Clone)]
pub(super) struct TestPlan(Plan);

impl TestPlan {
    pub(super) fn new() -> Self {
        let pace = Pace::new(10, SECOND).expect("a pace");
        Self(Plan {
            files: Vec::new(),
            state: "/nowhere".into(),
            run: "/nowhere".into(),
            user: "nobody".into(),
            workers: NonZeroUsize::MIN,
            trusted_proxies: Vec::new(),
            listen: plan::Listen {
                http: Vec::new(),
                https: Vec::new(),
                proxy_protocol: false,
                max_connections: count(10),
                max_connections_per_ip: None,
            },
            timeouts: plan::Timeouts { header: SECOND, idle: SECOND, body: SECOND, send: SECOND, drain: SECOND },
            limits: plan::Limits {
                headers: ByteSize(1),
                header_count: count(1),
                uri: ByteSize(1),
                body: ByteSize(1),
                streams: count(1),
                resets: pace,
            },
            tls: plan::TlsPolicy { min: plan::TlsVersion::V1_2, acme: plan::Acme::none() },
            admin: None,
            log: plan::Log { level: plan::LogLevel::Info, format: plan::LogFormat::Text, dir: None, access: None, rotate: rotation() },
            apps: Default::default(),
            upstreams: Default::default(),
            zones: Default::default(),
            users: Default::default(),
            ban: None,
            sites: Vec::new(),
        })
    }

    /// Two servers, 127.0.0.1:1 and :2, unless it is there already.
    pub(super) fn upstream(mut self, name: &str, change: impl FnOnce(&mut plan::Upstream)) -> Self {
        let upstream = self.0.upstreams.entry(UpstreamName::parse(name).expect("a name")).or_insert_with(|| plan::Upstream {
            servers: (1..=2).map(|port| server(SocketAddr::from(([127, 0, 0, 1], port)))).collect(),
            balance: plan::Balance::RoundRobin,
            health: None,
            passive: plan::Passive { fails: count(3), within: 10 * SECOND, eject: 10 * SECOND },
            retry: plan::Retry { tries: count(2), on: vec![plan::RetryOn::Connect, plan::RetryOn::Status(503)], budget: 0.2 },
            timeouts: timeouts(),
            http: plan::UpstreamHttp::V1,
        });
        change(upstream);
        self
    }

    pub(super) fn app(self, name: &str, procs: u16) -> Self {
        self.app_with(name, procs, |_| {})
    }

    pub(super) fn app_with(mut self, name: &str, procs: u16, change: impl FnOnce(&mut plan::App)) -> Self {
        let mut app = plan::App {
            command: vec!["true".into()],
            dir: None,
            user: None,
            group: None,
            env: Default::default(),
            procs: NonZeroU16::new(procs).expect("not zero"),
            port: plan::AppPort::Allotted,
            ready: plan::Ready::Tcp { timeout: 30 * SECOND },
            live: None,
            restart: plan::RestartPolicy {
                policy: plan::app::Policy::Always,
                delay: SECOND,
                max_delay: SECOND,
                budget: Pace::new(10, SECOND).expect("a pace"),
                success: Vec::new(),
                give_up: Vec::new(),
            },
            stop: plan::Stop { signal: plan::app::StopSignal::Term, timeout: SECOND, drain: SECOND },
            limits: plan::AppLimits::default(),
            umask: None,
            recycle: plan::Recycle::default(),
            hold: None,
            memory_max: None,
            after: Vec::new(),
            schedule: None,
            before: Vec::new(),
            watchdog: None,
            deploy: plan::DeployPolicy {
                warm: Vec::new(),
                guard: Duration::from_secs(30),
                errors: 0.05,
                before_timeout: Duration::from_secs(600),
            },
            release: None,
            log: rotation(),
            timeouts: timeouts(),
        };
        change(&mut app);
        self.0.apps.insert(AppName::parse(name).expect("a name"), app);
        self
    }

    pub(super) fn plan(self) -> Plan {
        self.0
    }
}

pub(super) fn server(addr: SocketAddr) -> plan::Server {
    plan::Server { addr: ServerAddr::Tcp(addr), weight: NonZeroU16::MIN, backup: false, max_conns: None }
}

fn rotation() -> plan::Rotation {
    plan::Rotation { size: ByteSize(1), age: None, keep: 1, compress: false }
}

fn timeouts() -> plan::UpstreamTimeouts {
    plan::UpstreamTimeouts { connect: SECOND, read: SECOND, send: SECOND, idle: SECOND }
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
        cpu_ms: 0,
        memory_bytes: 0,
    }
}
