//! Serving one connection: PROXY header, TLS handshake, then request after request into pingora.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::http::{
        ServerSession,
        v2::server::{H2Options, default_h2_options},
    },
    proxy::{HttpProxy, http_proxy},
    server::{ShutdownWatch, configuration::ServerConf},
};
use rustls::server::Acceptor;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{Common, Leave};
use crate::{
    edge::{
        conn::{Allowance, Client, Conn, Io, Next, body},
        engine::{Engine, report},
        live::Live,
        proxy_protocol,
        tls::mutual::CaMark,
    },
    ipc::message::Role,
    telemetry::{Handshake, ListenerMetrics, Refusal},
};

/// pingora's proxy with our hooks; one a thread, so that a kept upstream connection never changes threads.
pub type Proxy = HttpProxy<Engine>;

/// Idle connections to upstreams that a thread keeps; their age is the upstream's `idle`.
const KEPT: usize = 512;
/// Tries that pingora may make; the plan's `tries` are fewer, and its budget counts.
const TRIES: usize = 16;

/// A thread's proxy.
pub fn proxy(common: &Common, roots: &Path) -> Proxy {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: KEPT,
        max_retries: TRIES,
        ca_file: Some(roots.to_string_lossy().into_owned()),
        ..ServerConf::default()
    };
    http_proxy(&Arc::new(conf), Engine::new(common.live.clone(), common.leftovers.clone(), common.buffers.clone()))
}

/// A fatal alert of our own, which rustls has no word for: `unrecognized_name` (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What a connection task needs.
pub struct Service {
    common: Common,
    proxy: Arc<Proxy>,
    linger: mpsc::Sender<Io>,
}

