//! A lease: one request on one server.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    budget::Move,
    group::Group,
    server::{PeerAddr, Server, ServerId},
    waits::{End, Wait},
};
use crate::{
    ipc::message::{Duty, Incarnation, InstanceId},
    rules::{attempt::Cause, health::Strike},
    telemetry::InFlight,
    vocab::ServerAddr,
};

/// A server picked for one request; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    addr: Arc<PeerAddr>,
    on_trial: bool,
    _in_flight: InFlight,
    /// When the whole request was.
    sent: Option<Duration>,
    /// While it waits for the head of the answer.
    wait: Option<Wait>,
    server: Arc<Server>,
}

impl Lease {
    /// `None`: the server was closed, filled up or forgotten a moment ago.
    pub(super) fn of(server: &Arc<Server>) -> Option<Self> {
        let addr = server.address.found()?;
        server.vitals.open_lease(server.max_conns).then(|| Self {
            addr,
            // A rise of the verdict has made it known.
            on_trial: server.vitals.duty() == Duty::OnTrial,
            _in_flight: server.metrics.begin(),
            sent: None,
            wait: None,
            server: server.clone(),
        })
    }

    #[must_use]
    pub fn id(&self) -> ServerId {
        self.server.id()
    }

    #[must_use]
    pub fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// As in metrics and logs.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.server.label
    }

    /// Which start of which instance it is, of an app.
    #[must_use]
    pub fn instance(&self) -> Option<&(InstanceId, Incarnation)> {
        self.server.instance.as_ref()
    }

    /// Cancelled when tunnels on the server should come to an end.
    #[must_use]
    pub fn leave(&self) -> CancellationToken {
        self.server.vitals.leave()
    }

    /// Whether it is of a release that is not proven yet.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.on_trial
    }

    /// Kept connections may be shared by leases of the same group only: same upstream, server, spec, resolved address and, for an app, the same incarnation.
    #[must_use]
    pub fn group(&self) -> Group {
        match *self.addr {
            PeerAddr::Tcp(addr) if matches!(self.server.address.asked(), ServerAddr::Name { .. }) => self.server.group.at(addr),
            PeerAddr::Tcp(_) | PeerAddr::Unix(_) => self.server.group,
        }
    }

    /// Whether the server drains: a tunnel on it should come to an end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.server.vitals.closed()
    }

    /// Whether the server has all of the request.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// The whole request was sent, on this descriptor: the head of its answer is to come within `read`. `moves`: a sibling may have it if the server hangs.
    ///
    /// Shape: where there is no descriptor, the engine keeps the deadline itself and the request stays.
    pub fn sent(&mut self, now: Duration, fd: Option<i32>, read: Duration, moves: Option<Move>) {
        // As coarse as what it is compared with: the first request is no later than the debt that it makes.
        let now = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        self.server.vitals.silence.asked(now);
        self.sent = Some(now);
        self.wait = fd.map(|fd| Wait::begin(self.server.clone(), fd, now, read, moves));
    }

    /// A byte came from the server.
    pub fn heard(&self) {
        self.server.vitals.silence.heard();
    }

    /// The wait for the head of its answer is over; `Some`: by us.
    pub fn waited(&mut self) -> Option<End> {
        self.wait.take().and_then(Wait::end)
    }

    /// The head of its answer came.
    pub fn answers(&self, now: Duration) {
        match self.sent {
            Some(sent) => self.server.vitals.silence.answered(sent, now),
            // Before it had the whole request.
            None => self.heard(),
        }
    }

    /// The request got no answer from it, or not a whole one. Gives until when the server should be out, if this was one failure too many. To be called once, before
    /// another lease is asked for.
    pub fn failed(&self, now: Duration, cause: Cause, asked: Asked) -> Option<Duration> {
        let strike = match cause {
            Cause::Stale | Cause::NotTaken | Cause::Left | Cause::Unsendable => return None,
            Cause::Connect => Some(Strike::Unreachable),
            Cause::Reset | Cause::Broken | Cause::Timeout | Cause::Status(_) => asked.strike(),
        };
        self.server.vitals.lost_one();
        self.server.metrics.done(cause.status());
        self.server.strike(now, strike?)
    }

    /// Whether the server has answered requests, and not only with failures.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.server.vitals.is_useful()
    }

    /// The request goes to a sibling, as the server hangs. No strike: it is out of the rotation until it says something. To be called once, instead of [`Lease::failed`].
    pub fn hung(&self) {
        self.server.vitals.lost_one();
        self.server.metrics.done(504);
    }

    /// The server answered; `took` runs from the pick to the end of the answer. Gives as [`Lease::failed`], instead of which it is to be called once.
    pub fn answered(&self, now: Duration, status: u16, took: Duration, asked: Asked) -> Option<Duration> {
        self.server.vitals.answered_one(status);
        self.server.metrics.done(status);
        self.server.shared.metrics.answered(took);
        if self.server.shared.failures.contains(&status) {
            return self.server.strike(now, asked.strike()?);
        }
        self.server.forgive();
        None
    }
}

/// What was asked of a server, by whom, and whether its answer tells when to come again: then the app means it, and is well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub page: u32,
    pub client: u32,
    pub meant: bool,
}

impl Asked {
    fn strike(self) -> Option<Strike> {
        let Self { page, client, meant } = self;
        (!meant).then_some(Strike::Page { page, client })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.vitals.give_back();
    }
}
