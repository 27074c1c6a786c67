//! What is left of a request when it is over: counters, its line in the access log, and a word in our own log where an upstream is in trouble.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

use http::header;
use pingora::{Error, proxy::Session};

use super::super::{
    exchange::{CLIENT_GONE, Exchange},
    intake,
};
use crate::{
    rules::header::HostBuf,
    telemetry::{NO_SITE, access::AccessRecord},
};

/// The last hook of every request.
pub fn done(session: &Session, error: Option<&Error>, exchange: &mut Exchange) {
    exchange.finish_try();
    let took = exchange.began.elapsed();
    let status = exchange.status.unwrap_or(if error.is_some() { CLIENT_GONE } else { 500 });
    let (received, sent) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    exchange.metrics().done(status, took, received, sent);
    let Some(access) = exchange.live.access.as_ref().filter(|access| access.wants(exchange.id(), status)) else { return };
    let head = session.req_header();
    let mut buf = HostBuf::new();
    let (server, upstream_took, tries) = exchange.upstream();
    let bytes = |name| head.headers.get(name).map(|value| value.as_bytes());
    access.record(&AccessRecord {
        at_ms: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX)),
        id: exchange.id(),
        client: exchange.client,
        method: head.method.as_str(),
        host: intake::host(&head.uri, &head.headers, &mut buf),
        target: head.raw_path(),
        version: head.version,
        status,
        received,
        sent,
        took,
        site: exchange.site().map_or(NO_SITE, |site| &site.name),
        route: exchange.route().map(|route| &*route.label),
        upstream: exchange.pool().map(|pool| pool.name().as_str()),
        server,
        upstream_took,
        tries,
        tls: super::client(session).and_then(|client| client.tls_version),
        user_agent: bytes(header::USER_AGENT),
        referer: bytes(header::REFERER),
    });
}

/// An upstream's failure, at most one line a second: the metrics count them all.
pub fn trouble(exchange: &Exchange, error: &Error) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static HELD: AtomicU64 = AtomicU64::new(0);
    let now = exchange.live.now().as_secs() + 1;
    if LAST.swap(now, Relaxed) == now {
        HELD.fetch_add(1, Relaxed);
        return;
    }
    let (upstream, server) = (exchange.pool().map(|pool| pool.name().as_str()), exchange.server());
    tracing::warn!(upstream, server, error = %error, more = HELD.swap(0, Relaxed), "upstream failed");
}
