//! One server of a pool: its state in atomics.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    group::{Group, Manner},
    silence::Silence,
};
use crate::{
    ipc::message::{Duty, Incarnation, InstanceId},
    rules::{
        attempt::Trust,
        balance::{Candidate, Role, Standing},
        health::{Ejection, Strike, Strikes, Verdict},
    },
    telemetry::{ServerMetrics, UpstreamMetrics},
    vocab::{ServerAddr, UpstreamName, lock::lock},
};

/// Where a connection goes: names are resolved already.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum PeerAddr {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Names one server for the life of this process; never used again for another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ServerId(u64);

impl ServerId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An address, and what its name resolves to at the moment.
#[derive(Debug)]
pub(super) struct Address {
    asked: ServerAddr,
    /// Swapped alone: nothing else must agree with it. `None`: a name that does not resolve.
    found: ArcSwapOption<PeerAddr>,
}

impl Address {
    pub(super) fn new(asked: ServerAddr) -> Arc<Self> {
        let found = match &asked {
            ServerAddr::Tcp(addr) => Some(PeerAddr::Tcp(*addr)),
            ServerAddr::Unix(path) => Some(PeerAddr::Unix(path.clone())),
            ServerAddr::Name { .. } => None,
        };
        Arc::new(Self { asked, found: ArcSwapOption::from_pointee(found) })
    }

    pub(super) fn asked(&self) -> &ServerAddr {
        &self.asked
    }

    pub(super) fn found(&self) -> Option<Arc<PeerAddr>> {
        self.found.load_full()
    }

    pub(super) fn resolved(&self, found: Option<PeerAddr>) {
        self.found.store(found.map(Arc::new));
    }
}

/// What is known of a server and carried over a reload.
#[derive(Debug)]
pub(super) struct Vitals {
    /// Of all that is known by these vitals: a reload, or another duty, makes another [`Server`] of the same one.
    id: ServerId,
    /// Leases out, and [`CLOSED`].
    leases: AtomicU32,
    verdict: AtomicU8,
    /// Of an instance: which requests it gets. Written before the verdict that lets them come, so that who finds it up knows it.
    duty: AtomicU8,
    /// Requests answered, for probes that timed out.
    answered: AtomicU64,
    /// Requests that got no answer.
    unanswered: AtomicU64,
    /// Requests answered with 5xx, or not at all.
    failures: AtomicU64,
    /// Requests when they were last told.
    told: AtomicU64,
    /// Milliseconds since the epoch; 0: not ejected.
    ejected_until: AtomicU64,
    pub(super) silence: Silence,
    /// There are strikes: spares the mutex on every answer.
    struck: AtomicBool,
    strikes: Mutex<Strikes>,
    /// The last probe that failed, in words.
    complaint: Mutex<Option<String>>,
    /// Rung when the last lease on a closed server is given back.
    idle: Notify,
    /// Cancelled when tunnels on it should come to an end.
    leave: CancellationToken,
}

/// Final: an instance that drains is never opened again, its next incarnation is another server.
const CLOSED: u32 = 1 << 31;

