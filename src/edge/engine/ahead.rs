//! Reads a body before a process is chosen for it, so that a client that takes its time occupies none.
//!
//! Shape: a body up to the route's `buffer` is whole by then, of a larger one the first part is there. What is held counts in [`Buffers`]; where a length is declared, it comes at the
//!        pace of [`Floor`] at least, here and on its way. gRPC and tunnels are never held up: their client waits for an answer before it goes on.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Version, header};
use pingora::{Error, ErrorType, OrErr, Result, protocols::http::ServerSession, proxy::Session};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::{
    conn::{
        Conn, body as deadline,
        buffers::{Buffers, Refusal},
        collect::Collect,
        early::Early,
    },
    exchange::Exchange,
    live::LiveRoute,
};
use crate::rules::floor::Floor;

/// What the engine keeps of a body to send it again (pingora 0.9.1, `BODY_BUF_LIMIT`).
const KEPT: usize = 64 << 10;
/// The most that one read of HTTP/2 gives: a frame, whose size we leave at its default.
const FRAME: usize = 16 << 10;

/// Asks a client for its body that waits to be asked. Whoever came so far is let in, and what the app thinks of the head is not to be known before it has one.
pub async fn welcome(session: &mut Session, exchange: &Exchange) -> Result<()> {
    if exchange.pool().is_none() || !session.req_header().headers.contains_key(header::EXPECT) {
        return Ok(());
    }
    if session.req_header().version == Version::HTTP_11 && !session.is_body_done() {
        session.write_continue_response().await.map_err(Error::into_down)?;
    }
    session.req_header_mut().remove_header(&header::EXPECT);
    Ok(())
}

/// Errors: 408 where it is too slow, 413 where it is too long, 503 where there is no room; the client's own.
pub async fn read(session: &mut Session, exchange: &mut Exchange, buffers: &Arc<Buffers>) -> Result<()> {
    if session.is_body_done() || exchange.upgrade || exchange.pool().is_none() || session.retry_buffer_truncated() {
        return Ok(());
    }
    let headers = &session.req_header().headers;
    if is_grpc(headers) {
        return Ok(());
    }
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let pause = exchange.live.allowance.body;
    let early = Early::new(declared.map(|_| Floor::new(pause)));
    let live = exchange.live.clone();
    let Some(route) = exchange.route_of(&live) else { return Ok(()) };
    if route.buffer == 0 {
        exchange.ahead = early.floor.is_some().then(|| Box::new(early));
        return Ok(());
    }
    // One more than may be there says that it is larger.
    let wanted = declared.map_or(route.buffer + 1, |length| length.min(route.buffer));
    let mut reader = Reader { early, route, buffers, pause, wanted, most: live.buffers };
    // In a box: without a body there is nothing to wait for, and every request's future would else have room for it.
    let result = Box::pin(reader.run(session, exchange)).await;
    deadline::done();
    if let Some(body) = &reader.early.body {
        body.rest();
    }
    exchange.ahead = Some(Box::new(reader.early));
    result
}

/// Its process is chosen and connected: it goes on its way.
pub fn go(exchange: &mut Exchange) {
    if let Some(early) = &mut exchange.ahead {
        early.body = None;
    }
}

/// A piece goes on its way.
///
/// Errors: 408 where they come too slowly.
pub fn pass(exchange: &mut Exchange, piece: &mut Option<Bytes>, buffers: &Buffers) -> Result<()> {
    let (of, now) = (exchange.tries(), exchange.live.now());
    let answering = exchange.is_answering();
    let Some(early) = &mut exchange.ahead else { return Ok(()) };
    let fast = answering || early.passes(now, piece.as_ref().map_or(0, Bytes::len));
    early.complete(piece, of);
    match fast {
        true => Ok(()),
        false => {
            buffers.dripped();
            Err(status(408))
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let is = |kind: &[u8]| kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| is(kind.as_bytes()))
}

struct Reader<'a> {
    early: Early,
    route: &'a LiveRoute,
    buffers: &'a Arc<Buffers>,
    /// Between two pieces.
    pause: Duration,
    wanted: u64,
    /// Of all bodies together.
    most: u64,
}

