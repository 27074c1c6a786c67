//! What no server should have to guess about: framing, host, target, sizes. Before a site is known; the answers are the same for all.
//!
//! Source: RFC 9112 §3.2 (target, host), §6.1 and §6.3 (framing, smuggling), RFC 9110 §5.5 (field values), §8.6 (Content-Length), RFC 9113 §8.2 and §8.3;
//!         RFC 6585 §5 (431).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{Ask, Verdict};
use crate::{
    edge::refused,
    plan::Limits,
    rules::header::{self as rule, HostBuf},
};

/// Refuses with 400, 405, 414, 417 or 431 what is malformed, ambiguous or too much.
#[must_use]
pub fn sanity(ask: &Ask, limits: &Limits) -> Verdict {
    match check(ask, limits) {
        Ok(()) => Verdict::Pass,
        Err(status) => ask.refuse(status, refused::of_head(status)),
    }
}

fn check(ask: &Ask, limits: &Limits) -> Result<(), StatusCode> {
    sizes(ask, limits)?;
    target(ask)?;
    framing(ask)?;
    expectation(ask)?;
    host(ask)
}

/// Counts before bytes: a bomb of headers is not even read.
fn sizes(ask: &Ask, limits: &Limits) -> Result<(), StatusCode> {
    if ask.target.len() as u64 > limits.uri.0 {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let most = limits.header_count.get() as usize;
    if ask.headers.len() > most && ask.headers.len() - crumbs(ask.headers) > most {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    // As on the wire of HTTP/1.1: "METHOD TARGET HTTP/1.1\r\n" and "NAME: VALUE\r\n".
    let mut bytes = ask.method.as_str().len() + ask.target.len() + 12;
    let mut control = false;
    for (name, value) in ask.headers {
        bytes += name.as_str().len() + value.len() + 4;
        control |= rule::has_control(value.as_bytes());
    }
    if bytes as u64 > limits.headers.0 {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if control { Err(StatusCode::BAD_REQUEST) } else { Ok(()) }
}

/// Pieces of one cookie field beside the first: HTTP/2 may bring each pair by itself (RFC 9113 §8.2.3).
fn crumbs(headers: &HeaderMap) -> usize {
    headers.get_all(header::COOKIE).iter().count().saturating_sub(1)
}

/// A path (of an absolute form, the engine has left the path), or `*` with OPTIONS. CONNECT asks for a proxy, which we are not: 405.
fn target(ask: &Ask) -> Result<(), StatusCode> {
    if *ask.method == Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if rule::has_bad_target_byte(ask.target) {
        return Err(StatusCode::BAD_REQUEST);
    }
    match ask.target {
        [b'/', ..] => Ok(()),
        b"*" if *ask.method == Method::OPTIONS => Ok(()),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

fn framing(ask: &Ask) -> Result<(), StatusCode> {
    let length = only(ask.headers, &header::CONTENT_LENGTH)?;
    if length.is_some_and(|value| self::length(value).is_none()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let Some(coding) = only(ask.headers, &header::TRANSFER_ENCODING)? else { return Ok(()) };
    // HTTP/1.0 knows no Transfer-Encoding, HTTP/2 has frames instead; with both lengths two parsers see two bodies.
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if ask.version != Version::HTTP_11 || length.is_some() || !chunked { Err(StatusCode::BAD_REQUEST) } else { Ok(()) }
}

/// 417 for anything but the one expectation that there is: servers that look for it in other places than we do wait where others do not.
///
/// Source: RFC 9110 §10.1.1.
fn expectation(ask: &Ask) -> Result<(), StatusCode> {
    let mut values = ask.headers.get_all(header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        (Some(_), _) => Err(StatusCode::EXPECTATION_FAILED),
    }
}

/// `Content-Length` as a number: digits alone, no sign, no list, no space, and no zero in front, which some take for octal.
pub(super) fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    Some(digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// The one value of a field that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, StatusCode> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(StatusCode::BAD_REQUEST),
    }
}

/// One host, and the same wherever it is named: `Host` and `:authority`.
fn host(ask: &Ask) -> Result<(), StatusCode> {
    let field = only(ask.headers, &header::HOST)?;
    let authority = ask.uri.authority();
    if field.is_none() && authority.is_none() {
        // HTTP/1.0 may go without; it then belongs to the site `_`.
        let optional = matches!(ask.version, Version::HTTP_10 | Version::HTTP_09);
        return if optional { Ok(()) } else { Err(StatusCode::BAD_REQUEST) };
    }
    // `ask.host` is in normal form already, and empty when what was named is no host.
    if ask.host.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    if let Some(field) = field {
        same(ask.host, field.as_bytes())?;
    }
    if let Some(authority) = authority {
        same(ask.host, authority.as_str().as_bytes())?;
    }
    Ok(())
}

fn same(host: &str, named: &[u8]) -> Result<(), StatusCode> {
    if named == host.as_bytes() {
        return Ok(());
    }
    let mut buf = HostBuf::new();
    let named = std::str::from_utf8(named).map_err(|_| StatusCode::BAD_REQUEST)?;
    match rule::host(named, &mut buf) {
        Ok(named) if named == host => Ok(()),
        Ok(_) | Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}
