//! The engine: pingora's proxy with our hooks in it. Each hook asks one of the rooms beside it.
//!
//! Shape: early_request_filter → request_filter → (upstream_peer → connected → upstream_request_filter → … → response_filter)* → logging.
//!        An error goes through fail_to_connect or error_while_proxy, which may try another server, and else through fail_to_proxy.
//! Source: pingora-proxy 0.9.1, `proxy_trait.rs` and `lib.rs`: the hooks and their order.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header::RETRY_AFTER};
use pingora::{
    Error, ErrorSource, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    protocols::Digest,
    proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::HttpPeer,
};

use super::{
    conn::{Client, body, buffers::Buffers, leftover::Leftovers},
    exchange::{CLIENT_GONE, Exchange},
    gate::Verdict,
    intake::Step,
    live::LiveCell,
};
use crate::{
    plan::UpstreamHttp,
    rules::attempt::{Cause, Repeat},
};

mod access;
mod ahead;
mod answer;
mod inspect;
mod leftover;
mod peer;
pub mod report;
mod request;
pub mod tunnel;
mod turn;
mod wait;

/// The hooks of one thread's proxy.
pub struct Engine {
    live: LiveCell,
    leftovers: Arc<Leftovers>,
    buffers: Arc<Buffers>,
}

impl Engine {
    #[must_use]
    pub fn new(live: LiveCell, leftovers: Arc<Leftovers>, buffers: Arc<Buffers>) -> Self {
        Self { live, leftovers, buffers }
    }
}

/// An answer that another server may better: never reaches anyone outside of this file.
const PASSED_OVER: ErrorType = ErrorType::Custom("passed over");

