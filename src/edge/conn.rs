//! Our connection type under pingora: one client's TCP or TLS stream with its buffers, deadlines and drain.
//!
//! Shape: HTTP/1: Waiting ─whole head→ Request ─answered→ Waiting … ; HTTP/2: Streams to the end.
//!        The engine sees a connection only between a whole head and the end of its answer, so an idle one costs what stands in this file alone.
//!        Bytes beyond the request at hand are held back: they are the next request, not this one's body.
//!        Whatever is written is collected up to 16 KB and goes out at a flush, or before the next wait for the client: header and body in one piece.
//! Source: pingora 0.9.1, which leaves the buffering of a stream to whoever brings it, and has no deadline for headers (pingora#447).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use pingora::{
    http::ResponseHeader,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
        raw_connect::ProxyDigest,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    refused,
    tls::mutual::{CaMark, ClientCertificate},
};
use crate::{
    plan,
    vocab::{Pace, lock::lock},
};

mod alarm;
pub mod appetite;
pub mod body;
pub mod buffers;
mod chunks;
pub mod collect;
pub mod cut;
pub mod early;
mod endings;
mod frames;
pub mod head;
pub mod leftover;
pub mod linger;
pub mod pressure;
mod refusal;
mod stream;

use alarm::Alarm;
use appetite::Appetite;
use chunks::{After, Chunks, Piece};
use collect::{Ahead, Collect};
use frames::Frames;
use head::{Body, Caps, Scan, Scanner};
use leftover::OfConnection;
pub use refusal::Unread;
pub use stream::Io;

/// Written at once at most; larger pieces pass without a copy.
const OUTBOX: usize = 16 * 1024;
/// How long a dismissed HTTP/2 connection may take for what was said.
const PARTING: Duration = Duration::from_secs(1);
/// Held back at most for the requests after this one.
const INBOX: usize = 16 * 1024;
/// What an idle connection may keep of its inbox.
const IDLE_INBOX: usize = 512;

thread_local! {
    /// Where a read lands whose size nobody knows yet: one for all connections of a thread.
    static SCRATCH: std::cell::RefCell<Box<[u8; INBOX]>> = std::cell::RefCell::new(Box::new([0; INBOX]));
}

/// What `[timeouts]` and `[limits]` allow a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    pub caps: Caps,
    pub header: Duration,
    pub idle: Duration,
    pub body: Duration,
    pub send: Duration,
    pub drain: Duration,
    pub streams: u32,
    pub resets: Pace,
}

impl Allowance {
    #[must_use]
    pub fn new(timeouts: &plan::Timeouts, limits: &plan::Limits) -> Self {
        let plan::Timeouts { header, idle, body, send, drain } = *timeouts;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let caps = Caps { head: size(limits.headers.0), target: size(limits.uri.0), fields: limits.header_count.get() as usize };
        Self { caps, header, idle, body, send, drain, streams: limits.streams.get(), resets: limits.resets }
    }
}

/// Who is at the other end, for the hooks.
#[derive(Debug)]
pub struct Client {
    /// Who connected; behind a PROXY header, who it names.
    pub peer: SocketAddr,
    pub tls: bool,
    /// "TLSv1.3"
    pub tls_version: Option<&'static str>,
    /// Lower case.
    pub sni: Option<Box<str>>,
    /// Verified; of sites that ask for one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Answers say that they are the last.
    pub draining: CancellationToken,
    /// Who waits for a request waits no longer.
    closing: CancellationToken,
    /// Of HTTP/2.
    pub appetite: Option<Arc<Appetite>>,
    /// Of HTTP/1.
    pub collect: Arc<Collect>,
    /// Bodies of it whose answers are out.
    pub leftover: Arc<OfConnection>,
    stage: AtomicU8,
    /// The body at hand cannot be read in one way alone.
    malformed: AtomicBool,
    /// Nothing more is served on the connection.
    dismissed: AtomicBool,
    /// What was refused on it before it was a request, until that is written down.
    unread: Mutex<Option<Box<Unread>>>,
}

