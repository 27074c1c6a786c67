//! The request's way in and on: marked as ours, judged, rewritten for the upstream, its body counted.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use pingora::{Error, ErrorType, OrErr, Result, http::RequestHeader, proxy::Session};

use super::super::{
    conn::{appetite, body as deadline, pressure},
    exchange::Exchange,
    forward::{self, Origin},
    gate::{Verdict, maintenance::FIELD},
    intake::{self, Request, Step},
    live::Live,
    reply::Reply,
};
use crate::rules::header as rule;

/// Keep-alive as pingora knows it: how long is the connection's business ([`super::super::conn`]).
const WITHOUT_LIMIT: Option<u64> = Some(0);

/// First of all: from here on the answer is ours to give.
pub fn take(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    let client =
        super::client(session).ok_or_else(|| Error::explain(ErrorType::InternalError, "a request came on no connection of ours"))?;
    client.accepted();
    let draining = client.draining.is_cancelled();
    if draining {
        session.set_keepalive(None);
    } else if session.get_keepalive().is_some() {
        session.set_keepalive(WITHOUT_LIMIT);
    }
    encode_target(session);
    let head = session.req_header();
    exchange.asked = Some((head.method.clone(), head.uri.clone(), head.version));
    let live = &exchange.live;
    session.set_read_timeout(Some(live.allowance.body));
    if session.is_http2() {
        // A client that leaves its window shut; on HTTP/1 the connection itself sees that.
        session.set_write_timeout(Some(live.allowance.send));
    }
    drop_fields(session, &exchange.live);
    Ok(())
}

/// Of HTTP/2, whose heads the engine reads by itself; on HTTP/1 the connection has done it.
fn encode_target(session: &mut Session) {
    if session.is_http2()
        && let Some(encoded) = session.req_header().uri.path_and_query().and_then(|path| rule::encoded_target(path.as_str().as_bytes()))
        && let Ok(encoded) = std::str::from_utf8(&encoded)
    {
        // What cannot be stored stays as it is, and is refused as any target that is none.
        let _ = retarget(session.req_header_mut(), encoded);
    }
}

/// What is not passed on: fields with an underscore would collide with others in CGI and WSGI apps, and an `Upgrade` that opens no WebSocket would make a tunnel
/// that nobody watches.
fn drop_fields(session: &mut Session, live: &Live) {
    let head = session.req_header();
    if head.headers.contains_key(header::UPGRADE) && !intake::is_upgrade(&head.method, head.version, &head.headers) {
        session.req_header_mut().remove_header(&header::UPGRADE);
    }
    let bad = live.sieve.dropped(&session.req_header().headers);
    live.fields.dropped(bad.len());
    for name in bad {
        session.req_header_mut().remove_header(&name);
    }
    // HTTP/1.0 has no interim answers (RFC 9110 §10.1.1); the upstream would take ours for 1.1 and send one.
    if session.req_header().version < http::Version::HTTP_11 {
        session.req_header_mut().remove_header(&header::EXPECT);
    }
}

pub fn judge(session: &Session, exchange: &mut Exchange) -> Verdict {
    let Some(client) = super::client(session) else { return Verdict::Answer(Reply::bare(http::StatusCode::INTERNAL_SERVER_ERROR)) };
    let header = session.req_header();
    let request =
        Request { method: &header.method, uri: &header.uri, target: target(header), version: header.version, headers: &header.headers };
    intake::judge(exchange, client, request)
}

pub fn content(session: &Session, exchange: &mut Exchange) -> Step {
    let header = session.req_header();
    intake::content(exchange, &header.uri, &header.headers)
}

/// Path and query as received. Of an absolute form, which servers must take, the engine has compared the authority with `Host` and kept the path.
///
/// Source: RFC 9112 §3.2.2.
pub fn target(header: &RequestHeader) -> &[u8] {
    let raw = header.raw_path();
    let after =
        |scheme: &str| raw.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme.as_bytes())).map(|_| &raw[scheme.len()..]);
    let Some(rest) = after("http://").or_else(|| after("https://")) else { return raw };
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default();
    if authority.is_empty() || authority.contains(&b'@') {
        return raw;
    }
    header.uri.path_and_query().map_or(b"/", |path| path.as_str().as_bytes())
}

/// A tunnel may be silent for as long as it likes; its handshake may not ([`super::tunnel`]).
pub fn limit_waits(session: &mut Session, exchange: &Exchange) {
    if exchange.upgrade {
        session.set_read_timeout(None);
    }
    if session.is_http2() && !session.is_body_done() {
        await_body(exchange);
    }
}

