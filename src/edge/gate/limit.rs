//! The zones of a route, and what they gave a request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};

use super::{Ask, GateRoute, LiveZone, Verdict};
use crate::{
    plan::{ZoneKey, ZoneMode},
    rules::{
        limit::{self, Judgement, KeyHash, Plus, Print, Ticket},
        route,
    },
};

/// Requests of one zone that wait for their turn, over all keys and threads.
const WAITING: u32 = 1000;

/// What the zones of its route gave a request; given back when dropped, at its end.
///
/// Shape: Waits ─[`Passage::begin`]→ Begun ─[`Passage::end`]→ empty. Dropped while it waits, its turn is given back.
#[derive(Debug, Default)]
pub struct Passage {
    holds: Vec<Hold>,
    wait: Duration,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Hold {
    zone: Arc<LiveZone>,
    ticket: Ticket,
    waits: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.waits {
            self.zone.limiter.refund(&self.ticket);
        }
        self.zone.limiter.leave(&self.ticket);
    }
}

impl Passage {
    /// How long it is until the request's turn; zero: it is now.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// It is the request's turn.
    pub fn begin(&mut self) {
        self.wait = Duration::ZERO;
        self.places.clear();
        self.holds.iter_mut().for_each(|hold| hold.waits = false);
    }

    /// The request is over, or its client has left before its turn.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

/// How many wait for their turn in a zone.
#[derive(Debug, Default)]
pub struct Queue(AtomicU32);

/// A place in it; given up when dropped.
#[derive(Debug)]
struct Place(Arc<Queue>);

impl Queue {
    /// `None`: it is full.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let enters = |waiting: u32| (waiting < WAITING).then_some(waiting + 1);
        self.0.fetch_update(Relaxed, Relaxed, enters).ok()?;
        Some(Place(Arc::clone(self)))
    }

    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.load(Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Every zone must admit, or none has counted the request. Of those that refuse, the one that does so for longest answers, with its status and `Retry-After`.
///
/// Shape: the cells of all zones are held, in the order of their names, before the first of them is taken of; so two requests never wait for each other.
///        A request that has to wait for its turn waits for the longest that a zone says, in a place in the queue of each; whoever finds a queue full is refused.
pub(super) fn admit(ask: &Ask, route: &GateRoute, now: Duration, passage: &mut Passage) -> Verdict {
    if route.zones.is_empty() {
        return Verdict::Pass;
    }
    let mut judge = Judge { route, now, print: |zone: &LiveZone| print(ask, route, zone), passage, refused: None };
    judge.walk(0);
    match judge.refused {
        Some(Refused { status, wait }) => Verdict::Answer(ask.page(status).with_retry_after(wait)),
        None => Verdict::Pass,
    }
}

struct Refused {
    status: StatusCode,
    wait: Duration,
}

struct Judge<'a, F> {
    route: &'a GateRoute,
    now: Duration,
    print: F,
    passage: &'a mut Passage,
    refused: Option<Refused>,
}

impl<F: Fn(&LiveZone) -> Print> Judge<'_, F> {
    /// Asks the zones from this one on, each cell held while the next are asked. Whether all admit, those before included.
    fn walk(&mut self, at: usize) -> bool {
        let Some(zone) = self.route.zones.get(at) else { return self.refused.is_none() };
        let mut asked = zone.limiter.hold((self.print)(zone), self.now);
        match (asked.judge(), zone.spec.mode) {
            (Judgement::Admit(wait), ZoneMode::Enforce) if !wait.is_zero() => match zone.queue.enter() {
                Some(place) => {
                    let all = self.walk(at + 1);
                    if all {
                        let ticket = asked.take();
                        zone.metrics.delayed();
                        self.passage.wait = self.passage.wait.max(wait);
                        self.passage.places.push(place);
                        self.passage.holds.push(Hold { zone: Arc::clone(zone), ticket, waits: true });
                    }
                    all
                }
                None => {
                    drop(asked);
                    self.refuse(zone, wait);
                    self.walk(at + 1)
                }
            },
            (Judgement::Admit(_), ZoneMode::Enforce | ZoneMode::Observe) => {
                let all = self.walk(at + 1);
                if all {
                    let ticket = asked.take();
                    zone.metrics.passed();
                    if ticket.holds() {
                        self.passage.holds.push(Hold { zone: Arc::clone(zone), ticket, waits: false });
                    }
                }
                all
            }
            (Judgement::Refuse(_), ZoneMode::Observe) => {
                drop(asked);
                zone.metrics.would_reject();
                self.walk(at + 1)
            }
            (Judgement::Refuse(wait), ZoneMode::Enforce) => {
                drop(asked);
                self.refuse(zone, wait.unwrap_or(Duration::ZERO));
                self.walk(at + 1)
            }
        }
    }

    fn refuse(&mut self, zone: &LiveZone, wait: Duration) {
        zone.metrics.rejected();
        if self.refused.as_ref().is_none_or(|refused| refused.wait < wait) {
            self.refused = Some(Refused { status: zone.spec.status, wait });
        }
    }
}

/// The request's key in a zone.
fn print(ask: &Ask, route: &GateRoute, zone: &LiveZone) -> Print {
    zone.spec.key.iter().fold(zone.limiter.key(), |hash, part| add(part, hash, ask, route)).finish()
}

fn add(part: &ZoneKey, hash: KeyHash, ask: &Ask, route: &GateRoute) -> KeyHash {
    let address = |hash: KeyHash| hash.ip(ask.client);
    match part {
        ZoneKey::Ip => address(hash),
        ZoneKey::Header(name) => match limit::only(ask.headers.get_all(name).iter()).filter(|value| !value.is_empty()) {
            Some(value) => hash.text(value.as_bytes()),
            None => address(hash),
        },
        ZoneKey::Cookie(name) => match limit::cookie(cookies(ask.headers), name) {
            Some(value) => hash.decoded(value, Plus::Plain),
            None => address(hash),
        },
        ZoneKey::Query(name) => match ask.uri.query().and_then(|query| limit::query(query.as_bytes(), name)) {
            Some(value) => hash.decoded(value, Plus::Space),
            None => address(hash),
        },
        ZoneKey::Path => hash.text(route::normal(ask.uri.path()).as_bytes()),
        ZoneKey::Site => hash.text(route.site.as_bytes()),
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::COOKIE).iter().map(|value| value.as_bytes())
}
