//! The endpoints: which request gets which answer.
//!
//! Shape: looks only, so GET and HEAD only; nothing is answered to a page that a browser was lured to (Host is checked where no token guards), nothing may be
//! framed, cached or run from elsewhere. The order is host, method, token, path: who has no token does not learn which paths there are.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    door::{Door, Entry},
    health::{self, Facts},
    page,
    view::{self, Component, Detailed, Health, HealthMetrics, Recent, Status, Traffic, Verdict},
};
use crate::{
    telemetry::{Totals, node::NodeSample},
    vocab::{Secret, lock},
};

/// What the edge tells about itself. Every answer is made of these, at the moment it is asked for.
pub trait Source: Send + Sync {
    fn process(&self) -> view::Process;
    /// The admin one too.
    fn listeners(&self) -> Vec<view::Listener>;
    fn sites(&self) -> Vec<view::Site>;
    /// [`view::apps`] of the master's table.
    fn apps(&self) -> Vec<view::App>;
    /// Those of apps too.
    fn upstreams(&self) -> Vec<view::Upstream>;
    fn zones(&self) -> Vec<view::Zone>;
    fn certificates(&self) -> Vec<view::Certificate>;
    /// How many clients are banned.
    fn bans(&self) -> u64;
    fn totals(&self) -> Totals;
    /// Over the last minute; `None`: it is too young for that.
    fn recent(&self) -> Option<Recent>;
    fn node(&self) -> NodeSample;
    /// Prometheus text, with `ZoneMetrics::set` and the like brought up to date before.
    fn metrics(&self) -> String;
}

/// Everything that is known, judged: `/api/status`, and what `gateway status --json` prints.
#[must_use]
pub fn status(source: &dyn Source) -> Status {
    Known::gather(source).status()
}

/// One look at the source.
struct Known {
    now: Timestamp,
    status: Status,
    components: std::collections::BTreeMap<String, Component>,
}

impl Known {
    fn gather(source: &dyn Source) -> Self {
        let now = Timestamp::now();
        let process = source.process();
        let mut status = Status {
            status: Verdict::Healthy,
            message: String::new(),
            faults: Vec::new(),
            timestamp: second(now),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime(&process.started, now),
            process,
            traffic: Traffic::new(source.totals(), source.recent()),
            listeners: source.listeners(),
            sites: source.sites(),
            apps: source.apps(),
            upstreams: source.upstreams(),
            zones: source.zones(),
            banned: source.bans(),
            certificates: source.certificates(),
            system: source.node().into(),
        };
        let health::Judgement { verdict, message, faults, components } = health::judge(&Facts {
            now,
            listeners: &status.listeners,
            sites: &status.sites,
            apps: &status.apps,
            upstreams: &status.upstreams,
            certificates: &status.certificates,
            disks: &status.system.disk,
        });
        (status.status, status.message, status.faults) = (verdict, message, faults);
        Self { now, status, components }
    }

    fn status(self) -> Status {
        self.status
    }

    fn health(&self) -> Health {
        Health { status: self.status.status, message: self.status.message.clone(), timestamp: second(self.now) }
    }
}

/// RFC 3339 to the second, as the seeds' endpoints give it.
fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

fn uptime(started: &str, now: Timestamp) -> u64 {
    let started = started.parse::<Timestamp>().unwrap_or(now);
    u64::try_from(now.as_second().saturating_sub(started.as_second())).unwrap_or(0)
}

/// Rates over the last minute, from sums that are noted every few seconds.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<(Instant, u64, u64)>>);

impl Rates {
    const SPAN: Duration = Duration::from_secs(60);

    /// To be called every few seconds.
    pub fn note(&self, now: Instant, totals: &Totals) {
        let mut notes = lock(&self.0);
        // One beyond the span stays: the start of the minute.
        while notes.get(1).is_some_and(|(at, ..)| now.duration_since(*at) >= Self::SPAN) {
            notes.pop_front();
        }
        notes.push_back((now, totals.requests, totals.errors));
    }

    #[must_use]
    pub fn read(&self, now: Instant, totals: &Totals) -> Option<Recent> {
        let (at, requests, errors) = *lock(&self.0).front()?;
        let seconds = now.checked_duration_since(at)?.as_secs_f64();
        if seconds < 1.0 {
            return None;
        }
        let (requests, errors) = (totals.requests.saturating_sub(requests), totals.errors.saturating_sub(errors));
        let error_rate = if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
        Some(Recent { requests_per_second: requests as f64 / seconds, error_rate })
    }
}

