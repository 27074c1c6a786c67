//! Host names as a site lists them and as a request names them.
//!
//! Shape: lower case, no port, no trailing dot; labels of `a-z 0-9 - _`, or an IP literal without brackets.
//! Names in other scripts are kept as browsers send them: `bücher.example` is `xn--bcher-kva.example`.
//! Source: UTS 46 (other scripts), RFC 9110 §4.2.3 (case), RFC 3986 §3.2.2 (IP literals), RFC 1123 §2.1 (labels).

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a host was refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum HostError {
    #[error("a host may not be empty")]
    Empty,
    #[error("a host may have at most 253 characters")]
    Long,
    #[error("{0:?} is not a host name: labels of letters, digits and '-', divided by dots")]
    Label(String),
    #[error("{0:?} is not a host name: it has an empty label, or characters that no name may have (UTS 46)")]
    Script(String),
    #[error("{whole:?} names a port; write {host:?}, sites listen where [listen] says")]
    Port { whole: String, host: String },
    #[error("{whole:?} is a URL; write {host:?} alone: whether it is served over https is said by `tls`, where by [listen]")]
    Scheme { whole: String, host: String },
    #[error("{whole:?} has a path; write {host:?}, and the path as a route: [site.route.{path:?}]")]
    Path { whole: String, host: String, path: String },
    #[error("{0:?}: a wildcard stands for the whole first label, as in \"*.example.com\"")]
    Wildcard(String),
}

/// One host, normalised.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(std::sync::Arc<str>);

impl Host {
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_ascii() { Self::ascii(text) } else { Self::unicode(text) }
    }

    /// What stands between the scheme and the path of a URL, as browsers send it: a name in another script becomes `xn--`, a port and a leading `*.` stay.
    /// `None`: such a name is none. What is in ASCII is given back as it is.
    pub fn spell_authority(text: &str) -> Option<String> {
        if text.is_ascii() {
            return Some(text.to_owned());
        }
        let (host, port) = text.split_at(text.rfind(':').unwrap_or(text.len()));
        let (star, host) = host.strip_prefix("*.").map_or(("", host), |host| ("*.", host));
        Some(format!("{star}{}{port}", Self::parse(host).ok()?))
    }

    /// A name in another script, as browsers send it.
    fn unicode(text: &str) -> Result<Self, HostError> {
        // Longer than any name of 253 characters can be: four bytes each.
        if text.len() > 4 * 253 {
            return Err(HostError::Long);
        }
        if text.contains([':', '/']) {
            return Err(Self::more(text));
        }
        let script = || HostError::Script(text.into());
        Self::ascii(&idna::domain_to_ascii(text).map_err(|_| script())?).map_err(|_| script())
    }

    fn ascii(text: &str) -> Result<Self, HostError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(Self(ip.to_string().into()));
        }
        if text.len() > 253 {
            return Err(HostError::Long);
        }
        if text.contains([':', '/']) {
            return Err(Self::more(text));
        }
        let good = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !text.split('.').all(good) {
            return Err(HostError::Label(text.into()));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// What is more than a host in a text: a scheme, a path, a port.
    fn more(text: &str) -> HostError {
        let whole = text.to_owned();
        let bare = |text: &str| {
            let name = text.rsplit_once(':').filter(|(name, port)| !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()));
            name.map_or(text, |(name, _)| name).to_owned()
        };
        if let Some((_, rest)) = text.split_once("://") {
            return HostError::Scheme { whole, host: bare(rest.split(['/', '?', '#']).next().unwrap_or_default()) };
        }
        match text.split_once('/') {
            Some((host, path)) => HostError::Path { whole, host: bare(host), path: format!("/{path}") },
            None => HostError::Port { whole, host: bare(text) },
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;
    fn try_from(text: String) -> Result<Self, HostError> {
        Self::parse(&text)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.as_ref().to_owned()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a site answers to: one host, every direct or deeper sub-domain of one, or any name that no other site has.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum HostPattern {
    Exact(Host),
    /// `*.example.com`: the part after `*.`.
    Wildcard(Host),
    /// `_`
    Any,
}

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text {
            "_" => Ok(Self::Any),
            _ if text.starts_with("*.") => Host::parse(&text[2..]).map(Self::Wildcard),
            _ if text.contains('*') => Err(HostError::Wildcard(text.into())),
            _ => Host::parse(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Wildcard(host) => write!(f, "*.{host}"),
            Self::Any => f.write_str("_"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_without_dot_or_brackets() {
        assert_eq!(Host::parse("Example.COM.").expect("valid").as_str(), "example.com");
        assert_eq!(Host::parse("[::1]").expect("valid").as_str(), "::1");
        assert_eq!(HostPattern::parse("*.Example.com").expect("valid").to_string(), "*.example.com");
    }

    #[test]
    fn names_in_other_scripts_are_as_browsers_send_them() {
        let of = |text: &str| Host::parse(text).expect(text).to_string();
        assert_eq!(of("B\u{fc}cher.example"), "xn--bcher-kva.example");
        assert_eq!(of("stra\u{df}e.de"), "xn--strae-oqa.de", "as registries have it, and not as strasse");
        assert_eq!(of("\u{4f8b}\u{3048}\u{3002}\u{30c6}\u{30b9}\u{30c8}"), "xn--r8jz45g.xn--zckzah");
        assert_eq!(HostPattern::parse("*.b\u{fc}cher.example").expect("a pattern").to_string(), "*.xn--bcher-kva.example");
        assert_eq!(of(&of("b\u{fc}cher.example")), "xn--bcher-kva.example");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", ".", "a..b", "-a.b", "a b", "a/b", "b\u{fc}cher..de", "\u{fffd}.de", "example.com:80"] {
            assert!(Host::parse(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(HostPattern::parse("a.*.b"), Err(HostError::Wildcard(_))));
        let told = |text: &str| Host::parse(text).expect_err("no host").to_string();
        assert!(told("https://example.com").contains("write \"example.com\" alone"));
        assert!(told("https://example.com:8443/x?y").contains("write \"example.com\" alone"));
        assert!(told("example.com/blog").contains("[site.route.\"/blog\"]"));
        assert!(told("example.com:8443").contains("write \"example.com\""));
        assert!(told("https://b\u{fc}cher.example/").contains("write \"b\u{fc}cher.example\" alone"));
        assert!(told(&"\u{fc}".repeat(600)).contains("253"));
        for odd in ["://", "/", ":", "a:b:c", "://:/:", "//", "::"] {
            assert!(Host::parse(odd).is_err() || odd == "::", "{odd}");
        }
    }
}
