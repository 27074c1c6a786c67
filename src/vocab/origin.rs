//! Where a page comes from, as browsers say it in `Origin`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::host::Host;

/// Origins that are meant: `https://app.example.com`, `https://*.example.com:8443`, or `*` for every one.
///
/// Shape: in the form in which browsers write it: lower case, without the port that belongs to the scheme, without a path.
/// Source: RFC 6454 §6.2; the Fetch standard, "serialize a request origin".
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OriginPattern {
    Any,
    Exact(String),
    /// Names below a domain, at any depth; not the domain itself.
    Below {
        /// As in `https://`.
        scheme: String,
        /// As in `.example.com:8443`.
        domain: String,
    },
}

/// Why a text is no origin.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum OriginError {
    #[error("{0:?} is not an origin: write it as in \"https://app.example.com\" or \"https://*.example.com\"")]
    Shape(String),
    #[error("{0:?} has a path, which no origin has: write {1:?}")]
    Path(String, String),
    #[error("\"null\" is the origin of whoever hides his own: it cannot be told who that is")]
    Null,
}

impl OriginPattern {
    /// Errors: [`OriginError`]
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Err(OriginError::Null),
            _ => {}
        }
        let shape = || OriginError::Shape(text.to_owned());
        let lower = spelled(text).ok_or_else(shape)?;
        let (scheme, rest) = lower.split_once("://").ok_or_else(shape)?;
        let good = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if lower.len() > 300 || !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(good) {
            return Err(shape());
        }
        if let Some((origin, _)) = rest.split_once(['/', '?', '#']) {
            return Err(OriginError::Path(text.to_owned(), format!("{scheme}://{origin}")));
        }
        let usual = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "",
        };
        let rest = if usual.is_empty() { rest } else { rest.strip_suffix(usual).unwrap_or(rest) };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (rest, None),
        };
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with(['0', '+'])) {
            return Err(shape());
        }
        if let Some(domain) = host.strip_prefix('*') {
            let named = domain.strip_prefix('.').is_some_and(is_name);
            let scheme = format!("{scheme}://");
            return if named { Ok(Self::Below { scheme, domain: rest[1..].to_owned() }) } else { Err(shape()) };
        }
        let address =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        if address || is_name(host) { Ok(Self::Exact(format!("{scheme}://{rest}"))) } else { Err(shape()) }
    }

    /// Whether this origin is meant.
    #[must_use]
    pub fn admits(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.as_bytes() == origin,
            Self::Below { scheme, domain } => {
                let name = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_suffix(domain.as_bytes()));
                name.and_then(|name| std::str::from_utf8(name).ok()).is_some_and(is_name)
            }
        }
    }
}

/// In lower case, and the host as browsers send it.
fn spelled(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if lower.is_ascii() {
        return Some(lower);
    }
    let (scheme, rest) = lower.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some(format!("{scheme}://{}{path}", Host::spell_authority(authority)?))
}

/// Labels of a host in lower case.
fn is_name(text: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    text.split('.').all(label)
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(exact) => f.write_str(exact),
            Self::Below { scheme, domain } => write!(f, "{scheme}*{domain}"),
        }
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        Self::parse(&text)
    }
}

impl From<OriginPattern> for String {
    fn from(pattern: OriginPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        for (text, origin) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://a.test:443", "https://a.test"),
            ("http://a.test:80", "http://a.test"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(pattern(text).to_string(), origin);
            assert!(pattern(text).admits(origin.as_bytes()) && !pattern(text).admits(format!("{origin}.evil.test").as_bytes()), "{text}");
        }
        for bad in [
            "",
            "a.test",
            "https://",
            "https://*",
            "https://*.",
            "https://*a.test",
            "https://a.*.test",
            "https://a b",
            "https://a.test:0",
            "https://a.test:x",
            "https://a..b",
            "1://a",
            "null",
            "https://a.test/",
            "https://a.test/x",
        ] {
            assert!(OriginPattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            OriginPattern::parse("https://a.test/x").expect_err("a path").to_string(),
            "\"https://a.test/x\" has a path, which no origin has: write \"https://a.test\""
        );
    }

    #[test]
    fn names_below_a_domain_are_meant_and_no_look_alikes() {
        let below = pattern("https://*.example.com:8443");
        for good in ["https://a.example.com:8443", "https://a.b-c.example.com:8443"] {
            assert!(below.admits(good.as_bytes()), "{good}");
        }
        for bad in [
            "https://example.com:8443",
            "https://.example.com:8443",
            "https://a.example.com",
            "http://a.example.com:8443",
            "https://aexample.com:8443",
            "https://evil.test/.example.com:8443",
            "https://evil.test#.example.com:8443",
            "https://user@.example.com:8443",
            "https://a.example.com:8443.evil.test",
            "null",
            "",
        ] {
            assert!(!below.admits(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_no_text_panics(text in "(https?://|[a-z]{1,4}://)?(\\*\\.)?[a-zA-Z0-9.:\\[\\]/*-]{0,30}") {
            if let Ok(pattern) = OriginPattern::parse(&text) {
                prop_assert_eq!(OriginPattern::parse(&pattern.to_string()), Ok(pattern));
            }
        }
    }
}
