//! Exchange: what one request carries from its first hook to its last.
//!
//! Shape: pinned to one `Live`. Tries go one after the other, as [`crate::rules::attempt`] decides: `on` holds the server that has the request, `next` the one it
//!        goes to.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::{
    conn::{appetite::Portion, early::Early},
    gate::{Inspection, Passage},
    live::{Live, LiveAction, LiveRoute, LiveSite},
    refused::By,
    tls::mutual::ClientCertificate,
    upstream::{Asked, Choice, End, Lease, Pool, Room, ServerId, Unavailable},
    warden::Watched,
    witness::Loss,
};
use crate::{
    ipc::{
        message::{Incarnation, InstanceId},
        why::Fault,
    },
    plan::{Hit, Hold, ban::Offence},
    rules::{
        attempt::{Attempt, Cause, Event, Next, Repeat},
        balance::Refused,
    },
    telemetry::{InFlight, SiteMetrics},
};

mod awaited;

/// The status by which the access log knows a client that left before its answer; nginx's word.
pub const CLIENT_GONE: u16 = 499;

/// One request on one server.
#[derive(Debug)]
pub struct Try {
    pub lease: Lease,
    pub began: Instant,
    /// When the connection stood.
    pub connected: Option<Duration>,
    /// The connection's, where it is the request's alone.
    pub fd: Option<i32>,
    /// Why we ended the wait for its answer.
    pub ended: Option<End>,
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

/// No instance will be ready in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hopeless;

/// Who wrote the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Author {
    Upstream,
    Us,
}

pub struct Exchange {
    pub live: Arc<Live>,
    pub began: Instant,
    pub peer: IpAddr,
    pub client: IpAddr,
    /// What a failure is put down to.
    page: Asked,
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
    /// Of a body that was waited for.
    pub ahead: Option<Box<Early>>,
    /// What of `bad-uri` recognised the target or a header field.
    pub seen: Option<Hit>,
    /// What the server of `auth` says of him, for the app. A name without a value: the app gets none of that name.
    pub vouched: Vec<(HeaderName, Option<HeaderValue>)>,
    /// On its HTTP/2 connection.
    pub portion: Option<Portion>,
    /// Bytes of the answer's body that were handed to the client's side.
    pub given: u64,
    site: Option<usize>,
    route: Option<usize>,
    in_flight: Option<InFlight>,
    /// Where it goes, how often, and when it is over.
    attempt: Attempt<ServerId>,
    /// The server that it goes to.
    next: Option<Lease>,
    on: Option<Try>,
    /// Tries that were begun.
    tries: u32,
    /// How long it has waited for a process of its app.
    pub queued: Duration,
    /// What the zones gave it.
    pub passage: Passage,
    server: Option<Box<str>>,
    upstream_took: Duration,
    pub trouble: Option<Trouble>,
    /// Where the last try failed.
    failed_on: Option<(InstanceId, Incarnation)>,
    /// The processes that broke off while they had it, in order: a few at most, as tries are.
    lost_by: Vec<(InstanceId, Incarnation)>,
    /// The last of them has done so at this very try, and whether it had answered others.
    lost_now: Option<bool>,
    connected: Option<Duration>,
    /// What it asked for: of a request that is cut there is nobody else to say so.
    pub asked: Option<(Method, Uri, Version)>,
    /// What refused it.
    pub refused: Option<By>,
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
            ahead: None,
            seen: None,
            vouched: Vec::new(),
            portion: None,
            given: 0,
            site: None,
            route: None,
            in_flight: None,
            attempt: Attempt::new(),
            next: None,
            on: None,
            tries: 0,
            queued: Duration::ZERO,
            passage: Passage::default(),
            server: None,
            upstream_took: Duration::ZERO,
            trouble: None,
            failed_on: None,
            lost_by: Vec::new(),
            lost_now: None,
            connected: None,
            asked: None,
            page: Asked::default(),
            refused: None,
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

