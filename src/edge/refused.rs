//! What refused a request, as the access log, `gateway why` and our own log name it.
//!
//! Shape: `zone:NAME`, `filter:NAME` (of `bad-uri` with its family: `filter:bad-uri/sql`), `limit:KEY` of `[limits]`, `deadline:KEY` of `[timeouts]`, or one word. The names are a
//!        contract: extend, never rename. They come from us and from the configuration, never from a request.

use std::borrow::Cow;

use http::StatusCode;

use crate::{plan::Hit, vocab::ZoneName};

/// See the head of this file.
pub type By = Cow<'static, str>;

pub const ALLOW: By = Cow::Borrowed("allow");
pub const AUTH: By = Cow::Borrowed("auth");
pub const BAD_METHOD: By = Cow::Borrowed("filter:bad-method");
pub const BAN: By = Cow::Borrowed("ban");
pub const BODY: By = Cow::Borrowed("limit:body");
pub const BODY_DEADLINE: By = Cow::Borrowed("deadline:body");
pub const CERTIFICATE: By = Cow::Borrowed("client_ca");
pub const DENY: By = Cow::Borrowed("deny");
/// Resets, or frames that carry nothing, of an HTTP/2 connection.
pub const FLOOD: By = Cow::Borrowed("limit:resets");
pub const MAINTENANCE: By = Cow::Borrowed("maintenance");
pub const METHODS: By = Cow::Borrowed("methods");
pub const NO_ROUTE: By = Cow::Borrowed("no-route");
pub const NO_SITE: By = Cow::Borrowed("no-site");
/// Its client took nothing of the answer while memory was short.
pub const PRESSURE: By = Cow::Borrowed("pressure");
pub const SCANNER: By = Cow::Borrowed("filter:scanner-ua");
/// What its client has not taken of other answers on the connection is enough.
pub const APPETITE: By = Cow::Borrowed("appetite");
/// It was under way at the end of a drain, or the connection's task ended under it.
pub const CUT: By = Cow::Borrowed("cut");

#[must_use]
pub fn zone(name: &ZoneName) -> By {
    Cow::Owned(format!("zone:{name}"))
}

#[must_use]
pub fn bad_uri(hit: Option<Hit>) -> By {
    hit.map_or(Cow::Borrowed("filter:bad-uri"), |hit| Cow::Owned(format!("filter:bad-uri/{}", hit.family.as_str())))
}

/// What stands behind a status of ours where nothing else is known; `None`: it is no refusal.
#[must_use]
pub fn by_status(status: StatusCode) -> Option<By> {
    Some(Cow::Borrowed(match status {
        StatusCode::BAD_REQUEST => "malformed",
        StatusCode::REQUEST_TIMEOUT => "deadline:body",
        StatusCode::PAYLOAD_TOO_LARGE => "limit:body",
        StatusCode::URI_TOO_LONG => "limit:uri",
        StatusCode::EXPECTATION_FAILED => "expectation",
        StatusCode::MISDIRECTED_REQUEST => "misdirected",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "limit:headers",
        StatusCode::METHOD_NOT_ALLOWED => "methods",
        _ => return None,
    }))
}

/// As [`by_status`], of what is no request yet.
#[must_use]
pub fn of_head(status: StatusCode) -> By {
    match status {
        StatusCode::REQUEST_TIMEOUT => Cow::Borrowed("deadline:header"),
        status => by_status(status).unwrap_or(Cow::Borrowed("malformed")),
    }
}
