//! The zones of a route, and what they gave a request.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};

use super::{Ask, GateRoute, LiveZone, Verdict};
use crate::{
    plan::{ZoneKey, ZoneMode},
    rules::{
        limit::{self, Judgement, KeyHash, Plus, Print, Ticket},
        route,
    },
};

/// What the zones of its route gave a request; given back when dropped, at its end.
#[derive(Debug, Default)]
pub struct Passage {
    holds: Vec<Hold>,
}

#[derive(Debug)]
struct Hold {
    zone: Arc<LiveZone>,
    ticket: Ticket,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.zone.limiter.leave(&self.ticket);
    }
}

impl Passage {
    /// The request is over.
    pub fn end(&mut self) {
        self.holds.clear();
    }
}

/// Every zone must admit, or none has counted the request. Of those that refuse, the one that does so for longest answers, with its status and `Retry-After`.
///
/// Shape: the cells of all zones are held, in the order of their names, before the first of them is taken of; so two requests never wait for each other.
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
            (Judgement::Admit, ZoneMode::Enforce | ZoneMode::Observe) => {
                let all = self.walk(at + 1);
                if all {
                    let ticket = asked.take();
                    zone.metrics.passed();
                    if ticket.holds() {
                        self.passage.holds.push(Hold { zone: Arc::clone(zone), ticket });
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
                zone.metrics.rejected();
                let wait = wait.unwrap_or(Duration::ZERO);
                if self.refused.as_ref().is_none_or(|refused| refused.wait < wait) {
                    self.refused = Some(Refused { status: zone.spec.status, wait });
                }
                self.walk(at + 1)
            }
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
