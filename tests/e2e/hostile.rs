//! Clients that mean harm, or behave as if they did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::harness::{
    Gateway,
    client::request,
    get, heavy, raw, send,
    upstream::{self, Upstream},
    wait::{eventually, ms, secs},
};

fn before(upstream: &Upstream, more: &str) -> String {
    format!(
        "{more}\n[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n",
        upstream.addr
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_is_cut_at_the_deadline() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[timeouts]\nbody = \"1s\"\n"));
    let mut stream = raw::connect(gateway.http()).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nonly this").await.expect("sent");
    let begin = Instant::now();
    let said = raw::read_to_end(&mut stream, secs(15)).await;
    assert!(begin.elapsed() < secs(12), "still open after {:?}", begin.elapsed());
    assert!(said.is_empty() || raw::status(&said) == 408 || raw::status(&said) >= 500, "{said}");
    // One that drips but never stalls for long is let through.
    let mut stream = raw::connect(gateway.http()).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\nConnection: close\r\n\r\n").await.expect("sent");
    for _ in 0..10 {
        tokio::time::sleep(ms(150)).await;
        stream.write_all(b"x").await.expect("sent");
    }
    assert_eq!(raw::status(&raw::read_to_end(&mut stream, secs(10)).await), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_at_the_deadline() {
    let gateway = Gateway::start(&format!(
        "[timeouts]\nsend = \"1s\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        crate::harness::demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    let mut stream = raw::connect(gateway.http()).await;
    stream.write_all(b"GET /bytes/200000000 HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("sent");
    let mut first = [0; 1000];
    stream.read_exact(&mut first).await.expect("it begins");
    let begin = Instant::now();
    gateway.counts("gateway_http_in_flight", &["site=\"a.test\""], 0.0).await;
    assert!(begin.elapsed() >= ms(700), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_handshake_that_stalls_is_cut_at_the_deadline() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[timeouts]\nheader = \"1s\"\n"));
    let mut silent = raw::connect(gateway.https()).await;
    assert!(raw::lifetime(&mut silent, secs(15)).await < secs(12));
    let mut half = raw::connect(gateway.https()).await;
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]).await.expect("sent");
    assert!(raw::lifetime(&mut half, secs(15)).await < secs(12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused_and_never_reach_the_upstream() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, ""));
    let framing = [
        ("two kinds of length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a list of lengths", "Content-Length: 5, 6\r\n\r\nhello"),
        ("a length that is no number", "Content-Length: +5\r\n\r\nhello"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a coding that is not the last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("a blank before the colon", "Content-Length : 5\r\n\r\nhello"),
        ("a folded line", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ];
    for (what, text) in framing {
        // Where the end of a request is not clear, what follows may be anybody's words: it is not read.
        let said = raw::speak(
            gateway.http(),
            format!("POST / HTTP/1.1\r\nHost: a.test\r\n{text}GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(raw::status(&said) == 400 || said.is_empty(), "{what}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), usize::from(!said.is_empty()), "{what}: what follows was answered: {said}");
    }
    let others = [
        ("two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n"),
        ("no host", "GET / HTTP/1.1\r\nX: y\r\n"),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: a.test@evil\r\n"),
        ("two different hosts", "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n"),
        ("control bytes in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x01b\r\n"),
        ("control bytes in a name", "GET / HTTP/1.1\r\nHost: a.test\r\nX\x01: b\r\n"),
        ("control bytes in the target", "GET /a\x01b HTTP/1.1\r\nHost: a.test\r\n"),
        ("no path", "GET a HTTP/1.1\r\nHost: a.test\r\n"),
    ];
    for (what, text) in others {
        let said = raw::speak(gateway.http(), format!("{text}Connection: close\r\n\r\n").as_bytes()).await;
        assert!(raw::status(&said) == 400 || said.is_empty(), "{what}: {said}");
    }
    assert_eq!(echo.hits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_by_its_own_status() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[limits]\nheaders = \"8KB\"\nheader_count = 20\nuri = \"1KB\"\nbody = \"10KB\"\n"));
    let addr = gateway.http();
    let status = |text: String| async move { raw::status(&raw::speak(addr, text.as_bytes()).await) };
    assert_eq!(status(format!("GET /{} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", "a".repeat(2000))).await, 414);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{}\r\n", "X: y\r\n".repeat(30))).await, 431);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX: {}\r\n\r\n", "a".repeat(9000))).await, 431);
    assert_eq!(status("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\nConnection: close\r\n\r\n".into()).await, 413);
    assert_eq!(echo.hits(), 0);
    // A chunked body tells its size only as it comes.
    let mut stream = raw::connect(addr).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("sent");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    for _ in 0..20 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    drop(stream.write_all(b"0\r\n\r\n").await);
    let said = raw::read_to_end(&mut stream, secs(10)).await;
    assert!(raw::status(&said) == 413 || said.is_empty(), "{said}");
    // Within the limits all is well.
    let fits = request("POST", "a.test", "/").body(Full::from("x".repeat(10_000))).expect("a request");
    assert_eq!(send(addr, fits).await.expect("an answer").json()["length"], 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_targets_methods_and_agents_are_refused_and_honest_ones_pass() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[defaults]\nfilters = [\"bad-uri\", \"bad-method\", \"scanner-ua\"]\n"));
    let addr = gateway.http();
    for target in [
        "/../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%252e%252e/%252e%252e/etc/passwd",
        "/.git/config",
        "/.env",
        "/a/.svn/entries",
        "/?q=1%27%20UNION%20SELECT%20password%20FROM%20users--",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/wp-login.php",
    ] {
        let said = raw::speak(addr, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(matches!(raw::status(&said), 400 | 403 | 404), "{target}: {said}");
    }
    for method in ["TRACE", "CONNECT", "TRACK", "DEBUG", "JEFF"] {
        let said = raw::speak(addr, format!("{method} / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(matches!(raw::status(&said), 400 | 403 | 405 | 501), "{method}: {said}");
    }
    for agent in ["sqlmap/1.7", "Nikto/2.5", "masscan/1.3"] {
        let said =
            raw::speak(addr, format!("GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n").as_bytes())
                .await;
        assert!(matches!(raw::status(&said), 400 | 403), "{agent}: {said}");
    }
    assert_eq!(echo.hits(), 0, "none of them reached the upstream");
    // What the guides' own regexes would refuse, and we must not.
    for target in [
        "/select/a-plan",
        "/search?q=drop+by+the+union+office",
        "/a;b=c",
        "/docs/--help",
        "/o'brien",
        "/files/report..final",
        "/.well-known/security.txt",
    ] {
        let said = raw::speak(
            addr,
            format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert_eq!(raw::status(&said), 200, "{target}: {said}");
    }
    let passed = gateway.metric("gateway_filter_hits_total", &[]).await;
    assert!(passed >= 12.0, "{passed}");
}

/// pingap #215: gates that an Upgrade passed by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gate_stands_before_an_upgrade() {
    let eager = upstream::eager_101().await;
    let gateway = Gateway::start(&before(&eager, "[defaults]\ndeny = [\"127.0.0.1\"]\n"));
    let upgrade = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let mut stream = raw::connect(gateway.http()).await;
    stream.write_all(upgrade("/ws").as_bytes()).await.expect("sent");
    let said = raw::read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(raw::status(&said), 403, "{said}");
    assert_eq!(eager.accepted.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_with_an_underscore_are_dropped_and_hop_by_hop_ones_stay_here() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, ""));
    let said = send(
        gateway.http(),
        request("GET", "a.test", "/")
            .header("x_forwarded_for", "6.6.6.6")
            .header("keep-alive", "timeout=5")
            .header("connection", "x-private")
            .header("x-private", "secret")
            .header("proxy-authorization", "basic x")
            .header("x-public", "yes")
            .body(Full::default())
            .expect("a request"),
    )
    .await
    .expect("an answer")
    .json();
    for gone in ["x_forwarded_for", "keep-alive", "x-private", "proxy-authorization"] {
        assert!(said["headers"][gone].is_null(), "{gone}: {said}");
    }
    assert_eq!(said["headers"]["x-public"][0], "yes");
}

/// A seeded generator: a failure can be run again.
struct Dice(fastrand::Rng);

impl Dice {
    fn garbage(&mut self) -> Vec<u8> {
        let length = self.0.usize(1..400);
        (0..length).map(|_| self.0.u8(..)).collect()
    }

    /// A request with one to three things broken in it.
    fn malformed(&mut self) -> Vec<u8> {
        let mut text = b"POST /path?query=value HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nCookie: a=b; c=d\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
        for _ in 0..self.0.usize(1..4) {
            let at = self.0.usize(..text.len());
            match self.0.u8(..7) {
                0 => text[at] = self.0.u8(..),
                1 => text.truncate(at.max(1)),
                2 => {
                    text.remove(at);
                }
                3 => text.insert(at, *self.0.choice(b"\r\n\0\t :;,\x7f\xff%/\\").expect("not empty")),
                4 => {
                    let end = (at + self.0.usize(1..60)).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = self.0.usize(..text.len());
                    text.splice(to..to, piece);
                }
                5 => {
                    let piece = vec![*self.0.choice(b"A0%\xf0").expect("not empty"); self.0.usize(1..20_000)];
                    text.splice(at..at, piece);
                }
                _ => {
                    let line = *self
                        .0
                        .choice(&[
                            &b"Content-Length: 99999999999999999999\r\n"[..],
                            b"Content-Length: -1\r\n",
                            b"Transfer-Encoding: gzip, chunked\r\n",
                            b"Host: \r\n",
                            b"Range: bytes=9-1,,\r\n",
                            b": empty\r\n",
                            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
                            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                        ])
                        .expect("not empty");
                    let start = text.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
                    text.splice(start..start, line.iter().copied());
                }
            }
            if text.is_empty() {
                text.push(b'G');
            }
        }
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_random_and_five_thousand_malformed_requests_do_no_harm() {
    let _turn = heavy().await;
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[timeouts]\nheader = \"3s\"\nbody = \"3s\"\n"));
    let edge = gateway.edge();
    let (http, https) = (gateway.http(), gateway.https());
    let spent = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for worker in 0..32_u64 {
        let spent = spent.clone();
        tasks.spawn(async move {
            let mut dice = Dice(fastrand::Rng::with_seed(0x6761_7465 + worker));
            loop {
                let turn = spent.fetch_add(1, Ordering::Relaxed);
                if turn >= 25_000 {
                    return;
                }
                let bytes = if turn % 5 == 4 { dice.malformed() } else { dice.garbage() };
                // A quarter of the garbage goes where TLS is spoken.
                let addr = if turn % 4 == 1 { https } else { http };
                let mut stream = match TcpStream::connect(addr).await {
                    Ok(stream) => stream,
                    Err(error) => panic!("request {turn}: connect: {error}"),
                };
                drop(stream.write_all(&bytes).await);
                drop(stream.shutdown().await);
                let mut sink = [0; 4096];
                let end = tokio::time::Instant::now() + secs(10);
                while let Ok(Ok(1..)) = tokio::time::timeout_at(end, stream.read(&mut sink)).await {}
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("every one could connect");
    }
    assert_eq!(gateway.edge(), edge, "the edge was replaced");
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
    assert_eq!(get(http, "a.test", "/").await.expect("an answer").status, 200);
    eventually("no connection is left over", secs(15), || {
        let edge_files = std::fs::read_dir(format!("/proc/{edge}/fd")).map_or(0, |dir| dir.count());
        if edge_files < 120 { Ok(()) } else { Err(edge_files) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unknown_hosts_add_no_series() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, ""));
    let addr = gateway.http();
    assert_eq!(get(addr, "a.test", "/").await.expect("an answer").status, 200);
    let refused = get(addr, "unknown.test", "/").await.expect("an answer").status;
    assert!(refused.is_client_error(), "{refused}");
    let names = |series: Vec<String>| {
        series.into_iter().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<std::collections::BTreeSet<_>>()
    };
    // The one series of all unknown names.
    gateway.counts("gateway_http_requests_total", &["site=\"-\""], 1.0).await;
    let before = names(gateway.metrics().await);
    let mut conn = crate::harness::Conn::h1(addr).await.expect("connected");
    for i in 0..1000 {
        let asked = request("GET", &format!("h{i}.never.configured.test"), "/").body(Full::default()).expect("a request");
        if !conn.open() {
            conn = crate::harness::Conn::h1(addr).await.expect("connected");
        }
        assert!(conn.send(asked).await.expect("an answer").status.is_client_error());
    }
    let after = names(gateway.metrics().await);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}
