//! What the request path holds of the metrics: one handle a site, server, zone, filter, listener.
//!
//! Shape: a handle is found by its labels when a `Live` is built and only adds to atomics afterwards. Its series live as long as someone holds it:
//! what a reload removes goes away with the last request on it, what a reload keeps counts on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::cell::{Codes, Count, Level, Spread};

use crate::vocab::lock;

/// What the sites answered, of those that are gone too.
#[derive(Debug, Default)]
pub(super) struct Retired {
    pub(super) requests: AtomicU64,
    pub(super) client_errors: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// Requests of one site.
#[derive(Debug)]
pub struct SiteMetrics {
    pub(super) retired: Arc<Retired>,
    pub(super) codes: Codes,
    pub(super) took: Spread,
    pub(super) received: Count,
    pub(super) sent: Count,
    pub(super) in_flight: Level,
}

impl SiteMetrics {
    pub(super) fn new(retired: Arc<Retired>) -> Self {
        Self {
            retired,
            codes: Codes::default(),
            took: Spread::default(),
            received: Count::default(),
            sent: Count::default(),
            in_flight: Level::default(),
        }
    }

    /// A request has begun; it is in flight until the guard goes.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.add(1);
        InFlight(Gauge::Site(self.clone()))
    }

    /// A request was answered.
    ///
    /// Units: `received` and `sent` are bytes of bodies; `took` runs from the end of the request's headers to the last byte of the answer.
    pub fn done(&self, status: u16, took: Duration, received: u64, sent: u64) {
        self.codes.add(status);
        self.took.add(took);
        if received > 0 {
            self.received.add(received);
        }
        self.sent.add(sent);
    }

    /// Requests, those with 4xx, those with 5xx and beyond.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        self.codes.read().into_iter().fold((0, 0, 0), |(all, client, server), (code, n)| match code {
            Some(400..500) => (all + n, client + n, server),
            Some(500..) | None => (all + n, client, server + n),
            Some(_) => (all + n, client, server),
        })
    }
}

impl Drop for SiteMetrics {
    fn drop(&mut self) {
        let (all, client, server) = self.totals();
        self.retired.requests.fetch_add(all, Relaxed);
        self.retired.client_errors.fetch_add(client, Relaxed);
        self.retired.errors.fetch_add(server, Relaxed);
        self.retired.received.fetch_add(self.received.read(), Relaxed);
        self.retired.sent.fetch_add(self.sent.read(), Relaxed);
    }
}

#[derive(Debug)]
enum Gauge {
    Site(Arc<SiteMetrics>),
    Server(Arc<ServerMetrics>),
}

/// One that is under way; gives back when dropped.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        match &self.0 {
            Gauge::Site(site) => site.in_flight.add(-1),
            Gauge::Server(server) => server.in_flight.add(-1),
        }
    }
}

/// One server of an upstream.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    pub(super) codes: Codes,
    pub(super) in_flight: Level,
    pub(super) up: AtomicBool,
    pub(super) suspected: Count,
}

impl ServerMetrics {
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.add(1);
        InFlight(Gauge::Server(self.clone()))
    }

    /// The server answered, or failed to: 502 where it could not be reached, 504 where it was too slow.
    pub fn done(&self, status: u16) {
        self.codes.add(status);
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// It was silent while a sibling answered.
    pub fn suspected(&self) {
        self.suspected.add(1);
    }

    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.read()
    }
}

/// One upstream over all its servers.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    pub(super) took: Spread,
    pub(super) retries: Count,
    pub(super) panic: AtomicBool,
}

impl UpstreamMetrics {
    /// From the pick of a server to the end of its answer.
    pub fn answered(&self, took: Duration) {
        self.took.add(took);
    }

    pub fn retried(&self) {
        self.retries.add(1);
    }

    /// Whether requests go to servers that are down because none is up (D3).
    pub fn set_panic(&self, panic: bool) {
        self.panic.store(panic, Relaxed);
    }
}

/// The waiting room of one app.
#[derive(Debug, Default)]
pub struct HoldMetrics {
    pub(super) held: Level,
    pub(super) took: Spread,
}

impl HoldMetrics {
    pub fn entered(&self) {
        self.held.add(1);
    }

    /// It went on, gave up or left, after so long.
    pub fn left(&self, after: Duration) {
        self.held.add(-1);
        self.took.add(after);
    }
}

/// One zone.
#[derive(Debug, Default)]
pub struct ZoneMetrics {
    passed: Count,
    delayed: Count,
    rejected: Count,
    would_reject: Count,
    pub(super) keys: AtomicU64,
    pub(super) waiting: AtomicU64,
}

/// Requests that a zone judged; each is one of these.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ZoneCounts {
    /// At once.
    pub passed: u64,
    /// After a wait.
    pub delayed: u64,
    pub rejected: u64,
    /// A refusal that `observe` let pass.
    pub would_reject: u64,
}

impl ZoneMetrics {
    pub fn passed(&self) {
        self.passed.add(1);
    }

    /// It waits for its turn.
    pub fn delayed(&self) {
        self.delayed.add(1);
    }

    pub fn rejected(&self) {
        self.rejected.add(1);
    }

    pub fn would_reject(&self) {
        self.would_reject.add(1);
    }

