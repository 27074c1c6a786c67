//! Exchange: what one request carries from its first hook to its last.
//!
//! Shape: pinned to one `Live`. Tries go one after the other: [`Exchange::on`] holds the server that has the request, [`Exchange::next`] the one it goes to.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    conn::appetite::Portion,
    gate::{Inspection, Passage},
    live::{Live, LiveAction, LiveRoute, LiveSite},
    tls::mutual::ClientCertificate,
    upstream::{Cause, Lease, Pool, Room, ServerId},
    warden::Watched,
};
use crate::{
    ipc::{
        message::{Incarnation, InstanceId},
        why::Fault,
    },
    plan::{Family, Hold, ban::Offence},
    rules::balance::Refused,
    telemetry::{InFlight, SiteMetrics},
};

/// The status by which the access log knows a client that left before its answer; nginx's word.
pub const CLIENT_GONE: u16 = 499;

/// One request on one server.
#[derive(Debug)]
pub struct Try {
    pub lease: Lease,
    pub began: Instant,
    /// When the connection stood.
    pub connected: Option<Duration>,
    /// Its answer has begun with this status.
    pub status: Option<u16>,
}

/// What went wrong last, for the black box.
#[derive(Debug)]
pub struct Trouble {
    pub fault: Fault,
    /// That has passed.
    pub deadline: Option<Duration>,
    pub detail: Option<String>,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self { fault, deadline: None, detail: None }
    }
}

/// Tries of one request, those after a wait included; the engine would make few more.
const MOST_TRIES: u32 = 12;

/// No instance will be ready in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hopeless;

/// Who wrote the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Author {
    Upstream,
    Us,
}

/// Whether a kept connection to a server has failed this request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stale {
    Never,
    /// The server may be asked again, once no other is left.
    On(ServerId),
    Forgiven,
}

pub struct Exchange {
    pub live: Arc<Live>,
    pub began: Instant,
    pub peer: IpAddr,
    pub client: IpAddr,
    pub trusted: bool,
    pub tls: bool,
    pub upgrade: bool,
    /// Of sites that ask for one.
    pub certificate: Option<Arc<ClientCertificate>>,
    pub request_id: HeaderValue,
    /// Whom `auth` found them to be.
    pub user: Option<HeaderValue>,
    /// Of a body that is looked at.
    pub inspection: Option<Inspection>,
    /// The family of `bad-uri` that recognised the target or a header field.
    pub seen: Option<Family>,
    /// What the server of `auth` says of him, for the app. A name without a value: the app gets none of that name.
    pub vouched: Vec<(HeaderName, Option<HeaderValue>)>,
    /// On its HTTP/2 connection.
    pub portion: Option<Portion>,
    /// Bytes of the answer's body that were handed to the client's side.
    pub given: u64,
    site: Option<usize>,
    route: Option<usize>,
    in_flight: Option<InFlight>,
    next: Option<Lease>,
    on: Option<Try>,
    tried: Vec<ServerId>,
    tries: u32,
    /// A kept connection was at fault: from then on the request goes on new ones only, so that it is the last such fault.
    stale: Stale,
    /// A release on trial has failed it: from then on it goes to proven ones only.
    proven: bool,
    trial_failed: bool,
    /// It goes on when an instance of its app is ready.
    waits: bool,
    /// How long it has waited for that.
    pub queued: Duration,
    /// What the zones gave it.
    pub passage: Passage,
    server: Option<Box<str>>,
    upstream_took: Duration,
    /// Why the last server did not answer.
    pub failed: Option<Cause>,
    pub trouble: Option<Trouble>,
    /// Where the last try failed.
    failed_on: Option<(InstanceId, Incarnation)>,
    connected: Option<Duration>,
    /// What a gate refused it for.
    pub offence: Option<Offence>,
    /// What it is answered has been counted.
    pub charged: bool,
    /// Of an upgrade: ends when the client is banned.
    pub watched: Option<Watched>,
    /// What went to the client.
    pub status: Option<u16>,
    pub author: Author,
}

