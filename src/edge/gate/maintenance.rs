//! A page in the place of a site, for everyone but those who know a word.
//!
//! Shape: the secret is given once, as `?gateway-maintenance=SECRET`: the client gets a cookie that proves it without telling it, and the same address without
//!        it; a program sends it as `Gateway-Maintenance`. Comparisons are constant-time. Neither the access log nor the app sees it.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::{Ask, GateSite, Verdict};
use crate::{
    edge::{refused, reply::Reply},
    plan,
    vocab::Secret,
};

/// The parameter and the cookie.
const NAME: &str = "gateway-maintenance";
/// The field by which a program gives the secret.
pub const FIELD: HeaderName = HeaderName::from_static(NAME);
/// A page of one file has its style in it, which the strict policy would not show.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'";

/// `maintenance` of a site made ready.
#[derive(Debug)]
pub struct Maintenance {
    on: AtomicBool,
    page: Option<Bytes>,
    policy: Option<HeaderValue>,
    retry_after: Duration,
    pass: Option<Pass>,
}

/// What lets a client through.
#[derive(Debug)]
struct Pass {
    secret: Secret<Box<[u8]>>,
    /// Of the cookie, in hexadecimal: made of the secret, and another one for each site.
    proof: Secret<String>,
}

/// The page, and before that the cookie for whoever has brought the secret.
pub(super) fn admit(ask: &Ask, site: &GateSite) -> Verdict {
    let Maintenance { on, page, policy, retry_after, pass } = &site.maintenance;
    if let Some(pass) = pass {
        if ask.method.is_safe()
            && let Some(rest) = pass.redeemed(ask.target)
        {
            return Verdict::Answer(pass.welcome(&rest, ask.tls));
        }
        if on.load(Relaxed) && pass.admits(ask.headers) {
            return Verdict::Pass;
        }
    }
    if !on.load(Relaxed) {
        return Verdict::Pass;
    }
    let reply = match page {
        Some(page) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, HeaderValue::from_static("text/html; charset=utf-8"), page.clone())
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        None => ask.page(StatusCode::SERVICE_UNAVAILABLE),
    };
    let reply = match policy {
        Some(policy) => reply.with(header::CONTENT_SECURITY_POLICY, policy.clone()),
        None => reply,
    };
    Verdict::Answer(reply.by(refused::MAINTENANCE).with_retry_after(*retry_after))
}

/// What of an address may be written down: a path and no query, where the query may hold the secret.
#[must_use]
pub fn without_secret(target: &[u8]) -> &[u8] {
    let (path, query) = target.split_at(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()));
    if memchr::memmem::find(query, NAME.as_bytes()).is_some() { path } else { target }
}

/// The address as others than the app may hear of it: the parameter is gone, and all else is there, for they may decide by it.
#[must_use]
pub fn without_parameter(target: &[u8]) -> Cow<'_, [u8]> {
    if without_secret(target).len() == target.len() {
        return Cow::Borrowed(target);
    }
    let (path, query) = target.split_at(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()));
    let mut rest = path.to_vec();
    push_others(query.strip_prefix(b"?").unwrap_or(query), &mut rest);
    Cow::Owned(rest)
}

fn is_ours(pair: &[u8]) -> bool {
    pair.strip_prefix(NAME.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
}

/// Every pair of a query that is not ours.
fn push_others(query: &[u8], to: &mut Vec<u8>) {
    let mut joint = b'?';
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !is_ours(pair)) {
        to.push(joint);
        to.extend_from_slice(pair);
        joint = b'&';
    }
}

impl Maintenance {
    #[must_use]
    pub fn new(site: &plan::Site) -> Self {
        let plan::Maintenance { on, page, secret, retry_after } = &site.maintenance;
        let plan::HeaderSet { base, own } = &site.headers;
        let usual = *base == plan::HeaderBase::Strict && !own.iter().any(|edit| edit.name == header::CONTENT_SECURITY_POLICY);
        Self {
            on: AtomicBool::new(*on),
            page: page.as_ref().map(|page| Bytes::from(page.html.clone())),
            // A policy of the user's own stands.
            policy: (usual && page.is_some()).then_some(HeaderValue::from_static(POLICY)),
            retry_after: *retry_after,
            pass: secret.as_ref().map(|secret| Pass::new(secret, &site.name)),
        }
    }

    pub fn set(&self, on: bool) {
        self.on.store(on, Relaxed);
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }
}

impl Pass {
    fn new(secret: &Secret<String>, site: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let tag = hmac::sign(&key, format!("maintenance of {site}").as_bytes());
        let proof = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { secret: Secret::new(secret.reveal().as_bytes().into()), proof: Secret::new(proof) }
    }

    /// The same address without the secret, if it has the right one.
    fn redeemed(&self, target: &[u8]) -> Option<Vec<u8>> {
        let at = target.iter().position(|byte| *byte == b'?')?;
        let (path, query) = (&target[..at], &target[at + 1..]);
        let given = query.split(|byte| *byte == b'&').find(|pair| is_ours(pair))?;
        if !bool::from(given[NAME.len() + 1..].ct_eq(self.secret.reveal())) {
            return None;
        }
        // Two slashes, or what browsers take for one, would lead to another host.
        let mut rest = vec![b'/'];
        rest.extend_from_slice(
            path.get(path.iter().position(|byte| !matches!(byte, b'/' | b'\\')).unwrap_or(path.len())..).unwrap_or_default(),
        );
        push_others(query, &mut rest);
        Some(rest)
    }

    fn welcome(&self, to: &[u8], tls: bool) -> Reply {
        let secure = if tls { "; Secure" } else { "" };
        let cookie = format!("{NAME}={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax{secure}", self.proof.reveal());
        match (HeaderValue::from_bytes(to), HeaderValue::try_from(cookie)) {
            (Ok(to), Ok(mut cookie)) => {
                cookie.set_sensitive(true);
                Reply::redirect(StatusCode::SEE_OTHER, to)
                    .with(header::SET_COOKIE, cookie)
                    .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            }
            _ => Reply::bare(StatusCode::BAD_REQUEST),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let crumbs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        let mut cookies = crumbs.filter_map(|crumb| crumb.trim_ascii().strip_prefix(NAME.as_bytes())?.strip_prefix(b"="));
        let mut given = headers.get_all(FIELD).iter();
        cookies.any(|cookie| bool::from(cookie.ct_eq(self.proof.reveal().as_bytes())))
            || given.any(|secret| bool::from(secret.as_bytes().ct_eq(self.secret.reveal())))
    }
}
