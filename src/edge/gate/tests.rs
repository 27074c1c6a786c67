//! The gates one by one and in their order, on requests as the engine would show them.

use std::{cell::Cell, num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use proptest::prelude::*;

use super::*;
use crate::{
    plan::{Family, FilterMode, Filters, HeaderFields, RateHeaders, Route, Site, SiteTls, Zone, ZoneKey, ZoneMode, testing},
    rules::{header as rule, screen::Screen},
    telemetry::Metrics,
    vocab::{ByteSize, Host, Pace, ZoneName},
};

mod zones;

/// A request as it came, changed by the test.
struct Request {
    method: Method,
    target: Vec<u8>,
    authority: Option<&'static str>,
    version: Version,
    headers: HeaderMap,
    client: &'static str,
    tls: bool,
}

impl Request {
    fn get(target: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("example.com"));
        Self {
            method: Method::GET,
            target: target.into(),
            authority: None,
            version: Version::HTTP_11,
            headers,
            client: "203.0.113.7",
            tls: true,
        }
    }

    fn method(mut self, method: &str) -> Self {
        self.method = method.parse().expect("a method");
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.headers.remove(name);
        self
    }

    fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    fn from(mut self, client: &'static str) -> Self {
        self.client = client;
        self
    }

    fn ask<T>(&self, judge: impl FnOnce(&Ask) -> T) -> T {
        let target = String::from_utf8_lossy(&self.target);
        let uri: Uri = match self.authority {
            Some(authority) => format!("https://{authority}{target}").parse().unwrap_or_default(),
            None => target.parse().unwrap_or_default(),
        };
        let named = uri.authority().map(http::uri::Authority::as_str).or_else(|| self.headers.get(header::HOST)?.to_str().ok());
        let mut buf = rule::HostBuf::new();
        let host = named.and_then(|named| rule::host(named, &mut buf).ok()).unwrap_or("");
        let client = self.client.parse().expect("an address");
        judge(&Ask {
            method: &self.method,
            uri: &uri,
            target: &self.target,
            version: self.version,
            headers: &self.headers,
            host,
            peer: client,
            client,
            tls: self.tls,
            secure: self.tls,
            sni: None,
            proven: None,
            upgrade: false,
            request_id: "0123456789abcdef",
            seen: &Cell::new(None),
        })
    }

    fn sane(&self) -> Result<(), u16> {
        status(self.ask(|ask| sanity(ask, &testing::limits())))
    }
}

fn status(verdict: Verdict) -> Result<(), u16> {
    match verdict {
        Verdict::Pass => Ok(()),
        Verdict::Answer(reply) => Err(reply.status.as_u16()),
    }
}

fn route() -> Route {
    let filters = Filters::new(FilterMode::Enforce, FilterMode::Enforce, FilterMode::Enforce);
    Route { filters, ..testing::route() }
}

fn site() -> Site {
    Site { tls: SiteTls::Internal, filters: route().filters, ..testing::site("example.com") }
}

/// A site and a route made ready, and where the counters are.
struct Gates {
    site: GateSite,
    route: GateRoute,
    metrics: Metrics,
}

impl Gates {
    fn new(route: Route) -> Self {
        let metrics = Metrics::new();
        let zone = |name: &str| {
            let name = ZoneName::parse(name).expect("a name");
            let key = if name.as_str() == "key" { ZoneKey::Header(HeaderName::from_static("x-key")) } else { ZoneKey::Ip };
            let spec = Zone { key: vec![key], burst: 20, delay: 20, ..testing::zone() };
            (name, spec)
        };
        let zones = ZoneSet::of(&[zone("api"), zone("key")].into(), None, &metrics);
        let site = site();
        let gates = GateSite::new(&site, Some(8443), Demand::Nothing);
        Self { route: GateRoute::new(&site, &route, &zones, &Arc::new(Screen::new()), &metrics), site: gates, metrics }
    }

    fn verdict(&self, request: &Request, now: Duration) -> Verdict {
        request.ask(|ask| admit(ask, &self.site, &self.route, now, &mut Passage::default()))
    }

    fn status(&self, request: &Request) -> Result<(), u16> {
        status(self.verdict(request, Duration::ZERO))
    }
}

