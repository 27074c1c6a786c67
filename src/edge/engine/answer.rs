//! Answers on their way out: ours written, the upstream's dressed; both with the same headers.

use http::{HeaderMap, HeaderName, Method, StatusCode, header, response::Parts};
use pingora::{Result, http::ResponseHeader, protocols::http::ServerSession, proxy::Session};

use super::{
    super::{
        exchange::{Author, CLIENT_GONE, Exchange, Trouble},
        forward::X_REQUEST_ID,
        refused,
        reply::{self, Reply},
    },
    report,
};
use crate::{
    ipc::why::Fault,
    plan::ban::Offence,
    rules::header::{self as rule, Channel},
};

/// Writes an answer of ours. The connection lives on unless a body was left unread.
pub async fn send(session: &mut Session, exchange: &mut Exchange, reply: Reply) -> Result<()> {
    let Reply { status, headers, body, offence, refused, last } = reply;
    exchange.offence = offence;
    exchange.refused = refused.or(exchange.refused.take());
    report::charge(session, exchange, status);
    if last {
        session.set_keepalive(None);
        if let Some(client) = super::client(session) {
            client.dismiss();
        }
    }
    let mut fields = HeaderMap::with_capacity(headers.len() + 12);
    fields.extend(headers);
    exchange.passage.answer(status, &mut fields, || exchange.live.now());
    finish(&mut fields, exchange, &session.req_header().headers);
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational();
    if !bodiless {
        fields.insert(header::CONTENT_LENGTH, body.len().into());
    }
    exchange.status = Some(status.as_u16());
    exchange.author = Author::Us;
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    let answer = Box::new(head(status, fields));
    if let (true, ServerSession::H2(h2)) = (silent, session.as_downstream_mut()) {
        // The head is the end: said in a frame of its own, it would come too late for a client that stops reading here.
        return h2.write_response_header(answer, true);
    }
    session.write_response_header(answer, silent).await?;
    if !silent {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Gives an upstream's answer our headers.
pub fn dress(session: &mut Session, exchange: &mut Exchange, answer: &mut ResponseHeader) {
    let status = answer.status;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    exchange.status = Some(status.as_u16());
    report::charge(session, exchange, status);
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
    if super::client(session).is_some_and(|client| client.draining.is_cancelled()) {
        session.set_keepalive(None);
    }
    // As plain parts the fields cost no second map for the upstream's spelling of them.
    let Ok(empty) = ResponseHeader::build_no_case(status, Some(0)) else { return };
    let mut parts = Parts::from(std::mem::replace(answer, empty));
    if !tunnel {
        parts.headers.remove(KEEP_ALIVE);
        parts.headers.remove(PROXY_CONNECTION);
    }
    exchange.passage.answer(status, &mut parts.headers, || exchange.live.now());
    finish(&mut parts.headers, exchange, &session.req_header().headers);
    *answer = ResponseHeader::from(parts);
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The headers that every answer has; `asked` are the request's.
fn finish(fields: &mut HeaderMap, exchange: &Exchange, asked: &HeaderMap) {
    match exchange.site() {
        Some(site) => rule::put_on(fields, &site.headers, site.channel(exchange.tls)),
        None => rule::put_on(fields, rule::of_nobody(), Channel::of(exchange.tls)),
    }
    if let Some(route) = exchange.route() {
        if let Some(cors) = route.gate.cors() {
            cors.dress(fields, asked);
        }
        reply::edit(fields, &route.response_headers, exchange.tls);
    }
    if !exchange.request_id.is_empty() {
        fields.insert(X_REQUEST_ID, exchange.request_id.clone());
    }
}

fn head(status: StatusCode, fields: HeaderMap) -> ResponseHeader {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (status, fields);
    parts.into()
}

/// Tells the client that its request failed, where nothing of an answer has gone out yet.
pub async fn fail(session: &mut Session, exchange: &mut Exchange, status: u16) {
    let begun = session.response_written().is_some_and(|answer| !answer.status.is_informational() || answer.status == 101);
    session.set_keepalive(None);
    if begun {
        return;
    }
    let Some(status) = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() != CLIENT_GONE) else {
        exchange.status = Some(CLIENT_GONE);
        return;
    };
    let inspected = exchange.inspection.as_ref().filter(|inspection| inspection.is_refused());
    let by = match inspected {
        Some(inspection) => Some(refused::bad_uri(inspection.seen())),
        None => exchange.refused.take().or_else(|| refused::by_status(status)),
    };
    let accused = inspected.is_some();
    if by.is_none() {
        exchange.trouble.get_or_insert(Trouble::from(Fault::Other));
    }
    exchange.refused = by;
    let accept = session.req_header().headers.get(header::ACCEPT).cloned();
    let mut reply = Reply::page(status, accept.as_ref(), exchange.id());
    if matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) {
        reply = reply.with_retry_after(RETRY_AFTER);
    }
    if accused {
        reply = reply.blame(Offence::BadUri);
    }
    if send(session, exchange, reply).await.is_err() {
        exchange.status = Some(CLIENT_GONE);
    }
}

/// After a failure that says nothing of when it will be better.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
