//! Header fields: which are looked at how, and how their values are laid out as parameters.

use http::{HeaderName, header};

use super::decode::AMPERSAND;

/// How a field's value is to be read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    /// A grammar of its own, full of quotes, stars and semicolons, that no app puts into a query or a page: only lookups and function definitions are looked for.
    Structural,
    /// An address: what stands behind the host is looked at.
    Address,
    /// One that every browser sends, where nothing but look-ups counts.
    Usual,
    /// Pairs.
    Cookie,
    Text,
}

impl Kind {
    pub fn of(name: &HeaderName) -> Self {
        match *name {
            header::COOKIE => Self::Cookie,
            header::REFERER => Self::Address,
            header::CONNECTION
            | header::CONTENT_DISPOSITION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::DATE
            | header::EXPECT
            | header::HOST
            | header::IF_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::IF_RANGE
            | header::IF_UNMODIFIED_SINCE
            | header::PRAGMA
            | header::RANGE
            | header::TE
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::VIA => Self::Structural,
            _ if ["sec-", "if-", "ce-"].iter().any(|start| name.as_str().starts_with(start)) => Self::Structural,
            _ => Self::Text,
        }
    }

    /// Whether there is anything to look at: most values are names, numbers and their separators.
    pub fn is_suspect(self, value: &[u8]) -> bool {
        match self {
            Self::Structural => value.iter().any(|byte| matches!(byte, b'$' | b'{')),
            Self::Usual => value.windows(2).any(|two| matches!(two, b"${" | b"()")),
            Self::Address => !scheme_off(value).unwrap_or(value).iter().all(|byte| plain(*byte) || *byte == b'/') || has_way_up(value),
            Self::Cookie | Self::Text => !value.iter().all(|byte| plain(*byte)) || has_way_up(value),
        }
    }

    /// The value as a query.
    pub fn lay_out(self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.len() + 4);
        match self {
            Self::Structural | Self::Usual | Self::Text => {
                out.extend_from_slice(b"?f=");
                out.extend(value.iter().map(|byte| whole(*byte)));
            }
            Self::Address => match scheme_off(value).and_then(|rest| Some(&rest[rest.iter().position(|byte| *byte == b'/')?..])) {
                Some(path) => out.extend_from_slice(path),
                None => {
                    out.extend_from_slice(b"?f=");
                    out.extend(value.iter().map(|byte| whole(*byte)));
                }
            },
            Self::Cookie => {
                out.push(b'?');
                for pair in value.split(|byte| *byte == b';') {
                    if out.len() > 1 {
                        out.push(b'&');
                    }
                    out.extend(pair.trim_ascii().iter().map(|byte| whole(*byte)));
                }
            }
        }
        out
    }
}

/// Whether browsers send a field of this name by themselves.
pub(super) fn is_browsers(name: &HeaderName) -> bool {
    [header::REFERER, header::COOKIE, header::USER_AGENT, header::ORIGIN, header::AUTHORIZATION, header::HOST, header::DNT].contains(name)
        || ["accept", "sec-", "if-", "content-", "cache-control", "upgrade-insecure-requests", "priority", "save-data", "last-event-id"]
            .iter()
            .any(|start| name.as_str().starts_with(start))
}

fn scheme_off(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"https://").or_else(|| value.strip_prefix(b"http://"))
}

fn has_way_up(value: &[u8]) -> bool {
    value.windows(2).any(|two| two == b".." || two == b"__")
}

/// An ampersand divides nothing here.
pub(super) fn whole(byte: u8) -> u8 {
    if byte == b'&' { AMPERSAND } else { byte }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b',' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_laid_out_as_what_it_is() {
        let laid_out = |name: &str, value: &str| {
            let name = HeaderName::try_from(name).expect("a name");
            String::from_utf8(Kind::of(&name).lay_out(value.as_bytes())).expect("text")
        };
        assert_eq!(laid_out("cookie", "a=b; c=d;e=f"), "?a=b&c=d&e=f");
        assert_eq!(laid_out("referer", "https://a.example/x/index.php?q=1"), "/x/index.php?q=1");
        assert_eq!(laid_out("referer", "' or 1=1"), "?f=' or 1=1");
        assert_eq!(laid_out("user-agent", "x"), "?f=x");
    }

    #[test]
    fn plain_values_are_not_looked_at() {
        for (name, value) in [
            ("accept-language", "en"),
            ("user-agent", "curl"),
            ("cookie", "a"),
            ("referer", "https://a.example/b/c"),
            ("if-none-match", "W/\"a\""),
        ] {
            assert!(!Kind::of(&HeaderName::from_static(name)).is_suspect(value.as_bytes()), "{name}");
        }
        for (name, value) in [
            ("accept", "${jndi:x}"),
            ("user-agent", "() { :;}"),
            ("cookie", "a='"),
            ("x-a", "<"),
            ("user-agent", "1 union select 2"),
            ("x-file", "a..b"),
            ("referer", "'or 1=1"),
        ] {
            assert!(Kind::of(&HeaderName::from_static(name)).is_suspect(value.as_bytes()), "{name}");
        }
    }
}