/// A route that looks at the first `most` bytes of bodies.
pub fn looks_at_bodies(most: u64) -> GateRoute {
    let mut filters = Filters::new(FilterMode::Enforce, FilterMode::Off, FilterMode::Off);
    filters.body = Some(ByteSize(most));
    Gates::new(Route { filters, ..route() }).route
}

fn value<'a>(verdict: &'a Verdict, name: &str) -> Option<&'a str> {
    let Verdict::Answer(reply) = verdict else { return None };
    reply.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.to_str().ok())
}

#[test]
fn an_ordinary_request_passes_every_gate() {
    let gates = Gates::new(route());
    for request in [
        Request::get("/"),
        Request::get("/a?b=c").with("user-agent", "Mozilla/5.0"),
        Request::get("/").method("POST").with("content-length", "1000"),
        Request::get("/").method("POST").with("transfer-encoding", "chunked"),
        Request::get("/").with("upgrade", "websocket").with("connection", "upgrade"),
    ] {
        assert_eq!(request.sane(), Ok(()));
        assert_eq!(gates.status(&request), Ok(()));
    }
    let h2 = Request { authority: Some("example.com"), ..Request::get("/").without("host").version(Version::HTTP_2) };
    assert_eq!(h2.sane(), Ok(()));
    assert_eq!(Request::get("/").without("host").version(Version::HTTP_10).sane(), Ok(()));
    assert_eq!(Request::get("*").method("OPTIONS").sane(), Ok(()));
    assert_eq!(Request::get("http://example.com/x").sane(), Err(400), "the engine leaves the path alone of an absolute form");
    assert_eq!(Request::get("/").without("host").with("host", "EXAMPLE.com:8443").sane(), Ok(()));
}

#[test]
fn two_lengths_of_one_body_are_refused() {
    for request in [
        Request::get("/").with("content-length", "5").with("transfer-encoding", "chunked"),
        Request::get("/").with("content-length", "5").with("content-length", "5"),
        Request::get("/").with("content-length", "5").with("content-length", "6"),
        Request::get("/").with("content-length", "5, 5"),
        Request::get("/").with("content-length", "+5"),
        Request::get("/").with("content-length", "-5"),
        Request::get("/").with("content-length", "0x5"),
        Request::get("/").with("content-length", "05"),
        Request::get("/").with("content-length", "00"),
        Request::get("/").with("content-length", ""),
        Request::get("/").with("content-length", "99999999999999999999"),
        Request::get("/").with("transfer-encoding", "chunked").with("transfer-encoding", "chunked"),
        Request::get("/").with("transfer-encoding", "gzip, chunked"),
        Request::get("/").with("transfer-encoding", "chunked, identity"),
        Request::get("/").with("transfer-encoding", "identity"),
        Request::get("/").with("transfer-encoding", "xchunked"),
        Request::get("/").with("transfer-encoding", "\tchunked"),
        Request::get("/").with("transfer-encoding", ""),
        Request::get("/").with("transfer-encoding", "chunked").version(Version::HTTP_10),
        Request::get("/").with("transfer-encoding", "chunked").version(Version::HTTP_2),
    ] {
        assert_eq!(request.sane(), Err(400), "{:?}", request.headers);
    }
}

#[test]
fn there_is_one_expectation() {
    assert_eq!(Request::get("/").with("expect", "100-Continue").sane(), Ok(()));
    for other in ["", "x", "100-continue, x", "x 100-continue", "100-continue;q=1"] {
        assert_eq!(Request::get("/").with("expect", other).sane(), Err(417), "{other:?}");
    }
    assert_eq!(Request::get("/").with("expect", "100-continue").with("expect", "100-continue").sane(), Err(417));
}