    /// It is answered and reported: from here on it counts nowhere.
    pub fn leave(&mut self) {
        self.in_flight = None;
        self.portion = None;
        self.watched = None;
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
        pool_of(&self.live, self.site, self.route)
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<SiteMetrics> {
        self.site().map_or(&self.live.nobody, |site| &site.metrics)
    }

    #[must_use]
    pub fn id(&self) -> &str {
        self.request_id.to_str().unwrap_or("")
    }

    /// The process whose answer it is.
    #[must_use]
    pub fn answerer(&self) -> Option<(InstanceId, Incarnation)> {
        self.on.as_ref()?.lease.instance().cloned()
    }

    /// Puts the request on its next server.
    pub fn begin_try(&mut self) -> Option<&Lease> {
        let lease = self.next.take()?;
        self.tries += 1;
        self.on = Some(Try { lease, began: Instant::now(), connected: None, fd: None, ended: None, status: None });
        self.on.as_ref().map(|on| &on.lease)
    }

    /// It has passed the gates: picks the server to go to, or finds that the request may wait for one.
    ///
    /// Errors: none can take it; after so long it may be asked again.
    pub fn wanted(&mut self) -> Result<(), Duration> {
        let (next, refused) = self.step(Event::Wanted);
        if let Some(app) = self.pool().filter(|_| refused.is_some()).and_then(|pool| pool.asks(self.live.now())) {
            self.live.witness.wants(app);
        }
        match next {
            Next::Go | Next::Wait => Ok(()),
            Next::Stay | Next::Answer | Next::End => Err(refused.map_or(Duration::from_secs(1), |none| none.retry_after)),
        }
    }

    fn step(&mut self, event: Event) -> (Next, Option<Unavailable>) {
        let Some(pool) = pool_of(&self.live, self.site, self.route) else { return (Next::End, None) };
        let mut choice = Choice::new(pool, &self.live.pools);
        let next = self.attempt.step(event, &mut choice);
        let made = choice.made();
        self.takes(next, made)
    }

    fn step_in(&mut self, pool: &Pool, event: Event) -> Next {
        let mut choice = Choice::new(pool, &self.live.pools);
        let next = self.attempt.step(event, &mut choice);
        let made = choice.made();
        self.takes(next, made).0
    }

    fn takes(&mut self, next: Next, (lease, refused): (Option<Lease>, Option<Unavailable>)) -> (Next, Option<Unavailable>) {
        if next == Next::Go {
            self.next = lease;
        }
        // After a try, that is what the failure is about.
        if let Some(none) = refused.filter(|_| self.tries == 0) {
            self.trouble = Some(Trouble::from(match none.why {
                Refused::Down => Fault::NoServer,
                Refused::Full | Refused::Tried => Fault::Full,
            }));
        }
        (next, refused)
    }

    /// The waiting room that it goes to, as it has no server to go to.
    #[must_use]
    pub fn waiting_room(&self) -> Option<(Arc<Room>, Hold)> {
        if !self.attempt.is_waiting() {
            return None;
        }
        self.pool()?.waiting_room().map(|(room, hold)| (room.clone(), hold.clone()))
    }

    /// Looks again, in the pool that is in force now. `afresh`: those it has been to may do by now.
    ///
    /// Errors: [`Hopeless`]: nothing will come in time.
    pub fn look_again(&mut self, room: &Room, afresh: bool) -> Result<bool, Hopeless> {
        let pool = room.pool().ok_or(Hopeless)?;
        match self.step_in(&pool, Event::Rang { afresh }) {
            Next::Go => Ok(true),
            Next::Wait => Ok(false),
            Next::Stay | Next::Answer | Next::End => Err(Hopeless),
        }
    }

    /// It has waited for as long as it may.
    pub fn give_up(&mut self) {
        self.step(Event::Late(Repeat::Harmful));
    }

    /// The server did not do. Whether the request goes on: to another, which is then picked already, or into the waiting room.
    pub fn fail_try(&mut self, cause: Cause, repeat: Repeat) -> bool {
        self.blame();
        let answered = self.on.as_ref().map(|on| on.lease.has_answered());
        let goes = self.on.as_ref().is_some_and(|on| on.lease.draining());
        let cause = if goes && matches!(cause, Cause::Stale | Cause::Reset) { Cause::Left } else { cause };
        self.end_try(|on, now, _, asked| on.lease.failed(now, cause, asked));
        let lost = matches!(cause, Cause::Stale | Cause::Reset) && self.failed_on.as_ref().is_some_and(|by| !self.lost_by.contains(by));
        self.lost_now = answered.filter(|_| lost);
        if lost {
            self.lost_by.extend(self.failed_on.clone());
        }
        let event = Event::Failed(cause, repeat);
        let next = match self.pool().and_then(|pool| pool.in_force()) {
            Some(pool) => self.step_in(&pool, event),
            None => self.step(event).0,
        };
        matches!(next, Next::Go | Next::Wait)
    }

    /// The process that has just broken off with the request in its hands.
    #[must_use]
    pub fn just_lost(&self) -> Option<Loss<'_>> {
        let (id, incarnation) = self.lost_by.last()?;
        self.lost_now.map(|answered| Loss { id, incarnation: *incarnation, again: self.lost_by.len() > 1, answered })
    }