/// How far the engine is with what it was handed.
const PARSING: u8 = 0;
const SERVING: u8 = 1;

impl Conn {
    /// Whether the client has closed its side: nobody reads what it is answered.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.io.as_ref().is_some_and(stream::Io::has_left)
    }
}

impl Client {
    #[must_use]
    pub fn plain(peer: SocketAddr, draining: CancellationToken) -> Self {
        let closing = draining.clone();
        Self {
            peer,
            tls: false,
            tls_version: None,
            sni: None,
            certificate: None,
            draining,
            closing,
            appetite: None,
            collect: Arc::default(),
            leftover: Arc::default(),
            stage: AtomicU8::new(PARSING),
            malformed: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            unread: Mutex::default(),
        }
    }

    /// Between the drain and this a request may still come.
    #[must_use]
    pub fn until(self, closing: CancellationToken) -> Self {
        Self { closing, ..self }
    }

    #[must_use]
    pub fn secure(peer: SocketAddr, draining: CancellationToken, session: &rustls::ServerConnection, ca: Option<CaMark>) -> Self {
        let tls_version = session.protocol_version().and_then(|version| match version {
            rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        });
        let certificate = ca.and_then(|ca| ClientCertificate::of(session, ca)).map(Arc::new);
        let appetite = (session.alpn_protocol() == Some(b"h2")).then(Arc::default);
        Self { tls: true, tls_version, sni: session.server_name().map(Into::into), certificate, appetite, ..Self::plain(peer, draining) }
    }

    /// The request was parsed and is ours: from here on answers are made by us.
    pub fn accepted(&self) {
        self.stage.store(SERVING, Relaxed);
    }

    /// Whether the body at hand is no body; the connection ends with the answer to it.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.malformed.load(Relaxed)
    }

    /// The answer that goes out now is the connection's last. HTTP/1 is told so by the engine; of HTTP/2 other streams are given a moment.
    pub fn dismiss(&self) {
        self.dismissed.store(true, Relaxed);
    }

    fn refused(&self, unread: Unread) {
        *lock(&self.unread) = Some(Box::new(unread));
    }

    /// What was refused before it was a request, once.
    #[must_use]
    pub fn take_unread(&self) -> Option<Box<Unread>> {
        lock(&self.unread).take()
    }

    /// Whether the engine took the last head for a request.
    #[must_use]
    pub fn was_accepted(&self) -> bool {
        self.stage.load(Relaxed) == SERVING
    }
}

/// What a connection does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// A whole head is there: the engine's turn.
    Request,
    /// Nothing more comes, or nothing more is wanted; nothing is owed.
    Closed,
    /// To be told so, then closed.
    Refuse(StatusCode),
}

#[derive(Debug)]
enum Phase {
    /// Between requests. `since`: when it began to wait, or when the first byte of the head came.
    Waiting { since: Instant, begun: bool, scanner: Scanner },
    /// `head` and `body` bytes are still to be handed over.
    Request { head: usize, body: Body },
    /// `header`: how long a head, or the preface, may be on its way.
    /// `gone_by`: it was dismissed, and is closed then.
    Streams { frames: Frames, header: Duration, cut_off: bool, gone_by: Option<Instant> },
}

/// See the head of this file.
pub struct Conn {
    /// `None` only while it is being dropped.
    io: Option<Io>,
    phase: Phase,
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
    sent: usize,
    /// A write waits for the client until then.
    send_by: Option<Instant>,
    send: Duration,
    alarm: Alarm,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    client: Arc<Client>,
    served: u64,
    wrote: bool,
    /// What is known of a chunked body that is collected.
    ahead: Option<Ahead>,
    /// The engine refused the request in words of its own, which ours have replaced.
    muted: bool,
    linger: mpsc::Sender<Io>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.client.peer)
    }
}