#[test]
fn a_host_is_one_and_a_host() {
    for request in [
        Request::get("/").without("host"),
        Request::get("/").with("host", "example.com"),
        Request::get("/").with("host", "other.example"),
        Request::get("/").without("host").with("host", ""),
        Request::get("/").without("host").with("host", "a b"),
        Request::get("/").without("host").with("host", "user@example.com"),
        Request::get("/").without("host").with("host", "example.com/x"),
        Request::get("/").without("host").with("host", "example.com:99999"),
        Request::get("/").without("host").version(Version::HTTP_2),
        Request::get("http://other.example/x"),
        Request::get("http://user@example.com/x"),
        Request::get("/").without("host").with("host", "b\u{e4}d.example"),
    ] {
        assert_eq!(request.sane(), Err(400), "{:?} {:?}", request.target, request.headers);
    }
    let h2 = Request { authority: Some("other.example"), ..Request::get("/").version(Version::HTTP_2) };
    assert_eq!(h2.sane(), Err(400));
}

#[test]
fn a_target_is_a_path_without_anything_that_readers_disagree_on() {
    for target in
        ["", "x", "//[", "/a b", "/a#b", "/a\u{e4}", "/a\tb", "/a\r\nb", "/a\0b", "/\u{7f}", "ftp://example.com/", "*", "example.com:443"]
    {
        let expected = if target == "//[" { Ok(()) } else { Err(400) };
        assert_eq!(Request::get(target).sane(), expected, "{target:?}");
    }
    assert_eq!(Request::get("example.com:443").method("CONNECT").sane(), Err(405));
}

#[test]
fn sizes_are_held_at_their_bounds() {
    let path = |n: usize| format!("/{}", "a".repeat(n - 1));
    assert_eq!(Request::get(&path(8192)).sane(), Ok(()));
    assert_eq!(Request::get(&path(8193)).sane(), Err(414));
    let headers = |n: usize| (1..n).fold(Request::get("/"), |request, _| request.with("x-a", "b"));
    assert_eq!(headers(100).sane(), Ok(()));
    assert_eq!(headers(101).sane(), Err(431));
    let crumbs = |n: usize| (1..=n).fold(headers(100), |request, _| request.with("cookie", "a=b"));
    assert_eq!((crumbs(1).sane(), crumbs(90).sane()), (Err(431), Err(431)), "a cookie is a field");
    let crumbs = |n: usize| (1..=n).fold(headers(99), |request, _| request.with("cookie", "a=b"));
    assert_eq!((crumbs(1).sane(), crumbs(90).sane()), (Ok(()), Ok(())), "in as many pieces as it comes");
    // "GET / HTTP/1.1\r\n" is 16, "host: example.com\r\n" 19, "x-a: \r\n" 7.
    let long = |n: usize| Request::get("/").with("x-a", &"b".repeat(n - 16 - 19 - 7));
    assert_eq!(long(16 << 10).sane(), Ok(()));
    assert_eq!(long((16 << 10) + 1).sane(), Err(431));
    let gates = Gates::new(route());
    assert_eq!(gates.status(&Request::get("/").method("POST").with("content-length", "1000")), Ok(()));
    assert_eq!(gates.status(&Request::get("/").method("POST").with("content-length", "1001")), Err(413));
}

#[test]
fn without_tls_a_site_with_tls_sends_to_it() {
    let gates = Gates::new(route());
    let plain = |request: Request| Request { tls: false, ..request };
    let verdict = gates.verdict(&plain(Request::get("/a?b=%20c")), Duration::ZERO);
    assert_eq!((value(&verdict, "location"), status(verdict.clone())), (Some("https://example.com:8443/a?b=%20c"), Err(301)));
    assert_eq!(gates.status(&plain(Request::get("/").method("POST"))), Err(308));
    // Before every other gate: a redirect spends no budget and tells nothing.
    assert_eq!(gates.status(&plain(Request::get("/.git/config"))), Err(301));
    let site = Site { tls: SiteTls::Off, ..site() };
    let verdict = plain(Request::get("/")).ask(|ask| https::redirect(ask, &GateSite::new(&site, Some(443), Demand::Nothing)));
    assert_eq!(status(verdict), Ok(()));
    let reply = plain(Request::get("/a")).ask(|ask| canonical(ask, &gates.site, &Host::parse("example.org").expect("a host")));
    assert_eq!(value(&Verdict::Answer(reply), "location"), Some("https://example.org:8443/a"));
}

