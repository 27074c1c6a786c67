//! What a request looks like to an upstream: its path after `strip` and `rewrite`, and the fields that say who asked for what.
//!
//! Source: RFC 3986 §2.1 (what must be encoded), nginx `rewrite` (the whole path is replaced, the query is kept).

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::{Regex, RegexBuilder};

use super::tls::mutual::ClientCertificate;
use crate::{ipc::why::LONGEST_ID, plan::Rewrite, rules::route};

pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What else a proxy may say of the client, and what makes some apps believe in another path: from a stranger it is hearsay.
pub const HEARSAY: [HeaderName; 7] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// What is said of a client's certificate. From clients it is never taken, nor from proxies: only a handshake with us proves anything.
pub const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
pub const X_CLIENT_CERT_FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");
pub const X_CLIENT_CERT_SERIAL: HeaderName = HeaderName::from_static("x-client-cert-serial");

/// Every field that the edge sets itself, or takes from those whom it trusts alone.
#[must_use]
pub fn said() -> Vec<HeaderName> {
    let own = [X_REAL_IP, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_REQUEST_ID];
    let certificate = [X_CLIENT_CERT_SUBJECT, X_CLIENT_CERT_FINGERPRINT, X_CLIENT_CERT_SERIAL];
    own.into_iter().chain(certificate).chain(HEARSAY).collect()
}

/// How a route changes the path.
#[derive(Debug, Default)]
pub struct Rewriter {
    strip: Option<String>,
    rewrite: Option<(Regex, String)>,
}

impl Rewriter {
    /// Errors: the pattern does not compile, which the loader has checked.
    pub fn new(strip: Option<&str>, rewrite: Option<&Rewrite>) -> Result<Self, regex::Error> {
        let rewrite = match rewrite {
            Some(Rewrite { pattern, to }) => {
                // `$1x` is group 1 and an x, as in nginx; to the regex crate it would be a group called "1x".
                let digit = Regex::new(r"\$(\d)")?;
                Some((RegexBuilder::new(pattern).dot_matches_new_line(true).build()?, digit.replace_all(to, "$${$1}").into_owned()))
            }
            None => None,
        };
        Ok(Self { strip: strip.map(str::to_owned), rewrite })
    }

    /// The target to send on; `None`: as received.
    #[must_use]
    pub fn target(&self, path: &str, query: Option<&str>) -> Option<String> {
        let mut target = if let Some((pattern, to)) = &self.rewrite
            && let decoded = route::normal(path)
            && let Some(found) = pattern.captures(&decoded)
        {
            let (path, query) = to.split_once('?').map_or((&**to, None), |(path, query)| (path, Some(query)));
            let expand = |part: &str| {
                let mut new = String::new();
                found.expand(part, &mut new);
                new
            };
            let mut new = encode(&expand(path));
            if let Some(query) = query {
                new.push('?');
                escape(&expand(query), &mut new);
            }
            new
        } else if let Some(prefix) = &self.strip {
            stripped(path, prefix)?
        } else {
            route::resolved(path)?
        };
        if let Some(query) = query {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        Some(target)
    }
}

/// The prefix off, a slash in front; the rest as received where it was received plainly.
fn stripped(path: &str, prefix: &str) -> Option<String> {
    let plain = route::resolved(path);
    let path = plain.as_deref().unwrap_or(path);
    let rest = match path.strip_prefix(prefix) {
        Some(rest) => Cow::Borrowed(rest),
        // Matched decoded (`/%61pi/x`): cut decoded too.
        None => match route::normal(path).strip_prefix(prefix) {
            Some(rest) => Cow::Owned(encode(rest)),
            None => return plain,
        },
    };
    // One slash: `//host/x` would be read as an authority by some.
    Some(format!("/{}", rest.trim_start_matches('/')))
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        out.push('/');
    }
    // Of the client's own, sent as `%3F` and `%25`: the one would end the path, the other begin an escape that was none.
    for part in text.split_inclusive(['?', '%']) {
        let plain = part.trim_end_matches(['?', '%']);
        escape(plain, &mut out);
        out.push_str(match part.as_bytes().last() {
            Some(b'?') => "%3F",
            Some(b'%') => "%25",
            Some(_) | None => "",
        });
    }
    out
}