#[async_trait]
impl ProxyHttp for Engine {
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Exchange::new(self.live.load_full()))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // Not even the one that is there but off: it costs five allocations a request.
    }

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<()> {
        request::take(session, exchange)
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<bool> {
        let mut verdict = request::judge(session, exchange);
        if verdict == Verdict::Pass {
            verdict = turn::take(session, exchange).await?;
        }
        if verdict == Verdict::Pass {
            verdict = access::admit(session, exchange).await?;
        }
        let step = match verdict {
            Verdict::Pass => {
                ahead::welcome(session, exchange).await?;
                inspect::body(session, exchange).await?;
                ahead::read(session, exchange, &self.buffers).await?;
                request::content(session, exchange)
            }
            Verdict::Answer(reply) => Step::Answer(reply),
        };
        match step {
            Step::Forward => Ok(false),
            Step::Answer(reply) => {
                if matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::EXPECTATION_FAILED) {
                    // Who cannot say what it wants may not say more.
                    session.set_keepalive(None);
                }
                leftover::before(session, exchange, reply.status, &self.leftovers).await;
                answer::send(session, exchange, reply).await.map(|()| true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        if let Some((room, bounds)) = exchange.waiting_room() {
            wait::for_an_instance(session, exchange, &room, &bounds).await?;
        }
        wait::for_an_appetite(session, exchange).await?;
        // The client's own deadlines run from here on: while it waits for us it owes nothing.
        request::limit_waits(session, exchange);
        peer::next(exchange)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        fd: std::os::fd::RawFd,
        _: Option<&Digest>,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        // A connection of HTTP/2 has other requests too, one for an upgrade has deadlines of its own.
        if fd >= 0 && exchange.pool().is_some_and(|pool| pool.http() == UpstreamHttp::V1) {
            exchange.owns(fd);
        }
        Ok(())
    }

    async fn upstream_request_filter(&self, session: &mut Session, upstream: &mut RequestHeader, exchange: &mut Self::CTX) -> Result<()> {
        exchange.connected();
        ahead::go(exchange);
        request::forward(session.req_header(), upstream, exchange)?;
        exchange.sent();
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        ahead::pass(exchange, body, &self.buffers)?;
        let whole = end || body.is_none();
        request::body(session.body_bytes_read(), body, end, exchange)?;
        if whole {
            exchange.asked(repeat(session));
        }
        Ok(())
    }

    async fn upstream_response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, exchange: &mut Self::CTX) -> Result<()> {
        if answer.status.is_informational() && answer.status != StatusCode::SWITCHING_PROTOCOLS {
            exchange.heard();
            return Ok(());
        }
        if exchange.comes_too_late() {
            return Err(Error::new_up(ErrorType::ReadTimedout));
        }
        if answer.status.as_u16() >= 400 {
            exchange.fails_at(session.req_header().uri.path(), answer.headers.contains_key(RETRY_AFTER));
        }
        if exchange.passes_over(answer.status, repeat(session)) {
            return Err(Error::new_up(PASSED_OVER));
        }
        body::done();
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<std::time::Duration>> {
        exchange.heard();
        if let Some(body) = body {
            request::hands_over(body.len(), session.body_bytes_sent() as u64, exchange);
        }
        Ok(None)
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, exchange: &mut Self::CTX) -> Result<()> {
        answer::dress(session, exchange, answer);
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, exchange: &mut Self::CTX, mut error: Box<Error>) -> Box<Error> {
        report::trouble(exchange, &error, Cause::Connect);
        exchange.fails_at(session.req_header().uri.path(), false);
        error.set_retry(exchange.fail_try(Cause::Connect, repeat(session)));
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        // First of all: the connection is the request's no more.
        let ended = exchange.ended();
        if (error.esource(), error.etype()) == (&ErrorSource::Upstream, &ErrorType::ReadTimedout) && !session.is_body_done() {
            // The server waits for a body that the client keeps to itself: not its fault, and nothing to try elsewhere.
            error.set_retry(false);
            return error.into_down();
        }
        if exchange.is_cut() {
            // We have ended it ourselves, be it before the tunnel stood.
            error.set_retry(false);
            return error.into_down();
        }
        if exchange.is_tunnel() {
            // What becomes of a tunnel says nothing of the server, and what was said in it is not said to another one.
            error.set_retry(false);
            return error;
        }
        exchange.fails_at(session.req_header().uri.path(), false);
        if let Some(end) = ended.filter(|_| error.esource() != &ErrorSource::Downstream) {
            return report::cut_short(session, exchange, end);
        }
        let again = match ending(session, &error, reused) {
            Ending::Client => false,
            Ending::PassedOver => exchange.has_next(),
            Ending::Try(cause) => {
                report::trouble(exchange, &error, cause);
                let again = exchange.fail_try(cause, repeat(session));
                report::lost(session, exchange);
                again
            }
        };
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Self::CTX) -> FailToProxy {
        let malformed = client(session).is_some_and(Client::is_malformed);
        let status = if malformed { 400 } else { status(error, exchange) };
        answer::fail(session, exchange, status).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        // The access record says it, and `report::trouble` what concerns an upstream.
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Self::CTX, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Self::CTX) {
        report::done(session, error, exchange);
        leftover::after(session, error, exchange, &self.leftovers).await;
    }
}

/// Whether sending the request twice would do no harm: the method says so, and we still have all of the body.
fn repeat(session: &Session) -> Repeat {
    Repeat::of(&session.req_header().method, !session.as_ref().retry_buffer_truncated())
}

/// What an error after the connection is to the try that it ends.
enum Ending {
    /// The client's fault, or its end.
    Client,
    /// The answer was passed over: it is judged, and the next server picked already.
    PassedOver,
    Try(Cause),
}

fn ending(session: &Session, error: &Error, reused: bool) -> Ending {
    Ending::Try(match (error.esource(), error.etype()) {
        (_, etype) if etype == &PASSED_OVER => return Ending::PassedOver,
        (ErrorSource::Downstream, _) | (_, ErrorType::HTTPStatus(_)) => return Ending::Client,
        _ if session.response_written().is_some_and(|answer| !answer.status.is_informational()) => Cause::Broken,
        (ErrorSource::Internal, _) => Cause::Unsendable,
        (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Cause::Timeout,
        _ if tunnel::timed_out(error) => Cause::Timeout,
        (_, ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed | ErrorType::H2Error) => broken(error, reused),
        _ => Cause::Broken,
    })
}

/// How a connection, or a stream of it, ended before a byte of the answer.
///
/// Source: RFC 9113 §8.7: a stream that was refused, or that a GOAWAY leaves out, was not looked at. The h2 crate tells streams that a GOAWAY leaves out of it alone.
fn broken(error: &Error, reused: bool) -> Cause {
    match error.root_cause().downcast_ref::<h2::Error>() {
        Some(error) if error.is_remote() && error.is_go_away() => Cause::NotTaken,
        Some(error) if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => Cause::NotTaken,
        // The connection lives: it brought this word.
        Some(error) if error.is_remote() && error.is_reset() => Cause::Reset,
        Some(_) | None if reused => Cause::Stale,
        Some(_) | None => Cause::Reset,
    }
}

/// What the client is told.
fn status(error: &Error, exchange: &Exchange) -> u16 {
    match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(status)) => *status,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => 408,
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => 400,
        (ErrorSource::Downstream, _) => CLIENT_GONE,
        // What was asked for cannot be said to this server at all: HTTP/1.0 without a name, to one of HTTP/2.
        (ErrorSource::Internal, ErrorType::InvalidHTTPHeader) => 400,
        (_, _) => exchange.failure().map_or(500, Cause::status),
    }
}

/// The connection that a request came on.
fn client(session: &Session) -> Option<&Client> {
    if let Some(h1) = session.as_http1() {
        return h1.stream().as_any().downcast_ref::<super::conn::Conn>().map(|conn| &**conn.client());
    }
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Client>>().map(|client| &**client)
}
