//! Plans for tests: one builder for each shape. What it gives is valid and serves nothing; a test names what it is about and takes the rest from here.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    time::Duration,
};

use http::StatusCode;

use super::{
    Acme, Action, App, AppLimits, AppPort, Balance, Ban, BanMode, DeployPolicy, FilterMode, Filters, Limits, Listen, Log, LogFormat,
    LogLevel, Passive, PathMatch, Plan, Ready, Recycle, RestartPolicy, Retry, RetryOn, Rotation, Route, Server, Site, SiteTls, Stop,
    Timeouts, TlsPolicy, TlsVersion, Underscores, Upstream, UpstreamHttp, UpstreamTimeouts, Zone, ZoneKey, ZoneMode,
    app::{Policy, StopSignal},
    ban::Offence,
};
use crate::vocab::{ByteSize, HostPattern, Pace, ServerAddr};

pub const SECOND: Duration = Duration::from_secs(1);

/// No filter looks at anything.
pub const NO_FILTERS: Filters = Filters::new(FilterMode::Off, FilterMode::Off, FilterMode::Off);

pub fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

pub fn pace(text: &str) -> Pace {
    Pace::parse(text).expect("a pace")
}

/// Nothing listens, nothing is served.
pub fn plan() -> Plan {
    let wait = 10 * SECOND;
    Plan {
        files: Vec::new(),
        state: "/nowhere".into(),
        run: "/nowhere".into(),
        user: "nobody".into(),
        workers: NonZeroUsize::MIN,
        trusted_proxies: Vec::new(),
        listen: Listen {
            http: Vec::new(),
            https: Vec::new(),
            proxy_protocol: false,
            max_connections: count(100),
            max_connections_per_ip: None,
        },
        timeouts: Timeouts { header: wait, idle: wait, body: wait, send: wait, drain: wait },
        limits: limits(),
        tls: TlsPolicy { min: TlsVersion::V1_2, acme: Acme::none() },
        admin: None,
        log: Log { level: LogLevel::Info, format: LogFormat::Text, dir: None, access: None, rotate: rotation() },
        apps: Default::default(),
        upstreams: Default::default(),
        zones: Default::default(),
        users: Default::default(),
        ban: None,
        sites: Vec::new(),
    }
}

pub fn limits() -> Limits {
    Limits {
        headers: ByteSize(16 << 10),
        header_count: count(100),
        uri: ByteSize(8 << 10),
        body: ByteSize(10 << 20),
        buffer: None,
        buffers: None,
        streams: count(100),
        resets: pace("100r/10s"),
        underscores: Underscores::Drop,
    }
}

/// One process that is reached by a port of the private range.
pub fn app() -> App {
    App {
        command: vec!["app".into()],
        before_start: Default::default(),
        autostart: true,
        nice: None,
        dir: None,
        user: None,
        group: None,
        env: Default::default(),
        env_file: Default::default(),
        procs: NonZeroU16::MIN,
        port: AppPort::Allotted,
        http: UpstreamHttp::V1,
        ready: Ready::Tcp { timeout: 30 * SECOND },
        live: None,
        restart: RestartPolicy {
            policy: Policy::Always,
            delay: Duration::from_millis(250),
            max_delay: 30 * SECOND,
            budget: Pace::new(3, 60 * SECOND).expect("a pace"),
            success: Vec::new(),
            give_up: Vec::new(),
        },
        stop: Stop { signal: StopSignal::Term, timeout: 20 * SECOND, drain: 15 * SECOND },
        limits: AppLimits::default(),
        umask: None,
        recycle: Recycle::default(),
        hold: None,
        memory_max: None,
        after: Vec::new(),
        schedule: None,
        before: Vec::new(),
        watchdog: None,
        deploy: DeployPolicy { warm: Vec::new(), guard: 30 * SECOND, errors: 0.05, before_timeout: 600 * SECOND },
        release: None,
        log: rotation(),
        timeouts: upstream_timeouts(),
    }
}

/// A process that nothing is routed to.
pub fn worker() -> App {
    App { port: AppPort::None, ready: Ready::Started, ..app() }
}

pub fn rotation() -> Rotation {
    Rotation { size: ByteSize(1 << 20), age: None, keep: 1, compress: false }
}

pub fn upstream_timeouts() -> UpstreamTimeouts {
    UpstreamTimeouts { connect: SECOND, read: SECOND, send: SECOND, idle: SECOND }
}

/// Two servers, 127.0.0.1:1 and :2.
pub fn upstream() -> Upstream {
    Upstream {
        servers: (1..=2).map(|port| server(SocketAddr::from(([127, 0, 0, 1], port)))).collect(),
        balance: Balance::RoundRobin,
        health: None,
        passive: Passive { fails: count(3), within: 10 * SECOND, eject: 10 * SECOND },
        retry: Retry { tries: count(2), on: vec![RetryOn::Connect, RetryOn::Status(503)], budget: 0.2 },
        timeouts: upstream_timeouts(),
        http: UpstreamHttp::V1,
    }
}

pub fn server(addr: SocketAddr) -> Server {
    Server { addr: ServerAddr::Tcp(addr), weight: NonZeroU16::MIN, backup: false, max_conns: None }
}

/// By address, ten a second and none beyond.
pub fn zone() -> Zone {
    Zone {
        key: vec![ZoneKey::Ip],
        rate: Some(pace("10r/s")),
        burst: 0,
        delay: 0,
        concurrent: None,
        status: StatusCode::TOO_MANY_REQUESTS,
        count: Vec::new(),
        headers: None,
        mode: ZoneMode::Enforce,
        max_keys: count(1000),
    }
}

/// As the configuration's example has it.
pub fn ban() -> Ban {
    Ban {
        points: [(Offence::BadUri, 5), (Offence::Zone, 2), (Offence::Status(401), 2), (Offence::Status(404), 1)].into(),
        max: count(10),
        find_time: 600 * SECOND,
        ban_time: 3600 * SECOND,
        grow: true,
        ignore: Vec::new(),
        mode: BanMode::Enforce,
    }
}

/// Without a route, and in the clear.
pub fn site(name: &str) -> Site {
    Site {
        name: name.into(),
        hosts: vec![HostPattern::parse(name).expect("a host")],
        redirected: Vec::new(),
        canonical: None,
        tls: SiteTls::Off,
        client_ca: None,
        headers: super::HeaderBase::Off.into(),
        filters: NO_FILTERS,
        allow: Vec::new(),
        deny: Vec::new(),
        maintenance: Default::default(),
        routes: Vec::new(),
    }
}

/// All of a site, answered with 404.
pub fn route() -> Route {
    Route {
        path: PathMatch::Prefix("/".into()),
        action: Action::NotFound,
        strip: None,
        rewrite: None,
        zones: Vec::new(),
        methods: Vec::new(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        body_limit: ByteSize(1000),
        buffer: None,
        filters: NO_FILTERS,
        extensions: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        auth: None,
        cors: None,
    }
}