impl Exchange {
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        let nowhere = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self {
            live,
            began: Instant::now(),
            peer: nowhere,
            client: nowhere,
            trusted: false,
            tls: false,
            upgrade: false,
            certificate: None,
            request_id: HeaderValue::from_static(""),
            user: None,
            inspection: None,
            seen: None,
            vouched: Vec::new(),
            portion: None,
            given: 0,
            site: None,
            route: None,
            in_flight: None,
            next: None,
            on: None,
            tried: Vec::new(),
            tries: 0,
            stale: Stale::Never,
            proven: false,
            trial_failed: false,
            waits: false,
            queued: Duration::ZERO,
            passage: Passage::default(),
            server: None,
            upstream_took: Duration::ZERO,
            failed: None,
            trouble: None,
            failed_on: None,
            connected: None,
            offence: None,
            charged: false,
            watched: None,
            status: None,
            author: Author::Upstream,
        }
    }

    /// The site is known: the request counts as its own from here on.
    pub fn enter(&mut self, site: usize) {
        self.site = Some(site);
        self.in_flight = Some(self.metrics().begin());
    }

    pub fn follow(&mut self, route: usize) {
        self.route = Some(route);
    }

    #[must_use]
    pub fn site(&self) -> Option<&LiveSite> {
        self.live.sites.get(self.site?)
    }

    #[must_use]
    pub fn route(&self) -> Option<&LiveRoute> {
        self.site()?.routes.get(self.route?)
    }

    /// As [`Exchange::route`], of a `live` that is held apart: the exchange may change meanwhile.
    #[must_use]
    pub fn route_of<'a>(&self, live: &'a Live) -> Option<&'a LiveRoute> {
        live.sites.get(self.site?)?.routes.get(self.route?)
    }

    #[must_use]
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        match &self.route()?.action {
            LiveAction::Proxy(pool) => Some(pool),
            LiveAction::Redirect { .. } | LiveAction::Respond { .. } | LiveAction::NotFound => None,
        }
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<SiteMetrics> {
        self.site().map_or(&self.live.nobody, |site| &site.metrics)
    }

    #[must_use]
    pub fn id(&self) -> &str {
        self.request_id.to_str().unwrap_or("")
    }

    /// Puts the request on its next server.
    pub fn begin_try(&mut self) -> Option<&Lease> {
        let lease = self.next.take()?;
        self.tried.push(lease.id());
        self.tries += 1;
        self.on = Some(Try { lease, began: Instant::now(), connected: None, status: None });
        self.on.as_ref().map(|on| &on.lease)
    }

    /// Picks the server to go to.
    ///
    /// Errors: none can take it; after so long it may be tried again.
    pub fn pick(&mut self) -> Result<(), Duration> {
        let Some(pool) = self.pool().cloned() else { return Err(Duration::from_secs(1)) };
        self.pick_of(&pool)
    }

    fn pick_of(&mut self, pool: &Pool) -> Result<(), Duration> {
        let picked = pool.pick(self.live.now(), &self.tried, self.proven, &mut || fastrand::u64(..));
        match picked {
            Ok(lease) => {
                self.next = Some(lease);
                Ok(())
            }
            Err(none) => {
                // After a try, that is what the failure is about.
                if self.tries == 0 {
                    self.trouble = Some(Trouble::from(match none.why {
                        Refused::Down => Fault::NoServer,
                        Refused::Full | Refused::Tried => Fault::Full,
                    }));
                }
                Err(none.retry_after)
            }
        }
    }

    /// Picks the server to go to, or finds that the request may wait for one.
    ///
    /// Errors: as [`Exchange::pick`].
    pub fn pick_or_wait(&mut self) -> Result<(), Duration> {
        let picked = self.pick();
        self.waits = picked.is_err() && self.may_wait();
        if self.waits { Ok(()) } else { picked }
    }

    /// Whether an instance of the request's app may come in time.
    fn may_wait(&self) -> bool {
        self.pool().is_some_and(|pool| pool.waiting_room().is_some())
    }

    /// The waiting room that it goes to, as it has no server to go to.
    #[must_use]
    pub fn waiting_room(&self) -> Option<(Arc<Room>, Hold)> {
        if self.next.is_some() || !self.waits {
            return None;
        }
        self.pool()?.waiting_room().map(|(room, hold)| (room.clone(), hold.clone()))
    }

    /// Looks again, in the pool that is in force now. `afresh`: those it has been to may do by now.
    ///
    /// Errors: [`Hopeless`]: nothing will come in time.
    pub fn look_again(&mut self, room: &Room, afresh: bool) -> Result<bool, Hopeless> {
        let pool = room.pool().ok_or(Hopeless)?;
        if afresh {
            self.tried.clear();
        }
        match self.pick_of(&pool) {
            Ok(()) => Ok(true),
            Err(_) if pool.waiting_room().is_none() => Err(Hopeless),
            Err(_) => Ok(false),
        }
    }

    /// The server did not do. Whether the request goes to another, which is then picked already.
    pub fn fail_try(&mut self, cause: Cause, idempotent: bool) -> bool {
        self.failed = Some(cause);
        self.blame();
        self.end_try(|on, now, _| on.lease.failed(now, cause));
        if let (Cause::Stale, Some(server)) = (cause, self.tried.last()) {
            self.stale = Stale::On(*server);
        }
        if self.goes_to_standby(cause, idempotent) && self.pick().is_ok() {
            return true;
        }
        let (now, tries) = (self.live.now(), self.counted_tries());
        let may = self.pool().is_some_and(|pool| pool.may_retry(now, cause, idempotent, tries));
        if may && (self.pick().is_ok() || self.forgive_stale() && self.pick().is_ok()) {
            return true;
        }
        // Nothing was sent, or it may be sent again: it waits for the next process of its app.
        self.waits = self.tries < MOST_TRIES && self.waits_after(cause, idempotent) && self.may_wait();
        self.waits
    }

    fn waits_after(&self, cause: Cause, idempotent: bool) -> bool {
        match cause {
            Cause::Connect => true,
            Cause::Stale | Cause::Reset => idempotent,
            // It is there, and slow or wrong: another try would find it so.
            Cause::Timeout | Cause::Status(_) | Cause::Broken => false,
        }
    }

    /// What a release on trial could not do goes to the one that stands by, if it may be sent again. Whether it does.
    fn goes_to_standby(&mut self, cause: Cause, idempotent: bool) -> bool {
        let may = match cause {
            Cause::Connect => true,
            Cause::Stale | Cause::Reset | Cause::Timeout | Cause::Status(_) => idempotent,
            Cause::Broken => false,
        };
        let now = self.live.now();
        self.proven |= may && self.trial_failed && self.pool().is_some_and(|pool| pool.has_proven(now));
        self.proven
    }

    /// A stale connection is no try of the server's.
    fn counted_tries(&self) -> u32 {
        self.tries - u32::from(self.needs_new_connection())
    }

    /// A pool of one has no other server than the one whose connection was stale. Whether there was such a server.
    fn forgive_stale(&mut self) -> bool {
        let Stale::On(server) = self.stale else { return false };
        self.stale = Stale::Forgiven;
        self.tried.retain(|tried| *tried != server);
        true
    }

    /// Whether the kept connections are not to be trusted.
    #[must_use]
    pub fn needs_new_connection(&self) -> bool {
        self.stale != Stale::Never
    }

    /// A status came that might be better elsewhere. Whether the request goes there; else the answer stands.
    pub fn pass_over(&mut self, status: StatusCode, idempotent: bool) -> bool {
        let cause = Cause::Status(status.as_u16());
        let Some(pool) = self.pool() else { return false };
        let allowed = cause.allows(pool.retry(), idempotent);
        let now = self.live.now();
        let on_trial = self.on.as_ref().is_some_and(|on| on.lease.is_on_trial());
        if on_trial && idempotent && status.is_server_error() && pool.has_proven(now) {
            self.proven = true;
            if self.pick().is_ok() {
                self.failed = Some(cause);
                self.blame();
                self.end_try(|on, now, _| on.lease.failed(now, cause));
                return true;
            }
        }
        if !allowed {
            return false;
        }
        if self.pick().is_err() {
            return false;
        }
        if !self.pool().is_some_and(|pool| pool.may_retry(now, cause, idempotent, self.counted_tries())) {
            self.next = None;
            return false;
        }
        self.failed = Some(cause);
        self.blame();
        self.end_try(|on, now, _| on.lease.failed(now, cause));
        true
    }

    fn blame(&mut self) {
        if let Some(on) = &self.on {
            self.trial_failed = on.lease.is_on_trial();
            self.failed_on = on.lease.instance().cloned();
            self.connected = on.connected;
        }
    }

    /// Where the last try failed, and when its connection had stood.
    #[must_use]
    pub fn blamed(&self) -> (Option<&(InstanceId, Incarnation)>, Option<Duration>) {
        (self.failed_on.as_ref(), self.connected)
    }

    /// The connection to the server stands.
    pub fn connected(&mut self) {
        if let Some(on) = &mut self.on {
            on.connected = Some(on.began.elapsed());
        }
    }

    /// The answer has begun.
    pub fn answering(&mut self, status: StatusCode) {
        if let Some(on) = &mut self.on {
            on.status = Some(status.as_u16());
        }
    }

    /// Whether the server's answer has begun.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.on.as_ref().is_some_and(|on| on.status.is_some())
    }

    /// Whether the server has agreed to an upgrade.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.on.as_ref().is_some_and(|on| on.status == Some(StatusCode::SWITCHING_PROTOCOLS.as_u16()))
    }

    /// Whether its client was banned while it was, or was to become, a tunnel.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.watched.as_ref().is_some_and(Watched::is_cut)
    }

    #[must_use]
    pub fn is_on_server(&self) -> bool {
        self.on.is_some()
    }

    /// Whether a server is picked to go to.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// The request is over. A server whose answer did not begin is not judged: the client left.
    pub fn finish_try(&mut self) {
        self.end_try(|on, now, took| {
            if let Some(status) = on.status {
                on.lease.answered(now, status, took);
            }
        });
    }

    fn end_try(&mut self, judge: impl FnOnce(&Try, Duration, Duration)) {
        let Some(on) = self.on.take() else { return };
        let took = on.began.elapsed();
        self.upstream_took += took;
        judge(&on, self.live.now(), took);
        self.server = Some(on.lease.label().into());
    }

    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The server that has the request, or had it last.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.on.as_ref().map(|on| on.lease.label()).or(self.server.as_deref())
    }

    /// The last server, the time on all of them, and how many they were.
    #[must_use]
    pub fn upstream(&self) -> (Option<&str>, Option<Duration>, u32) {
        (self.server.as_deref(), (self.tries > 0).then_some(self.upstream_took), self.tries)
    }
}
