//! Bans: who misbehaves is shut out from the very next request on, and nobody else.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::harness::{
    Conn, Gateway,
    client::{request, request_h2},
    demo_app, get, proc,
    raw::read_to_end,
    send,
    tls::TlsClient,
    upstream,
    wait::{eventually_async, ms, secs, within},
    ws::Socket,
};

const SITES: &str = r#"
[ban]
points = { bad-uri = 2, "404" = 1 }
max = 10
[[site]]
host = ["localhost"]
tls = "internal"
filters = ["bad-uri"]
[site.route."/gone"]
respond = { status = 404, body = "not here" }
[site.route."/"]
respond = { status = 200, body = "in" }
[[site]]
host = "plain.test"
tls = "off"
filters = ["bad-uri"]
[site.route."/gone"]
respond = { status = 404, body = "not here" }
[site.route."/"]
respond = { status = 200, body = "in" }
"#;

/// Every client comes from an address of its own.
fn direct() -> String {
    SITES.to_owned()
}

/// Every client comes by a proxy that names it.
fn behind_a_proxy() -> String {
    format!("trusted_proxies = [\"127.0.0.0/8\"]\n{SITES}")
}

async fn from(n: u8, addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 0, n), 0).into()).expect("an address of our own");
    socket.connect(addr).await.expect("connected")
}

async fn status(addr: SocketAddr, client: &str, path: &str) -> u16 {
    let asked = request("GET", "plain.test", path).header("x-forwarded-for", client).body(Full::default()).expect("a request");
    send(addr, asked).await.expect("an answer").status.as_u16()
}

/// Five visits to where nobody honest goes.
async fn misbehave(addr: SocketAddr, client: &str) {
    for _ in 0..5 {
        assert_eq!(status(addr, client, "/wp-login.php").await, 403);
    }
}

