//! What the tests of the room share.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use crate::{
    ipc::message::{TicketKey, TicketKeys},
    plan::{
        Action, FilterMode, Filters, Limits, Listen, Log, LogFormat, LogLevel, PathMatch, Plan, Rotation, Route, Site, SiteTls, Timeouts,
        TlsPolicy, TlsVersion,
    },
    vocab::{ByteSize, HostPattern, Pace, Secret},
};

const FILTERS: Filters = Filters::new(FilterMode::Off, FilterMode::Off, FilterMode::Off);

/// A plan that serves nothing.
pub fn plan() -> Plan {
    let wait = Duration::from_secs(10);
    let some = std::num::NonZeroU32::new(100).expect("some");
    Plan {
        files: Vec::new(),
        state: "/nowhere".into(),
        run: "/nowhere".into(),
        user: "nobody".into(),
        workers: NonZeroUsize::MIN,
        trusted_proxies: Vec::new(),
        listen: Listen { http: Vec::new(), https: Vec::new(), proxy_protocol: false, max_connections: some, max_connections_per_ip: None },
        timeouts: Timeouts { header: wait, idle: wait, body: wait, send: wait, drain: wait },
        limits: Limits {
            headers: ByteSize(1),
            header_count: some,
            uri: ByteSize(1),
            body: ByteSize(1),
            streams: some,
            resets: Pace::new(1, wait).expect("valid"),
        },
        tls: TlsPolicy { min: TlsVersion::V1_2, acme: crate::plan::Acme::none() },
        admin: None,
        log: Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
            dir: None,
            access: None,
            rotate: Rotation { size: ByteSize(1 << 20), age: None, keep: 2, compress: false },
        },
        apps: BTreeMap::new(),
        upstreams: BTreeMap::new(),
        zones: BTreeMap::new(),
        users: BTreeMap::new(),
        ban: None,
        sites: Vec::new(),
    }
}

/// A site that answers 404, over `tls`.
pub fn site(tls: SiteTls) -> Site {
    let route = Route {
        path: PathMatch::Prefix("/".into()),
        action: Action::NotFound,
        strip: None,
        rewrite: None,
        zones: Vec::new(),
        methods: vec![http::Method::GET],
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        body_limit: ByteSize(1),
        filters: FILTERS,
        extensions: Vec::new(),
        allow: vec!["10.0.0.0/8".parse().expect("valid")],
        deny: Vec::new(),
        auth: None,
        cors: None,
    };
    Site {
        name: "example.com".into(),
        hosts: vec![HostPattern::parse("*.example.com").expect("valid")],
        redirected: Vec::new(),
        canonical: None,
        tls,
        client_ca: None,
        headers: Vec::new(),
        filters: FILTERS,
        allow: Vec::new(),
        deny: Vec::new(),
        maintenance: Default::default(),
        routes: vec![route],
    }
}

mod children;
pub mod fake_edge;
mod link;
pub mod supervise;

/// Waits for a condition of the outside world.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and not merely unreaped.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Keys that never change.
pub fn tickets() -> tokio::sync::watch::Receiver<TicketKeys> {
    let keys = TicketKeys { current: TicketKey(Secret::new([7; 32])), previous: None };
    let (sender, seen) = tokio::sync::watch::channel(keys);
    // For the life of the test program: a closed channel would end the link.
    std::mem::forget(sender);
    seen
}

/// Numbers that a script wrote, one a line.
pub fn pids(file: &std::path::Path) -> Vec<i32> {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[test]
fn a_whole_plan_travels_over_the_link_as_it_is() {
    use crate::ipc::{
        codec::{Decoder, encode},
        message::{Config, Generation, Materials, ToEdge},
    };
    let mut plan = plan();
    plan.sites = vec![site(SiteTls::Internal)];
    plan.trusted_proxies = vec!["10.0.0.0/8".parse().expect("valid"), "fd00::/8".parse().expect("valid")];
    plan.listen.https = vec!["[::]:443".parse().expect("valid")];
    let config = Config { generation: Generation(7), plan, listeners: Vec::new(), materials: Materials::default() };
    let message = ToEdge::Apply(Box::new(config));
    let mut decoder = Decoder::new();
    decoder.push(&encode(&message, 3).expect("has a wire form"));
    assert_eq!(decoder.pop::<ToEdge>().expect("good"), Some((message, 3)));
}
