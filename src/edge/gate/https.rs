//! Redirects of whole hosts: to https, and to a site's canonical name.

use http::{HeaderValue, StatusCode};

use super::{Ask, GateSite, Verdict};
use crate::{
    edge::{refused, reply::Reply},
    vocab::Host,
};

/// A site with TLS that was asked without: the same address under https. 301 for GET and HEAD; 308 for the rest, so that a form stays a form.
pub(super) fn redirect(ask: &Ask, site: &GateSite) -> Verdict {
    match site.https {
        Some(port) if !ask.secure => Verdict::Answer(to(ask, ask.host, Some(port), if ask.method.is_safe() { 301 } else { 308 })),
        Some(_) | None => Verdict::Pass,
    }
}

/// A redirected name of a site: 308 to its canonical one, path and query kept; straight to https where the site has TLS.
#[must_use]
pub fn canonical(ask: &Ask, site: &GateSite, host: &Host) -> Reply {
    to(ask, host.as_str(), site.https, 308)
}

/// `https`: the port there, or `None` for the scheme in which the request came (on its default port: the listener's own is not ours to know).
fn to(ask: &Ask, host: &str, https: Option<u16>, status: u16) -> Reply {
    let mut url = Vec::with_capacity(host.len() + ask.target.len() + 16);
    url.extend_from_slice(if https.is_some() || ask.secure { b"https://" } else { b"http://" });
    if host.contains(':') {
        url.push(b'[');
        url.extend_from_slice(host.as_bytes());
        url.push(b']');
    } else {
        url.extend_from_slice(host.as_bytes());
    }
    if let Some(port) = https.filter(|port| *port != 443) {
        url.extend_from_slice(format!(":{port}").as_bytes());
    }
    // A target that is no path (`*`) leads to the root.
    url.extend_from_slice(if ask.target.first() == Some(&b'/') { ask.target } else { b"/" });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    match HeaderValue::from_bytes(&url) {
        Ok(url) if !host.is_empty() => Reply::redirect(status, url),
        Ok(_) | Err(_) => ask.page(StatusCode::BAD_REQUEST).by(refused::of_head(StatusCode::BAD_REQUEST)),
    }
}