impl Reader<'_> {
    async fn run(&mut self, session: &mut Session, exchange: &Exchange) -> Result<()> {
        session.enable_retry_buffering();
        let collect = session.as_http1().and_then(|h1| Some(h1.stream().as_any().downcast_ref::<Conn>()?.client().collect.clone()));
        let Some(collect) = collect else { return self.take(session, exchange).await };
        let read = session.body_bytes_read() as u64;
        let Some(wanted) = self.wanted.checked_sub(read).filter(|wanted| *wanted > 0) else { return Ok(()) };
        collect.ask(wanted);
        let result = self.collect(session, exchange, &collect, read).await;
        collect.stop();
        result
    }

    /// HTTP/1: waits until it is there.
    async fn collect(&mut self, session: &mut Session, exchange: &Exchange, collect: &Collect, read: u64) -> Result<()> {
        loop {
            let (had, since) = (collect.have(), Instant::now());
            let by = self.due(since);
            let cut = self.cut();
            let ended = {
                let mut reading = pin!(session.read_request_body());
                let grown = poll_fn(|cx| match reading.as_mut().poll(cx) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if collect.is_enough() || collect.have() > had => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                });
                self.in_time(by, cut, grown).await?
            };
            match ended {
                None => {}
                Some(Err(error)) => return Err(error.into_down()),
                // It was shorter than it said, or is none: whoever reads on hears of it.
                Some(Ok(_)) => return Ok(()),
            }
            self.came(exchange, read + collect.have(), collect.have() - had, since.elapsed(), collect.is_enough())?;
            if collect.is_enough() {
                return Ok(());
            }
        }
    }

    /// HTTP/2: takes it out of the engine's hands, as far as that keeps it.
    async fn take(&mut self, session: &mut Session, exchange: &Exchange) -> Result<()> {
        self.early.kept = session.body_bytes_read();
        while !session.is_body_done() && (session.body_bytes_read() as u64) < self.wanted {
            let since = Instant::now();
            let (by, cut) = (self.due(since), self.cut());
            let keeps = !self.early.is_kept_here() && self.early.kept + FRAME <= KEPT;
            let piece = self.in_time(by, cut, next(session, keeps)).await??;
            let Some(piece) = piece else { break };
            match keeps {
                true => self.early.kept += piece.len(),
                false => self.early.keep(&piece),
            }
            let (read, whole) = (session.body_bytes_read() as u64, session.is_body_done());
            self.came(exchange, read, piece.len() as u64, since.elapsed(), whole)?;
        }
        Ok(())
    }

    /// So much of it is there now.
    fn came(&mut self, exchange: &Exchange, read: u64, more: u64, wait: Duration, whole: bool) -> Result<()> {
        self.early.bytes = read;
        if read > self.route.body_limit {
            return Err(status(413));
        }
        if self.early.floor.as_mut().is_some_and(|floor| !floor.waited(wait, more)) && !whole {
            return Err(self.dripped());
        }
        if whole && self.early.body.is_none() {
            // It was there at once: it is on its way before it could be in anybody's.
            return Ok(());
        }
        let now = Instant::now();
        if self.early.body.is_none() {
            let body = self.buffers.begin(exchange.client, self.most, self.route.buffer, now);
            self.early.body = Some(body.map_err(refused)?);
        }
        self.early.body.as_ref().map_or(Ok(()), |body| body.grow(read, now).map_err(refused))
    }

    /// The next piece is due.
    fn due(&self, now: Instant) -> Instant {
        now + self.early.floor.as_ref().map_or(self.pause, |floor| self.pause.min(floor.credit()))
    }

    fn cut(&self) -> CancellationToken {
        self.early.body.as_ref().map_or_else(CancellationToken::new, super::super::conn::buffers::Body::cut)
    }

    async fn in_time<T>(&self, by: Instant, cut: CancellationToken, come: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            come = timeout_at(by, come) => come.map_err(|_| self.dripped()),
            () = cut.cancelled() => Err(refused(Refusal::Slow)),
        }
    }

    fn dripped(&self) -> Box<Error> {
        self.buffers.dripped();
        status(408)
    }
}

/// `keep`: the engine keeps it, to send it again.
async fn next(session: &mut Session, keep: bool) -> Result<Option<Bytes>> {
    if keep {
        return session.read_request_body().await.map_err(Error::into_down);
    }
    let ServerSession::H2(h2) = session.as_downstream_mut() else { return Ok(None) };
    let piece = poll_fn(|cx| h2.poll_read_body_bytes(cx)).await;
    piece.transpose().or_err(ErrorType::ReadError, "while reading a body ahead").map_err(Error::into_down)
}

fn refused(refusal: Refusal) -> Box<Error> {
    status(match refusal {
        Refusal::Full => 503,
        Refusal::Slow => 408,
    })
}

fn status(status: u16) -> Box<Error> {
    Error::new_down(ErrorType::HTTPStatus(status))
}
