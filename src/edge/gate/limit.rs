//! The zones of a route, and what they gave a request.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};

use super::{
    Ask, GateRoute, LiveZone, Verdict,
    queue::{Place, Queue},
    quota,
};
use crate::{
    edge::refused,
    plan::{ZoneKey, ZoneMode, ban::Offence},
    rules::{
        limit::{self, Judgement, KeyHash, Plus, Print, Ticket},
        route,
    },
    vocab::ZoneName,
};

/// What the zones of its route gave a request; given back when dropped, at its end.
///
/// Shape: Unsettled ─[`again`]→ Waits ─[`Passage::begin`]→ Begun ─[`Passage::answer`]→ Answered ─[`Passage::end`]→ empty. Dropped while it waits, its turn is given back;
///        dropped before its answer, it has spent nothing of what answers spend.
#[derive(Debug, Default)]
pub struct Passage {
    holds: Vec<Hold>,
    wait: Duration,
    places: Vec<Place>,
    unsettled: Option<Unsettled>,
}

/// Kept out by what others have reserved.
#[derive(Debug)]
struct Unsettled {
    /// Its key in each zone of the route.
    prints: Vec<Print>,
    /// The first that keeps it out.
    zone: Arc<LiveZone>,
}

#[derive(Debug)]
struct Hold {
    zone: Arc<LiveZone>,
    ticket: Ticket,
    waits: bool,
}

impl Hold {
    fn settle(&mut self, now: Duration, spends: bool) {
        if self.ticket.is_open() {
            self.zone.limiter.settle(&mut self.ticket, now, spends);
            self.zone.queue.ring();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.waits {
            self.zone.limiter.refund(&self.ticket);
        }
        self.settle(Duration::ZERO, false);
        self.zone.limiter.leave(&self.ticket);
    }
}

impl Passage {
    /// How long it is until the request's turn; zero: it is now.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether the request waits for the answers of others ([`again`]), and where it hears of them.
    #[must_use]
    pub fn unsettled(&self) -> Option<Arc<Queue>> {
        self.unsettled.as_ref().map(|unsettled| Arc::clone(&unsettled.zone.queue))
    }

    /// The request waits for the answers of others no longer.
    #[must_use]
    pub fn give_up(&mut self) -> Option<Refused> {
        let Unsettled { zone, .. } = std::mem::take(self).unsettled?;
        zone.metrics.rejected();
        Some(Refused { status: zone.spec.status, wait: Duration::ZERO, zone: zone.name.clone() })
    }

    /// It is the request's turn.
    pub fn begin(&mut self) {
        self.wait = Duration::ZERO;
        self.places.clear();
        self.unsettled = None;
        self.holds.iter_mut().for_each(|hold| hold.waits = false);
    }

    /// The answer begins: what answers spend is spent or given back, and the client told what is left.
    pub fn answer(&mut self, status: StatusCode, fields: &mut HeaderMap, now: impl FnOnce() -> Duration) {
        if self.holds.is_empty() {
            return;
        }
        let now = now();
        for hold in &mut self.holds {
            let spends = hold.zone.spec.count.contains(&status);
            hold.settle(now, spends);
        }
        // The last zone was taken of first.
        let told = self.holds.iter().rev().filter_map(|hold| {
            let headers = hold.zone.spec.headers?;
            Some((headers, hold.zone.name.as_str(), hold.zone.limiter.standing(hold.ticket.print(), now)))
        });
        quota::tell(told, fields);
    }

