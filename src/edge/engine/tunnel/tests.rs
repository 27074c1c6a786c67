//! pingora #946 and #935: each test shows the bug without the work-around, and none with it.

use std::sync::Arc;

use bytes::Bytes;
use pingora::{
    apps::{HttpServerOptions, ServerApp},
    http::RequestHeader,
    proxy::{HttpProxy, ProxyHttp, Session, http_proxy},
    server::configuration::ServerConf,
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use super::*;
use crate::edge::engine::request::end_once;

/// pingora with nothing of ours but the work-around in question.
struct Bare {
    upstream: std::net::SocketAddr,
    gate: Gate,
    /// Whether #935 is worked around.
    end_once: bool,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        if session.is_upgrade_req() {
            let second = Duration::from_secs(1);
            peer.options.custom_l4 = Some(Arc::new(GateConnect {
                connect: second,
                read: second,
                gate: self.gate,
                leave: CancellationToken::new(),
                cut: CancellationToken::new(),
            }));
            peer.group_key = 946;
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(&self, session: &mut Session, _: &mut RequestHeader, (): &mut ()) -> Result<()> {
        if session.is_upgrade_req() {
            // A thread that is preempted here finds the answer waiting when it goes on.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    async fn request_body_filter(&self, _: &mut Session, body: &mut Option<Bytes>, end: bool, (): &mut ()) -> Result<()> {
        if self.end_once {
            end_once(body, end);
        }
        Ok(())
    }
}

fn proxy(bare: Bare, h2c: bool) -> Arc<HttpProxy<Bare>> {
    crate::edge::tls::install_provider();
    let roots = tempfile::tempdir().expect("a directory");
    crate::edge::tls::ca::Authority::open(roots.path()).expect("a CA");
    let roots = roots.path().join(crate::edge::tls::ca::CERT).to_string_lossy().into_owned();
    let conf = ServerConf { threads: 1, ca_file: Some(roots), ..ServerConf::default() };
    let mut proxy = http_proxy(&Arc::new(conf), bare);
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

fn connect(proxy: &Arc<HttpProxy<Bare>>, tasks: &mut JoinSet<()>) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    let proxy = proxy.clone();
    tasks.spawn(async move {
        let (_keep, shutdown) = watch::channel(false);
        proxy.process_new(Box::new(server), &shutdown).await;
    });
    client
}

/// Says 101 before it is asked, and then echoes.
async fn hasty(listener: TcpListener) {
    let mut tasks = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        tasks.spawn(async move {
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(answer).await.expect("sent");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await.ok();
        });
    }
}

/// How many of so many tunnels carry a word there and back.
async fn tunnels(gate: Gate, attempts: usize) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = proxy(Bare { upstream: listener.local_addr().expect("bound"), gate, end_once: true }, false);
    let mut tasks = JoinSet::new();
    tasks.spawn(hasty(listener));
    let mut alive = 0;
    for _ in 0..attempts {
        let mut client = connect(&proxy, &mut tasks);
        let upgrade = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(upgrade).await.expect("sent");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { break };
            seen.push(byte);
        }
        if !seen.starts_with(b"HTTP/1.1 101") || client.write_all(b"ping!").await.is_err() {
            continue;
        }
        let mut word = [0; 5];
        let back = timeout(Duration::from_secs(2), client.read_exact(&mut word)).await;
        alive += usize::from(matches!(back, Ok(Ok(_))) && &word == b"ping!");
    }
    alive
}

#[tokio::test]
async fn a_101_that_comes_early_does_not_tear_the_tunnel_down() {
    assert_eq!(tunnels(Gate::Shut, 40).await, 40);
    let without = tunnels(Gate::Open, 40).await;
    assert!(without < 40, "pingora #946 is gone: take the gate out");
}

/// What an upstream sees of a request whose body ends with an empty DATA frame.
async fn upstream_sees(end_once: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = proxy(Bare { upstream: listener.local_addr().expect("bound"), gate: Gate::Shut, end_once }, true);
    let mut tasks = JoinSet::new();
    let client = connect(&proxy, &mut tasks);
    let (mut send, connection) = h2::client::handshake(client).await.expect("HTTP/2");
    tasks.spawn(async move {
        connection.await.ok();
    });
    let request = http::Request::post("http://a/").body(()).expect("a request");
    let (answer, mut body) = send.send_request(request, false).expect("sent");
    body.send_data(Bytes::from_static(b"hello"), false).expect("sent");
    let (mut stream, _) = listener.accept().await.expect("forwarded");
    let mut seen = String::new();
    while !seen.ends_with("5\r\nhello\r\n") {
        seen.push(stream.read_u8().await.expect("more").into());
    }
    body.send_data(Bytes::new(), true).expect("ended");
    // All that comes until the answer is due, and a little more.
    while let Ok(Ok(byte)) = timeout(Duration::from_millis(300), stream.read_u8()).await {
        seen.push(byte.into());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("answered");
    assert_eq!(answer.await.expect("an answer").status(), 200);
    seen
}

#[tokio::test]
async fn a_chunked_body_ends_once() {
    let with = upstream_sees(true).await;
    assert!(with.ends_with("hello\r\n0\r\n\r\n") && with.matches("0\r\n\r\n").count() == 1, "{with:?}");
    let without = upstream_sees(false).await;
    assert_eq!(without.matches("0\r\n\r\n").count(), 2, "pingora #935 is gone: take the filter out: {without:?}");
}

#[tokio::test]
async fn pingora_alone_waits_for_a_head_for_ever() {
    // #447: what `edge::conn` is there for; its own deadlines are proven there.
    let proxy = proxy(Bare { upstream: "127.0.0.1:1".parse().expect("an address"), gate: Gate::Shut, end_once: true }, false);
    let mut tasks = JoinSet::new();
    let mut client = connect(&proxy, &mut tasks);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    drop(client);
    let mut client = connect(&proxy, &mut tasks);
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: 12345678901234567890" {
        client.write_all(&[*byte]).await.expect("pingora #447 is gone: the connection was closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let still = timeout(Duration::from_millis(200), client.read_u8()).await;
    assert!(still.is_err(), "pingora #447 is gone: it said something");
}
