//! Many requests, none lost, every answer dressed as it should be.

use http_body_util::Full;

use crate::harness::{
    Answer, Conn, Gateway, Load,
    client::{request, request_h2},
    demo_app, get, heavy,
    load::How,
    tls::TlsClient,
    upstream,
};

/// `headers = "strict"`, but for HSTS, which is for TLS alone.
const STRICT: [(&str, &str); 6] = [
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("content-security-policy", "default-src 'self'; script-src 'self' 'unsafe-inline'"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
    ("x-xss-protection", "1; mode=block"),
];
const HSTS: &str = "max-age=31536000; includeSubDomains";

fn strict(answer: &Answer) -> Result<(), String> {
    for (name, value) in STRICT {
        if answer.headers.get_all(name).iter().count() != 1 || answer.header(name) != value {
            return Err(format!("{}: {name} is {:?}", answer.status, answer.headers.get_all(name).iter().collect::<Vec<_>>()));
        }
    }
    for name in ["server", "x-powered-by"] {
        if answer.headers.contains_key(name) {
            return Err(format!("{}: {name} gives away {:?}", answer.status, answer.header(name)));
        }
    }
    if answer.headers.contains_key("x-request-id") { Ok(()) } else { Err(format!("{}: no x-request-id", answer.status)) }
}

fn strict_in_the_clear(answer: &Answer) -> Result<(), String> {
    strict(answer)?;
    if answer.headers.contains_key("strict-transport-security") { Err("HSTS in the clear".into()) } else { Ok(()) }
}

fn strict_over_tls(answer: &Answer) -> Result<(), String> {
    strict(answer)?;
    if answer.header("strict-transport-security") == HSTS { Ok(()) } else { Err(format!("{}: no HSTS", answer.status)) }
}

fn two_processes() -> String {
    format!(
        r#"
[app.web]
command = "{}"
procs = 2
health = "/healthz"
[defaults]
headers = "strict"
[[site]]
host = "localhost"
tls = "internal"
app = "web"
[[site]]
host = "plain.test"
tls = "off"
app = "web"
"#,
        demo_app("--port {port}")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_over_http1_are_all_answered() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&two_processes());
    gateway.wait_app("web", "ready");
    let mut load = Load::new(gateway.http(), How::Plain, "plain.test", "/healthz", 64);
    load.check = strict_in_the_clear;
    let tally = load.run(100_000).await;
    tally.assert_all_200();
    assert_eq!(tally.total(), 100_000);
    gateway.counts("gateway_http_requests_total", &["site=\"plain.test\"", "code=\"200\""], 100_000.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_over_http2_are_all_answered() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&two_processes());
    gateway.wait_app("web", "ready");
    let mut load = Load::new(gateway.https(), How::H2(TlsClient::internal(&gateway)), "localhost", "/healthz", 64);
    load.check = strict_over_tls;
    let tally = load.run(100_000).await;
    tally.assert_all_200();
    assert_eq!(tally.total(), 100_000);
    gateway.counts("gateway_http_requests_total", &["site=\"localhost\"", "code=\"200\""], 100_000.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_answer_carries_the_strict_headers() {
    let refused = upstream::refuses().await;
    let gateway = Gateway::start(&format!(
        r#"
[upstream.gone]
servers = ["{refused}"]
[zone.one]
rate = "1r/m"
burst = 0
[[site]]
host = ["localhost", "www.localhost"]
tls = "internal"
headers = "strict"
[site.route."/gone"]
upstream = "gone"
[site.route."/once"]
respond = {{ status = 200, body = "once" }}
zone = "one"
[site.route."/moved"]
redirect = {{ to = "https://localhost/new", status = 301 }}
[site.route."/post"]
respond = {{ status = 200, body = "posted" }}
methods = ["POST"]
"#
    ));
    let tls = TlsClient::internal(&gateway);
    let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let cases =
        [("/once", 200), ("/once", 429), ("/nothing", 404), ("/gone", 502), ("/moved", 301), ("/post", 405), ("/moved/.git/config", 403)];
    for (path, status) in cases {
        let mut h1 = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
        let answer = h1.send(request("GET", "localhost", path).body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status, status, "h1 {path}");
        strict_over_tls(&answer).unwrap_or_else(|why| panic!("h1 {path}: {why}"));
    }
    for (path, status) in cases.into_iter().skip(1) {
        let answer = h2.send(request_h2("GET", "localhost", path).body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status, status, "h2 {path}");
        strict_over_tls(&answer).unwrap_or_else(|why| panic!("h2 {path}: {why}"));
    }
    let to_https = get(gateway.http(), "localhost", "/a?b=c").await.expect("an answer");
    assert!(to_https.status.is_redirection(), "{}", to_https.status);
    assert!(to_https.header("location").starts_with("https://localhost"), "{}", to_https.header("location"));
    assert!(to_https.header("location").ends_with("/a?b=c"), "{}", to_https.header("location"));
    strict_in_the_clear(&to_https).expect("the redirect to https is dressed too");
    let canonical = {
        let mut conn = Conn::h1_tls(gateway.https(), &tls, "www.localhost").await.expect("connected");
        conn.send(request("GET", "www.localhost", "/x").body(Full::default()).expect("a request")).await.expect("an answer")
    };
    assert_eq!(canonical.status, 308);
    strict_over_tls(&canonical).expect("the redirect to the canonical name is dressed too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_sends_wins_over_the_strict_set() {
    let app = upstream::serve_headers(&[("x-frame-options", "SAMEORIGIN"), ("content-security-policy", "default-src *")]).await;
    let gateway = Gateway::start(&format!(
        "[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\nheaders = \"strict\"\n",
        app.addr
    ));
    let answer = get(gateway.http(), "a.test", "/").await.expect("an answer");
    assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN");
    assert_eq!(answer.header("content-security-policy"), "default-src *");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.headers.get_all("x-frame-options").iter().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_nothing_is_added_that_an_honest_site_would_break_by() {
    let app =
        upstream::serve_headers(&[("server", "uvicorn"), ("content-security-policy", "frame-ancestors https://partner.example")]).await;
    let gateway = Gateway::start(&format!(
        "[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = \"hi\"\n",
        app.addr
    ));
    let told = |answer: &Answer| {
        let all =
            ["x-frame-options", "content-security-policy", "strict-transport-security", "permissions-policy", "x-xss-protection", "server"];
        all.map(|name| if answer.headers.contains_key(name) { answer.header(name).to_owned() } else { "-".to_owned() })
    };
    let permissions = "camera=(self), microphone=(self), geolocation=(self)";
    let ours = get(gateway.http(), "a.test", "/").await.expect("an answer");
    assert_eq!(told(&ours), ["SAMEORIGIN", "frame-ancestors 'self'", "-", permissions, "0", "-"]);
    // The app's own choice of who may frame it stands alone, and our own CA shuts no other port of a development host.
    let tls = TlsClient::internal(&gateway);
    let mut conn = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let apps = conn.send(request("GET", "localhost", "/").body(Full::default()).expect("a request")).await.expect("an answer");
    assert_eq!(told(&apps), ["-", "frame-ancestors https://partner.example", "-", permissions, "0", "-"]);
}