#[test]
fn a_site_that_asks_for_certificates_is_served_on_its_own_connections_alone() {
    let (ours, theirs) = (CaMark([1; 32]), CaMark([2; 32]));
    let demands = [Demand::Nothing, Demand::Certificate(ours), Demand::Impossible];
    let made = |demand| GateSite::new(&site(), Some(443), demand);
    for demand in demands {
        let own = made(demand);
        let others = demands.map(made);
        for opened_for in others.iter().map(Some).chain([None, Some(&own)]) {
            for proven in [None, Some(ours), Some(theirs)] {
                let verdict = Request::get("/").ask(|ask| misdirected(&Ask { proven, ..*ask }, &own, opened_for));
                let same = opened_for.is_some_and(|other| std::ptr::eq(other, &own));
                let neither = demand == Demand::Nothing && opened_for.is_none_or(|other| other.demand == Demand::Nothing);
                let good = neither || same && demand == Demand::Certificate(ours) && proven == Some(ours);
                assert_eq!(status(verdict), if good { Ok(()) } else { Err(421) }, "{demand:?} {opened_for:?} {proven:?}");
            }
        }
        let plain = Request { tls: false, ..Request::get("/") };
        assert_eq!(status(plain.ask(|ask| misdirected(ask, &own, None))), Ok(()), "it is sent to https");
        let no_https = GateSite::new(&site(), None, demand);
        let refused = if demand == Demand::Nothing { Ok(()) } else { Err(421) };
        assert_eq!(status(plain.ask(|ask| misdirected(ask, &no_https, None))), refused);
    }
}

#[test]
fn lists_of_addresses_are_kept() {
    let net = |text: &str| text.parse().expect("a net");
    let gates = Gates::new(Route { allow: vec![net("203.0.113.0/24")], deny: vec![net("203.0.113.9/32")], ..route() });
    assert_eq!(gates.status(&Request::get("/")), Ok(()));
    assert_eq!(gates.status(&Request::get("/").from("203.0.113.9")), Err(403));
    assert_eq!(gates.status(&Request::get("/").from("198.51.100.1")), Err(403));
    assert_eq!(gates.status(&Request::get("/").from("::ffff:203.0.113.1")), Ok(()));
    // Upgrade or not, the gate is the same.
    assert_eq!(gates.status(&Request::get("/").from("198.51.100.1").with("upgrade", "websocket").with("connection", "upgrade")), Err(403));
}

#[test]
fn methods_beyond_the_routes_are_told_which_are_there() {
    let gates = Gates::new(Route { methods: vec![Method::GET, Method::POST], ..route() });
    assert_eq!(gates.status(&Request::get("/").method("HEAD")), Ok(()));
    let verdict = gates.verdict(&Request::get("/").method("DELETE"), Duration::ZERO);
    assert_eq!((value(&verdict, "allow"), status(verdict.clone())), (Some("GET, POST, HEAD"), Err(405)));
    let open = Gates::new(route());
    assert_eq!(open.status(&Request::get("/").method("DELETE")), Ok(()));
    for bad in ["TRACE", "TRACK", "DEBUG", "PROPFIND", "X"] {
        assert_eq!(open.status(&Request::get("/").method(bad)), Err(405), "{bad}");
    }
    let dav = Gates::new(Route { methods: vec!["PROPFIND".parse().expect("a method")], ..route() });
    assert_eq!(dav.status(&Request::get("/").method("PROPFIND")), Ok(()));
}

