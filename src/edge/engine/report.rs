//! What is left of a request when it is over: counters, its line in the access log, and a word in our own log where an upstream is in trouble.

use std::{
    num::NonZeroU32,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora::{Error, ErrorType, proxy::Session};

use super::super::{
    blackbox::{Failure, plain},
    conn::{Client, Unread, cut},
    exchange::{Author, CLIENT_GONE, Exchange, Trouble},
    gate::{Inspection, ban::Deed, maintenance::without_secret},
    intake,
    live::{Live, LiveAction},
    refused,
    upstream::End,
};
use crate::{
    ipc::{
        message::{Incarnation, InstanceId},
        why::Fault,
    },
    plan::UpstreamTimeouts,
    rules::{attempt::Cause, header::HostBuf},
    telemetry::{NO_SITE, Seldom, access::AccessRecord},
};

/// The last hook of every request.
pub fn done(session: &Session, error: Option<&Error>, exchange: &mut Exchange) {
    // There is somebody to say so.
    exchange.asked = None;
    let answerer = exchange.answerer();
    exchange.finish_try();
    exchange.passage.end();
    let took = exchange.began.elapsed();
    let status = exchange.status.unwrap_or(if error.is_some() { CLIENT_GONE } else { 500 });
    let (received, sent) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    exchange.metrics().done(status, took, received, sent);
    let asked = session.req_header();
    // A query may hold what is nobody's business.
    let path = asked.raw_path().split(|byte| *byte == b'?').next().unwrap_or_default();
    remember(asked.method.as_str(), path, exchange, answerer.as_ref(), status, took);
    say_refusal(exchange, path);
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
        filter: exchange.inspection.as_ref().and_then(Inspection::seen).or(exchange.seen).map(|hit| hit.family.as_str()),
        refused: exchange.refused.as_deref(),
    });
}

/// A request whose task was ended under it: the engine's last hook was never called.
impl Drop for Exchange {
    fn drop(&mut self) {
        let Some((method, uri, version)) = self.asked.take() else { return };
        let by = cut::why().unwrap_or(refused::CUT);
        let status = self.status.unwrap_or(if by == refused::BODY_DEADLINE { 408 } else { CLIENT_GONE });
        let answerer = self.answerer();
        self.finish_try();
        self.passage.end();
        let took = self.began.elapsed();
        self.metrics().done(status, took, 0, self.given);
        self.refused = Some(by);
        remember(method.as_str(), uri.path().as_bytes(), self, answerer.as_ref(), status, took);
        let Some(access) = self.live.access.as_ref() else { return };
        let (server, upstream_took, tries) = self.upstream();
        let site = self.site();
        access.record(&AccessRecord {
            at_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
            id: self.id(),
            client: self.client,
            user: self.user.as_ref().map(HeaderValue::as_bytes),
            method: method.as_str(),
            host: site.map_or("", |site| &site.name),
            target: without_secret(uri.path_and_query().map_or("", |target| target.as_str()).as_bytes()),
            version,
            status,
            received: 0,
            sent: self.given,
            took,
            site: site.map_or(NO_SITE, |site| &site.name),
            route: self.route().map(|route| &*route.label),
            upstream: self.pool().map(|pool| pool.name().as_str()),
            server,
            upstream_took,
            tries,
            tls: None,
            user_agent: None,
            referer: None,
            filter: self.seen.map(|hit| hit.family.as_str()),
            refused: self.refused.as_deref(),
        });
    }
}

/// What was refused on its connection before it was a request: counted, remembered and written down as any other.
pub fn unread(live: &Live, client: &Client, unread: &Unread) {
    let Unread { id, status, by, method, target, took } = unread;
    let id = id.to_str().unwrap_or("");
    let ip = client.peer.ip().to_canonical();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    live.sentry.charge(ip, &Deed { offence: None, status: status.as_u16(), path, seen: None, tried: false, php: false });
    live.nobody.done(status.as_u16(), *took, 0, 0);
    live.blackbox.keep(&Failure {
        refused: Some(by),
        total_ms: millis(*took),
        ..Failure::new(
            id,
            unix_ms(),
            method,
            target.split(|byte| *byte == b'?').next().unwrap_or_default(),
            status.as_u16(),
            Fault::Refused,
        )
    });
    let Some(access) = live.access.as_ref() else { return };
    access.record(&AccessRecord {
        at_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
        id,
        client: ip,
        user: None,
        method,
        host: "",
        target: without_secret(target),
        version: if client.appetite.is_some() { Version::HTTP_2 } else { Version::HTTP_11 },
        status: status.as_u16(),
        received: 0,
        sent: 0,
        took: *took,
        site: NO_SITE,
        route: None,
        upstream: None,
        server: None,
        upstream_took: None,
        tries: 0,
        tls: client.tls_version,
        user_agent: None,
        referer: None,
        filter: None,
        refused: Some(by),
    });
}

/// Where nothing is written down, a refusal by a filter is said: at most one line a second, so that nobody wonders why an honest request gets 403.
fn say_refusal(exchange: &Exchange, path: &[u8]) {
    static TOLD: LazyLock<Seldom> = LazyLock::new(|| Seldom::a_second(NonZeroU32::MIN));
    let Some(by) = exchange.refused.as_deref().filter(|by| exchange.live.access.is_none() && by.starts_with("filter:")) else { return };
    let Some(more) = TOLD.may() else { return };
    let (site, route) = (exchange.site().map(|site| &*site.name), exchange.route().map(|route| &*route.label));
    let path = plain(path, LONGEST_SAID);
    tracing::warn!(refused = by, site, route, client = %exchange.client, path = &*path, id = exchange.id(), more, "request refused by a filter: where it is honest, let the filter observe it");
}

