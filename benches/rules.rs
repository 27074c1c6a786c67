//! What the pure rules cost that every request passes: host, route, zone, screen. A proxied request must spend less than a microsecond on all of them.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use divan::{Bencher, black_box};
use gateway::{
    plan::{Action, FilterMode, Filters, PathMatch, Route, Site, SiteTls, Zone, ZoneKey},
    rules::{
        header,
        limit::{Key, Limiter},
        route::{Found, Router},
        screen::Screen,
    },
    vocab::{ByteSize, HostPattern, Pace},
};
use http::StatusCode;

fn main() {
    divan::main();
}

// --- host and route ---------------------------------------------------------------------------------------------------

fn route(path: PathMatch) -> Route {
    Route {
        path,
        action: Action::Respond { status: StatusCode::OK, body: String::new(), content_type: "text/plain".into() },
        strip: None,
        rewrite: None,
        zones: Vec::new(),
        methods: Vec::new(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        body_limit: ByteSize(10 << 20),
        filters: filters(),
        extensions: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn filters() -> Filters {
    Filters { bad_uri: FilterMode::Enforce, bad_method: FilterMode::Enforce, scanner_ua: FilterMode::Enforce }
}

/// `count` sites, each with `/`, twenty prefixes, five exact paths and, if asked for, two regexes.
fn router(count: usize, regexes: bool) -> Router {
    let sites: Vec<Site> = (0..count)
        .map(|n| {
            let mut routes = vec![route(PathMatch::Prefix("/".into()))];
            routes.extend((0..20).map(|p| route(PathMatch::Prefix(format!("/api/v{p}/")))));
            routes.extend((0..5).map(|p| route(PathMatch::Exact(format!("/exact/{p}")))));
            if regexes {
                routes.extend([r"\.(png|jpg|css|js)$", "^/user/[0-9]+/"].map(|r| route(PathMatch::Regex(r.into()))));
            }
            Site {
                name: format!("site{n}"),
                hosts: vec![HostPattern::parse(&format!("site{n}.example.com")).expect("a host")],
                redirected: Vec::new(),
                canonical: None,
                tls: SiteTls::Off,
                headers: Vec::new(),
                filters: filters(),
                allow: Vec::new(),
                deny: Vec::new(),
                routes,
            }
        })
        .collect();
    Router::new(&sites)
}

#[divan::bench(args = ["site7.example.com", "Site7.Example.COM:8443"])]
fn normalise_host(bencher: Bencher, host: &str) {
    let mut buf = header::HostBuf::default();
    bencher.bench_local(|| header::host(black_box(host), &mut buf).is_ok());
}

#[divan::bench(args = [1, 100, 1000])]
fn find_site(bencher: Bencher, sites: usize) {
    let router = router(sites, false);
    bencher.bench_local(|| matches!(router.site(black_box("site0.example.com")), Some(Found::Serve(_))));
}

#[divan::bench(args = ["/", "/api/v7/items/12345", "/exact/3", "/a/long/path/that/only/the/root/has/0123456789"])]
fn find_prefix_route(bencher: Bencher, path: &str) {
    let router = router(1, false);
    bencher.bench_local(|| router.route(0, black_box(path)));
}

#[divan::bench(args = ["/api/v7/items/12345", "/user/12345/photo"])]
fn find_route_past_regexes(bencher: Bencher, path: &str) {
    let router = router(1, true);
    bencher.bench_local(|| router.route(0, black_box(path)));
}

// --- zones ------------------------------------------------------------------------------------------------------------

fn limiter(rate: &str, burst: u32) -> Limiter {
    Limiter::new(&Zone {
        key: ZoneKey::Ip,
        rate: Pace::parse(rate).expect("a pace"),
        burst,
        status: StatusCode::TOO_MANY_REQUESTS,
        max_keys: NonZeroU32::new(100_000).expect("not zero"),
    })
}

fn ip(n: u32) -> Key<'static> {
    Key::Ip(IpAddr::V4(Ipv4Addr::from_bits(n)))
}

#[divan::bench]
fn admit_one_client(bencher: Bencher) {
    let limiter = limiter("1000000r/s", 1_000_000);
    let clock = AtomicU32::new(0);
    bencher.bench_local(|| limiter.admit(&ip(1), Duration::from_micros(clock.fetch_add(10, Ordering::Relaxed).into())).is_ok());
}

#[divan::bench]
fn reject_one_client(bencher: Bencher) {
    let limiter = limiter("1r/h", 0);
    let _first = limiter.admit(&ip(1), Duration::ZERO);
    bencher.bench_local(|| limiter.admit(&ip(1), Duration::from_secs(1)).is_err());
}

#[divan::bench]
fn admit_a_new_client_each_time_with_the_zone_full(bencher: Bencher) {
    let limiter = limiter("1r/s", 20);
    for n in 0..200_000 {
        let _filled = limiter.admit(&ip(n), Duration::ZERO);
    }
    let next = AtomicU32::new(200_000);
    bencher.bench_local(|| limiter.admit(&ip(next.fetch_add(1, Ordering::Relaxed)), Duration::from_millis(1)).is_ok());
}

// --- screen -----------------------------------------------------------------------------------------------------------

#[divan::bench(args = [
    "/",
    "/api/v1/items?page=2&sort=name",
    "/static/app/main.4f3a9c.js",
    "/search?q=caf%C3%A9+au+lait+%28strong%29&lang=fr&page=3&from=2026-01-01&to=2026-12-31",
    "/.git/config",
    "/?id=1%27%20UNION%20SELECT%20password%20FROM%20users--",
])]
fn judge_target(bencher: Bencher, target: &str) {
    let screen = Screen::new();
    bencher.bench_local(|| screen.judge(black_box(target.as_bytes()), &[]));
}
