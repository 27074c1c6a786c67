//! The zones of a route.

use std::time::Duration;

use super::{Ask, GateRoute, LiveZone, Verdict};
use crate::{plan::ZoneKey, rules::limit::Key};

/// Every zone must admit; the first that does not answers with its status and `Retry-After`.
///
/// Shape: zones are asked in the order of the configuration; those before the refusing one have counted the request.
pub(super) fn admit(ask: &Ask, route: &GateRoute, now: Duration) -> Verdict {
    for zone in &route.zones {
        match zone.limiter.admit(&key(ask, zone), now) {
            Ok(()) => zone.metrics.passed(),
            Err(wait) => {
                zone.metrics.rejected();
                return Verdict::Answer(ask.page(zone.spec.status).with_retry_after(wait));
            }
        }
    }
    Verdict::Pass
}

fn key<'a>(ask: &'a Ask, zone: &LiveZone) -> Key<'a> {
    match &zone.spec.key {
        ZoneKey::Ip => Key::Ip(ask.client),
        ZoneKey::Header(name) => match ask.headers.get(name) {
            Some(value) if !value.is_empty() => Key::Text(value.as_bytes()),
            Some(_) | None => Key::Ip(ask.client),
        },
    }
}