/// The upstream may be what holds a body up: it has its own deadline, which is to be missed first.
fn await_body(exchange: &Exchange) {
    let send = exchange.pool().map_or(Duration::ZERO, |pool| pool.timeouts().send);
    deadline::expect(exchange.live.allowance.body.max(send));
}

/// Makes the upstream's request of the client's.
pub fn forward(had: &RequestHeader, upstream: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
    let route = exchange.route().ok_or_else(|| Error::new(ErrorType::InternalError))?;
    if let Some(target) = route.rewriter.target(had.uri.path(), had.uri.query()) {
        retarget(upstream, &target)?;
    } else if had.raw_path().first() != Some(&b'/') && had.uri.path() != "*" {
        // An absolute form is for proxies: the upstream gets the path.
        retarget(upstream, had.uri.path_and_query().map_or("/", |path| path.as_str()))?;
    }
    let named;
    let host = match had.headers.get(header::HOST) {
        Some(host) => Some(host),
        None => {
            named = had.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
            named.as_ref()
        }
    };
    if let Some(all) = forward::cookie(&had.headers) {
        upstream.insert_header(header::COOKIE, all)?;
    }
    let Exchange { peer, client, trusted, tls, request_id, .. } = exchange;
    if !trusted {
        for name in forward::HEARSAY {
            upstream.remove_header(&name);
        }
    }
    let origin = Origin { peer: *peer, client: *client, trusted: *trusted, tls: *tls, host, request_id };
    let mut result = Ok(());
    forward::fields(&origin, &had.headers, |name, value| {
        if let Err(error) = upstream.insert_header(name, value) {
            result = Err(error);
        }
    });
    forward::certificate(exchange.certificate.as_deref(), |name, value| match value {
        Some(value) => {
            if let Err(error) = upstream.insert_header(name, value) {
                result = Err(error);
            }
        }
        None => drop(upstream.remove_header(&name)),
    });
    result?;
    if had.headers.contains_key(FIELD) {
        upstream.remove_header(&FIELD);
    }
    for (name, _) in &exchange.vouched {
        upstream.remove_header(name);
    }
    for (name, value) in exchange.vouched.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        upstream.append_header(name.clone(), value.clone())?;
    }
    for edit in &route.request_headers {
        match &edit.value {
            Some(value) => upstream.insert_header(edit.name.clone(), value.clone())?,
            None => {
                upstream.remove_header(&edit.name);
            }
        }
    }
    Ok(())
}

/// HTTP/2 names the authority in the same place as the path.
fn retarget(upstream: &mut RequestHeader, target: &str) -> Result<()> {
    let path = target.parse().or_err(ErrorType::InvalidHTTPHeader, "a rewritten path is no path")?;
    let mut parts = upstream.uri.clone().into_parts();
    parts.path_and_query = Some(path);
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    upstream.set_uri(Uri::from_parts(parts).or_err(ErrorType::InvalidHTTPHeader, "a rewritten path makes no address")?);
    Ok(())
}

/// A piece of the answer goes to the client, which has taken so much of it; how much waits is counted, and what is little is not.
pub fn hands_over(bytes: usize, taken: u64, exchange: &mut Exchange) {
    exchange.given += bytes as u64;
    let outstanding = exchange.given.saturating_sub(taken);
    pressure::holds(if outstanding > appetite::LITTLE { outstanding } else { 0 });
    if let Some(portion) = &mut exchange.portion {
        portion.gives(outstanding, taken, tokio::time::Instant::now());
    }
}

/// Counts the body against the route's limit, has it looked at, and works around pingora #935.
pub fn body(read: usize, body: &mut Option<Bytes>, end: bool, exchange: &mut Exchange) -> Result<()> {
    let end = end || body.is_none();
    if exchange.route().is_some_and(|route| read as u64 > route.body_limit) && exchange.status.is_none_or(|status| status != 101) {
        return Err(Error::new_down(ErrorType::HTTPStatus(413)));
    }
    match end || exchange.is_answering() {
        true => deadline::done(),
        false => await_body(exchange),
    }
    if let Some(mut inspection) = exchange.inspection.take() {
        let seen = exchange.route().map_or(Ok(()), |route| inspection.take(body, end, exchange.tries(), &route.gate));
        exchange.inspection = Some(inspection);
        seen.map_err(|status| Error::new_down(ErrorType::HTTPStatus(status.as_u16())))?;
    }
    end_once(body, end);
    Ok(())
}

/// #935: an empty last piece makes pingora end a chunked body twice, and the second end poisons the kept connection.
pub fn end_once(body: &mut Option<Bytes>, end: bool) {
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}