/// The endpoints on one listener.
pub struct Api {
    source: Arc<dyn Source>,
    listen: SocketAddr,
    door: Option<Door>,
}

impl Api {
    /// `listen` is where the listener is bound; `token` is there unless that is loopback.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, listen: SocketAddr, token: Option<Secret<String>>) -> Self {
        Self { source, listen, door: token.map(Door::new) }
    }

    #[must_use]
    pub fn answer(&self, request: &request::Parts, client: IpAddr) -> Response<Bytes> {
        let mut answer = self.refuse(request, client).unwrap_or_else(|| self.route(request.uri.path()));
        let headers = answer.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        answer
    }

    fn refuse(&self, request: &request::Parts, client: IpAddr) -> Option<Response<Bytes>> {
        if self.door.is_none() && !self.knows_host(request) {
            return Some(error(
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the host you asked for: use localhost or the address in [admin] listen",
            ));
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(answer);
        }
        match self.door.as_ref()?.admit(request.headers.get(header::AUTHORIZATION), client, Instant::now()) {
            Entry::Open => None,
            Entry::Wrong => {
                let mut answer = error(StatusCode::UNAUTHORIZED, "the token of [admin] is needed: Authorization: Bearer TOKEN");
                // A browser asks for a password then: the token.
                answer
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"gateway\", charset=\"UTF-8\""));
                Some(answer)
            }
            Entry::Wait(wait) => {
                let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens came from your address: wait");
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
                Some(answer)
            }
        }
    }

    /// A page on the web can make a browser send requests here by a name of its own that points to 127.0.0.1, but not under one of our names.
    fn knows_host(&self, request: &request::Parts) -> bool {
        let host = match (request.uri.authority(), request.headers.get(header::HOST)) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => match host.to_str() {
                Ok(host) => host,
                Err(_) => return false,
            },
            // HTTP/1.0: no browser.
            (None, None) => return request.version < http::Version::HTTP_11,
        };
        let Ok(host) = host.parse::<http::uri::Authority>() else { return false };
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.listen.ip(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    fn known(&self) -> Known {
        Known::gather(&*self.source)
    }

    fn route(&self, path: &str) -> Response<Bytes> {
        match path {
            "/" => text(StatusCode::OK, "text/html; charset=utf-8", page::render(&self.known().status())),
            "/page.css" => text(StatusCode::OK, "text/css; charset=utf-8", page::CSS),
            "/page.js" => text(StatusCode::OK, "text/javascript; charset=utf-8", page::JS),
            "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.source.metrics()),
            "/api/status" => json(StatusCode::OK, &self.known().status()),
            "/health" | "/health/ready" => {
                let health = self.known().health();
                json(code(health.status), &health)
            }
            "/health/live" => {
                let health =
                    Health { status: Verdict::Healthy, message: "the process answers".to_owned(), timestamp: second(Timestamp::now()) };
                json(StatusCode::OK, &health)
            }
            "/health/detailed" => {
                let known = self.known();
                let health = known.health();
                let Known { status, components, .. } = known;
                let detailed = Detailed {
                    health,
                    version: status.version,
                    uptime_seconds: status.uptime_seconds,
                    components,
                    requests: status.traffic.requests(),
                    system: status.system,
                };
                json(code(detailed.health.status), &detailed)
            }
            "/health/metrics" => {
                let Status { timestamp, uptime_seconds, system, traffic, .. } = self.known().status();
                json(StatusCode::OK, &HealthMetrics { timestamp, uptime_seconds, system, requests: traffic.requests() })
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "no such endpoint; there are / /metrics /api/status /health /health/live /health/ready /health/detailed /health/metrics",
            ),
        }
    }
}

fn code(verdict: Verdict) -> StatusCode {
    match verdict {
        Verdict::Healthy | Verdict::Degraded => StatusCode::OK,
        Verdict::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_vec_pretty(body) {
        Ok(mut body) => {
            body.push(b'\n');
            text(status, "application/json", body)
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "could not write the answer\n"),
    }
}

fn error(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "error": message }))
}

#[cfg(test)]
pub(super) mod tests;