impl Service {
    pub fn new(common: Common, proxy: Arc<Proxy>, linger: mpsc::Sender<Io>) -> Self {
        Self { common, proxy, linger }
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// `[listen] max_connections`
    pub fn cap(&self) -> u64 {
        u64::from(self.common.live.load().plan.listen.max_connections.get())
    }

    /// Whether a connection of `peer` is closed before a byte: he is banned, and comes by TLS, where no CA waits to see a challenge answered (D14). In the clear he may
    /// be a CA too: there his request is looked at, and answered with 403.
    pub fn drops(&self, role: Role, peer: SocketAddr) -> bool {
        let live = self.common.live.load();
        role == Role::Https && live.sentry.shuts_out(peer.ip()) && !live.board.awaits_alpn()
    }

    /// One connection from its first byte to its last.
    pub async fn serve(&self, role: Role, mut tcp: TcpStream, mut peer: SocketAddr, leave: Leave, metrics: &ListenerMetrics) {
        let live = self.common.live.load_full();
        let deadline = Instant::now() + live.allowance.header;
        if live.plan.listen.proxy_protocol && live.is_trusted(peer.ip()) {
            match timeout_at(deadline, proxy_protocol::read(&mut tcp)).await {
                Ok(Ok(named)) => peer = named.unwrap_or(peer),
                Ok(Err(_)) | Err(_) => return metrics.refused(Refusal::ProxyHeader),
            }
            if self.drops(role, peer) {
                return metrics.refused(Refusal::Banned);
            }
        }
        let place = match live.cap_of(peer.ip(), role) {
            Some(cap) => match self.common.crowd.sit_beside(peer.ip(), cap) {
                Some(place) => Some(place),
                None => return metrics.refused(Refusal::PerIp),
            },
            None => None,
        };
        let (io, client) = match role {
            // Boxed: a handshake is ten times as large as what follows, which would keep the room for it.
            Role::Https => match Box::pin(self.handshake(&live, tcp, peer, metrics, deadline)).await {
                Some((tls, ca)) => {
                    let client = Client::secure(peer, leave.drain.clone(), tls.get_ref().1, ca);
                    (Io::Tls(Box::new(tls)), client.until(leave.close.clone()))
                }
                None => return,
            },
            Role::Http | Role::Admin => (Io::Plain(tcp), Client::plain(peer, leave.drain.clone()).until(leave.close.clone())),
        };
        let conn = Conn::new(io, Arc::new(client), &live.allowance, self.linger.clone());
        if conn.is_h2() {
            let app = Arc::new(H2App::new(self.common.clone(), self.proxy.clone(), &live.allowance));
            drop(live);
            let client = conn.client().clone();
            app.process_new(Box::new(conn), &leave.shutdown).await;
            self.record_unread(&client);
        } else {
            let allowance = live.allowance.clone();
            drop(live);
            self.requests(Box::new(conn), allowance, &leave).await;
        }
        drop(place);
    }

    /// HTTP/1: pingora sees the connection from a whole head to the end of its answer, and never while it is idle.
    async fn requests(&self, mut conn: Box<Conn>, mut allowance: Arc<Allowance>, leave: &Leave) {
        loop {
            match conn.next(&allowance).await {
                Next::Request => {}
                // Over TLS the client is told so; either way it has gone, or nothing is owed.
                Next::Closed => return drop(AsyncWriteExt::shutdown(&mut conn).await),
                Next::Refuse(status) => {
                    conn.refuse(status).await;
                    return self.record_unread(conn.client());
                }
            }
            let Some(back) = self.request(conn, leave).await else { return };
            conn = back;
            allowance = self.common.live.load().allowance.clone();
        }
    }

    /// What the connection has refused before it was a request.
    fn record_unread(&self, client: &Client) {
        if let Some(unread) = client.take_unread() {
            report::unread(&self.common.live.load(), client, &unread);
        }
    }

    async fn request(&self, conn: Box<Conn>, leave: &Leave) -> Option<Box<Conn>> {
        let client = conn.client().clone();
        let mut session = ServerSession::new_http1(conn);
        // How long a connection is kept is the connection's own business; pingora's clock would start a timer.
        session.set_keepalive(Some(0));
        // Given up: its exchange has told so.
        let kept = self.common.pressure.clone().watch(self.proxy.process_new_http(session, &leave.shutdown)).await?;
        if !client.was_accepted() {
            // pingora found it malformed, and the connection has said so.
            self.record_unread(&client);
        }
        let (stream, _) = kept?.consume();
        stream.into_any().downcast().ok()
    }

    /// Errors: counted, told to the client where TLS has a word for it.
    async fn handshake(
        &self,
        live: &Live,
        tcp: TcpStream,
        peer: SocketAddr,
        metrics: &ListenerMetrics,
        deadline: Instant,
    ) -> Option<(TlsStream<TcpStream>, Option<CaMark>)> {
        let began = Instant::now();
        let result = timeout_at(deadline, self.shake_hands(live, tcp, peer, metrics)).await;
        let (outcome, tls) = match result {
            Ok(Ok(tls)) => (Handshake::Done, tls),
            Ok(Err(error)) => (failure(&error), None),
            Err(_) => (Handshake::Timeout, None),
        };
        self.common.tls_metrics.done(outcome, began.elapsed());
        tls
    }

    /// With the CAs under which the client's certificate was verified. `None`: a CA has seen its challenge answered, which is all it came for.
    async fn shake_hands(
        &self,
        live: &Live,
        tcp: TcpStream,
        peer: SocketAddr,
        metrics: &ListenerMetrics,
    ) -> io::Result<Option<(TlsStream<TcpStream>, Option<CaMark>)>> {
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let hello = start.client_hello();
        if let Some(config) = live.board.alpn(&hello) {
            let mut tls = start.into_stream(config).await?;
            tls.shutdown().await?;
            return Ok(None);
        }
        if live.sentry.shuts_out(peer.ip()) {
            metrics.refused(Refusal::Banned);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let sni = hello.server_name();
        let there = match live.tls.as_ref().and_then(|tls| tls.wanting(sni)) {
            Some(wanting) => wanting.wait().await,
            None => live.tls.as_ref().is_some_and(|tls| tls.knows(sni)),
        };
        match live.tls.as_ref().filter(|_| there).and_then(|tls| tls.config(live.named(sni))) {
            Some((config, ca)) => match start.into_stream(config.clone()).into_fallible().await {
                Ok(tls) => Ok(Some((tls, ca))),
                Err((error, tcp)) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        // Closed with bytes unread, a reset would overtake the alert. Full: it is closed the hard way.
                        let _ = self.linger.try_send(Io::Plain(tcp));
                    }
                    Err(error)
                }
            },
            None => {
                start.io.write_all(&UNRECOGNIZED_NAME).await?;
                start.io.shutdown().await?;
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}

fn failure(error: &io::Error) -> Handshake {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Handshake::Closed
        }
        _ => Handshake::Failed,
    }
}

/// One HTTP/2 connection's view of the proxy: the limits of the configuration that it came under.
struct H2App {
    common: Common,
    proxy: Arc<Proxy>,
    options: H2Options,
    server: HttpServerOptions,
}

impl H2App {
    fn new(common: Common, proxy: Arc<Proxy>, allowance: &Allowance) -> Self {
        let mut options = default_h2_options();
        // A list of fields counts 32 bytes more for each (RFC 9113 §6.5.2); the gates count it again as it is written.
        let head = allowance.caps.head.saturating_add(32 * allowance.caps.fields);
        options
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .max_concurrent_streams(allowance.streams)
            .max_pending_accept_reset_streams(RESETS_AT_ONCE)
            .max_send_buffer_size(UNSENT)
            // Over the life of a connection: an honest client makes none (CVE-2025-8671).
            .max_local_error_reset_streams(Some(allowance.resets.count().get() as usize));
        let mut server = HttpServerOptions::default();
        server.h2_idle_timeout = Some(allowance.idle);
        Self { common, proxy, options, server }
    }
}

/// Of an answer, beside what the engine reads ahead.
const UNSENT: usize = 128 * 1024;
/// Streams that a client may open and reset before we have looked at them (CVE-2023-44487).
const RESETS_AT_ONCE: usize = 20;

#[async_trait]
impl HttpServerApp for H2App {
    async fn process_new_http(self: &Arc<Self>, session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        let served = body::watch(self.proxy.process_new_http(session, shutdown));
        // Where it is given up the stream is reset; its exchange has told so.
        self.common.pressure.clone().watch(served).await??
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.options.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server)
    }
}
