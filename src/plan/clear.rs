//! What crosses the network unprotected.
//!
//! Pure.

use super::{Auth, Plan, Site, SiteTls};

/// Sites whose users tell their passwords to everybody on the way: without TLS, where others than this machine can come.
pub fn in_the_clear(plan: &Plan) -> impl Iterator<Item = &Site> {
    let public = plan.listen.http.iter().any(|address| !address.ip().is_loopback());
    let asks = |site: &&Site| site.routes.iter().any(|route| matches!(route.auth, Some(Auth::Basic(_))));
    plan.sites.iter().filter(move |site| public && site.tls == SiteTls::Off).filter(asks)
}