    /// The processes that broke off while they had it.
    #[must_use]
    pub fn lost_by(&self) -> &[(InstanceId, Incarnation)] {
        &self.lost_by
    }

    /// Whether the kept connections are not to be trusted.
    #[must_use]
    pub fn needs_new_connection(&self) -> bool {
        self.attempt.needs_new_connection()
    }

    /// It fails, or gets an answer that says so: a failure of this page, for this client. `meant`: the answer says when to come again.
    pub fn fails_at(&mut self, path: &str, meant: bool) {
        self.page = Asked { page: print(path), client: print(&self.client), meant };
    }

    /// The head of an answer has come. Whether the request goes elsewhere, where it might be better; else the answer stands.
    pub fn passes_over(&mut self, status: StatusCode, repeat: Repeat) -> bool {
        let moves = self.step(Event::Status(status.as_u16(), repeat)).0 == Next::Go;
        if moves {
            self.blame();
            self.end_try(|on, now, _, asked| on.lease.failed(now, Cause::Status(status.as_u16()), asked));
        } else if let Some(on) = &mut self.on {
            on.status = Some(status.as_u16());
        }
        moves
    }

    fn blame(&mut self) {
        if let Some(on) = &self.on {
            self.failed_on = on.lease.instance().cloned();
            self.connected = on.connected;
        }
    }

    /// Why the last server did not answer.
    #[must_use]
    pub fn failure(&self) -> Option<Cause> {
        self.attempt.failure()
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
        self.step(Event::Connected);
    }

    /// From here on the server may have seen it.
    pub fn sent(&mut self) {
        self.step(Event::Sent);
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
        // Picked, and not gone to: the client has left.
        self.next = None;
        self.end_try(|on, now, took, asked| on.lease.answered(now, on.status?, took, asked));
    }

    /// `judge` gives until when the server should be out; the last that serves never is.
    fn end_try(&mut self, judge: impl FnOnce(&Try, Duration, Duration, Asked) -> Option<Duration>) {
        let Some(on) = self.on.take() else { return };
        let took = on.began.elapsed();
        self.upstream_took += took;
        let now = self.live.now();
        if let (Some(until), Some(pool)) = (judge(&on, now, took, self.page), self.pool()) {
            pool.eject(on.lease.id(), now, until);
        }
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

/// Apart from the exchange, so that its other parts may change meanwhile.
fn pool_of(live: &Live, site: Option<usize>, route: Option<usize>) -> Option<&Arc<Pool>> {
    match &live.sites.get(site?)?.routes.get(route?)?.action {
        LiveAction::Proxy(pool) => Some(pool),
        LiveAction::Redirect { .. } | LiveAction::Respond { .. } | LiveAction::NotFound => None,
    }
}

/// Short, to tell a few apart.
fn print(of: &(impl Hash + ?Sized)) -> u32 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() as u32
}
