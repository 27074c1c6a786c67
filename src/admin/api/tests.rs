use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Request;

use super::*;
use crate::{
    ipc::message::{Duty, InstanceState},
    telemetry::node,
};

/// A small shop: two sites, one app with an instance in trouble, one upstream.
#[derive(Default)]
pub(in crate::admin) struct Fake {
    pub(in crate::admin) all_down: AtomicBool,
}

const START: u64 = 1_768_473_000_000;

impl Source for Fake {
    fn process(&self) -> view::Process {
        view::Process {
            config: "/etc/gateway/gateway.toml".into(),
            master_pid: 100,
            edge_pid: 101,
            started: view::moment(START),
            edge_started: view::moment(START + 60_000),
            edge_restarts: 1,
            generation: 3,
            reloads: 2,
            reloads_refused: 1,
        }
    }

    fn listeners(&self) -> Vec<view::Listener> {
        [("http", "0.0.0.0:8080"), ("https", "0.0.0.0:8443"), ("admin", "127.0.0.1:9900")]
            .map(|(role, address)| view::Listener { role: role.into(), address: address.into(), bound: address.into(), accepting: true })
            .into()
    }

    fn sites(&self) -> Vec<view::Site> {
        let route = |path: &str, upstream: &str| view::Route {
            path: path.into(),
            action: format!("upstream {upstream}"),
            upstream: Some(upstream.into()),
        };
        let site = |name: &str, hosts: &[&str], routes| view::Site {
            name: name.into(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tls: "internal".into(),
            routes,
            requests: 120_000,
            errors: 12,
            in_flight: 3,
            maintenance: false,
        };
        let ping = view::Route { path: "= /ping".into(), action: "respond 200".into(), upstream: None };
        vec![
            site("shop.example", &["shop.example", "*.shop.example"], vec![route("/", "web"), ping]),
            site("api.example", &["api.example"], vec![route("/v1/", "api")]),
        ]
    }

    fn apps(&self) -> Vec<view::App> {
        let instance = |n: u16, state, pid, last_exit: Option<&str>| view::Instance {
            id: format!("web.{n}"),
            state,
            duty: Duty::Serves,
            release: None,
            since: view::moment(START + 1_000),
            pid,
            address: Some(format!("unix:/run/gateway/app/web/{n}.sock")),
            restarts: u64::from(n) * 4,
            last_exit: last_exit.map(str::to_owned),
            last_exit_at: last_exit.map(|_| view::moment(START + 2_000)),
            last_restart: last_exit.map(|_| view::moment(START + 3_000)),
            next_start: last_exit.map(|_| view::moment(START + 9_000)),
            manual: false,
            note: None,
            cpu_seconds: 12.5,
            memory_bytes: 64 << 20,
        };
        vec![view::App {
            name: "web".into(),
            ready: 1,
            instances: vec![
                instance(0, InstanceState::Ready, Some(200), None),
                instance(1, InstanceState::Backoff, None, Some("signal 9 (KILL) <script>alert(1)</script>")),
            ],
            restarts: BTreeMap::from([("signal".to_owned(), 4)]),
            job: None,
        }]
    }

    fn upstreams(&self) -> Vec<view::Upstream> {
        let up = !self.all_down.load(Relaxed);
        let server = |server: &str, address: &str, up: bool| view::Server {
            server: server.into(),
            address: address.into(),
            up,
            state: if up { "up" } else { "down" }.into(),
            reason: (!up).then(|| "connection refused".into()),
            in_flight: 2,
            weight: 1,
            backup: false,
        };
        vec![
            view::Upstream {
                name: "api".into(),
                app: false,
                panic: false,
                servers: vec![server("10.0.0.5:8000", "10.0.0.5:8000", up), server("10.0.0.6:8000", "10.0.0.6:8000", up)],
            },
            view::Upstream {
                name: "web".into(),
                app: true,
                panic: false,
                servers: vec![server("web.0", "unix:/run/gateway/app/web/0.sock", up)],
            },
        ]
    }

    fn zones(&self) -> Vec<view::Zone> {
        vec![view::Zone {
            name: "login".into(),
            key: "ip".into(),
            rate: Some("1r/s".into()),
            burst: 5,
            mode: "enforce".into(),
            keys: 17,
            max_keys: 100_000,
            passed: 400,
            rejected: 31,
            ..view::Zone::default()
        }]
    }

    fn certificates(&self) -> Vec<view::Certificate> {
        vec![view::Certificate {
            host: "shop.example".into(),
            not_after: Some("2099-01-01T00:00:00Z".into()),
            source: "internal".into(),
            ..view::Certificate::default()
        }]
    }

    fn bans(&self) -> u64 {
        4
    }

    fn recent(&self) -> Option<Recent> {
        None
    }

    fn totals(&self) -> Totals {
        Totals {
            requests: 240_000,
            client_errors: 420,
            errors: 24,
            received_bytes: 1 << 20,
            sent_bytes: 5 << 30,
            in_flight: 6,
            connections: 41,
        }
    }

    fn node(&self) -> NodeSample {
        NodeSample {
            cpu_ratio: 0.125,
            memory_total: 1 << 30,
            memory_available: 1 << 29,
            load1: 0.25,
            disks: vec![node::Disk { mount: PathBuf::from("/"), total: 40 << 30, free: 10 << 30 }],
        }
    }

    fn metrics(&self) -> String {
        "gateway_config_generation 3\n".into()
    }
}

fn api(token: Option<&str>) -> (Arc<Fake>, Api) {
    let fake = Arc::new(Fake::default());
    let listen = "127.0.0.1:9900".parse().expect("valid");
    (fake.clone(), Api::new(fake, listen, token.map(|token| Secret::new(token.to_owned()))))
}

fn ask(api: &Api, request: http::request::Builder) -> Response<Bytes> {
    api.answer(&request.body(()).expect("valid").into_parts().0, "192.0.2.7".parse().expect("valid"))
}

fn get(api: &Api, path: &str) -> Response<Bytes> {
    ask(api, Request::get(path).header("host", "localhost:9900"))
}

fn body(answer: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(answer.body()).expect("json")
}

/// The JSON without what differs from run to run.
fn steady(answer: &Response<Bytes>) -> String {
    let mut value = body(answer);
    value["timestamp"] = "…".into();
    if value.get("uptime_seconds").is_some() {
        value["uptime_seconds"] = 0.into();
    }
    if value.get("version").is_some() {
        value["version"] = "…".into();
    }
    serde_json::to_string_pretty(&value).expect("json")
}

#[test]
fn status_says_all_of_it() {
    let (_, api) = api(None);
    insta::assert_snapshot!(steady(&get(&api, "/api/status")));
}

#[test]
fn the_health_endpoints_have_the_seeds_shapes() {
    let (_, api) = api(None);
    let parts = ["/health", "/health/live", "/health/ready", "/health/detailed", "/health/metrics"].map(|path| {
        let answer = get(&api, path);
        format!("GET {path} → {}\n{}", answer.status(), steady(&answer))
    });
    insta::assert_snapshot!(parts.join("\n\n"));
}

#[test]
fn health_is_503_when_a_site_is_not_served_and_live_stays_200() {
    let (fake, api) = api(None);
    assert_eq!((get(&api, "/health").status(), body(&get(&api, "/health"))["status"].as_str()), (StatusCode::OK, Some("degraded")));
    fake.all_down.store(true, Relaxed);
    for path in ["/health", "/health/ready", "/health/detailed"] {
        let answer = get(&api, path);
        assert_eq!((answer.status(), body(&answer)["status"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("unhealthy")), "{path}");
    }
    assert_eq!(get(&api, "/health/live").status(), StatusCode::OK);
    assert_eq!(get(&api, "/health/metrics").status(), StatusCode::OK);
}

#[test]
fn a_status_read_back_is_the_same() {
    let (_, api) = api(None);
    let status: Status = serde_json::from_slice(get(&api, "/api/status").body()).expect("reads");
    assert_eq!(status.upstreams, Fake::default().upstreams());
}

#[test]
fn the_page_shows_what_there_is_and_runs_nothing_that_an_app_wrote() {
    let (_, api) = api(None);
    let answer = get(&api, "/");
    let html = std::str::from_utf8(answer.body()).expect("utf-8");
    for word in ["shop.example", "web.1", "backoff", "signal 9 (KILL)", "10.0.0.6:8000", "login", "2099-01-01", "degraded", "240,000"] {
        assert!(html.contains(word), "{word} is missing");
    }
    assert!(!html.contains("<script>alert"), "escaped");
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("//cdn"), "nothing from elsewhere");
}

#[test]
fn metrics_are_plain_text() {
    let (_, api) = api(None);
    let answer = get(&api, "/metrics");
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.body(), "gateway_config_generation 3\n");
}

