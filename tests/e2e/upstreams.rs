//! Servers that come and go: who is asked, who is not, and what the client sees.

use std::{collections::BTreeMap, time::Instant};

use http_body_util::Full;

use crate::harness::{
    Gateway,
    client::request,
    demo_app, get, raw, send,
    upstream::{self, Upstream},
    wait::{eventually_async, ms, secs},
};

fn config(servers: &[std::net::SocketAddr], more: &str) -> String {
    let servers = servers.iter().map(|addr| format!("\"{addr}\"")).collect::<Vec<_>>().join(", ");
    format!("[upstream.api]\nservers = [{servers}]\n{more}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n")
}

async fn status(gateway: &Gateway) -> u16 {
    get(gateway.http(), "a.test", "/").await.expect("an answer").status.as_u16()
}

async fn turns(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for _ in 0..count {
        let answer = get(gateway.http(), "a.test", "/").await.expect("an answer");
        *out.entry(format!("{} {}", answer.status.as_u16(), answer.text())).or_default() += 1;
    }
    out
}

async fn serves(gateway: &Gateway) {
    eventually_async("it serves", secs(20), || async {
        match status(gateway).await {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

const PROBED: &str = "health = { path = \"/health\", interval = \"200ms\", timeout = \"1s\", fail = 2, pass = 2 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_down_until_it_has_passed_and_comes_back_by_itself() {
    let (one, two) = (upstream::switched("one").await, upstream::switched("two").await);
    for server in [&one, &two] {
        server.answer.store(500, std::sync::atomic::Ordering::Relaxed);
    }
    let gateway = Gateway::start(&config(&[one.addr, two.addr], PROBED));
    let refused = get(gateway.http(), "a.test", "/").await.expect("an answer");
    assert_eq!(refused.status, 503, "no server has passed yet");
    assert!(refused.headers.contains_key("retry-after"));
    let set = |server: &Upstream, status: u16| server.answer.store(status, std::sync::atomic::Ordering::Relaxed);
    set(&one, 200);
    serves(&gateway).await;
    assert_eq!(turns(&gateway, 20).await.into_keys().collect::<Vec<_>>(), ["200 one"], "two has not passed");
    set(&two, 200);
    eventually_async("both are asked", secs(20), || async {
        let seen = turns(&gateway, 10).await;
        if seen.get("200 one") == Some(&5) && seen.get("200 two") == Some(&5) { Ok(()) } else { Err(seen) }
    })
    .await;
    set(&one, 500);
    eventually_async("one is out after its probes fail", secs(20), || async {
        let seen = turns(&gateway, 10).await;
        if seen.get("200 two") == Some(&10) { Ok(()) } else { Err(seen) }
    })
    .await;
    let up = async |server: &Upstream| {
        gateway.metric("gateway_upstream_up", &["upstream=\"api\"", &format!("server=\"{}\"", server.addr)]).await
    };
    assert_eq!((up(&one).await, up(&two).await), (0.0, 1.0));
    // Proven down, all of them: nobody is asked, and the client is told when to come again.
    set(&two, 500);
    let asked = eventually_async("503", secs(20), || async {
        let answer = get(gateway.http(), "a.test", "/").await.expect("an answer");
        if answer.status == 503 && answer.headers.contains_key("retry-after") { Ok(two.hits()) } else { Err(answer.status) }
    })
    .await;
    assert_eq!(status(&gateway).await, 503);
    assert_eq!(two.hits(), asked);
    set(&one, 200);
    set(&two, 200);
    eventually_async("both are back", secs(20), || async {
        let seen = turns(&gateway, 10).await;
        if seen.len() == 2 { Ok(()) } else { Err(seen) }
    })
    .await;
    let listed = gateway.cli(&["upstreams", "--json"]);
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains(&one.addr.to_string()), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_probes_see_a_port_that_opens_later() {
    let addr = upstream::refuses().await;
    let gateway =
        Gateway::start(&config(&[addr], "health = { type = \"tcp\", interval = \"200ms\", timeout = \"1s\", fail = 2, pass = 1 }"));
    assert_eq!(status(&gateway).await, 503);
    let _server = upstream::says_at(addr, "here").await;
    serves(&gateway).await;
}

/// `count` requests for as many pages, by three clients.
async fn pages(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for n in 0..count {
        let asked = request("GET", "a.test", &format!("/{n}")).header("x-forwarded-for", format!("203.0.113.{}", n % 3));
        let answer = send(gateway.http(), asked.body(Full::default()).expect("a request")).await.expect("an answer");
        *out.entry(format!("{} {}", answer.status.as_u16(), answer.text())).or_default() += 1;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_failing_is_set_aside_but_never_the_last() {
    let (good, bad) = (upstream::says("good").await, upstream::fails_with(503).await);
    let passive = |fails: u32| format!("passive = {{ fails = {fails}, within = \"60s\", for = \"60s\" }}\nretry = {{ tries = 1 }}");
    let trusting =
        |servers: &[std::net::SocketAddr], fails: u32| format!("trusted_proxies = [\"127.0.0.0/8\"]\n{}", config(servers, &passive(fails)));
    let gateway = Gateway::start(&trusting(&[good.addr, bad.addr], 3));
    // One page that always fails says nothing of its server.
    let seen = turns(&gateway, 40).await;
    assert_eq!(seen.get("200 good"), Some(&20), "{seen:?}");
    eventually_async("only the good one is asked", secs(20), || async {
        let seen = pages(&gateway, 12).await;
        if seen.get("200 good") == Some(&12) { Ok(()) } else { Err(seen) }
    })
    .await;
    let gateway = Gateway::start(&trusting(&[bad.addr], 1));
    let before = bad.hits();
    assert_eq!(pages(&gateway, 10).await.values().sum::<usize>(), 10);
    assert_eq!(bad.hits(), before + 10, "the last server is asked whatever it does");
    assert_eq!(get(gateway.admin(), "localhost", "/health/ready").await.expect("an answer").status, 200, "and is up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_says_when_to_come_again_is_well() {
    let (good, busy) = (upstream::says("good").await, upstream::says_later().await);
    let servers = config(&[good.addr, busy.addr], "passive = { fails = 1, within = \"60s\", for = \"60s\" }\nretry = { tries = 1 }");
    let gateway = Gateway::start(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{servers}"));
    let seen = pages(&gateway, 40).await;
    assert_eq!(seen.get("200 good"), Some(&20), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_reached_costs_no_client_an_answer() {
    let (good, gone) = (upstream::says("good").await, upstream::refuses().await);
    let gateway = Gateway::start(&config(&[gone, good.addr], "passive = { fails = 1000, within = \"10s\", for = \"1s\" }"));
    assert_eq!(turns(&gateway, 40).await, BTreeMap::from([("200 good".to_owned(), 40)]));
    assert!(gateway.metric("gateway_upstream_retries_total", &["upstream=\"api\""]).await >= 10.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_have_had_effect_is_not_sent_twice() {
    let resets = upstream::resets().await;
    let gateway = Gateway::start(&config(
        &[resets.addr],
        "passive = { fails = 1000, within = \"10s\", for = \"1s\" }\nretry = { tries = 3, on = [\"connect\", \"timeout\", \"502\"] }",
    ));
    let post = request("POST", "a.test", "/order").body(Full::from("one book")).expect("a request");
    let answer = send(gateway.http(), post).await.expect("an answer");
    assert_eq!(answer.status, 502);
    assert_eq!(resets.accepted.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstreams_do_wrong_becomes_502_503_or_504_with_our_page() {
    let (hangs, resets, babbles, breaks) =
        (upstream::hangs().await, upstream::resets().await, upstream::babbles().await, upstream::breaks_off().await);
    let gone = upstream::refuses().await;
    let timeouts = "timeouts = { connect = \"1s\", read = \"1s\", send = \"1s\", idle = \"1s\" }\nretry = { tries = 1 }\n";
    let mut text = String::new();
    let servers = [("hangs", hangs.addr), ("resets", resets.addr), ("babbles", babbles.addr), ("breaks", breaks.addr), ("gone", gone)];
    for (name, addr) in servers {
        text.push_str(&format!("[upstream.{name}]\nservers = [\"{addr}\"]\n{timeouts}"));
    }
    text.push_str("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n");
    for (name, _) in servers {
        text.push_str(&format!("[site.route.\"/{name}\"]\nupstream = \"{name}\"\n"));
    }
    let gateway = Gateway::start(&text);
    for (path, wanted) in [("/hangs", 504), ("/resets", 502), ("/babbles", 502), ("/gone", 502)] {
        let begin = Instant::now();
        let answer = get(gateway.http(), "a.test", path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status.as_u16(), wanted, "{path}");
        assert!(begin.elapsed() < secs(10), "{path}: {:?}", begin.elapsed());
        assert!(!answer.body.is_empty() && answer.header("x-frame-options") == "SAMEORIGIN", "{path}: our page: {answer:?}");
    }
    // A body that breaks off half-way cannot become another status; the client must see that it is not whole.
    assert!(get(gateway.http(), "a.test", "/breaks").await.is_err());
    assert!(!gateway.output().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2c_is_spoken_where_it_is_asked_for() {
    let echo = upstream::echo_h2c("h2c").await;
    let gateway = Gateway::start(&config(&[echo.addr], "http = \"2\""));
    let post = request("POST", "a.test", "/x?y=z").body(Full::from("body")).expect("a request");
    let seen = send(gateway.http(), post).await.expect("an answer").json();
    assert_eq!(seen["version"], "HTTP/2.0");
    assert_eq!(
        (seen["target"].as_str(), seen["body"].as_str(), seen["authority"].as_str()),
        (Some("/x?y=z"), Some("body"), Some("a.test")),
        "{seen}"
    );
}

/// Declines what it has not seen yet, in one of two ways, and writes down what it took. `/count`: how often each body was taken.
const DECLINES: &str = r#"
const http2 = require("http2");
const declined = new Set(), taken = {};
const server = http2.createServer();
server.on("stream", (stream, headers) => {
  const path = headers[":path"];
  stream.on("error", () => {});
  if (path === "/count") { stream.respond({ ":status": 200 }); return stream.end(JSON.stringify({ taken, declined: declined.size })); }
  if (path === "/fail") return stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
  // nghttp2 takes a last stream of 0 for "all that I know": the first of a connection cannot be left out.
  const goes = path.startsWith("/goaway");
  if (!declined.has(path) && !(goes && stream.id < 3)) {
    declined.add(path);
    if (goes) return stream.session.goaway(http2.constants.NGHTTP2_NO_ERROR, stream.id - 2);
    return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
  }
  stream.on("data", () => {});
  stream.on("end", () => {
    taken[path] = (taken[path] || 0) + 1;
    stream.respond({ ":status": 200 });
    stream.end("taken");
  });
});
server.on("sessionError", () => {});
server.listen(process.env.PORT, "127.0.0.1");
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_that_a_server_of_http2_has_not_looked_at_are_taken_once_each() {
    let config = "[app.web]\ncommand = \"node app.js\"\nhttp = \"2\"\nready = { http = \"/count\" }\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n";
    let gateway = Gateway::start_beside(&[("app.js", DECLINES)], config);
    gateway.wait_app_for("web", "ready", secs(60));
    let mut paths = Vec::new();
    for round in 0..10 {
        for way in ["refused", "goaway"] {
            let path = format!("/{way}/{round}");
            let post = request("POST", "a.test", &path).body(Full::from("body")).expect("a request");
            let answer = send(gateway.http(), post).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "taken".to_owned()), "{path}");
            paths.push(path);
        }
    }
    let count = get(gateway.http(), "a.test", "/count").await.expect("an answer").json();
    let once = paths.iter().map(|path| (path.clone(), serde_json::Value::from(1))).collect();
    assert_eq!(count["taken"], serde_json::Value::Object(once), "each once");
    assert!(count["declined"].as_u64() > Some(10), "{count}: all that were refused, and some by GOAWAY");
    // A stream that fails says something of the request, and nothing of the connection: a POST is not repeated, a GET is, and ends.
    for method in ["POST", "GET"] {
        let asked = request(method, "a.test", "/fail").body(Full::default()).expect("a request");
        assert_eq!(send(gateway.http(), asked).await.expect("an answer").status, 502, "{method}");
    }
    assert_eq!(get(gateway.http(), "a.test", "/count").await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_said_over_http2_is_no_strike_against_the_server() {
    let echo = upstream::echo_h2c("h2c").await;
    let of_any_name = config(&[echo.addr], "http = \"2\"\npassive = { fails = 2, within = \"60s\", for = \"60s\" }").replace("a.test", "_");
    let gateway = Gateway::start(&of_any_name);
    for _ in 0..6 {
        let answer = raw::speak(gateway.http(), b"GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(raw::status(&answer), 400, "{answer}");
    }
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_round_robin_are_exact_and_least_conn_avoids_the_busy() {
    let (one, two) = (upstream::says("one").await, upstream::says("two").await);
    let gateway = Gateway::start(&format!(
        "workers = 1\n[upstream.api]\nservers = [{{ addr = \"{}\", weight = 3 }}, \"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n",
        one.addr, two.addr
    ));
    assert_eq!(turns(&gateway, 40).await, BTreeMap::from([("200 one".to_owned(), 30), ("200 two".to_owned(), 10)]));
    let (busy, idle) = (upstream::hangs().await, upstream::says("idle").await);
    for balance in ["least_conn", "p2c"] {
        let gateway = Gateway::start(&config(&[busy.addr, idle.addr], &format!("balance = \"{balance}\"\nretry = {{ tries = 1 }}")));
        let addr = gateway.http();
        let mut stuck = tokio::task::JoinSet::new();
        let mut answered = 0;
        for _ in 0..30 {
            let mut one = tokio::task::JoinSet::new();
            one.spawn(async move { get(addr, "a.test", "/").await });
            match tokio::time::timeout(ms(500), one.join_next()).await {
                Ok(_) => answered += 1,
                Err(_) => {
                    stuck.spawn(async move { while one.join_next().await.is_some() {} });
                }
            }
        }
        assert!(answered >= 27, "{balance}: {answered} of 30 were answered; a request that hangs counts as a connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_serves_only_while_no_other_does() {
    let gone = upstream::refuses().await;
    let (first, backup) = (upstream::switched("first").await, upstream::switched("backup").await);
    backup.answer.store(200, std::sync::atomic::Ordering::Relaxed);
    first.answer.store(200, std::sync::atomic::Ordering::Relaxed);
    let gateway = Gateway::start(&format!(
        "[upstream.api]\nservers = [\"{}\", \"{gone}\", {{ addr = \"{}\", backup = true }}]\n{PROBED}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n",
        first.addr, backup.addr
    ));
    eventually_async("the first serves alone", secs(20), || async {
        let seen = turns(&gateway, 10).await;
        if seen.get("200 first") == Some(&10) { Ok(()) } else { Err(seen) }
    })
    .await;
    first.answer.store(500, std::sync::atomic::Ordering::Relaxed);
    eventually_async("the backup serves", secs(20), || async {
        let seen = turns(&gateway, 10).await;
        if seen.get("200 backup") == Some(&10) { Ok(()) } else { Err(seen) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_behind_a_unix_socket() {
    let gateway = Gateway::start(&format!(
        "[app.web]\ncommand = \"{}\"\nprocs = 2\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        demo_app("--socket {socket}")
    ));
    gateway.wait_app("web", "ready");
    for _ in 0..10 {
        assert_eq!(status(&gateway).await, 200);
    }
    let restarted = gateway.cli(&["restart", "web"]);
    assert!(restarted.status.success(), "{restarted:?}");
    gateway.wait_app("web", "ready");
    assert_eq!(status(&gateway).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_strip_rewrite_redirect_and_respond() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&format!(
        r#"
[upstream.api]
servers = ["{}"]
[[site]]
host = "a.test"
aliases = ["*.wild.test"]
tls = "off"
[site.route."/"]
upstream = "api"
[site.route."/api/"]
upstream = "api"
strip = "/api"
request_headers = {{ "X-Env" = "prod" }}
response_headers = {{ "X-Powered-By" = "", "X-Route" = "api" }}
[site.route."/old/"]
upstream = "api"
rewrite = ["^/old/(.*)", "/new/$1"]
[site.route."= /ping"]
respond = {{ status = 200, body = "pong" }}
[site.route."~ ^/img/.*[.]png$"]
respond = {{ status = 200, body = "picture" }}
[site.route."/moved"]
redirect = {{ to = "https://example.com/new", status = 301 }}
[[site]]
host = "_"
tls = "off"
[site.route."/"]
respond = {{ status = 404, body = "nobody" }}
"#,
        echo.addr
    ));
    let addr = gateway.http();
    let ask = async |host: &str, path: &str| get(addr, host, path).await.expect("an answer");
    assert_eq!(ask("a.test", "/x?q=1").await.json()["target"], "/x?q=1");
    let stripped = ask("a.test", "/api/users?id=7").await;
    assert_eq!(stripped.json()["target"], "/users?id=7");
    assert_eq!(stripped.json()["headers"]["x-env"][0], "prod");
    assert_eq!(stripped.header("x-route"), "api");
    assert!(!stripped.headers.contains_key("x-powered-by"));
    assert_eq!(ask("a.test", "/old/thing?a=b").await.json()["target"], "/new/thing?a=b");
    assert_eq!(ask("a.test", "/ping").await.text(), "pong");
    assert_eq!(ask("a.test", "/img/cat.png").await.text(), "picture");
    let moved = ask("a.test", "/moved").await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (301, "https://example.com/new"));
    assert_eq!(ask("deep.wild.test", "/ping").await.text(), "pong");
    assert_eq!(ask("A.TEST:80", "/ping").await.text(), "pong", "names have no case, and a port is no part of them");
    assert_eq!(ask("other.test", "/").await.text(), "nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_that_a_server_gave_up_cost_no_client_an_answer() {
    let server = upstream::answers_once().await;
    let gateway =
        Gateway::start(&format!("workers = 1\n{}", config(&[server.addr], "passive = { fails = 100, within = \"10s\", for = \"1s\" }")));
    for round in 0..5 {
        // Fills the pool with connections that are dead at their next request; the one that comes then would meet them one after the other.
        let mut at_once = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let addr = gateway.http();
            at_once.spawn(async move { get(addr, "a.test", "/").await.map(|answer| answer.status.as_u16()) });
        }
        while let Some(answer) = at_once.join_next().await {
            assert_eq!(answer.expect("no panic").expect("an answer"), 200, "round {round}");
        }
        assert_eq!(status(&gateway).await, 200, "round {round}");
    }
}
