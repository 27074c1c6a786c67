//! Processes that hang: stopped, busy, or slow on purpose; and answers whose head never ends.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{
    harness::{
        Conn, Gateway, Load,
        client::{request, request_h2, tcp},
        demo_app, get, heavy,
        load::How,
        proc,
        tls::TlsClient,
        upstream,
        wait::{eventually_async, ms, secs},
    },
    real::venv,
};

/// Writes down what it is asked before it answers, after `wait` milliseconds; for `block` milliseconds it does nothing else.
const NODE: &str = r#"
const http = require("http"), fs = require("fs");
const at = process.argv[2];
const server = http.createServer((request, response) => {
  fs.appendFileSync("seen", `${process.pid} ${request.method} ${request.url}\n`);
  const asked = new URL(request.url, "http://a").searchParams;
  const block = Number(asked.get("block"));
  if (block) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, block);
  request.resume();
  request.on("end", () => setTimeout(() => { response.setHeader("x-pid", process.pid); response.end("ok"); }, Number(asked.get("wait"))));
});
// While it is stopped, its own patience with idle connections goes on: it would reset what has not been read.
server.keepAliveTimeout = 60_000;
server.listen(/^\d+$/.test(at) ? { port: Number(at), host: "127.0.0.1" } : at);
"#;

/// The same, for uvicorn.
const ASGI: &str = r#"
import asyncio, os
from urllib.parse import parse_qs

async def app(scope, receive, send):
    query = scope["query_string"].decode()
    with open("seen", "a") as seen: seen.write(f"{os.getpid()} {scope['method']} {scope['path']}?{query}\n")
    while (await receive()).get("more_body"): pass
    await asyncio.sleep(int(parse_qs(query).get("wait", ["0"])[0]) / 1000)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-pid", str(os.getpid()).encode())]})
    await send({"type": "http.response.body", "body": b"ok"})
"#;

fn of(command: &str, more: &str) -> String {
    format!(
        "[app.web]\ncommand = \"{command}\"\nprocs = 2\n{more}\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"web\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n"
    )
}

