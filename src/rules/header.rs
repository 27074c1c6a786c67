//! Rules on header fields: which hosts are hosts, which fields end at a hop, what the strict set is, what never passes.
//!
//! Pure. Source: RFC 9110 §7.2 and §7.6.1, RFC 3986 §3.2, RFC 9112 §3.2, RFC 6797 §7.2.

use std::{net::Ipv6Addr, sync::LazyLock};

use http::{HeaderName, HeaderValue, header};
use thiserror::Error;

use crate::plan::HeaderEdit;

/// Fields that belong to one connection (RFC 9110 §7.6.1 and the registry), beside those that `Connection` names.
pub const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// `headers = "strict"`, in the order in which it is documented. An empty value removes the field.
pub const STRICT: [(HeaderName, &str); 9] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'self'; script-src 'self' 'unsafe-inline'"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    (header::X_XSS_PROTECTION, "1; mode=block"),
    (header::SERVER, ""),
    (HeaderName::from_static("x-powered-by"), ""),
];

static STRICT_EDITS: LazyLock<Vec<HeaderEdit>> = LazyLock::new(|| {
    STRICT.into_iter().map(|(name, value)| HeaderEdit::new(name, (!value.is_empty()).then(|| HeaderValue::from_static(value)))).collect()
});

/// The strict set as edits: what a site with `headers = "strict"` has, and every answer that belongs to no site.
#[must_use]
pub fn strict() -> &'static [HeaderEdit] {
    &STRICT_EDITS
}

/// Why a `Host` or `:authority` was refused.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum BadHost {
    #[error("the host is empty")]
    Empty,
    #[error("the host has more than 253 characters")]
    Long,
    #[error("the host has a character or a label that no host has")]
    Char,
    #[error("the port of the host is no port")]
    Port,
}

/// Where [`host`] writes a host that is not yet in its normal form; reused from one request to the next.
pub type HostBuf = String;

/// The normal form of a `Host` or `:authority`: without port, lower case, without the closing dot; an IPv6 literal without brackets, in its shortest form.
///
/// Shape: `buf` is touched only when `text` is not in normal form already. `a..b`, userinfo, spaces and anything but letters, digits, `-`, `_`, `.` are refused.
/// Errors: [`BadHost`].
pub fn host<'a>(text: &'a str, buf: &'a mut HostBuf) -> Result<&'a str, BadHost> {
    if let Some(rest) = text.strip_prefix('[') {
        let (literal, port) = rest.split_once(']').ok_or(BadHost::Char)?;
        if !port.is_empty() {
            check_port(port.strip_prefix(':').ok_or(BadHost::Char)?)?;
        }
        let ip: Ipv6Addr = literal.parse().map_err(|_| BadHost::Char)?;
        buf.clear();
        std::fmt::Write::write_fmt(buf, format_args!("{ip}")).expect("a String takes all text because it grows");
        return Ok(buf);
    }
    let name = match text.split_once(':') {
        Some((name, port)) => {
            check_port(port)?;
            name
        }
        None => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > 253 {
        return Err(BadHost::Long);
    }
    let mut upper = false;
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            _ => return Err(BadHost::Char),
        }
        if label > 63 {
            return Err(BadHost::Long);
        }
    }
    if label == 0 {
        return Err(BadHost::Char);
    }
    if !upper {
        return Ok(name);
    }
    buf.clear();
    buf.push_str(name);
    buf.make_ascii_lowercase();
    Ok(buf)
}

/// An empty port is a port (RFC 3986 §3.2.3).
fn check_port(port: &str) -> Result<(), BadHost> {
    if port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()) { Ok(()) } else { Err(BadHost::Port) }
}

/// Whether a field must not be passed on because of its name: `X_Real_IP` and `X-Real-IP` are one variable to CGI and WSGI apps.
#[must_use]
pub fn is_underscored(name: &HeaderName) -> bool {
    name.as_str().as_bytes().contains(&b'_')
}

/// Whether a field value holds a byte that no field value may hold: controls but the tab, and DEL (RFC 9110 §5.5).
#[must_use]
pub fn has_control(value: &[u8]) -> bool {
    // No early exit: the loop becomes a few vector instructions.
    value.iter().fold(false, |bad, &byte| bad | (byte < b' ' && byte != b'\t') | (byte == 0x7f))
}

