//! What it costs to screen a target, an agent, and a whole request through the gates.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use divan::{Bencher, black_box};
use gateway::{
    edge::gate::{self, Ask, Demand, GateRoute, GateSite, Verdict, ZoneSet},
    plan::{Action, FilterMode, Filters, Limits, PathMatch, Route, Site, SiteTls},
    rules::screen::{Screen, scanner},
    telemetry::Metrics,
    vocab::{ByteSize, HostPattern, Pace},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

fn main() {
    divan::main();
}

const ORDINARY: [&str; 6] = [
    "/",
    "/assets/app.3f9c2b1a.min.js",
    "/api/v1/users/42/orders?page=2&per_page=50&sort=-created",
    "/search?q=red+shoes+size+42&lang=en",
    "/login?next=%2Faccount%2Fsettings%3Ftab%3D1",
    "/oauth?redirect_uri=https%3A%2F%2Fapp.example.com%2Fcb%3Fx%3D1&scope=openid%20email&state=aGVsbG8%3D",
];

#[divan::bench(args = ORDINARY)]
fn ordinary(bencher: Bencher, target: &str) {
    let screen = Screen::new();
    bencher.bench(|| screen.judge(black_box(target.as_bytes()), &[]));
}

#[divan::bench(args = ["/.git/config", "/item?id=1%27%20or%20%271%27%3D%271", "/?q=%253Cscript%253Ealert(1)", "/?file=..%2f..%2f..%2fetc%2fpasswd"])]
fn attack(bencher: Bencher, target: &str) {
    let screen = Screen::new();
    bencher.bench(|| screen.judge(black_box(target.as_bytes()), &[]));
}

/// 8 KB of fragments of attacks that do not become one: whatever an engine could be made to do.
#[divan::bench(args = ["one", "mixed", "escapes", "letters"])]
fn hostile_8k(bencher: Bencher, kind: &str) {
    let parts: &[&str] = match kind {
        "one" => &["%27%20or%20"],
        "mixed" => &[
            "union ", "select(", "from ", "a'b ", "\"c ", "(x ", "<y ", "on=z", ";w ", "{{v ", "${u ", "..t/", "or 1 ", "case ", "when ",
            "then ", "/*s", "*/r", "=q", "&p=", "--o ", "java ", "data: ", "php:", "like ", "and (", "char(", "|n ", "\\m", "%0al ",
        ],
        "escapes" => &["%25", "32", "%", "5", "%u00", "25", "%c0", "&#x", ";", "\\x", "2"],
        _ => &["a", "e", "i", "o", "s", "l", "t", "c", "u", "n", " ", "'", "(", "=", ",", "1"],
    };
    let mut seed = 7u64;
    let mut target = b"/?q=".to_vec();
    while target.len() < 8192 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        target.extend_from_slice(parts[(seed >> 33) as usize % parts.len()].as_bytes());
    }
    let screen = Screen::new();
    bencher.bench(|| screen.judge(black_box(&target), &[]));
}

#[divan::bench]
fn agent(bencher: Bencher) {
    let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
    bencher.bench(|| scanner(black_box(agent.as_bytes())));
}

/// Sanity and every gate: a browser's request through a zone, all filters, lists of addresses.
#[divan::bench]
fn all_gates(bencher: Bencher) {
    let filters = Filters::new(FilterMode::Enforce, FilterMode::Enforce, FilterMode::Enforce);
    let zone_name = gateway::vocab::ZoneName::parse("api").expect("a name");
    let route = Route {
        path: PathMatch::Prefix("/".into()),
        action: Action::NotFound,
        strip: None,
        rewrite: None,
        zones: vec![zone_name.clone()],
        methods: vec![],
        request_headers: vec![],
        response_headers: vec![],
        body_limit: ByteSize(10 << 20),
        buffer: None,
        filters: filters.clone(),
        extensions: vec![],
        allow: vec![],
        deny: vec!["198.51.100.0/24".parse().expect("a net")],
        auth: None,
        cors: None,
    };
    let site = Site {
        name: "example.com".into(),
        hosts: vec![HostPattern::parse("example.com").expect("a host")],
        redirected: vec![],
        canonical: None,
        tls: SiteTls::Internal,
        client_ca: None,
        headers: gateway::plan::HeaderBase::Off.into(),
        filters,
        allow: vec![],
        deny: vec![],
        maintenance: Default::default(),
        routes: vec![],
    };
    let many = |n| NonZeroU32::new(n).expect("not zero");
    let zone = gateway::plan::Zone {
        key: vec![gateway::plan::ZoneKey::Ip],
        rate: Some(Pace::parse("1000000000r/s").expect("a pace")),
        burst: 1000,
        delay: 1000,
        concurrent: None,
        status: http::StatusCode::TOO_MANY_REQUESTS,
        count: vec![],
        headers: None,
        mode: gateway::plan::ZoneMode::Enforce,
        max_keys: many(100_000),
    };
    let limits = Limits {
        headers: ByteSize(16 << 10),
        header_count: many(100),
        uri: ByteSize(8 << 10),
        body: ByteSize(10 << 20),
        buffer: None,
        buffers: None,
        streams: many(100),
        resets: Pace::parse("100r/10s").expect("a pace"),
        underscores: gateway::plan::Underscores::Drop,
    };
    let metrics = Metrics::new();
    let zones = ZoneSet::of(&[(zone_name, zone)].into(), None, &metrics);
    let (gate_site, gate_route) =
        (GateSite::new(&site, Some(443), Demand::Nothing), GateRoute::new(&site, &route, &zones, &Arc::new(Screen::new()), &metrics));
    let target = "/api/v1/users/42/orders?page=2&per_page=50";
    let uri: Uri = target.parse().expect("a target");
    let headers: HeaderMap = [
        ("host", "example.com"),
        ("user-agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
        ("referer", "https://example.com/orders"),
        ("connection", "keep-alive"),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect();
    let client = [203, 0, 113, 7].into();
    let method = Method::GET;
    bencher.bench(|| {
        let ask = Ask {
            method: &method,
            uri: &uri,
            target: black_box(target.as_bytes()),
            version: Version::HTTP_11,
            headers: black_box(&headers),
            host: "example.com",
            peer: client,
            client,
            tls: true,
            secure: true,
            sni: Some("example.com"),
            proven: None,
            upgrade: false,
            request_id: "0123456789abcdef",
            seen: &std::cell::Cell::new(None),
        };
        let passed = gate::sanity(&ask, &limits) == Verdict::Pass
            && gate::admit(&ask, &gate_site, &gate_route, Duration::from_secs(5), &mut gate::Passage::default()) == Verdict::Pass;
        assert!(passed);
    });
}