/// What a query of the user's own may hold stays, its escapes too.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// An id of our own, or the one that a trusted peer sent.
#[must_use]
pub fn request_id(headers: &HeaderMap, trusted: bool) -> HeaderValue {
    let kept = headers.get(X_REQUEST_ID).filter(|id| trusted && (1..=LONGEST_ID).contains(&id.len()));
    if let Some(id) = kept.filter(|id| id.as_bytes().iter().all(u8::is_ascii_graphic)) {
        return id.clone();
    }
    let mut hex = [0; 32];
    let mut bits = fastrand::u128(..);
    for digit in &mut hex {
        *digit = b"0123456789abcdef"[(bits & 15) as usize];
        bits >>= 4;
    }
    HeaderValue::from_bytes(&hex).expect("hexadecimal digits are a field value because they are visible ASCII")
}

/// Several `Cookie` fields as the one that HTTP/1 knows; `None`: there are not several.
///
/// Source: RFC 9113 §8.2.3: an HTTP/2 client may split them, and they are to be joined before anyone else reads them.
#[must_use]
pub fn cookie(had: &HeaderMap) -> Option<HeaderValue> {
    let mut crumbs = had.get_all(http::header::COOKIE).iter();
    let (first, second) = (crumbs.next()?, crumbs.next()?);
    let mut all = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(crumb.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

/// Who asked for what.
#[derive(Debug)]
pub struct Origin<'a> {
    pub peer: IpAddr,
    pub client: IpAddr,
    /// Whether the peer is one of `trusted_proxies`: what it says of hops before it stands.
    pub trusted: bool,
    pub tls: bool,
    /// As received, with the port.
    pub host: Option<&'a HeaderValue>,
    pub request_id: &'a HeaderValue,
}

/// Calls `set` for every forwarded field; `had` are the request's own.
///
/// Shape: `X-Forwarded-For` is appended to, or begun anew when the peer is not trusted; `-Proto` and `-Host` of a trusted peer stand.
pub fn fields(origin: &Origin<'_>, had: &HeaderMap, mut set: impl FnMut(HeaderName, HeaderValue)) {
    let peer = address(origin.peer);
    let chain = had.get_all(X_FORWARDED_FOR);
    let forwarded = match (origin.trusted, chain.iter().next()) {
        (true, Some(_)) => {
            let mut all = Vec::with_capacity(64);
            for value in chain {
                all.extend_from_slice(value.as_bytes());
                all.extend_from_slice(b", ");
            }
            all.extend_from_slice(peer.as_bytes());
            HeaderValue::from_bytes(&all).unwrap_or_else(|_| peer.clone())
        }
        (true, None) | (false, _) => peer.clone(),
    };
    set(X_FORWARDED_FOR, forwarded);
    set(X_REAL_IP, if origin.client == origin.peer { peer } else { address(origin.client) });
    let stands = |name: &HeaderName| origin.trusted && had.contains_key(name);
    if !stands(&X_FORWARDED_PROTO) {
        set(X_FORWARDED_PROTO, HeaderValue::from_static(if origin.tls { "https" } else { "http" }));
    }
    if let Some(host) = origin.host.filter(|_| !stands(&X_FORWARDED_HOST)) {
        set(X_FORWARDED_HOST, host.clone());
    }
    set(X_REQUEST_ID, origin.request_id.clone());
}

/// Calls `set` for each of the three fields: a value, or `None` where there is to be none.
pub fn certificate(certificate: Option<&ClientCertificate>, mut set: impl FnMut(HeaderName, Option<HeaderValue>)) {
    set(X_CLIENT_CERT_SUBJECT, certificate.and_then(|certificate| certificate.subject.clone()));
    set(X_CLIENT_CERT_FINGERPRINT, certificate.map(|certificate| certificate.fingerprint.clone()));
    set(X_CLIENT_CERT_SERIAL, certificate.and_then(|certificate| certificate.serial.clone()));
}

fn address(ip: IpAddr) -> HeaderValue {
    use std::io::Write;
    let mut text = [0_u8; 48];
    let mut rest = &mut text[..];
    write!(rest, "{}", ip.to_canonical()).expect("48 bytes hold every address because the longest has 45");
    let left = rest.len();
    HeaderValue::from_bytes(&text[..48 - left]).expect("an address is a field value because it is visible ASCII")
}

/// Fills `{path}` and `{query}` into a redirect's target; `{query}` brings its own `?`.
#[must_use]
pub fn fill(to: &str, path: &str, query: Option<&str>) -> String {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    to.replace("{path}", path).replace("{query}", &query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter(strip: Option<&str>, rewrite: Option<(&str, &str)>) -> Rewriter {
        let rewrite = rewrite.map(|(pattern, to)| Rewrite { pattern: pattern.into(), to: to.into() });
        Rewriter::new(strip, rewrite.as_ref()).expect("good pattern")
    }

    #[test]
    fn nothing_to_do_sends_on_what_was_received() {
        assert_eq!(rewriter(None, None).target("/a%20b//c", Some("q=1")), None);
        assert_eq!(rewriter(None, None).target("/a/../b", Some("q=1")).as_deref(), Some("/b?q=1"));
    }

    #[test]
    fn a_stripped_prefix_leaves_a_path() {
        let strip = rewriter(Some("/api"), None);
        assert_eq!(strip.target("/api/users", Some("q=%2F")).as_deref(), Some("/users?q=%2F"));
        assert_eq!(strip.target("/api", None).as_deref(), Some("/"));
        assert_eq!(strip.target("/%61pi/a%20b", None).as_deref(), Some("/a%20b"));
        assert_eq!(strip.target("/x/../api/y", None).as_deref(), Some("/y"));
        assert_eq!(strip.target("/api//evil.test/x", None).as_deref(), Some("/evil.test/x"), "no authority comes to be");
    }

    #[test]
    fn a_rewrite_replaces_the_path_and_keeps_the_query() {
        let rewrite = rewriter(None, Some(("^/old/(.*)$", "/new/$1x")));
        assert_eq!(rewrite.target("/old/a%20b", Some("q")).as_deref(), Some("/new/a%20bx?q"));
        assert_eq!(rewrite.target("/other", None), None);
        let under = rewriter(None, Some(("^/f/(.*)$", "/files/$1/public")));
        assert_eq!(under.target("/f/secret%3F", None).as_deref(), Some("/files/secret%3F/public"), "no escape cuts the path off");
        assert_eq!(
            under.target("/f/%252e%252e%252fx", None).as_deref(),
            Some("/files/%252e%252e%252fx/public"),
            "nor is one decoded twice"
        );
        assert_eq!(under.target("/f/100%25", None).as_deref(), Some("/files/100%25/public"));
        assert_eq!(rewriter(None, Some(("^/(\\d+)$", "/item?id=$1"))).target("/7", Some("q")).as_deref(), Some("/item?id=7&q"));
    }

    fn forwarded(trusted: bool, had: &[(&'static str, &'static str)]) -> HeaderMap {
        let had: HeaderMap = had.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        let (host, request_id) = (HeaderValue::from_static("a.test:8443"), HeaderValue::from_static("id"));
        let ip = |text: &str| text.parse().expect("an address");
        let origin = Origin {
            peer: ip("::ffff:10.0.0.1"),
            client: ip("203.0.113.7"),
            trusted,
            tls: true,
            host: Some(&host),
            request_id: &request_id,
        };
        let mut out = HeaderMap::new();
        fields(&origin, &had, |name, value| {
            out.insert(name, value);
        });
        out
    }

    #[test]
    fn an_untrusted_peer_cannot_speak_for_others() {
        let out = forwarded(false, &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "evil")]);
        assert_eq!(out[X_FORWARDED_FOR], "10.0.0.1");
        assert_eq!(out[X_FORWARDED_PROTO], "https");
        assert_eq!(out[X_FORWARDED_HOST], "a.test:8443");
        assert_eq!(out[X_REAL_IP], "203.0.113.7");
    }

    #[test]
    fn a_trusted_peer_is_appended_to() {
        let out = forwarded(true, &[("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "http")]);
        assert_eq!(out[X_FORWARDED_FOR], "203.0.113.7, 10.0.0.1");
        assert!(!out.contains_key(X_FORWARDED_PROTO), "what it says stands");
    }

    #[test]
    fn cookies_that_http2_split_are_one_again() {
        let mut had = HeaderMap::new();
        had.append(http::header::COOKIE, HeaderValue::from_static("a=1"));
        assert_eq!(cookie(&had), None);
        had.append(http::header::COOKIE, HeaderValue::from_static("b=2"));
        had.append(http::header::COOKIE, HeaderValue::from_static("c=3"));
        assert_eq!(cookie(&had).expect("several"), "a=1; b=2; c=3");
    }

    #[test]
    fn ids_are_kept_from_trusted_peers_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("theirs"));
        assert_eq!(request_id(&headers, true), "theirs");
        let own = request_id(&headers, false);
        assert_eq!(own.len(), 32);
        assert_ne!(own, request_id(&headers, false));
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("a b"));
        assert_ne!(request_id(&headers, true), "a b");
    }

    #[test]
    fn redirects_are_filled_in() {
        assert_eq!(fill("https://b{path}{query}", "/x", Some("q=1")), "https://b/x?q=1");
        assert_eq!(fill("https://b{path}{query}", "/x", None), "https://b/x");
        assert_eq!(fill("https://b/new", "/x", Some("q")), "https://b/new");
    }
}
