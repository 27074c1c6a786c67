//! What it costs to find site and route.

use divan::{Bencher, black_box};
use gateway::{
    plan::{Action, FilterMode, Filters, PathMatch, Route, Site, SiteTls},
    rules::{
        header::{self, HostBuf},
        route::Router,
    },
    vocab::{ByteSize, HostPattern},
};

fn main() {
    divan::main();
}

const FILTERS: Filters = Filters::new(FilterMode::Enforce, FilterMode::Enforce, FilterMode::Enforce);

fn site(hosts: &[&str], paths: Vec<PathMatch>) -> Site {
    let route = |path| Route {
        path,
        action: Action::NotFound,
        strip: None,
        rewrite: None,
        zones: vec![],
        methods: vec![],
        request_headers: vec![],
        response_headers: vec![],
        body_limit: ByteSize(0),
        buffer: None,
        filters: FILTERS,
        extensions: vec![],
        allow: vec![],
        deny: vec![],
        auth: None,
        cors: None,
    };
    Site {
        name: hosts[0].into(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host).expect("a host")).collect(),
        redirected: vec![],
        canonical: None,
        tls: SiteTls::Off,
        client_ca: None,
        headers: gateway::plan::HeaderBase::Off.into(),
        filters: FILTERS,
        allow: vec![],
        deny: vec![],
        maintenance: Default::default(),
        routes: paths.into_iter().map(route).collect(),
    }
}

/// Twenty sites; the first with a dozen prefixes, an exact path and two regexes.
fn router() -> Router {
    let mut paths: Vec<PathMatch> =
        ["/", "/api/", "/api/v1/", "/api/v2/", "/assets/", "/admin/", "/docs/", "/blog/", "/user/", "/auth/", "/ws/", "/static/"]
            .map(|path| PathMatch::Prefix(path.into()))
            .into();
    paths.push(PathMatch::Exact("/healthz".into()));
    let mut sites = vec![site(&["example.com", "*.example.com"], paths.clone())];
    paths.push(PathMatch::Regex(r"\.(?:css|js|png)$".into()));
    paths.push(PathMatch::Regex(r"^/api/v[0-9]+/users/[0-9]+$".into()));
    sites.push(site(&["regex.example.org"], paths));
    sites.extend((0..18).map(|n| site(&[&format!("site{n}.example.net")], vec![PathMatch::Prefix("/".into())])));
    Router::new(&sites)
}

#[divan::bench(args = ["example.com", "Example.com:8443", "a.b.example.com", "unknown.test"])]
fn host(bencher: Bencher, host: &str) {
    let router = router();
    let mut buf = HostBuf::new();
    bencher.bench_local(|| {
        let host = header::host(black_box(host), &mut buf).expect("a host");
        black_box(router.site(host))
    });
}

#[divan::bench(args = ["/", "/healthz", "/api/v1/users/42/orders", "/assets/app.3f9c2b1a.min.js", "/%61pi/v1/../v2/users"])]
fn path(bencher: Bencher, path: &str) {
    let router = router();
    bencher.bench(|| black_box(router.route(0, black_box(path))));
}

#[divan::bench(args = ["/", "/api/v1/users/42", "/assets/app.3f9c2b1a.min.js"])]
fn path_with_regexes(bencher: Bencher, path: &str) {
    let router = router();
    bencher.bench(|| black_box(router.route(1, black_box(path))));
}