#[test]
fn filters_refuse_observe_or_are_off() {
    let modes = |mode| Filters::new(mode, mode, mode);
    for (mode, expected) in [(FilterMode::Enforce, Err(403)), (FilterMode::Observe, Ok(())), (FilterMode::Off, Ok(()))] {
        let gates = Gates::new(Route { filters: modes(mode), ..route() });
        assert_eq!(gates.status(&Request::get("/.git/config")), expected);
        assert_eq!(gates.status(&Request::get("/?id=1%20or%201=1")), expected);
        assert_eq!(gates.status(&Request::get("/").with("user-agent", "sqlmap/1.7")), expected);
        assert_eq!(gates.status(&Request::get("/").method("TRACE")).is_ok(), mode != FilterMode::Enforce);
        let mut page = String::new();
        gates.metrics.render(&mut page);
        let hits = |filter: &str, result: &str| {
            page.lines().any(|line| {
                line.starts_with(&format!("gateway_filter_hits_total{{filter=\"{filter}\","))
                    && line.contains(&format!("result=\"{result}\""))
                    && !line.ends_with(" 0")
            })
        };
        for filter in ["bad-uri", "bad-method", "scanner-ua"] {
            assert_eq!(hits(filter, "rejected"), mode == FilterMode::Enforce, "{filter} {page}");
            assert_eq!(hits(filter, "would_reject"), mode == FilterMode::Observe, "{filter} {page}");
        }
    }
    let mut one = Filters::new(FilterMode::Enforce, FilterMode::Off, FilterMode::Off);
    one.families.set(Family::Sql, FilterMode::Observe);
    one.families.set(Family::DotFile, FilterMode::Off);
    one.patterns = vec!["^/wp-json/".into()];
    let gates = Gates::new(Route { filters: one, ..route() });
    assert_eq!(gates.status(&Request::get("/.git/config")), Ok(()), "off");
    assert_eq!(gates.status(&Request::get("/?id=1%20or%201=1")), Ok(()), "observed");
    assert_eq!(gates.status(&Request::get("/?id=1%20or%201=1&q=%3Cscript%3E")), Err(403), "what is observed hides nothing else");
    assert_eq!(gates.status(&Request::get("/WP-%4ason/users")), Err(403), "a pattern of one's own");
    assert_eq!(gates.status(&Request::get("/").with("x-note", "<script>alert(1)</script>")), Err(403));
    let mut blind = Filters::new(FilterMode::Enforce, FilterMode::Off, FilterMode::Off);
    blind.headers = HeaderFields::None;
    let gates = Gates::new(Route { filters: blind, ..route() });
    assert_eq!(gates.status(&Request::get("/").with("x-note", "<script>alert(1)</script>")), Ok(()));
    let own = Gates::new(Route { extensions: vec!["PHP".into()], ..route() });
    assert_eq!(own.status(&Request::get("/index.php")), Ok(()));
    assert_eq!(own.status(&Request::get("/index.asp")), Err(403));
}

proptest! {
    #[test]
    fn no_request_makes_a_gate_panic(
        target in prop::collection::vec(any::<u8>(), 0..60),
        method in "[A-Z]{1,8}",
        names in prop::collection::vec((prop::sample::select(vec!["host", "content-length", "transfer-encoding", "user-agent", "accept", "x_y"]), "[ -~]{0,12}"), 0..6),
        tls in any::<bool>(),
    ) {
        let gates = Gates::new(Route { zones: vec![ZoneName::parse("api").expect("a name")], ..route() });
        let mut request = Request { target, tls, ..Request::get("/") }.method(&method);
        for (name, value) in names {
            request = request.with(name, &value);
        }
        let _ = request.sane();
        let _ = gates.status(&request);
    }
}

fn shared(origins: &[&str], credentials: bool) -> Option<crate::plan::Cors> {
    Some(crate::plan::Cors {
        origins: origins.iter().map(|origin| crate::vocab::OriginPattern::parse(origin).expect("an origin")).collect(),
        methods: vec![Method::GET, Method::DELETE],
        headers: vec![],
        credentials,
        max_age: Duration::from_secs(600),
        expose: vec![HeaderName::from_static("x-total")],
    })
}

fn preflight(target: &str, origin: &str) -> Request {
    Request::get(target).method("OPTIONS").with("origin", origin).with("access-control-request-method", "DELETE")
}