    /// The request is over, or its client has left before its turn.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

/// Every zone must admit, or none has counted the request. Of those that refuse, the one that does so for longest answers, with its status and `Retry-After`.
///
/// Shape: the cells of all zones are held, in the order of their names, before the first of them is taken of; so two requests never wait for each other.
///        A request that has to wait for its turn waits for the longest that a zone says, in a place in the queue of each; whoever finds a queue full is refused.
///        A request that is kept out by reservations alone passes for now, unsettled, and is judged [`again`] when others are answered.
pub(super) fn admit(ask: &Ask, route: &GateRoute, now: Duration, passage: &mut Passage) -> Verdict {
    if route.zones.is_empty() {
        return Verdict::Pass;
    }
    let mut judge = Judge::new(&route.zones, |_: usize, zone: &LiveZone| print(ask, route, zone), now, Round::First, passage);
    judge.walk(0);
    let Judge { refused, unsettled, places, .. } = judge;
    if let Some(Refused { status, wait, zone }) = refused {
        return Verdict::Answer(ask.page(status).by(refused::zone(&zone)).with_retry_after(wait).blame(Offence::Zone));
    }
    if let Some(zone) = unsettled {
        let prints = route.zones.iter().map(|zone| print(ask, route, zone)).collect();
        (passage.places, passage.unsettled) = (places, Some(Unsettled { prints, zone }));
    }
    Verdict::Pass
}

/// Judges an unsettled request again. Whether it is admitted; then it may still have to wait for its turn.
///
/// Errors: a zone refuses it now.
pub fn again(route: &GateRoute, now: Duration, passage: &mut Passage) -> Result<bool, Refused> {
    let Some(Unsettled { prints, .. }) = passage.unsettled.take() else { return Ok(true) };
    let places = std::mem::take(&mut passage.places);
    let mut judge = Judge::new(&route.zones, |at: usize, _: &LiveZone| prints[at], now, Round::Again, passage);
    judge.walk(0);
    let Judge { refused, unsettled, .. } = judge;
    match (refused, unsettled) {
        (Some(refused), _) => Err(refused),
        (None, None) => Ok(true),
        (None, Some(zone)) => {
            // It keeps the places that it has.
            (passage.places, passage.unsettled) = (places, Some(Unsettled { prints, zone }));
            Ok(false)
        }
    }
}

/// How the client is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    pub status: StatusCode,
    /// Zero: nobody knows.
    pub wait: Duration,
    /// Which zone says so.
    pub zone: ZoneName,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Round {
    First,
    Again,
}

struct Judge<'a, F> {
    zones: &'a [Arc<LiveZone>],
    print: F,
    now: Duration,
    round: Round,
    passage: &'a mut Passage,
    refused: Option<Refused>,
    /// The first zone that is not settled.
    unsettled: Option<Arc<LiveZone>>,
    /// In the queues of zones that are not settled.
    places: Vec<Place>,
}

impl<'a, F: Fn(usize, &LiveZone) -> Print> Judge<'a, F> {
    fn new(zones: &'a [Arc<LiveZone>], print: F, now: Duration, round: Round, passage: &'a mut Passage) -> Self {
        Self { zones, print, now, round, passage, refused: None, unsettled: None, places: Vec::new() }
    }

    /// Asks the zones from this one on, each cell held while the next are asked. Whether all admit, those before included.
    fn walk(&mut self, at: usize) -> bool {
        let Some(zone) = self.zones.get(at) else { return self.unsettled.is_none() && self.refused.is_none() };
        let print = (self.print)(at, zone);
        let mut asked = zone.limiter.hold(print, self.now);
        let judgement = asked.judge();
        match (judgement, zone.spec.mode) {
            (Judgement::Admit(wait), ZoneMode::Enforce) if !wait.is_zero() => {
                if let Some(place) = zone.queue.enter() {
                    if self.walk(at + 1) {
                        zone.metrics.delayed();
                        self.passage.wait = self.passage.wait.max(wait);
                        self.passage.places.push(place);
                        self.hold(zone, asked.take(), true);
                        return true;
                    }
                } else {
                    drop(asked);
                    self.refuse(zone, wait);
                    self.walk(at + 1);
                }
            }
            (Judgement::Admit(_), ZoneMode::Enforce | ZoneMode::Observe) => {
                if self.walk(at + 1) {
                    match self.round {
                        Round::Again if !zone.spec.count.is_empty() => zone.metrics.delayed(),
                        Round::First | Round::Again => zone.metrics.passed(),
                    }
                    self.hold(zone, asked.take(), false);
                    return true;
                }
            }
            (Judgement::Unsettled, ZoneMode::Enforce) => {
                drop(asked);
                if self.round == Round::First {
                    match zone.queue.enter() {
                        Some(place) => self.places.push(place),
                        None => self.refuse(zone, Duration::ZERO),
                    }
                }
                self.unsettled.get_or_insert_with(|| Arc::clone(zone));
                self.walk(at + 1);
            }
            (Judgement::Unsettled, ZoneMode::Observe) => {
                let ticket = asked.pass();
                if self.walk(at + 1) {
                    zone.metrics.passed();
                    self.hold(zone, ticket, false);
                    return true;
                }
            }
            (Judgement::Refuse(_), ZoneMode::Observe) => {
                drop(asked);
                if self.round == Round::First {
                    zone.metrics.would_reject();
                }
                if self.walk(at + 1) {
                    self.hold(zone, Ticket::empty(print), false);
                    return true;
                }
            }
            (Judgement::Refuse(wait), ZoneMode::Enforce) => {
                drop(asked);
                self.refuse(zone, wait.unwrap_or(Duration::ZERO));
                self.walk(at + 1);
            }
        }
        if self.refused.is_some() {
            // Nothing is held, but something may be told.
            self.hold(zone, Ticket::empty(print), false);
        }
        false
    }

    fn hold(&mut self, zone: &Arc<LiveZone>, ticket: Ticket, waits: bool) {
        if waits || ticket.holds() || zone.spec.headers.is_some() {
            self.passage.holds.push(Hold { zone: Arc::clone(zone), ticket, waits });
        }
    }

    fn refuse(&mut self, zone: &LiveZone, wait: Duration) {
        zone.metrics.rejected();
        if self.refused.as_ref().is_none_or(|refused| refused.wait < wait) {
            self.refused = Some(Refused { status: zone.spec.status, wait, zone: zone.name.clone() });
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
