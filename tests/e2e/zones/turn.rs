//! Requests that wait for their turn: in line, spaced, counted, and gone when their client is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::{HERE, behind, counted, one};
use crate::harness::{
    Conn, Gateway,
    client::{request, request_h2},
    demo_app, get,
    tls::TlsClient,
    upstream,
    wait::{eventually_async, ms, secs},
    ws::Socket,
};

async fn waiting(gateway: &Gateway, wanted: u32) {
    eventually_async(&format!("{wanted} wait"), secs(20), || async {
        let waiting = gateway.metric("gateway_zone_waiting", &["zone=\"z\""]).await;
        if waiting == f64::from(wanted) { Ok(()) } else { Err(waiting) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_the_pace_goes_on_at_the_pace() {
    let far = upstream::says("far").await;
    let gateway = Gateway::start(&one("rate = \"4r/s\"\nburst = 6\ndelay = 2", &behind(far.addr)));
    let addr = gateway.http();
    let began = Instant::now();
    let answers = join_all((0..7).map(|_| async move {
        let status = get(addr, "a.test", "/").await.expect("an answer").status.as_u16();
        (began.elapsed(), status)
    }))
    .await;
    let mut took: Vec<Duration> = answers.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    assert!(answers.iter().all(|(_, status)| *status == 200), "{answers:?}");
    // Three at once, then one each quarter of a second: later on a slow machine, never earlier.
    for (n, took) in (1..).zip(&took[3..]) {
        assert!(*took >= ms(250) * n, "{took:?} for turn {n}");
    }
    let delayed = counted(&gateway, "delayed").await;
    assert!((1.0..=4.0).contains(&delayed) && delayed + counted(&gateway, "passed").await == 7.0, "{delayed}");
    assert_eq!(far.hits(), 7);
    waiting(&gateway, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_the_line_makes_room_over_http1_and_http2() {
    let gateway = Gateway::start(
        &one("rate = \"1r/m\"\nburst = 2\nnodelay = false", HERE)
            .replace("host = \"a.test\"\ntls = \"off\"", "host = \"localhost\"\ntls = \"internal\""),
    );
    let tls = TlsClient::internal(&gateway);
    let addr = gateway.https();
    let conn = Conn::h2_tls(addr, &tls, "localhost").await.expect("connected");
    let h2 = |line: &mut JoinSet<u16>| {
        let mut sender = conn.share();
        line.spawn(async move {
            let asked = request_h2("GET", "localhost", "/").body(Full::<Bytes>::default()).expect("a request");
            sender.send_request(asked).await.expect("an answer").status().as_u16()
        });
    };
    let h1 = |line: &mut JoinSet<u16>| {
        let tls = tls.clone();
        line.spawn(async move {
            let mut conn = Conn::h1_tls(addr, &tls, "localhost").await.expect("connected");
            let asked = request("GET", "localhost", "/").body(Full::default()).expect("a request");
            conn.send(asked).await.expect("an answer").status.as_u16()
        });
    };
    let now = async |line: &mut JoinSet<u16>| line.join_next().await.expect("one is there").expect("it ran");
    let mut other = JoinSet::new();
    h2(&mut other);
    assert_eq!(now(&mut other).await, 200);
    for by in [&h2 as &dyn Fn(&mut JoinSet<u16>), &h1, &h2] {
        let (mut front, mut back) = (JoinSet::new(), JoinSet::new());
        by(&mut front);
        waiting(&gateway, 1).await;
        by(&mut back);
        waiting(&gateway, 2).await;
        h1(&mut other);
        assert_eq!(now(&mut other).await, 429, "the line is full");
        // The last leaves first, then the other: both turns come back.
        back.shutdown().await;
        waiting(&gateway, 1).await;
        front.shutdown().await;
        waiting(&gateway, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_its_turn_owes_us_nothing() {
    let far = upstream::echo("far").await;
    let gateway = Gateway::start(&format!(
        "{}\n[timeouts]\nheader = \"1s\"\nidle = \"1s\"\nbody = \"1s\"\nsend = \"1s\"\n",
        one("key = \"query:k\"\nrate = \"10r/m\"\nburst = 1\nnodelay = false", &behind(far.addr))
            .replace("host = \"a.test\"\ntls = \"off\"", "host = \"localhost\"\ntls = \"internal\"")
    ));
    let tls = TlsClient::internal(&gateway);
    let body = vec![b'x'; 200_000];
    let mut h1 = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let (h1, h2) = tokio::join!(
        async {
            for _ in 0..2 {
                let asked = request("POST", "localhost", "/?k=1").body(Full::from(body.clone())).expect("a request");
                let answer = h1.send(asked).await.expect("an answer");
                assert_eq!((answer.status.as_u16(), answer.json()["length"].as_u64()), (200, Some(200_000)));
            }
        },
        async {
            for _ in 0..2 {
                let asked = request_h2("POST", "localhost", "/?k=2").body(Full::from(body.clone())).expect("a request");
                let answer = h2.send(asked).await.expect("an answer");
                assert_eq!((answer.status.as_u16(), answer.json()["length"].as_u64()), (200, Some(200_000)));
            }
        }
    );
    let ((), ()) = (h1, h2);
    assert_eq!(counted(&gateway, "delayed").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_waits_for_its_turn_too() {
    let app = format!("app = \"web\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"", demo_app("--port {port}"));
    let gateway = Gateway::start(&one("rate = \"30r/m\"\nburst = 2\nnodelay = false", &app));
    gateway.wait_app("web", "ready");
    let sockets = join_all((0..3).map(|_| Socket::open(gateway.http(), "a.test", "/ws"))).await;
    for socket in sockets {
        socket.expect("it opens").echo("through").await.expect("it carries");
    }
    assert!(counted(&gateway, "delayed").await >= 1.0);
    assert_eq!(counted(&gateway, "rejected").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_go_on_who_comes_in_time_and_tells_the_others_at_once() {
    let mut gateway =
        Gateway::start(&format!("{}\n[timeouts]\ndrain = \"16s\"\n", one("rate = \"10r/m\"\nburst = 2\nnodelay = false", HERE)));
    let addr = gateway.http();
    assert_eq!(get(addr, "a.test", "/").await.expect("an answer").status, 200);
    let mut line = JoinSet::new();
    for n in 1..=2 {
        line.spawn(async move {
            let answer = get(addr, "a.test", "/").await.expect("an answer");
            (answer.status.as_u16(), answer.header("retry-after").to_owned())
        });
        waiting(&gateway, n).await;
    }
    let began = Instant::now();
    gateway.signal(Signal::SIGTERM);
    // The turn of the one is in 6 s, of the other in 12: beyond half of the drain.
    assert_eq!(line.join_next().await.expect("one").expect("it ran"), (503, "1".to_owned()));
    assert!(began.elapsed() < secs(5), "told at once");
    assert_eq!(line.join_next().await.expect("the other").expect("it ran"), (200, String::new()));
    assert!(gateway.wait_end(secs(30)).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_leaves_those_who_wait_where_they_are() {
    let zone = "rate = \"10r/m\"\nburst = 1\nnodelay = false";
    let gateway = Gateway::start(&one(zone, HERE));
    let addr = gateway.http();
    assert_eq!(get(addr, "a.test", "/").await.expect("an answer").status, 200);
    let mut line = JoinSet::new();
    line.spawn(async move { get(addr, "a.test", "/").await.expect("an answer").status.as_u16() });
    waiting(&gateway, 1).await;
    gateway.reload(&one(&format!("{zone}\nstatus = 503"), HERE)).expect("it reloads");
    waiting(&gateway, 1).await;
    assert_eq!(get(addr, "a.test", "/").await.expect("an answer").status, 503, "the line is full, as it was before");
    assert_eq!(line.join_next().await.expect("one").expect("it ran"), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_another_gate_is_told_without_a_wait() {
    let gateway = Gateway::start(&one("rate = \"1r/m\"\nburst = 5\nnodelay = false", HERE));
    let addr = gateway.http();
    assert_eq!(get(addr, "a.test", "/").await.expect("an answer").status, 200);
    let began = Instant::now();
    assert_eq!(get(addr, "a.test", "/.git/config").await.expect("an answer").status, 403);
    assert!(began.elapsed() < secs(30), "not after a minute");
    waiting(&gateway, 0).await;
}

/// What a burst of requests at once came to.
#[derive(Debug, PartialEq)]
struct Burst {
    at_once: usize,
    delayed: usize,
    refused: usize,
}

/// Thirty requests at once, until all are answered but for those that are known to be delayed.
async fn thirty(addr: std::net::SocketAddr, delayed: impl AsyncFn() -> usize) -> Burst {
    let mut asked = JoinSet::new();
    for _ in 0..30 {
        asked.spawn(async move { get(addr, "a.test", "/").await.expect("an answer").status.as_u16() });
    }
    let mut answers = Vec::new();
    let end = Instant::now() + secs(20);
    loop {
        while let Some(answer) = asked.try_join_next() {
            answers.push(answer.expect("it ran"));
        }
        let delayed = delayed().await;
        if answers.len() + delayed == 30 {
            assert!(answers.iter().all(|status| matches!(status, 200 | 429)), "{answers:?}");
            let refused = answers.iter().filter(|status| **status == 429).count();
            return Burst { at_once: answers.len() - refused, delayed, refused };
        }
        assert!(Instant::now() < end, "{} answered and {delayed} delayed of 30", answers.len());
        tokio::time::sleep(ms(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_beside_us_counts_the_same() {
    // Twenty seconds a turn, so that thirty requests come within the first.
    for (ours, theirs) in [("nodelay = true", "nodelay"), ("delay = 5", "delay=5"), ("nodelay = false", "")] {
        let gateway = Gateway::start(&one(&format!("rate = \"3r/m\"\nburst = 8\n{ours}"), HERE));
        let nginx = super::nginx::start(&format!("limit_req zone=z burst=8 {theirs};")).await;
        let us = thirty(gateway.http(), async || counted(&gateway, "delayed").await as usize).await;
        let it = thirty(nginx.addr, async || nginx.log().matches("delaying request").count()).await;
        println!("{us:?} {it:?}");
        assert_eq!(us, it);
    }
}