impl Conn {
    /// `linger` takes what must be read to its end before it is closed ([`linger`]).
    #[must_use]
    pub fn new(io: Io, client: Arc<Client>, allowance: &Allowance, linger: mpsc::Sender<Io>) -> Self {
        let now = Instant::now();
        let phase = match io.is_h2() {
            true => Phase::Streams { frames: Frames::new(allowance.resets, now), header: allowance.header, cut_off: false, gone_by: None },
            false => Phase::Waiting { since: now, begun: false, scanner: Scanner::default() },
        };
        let drain = Box::pin(client.closing.clone().cancelled_owned());
        Self {
            io: Some(io),
            phase,
            inbox: Vec::new(),
            taken: 0,
            outbox: Vec::new(),
            sent: 0,
            send_by: None,
            send: allowance.send,
            alarm: Alarm::default(),
            drain,
            client,
            served: 0,
            wrote: false,
            ahead: None,
            muted: false,
            linger,
        }
    }

    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    #[must_use]
    pub fn is_h2(&self) -> bool {
        matches!(self.phase, Phase::Streams { .. })
    }

    /// Waits for the next whole head of an HTTP/1 connection, for the deadline, for the client to go, or for the drain.
    ///
    /// Cancel-safety: nothing is lost.
    pub async fn next(&mut self, allowance: &Allowance) -> Next {
        self.send = allowance.send;
        if let Phase::Request { .. } = self.phase {
            self.served += 1;
            self.wrote = false;
            self.phase = Phase::Waiting { since: Instant::now(), begun: false, scanner: Scanner::default() };
        }
        self.client.stage.store(PARSING, Relaxed);
        self.client.collect.stop();
        self.ahead = None;
        std::future::poll_fn(|cx| self.poll_next(cx, allowance)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, allowance: &Allowance) -> Poll<Next> {
        self.compact();
        loop {
            let Phase::Waiting { since, begun, scanner } = &mut self.phase else { return Poll::Ready(Next::Closed) };
            if !self.inbox.is_empty() {
                if !*begun {
                    (*begun, *since) = (true, Instant::now());
                }
                match scanner.scan(&self.inbox, &allowance.caps) {
                    Scan::Whole { len, body } => {
                        let head = head::encode_target(&mut self.inbox, len);
                        self.phase = Phase::Request { head, body };
                        return Poll::Ready(Next::Request);
                    }
                    Scan::Bad(status) => return Poll::Ready(Next::Refuse(status)),
                    Scan::More => {}
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Next::Closed),
                Poll::Pending => return self.poll_patience(cx, allowance),
            }
        }
    }

    /// Nothing to read: how long may that last?
    fn poll_patience(&mut self, cx: &mut Context<'_>, allowance: &Allowance) -> Poll<Next> {
        let Phase::Waiting { since, begun, .. } = self.phase else { return Poll::Ready(Next::Closed) };
        if !begun && self.drain.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::Closed);
        }
        let patience = if begun || self.served == 0 { allowance.header } else { allowance.idle };
        ready!(self.alarm.poll(since + patience, cx));
        Poll::Ready(if begun { Next::Refuse(StatusCode::REQUEST_TIMEOUT) } else { Next::Closed })
    }

    /// Tells the client why it is not served. The connection is of no use afterwards.
    pub async fn refuse(&mut self, status: StatusCode) {
        self.write_refusal(status);
        // A client that cannot be told has gone; it is closed either way.
        let _ = self.flush().await;
        AsyncWriteExt::shutdown(self).await.ok();
    }

    /// Noted for whoever writes records, and collected to be sent.
    fn write_refusal(&mut self, status: StatusCode) {
        let took = match self.phase {
            Phase::Waiting { since, .. } => since.elapsed(),
            Phase::Request { .. } | Phase::Streams { .. } => Duration::ZERO,
        };
        let unread = Unread::new(status, refused::of_head(status), &self.inbox, took);
        refusal::write(&unread, self.client.tls, &mut self.outbox);
        self.client.refused(unread);
        self.wrote = true;
    }

    /// Forgets what was handed over; an idle connection keeps next to nothing.
    fn compact(&mut self) {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        if self.inbox.is_empty() && self.inbox.capacity() > IDLE_INBOX {
            self.inbox = Vec::new();
        }
        if self.outbox.is_empty() {
            self.outbox = Vec::new();
        }
    }

    fn io(&mut self) -> Pin<&mut Io> {
        Pin::new(self.io.as_mut().expect("the stream is there until drop because only drop takes it"))
    }

    /// Reads once into the inbox; 0 is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(&mut scratch[..]);
            ready!(self.io().poll_read(cx, &mut buf))?;
            self.inbox.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    }

    /// The request is complete: only the client's going is of interest, and what it sends on waits.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.inbox.len() - self.taken < INBOX {
            match ready!(self.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Full: the client is clearly there, and its requests are served one after the other.
        Poll::Pending
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Phase::Request { head, body } = self.phase else { return Poll::Ready(Ok(())) };
        if head == 0 && self.client.collect.is_on() {
            return self.poll_collect(cx, body);
        }
        let due = match body {
            // The head first, and by itself.
            Body::Length(_) | Body::Chunked(_) if head > 0 => head,
            Body::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Body::Chunked(chunks) => return self.poll_chunks(cx, buf, chunks),
            Body::Open => usize::MAX,
        };
        if due == 0 {
            return self.poll_gone(cx);
        }
        let held = &self.inbox[self.taken..];
        let given = if held.is_empty() {
            ready!(self.poll_piece(cx, buf, due))?
        } else {
            let n = held.len().min(buf.remaining()).min(due);
            buf.put_slice(&held[..n]);
            self.taken += n;
            n
        };
        self.phase = Phase::Request { head: head.saturating_sub(given), body: consume(body, given.saturating_sub(head)) };
        Poll::Ready(Ok(()))
    }

    /// Takes in what comes of the body and gives nothing of it; ready only when that goes wrong, or when the client has left.
    fn poll_collect(&mut self, cx: &mut Context<'_>, body: Body) -> Poll<io::Result<()>> {
        loop {
            match self.client.collect.look(&mut self.ahead, body, &self.inbox[self.taken..]) {
                Some(true) => {}
                // Whoever asked looks at once.
                Some(false) => return Poll::Pending,
                None => {
                    self.client.malformed.store(true, Relaxed);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Hands over what is of a chunked body, and holds back what is behind it.
    ///
    /// Errors: `InvalidData`, when nobody can say for certain what it is; the client is told so.
    fn poll_chunks(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, mut chunks: Chunks) -> Poll<io::Result<()>> {
        if self.client.is_malformed() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let held = &self.inbox[self.taken..];
        let fresh = held.is_empty();
        if fresh {
            // No more than what may be held back.
            ready!(self.poll_piece(cx, buf, INBOX))?;
        } else {
            let n = held.len().min(buf.remaining());
            buf.put_slice(&held[..n]);
            self.taken += n;
        }
        let given = buf.filled().len() - before;
        let body = match chunks.feed(&buf.filled()[before..]) {
            Piece::Within => Body::Chunked(chunks),
            Piece::End(end) => {
                if fresh {
                    self.inbox.extend_from_slice(&buf.filled()[before + end..]);
                } else {
                    self.taken -= given - end;
                }
                buf.set_filled(before + end);
                match chunks.after() {
                    After::Next => Body::Length(0),
                    After::Open => Body::Open,
                }
            }
            Piece::Bad => {
                buf.set_filled(before);
                self.client.malformed.store(true, Relaxed);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        };
        self.phase = Phase::Request { head: 0, body };
        Poll::Ready(Ok(()))
    }

    /// Reads at most `due` bytes from the client.
    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, due: usize) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        if due >= buf.remaining() {
            ready!(self.io().poll_read(cx, buf))?;
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(due));
        ready!(self.io().poll_read(cx, &mut piece))?;
        let n = piece.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(n))
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.client.dismissed.load(Relaxed) {
            ready!(self.poll_parting(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "dismissed")));
        }
        let read = self.io().poll_read(cx, buf);
        let Phase::Streams { frames, header, cut_off: false, gone_by: _ } = &mut self.phase else { return Poll::Ready(Err(too_much())) };
        match read {
            Poll::Ready(Ok(())) if frames.feed(&buf.filled()[before..], Instant::now) => {
                if let Some(nudge) = frames.nudge() {
                    self.outbox.extend(nudge);
                    self.push(cx);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                self.cut_off(cx);
                Poll::Ready(Err(too_much()))
            }
            Poll::Pending => match frames.begun() {
                Some(since) => {
                    ready!(self.alarm.poll(since + *header, cx));
                    let status = StatusCode::REQUEST_TIMEOUT;
                    self.client.refused(Unread::new(status, refused::of_head(status), &[], since.elapsed()));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                None => Poll::Pending,
            },
            failed => failed,
        }
    }

    /// What was said goes out; nothing more is heard.
    fn poll_parting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Streams { gone_by, .. } = &mut self.phase else { return Poll::Ready(()) };
        let gone_by = *gone_by.get_or_insert_with(|| Instant::now() + PARTING);
        self.alarm.poll(gone_by, cx)
    }

    /// The client was too much. It is told so, if it reads.
    fn cut_off(&mut self, cx: &mut Context<'_>) {
        tracing::debug!(client = %self.client.peer, "http/2 client cut off: too many resets, or frames that carry nothing");
        self.client.refused(Unread::new(StatusCode::TOO_MANY_REQUESTS, refused::FLOOD, &[], Duration::ZERO));
        if let Phase::Streams { frames, cut_off, .. } = &mut self.phase {
            *cut_off = true;
            self.outbox.extend(frames.farewell().iter().flatten());
            self.wrote = true;
        }
        // What is not taken now never will be.
        self.push(cx);
    }

    /// Sends what is collected, as far as it is taken at once; the rest goes before the next read.
    fn push(&mut self, cx: &mut Context<'_>) {
        if self.poll_drain(cx).is_ready() {
            let _ = self.io().poll_flush(cx);
        }
    }

    /// Collects, or passes on what is too large for that.
    fn poll_take(&mut self, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>], len: usize) -> Poll<io::Result<usize>> {
        if self.outbox.len() + len > OUTBOX {
            if len >= OUTBOX && self.outbox.is_empty() {
                let io = self.io.as_mut().expect("the stream is there until drop because only drop takes it");
                let wrote = Pin::new(io).poll_write_vectored(cx, pieces);
                return self.in_time(cx, wrote);
            }
            // A full outbox takes what still fits, so that a large answer goes out in full pieces.
            let room = OUTBOX.saturating_sub(self.outbox.len());
            if room > 0 {
                return Poll::Ready(Ok(collect(&mut self.outbox, pieces, room)));
            }
            ready!(self.poll_drain(cx))?;
        }
        Poll::Ready(Ok(collect(&mut self.outbox, pieces, OUTBOX)))
    }

    /// Sends what is collected.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outbox.len() {
            let io = self.io.as_mut().expect("the stream is there until drop because only drop takes it");
            let wrote = Pin::new(io).poll_write(cx, &self.outbox[self.sent..]);
            match ready!(self.in_time(cx, wrote))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// All that was written has been taken, at a flush or where the engine goes on to read: a tunnel or a stream of events that is silent holds nothing.
    fn is_even(&self) {
        match self.phase {
            Phase::Request { .. } | Phase::Waiting { .. } if self.outbox.is_empty() => pressure::holds(0),
            // What each stream has outstanding is not to be seen here.
            Phase::Request { .. } | Phase::Waiting { .. } | Phase::Streams { .. } => {}
        }
    }

    /// The send deadline runs from one write to the next, while one waits.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match wrote {
            Poll::Ready(done) => {
                self.send_by = None;
                Poll::Ready(done)
            }
            Poll::Pending => {
                let by = *self.send_by.get_or_insert_with(|| Instant::now() + self.send);
                self.alarm.poll(by, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// The engine answers before it took the request for one: its bare status becomes an answer of ours.
    fn replace(&mut self, answer: &[u8]) {
        if std::mem::replace(&mut self.muted, true) {
            return;
        }
        let status = answer.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok()).unwrap_or(StatusCode::BAD_REQUEST);
        self.write_refusal(status);
    }

    fn is_refusing(&self) -> bool {
        matches!(self.phase, Phase::Request { .. }) && !self.client.was_accepted()
    }
}

fn too_much() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "too much of what carries nothing")
}