/// Whether a request target holds a byte that no target may hold: controls, space, DEL, anything that is not ASCII, or the `#` of a fragment (RFC 9112 §3.2).
#[must_use]
pub fn has_bad_target_byte(target: &[u8]) -> bool {
    target.iter().fold(false, |bad, &byte| bad | (byte <= b' ') | (byte >= 0x7f) | (byte == b'#'))
}

/// Whether a request id that came with a request may be kept: 1 to 128 of `A-Z a-z 0-9 - _ . : + / = @`.
#[must_use]
pub fn is_request_id(text: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+' | b'/' | b'=' | b'@');
    (1..=128).contains(&text.len()) && text.iter().all(good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn norm(text: &str) -> Result<String, BadHost> {
        host(text, &mut HostBuf::new()).map(str::to_owned)
    }

    #[test]
    fn a_host_loses_its_port_its_case_and_its_closing_dot() {
        assert_eq!(norm("example.com").as_deref(), Ok("example.com"));
        assert_eq!(norm("Example.COM.:8443").as_deref(), Ok("example.com"));
        assert_eq!(norm("example.com:").as_deref(), Ok("example.com"));
        assert_eq!(norm("10.0.0.5:80").as_deref(), Ok("10.0.0.5"));
        assert_eq!(norm("[2001:DB8:0::1]:443").as_deref(), Ok("2001:db8::1"));
        assert_eq!(norm("my_app.local").as_deref(), Ok("my_app.local"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in [
            "",
            ".",
            ":80",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a@b",
            "user@host",
            "a,b",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:+80",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[1.2.3.4]",
            "::1",
            "ex\u{e4}mple.com",
            "a\0b",
            "a%2eb",
            "a#b",
            "a?b",
            "a\\b",
            "a\tb",
        ] {
            assert!(norm(bad).is_err(), "{bad:?}");
        }
        assert_eq!(norm(&"a".repeat(64)), Err(BadHost::Long));
        assert_eq!(norm(&["a"; 128].join(".")), Err(BadHost::Long));
    }

    #[test]
    fn the_strict_set_speaks_of_tls_only_on_tls() {
        let only: Vec<_> = strict().iter().filter(|edit| edit.tls_only).map(|edit| edit.name.clone()).collect();
        assert_eq!(only, [header::STRICT_TRANSPORT_SECURITY]);
        assert_eq!(strict().iter().filter(|edit| edit.value.is_none()).count(), 2);
    }

    #[test]
    fn forbidden_bytes_are_found_wherever_they_stand() {
        assert!(!has_control(b"text/html; q=0.5\t\xe4"));
        for bad in [b'\0', b'\r', b'\n', 0x7f, 0x1b] {
            assert!(has_control(&[b'a', bad]));
            assert!(has_bad_target_byte(&[b'/', bad, b'a']));
        }
        assert!(has_bad_target_byte(b"/a b") && has_bad_target_byte(b"/\xc3\xa4") && has_bad_target_byte(b"/a#b"));
        assert!(!has_bad_target_byte(b"/a?b=%20[]{}|^\"<>'"));
        assert!(is_underscored(&HeaderName::from_static("x_real_ip")) && !is_underscored(&header::HOST));
    }

    #[test]
    fn a_request_id_is_short_and_harmless() {
        assert!(is_request_id(b"4bf92f3577b34da6a3ce929d0e0e4736") && is_request_id(b"Root=1-67891233-abcdef012345678912345678"));
        assert!(!is_request_id(b"") && !is_request_id(b"<b>") && !is_request_id(b"a b") && !is_request_id(&[b'a'; 129]));
    }

    proptest! {
        #[test]
        fn normalising_a_host_twice_is_normalising_it_once(text in "\\PC{0,40}|[A-Za-z0-9.:_\\[\\]-]{0,40}") {
            if let Ok(once) = norm(&text) {
                // An IPv6 literal has lost its brackets, which are what told its colons from a port.
                let again = if once.contains(':') { format!("[{once}]") } else { once.clone() };
                prop_assert_eq!(norm(&again), Ok(once));
            }
        }
    }
}