fn bans(gateway: &Gateway) -> Vec<Value> {
    let shown = gateway.cli(&["bans", "--json"]);
    assert!(shown.status.success(), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let bans = shown["bans"].as_array().expect("a list").clone();
    assert_eq!(shown["count"], bans.len());
    bans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sixth_request_is_refused_whatever_it_asks_for_and_nobody_else_is_touched() {
    let gateway = Gateway::start(&behind_a_proxy());
    let http = gateway.http();
    misbehave(http, "203.0.113.1").await;
    assert_eq!(gateway.metric("gateway_ban_requests_total", &["rejected"]).await, 0.0, "five were refused by the filter");
    assert_eq!(status(http, "203.0.113.1", "/").await, 403);
    assert_eq!(status(http, "203.0.113.1", "/wp-login.php").await, 403);
    assert_eq!(gateway.metric("gateway_ban_requests_total", &["rejected"]).await, 2.0);
    assert_eq!(gateway.metric("gateway_filter_hits_total", &["bad-uri", "plain.test", "\"rejected\""]).await, 5.0);
    assert_eq!(gateway.metric("gateway_bans_total", &["reason=\"bad-uri\""]).await, 1.0);
    assert_eq!(gateway.metric("gateway_bans", &[]).await, 1.0);
    // The proxy itself and everybody else behind it are served.
    assert_eq!(status(http, "203.0.113.2", "/").await, 200);
    assert_eq!(get(http, "plain.test", "/").await.expect("an answer").status, 200);
    let bans = bans(&gateway);
    assert_eq!(
        (bans.len(), &bans[0]["address"], &bans[0]["reason"], &bans[0]["times"]),
        (1, &"203.0.113.1".into(), &"bad-uri".into(), &1.into())
    );
    assert!(gateway.output().contains("client banned"), "{}", gateway.output());
    assert_eq!(gateway.status()["banned"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stands_ends_with_the_next_request_over_http1_and_http2() {
    let gateway = Gateway::start(&direct());
    let tls = TlsClient::internal(&gateway);
    let over = async |n: u8, alpn: &[&[u8]]| tls.connect(from(n, gateway.https()).await, "localhost", alpn).await.expect("a handshake");
    let mut second = Conn::h1_over(over(2, &[b"http/1.1"]).await).await.expect("HTTP/1.1");
    let mut third = Conn::h2_over(over(3, &[b"h2"]).await).await.expect("HTTP/2");
    let h1 = |path: &str| request("GET", "localhost", path).body(Full::default()).expect("a request");
    let h2 = |path: &str| request_h2("GET", "localhost", path).body(Full::default()).expect("a request");
    for _ in 0..5 {
        assert_eq!(second.send(h1("/wp-login.php")).await.expect("an answer").status, 403);
        assert_eq!(third.send(h2("/wp-login.php")).await.expect("an answer").status, 403);
    }
    let last = second.send(h1("/")).await.expect("an answer");
    assert_eq!((last.status.as_u16(), last.header("connection")), (403, "close"));
    assert_eq!(third.send(h2("/")).await.expect("an answer").status, 403);
    eventually_async("both connections are closed", secs(20), async || match (second.open(), third.open()) {
        (false, false) => Ok(()),
        open => Err(open),
    })
    .await;
    // New ones are closed before TLS, in the clear there is a page; others come in.
    for n in [2, 3] {
        tls.connect(from(n, gateway.https()).await, "localhost", &[b"h2"]).await.expect_err("closed");
        let mut plain = Conn::h1_over(from(n, gateway.http()).await).await.expect("HTTP/1.1");
        let asked = request("GET", "plain.test", "/").body(Full::default()).expect("a request");
        assert_eq!(plain.send(asked).await.expect("an answer").status, 403);
    }
    let mut fourth = Conn::h2_over(over(4, &[b"h2"]).await).await.expect("HTTP/2");
    assert_eq!(fourth.send(h2("/")).await.expect("an answer").status, 200);
    assert_eq!(gateway.metric("gateway_connections_refused_total", &["reason=\"banned\""]).await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_survive_a_killed_edge_a_reload_and_a_restart() {
    let mut gateway = Gateway::start(&behind_a_proxy());
    misbehave(gateway.http(), "203.0.113.1").await;
    let done = gateway.cli(&["ban", "203.0.113.9", "--for", "2d"]);
    assert!(done.status.success(), "{done:?}");
    let refused = async |gateway: &Gateway| {
        for client in ["203.0.113.1", "203.0.113.9"] {
            assert_eq!(status(gateway.http(), client, "/").await, 403, "{client}");
        }
        assert_eq!(status(gateway.http(), "203.0.113.2", "/").await, 200);
    };
    refused(&gateway).await;
    let file = gateway.state().join("edge/bans");
    eventually_async("both are on disk", secs(20), async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with("end 2\n") { Ok(()) } else { Err(text) }
    })
    .await;
    let edge = gateway.edge();
    proc::kill(edge, Signal::SIGKILL);
    eventually_async("another edge serves", secs(20), async || match gateway.edge_pid() {
        Some(pid) if pid != edge => Ok(()),
        other => Err(other),
    })
    .await;
    refused(&gateway).await;
    gateway.reload(&behind_a_proxy().replace("max = 10", "max = 20")).expect("reloaded");
    refused(&gateway).await;
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_end(secs(30)).success());
    gateway.start_again();
    gateway.wait_ready();
    refused(&gateway).await;
    assert_eq!(bans(&gateway).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_by_hand_needs_no_section_and_ends_by_hand() {
    let config = behind_a_proxy()
        .replace("[ban]", "[zone.unused]\nrate = \"1r/s\"\n")
        .replace("points = { bad-uri = 2, \"404\" = 1 }\nmax = 10\n", "");
    let gateway = Gateway::start(&config);
    misbehave(gateway.http(), "203.0.113.1").await;
    assert_eq!(status(gateway.http(), "203.0.113.1", "/").await, 200, "without [ban] nobody is banned for what he does");
    let told = |words: &[&str]| {
        let done = gateway.cli(words);
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
    };
    let (code, text) = told(&["ban", "2001:db8:1:2::7"]);
    assert!(code == Some(0) && text.starts_with("2001:db8:1:2::/64 is banned until "), "{text}");
    assert_eq!(status(gateway.http(), "2001:db8:1:2:ffff::9", "/").await, 403, "the whole /64");
    assert_eq!(status(gateway.http(), "2001:db8:1:3::7", "/").await, 200);
    assert_eq!(bans(&gateway)[0]["reason"], "manual");
    let (code, text) = told(&["ban", "127.0.0.1"]);
    assert!(code == Some(1) && text.contains("trusted_proxies"), "{text}");
    assert_eq!(told(&["ban", "10.0.0.0/8"]).0, Some(64));
    assert_eq!(told(&["unban", "2001:db8:1:2::/64"]).0, Some(0));
    assert_eq!(status(gateway.http(), "2001:db8:1:2::7", "/").await, 200);
    let (code, text) = told(&["unban", "2001:db8:1:2::/64"]);
    assert!(code == Some(1) && text.contains("was not banned"), "{text}");
    assert_eq!(told(&["bans"]), (Some(0), "nobody is banned\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_come_from_statuses_of_the_app_too_and_unban_forgets_them() {
    let app = upstream::fails_with(404).await;
    let config = format!(
        "{}\n[upstream.app]\nservers = [\"{}\"]\n[[site]]\nhost = \"app.test\"\ntls = \"off\"\nupstream = \"app\"\n",
        behind_a_proxy().replace("max = 10", "max = 4\nignore = [\"203.0.113.9\"]"),
        app.addr
    );
    let gateway = Gateway::start(&config);
    let ask = async |client: &str| {
        // 404 counts once for each path.
        let path = format!("/{}", app.hits());
        let asked = request("GET", "app.test", &path).header("x-forwarded-for", client).body(Full::default()).expect("a request");
        send(gateway.http(), asked).await.expect("an answer").status.as_u16()
    };
    for _ in 0..3 {
        assert_eq!(ask("203.0.113.1").await, 404);
        assert_eq!(ask("203.0.113.9").await, 404);
    }
    // Not banned yet, so that there is nothing to end; the points go all the same.
    assert_eq!(gateway.cli(&["unban", "203.0.113.1"]).status.code(), Some(1));
    for _ in 0..4 {
        assert_eq!(ask("203.0.113.1").await, 404);
        assert_eq!(ask("203.0.113.9").await, 404, "ignored");
    }
    assert_eq!(ask("203.0.113.1").await, 403);
    assert_eq!(app.hits(), 14);
    let refused = gateway.cli(&["ban", "203.0.113.9"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("ignore"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_counts_and_lets_pass_until_it_is_enforced() {
    let observe = behind_a_proxy().replace("max = 10", "max = 10\nmode = \"observe\"");
    let gateway = Gateway::start(&observe);
    misbehave(gateway.http(), "203.0.113.1").await;
    assert_eq!(status(gateway.http(), "203.0.113.1", "/").await, 200);
    assert_eq!(gateway.metric("gateway_ban_requests_total", &["would_reject"]).await, 1.0);
    assert_eq!(bans(&gateway)[0]["enforced"], false);
    assert!(gateway.output().contains("client would be banned"));
    gateway.reload(&behind_a_proxy()).expect("reloaded");
    assert_eq!(status(gateway.http(), "203.0.113.1", "/").await, 403);
    // Whoever is to be ignored from now on is free.
    gateway.reload(&behind_a_proxy().replace("max = 10", "max = 10\nignore = [\"203.0.113.0/24\"]")).expect("reloaded");
    assert_eq!(status(gateway.http(), "203.0.113.1", "/").await, 200);
    assert!(bans(&gateway).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_websocket_of_a_banned_client_is_cut_and_that_of_another_is_not() {
    let command = demo_app("--port {port}");
    let gateway = Gateway::start(&format!(
        "[app.web]\ncommand = \"{command}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"app.test\"\ntls = \"off\"\napp = \"web\"\n"
    ));
    gateway.wait_app("web", "ready");
    let mut banned = Socket::over(from(2, gateway.http()).await, "app.test", "/ws").await.expect("a tunnel");
    let mut other = Socket::over(from(3, gateway.http()).await, "app.test", "/ws").await.expect("a tunnel");
    banned.echo("one").await.expect("an echo");
    assert!(gateway.cli(&["ban", "127.0.0.2"]).status.success());
    banned.echo("two").await.expect_err("cut");
    other.echo("three").await.expect("an echo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_banned_client_said_in_its_websockets_is_said_to_no_other_server_and_no_server_is_blamed() {
    let (one, two) = (upstream::eager_101().await, upstream::eager_101().await);
    let gateway = Gateway::start(&format!(
        "[log]\ndir = \"logs\"\naccess = \"combined\"\n[upstream.app]\nservers = [\"{}\", \"{}\"]\n[[site]]\nhost = \"app.test\"\ntls = \"off\"\nupstream = \"app\"\n",
        one.addr, two.addr
    ));
    let handshakes = || one.accepted.load(Relaxed) + two.accepted.load(Relaxed);
    let tunnel = async |n: u8| {
        let mut stream = from(n, gateway.http()).await;
        let asked = "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(secs(20), "the 101", stream.read_u8()).await.expect("a byte"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        said_back(&mut stream).await.expect("an echo");
        stream
    };
    let mut banned = Vec::new();
    for _ in 0..4 {
        banned.push(tunnel(2).await);
    }
    let mut other = tunnel(3).await;
    assert_eq!(handshakes(), 5);
    assert!(gateway.cli(&["ban", "127.0.0.2"]).status.success());
    for stream in &mut banned {
        let rest = read_to_end(stream, secs(20)).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
    // All four are over for the gateway as well, and both servers take what comes now.
    let log = gateway.dir().join("logs/access.log");
    eventually_async("four lines", secs(20), async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.lines().filter(|line| line.contains(" 101 ")).count() == 4 { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(handshakes(), 5, "no second handshake");
    assert_eq!(gateway.metric("gateway_upstream_retries_total", &["app"]).await, 0.0);
    said_back(&mut other).await.expect("an echo");
    for server in [&one, &two] {
        let up = gateway.metric("gateway_upstream_up", &[&server.addr.to_string()]).await;
        assert_eq!(up, 1.0, "{}", gateway.output());
    }
    assert!(!gateway.output().contains("upstream failed"), "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_a_ban_cuts_short_goes_to_no_other_server() {
    let (one, two) = (upstream::hangs().await, upstream::hangs().await);
    let gateway = Gateway::start(&format!(
        "[upstream.app]\nservers = [\"{}\", \"{}\"]\n[[site]]\nhost = \"app.test\"\ntls = \"off\"\nupstream = \"app\"\n",
        one.addr, two.addr
    ));
    let handshakes = || one.accepted.load(Relaxed) + two.accepted.load(Relaxed);
    let mut stream = from(2, gateway.http()).await;
    let asked = b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(asked).await.expect("written");
    eventually_async("a server has it", secs(20), async || if handshakes() == 1 { Ok(()) } else { Err(handshakes()) }).await;
    assert!(gateway.cli(&["ban", "127.0.0.2"]).status.success());
    let mut rest = [0; 1];
    let end = within(secs(20), "the end of the connection", stream.read(&mut rest)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!((handshakes(), gateway.metric("gateway_upstream_retries_total", &["app"]).await), (1, 0.0));
    for server in [&one, &two] {
        assert_eq!(gateway.metric("gateway_upstream_up", &[&server.addr.to_string()]).await, 1.0, "{}", gateway.output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_its_server_resets_goes_to_no_other_server() {
    let (one, two) = (upstream::resets_after_101().await, upstream::resets_after_101().await);
    let gateway = Gateway::start(&format!(
        "[upstream.app]\nservers = [\"{}\", \"{}\"]\n[[site]]\nhost = \"app.test\"\ntls = \"off\"\nupstream = \"app\"\n",
        one.addr, two.addr
    ));
    let mut stream = from(2, gateway.http()).await;
    let asked = b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(asked).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(secs(20), "the 101", stream.read_u8()).await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"frame").await.expect("written");
    assert_eq!(read_to_end(&mut stream, secs(20)).await, "");
    assert_eq!(one.accepted.load(Relaxed) + two.accepted.load(Relaxed), 1);
    assert_eq!(gateway.metric("gateway_upstream_retries_total", &["app"]).await, 0.0);
}

async fn said_back(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"frame").await?;
    let mut back = [0; 5];
    within(secs(20), "an echo", stream.read_exact(&mut back)).await?;
    assert_eq!(&back, b"frame");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_by_a_zone_after_a_wait_is_blamed_as_any_other() {
    let (far, word) = upstream::answers_when_told().await;
    let gateway = Gateway::start(&format!(
        "[ban]\npoints = {{ zone = 5 }}\nmax = 5\n[zone.z]\nrate = \"1r/m\"\ncount = [200]\n[upstream.app]\nservers = [\"{}\"]\n[[site]]\nhost = \"plain.test\"\ntls = \"off\"\nzone = \"z\"\nupstream = \"app\"\n",
        far.addr
    ));
    let addr = gateway.http();
    let go = |set: &mut JoinSet<u16>| {
        set.spawn(async move { get(addr, "plain.test", "/").await.expect("an answer").status.as_u16() });
    };
    let (mut first, mut second) = (JoinSet::new(), JoinSet::new());
    go(&mut first);
    eventually_async("it is at work", secs(20), async || if far.hits() == 1 { Ok(()) } else { Err(far.hits()) }).await;
    go(&mut second);
    eventually_async("the second waits", secs(20), async || {
        let waiting = gateway.metric("gateway_zone_waiting", &["zone=\"z\""]).await;
        if waiting == 1.0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    word.add_permits(1);
    assert_eq!(first.join_next().await.expect("one").expect("it ran"), 200);
    assert_eq!(second.join_next().await.expect("one").expect("it ran"), 429);
    assert_eq!(gateway.metric("gateway_bans_total", &["reason=\"zone\""]).await, 1.0);
    assert_eq!(get(addr, "plain.test", "/").await.expect("an answer").status, 403, "banned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_another_server_refuses_counts_and_a_request_without_one_does_not() {
    let door = upstream::fails_with(401).await;
    let gateway = Gateway::start(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n[ban]\npoints = {{ auth = 5 }}\nmax = 10\n[[site]]\nhost = \"plain.test\"\ntls = \"off\"\nauth = {{ forward = \"http://{}/verify\" }}\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"in\" }}\n",
        door.addr
    ));
    let ask = async |field: &'static str| {
        let asked = request("GET", "plain.test", "/").header("x-forwarded-for", "203.0.113.1").header(field, "Basic YTpi");
        send(gateway.http(), asked.body(Full::default()).expect("a request")).await.expect("an answer").status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(ask("cookie").await, 401);
    }
    assert_eq!((ask("authorization").await, ask("authorization").await, ask("cookie").await), (401, 401, 403));
    assert_eq!(gateway.metric("gateway_bans_total", &["reason=\"auth\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_proxy_protocol_it_is_the_client_who_is_banned() {
    let gateway = Gateway::start(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\n[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nproxy_protocol = true\n{SITES}"
    ));
    let say = async |addr: SocketAddr, client: &str, what: &[u8]| {
        let mut stream = from(1, addr).await;
        stream.write_all(format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n").as_bytes()).await.expect("written");
        stream.write_all(what).await.expect("written");
        read_to_end(&mut stream, secs(20)).await
    };
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n").into_bytes();
    for _ in 0..5 {
        assert!(say(gateway.http(), "203.0.113.1", &ask("/wp-login.php")).await.starts_with("HTTP/1.1 403"));
    }
    assert!(say(gateway.http(), "203.0.113.1", &ask("/")).await.starts_with("HTTP/1.1 403"));
    assert!(say(gateway.http(), "203.0.113.2", &ask("/")).await.starts_with("HTTP/1.1 200"));
    say(gateway.https(), "203.0.113.1", b"").await;
    assert_eq!(gateway.metric("gateway_connections_refused_total", &["reason=\"banned\""]).await, 1.0);
}

#[test]
fn a_damaged_file_of_bans_is_put_aside() {
    let mut gateway = Gateway::start(&behind_a_proxy());
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_end(secs(30)).success());
    let file = gateway.state().join("edge/bans");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(b"gateway bans 1\n203.0.113.1 1 4000")).expect("written");
    gateway.start_again();
    gateway.wait_ready();
    assert!(bans(&gateway).is_empty() && gateway.output().contains("bans not read"), "{}", gateway.output());
    let mut text = String::new();
    std::fs::File::open(file.with_extension("damaged")).and_then(|mut file| file.read_to_string(&mut text)).expect("there");
    assert!(text.ends_with("4000"));
    // Its file is whole again with the next ban.
    assert!(gateway.cli(&["ban", &IpAddr::from([203, 0, 113, 1]).to_string()]).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_login_counts_and_a_question_without_a_password_does_not() {
    let users = [("users.htpasswd", "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")];
    let config = "trusted_proxies = [\"127.0.0.0/8\"]\n[ban]\npoints = { auth = 5 }\n[[site]]\nhost = \"plain.test\"\ntls = \"off\"\nauth = { basic = \"users.htpasswd\" }\n[site.route.\"/\"]\nrespond = { status = 200, body = \"in\" }\n";
    let gateway = Gateway::start_beside(&users, config);
    let ask = async |login: Option<&str>| {
        let mut asked = request("GET", "plain.test", "/").header("x-forwarded-for", "203.0.113.1");
        if let Some(login) = login {
            asked = asked.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(login)));
        }
        send(gateway.http(), asked.body(Full::default()).expect("a request")).await.expect("an answer").status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(ask(None).await, 401);
    }
    assert_eq!(ask(Some("ann:password")).await, 200);
    assert_eq!(ask(Some("ann:wrong")).await, 401);
    assert_eq!(ask(Some("ann:wrong")).await, 401);
    assert_eq!(ask(Some("ann:password")).await, 403, "banned");
    assert_eq!(gateway.metric("gateway_bans_total", &["reason=\"auth\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_go_on_over_an_upgrade() {
    let mut gateway = Gateway::start_copy(&behind_a_proxy(), &[]);
    misbehave(gateway.http(), "203.0.113.1").await;
    let edge = gateway.edge();
    let done = gateway.cli(&["upgrade"]);
    assert!(done.status.success(), "{done:?}");
    gateway.wait_ready();
    assert_ne!(gateway.edge(), edge);
    assert_eq!(status(gateway.http(), "203.0.113.1", "/").await, 403);
    assert_eq!(status(gateway.http(), "203.0.113.2", "/").await, 200);
    // Those of the new edge are written down by it, not by the one that has left.
    misbehave(gateway.http(), "203.0.113.3").await;
    let file = gateway.state().join("edge/bans");
    eventually_async("both are on disk", secs(20), async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with("end 2\n") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_bans_are_few_writes_and_are_all_there_after_a_restart() {
    let mut gateway = Gateway::start(&behind_a_proxy().replace("max = 10", "max = 1"));
    let file = gateway.state().join("edge/bans");
    let writes = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let looking = {
        let (file, writes) = (file.clone(), writes.clone());
        JoinSet::from_iter([async move {
            loop {
                if let Ok(facts) = std::fs::metadata(&file) {
                    writes.lock().expect("no panic").insert(std::os::unix::fs::MetadataExt::mtime_nsec(&facts));
                }
                tokio::time::sleep(ms(5)).await;
            }
        }])
    };
    let began = std::time::Instant::now();
    let mut conn = Conn::h1(gateway.http()).await.expect("connected");
    for n in 0..3_000_u32 {
        let client = Ipv4Addr::from(0x0b00_0000 + n).to_string();
        let asked = request("GET", "plain.test", "/gone").header("x-forwarded-for", client).body(Full::default()).expect("a request");
        assert_eq!(conn.send(asked).await.expect("an answer").status, 404);
    }
    eventually_async("all are on disk", secs(30), async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with("end 3000\n") { Ok(()) } else { Err(text.len()) }
    })
    .await;
    drop(looking);
    let (seen, most) = (writes.lock().expect("no panic").len(), 2 + began.elapsed().as_secs() as usize);
    assert!(seen <= most, "{seen} writes in {:?}", began.elapsed());
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_end(secs(30)).success());
    gateway.start_again();
    assert_eq!(gateway.status()["banned"], 3000);
    assert_eq!(status(gateway.http(), "11.0.11.183", "/").await, 403);
    assert_eq!(status(gateway.http(), "11.0.11.184", "/").await, 200);
}
