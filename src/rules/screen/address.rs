//! Addresses that lead inwards: a parameter that has the server itself, its neighbours or the cloud's metadata fetched.
//!
//! Shape: parameter by parameter, where the value begins with a scheme. A host that is written as no person writes an address (as one number, in octal, in
//!        hexadecimal) or that is the metadata's leads inwards whatever the parameter is called; a plain address of loopback or of a private net does not where the
//!        name says that a browser will be sent there: apps on the user's own machine are called back so (RFC 8252 §7.3).
//! Source: `inet_aton` for the forms of numbers; RFC 1918, RFC 3927, RFC 4193 for the nets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::Certainty;

/// Whether one of the parameters of a normal form leads inwards, and how sure that nobody honest sends it.
pub(super) fn inward(text: &[u8]) -> Option<Certainty> {
    let query = text.iter().position(|byte| *byte == b'?')?;
    let led = text[query + 1..].split(|byte| *byte == b'&').filter_map(|pair| {
        let (name, value) = pair.iter().position(|byte| *byte == b'=').map_or((&b""[..], pair), |at| (&pair[..at], &pair[at + 1..]));
        host(value).and_then(|host| leads_inward(host, returns(name)))
    });
    led.max()
}

/// The host of a value that begins with an address.
fn host(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii_start();
    let value = value.strip_prefix(b"url:").or_else(|| value.strip_prefix(b"jar:")).unwrap_or(value);
    let scheme = value.iter().take(12).position(|byte| *byte == b':')?;
    if !matches!(&value[..scheme], b"http" | b"https" | b"ftp" | b"ws" | b"wss") {
        return None;
    }
    let rest = &value[scheme + 1..];
    let slashes = rest.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    let authority = rest[slashes..].split(|byte| matches!(byte, b'/' | b'?' | b'#' | b' ' | b'\n')).next()?;
    let host = authority.iter().rposition(|byte| *byte == b'@').map_or(authority, |at| &authority[at + 1..]);
    let host = host.strip_prefix(b"\\").unwrap_or(host);
    match host {
        [b'[', rest @ ..] => rest.split(|byte| *byte == b']').next(),
        _ => host.split(|byte| *byte == b':').next(),
    }
}

/// Whether a parameter of this name is where a browser goes on.
fn returns(name: &[u8]) -> bool {
    [
        "redirect",
        "return",
        "callback",
        "next",
        "continue",
        "origin",
        "issuer",
        "aud",
        "back",
        "post_logout",
        "client_id",
        "referr",
        "location",
        "page_url",
        "dl",
        "site_url",
    ]
    .iter()
    .any(|word| name.windows(word.len()).any(|at| at == word.as_bytes()))
}

fn leads_inward(host: &[u8], returns: bool) -> Option<Certainty> {
    let host = std::str::from_utf8(host).ok()?;
    let folded: String;
    let host = if host.is_ascii() {
        host
    } else {
        folded = host.chars().take(256).map(fold).collect();
        &folded
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    let named = [
        "metadata.google.internal",
        "metadata.tencentyun.com",
        "metadata",
        "instance-data",
        "kubernetes.default.svc",
        "kubernetes.default",
        "rancher-metadata",
    ];
    if named.contains(&host) || host.ends_with(".kubernetes.default.svc") || host.ends_with(".service.consul") {
        return Some(Certainty::Certain);
    }
    // Names that lead home for everyone.
    if ["127.0.0.1.nip.io", "localtest.me", "lvh.me", "vcap.me", "127.0.0.1.xip.io", "spoofed.burpcollaborator.net"].contains(&host) {
        return (!returns).then_some(Certainty::Likely);
    }
    match literal(host) {
        Some((ip, odd)) if is_metadata(ip) || is_inside(ip) && odd => Some(Certainty::Certain),
        Some((ip, _)) => (is_inside(ip) && !returns).then_some(Certainty::Likely),
        None => None,
    }
}

/// As IDNA reads digits in circles and the full stops of other scripts.
fn fold(c: char) -> char {
    match c {
        '\u{3002}' | '\u{ff61}' | '\u{ff0e}' => '.',
        '\u{2460}'..='\u{2468}' => char::from(b'1' + (u32::from(c) - 0x2460) as u8),
        '\u{24ea}' => '0',
        '\u{24d0}'..='\u{24e9}' => char::from(b'a' + (u32::from(c) - 0x24d0) as u8),
        other => other,
    }
}

/// An address, and whether no person writes it so.
fn literal(host: &str) -> Option<(IpAddr, bool)> {
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return Some(match ip.to_ipv4_mapped() {
            Some(mapped) => (mapped.into(), true),
            None => (ip.into(), false),
        });
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some((ip.into(), false));
    }
    // As `inet_aton` reads it: up to four numbers, each decimal, octal or hexadecimal, the last one for all that is left. A part too large wraps in some.
    let parts: Vec<u64> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 {
        return None;
    }
    let mut bits = last & (u64::from(u32::MAX) >> (8 * first.len()));
    for (at, part) in first.iter().enumerate() {
        bits |= (part & 0xff) << (24 - 8 * at);
    }
    Some((Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(), true))
}

fn number(part: &str) -> Option<u64> {
    if part.is_empty() || part.len() > 24 {
        return None;
    }
    match part.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    }
}

fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [192, 0, 0, 192]),
        IpAddr::V6(ip) => ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.segments()[0] & 0xfe00 == 0xfc00 || ip.segments()[0] & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_home_is_known() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "017700000001",
            "0x7f000001",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "10.0.0.5",
            "192.168.1.1",
            "localtest.me",
            "a@127.0.0.1",
        ] {
            assert!(inward(format!("/?url=http://{host}/x").as_bytes()).is_some(), "{host}");
        }
        for host in [
            "169.254.169.254",
            "0251.0376.0251.0376",
            "0xa9.0xfe.0xa9.0xfe",
            "169.254.43518",
            "425.510.425.510",
            "2852039166",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "kubernetes.default.svc",
        ] {
            assert_eq!(inward(format!("/?redirect_uri=http://{host}/latest").as_bytes()), Some(Certainty::Certain), "{host}");
        }
        for honest in [
            "/?redirect_uri=http://127.0.0.1:8080/cb",
            "/?url=http://example.com/127.0.0.1",
            "/?url=http://1.example/",
            "/?q=http: the protocol",
            "/?url=http://203.0.113.4/",
            "/?a=http://",
            "/http://127.0.0.1/",
        ] {
            assert_eq!(inward(honest.as_bytes()), None, "{honest}");
        }
    }
}
