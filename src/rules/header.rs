//! Rules on header fields: which hosts are hosts, which fields end at a hop, what the sets of answers are, what never passes.
//!
//! Pure. Source: RFC 9110 §7.2 and §7.6.1, RFC 3986 §3.2, RFC 9112 §3.2, RFC 6797 §7.2.

use std::{net::Ipv6Addr, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use thiserror::Error;

use crate::plan::{HeaderBase, HeaderEdit, HeaderSet};

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

/// When a field of a set is added to an answer that does not have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    Always,
    /// Over TLS (RFC 6797 §7.2).
    Tls,
    /// Over TLS with a certificate that clients trust: a browser that believed it of our own CA would shut the other ports of a development host for a year.
    Trusted,
    /// Where the app says nothing of framing itself, in either field: it is one choice.
    Unframed,
}

/// What an answer is sent over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    Plain,
    /// With a certificate of our own CA, or one that signed itself.
    Tls,
    Trusted,
}

impl Channel {
    /// Where nothing is known of the certificate.
    #[must_use]
    pub fn of(tls: bool) -> Self {
        if tls { Self::Tls } else { Self::Plain }
    }
}

/// A field that answers get; `None` removes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dress {
    pub name: HeaderName,
    pub value: Option<HeaderValue>,
    pub when: When,
}

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// `headers = "standard"`, in the order in which it is documented: nothing that an honest site would break by. An empty value removes the field.
pub static STANDARD: [(HeaderName, &str, When); 9] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000", When::Trusted),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff", When::Always),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN", When::Unframed),
    (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'self'", When::Unframed),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin", When::Always),
    (PERMISSIONS_POLICY, "camera=(self), microphone=(self), geolocation=(self)", When::Always),
    (header::X_XSS_PROTECTION, "0", When::Always),
    (header::SERVER, "", When::Always),
    (X_POWERED_BY, "", When::Always),
];

/// `headers = "strict"`, likewise.
pub static STRICT: [(HeaderName, &str, When); 9] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains", When::Tls),
    (header::X_FRAME_OPTIONS, "DENY", When::Always),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff", When::Always),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin", When::Always),
    (header::CONTENT_SECURITY_POLICY, STRICT_POLICY, When::Always),
    (PERMISSIONS_POLICY, "camera=(), microphone=(), geolocation=()", When::Always),
    (header::X_XSS_PROTECTION, "1; mode=block", When::Always),
    (header::SERVER, "", When::Always),
    (X_POWERED_BY, "", When::Always),
];

pub const STRICT_POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'";

/// The fields of a set.
#[must_use]
pub fn base(base: HeaderBase) -> &'static [(HeaderName, &'static str, When)] {
    match base {
        HeaderBase::Standard => &STANDARD,
        HeaderBase::Strict => &STRICT,
        HeaderBase::Off => &[],
    }
}

/// What the answers of a site get: the base, and the user's own over it.
#[must_use]
pub fn dress(set: &HeaderSet) -> Vec<Dress> {
    let value = |value: &'static str| (!value.is_empty()).then(|| HeaderValue::from_static(value));
    let mut all: Vec<_> =
        base(set.base).iter().map(|(name, text, when)| Dress { name: name.clone(), value: value(text), when: *when }).collect();
    for HeaderEdit { name, value, tls_only } in &set.own {
        let own = Dress { name: name.clone(), value: value.clone(), when: if *tls_only { When::Tls } else { When::Always } };
        match all.iter_mut().find(|other| other.name == own.name) {
            Some(other) => *other = own,
            None => all.push(own),
        }
    }
    all
}

static OF_NOBODY: LazyLock<Vec<Dress>> = LazyLock::new(|| dress(&HeaderSet::default()));

/// What an answer gets that belongs to no site.
#[must_use]
pub fn of_nobody() -> &'static [Dress] {
    &OF_NOBODY
}

