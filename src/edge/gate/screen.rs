//! The `bad-uri` and `scanner-ua` filters.

use http::{StatusCode, header};

use super::{Ask, GateRoute, Verdict};
use crate::{
    edge::refused,
    plan::{FilterMode, ban::Offence},
    rules::screen,
};

/// 403 for a hit of a filter that enforces; one that observes counts and passes. A filter that is off is not asked.
pub(super) fn admit(ask: &Ask, route: &GateRoute) -> Verdict {
    if route.scanner_ua.mode != FilterMode::Off
        && ask.headers.get(header::USER_AGENT).is_some_and(|agent| screen::scanner(agent.as_bytes()))
        && route.scanner_ua.hit()
    {
        return ask.accuse(StatusCode::FORBIDDEN, refused::SCANNER, Offence::ScannerUa);
    }
    if route.bad_uri.refuses(ask.target, ask.headers, ask.seen) {
        return ask.accuse(StatusCode::FORBIDDEN, refused::bad_uri(ask.seen.get()), Offence::BadUri);
    }
    Verdict::Pass
}
