//! Intake: what becomes of a request, before anything is sent anywhere. The one place where the order of the gates is driven.
//!
//! Knows nothing of pingora (D7).

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::{
    conn::Client,
    exchange::Exchange,
    forward,
    gate::{self, Ask, Verdict},
    live::{Live, LiveAction},
    refused,
    reply::Reply,
};
use crate::{
    acme::challenge::PATH,
    plan::Hit,
    rules::{clientip, header as rule, route::Found},
};

/// What the engine does with the request.
#[derive(Debug)]
pub enum Step {
    /// To the upstream that the exchange has picked.
    Forward,
    Answer(Reply),
}

/// The request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// Path and query as received, byte for byte.
    pub target: &'a [u8],
    pub version: Version,
    pub headers: &'a HeaderMap,
}

/// Drives a request through the gates to its route, and keeps what a filter that observes has seen of it. Who may come in (`auth`) and what it gets ([`content`]) are asked after that.
pub fn judge(exchange: &mut Exchange, client: &Client, request: Request<'_>) -> Verdict {
    let seen = Cell::new(None);
    let verdict = drive(exchange, client, request, &seen);
    exchange.seen = seen.get();
    verdict
}

fn drive(exchange: &mut Exchange, client: &Client, request: Request<'_>, seen: &Cell<Option<Hit>>) -> Verdict {
    let Request { method, uri, target, version, headers } = request;
    let live = exchange.live.clone();
    exchange.peer = client.peer.ip().to_canonical();
    exchange.trusted = live.is_trusted(exchange.peer);
    exchange.client = if exchange.trusted {
        let hops = headers.get_all(forward::X_FORWARDED_FOR);
        clientip::client(exchange.peer, clientip::elements(hops.iter()), &live.plan.trusted_proxies)
    } else {
        exchange.peer
    };
    exchange.tls = client.tls;
    exchange.upgrade = is_upgrade(method, version, headers);
    exchange.request_id = forward::request_id(headers, exchange.trusted);
    let request_id = exchange.request_id.clone();
    let mut buf = rule::HostBuf::new();
    let ask = Ask {
        method,
        uri,
        target,
        version,
        headers,
        host: host(uri, headers, &mut buf),
        peer: exchange.peer,
        client: exchange.client,
        tls: exchange.tls,
        secure: exchange.tls || exchange.trusted && clientip::came_by_tls(headers.get_all(forward::X_FORWARDED_PROTO).iter()),
        sni: client.sni.as_deref(),
        proven: client.certificate.as_ref().map(|certificate| certificate.ca),
        upgrade: exchange.upgrade,
        request_id: request_id.to_str().unwrap_or(""),
        seen,
    };
    if let Verdict::Answer(reply) = gate::sanity(&ask, &live.plan.limits) {
        return Verdict::Answer(reply);
    }
    if let Some(proof) = challenge(&live, &ask) {
        return Verdict::Answer(proof);
    }
    if let Verdict::Answer(reply) = gate::ban::admit(&ask, &live.sentry) {
        return Verdict::Answer(reply);
    }
    let found = live.router.site(ask.host);
    if let Some(found) = found {
        let site = &live.sites[found.index()].gate;
        let opened_for = match ask.sni {
            Some(sni) if sni == ask.host => Some(site),
            sni => live.named(sni).map(|index| &live.sites[index].gate),
        };
        if let Verdict::Answer(reply) = gate::misdirected(&ask, site, opened_for) {
            return Verdict::Answer(reply);
        }
        exchange.certificate = client.certificate.clone().filter(|_| site.knows_clients());
    }
    let index = match found {
        Some(Found::Serve(index)) => index,
        Some(Found::Canonical(index)) => {
            exchange.enter(index);
            let site = &live.sites[index];
            return Verdict::Answer(match &site.canonical {
                Some(canonical) => gate::canonical(&ask, &site.gate, canonical),
                None => ask.page(StatusCode::NOT_FOUND).by(refused::NO_SITE),
            });
        }
        None => return Verdict::Answer(ask.page(StatusCode::NOT_FOUND).by(refused::NO_SITE)),
    };
    exchange.enter(index);
    let site = &live.sites[index];
    let Some(at) = live.router.route(index, uri.path()) else {
        return Verdict::Answer(ask.page(StatusCode::NOT_FOUND).by(refused::NO_ROUTE));
    };
    exchange.follow(at);
    let route = &site.routes[at];
    if let Verdict::Answer(reply) = gate::admit(&ask, &site.gate, &route.gate, live.now(), &mut exchange.passage) {
        // It has spent; whoever is turned away waits for nothing.
        exchange.passage.begin();
        return Verdict::Answer(reply);
    }
    Verdict::Pass
}

/// What a request gets that has passed all gates.
pub fn content(exchange: &mut Exchange, uri: &Uri, headers: &HeaderMap) -> Step {
    let live = exchange.live.clone();
    let page = |exchange: &Exchange, status| Reply::page(status, headers.get(header::ACCEPT), exchange.id());
    let Some(route) = exchange.route_of(&live) else { return Step::Answer(page(exchange, StatusCode::NOT_FOUND).by(refused::NO_ROUTE)) };
    match &route.action {
        LiveAction::Proxy(_) => match exchange.wanted() {
            Ok(()) => Step::Forward,
            Err(wait) => Step::Answer(page(exchange, StatusCode::SERVICE_UNAVAILABLE).with_retry_after(wait)),
        },
        LiveAction::Redirect { to, status } => match HeaderValue::try_from(forward::fill(to, uri.path(), uri.query())) {
            Ok(to) => Step::Answer(Reply::redirect(*status, to)),
            Err(_) => Step::Answer(page(exchange, StatusCode::BAD_REQUEST).by(refused::of_head(StatusCode::BAD_REQUEST))),
        },
        LiveAction::Respond { status, content_type, body } => Step::Answer(Reply::text(*status, content_type.clone(), body.clone())),
        LiveAction::NotFound => Step::Answer(page(exchange, StatusCode::NOT_FOUND).by(refused::NO_ROUTE)),
    }
}

/// What a CA is to be answered that asks whether a name is ours. In the clear alone, as it asks; before any gate, or nobody could prove anything.
///
/// Source: RFC 8555 §8.3.
fn challenge(live: &Live, ask: &Ask<'_>) -> Option<Reply> {
    if ask.tls || *ask.method != Method::GET || !ask.uri.path().starts_with(PATH) {
        return None;
    }
    let proof = live.board.http(ask.uri.path())?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Some(Reply::text(StatusCode::OK, kind, Bytes::copy_from_slice(proof.as_bytes())))
}

/// Whether the request opens a WebSocket: only that may be silent for as long as it likes, so nothing else may call itself so.
///
/// Source: RFC 6455 §4.1 (GET, without a body), RFC 9110 §7.8.
pub fn is_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let names = |name: header::HeaderName, word: &[u8]| {
        let named =
            |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word));
        headers.get_all(name).iter().any(named)
    };
    *method == Method::GET
        && version == Version::HTTP_11
        && names(header::UPGRADE, b"websocket")
        && names(header::CONNECTION, b"upgrade")
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// The normal form of what the request calls its host; empty when that is nothing or no host.
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap, buf: &'a mut rule::HostBuf) -> &'a str {
    let named = match headers.get(header::HOST) {
        Some(host) => host.to_str().unwrap_or(""),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    };
    rule::host(named, buf).unwrap_or("")
}
