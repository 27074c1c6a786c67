//! Requests on the wrong connection: a site that asks for client certificates is served only where its own handshake was made, under the CAs it trusts now.
//!
//! Shape: the name of the handshake and the name of the request lead to the same site, or neither of the two sites asks for certificates.
//! Source: RFC 9110 §7.4 and §15.5.20 (421), RFC 9113 §9.1.1 (browsers put several hosts on one connection).

use http::StatusCode;

use super::{Ask, GateSite, Verdict};
use crate::edge::{refused, tls::demand::Demand};

/// `opened_for`: the site of the name that the handshake was made with; `None`: it named none, or nobody's.
#[must_use]
pub fn misdirected(ask: &Ask, site: &GateSite, opened_for: Option<&GateSite>) -> Verdict {
    if !ask.tls && site.https.is_some() {
        // Sent to https, as everywhere.
        return Verdict::Pass;
    }
    let here = match (site.demand, opened_for.map_or(Demand::Nothing, |other| other.demand)) {
        (Demand::Nothing, Demand::Nothing) => true,
        (Demand::Nothing, Demand::Certificate(_) | Demand::Impossible) | (Demand::Impossible, _) => false,
        // The same place in memory is the same site: each has its own.
        (Demand::Certificate(ca), _) => opened_for.is_some_and(|other| std::ptr::eq(site, other)) && ask.proven == Some(ca),
    };
    if here { Verdict::Pass } else { ask.refuse(StatusCode::MISDIRECTED_REQUEST, refused::CERTIFICATE) }
}
