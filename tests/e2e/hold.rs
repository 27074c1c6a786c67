//! Requests wait while no process of their app is ready, within bounds, and nothing that may have had effect is sent twice.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use http_body_util::Full;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::harness::{
    Conn, Gateway, Load,
    client::request,
    demo_app, eventually, get, heavy,
    load::How,
    proc,
    tls::TlsClient,
    wait::{eventually_async, secs},
};

fn web(words: &str, more: &str) -> String {
    format!(
        "[app.web]\ncommand = \"{}\"\nready = {{ http = \"/healthz\", timeout = \"30s\" }}\nrestart = {{ delay = \"100ms\", budget = \"100/1m\" }}\n{more}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"web\"\n",
        demo_app(words)
    )
}

fn kill_it(gateway: &Gateway) -> u32 {
    let pid = gateway.wait_app("web", "ready")[0].pid.expect("it runs");
    proc::kill(pid, Signal::SIGKILL);
    pid
}

fn back(gateway: &Gateway, old: u32) {
    eventually("another process is ready", secs(40), || {
        let now = gateway.instance("web", 0);
        if now.state == "ready" && now.pid.is_some_and(|pid| pid != old) { Ok(()) } else { Err(now) }
    });
}

async fn held(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_app_held_requests", &["app=\"web\""]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_only_process_is_seen_by_no_client_that_reads() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&web("--port {port} --boot 500ms", ""));
    gateway.wait_app("web", "ready");
    let plain = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 8).start();
    let h2 = Load::new(gateway.https(), How::H2(TlsClient::internal(&gateway)), "localhost", "/healthz", 4).start();
    plain.more(200).await;
    for _ in 0..4 {
        let old = kill_it(&gateway);
        back(&gateway, old);
        plain.more(100).await;
        h2.more(20).await;
    }
    plain.stop().await.assert_all_200();
    h2.stop().await.assert_all_200();
    assert_eq!(held(&gateway).await, 0.0);
    assert!(gateway.metric("gateway_app_hold_seconds_count", &["app=\"web\""]).await > 0.0, "some had to wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_while_an_app_boots_wait_for_it() {
    let gateway = Gateway::start(&web("--port {port} --boot 1500ms", ""));
    let began = Instant::now();
    let answer = get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut conn = Conn::h1(gateway.http()).await.expect("connected");
    let post = request("POST", "a.test", "/").body(Full::from("what was not sent yet may wait as well")).expect("a request");
    assert_eq!(conn.send(post).await.expect("an answer").status, 200);
    assert!(began.elapsed() < secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_bounds_there_is_503_at_once_and_who_leaves_makes_room() {
    let gateway = Gateway::start(&web("--port {port} --never-listen", "hold = { time = \"20s\", requests = 2 }"));
    let addr = gateway.http();
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        waiting.spawn(async move { get(addr, "a.test", "/healthz").await.map(|answer| answer.status.as_u16()) });
    }
    eventually_async("two wait", secs(20), || async {
        let held = held(&gateway).await;
        if held == 2.0 { Ok(()) } else { Err(held) }
    })
    .await;
    let began = Instant::now();
    let refused = get(addr, "a.test", "/healthz").await.expect("an answer");
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert!(began.elapsed() < secs(5), "at once, not after hold.time");
    // Clients that go away leave.
    waiting.shutdown().await;
    eventually_async("nobody waits", secs(15), || async {
        let held = held(&gateway).await;
        if held == 0.0 { Ok(()) } else { Err(held) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_after_its_time_or_when_the_app_is_stopped() {
    let gateway = Gateway::start(&web("--port {port} --never-listen", "hold = { time = \"1s\" }"));
    let answer = get(gateway.http(), "a.test", "/healthz").await.expect("an answer");
    assert_eq!(answer.status, 503);
    let id = answer.header("x-request-id").to_owned();
    let why = gateway.cli(&["why", &id]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("was ready in the time that requests wait"), "{why}");

    let gateway = Gateway::start(&web("--port {port} --never-listen", "hold = { time = \"60s\" }\nstop = { timeout = \"1s\" }"));
    let addr = gateway.http();
    let mut waits = JoinSet::new();
    waits.spawn(async move { get(addr, "a.test", "/healthz").await.expect("an answer").status.as_u16() });
    eventually_async("it waits", secs(20), || async {
        let held = held(&gateway).await;
        if held == 1.0 { Ok(()) } else { Err(held) }
    })
    .await;
    assert!(gateway.cli(&["stop", "web"]).status.success());
    assert_eq!(waits.join_all().await, [503]);
    let began = Instant::now();
    assert_eq!(get(addr, "a.test", "/healthz").await.expect("an answer").status, 503);
    assert!(began.elapsed() < secs(10), "nobody waits for what was stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_had_effect_is_answered_once_or_fails_and_is_never_sent_twice() {
    let _turn = heavy().await;
    let program = r#"
const fs = require('fs');
require('http').createServer((q, s) => {
  if (q.method !== 'POST') return s.end('ok');
  fs.appendFileSync('posts', q.url + '\n');
  setTimeout(() => s.end('done'), 150);
}).listen(process.env.PORT, '127.0.0.1');
"#;
    let config = "[app.web]\ncommand = \"node app.js {port}\"\nready = \"/\"\nrestart = { delay = \"100ms\", budget = \"100/1m\" }\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n";
    let gateway = Gateway::start_beside(&[("app.js", program)], config);
    gateway.wait_app("web", "ready");
    let addr = gateway.http();
    let end = Instant::now() + Duration::from_millis(4000);
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(async move {
            let mut results = Vec::new();
            let mut n = 0;
            while Instant::now() < end {
                let path = format!("/{client}-{n}");
                n += 1;
                let Ok(mut conn) = Conn::h1(addr).await else { panic!("a connection was refused") };
                let post = request("POST", "a.test", &path).body(Full::from("x")).expect("a request");
                let status = conn.send(post).await.map(|answer| answer.status.as_u16());
                results.push((path, status.expect("every request has an answer")));
            }
            results
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let old = kill_it(&gateway);
        back(&gateway, old);
    }
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    let results: Vec<(String, u16)> = clients.join_all().await.into_iter().flatten().collect();
    for line in fs::read_to_string(gateway.dir().join("posts")).expect("written").lines() {
        *sent.entry(line.to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = sent.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    for (path, status) in &results {
        assert!(matches!(status, 200 | 502), "{path}: {status}");
        assert!(*status != 200 || sent.contains_key(path), "{path} was answered and never sent");
    }
    assert!(results.iter().any(|(_, status)| *status == 502), "some were under way when it was killed");
    assert!(results.iter().filter(|(_, status)| *status == 200).count() > 20, "{}", results.len());
}