fn consume(body: Body, n: usize) -> Body {
    match body {
        Body::Length(left) => Body::Length(left.saturating_sub(n as u64)),
        Body::Chunked(_) | Body::Open => body,
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if let Poll::Ready(Err(error)) = me.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        match me.phase {
            Phase::Request { .. } | Phase::Waiting { .. } => {
                me.is_even();
                me.poll_request(cx, buf)
            }
            Phase::Streams { .. } => me.poll_streams(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if me.is_refusing() {
            me.replace(pieces.first().map_or(&[], |piece| piece));
            return Poll::Ready(Ok(len));
        }
        me.wrote = true;
        let moot = if let Phase::Streams { frames, .. } = &mut me.phase { frames.moot(pieces) } else { None };
        let taken = match (moot, &mut me.phase) {
            (Some(0), Phase::Streams { frames, .. }) => return Poll::Ready(Ok(frames.keep_back(pieces))),
            (Some(before), _) => {
                let mut first = Vec::with_capacity(before);
                collect(&mut first, pieces, before);
                ready!(me.poll_take(cx, &[io::IoSlice::new(&first)], before))?
            }
            (None, _) => ready!(me.poll_take(cx, pieces, len))?,
        };
        if let Phase::Streams { frames, .. } = &mut me.phase {
            if let Some(appetite) = &me.client.appetite {
                appetite.sent(taken);
            }
            let mut left = taken;
            for piece in pieces {
                let n = piece.len().min(left);
                frames.sent(&piece[..n]);
                left -= n;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.poll_drain(cx))?;
        let flushed = me.io().poll_flush(cx);
        ready!(me.in_time(cx, flushed))?;
        me.is_even();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.poll_drain(cx))?;
        let closed = me.io().poll_shutdown(cx);
        me.in_time(cx, closed)
    }
}

/// Copies the pieces, `room` bytes at most.
fn collect(outbox: &mut Vec<u8>, pieces: &[io::IoSlice<'_>], room: usize) -> usize {
    let mut left = room;
    for piece in pieces {
        let n = piece.len().min(left);
        outbox.extend_from_slice(&piece[..n]);
        left -= n;
    }
    room - left
}

impl Drop for Conn {
    fn drop(&mut self) {
        let unread = match self.phase {
            Phase::Request { head, body } => head > 0 || body != Body::Length(0),
            Phase::Waiting { begun, .. } => begun,
            Phase::Streams { cut_off, .. } => cut_off,
        };
        // Closed with bytes unread, the kernel sends a reset, which may overtake the answer.
        if let Some(io) = self.io.take_if(|_| unread && self.wrote) {
            // Full: thousands are closing at once; this one is closed the hard way.
            let _ = self.linger.try_send(io);
        }
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        // The connection ends here, whether the client still hears it or not.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        self.io.as_ref().map_or(-1, Io::fd)
    }
}

impl Ssl for Conn {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_h2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    /// HTTP/2 streams know their connection by this alone; an HTTP/1 session is asked for its stream.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        if !self.is_h2() {
            return None;
        }
        let nothing = Box::new(ResponseHeader::build_no_case(200, Some(0)).ok()?);
        Some(Arc::new(ProxyDigest::new(nothing, Some(Box::new(self.client.clone())))))
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Conn {}

#[cfg(test)]
mod tests;
