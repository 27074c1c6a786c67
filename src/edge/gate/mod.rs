//! The gates: what a request must pass before anything is done for it, in a fixed order, cheap before dear.
//!
//! Knows nothing of pingora (D7): `http` types in, a [`Verdict`] out. Nothing is allocated on the way of a request that passes.
//!
//! Shape: [`sanity`] and [`ban`] before a site is known; [`misdirected`] before anything of it is done; then, with site and route, [`admit`]: https redirect → allow/deny → maintenance → methods → limit → screen → body size → CORS preflight.
//!        The first answer ends it. Upgrade requests pass the same gates: nothing here asks whether a request is one.

use std::{cell::Cell, net::IpAddr, time::Duration};

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

pub use super::tls::demand::Demand;
use super::{refused::By, reply::Reply, tls::demand::CaMark};
use crate::plan::{Hit, ban::Offence};

pub mod address;
pub mod ban;
pub mod body;
pub mod compiled;
pub mod cors;
pub mod filter;
pub mod https;
pub mod limit;
pub mod maintenance;
pub mod method;
pub mod misdirected;
pub mod queue;
pub mod quota;
pub mod sanity;
pub mod screen;
pub mod size;

#[cfg(test)]
mod tests;

pub use ban::Sentry;
pub use body::Inspection;
pub use compiled::{GateRoute, GateSite, LiveZone, ZoneSet};
pub use https::canonical;
pub use limit::{Passage, Refused, again};
pub use misdirected::misdirected;
pub use sanity::sanity;

/// What the gates may know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// Path and query as received, byte for byte.
    pub target: &'a [u8],
    pub version: Version,
    pub headers: &'a HeaderMap,
    /// Normalised by `rules::header::host`, or empty when the request names none or a bad one.
    pub host: &'a str,
    /// Who is connected to us, after the PROXY protocol.
    pub peer: IpAddr,
    /// Whom `rules::clientip` believes to be asking.
    pub client: IpAddr,
    pub tls: bool,
    /// The client speaks TLS: with us, or with a trusted proxy that says so.
    pub secure: bool,
    pub sni: Option<&'a str>,
    /// The CAs under which the client's certificate was verified.
    pub proven: Option<CaMark>,
    pub upgrade: bool,
    pub request_id: &'a str,
    /// Gets what of `bad-uri` recognised the request.
    pub seen: &'a Cell<Option<Hit>>,
}

impl Ask<'_> {
    /// Our page for `status`, in the form that the client asks for.
    #[must_use]
    pub fn page(&self, status: StatusCode) -> Reply {
        Reply::page(status, self.headers.get(header::ACCEPT), self.request_id)
    }

    /// What is refused, and by what.
    fn refuse(&self, status: StatusCode, by: By) -> Verdict {
        Verdict::Answer(self.page(status).by(by))
    }

    /// A refusal that counts against the client.
    fn accuse(&self, status: StatusCode, by: By, offence: Offence) -> Verdict {
        Verdict::Answer(self.page(status).by(by).blame(offence))
    }
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Pass,
    Answer(Reply),
}

/// Every gate that needs a site and a route, in their order.
///
/// Shape: what zones give the request is in `passage` until its end.
/// Units: `now` since an epoch that the shell chose and keeps for the life of the zones.
#[must_use]
pub fn admit(ask: &Ask, site: &GateSite, route: &GateRoute, now: Duration, passage: &mut Passage) -> Verdict {
    macro_rules! pass {
        ($verdict:expr) => {
            if let answer @ Verdict::Answer(_) = $verdict {
                return answer;
            }
        };
    }
    pass!(https::redirect(ask, site));
    pass!(address::admit(ask, route));
    pass!(maintenance::admit(ask, site));
    pass!(method::admit(ask, route));
    pass!(limit::admit(ask, route, now, passage));
    pass!(screen::admit(ask, route));
    pass!(size::admit(ask, route));
    cors::admit(ask, route)
}