/// Of a path in our own log.
const LONGEST_SAID: usize = 200;

/// What the client did may count against it: before it hears of it, so that its very next request finds it banned.
pub fn charge(session: &Session, exchange: &mut Exchange, status: StatusCode) {
    if std::mem::replace(&mut exchange.charged, true) {
        return;
    }
    let head = session.req_header();
    let path = head.raw_path().split(|byte| *byte == b'?').next().unwrap_or_default();
    let deed = Deed {
        offence: exchange.offence,
        status: status.as_u16(),
        path,
        seen: exchange.inspection.as_ref().and_then(Inspection::seen).or(exchange.seen).map(|hit| hit.family),
        tried: head.headers.contains_key(header::AUTHORIZATION) || head.method == Method::POST,
        php: path.ends_with(b".php") && is_php(exchange),
    };
    exchange.live.sentry.charge(exchange.client, &deed);
}

/// Whether the app behind the route is a program of PHP.
fn is_php(exchange: &Exchange) -> bool {
    let app = exchange.pool().and_then(|pool| pool.app()).and_then(|app| exchange.live.plan.apps.get(app));
    app.is_some_and(|app| app.command.iter().any(|word| word.contains("php")))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What we answered with an error, and what an app answered with 5xx, goes into the black box; what a route is told to answer is no failure.
fn remember(method: &str, path: &[u8], exchange: &Exchange, answerer: Option<&(InstanceId, Incarnation)>, status: u16, took: Duration) {
    let refused = exchange.refused.as_deref();
    let told = refused.is_none() && exchange.route().is_some_and(|route| matches!(route.action, LiveAction::Respond { .. }));
    let ours = exchange.author == Author::Us || refused.is_some();
    if told || status < if ours { 400 } else { 500 } || exchange.is_tunnel() {
        return;
    }
    let (server, upstream_took, tries) = exchange.upstream();
    let (blamed, connected) = exchange.blamed();
    let (fault, deadline, detail) = match (&exchange.trouble, refused) {
        _ if !ours => (Fault::Answered, None, None),
        (Some(trouble), _) => (trouble.fault, trouble.deadline, trouble.detail.as_deref()),
        (None, Some(_)) => (Fault::Refused, None, None),
        (None, None) => (Fault::Other, None, None),
    };
    exchange.live.blackbox.keep(&Failure {
        site: exchange.site().map(|site| &*site.name),
        route: exchange.route().map(|route| &*route.label),
        upstream: exchange.pool().map(|pool| pool.name()),
        app: exchange.pool().and_then(|pool| pool.app()),
        server,
        instance: if ours { blamed } else { answerer },
        tries,
        lost_by: exchange.lost_by(),
        refused,
        deadline_ms: deadline.map(millis),
        detail,
        queue_ms: millis(exchange.queued),
        connect_ms: connected.map(millis),
        upstream_ms: upstream_took.map_or(0, millis),
        total_ms: millis(took),
        ..Failure::new(exchange.id(), unix_ms(), method, path, status, fault)
    });
}

/// A process broke off with the request in its hands: the master is told, who knows whether it has ended.
pub fn lost(session: &Session, exchange: &Exchange) {
    if let Some(loss) = exchange.just_lost() {
        let head = session.req_header();
        exchange.live.witness.lost(loss, exchange.id(), head.method.as_str(), head.raw_path());
    }
}

/// What the failure of a try was, in more words than [`Cause`] has.
fn fault(error: &Error, cause: Cause) -> Fault {
    match (cause, error.etype()) {
        (Cause::Connect, ErrorType::ConnectRefused) => Fault::ConnectRefused,
        (Cause::Connect, ErrorType::ConnectTimedout) => Fault::ConnectTimeout,
        (Cause::Connect, _) => Fault::Connect,
        (Cause::Stale | Cause::Reset | Cause::NotTaken | Cause::Left, _) => Fault::Reset,
        (Cause::Timeout, ErrorType::WriteTimedout) => Fault::SendTimeout,
        (Cause::Timeout, _) => Fault::ReadTimeout,
        (Cause::Status(_) | Cause::Broken, _) => Fault::BadAnswer,
        (Cause::Unsendable, _) => Fault::Other,
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
        | Fault::Answered
        | Fault::Other => None,
    }
}

/// We have ended the wait for an answer: what the engine is told instead of the end that it saw.
pub fn cut_short(session: &Session, exchange: &mut Exchange, end: End) -> Box<Error> {
    let why = match end {
        End::Late => "the head of its answer was not whole in time",
        End::Hung => "silent, while others answered",
    };
    let mut error = Error::explain(ErrorType::ReadTimedout, why).into_up();
    match end {
        End::Late => trouble(exchange, &error, Cause::Timeout),
        End::Hung => {
            exchange.trouble = Some(Trouble { fault: Fault::ReadTimeout, deadline: None, detail: Some(why.to_owned()) });
        }
    }
    error.set_retry(exchange.cut_short(end, super::repeat(session)));
    error
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