#[test]
fn only_the_token_opens() {
    let (_, api) = api(Some("s3cret"));
    let with = |value: &str| ask(&api, Request::get("/metrics").header("host", "example.com").header("authorization", value)).status();
    assert_eq!(with("Bearer s3cret"), StatusCode::OK);
    assert_eq!(with("bearer s3cret"), StatusCode::OK);
    assert_eq!(with(&format!("Basic {}", BASE64_STANDARD.encode("any:s3cret"))), StatusCode::OK);
    for wrong in
        ["Bearer s3creT", "Bearer s3cre", "Bearer s3crets", "Bearer", "Bearer ", "s3cret", "Basic s3cret", "Basic OnM=", "Digest s3cret"]
    {
        assert_eq!(with(wrong), StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(ask(&api, Request::get("/metrics?token=s3cret")).status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get(&api, "/no/such/path").status(), StatusCode::UNAUTHORIZED, "who has no token does not learn the paths");
}

#[test]
fn a_foreign_name_that_points_here_gets_nothing() {
    let (_, api) = api(None);
    let host = |host: &str| ask(&api, Request::get("/api/status").header("host", host)).status();
    for good in ["localhost", "localhost:9900", "LOCALHOST:1", "127.0.0.1:9900", "127.8.8.8", "[::1]:9900"] {
        assert_eq!(host(good), StatusCode::OK, "{good}");
    }
    for bad in
        ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "localhost.evil.example", "user@evil.example", "", "10.0.0.1"]
    {
        assert_eq!(host(bad), StatusCode::MISDIRECTED_REQUEST, "{bad}");
    }
    assert_eq!(ask(&api, Request::get("/health")).status(), StatusCode::MISDIRECTED_REQUEST, "HTTP/1.1 without Host");
    assert_eq!(ask(&api, Request::get("/health").version(http::Version::HTTP_10)).status(), StatusCode::OK);
}

#[test]
fn it_only_looks_and_every_answer_is_guarded() {
    let (_, api) = api(None);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(&api, Request::builder().method(method).uri("/").header("host", "localhost"));
        assert_eq!(
            (answer.status(), &answer.headers()[header::ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, HEAD"))
        );
    }
    for path in ["/", "/metrics", "/nope", "/api/status"] {
        let answer = get(&api, path);
        assert_eq!(answer.headers()[header::X_FRAME_OPTIONS], "DENY");
        assert!(answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").starts_with("default-src 'none'"));
    }
    assert_eq!(get(&api, "/nope").status(), StatusCode::NOT_FOUND);
}

#[test]
fn rates_are_those_of_the_last_minute() {
    let rates = Rates::default();
    let start = Instant::now();
    let totals = |requests, errors| Totals { requests, errors, ..Totals::default() };
    assert_eq!(rates.read(start, &totals(9, 9)), None);
    for n in 0..=30 {
        rates.note(start + Duration::from_secs(n * 5), &totals(n * 50, n));
    }
    let recent = rates.read(start + Duration::from_secs(150), &totals(1_500, 30)).expect("known");
    assert!((recent.requests_per_second - 10.0).abs() < 0.01 && (recent.error_rate - 0.02).abs() < 1e-9, "{recent:?}");
    assert!(rates.0.lock().expect("whole").len() <= 14);
}
