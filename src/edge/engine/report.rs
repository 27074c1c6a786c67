//! What is left of a request when it is over: counters, its line in the access log, and a word in our own log where an upstream is in trouble.

use std::{
    num::NonZeroU32,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, StatusCode, header};
use pingora::{Error, ErrorType, proxy::Session};

use super::super::{
    blackbox::Failure,
    exchange::{Author, CLIENT_GONE, Exchange, Trouble},
    gate::{Inspection, maintenance::without_secret},
    intake,
    live::LiveAction,
};
use crate::{
    ipc::why::Fault,
    plan::{Family, UpstreamTimeouts},
    rules::{attempt::Cause, header::HostBuf},
    telemetry::{NO_SITE, Seldom, access::AccessRecord},
};

/// The last hook of every request.
pub fn done(session: &Session, error: Option<&Error>, exchange: &mut Exchange) {
    exchange.finish_try();
    exchange.passage.end();
    let took = exchange.began.elapsed();
    let status = exchange.status.unwrap_or(if error.is_some() { CLIENT_GONE } else { 500 });
    let (received, sent) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    exchange.metrics().done(status, took, received, sent);
    remember(session, exchange, status, took);
    let Some(access) = exchange.live.access.as_ref().filter(|access| access.wants(exchange.id(), status)) else { return };
    let head = session.req_header();
    let mut buf = HostBuf::new();
    let (server, upstream_took, tries) = exchange.upstream();
    let bytes = |name| head.headers.get(name).map(|value| value.as_bytes());
    access.record(&AccessRecord {
        at_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
        id: exchange.id(),
        client: exchange.client,
        user: exchange.user.as_ref().map(HeaderValue::as_bytes),
        method: head.method.as_str(),
        host: intake::host(&head.uri, &head.headers, &mut buf),
        // Also where no site is known, or another one: a word that was meant for one of ours.
        target: without_secret(head.raw_path()),
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
        filter: exchange.inspection.as_ref().and_then(Inspection::seen).or(exchange.seen).map(Family::as_str),
    });
}

/// What the client did may count against it: before it hears of it, so that its very next request finds it banned.
pub fn charge(exchange: &mut Exchange, status: StatusCode) {
    if !std::mem::replace(&mut exchange.charged, true) {
        exchange.live.sentry.charge(exchange.client, exchange.offence, status.as_u16());
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What we answered because an upstream failed goes into the black box; what a route is told to answer is no failure.
fn remember(session: &Session, exchange: &Exchange, status: u16, took: Duration) {
    let maintained = exchange.trouble.is_none() && exchange.site().is_some_and(|site| site.gate.is_in_maintenance());
    let told = maintained || exchange.route().is_some_and(|route| matches!(route.action, LiveAction::Respond { .. }));
    if exchange.author != Author::Us || !matches!(status, 502..=504) || told {
        return;
    }
    let head = session.req_header();
    // A query may hold what is nobody's business.
    let path = head.raw_path().split(|byte| *byte == b'?').next().unwrap_or_default();
    let (server, upstream_took, tries) = exchange.upstream();
    let (instance, connected) = exchange.blamed();
    // Nothing went wrong, and yet it was turned away: by a gate.
    let (fault, deadline, detail) = exchange
        .trouble
        .as_ref()
        .map_or((Fault::Refused, None, None), |trouble| (trouble.fault, trouble.deadline, trouble.detail.as_deref()));
    exchange.live.blackbox.keep(&Failure {
        id: exchange.id(),
        at_ms: unix_ms(),
        site: exchange.site().map(|site| &*site.name),
        route: exchange.route().map(|route| &*route.label),
        method: head.method.as_str(),
        path,
        status,
        upstream: exchange.pool().map(|pool| pool.name()),
        app: exchange.pool().and_then(|pool| pool.app()),
        server,
        instance,
        tries,
        lost_by: exchange.lost_by(),
        fault,
        deadline_ms: deadline.map(millis),
        detail,
        queue_ms: millis(exchange.queued),
        connect_ms: connected.map(millis),
        upstream_ms: upstream_took.map_or(0, millis),
        total_ms: millis(took),
    });
}

/// A process broke off with the request in its hands: the master is told, who knows whether it has ended.
pub fn lost(session: &Session, exchange: &Exchange, cause: Cause) {
    if let (Cause::Stale | Cause::Reset, Some(process)) = (cause, exchange.lost_by().last()) {
        let head = session.req_header();
        let again = exchange.lost_by().len() > 1;
        exchange.live.witness.lost(process, exchange.id(), head.method.as_str(), head.raw_path(), again);
    }
}

/// What the failure of a try was, in more words than [`Cause`] has.
fn fault(error: &Error, cause: Cause) -> Fault {
    match (cause, error.etype()) {
        (Cause::Connect, ErrorType::ConnectRefused) => Fault::ConnectRefused,
        (Cause::Connect, ErrorType::ConnectTimedout) => Fault::ConnectTimeout,
        (Cause::Connect, _) => Fault::Connect,
        (Cause::Stale | Cause::Reset, _) => Fault::Reset,
        (Cause::Timeout, ErrorType::WriteTimedout) => Fault::SendTimeout,
        (Cause::Timeout, _) => Fault::ReadTimeout,
        (Cause::Status(_) | Cause::Broken, _) => Fault::BadAnswer,
    }
}

fn deadline(fault: Fault, timeouts: &UpstreamTimeouts) -> Option<Duration> {
    match fault {
        Fault::ConnectTimeout => Some(timeouts.connect),
        Fault::ReadTimeout => Some(timeouts.read),
        Fault::SendTimeout => Some(timeouts.send),
        Fault::NoServer
        | Fault::Full
        | Fault::HoldFull
        | Fault::HoldTimedOut
        | Fault::ConnectRefused
        | Fault::Connect
        | Fault::Reset
        | Fault::BadAnswer
        | Fault::Door
        | Fault::DoorBusy
        | Fault::Refused
        | Fault::Other => None,
    }
}

/// An upstream's failure: noted for the black box, and told in our log, at most one line a second: the metrics count them all.
pub fn trouble(exchange: &mut Exchange, error: &Error, cause: Cause) {
    let fault = fault(error, cause);
    let deadline = exchange.pool().and_then(|pool| deadline(fault, pool.timeouts()));
    exchange.trouble = Some(Trouble { fault, deadline, detail: Some(error.to_string()) });
    static TOLD: LazyLock<Seldom> = LazyLock::new(|| Seldom::a_second(NonZeroU32::MIN));
    let Some(more) = TOLD.may() else { return };
    let (upstream, server) = (exchange.pool().map(|pool| pool.name().as_str()), exchange.server());
    tracing::warn!(upstream, server, error = %error, more, "upstream failed");
}