/// Gives an answer the fields of its site: one that it has already is kept, one without a value is removed.
pub fn put_on(headers: &mut HeaderMap, dress: &[Dress], channel: Channel) {
    let framed = headers.contains_key(header::X_FRAME_OPTIONS) || headers.contains_key(header::CONTENT_SECURITY_POLICY);
    for Dress { name, value, when } in dress {
        let Some(value) = value else {
            headers.remove(name);
            continue;
        };
        let due = match when {
            When::Always => true,
            When::Tls => channel != Channel::Plain,
            When::Trusted => channel == Channel::Trusted,
            When::Unframed => !framed,
        };
        if due && !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
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

/// The target with each byte encoded that no URI holds and that browsers and programs send all the same: `None` where there is none.
/// Controls, blanks and `#` are no bytes of a target at all ([`has_bad_target_byte`]).
///
/// Source: RFC 3986 §2 (what a URI holds), Appendix C (delimiters around it); nginx passes all of these.
#[must_use]
pub fn encoded_target(target: &[u8]) -> Option<Vec<u8>> {
    let raw = |byte: u8| byte >= 0x80 || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    if !target.iter().any(|byte| raw(*byte)) {
        return None;
    }
    let mut encoded = Vec::with_capacity(target.len() + target.len() / 2);
    for &byte in target {
        if raw(byte) {
            let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half & 15)];
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        } else {
            encoded.push(byte);
        }
    }
    Some(encoded)
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

    fn dressed(set: &HeaderSet, sent: &[(&'static str, &'static str)], channel: Channel) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        put_on(&mut headers, &dress(set), channel);
        headers
    }

    #[test]
    fn the_standard_set_shuts_no_other_port_and_says_so_only_where_clients_trust_us() {
        let set = HeaderSet::default();
        assert_eq!(dressed(&set, &[], Channel::Trusted)["strict-transport-security"], "max-age=31536000");
        for channel in [Channel::Plain, Channel::Tls] {
            assert!(!dressed(&set, &[], channel).contains_key("strict-transport-security"), "{channel:?}");
        }
        let strict = HeaderBase::Strict.into();
        assert_eq!(dressed(&strict, &[], Channel::Tls)["strict-transport-security"], "max-age=31536000; includeSubDomains");
        assert_eq!(dressed(&strict, &[], Channel::Plain).len(), 6);
        assert_eq!(dressed(&set, &[("server", "nginx"), ("server", "twice"), ("x-powered-by", "PHP/8.2")], Channel::Plain).len(), 6);
        assert_eq!(dressed(&HeaderBase::Off.into(), &[("server", "mine")], Channel::Trusted).len(), 1);
    }

    #[test]
    fn framing_is_one_choice_and_the_rest_is_the_apps_field_by_field() {
        let set = HeaderSet::default();
        let ours = dressed(&set, &[], Channel::Plain);
        assert_eq!(ours["x-frame-options"], "SAMEORIGIN");
        assert_eq!(ours["content-security-policy"], "frame-ancestors 'self'");
        let own = dressed(
            &set,
            &[("content-security-policy", "frame-ancestors https://partner.example"), ("referrer-policy", "no-referrer")],
            Channel::Plain,
        );
        assert!(!own.contains_key("x-frame-options"), "{own:?}");
        assert_eq!(own["referrer-policy"], "no-referrer");
        assert_eq!(own["x-content-type-options"], "nosniff");
        let own = dressed(&set, &[("x-frame-options", "ALLOWALL")], Channel::Plain);
        assert!(!own.contains_key("content-security-policy"), "{own:?}");
        // Only enforced policies are a choice.
        assert!(
            dressed(&set, &[("content-security-policy-report-only", "default-src 'none'")], Channel::Plain).contains_key("x-frame-options")
        );
    }

    #[test]
    fn a_table_lies_over_its_base() {
        let edit = |name: &'static str, value: &'static str| {
            HeaderEdit::new(HeaderName::from_static(name), (!value.is_empty()).then(|| HeaderValue::from_static(value)))
        };
        let own = vec![
            edit("x-frame-options", "DENY"),
            edit("permissions-policy", ""),
            edit("x-own", "1"),
            edit("strict-transport-security", "max-age=60"),
        ];
        let set = HeaderSet { base: HeaderBase::Standard, own };
        let headers = dressed(&set, &[("permissions-policy", "camera=*")], Channel::Tls);
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["x-own"], "1");
        assert_eq!(&headers["strict-transport-security"], "max-age=60", "the user's own word holds with any certificate");
        assert!(!headers.contains_key("permissions-policy"));
        // What the user asks for is added where the app has not that very field.
        assert_eq!(dressed(&set, &[("content-security-policy", "img-src *")], Channel::Plain)["x-frame-options"], "DENY");
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
    }

    #[test]
    fn what_no_uri_holds_is_encoded_and_nothing_else() {
        let of = |target: &[u8]| encoded_target(target).map(|target| String::from_utf8(target).expect("ASCII"));
        assert_eq!(of(b"/a?b=%20[]!$&'()*+,;=:@~-._/?%zz"), None);
        assert_eq!(of(b"/\xc3\xa4?q=\xff").as_deref(), Some("/%C3%A4?q=%FF"));
        assert_eq!(of(b"/{a}|b\\c^d`e\"<f>").as_deref(), Some("/%7Ba%7D%7Cb%5Cc%5Ed%60e%22%3Cf%3E"));
    }

    #[test]
    fn a_request_id_is_short_and_harmless() {
        assert!(is_request_id(b"4bf92f3577b34da6a3ce929d0e0e4736") && is_request_id(b"Root=1-67891233-abcdef012345678912345678"));
        assert!(!is_request_id(b"") && !is_request_id(b"<b>") && !is_request_id(b"a b") && !is_request_id(&[b'a'; 129]));
    }

    proptest! {
        #[test]
        fn an_encoded_target_is_ascii_stays_as_it_is_and_means_the_same(target in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(encoded) = encoded_target(&target) {
                prop_assert!(encoded.is_ascii());
                prop_assert_eq!(encoded_target(&encoded), None);
                prop_assert_eq!(has_bad_target_byte(&encoded), target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#'));
            }
        }

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