#[test]
fn a_preflight_is_answered_after_all_gates_and_without_permission_for_strangers() {
    let gates = Gates::new(Route { methods: vec![Method::GET, Method::DELETE], cors: shared(&["https://app.test"], true), ..route() });
    let asked = preflight("/", "https://app.test").with("access-control-request-headers", "x-a, x-b");
    let verdict = gates.verdict(&asked, Duration::ZERO);
    assert_eq!(status(verdict.clone()), Err(204));
    for (name, wanted) in [
        ("access-control-allow-methods", Some("GET, DELETE")),
        ("access-control-allow-headers", Some("x-a, x-b")),
        ("access-control-max-age", Some("600")),
        ("vary", Some("Access-Control-Request-Method, Access-Control-Request-Headers")),
    ] {
        assert_eq!(value(&verdict, name), wanted, "{name}");
    }
    let stranger = gates.verdict(&preflight("/", "https://evil.test"), Duration::ZERO);
    assert_eq!((status(stranger.clone()), value(&stranger, "access-control-allow-methods")), (Err(204), None));
    let twice = gates.verdict(&preflight("/", "https://app.test").with("origin", "https://app.test"), Duration::ZERO);
    assert_eq!(value(&twice, "access-control-allow-methods"), None);
    let odd = preflight("/", "https://app.test").with("access-control-request-headers", "x-a\t<b>");
    assert_eq!(value(&gates.verdict(&odd, Duration::ZERO), "access-control-allow-headers"), None);
    // Filters and lists of methods come first; what is no preflight is the app's.
    assert_eq!(gates.status(&preflight("/.git/config", "https://app.test")), Err(403));
    assert_eq!(gates.status(&Request::get("/").method("OPTIONS").with("origin", "https://app.test")), Err(405));
    let open = Gates::new(Route { cors: shared(&["https://app.test"], true), ..route() });
    assert_eq!(open.status(&Request::get("/").method("OPTIONS").with("origin", "https://app.test")), Ok(()));
    assert_eq!(Gates::new(route()).status(&preflight("/", "https://app.test")), Ok(()), "nothing is said of origins here");
}

#[test]
fn every_answer_says_who_may_read_it_and_what_the_app_says_of_that_is_taken_away() {
    let dressed = |origins: &[&str], credentials, origin: Option<&'static str>| {
        let cors = cors::Cors::new(&shared(origins, credentials).expect("some"));
        let mut fields = HeaderMap::new();
        for (name, said) in [("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true"), ("vary", "accept")] {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static(said));
        }
        let asked = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))).into_iter().collect();
        cors.dress(&mut fields, &asked);
        let text = |name: &str| fields.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect::<Vec<_>>().join("|");
        ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers", "vary"].map(text)
    };
    let one = &["https://app.test", "https://*.corp.test"][..];
    assert_eq!(dressed(one, true, Some("https://app.test")), ["https://app.test", "true", "x-total", "accept|Origin"]);
    assert_eq!(dressed(one, false, Some("https://a.corp.test")), ["https://a.corp.test", "", "x-total", "accept|Origin"]);
    for stranger in [None, Some("https://evil.test"), Some("https://app.test.evil.test"), Some("null")] {
        assert_eq!(dressed(one, true, stranger), ["", "", "", "accept|Origin"], "{stranger:?}");
    }
    assert_eq!(dressed(&["*"], false, Some("https://any.test")), ["*", "", "x-total", "accept"]);
}

/// A site with this page and this secret, in maintenance.
fn closed(secret: Option<&str>, page: Option<&str>) -> Gates {
    let html = |html: &str| crate::plan::Page { file: "/down.html".into(), html: html.into() };
    let maintenance = crate::plan::Maintenance {
        on: true,
        page: page.map(html),
        secret: secret.map(|secret| crate::vocab::Secret::new(secret.to_owned())),
        retry_after: Duration::from_secs(90),
    };
    let site = Site { maintenance, headers: crate::plan::HeaderBase::Strict.into(), ..site() };
    Gates { site: GateSite::new(&site, Some(8443), Demand::Nothing), ..Gates::new(route()) }
}

#[test]
fn a_site_in_maintenance_shows_its_page_to_everyone() {
    let gates = closed(None, Some("<h1>soon</h1>"));
    for request in [Request::get("/"), Request::get("/").method("DELETE"), preflight("/", "https://a.test"), Request::get("/.git/config")] {
        let verdict = gates.verdict(&request, Duration::ZERO);
        assert_eq!((status(verdict.clone()), value(&verdict, "retry-after")), (Err(503), Some("90")));
        assert_eq!(value(&verdict, "content-type"), Some("text/html; charset=utf-8"));
        // A page of one file has its style in it.
        assert!(value(&verdict, "content-security-policy").is_some_and(|policy| policy.contains("style-src 'self' 'unsafe-inline'")));
        let Verdict::Answer(reply) = verdict else { panic!("an answer") };
        assert_eq!(&reply.body[..], b"<h1>soon</h1>");
    }
    // Without TLS the client is sent to https first; whoever may not come here does not learn how it stands.
    assert_eq!(gates.status(&Request { tls: false, ..Request::get("/") }), Err(301));
    gates.site.maintain(false);
    assert_eq!(gates.status(&Request::get("/")), Ok(()));
    let own = closed(None, None).verdict(&Request::get("/").with("accept", "application/json"), Duration::ZERO);
    assert_eq!((value(&own, "content-type"), value(&own, "content-security-policy")), (Some("application/json"), None));
}

