//! How large a body may say it is. One without a length is counted as it arrives, by the engine.

use http::{StatusCode, header};

use super::{Ask, GateRoute, Verdict};
use crate::edge::refused;

/// 413 where `Content-Length` is beyond the route's `body`. `sanity` has seen that there is at most one and that it is a number.
pub(super) fn admit(ask: &Ask, route: &GateRoute) -> Verdict {
    let Some(length) = ask.headers.get(header::CONTENT_LENGTH) else { return Verdict::Pass };
    match super::sanity::length(length) {
        Some(length) if length <= route.body_limit.0 => Verdict::Pass,
        Some(_) => ask.refuse(StatusCode::PAYLOAD_TOO_LARGE, refused::BODY),
        None => ask.refuse(StatusCode::BAD_REQUEST, refused::of_head(StatusCode::BAD_REQUEST)),
    }
}