/// What each server of the app is, as `gateway upstreams` says.
fn states(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let servers = status["upstreams"][0]["servers"].as_array().cloned().unwrap_or_default();
    servers.iter().map(|server| server["state"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn counted(gateway: &Gateway) -> (f64, f64) {
    (gateway.metric("gateway_upstream_suspected_total", &[]).await, gateway.metric("gateway_upstream_retries_total", &[]).await)
}

/// Client after client, each with one request at a time, over HTTP/1 or HTTP/2.
struct Clients {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// What went wrong, and the longest wait.
    faults: Arc<Mutex<Vec<String>>>,
    longest: Arc<Mutex<Duration>>,
}

impl Clients {
    fn start(gateway: &Gateway, how: &How, method: &'static str, count: usize, clock: Instant) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let new =
            Self { tasks: JoinSet::new(), stop: Arc::default(), answered: Arc::default(), faults: Arc::default(), longest: Arc::default() };
        let mut clients = new;
        for _ in 0..count {
            let (how, plain, secure) = (how.clone(), gateway.http(), gateway.https());
            let (stop, answered, faults, longest) =
                (clients.stop.clone(), clients.answered.clone(), clients.faults.clone(), clients.longest.clone());
            clients.tasks.spawn(async move {
                let end = Instant::now() + secs(60);
                while !stop.load(Relaxed) && Instant::now() < end {
                    let path = format!("/?n={}&t={}", NUMBER.fetch_add(1, Relaxed), clock.elapsed().as_millis());
                    let begun = Instant::now();
                    let sent = async {
                        let (mut conn, builder) = match &how {
                            How::Plain => (Conn::h1(plain).await?, request(method, "a.test", &path)),
                            How::H2(tls) => (Conn::h2_tls(secure, tls, "localhost").await?, request_h2(method, "localhost", &path)),
                        };
                        conn.send(builder.body(Full::default()).expect("a request")).await
                    };
                    match sent.await {
                        Ok(answer) if answer.status == 200 => {
                            answered.fetch_add(1, Relaxed);
                        }
                        other => faults.lock().expect("whole").push(format!("{method} {path}: {other:?}")),
                    }
                    let took = begun.elapsed();
                    let mut longest = longest.lock().expect("whole");
                    *longest = took.max(*longest);
                }
            });
        }
        clients
    }

    async fn more(&self, count: u64) {
        let goal = self.answered.load(Relaxed) + count;
        eventually_async("more answers", secs(30), || async {
            let answered = self.answered.load(Relaxed);
            if answered >= goal { Ok(()) } else { Err(answered) }
        })
        .await;
    }

    /// Waits for the last answers. Gives the longest wait.
    async fn end(mut self) -> Duration {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
        let faults = self.faults.lock().expect("whole");
        assert!(faults.is_empty(), "{} of {}: {:?}", faults.len(), self.answered.load(Relaxed), faults.first());
        *self.longest.lock().expect("whole")
    }
}

/// From a client's clock to the choice of a process, on a machine with much to do.
const ON_ITS_WAY_MS: u128 = 1_000;

/// One of two is stopped under load, and goes on later.
async fn one_of_two_is_stopped(gateway: &Gateway, how: How) {
    let stopped = gateway.wait_app_for("web", "ready", secs(60))[0].pid.expect("a process");
    let clock = Instant::now();
    let now = || clock.elapsed().as_millis();
    let gets = Clients::start(gateway, &how, "GET", 8, clock);
    let posts = Clients::start(gateway, &how, "POST", 2, clock);
    gets.more(50).await;
    proc::kill(stopped, Signal::SIGSTOP);
    let at = now();
    eventually_async("it is suspect", secs(20), || async {
        let states = states(gateway);
        if states == ["suspect", "up"] { Ok(()) } else { Err(states) }
    })
    .await;
    let suspect = now();
    println!("suspect {} ms after it was stopped", suspect - at);
    let listed = gateway.cli(&["upstreams"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("suspect") && listed.contains("no byte from it for"), "{listed}");
    // Who waits there is answered by the other one; what the server may be working on comes last.
    let longest = gets.end().await;
    println!("the longest GET took {longest:?}");
    let again = Clients::start(gateway, &how, "GET", 4, clock);
    again.more(200).await;
    assert_eq!(states(gateway), ["suspect", "up"]);
    let (suspected, moved) = counted(gateway).await;
    assert!(suspected == 1.0 && moved >= 1.0, "{suspected} {moved}");
    // None of them is on its way while the process comes back.
    again.end().await;
    let resumed = now();
    proc::kill(stopped, Signal::SIGCONT);
    let again = Clients::start(gateway, &how, "GET", 4, clock);
    eventually_async("it serves again", secs(20), || async {
        let answer = get(gateway.http(), "a.test", "/").await.map_err(|error| error.to_string())?;
        if answer.header("x-pid") == stopped.to_string() { Ok(()) } else { Err("the other one".to_owned()) }
    })
    .await;
    assert_eq!(states(gateway), ["up", "up"]);
    again.end().await;
    posts.end().await;
    let seen = fs::read_to_string(gateway.dir().join("seen")).expect("written");
    let mut posts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in seen.lines() {
        let (pid, asked) = line.split_once(' ').expect("two words");
        if asked.starts_with("POST") {
            *posts.entry(asked).or_default() += 1;
        }
        let sent = asked.split_once("&t=").and_then(|(_, sent)| sent.parse::<u128>().ok());
        // A POST that was asked a moment before may have come to the process that had come back.
        let until = if asked.starts_with("POST") { resumed.saturating_sub(ON_ITS_WAY_MS) } else { resumed };
        let there = pid == stopped.to_string() && sent.is_some_and(|sent| (suspect..until).contains(&sent));
        assert!(!there, "sent to the suspect: {line}");
    }
    assert!(posts.len() > 10 && posts.values().all(|times| *times == 1), "{:?}", posts.iter().find(|(_, times)| **times > 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_process_leaves_the_rotation_and_comes_back() {
    let _turn = heavy().await;
    let gateway = Gateway::start_beside(&[("app.js", NODE)], &of("node app.js {port}", "health = \"/healthz\""));
    one_of_two_is_stopped(&gateway, How::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_uvicorn_behind_a_socket_leaves_the_rotation_and_comes_back() {
    let _turn = heavy().await;
    let command =
        format!("{}/bin/uvicorn main:app --uds {{socket}} --lifespan off --no-access-log --timeout-keep-alive 60", venv().display());
    let gateway = Gateway::start_beside(&[("main.py", ASGI)], &of(&command, ""));
    let how = How::H2(TlsClient::internal(&gateway));
    one_of_two_is_stopped(&gateway, how).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_both_are_stopped_nobody_is_taken_out() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&of(&demo_app("--port {port}"), "health = \"/healthz\""));
    gateway.wait_app("web", "ready");
    let pids = gateway.pids("web");
    for pid in &pids {
        proc::kill(*pid, Signal::SIGSTOP);
    }
    let clients = Clients::start(&gateway, &How::Plain, "GET", 6, Instant::now());
    let until = Instant::now() + secs(5);
    while Instant::now() < until {
        assert_eq!(states(&gateway), ["up", "up"]);
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(clients.answered.load(Relaxed), 0);
    for pid in &pids {
        proc::kill(*pid, Signal::SIGCONT);
    }
    clients.more(20).await;
    clients.end().await;
    assert_eq!(counted(&gateway).await, (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_polls_stay_where_they_are() {
    let _turn = heavy().await;
    let gateway = Gateway::start(&of(&demo_app("--port {port}"), ""));
    gateway.wait_app("web", "ready");
    let mut polls = JoinSet::new();
    for _ in 0..6 {
        let addr = gateway.http();
        polls.spawn(async move { get(addr, "a.test", "/slow?ms=10000").await });
    }
    // Others are answered now and then, and for some time nobody asks for anything.
    let load = Load::new(gateway.http(), How::Plain, "a.test", "/healthz", 2);
    for pause in [ms(300), ms(300), secs(4)] {
        load.run(20).await.assert_all_200();
        tokio::time::sleep(pause).await;
    }
    load.run(20).await.assert_all_200();
    while let Some(poll) = polls.join_next().await {
        let answer = poll.expect("no panic").expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "after 10000 ms\n"));
    }
    assert_eq!(counted(&gateway).await, (0.0, 0.0), "suspects and retries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_page_of_the_only_process_is_waited_for() {
    let gateway = Gateway::start(&of(&demo_app("--port {port}"), "").replace("procs = 2", "procs = 1"));
    gateway.wait_app("web", "ready");
    let answer = get(gateway.http(), "a.test", "/slow?ms=5000").await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "after 5000 ms\n"));
    assert_eq!(counted(&gateway).await, (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_busy_process_works_on_is_not_done_twice_and_who_waits_behind_it_is_answered() {
    let _turn = heavy().await;
    let gateway = Gateway::start_beside(&[("app.js", NODE)], &of("node app.js {port}", ""));
    gateway.wait_app("web", "ready");
    let slow = get(gateway.http(), "a.test", "/report?block=5000");
    let others = async {
        eventually_async("it works", secs(10), || async {
            let seen = fs::read_to_string(gateway.dir().join("seen")).unwrap_or_default();
            if seen.contains("/report") { Ok(()) } else { Err(seen) }
        })
        .await;
        let clients = Clients::start(&gateway, &How::Plain, "GET", 4, Instant::now());
        clients.more(40).await;
        clients.end().await
    };
    let (slow, _) = tokio::join!(slow, others);
    assert_eq!(slow.expect("an answer").status, 200);
    let seen = fs::read_to_string(gateway.dir().join("seen")).expect("written");
    assert_eq!(seen.lines().filter(|line| line.contains("/report")).count(), 1, "{seen}");
}

async fn ends_with_504(upstream: &upstream::Upstream, more: &[u8]) {
    let gateway = Gateway::start(&format!(
        "[upstream.bad]\nservers = [\"{}\"]\ntimeouts = {{ read = \"1s\" }}\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"bad\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"bad\"\n",
        upstream.addr
    ));
    // HTTP/1 by hand: interim answers may come before the one that counts.
    let mut stream = tcp(gateway.http()).await.expect("connected");
    stream.write_all(&[b"GET / HTTP/1.1\r\nHost: a.test\r\n", more, b"\r\n"].concat()).await.expect("sent");
    let said = tokio::time::timeout(secs(15), async {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("HTTP/1.1 504 ") {
            assert!(
                tokio::io::AsyncReadExt::read_buf(&mut stream, &mut said).await.expect("readable") > 0,
                "{}",
                String::from_utf8_lossy(&said)
            );
        }
    });
    said.await.expect("it ends");
    let h2 = async {
        let mut conn = Conn::h2_tls(gateway.https(), &TlsClient::internal(&gateway), "localhost").await.expect("connected");
        let asked: Request<Full<Bytes>> = request_h2("GET", "localhost", "/").body(Full::default()).expect("a request");
        conn.send(asked).await.expect("an answer")
    };
    assert_eq!(tokio::time::timeout(secs(15), h2).await.expect("it ends").status, 504);
    let asked = gateway.metric("gateway_upstream_requests_total", &["code=\"504\""]).await;
    assert_eq!(asked, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_drips_ends_at_read() {
    ends_with_504(&upstream::drips(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x").await, b"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_end_end_at_read() {
    ends_with_504(&upstream::drips(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await, b"").await;
}

const UPGRADE: &[u8] =
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_is_never_agreed_to_ends_at_read() {
    ends_with_504(&upstream::drips(b"HTTP/1.1 101 Switching Protocols\r\nX-Long: ", b"x").await, UPGRADE).await;
    ends_with_504(&upstream::drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n").await, UPGRADE).await;
}