    /// Cells in use, and requests that wait. Whoever asks for the metrics sets it just before.
    pub fn set(&self, keys: usize, waiting: u32) {
        self.keys.store(keys as u64, Relaxed);
        self.waiting.store(waiting.into(), Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> ZoneCounts {
        ZoneCounts {
            passed: self.passed.read(),
            delayed: self.delayed.read(),
            rejected: self.rejected.read(),
            would_reject: self.would_reject.read(),
        }
    }
}

/// One filter, or one family of `bad-uri`, on one site.
#[derive(Debug, Default)]
pub struct FilterMetrics {
    pub(super) rejected: Count,
    pub(super) would_reject: Count,
}

impl FilterMetrics {
    pub fn rejected(&self) {
        self.rejected.add(1);
    }

    /// A hit that `observe` let pass.
    pub fn would_reject(&self) {
        self.would_reject.add(1);
    }
}

/// Header fields of requests.
#[derive(Debug, Default)]
pub struct FieldMetrics {
    pub(super) dropped: Count,
}

impl FieldMetrics {
    /// So many were not passed on because of an underscore in their names.
    pub fn dropped(&self, fields: usize) {
        if fields > 0 {
            self.dropped.add(fields as u64);
        }
    }
}

/// Bodies of requests that are held back.
#[derive(Debug, Default)]
pub struct BufferMetrics {
    pub(super) held: AtomicU64,
    pub(super) full: Count,
    pub(super) slow: Count,
    pub(super) dripped: Count,
}

impl BufferMetrics {
    /// All together, now.
    pub fn holds(&self, bytes: u64) {
        self.held.store(bytes, Relaxed);
    }

    /// There was no room for one.
    pub fn full(&self) {
        self.full.add(1);
    }

    /// The slowest went, for others.
    pub fn slow(&self) {
        self.slow.add(1);
    }

    /// One was below the floor of pace.
    pub fn dripped(&self) {
        self.dripped.add(1);
    }
}

/// Bans.
#[derive(Debug, Default)]
pub struct BanMetrics {
    pub(super) held: AtomicU64,
    /// A ban is rare: a map under a lock will do.
    pub(super) made: Mutex<BTreeMap<String, u64>>,
    pub(super) rejected: Count,
    pub(super) would_reject: Count,
}

impl BanMetrics {
    /// `reason` is a word of the configuration, or "manual".
    pub fn banned(&self, reason: &str) {
        let mut made = lock(&self.made);
        match made.get_mut(reason) {
            Some(count) => *count += 1,
            None => drop(made.insert(reason.to_owned(), 1)),
        }
    }

    /// What somebody can be banned for: its counter stands from now on.
    pub fn expect(&self, reason: String) {
        lock(&self.made).entry(reason).or_default();
    }

    /// How many are in force. Whoever asks for the metrics sets it just before.
    pub fn set_held(&self, held: u64) {
        self.held.store(held, Relaxed);
    }

    /// A request of somebody who is banned was refused.
    pub fn rejected(&self) {
        self.rejected.add(1);
    }

    /// It was let pass by `observe`.
    pub fn would_reject(&self) {
        self.would_reject.add(1);
    }
}

/// Why a connection was closed before a byte of it was read as a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `[listen] max_connections`
    Full,
    /// `[listen] max_connections_per_ip`
    PerIp,
    /// No or a bad PROXY header.
    ProxyHeader,
    /// The kernel gave an error instead of a connection.
    Accept,
    /// The peer is banned.
    Banned,
}

impl Refusal {
    pub(super) const ALL: [Self; 5] = [Self::Full, Self::PerIp, Self::ProxyHeader, Self::Accept, Self::Banned];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PerIp => "per_ip",
            Self::ProxyHeader => "proxy_header",
            Self::Accept => "accept",
            Self::Banned => "banned",
        }
    }
}

/// One listener.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    pub(super) open: Level,
    pub(super) total: Count,
    pub(super) refused: [Count; Refusal::ALL.len()],
}

impl ListenerMetrics {
    /// A connection was accepted; it is open until the guard goes.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> ConnectionGuard {
        self.open.add(1);
        self.total.add(1);
        ConnectionGuard(self.clone())
    }

    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].add(1);
    }
}

/// An open connection; gives back when dropped.
#[derive(Debug)]
pub struct ConnectionGuard(Arc<ListenerMetrics>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.open.add(-1);
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    Done,
    /// Versions, ciphers, certificates: the two could not agree.
    Failed,
    /// Not complete within `[timeouts] header`.
    Timeout,
    /// The client went away.
    Closed,
}

impl Handshake {
    pub(super) const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Timeout, Self::Closed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// How an order of a certificate ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ordered {
    Ok,
    Failed,
    /// At a CA's staging directory, and it passed.
    Rehearsed,
}

impl Ordered {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Rehearsed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Rehearsed => "rehearsed",
        }
    }
}

/// Orders of certificates.
#[derive(Debug, Default)]
pub struct AcmeMetrics {
    pub(super) results: [Count; Ordered::ALL.len()],
}

impl AcmeMetrics {
    pub fn ordered(&self, result: Ordered) {
        self.results[result as usize].add(1);
    }
}

/// TLS of all listeners.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    pub(super) results: [Count; Handshake::ALL.len()],
    pub(super) took: Spread,
}

impl TlsMetrics {
    /// A handshake ended; the time counts only where it was completed.
    pub fn done(&self, result: Handshake, took: Duration) {
        self.results[result as usize].add(1);
        match result {
            Handshake::Done => self.took.add(took),
            Handshake::Failed | Handshake::Timeout | Handshake::Closed => {}
        }
    }
}