#[test]
fn whoever_knows_the_word_comes_through_and_tells_it_once() {
    let gates = closed(Some("open-sesame"), None);
    let go = |target: &str| gates.verdict(&Request::get(target), Duration::ZERO);
    for (target, to) in [
        ("/?gateway-maintenance=open-sesame", "/"),
        ("/a/b?x=1&gateway-maintenance=open-sesame&y=%20", "/a/b?x=1&y=%20"),
        ("//evil.test/?gateway-maintenance=open-sesame", "/evil.test/"),
        ("/\\/evil.test?gateway-maintenance=open-sesame", "/evil.test"),
    ] {
        let verdict = go(target);
        assert_eq!((status(verdict.clone()), value(&verdict, "location")), (Err(303), Some(to)), "{target}");
        let cookie = value(&verdict, "set-cookie").expect("a cookie").to_owned();
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; Secure") && cookie.contains("; SameSite=Lax"), "{cookie}");
        assert!(!cookie.contains("sesame"));
        let pair = cookie.split(';').next().expect("a pair").to_owned();
        let with = |cookie: &str| gates.status(&Request::get("/x").with("cookie", cookie));
        assert_eq!((with(&pair), with(&format!("a=1; {pair}; b=2"))), (Ok(()), Ok(())));
        assert_eq!(with(&pair[..pair.len() - 1]), Err(503));
        assert_eq!(with(&format!("{pair}0")), Err(503));
        // What opens one site opens no other.
        let other = Site {
            name: "other.test".into(),
            maintenance: crate::plan::Maintenance {
                on: true,
                secret: Some(crate::vocab::Secret::new("open-sesame".to_owned())),
                ..Default::default()
            },
            ..site()
        };
        let other = Gates { site: GateSite::new(&other, Some(8443), Demand::Nothing), ..Gates::new(route()) };
        assert_eq!(other.status(&Request::get("/x").with("cookie", &pair)), Err(503));
    }
    for target in [
        "/?gateway-maintenance=",
        "/?gateway-maintenance=open-sesam",
        "/?gateway-maintenance=open-sesame1",
        "/?xgateway-maintenance=open-sesame",
        "/gateway-maintenance=open-sesame",
    ] {
        assert_eq!(status(go(target)), Err(503), "{target}");
    }
    assert_eq!(
        gates.status(&Request::get("/").with("cookie", "gateway-maintenance=open-sesame")),
        Err(503),
        "the word itself is no cookie"
    );
    assert_eq!(gates.status(&Request::get("/?gateway-maintenance=open-sesame").method("POST")), Err(503));
    assert_eq!(gates.status(&Request::get("/").with("gateway-maintenance", "open-sesame")), Ok(()));
    assert_eq!(gates.status(&Request::get("/").with("gateway-maintenance", "open-sesam")), Err(503));
    // The page that is opened by the link must not go to the app with the word in it, also when all is well.
    gates.site.maintain(false);
    assert_eq!(status(go("/?gateway-maintenance=open-sesame")), Err(303));
    assert_eq!(maintenance::without_secret(b"/a?b&gateway-maintenance=x"), b"/a");
    assert_eq!(maintenance::without_secret(b"/a?b"), b"/a?b");
    for (target, rest) in [
        ("/a?b", "/a?b"),
        ("/a", "/a"),
        ("/a?gateway-maintenance=x", "/a"),
        ("/a?b=1&gateway-maintenance=x&c&gateway-maintenance=", "/a?b=1&c"),
        ("/a?b=gateway-maintenance=x", "/a?b=gateway-maintenance=x"),
    ] {
        assert_eq!(*maintenance::without_parameter(target.as_bytes()), *rest.as_bytes(), "{target}");
    }
}