impl Vitals {
    pub(super) fn new(verdict: Verdict) -> Arc<Self> {
        Arc::new(Self {
            id: ServerId::next(),
            leases: AtomicU32::new(0),
            verdict: AtomicU8::new(verdict as u8),
            duty: AtomicU8::new(Duty::Serves as u8),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            told: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            silence: Silence::default(),
            struck: AtomicBool::new(false),
            strikes: Mutex::default(),
            complaint: Mutex::default(),
            idle: Notify::new(),
            leave: CancellationToken::new(),
        })
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            0 => Verdict::New,
            1 => Verdict::Up,
            2 => Verdict::Slow,
            _ => Verdict::Down,
        }
    }

    pub(super) fn set_verdict(&self, verdict: Verdict, complaint: Option<String>) {
        self.complain(complaint);
        self.verdict.store(verdict as u8, Ordering::Release);
    }

    pub(super) fn duty(&self) -> Duty {
        match self.duty.load(Ordering::Relaxed) {
            0 => Duty::Serves,
            1 => Duty::OnTrial,
            _ => Duty::StandsBy,
        }
    }

    pub(super) fn set_duty(&self, duty: Duty) {
        self.duty.store(duty as u8, Ordering::Relaxed);
    }

    pub(super) fn complain(&self, complaint: Option<String>) {
        *lock(&self.complaint) = complaint;
    }

    pub(super) fn complaint(&self) -> Option<String> {
        lock(&self.complaint).clone()
    }

    pub(super) fn in_flight(&self) -> u32 {
        // Acquire: whoever sees a lease given back sees what was done under it.
        self.leases.load(Ordering::Acquire) & !CLOSED
    }

    /// A request got no answer from it.
    pub(super) fn lost_one(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered_one(&self, status: u16) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if status >= 500 {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// See [`super::lease::Lease::leave`].
    pub(super) fn leave(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// It has answered something well.
    pub(super) fn is_useful(&self) -> bool {
        self.answered() + self.unanswered.load(Ordering::Relaxed) > self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Requests and failures so far, where there are more than when this was last called.
    pub(super) fn tally(&self) -> Option<(u64, u64)> {
        let requests = self.answered() + self.unanswered.load(Ordering::Relaxed);
        (self.told.swap(requests, Ordering::Relaxed) != requests).then(|| (requests, self.failures.load(Ordering::Relaxed)))
    }

    pub(super) fn closed(&self) -> bool {
        self.leases.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// No new lease from here on, not even for a pick that is under way.
    pub(super) fn close(&self) {
        self.leases.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Tunnels on it are told to end.
    pub(super) fn hurry(&self) {
        self.leave.cancel();
    }

    /// Waits until a closed server has no lease out.
    ///
    /// Cancel-safety: safe.
    pub(super) async fn emptied(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn ejected(&self, now: Duration) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > millis(now)
    }

    pub(super) fn open_lease(&self, max: Option<NonZeroU32>) -> bool {
        let max = max.map_or(CLOSED - 1, NonZeroU32::get);
        self.leases.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |leases| (leases < max).then_some(leases + 1)).is_ok()
    }

    pub(super) fn give_back(&self) {
        if self.leases.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.idle.notify_waiters();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What all servers of a pool share with it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: UpstreamName,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) ejection: Ejection,
    /// Statuses that count as failures of the server: those of `retry.on`.
    pub(super) failures: Vec<u16>,
}

/// One server, as its pool sees it.
#[derive(Debug)]
pub struct Server {
    pub(super) label: String,
    pub(super) address: Arc<Address>,
    pub(super) weight: u16,
    pub(super) role: Role,
    pub(super) max_conns: Option<NonZeroU32>,
    /// Everything but the address that two kept connections must agree in.
    pub(super) group: Group,
    /// Which start of which instance it is, of an app.
    pub(super) instance: Option<(InstanceId, Incarnation)>,
    pub(super) duty: Duty,
    pub(super) vitals: Arc<Vitals>,
    pub(super) metrics: Arc<ServerMetrics>,
    pub(super) shared: Arc<Shared>,
}

/// What a [`Server`] is made of.
pub(super) struct Parts {
    pub(super) label: String,
    pub(super) address: Arc<Address>,
    pub(super) weight: u16,
    pub(super) role: Role,
    pub(super) max_conns: Option<NonZeroU32>,
    pub(super) manner: Manner,
    pub(super) instance: Option<(InstanceId, Incarnation)>,
    pub(super) duty: Duty,
    pub(super) vitals: Arc<Vitals>,
    pub(super) metrics: Arc<ServerMetrics>,
    pub(super) shared: Arc<Shared>,
}

impl Server {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { label, address, weight, role, max_conns, manner, instance, duty, vitals, metrics, shared } = parts;
        let group = Group::of(shared.name.as_str(), &label, manner, &instance);
        Arc::new(Self { label, address, weight, role, max_conns, group, instance, duty, vitals, metrics, shared })
    }

    #[must_use]
    pub fn id(&self) -> ServerId {
        self.vitals.id
    }

    /// As in metrics and logs: the address as configured, or `APP.N`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.vitals.in_flight()
    }

    pub(super) fn standing(&self, now: Duration) -> Standing {
        if self.vitals.closed() || self.address.found.load().is_none() {
            return Standing::Out;
        }
        match self.vitals.verdict() {
            Verdict::New | Verdict::Down => Standing::Out,
            Verdict::Up | Verdict::Slow if self.vitals.silence.is_suspect() => Standing::Suspect,
            Verdict::Up if self.vitals.ejected(now) => Standing::Doubtful,
            Verdict::Up => Standing::Well,
            Verdict::Slow => Standing::Doubtful,
        }
    }

    pub(super) fn candidate(&self, now: Duration, tried: &[ServerId], trust: Trust) -> Candidate {
        let standing = self.standing(now);
        Candidate {
            weight: self.weight,
            in_flight: self.vitals.in_flight(),
            max_conns: self.max_conns,
            role: self.role,
            standing,
            tried: tried.contains(&self.vitals.id) || (trust == Trust::Proven && self.vitals.duty() == Duty::OnTrial),
        }
    }

    pub(super) fn state(&self, now: Duration) -> &'static str {
        match self.vitals.verdict() {
            _ if self.vitals.closed() => "draining",
            _ if self.address.found.load().is_none() => "unresolved",
            Verdict::Up | Verdict::Slow if self.vitals.silence.is_suspect() => "suspect",
            Verdict::Up if self.vitals.ejected(now) => "ejected",
            Verdict::Up => "up",
            Verdict::Slow => "slow",
            Verdict::New | Verdict::Down => "down",
        }
    }

    /// Why it is not up, or not as good as it seems.
    pub(super) fn reason(&self, now: Duration) -> Option<String> {
        let silent = self.vitals.silence.owes_since().filter(|_| self.vitals.silence.is_suspect());
        match silent {
            Some(since) => Some(format!("no byte from it for {} s, while others answer", now.saturating_sub(since).as_secs())),
            None => self.vitals.complaint(),
        }
    }

    /// Gives until when it should be out, if this was one failure too many.
    pub(super) fn strike(&self, now: Duration, strike: Strike) -> Option<Duration> {
        let mut strikes = lock(&self.vitals.strikes);
        let (next, until) = strikes.strike(self.shared.ejection, strike, now);
        *strikes = next;
        self.vitals.struck.store(true, Ordering::Relaxed);
        until
    }

    pub(super) fn eject(&self, now: Duration, until: Duration) {
        let before = self.vitals.ejected_until.swap(millis(until), Ordering::Relaxed);
        if before <= millis(now) {
            let seconds = until.saturating_sub(now).as_secs();
            tracing::warn!(upstream = %self.shared.name, server = %self.label, seconds, "server ejected: too many requests failed on it");
        }
    }

    pub(super) fn forgive(&self) {
        if self.vitals.struck.load(Ordering::Relaxed) {
            self.vitals.struck.store(false, Ordering::Relaxed);
            *lock(&self.vitals.strikes) = Strikes::default();
        }
    }
}
