//! One answered request as one line: JSON, or combined as nginx and Apache write it.
//!
//! Pure. `accesslog` brings the time zone and the buffer.
//!
//! Shape: exactly one line whatever a client sends: control bytes, quotes and bytes that are no UTF-8 are escaped. Nothing is allocated beyond the buffer.
//! Source: combined after nginx 1.26's predefined format, its default escaping (`"`, `\`, below 0x20, above 0x7e as `\xHH`).

use std::{io::Write as _, net::IpAddr, time::Duration};

use http::Version;
use jiff::{Timestamp, tz::TimeZone};

/// What there is to say about one request.
///
/// Units: `at_ms` Unix milliseconds at the end of the answer; `received` and `sent` are bytes of bodies.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    pub at_ms: i64,
    /// X-Request-Id
    pub id: &'a str,
    pub client: IpAddr,
    /// Who has proven to be who, where `auth` asks.
    pub user: Option<&'a [u8]>,
    /// Empty where no request could be read.
    pub method: &'a str,
    /// Normalised; empty where there was none.
    pub host: &'a str,
    /// Path and query as received.
    pub target: &'a [u8],
    pub version: Version,
    pub status: u16,
    pub received: u64,
    pub sent: u64,
    pub took: Duration,
    /// [`super::NO_SITE`] where no site is for the host.
    pub site: &'a str,
    /// As the configuration writes it.
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub server: Option<&'a str>,
    /// Until the end of the last server's answer, all tries together.
    pub upstream_took: Option<Duration>,
    /// Servers that were tried.
    pub tries: u32,
    /// "TLSv1.3"; `None` without TLS.
    pub tls: Option<&'a str>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// The family of `bad-uri` that recognised the request, whether it was refused for that or only observed.
    pub filter: Option<&'a str>,
    /// What refused the request: `zone:api`, `filter:bad-uri/sql`, `limit:uri`; a word of ours or of the configuration.
    pub refused: Option<&'a str>,
}

/// The text of a moment, made once a second.
#[derive(Debug)]
pub struct Stamp {
    zone: TimeZone,
    second: i64,
    utc: String,
    local: String,
}

impl Stamp {
    /// `zone` is the one in which the combined format gives the time; JSON is in UTC.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, second: i64::MIN, utc: String::new(), local: String::new() }
    }

    fn turn(&mut self, at_ms: i64) {
        let second = at_ms.div_euclid(1000);
        if second == self.second {
            return;
        }
        let at = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        self.second = second;
        self.utc = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        self.local = at.to_zoned(self.zone.clone()).strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
    }
}

/// Appends a JSON object and a line feed. What there is not, has no key.
pub fn write_json(record: &AccessRecord<'_>, stamp: &mut Stamp, out: &mut Vec<u8>) {
    let AccessRecord {
        at_ms,
        id,
        client,
        user,
        method,
        host,
        target,
        version,
        status,
        received,
        sent,
        took,
        site,
        route,
        upstream,
        server,
        upstream_took,
        tries,
        tls,
        user_agent,
        referer,
        filter,
        refused,
    } = record;
    stamp.turn(*at_ms);
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp.utc.as_bytes());
    out.push(b'.');
    padded_millis(at_ms.rem_euclid(1000), out);
    out.extend_from_slice(b"Z\"");
    text("id", id.as_bytes(), out);
    key("client", out);
    out.push(b'"');
    address(*client, out);
    out.push(b'"');
    optional("user", *user, out);
    text("method", method.as_bytes(), out);
    text("host", host.as_bytes(), out);
    let (path, query) = split(target);
    text("path", path, out);
    optional("query", query, out);
    text("protocol", protocol(*version).as_bytes(), out);
    number("status", u64::from(*status), out);
    number("sent", *sent, out);
    number("received", *received, out);
    millis("took_ms", *took, out);
    text("site", site.as_bytes(), out);
    optional("route", route.map(str::as_bytes), out);
    optional("upstream", upstream.map(str::as_bytes), out);
    optional("server", server.map(str::as_bytes), out);
    if let Some(took) = upstream_took {
        millis("upstream_ms", *took, out);
    }
    if *tries > 0 {
        number("tries", u64::from(*tries), out);
    }
    optional("tls", tls.map(str::as_bytes), out);
    optional("user_agent", *user_agent, out);
    optional("referer", *referer, out);
    optional("filter", filter.map(str::as_bytes), out);
    optional("refused", refused.map(str::as_bytes), out);
    out.extend_from_slice(b"}\n");
}

/// Appends `ADDR - USER [TIME] "REQUEST" STATUS BYTES "REFERER" "USER AGENT"` and a line feed; ` refused=WHAT` before that where the request was refused.
pub fn write_combined(record: &AccessRecord<'_>, stamp: &mut Stamp, out: &mut Vec<u8>) {
    stamp.turn(record.at_ms);
    address(record.client, out);
    out.extend_from_slice(b" - ");
    match record.user {
        Some(user) if !user.is_empty() => hexed(user, out),
        Some(_) | None => out.push(b'-'),
    }
    out.extend_from_slice(b" [");
    out.extend_from_slice(stamp.local.as_bytes());
    out.extend_from_slice(b"] \"");
    if record.method.is_empty() {
        out.push(b'-');
    } else {
        hexed(record.method.as_bytes(), out);
        out.push(b' ');
        hexed(record.target, out);
        out.push(b' ');
        out.extend_from_slice(protocol(record.version).as_bytes());
    }
    out.extend_from_slice(b"\" ");
    decimal(u64::from(record.status), out);
    out.push(b' ');
    decimal(record.sent, out);
    for header in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        match header {
            Some(value) if !value.is_empty() => hexed(value, out),
            Some(_) | None => out.push(b'-'),
        }
        out.push(b'"');
    }
    if let Some(refused) = record.refused {
        out.extend_from_slice(b" refused=");
        hexed(refused.as_bytes(), out);
    }
    out.push(b'\n');
}

/// As nginx writes `$server_protocol`.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        // `Version` is opaque: nothing else is left.
        _ => "HTTP/1.1",
    }
}

fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(name: &str, value: &[u8], out: &mut Vec<u8>) {
    key(name, out);
    out.push(b'"');
    quoted(value, out);
    out.push(b'"');
}

fn optional(name: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        text(name, value, out);
    }
}

fn number(name: &str, value: u64, out: &mut Vec<u8>) {
    key(name, out);
    decimal(value, out);
}

/// Milliseconds with three decimals.
fn millis(name: &str, value: Duration, out: &mut Vec<u8>) {
    key(name, out);
    let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    decimal(us / 1000, out);
    out.push(b'.');
    padded_millis((us % 1000).cast_signed(), out);
}

fn padded_millis(value: i64, out: &mut Vec<u8>) {
    let digit = |n: i64| b'0' + u8::try_from(n % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]);
}

fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn address(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                decimal(u64::from(octet), out);
            }
        }
        // A Vec takes all that is written to it.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

/// The inside of a JSON string. DEL and the C1 controls are escaped too: a terminal obeys them. What is no UTF-8 becomes U+FFFD.
pub(super) fn quoted(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(is_plain) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        let mut plain = 0;
        let valid = chunk.valid();
        for (at, c) in valid.char_indices() {
            if !matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}') {
                continue;
            }
            out.extend_from_slice(&valid.as_bytes()[plain..at]);
            plain = at + c.len_utf8();
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // A Vec takes all that is written to it.
                _ => drop(write!(out, "\\u{:04x}", u32::from(c))),
            }
        }
        out.extend_from_slice(&valid.as_bytes()[plain..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Needs no escape in either format, as nearly all that is sent does not.
fn is_plain(byte: &u8) -> bool {
    matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\')
}

/// nginx's default escaping.
fn hexed(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(is_plain) {
        out.extend_from_slice(value);
        return;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
            }
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            at_ms: 1_768_473_000_007,
            id: "0198c0de",
            client: IpAddr::from([203, 0, 113, 9]),
            user: None,
            method: "GET",
            host: "example.com",
            target: b"/a?b=c",
            version: Version::HTTP_11,
            status: 200,
            received: 0,
            sent: 1234,
            took: Duration::from_micros(12_034),
            site: "example.com",
            route: Some("/"),
            upstream: Some("web"),
            server: Some("web.0"),
            upstream_took: Some(Duration::from_micros(11_900)),
            tries: 1,
            tls: Some("TLSv1.3"),
            user_agent: Some(b"curl/8.5"),
            referer: None,
            filter: None,
            refused: None,
        }
    }

    fn json(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        write_json(record, &mut Stamp::new(TimeZone::UTC), &mut out);
        String::from_utf8(out).expect("escaped")
    }

    fn combined(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        write_combined(record, &mut Stamp::new(TimeZone::fixed(jiff::tz::offset(2))), &mut out);
        String::from_utf8(out).expect("escaped")
    }

    #[test]
    fn json_says_everything_in_one_line() {
        assert_eq!(
            json(&record()),
            concat!(
                r#"{"time":"2026-01-15T10:30:00.007Z","id":"0198c0de","client":"203.0.113.9","method":"GET","host":"example.com","path":"/a","#,
                r#""query":"b=c","protocol":"HTTP/1.1","status":200,"sent":1234,"received":0,"took_ms":12.034,"site":"example.com","route":"/","#,
                r#""upstream":"web","server":"web.0","upstream_ms":11.900,"tries":1,"tls":"TLSv1.3","user_agent":"curl/8.5"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn combined_is_what_nginx_writes() {
        assert_eq!(
            combined(&record()),
            "203.0.113.9 - - [15/Jan/2026:12:30:00 +0200] \"GET /a?b=c HTTP/1.1\" 200 1234 \"-\" \"curl/8.5\"\n"
        );
    }

    #[test]
    fn what_refused_a_request_is_said_in_both_formats_and_in_combined_of_no_other() {
        let record = AccessRecord { status: 403, filter: Some("sql"), refused: Some("filter:bad-uri/sql"), ..record() };
        assert!(json(&record).ends_with("\"filter\":\"sql\",\"refused\":\"filter:bad-uri/sql\"}\n"), "{}", json(&record));
        assert!(combined(&record).ends_with(" \"curl/8.5\" refused=filter:bad-uri/sql\n"), "{}", combined(&record));
    }

    #[test]
    fn a_user_stands_where_nginx_has_him() {
        let record = AccessRecord { user: Some(b"j\xc3\xb6rg \"x\""), ..record() };
        assert!(combined(&record).starts_with("203.0.113.9 - j\\xC3\\xB6rg \\x22x\\x22 [15/Jan"), "{}", combined(&record));
        assert!(json(&record).contains("\"client\":\"203.0.113.9\",\"user\":\"j\u{f6}rg \\\"x\\\"\",\"method\""), "{}", json(&record));
    }

    #[test]
    fn a_request_that_could_not_be_read_has_a_line_too() {
        let record = AccessRecord { method: "", target: b"", status: 400, user_agent: None, ..record() };
        assert!(combined(&record).contains("] \"-\" 400 1234 \"-\" \"-\"\n"));
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let evil = b"a\"\n127.0.0.1 \x1b[2J\x7f\xc2\x9b\xff\\";
        let record = AccessRecord { user_agent: Some(evil), referer: Some(evil), target: evil, ..record() };
        let line = combined(&record);
        assert!(line.contains(r#""GET a\x22\x0A127.0.0.1 \x1B[2J\x7F\xC2\x9B\xFF\x5C HTTP/1.1""#), "{line}");
        let line = json(&record);
        assert!(line.contains(r#""user_agent":"a\"\n127.0.0.1 \u001b[2J\u007f\u009b"#), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    proptest! {
        #[test]
        fn every_line_is_one_json_object_that_says_what_was_sent(target: Vec<u8>, agent: Vec<u8>, host in ".*", sent: u64, status: u16, ms in 0..4_000_000_000_000_i64) {
            let record = AccessRecord { target: &target, user_agent: Some(&agent), host: &host, sent, status, at_ms: ms, ..record() };
            let line = json(&record);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(!line.trim_end().chars().any(char::is_control));
            let value: serde_json::Value = serde_json::from_str(&line).expect("json");
            prop_assert_eq!(value["host"].as_str(), Some(host.as_str()));
            let shown = String::from_utf8_lossy(&agent);
            prop_assert_eq!(value["user_agent"].as_str(), Some(shown.as_ref()));
            prop_assert_eq!(value["sent"].as_u64(), Some(sent));
            let at: Timestamp = value["time"].as_str().expect("text").parse().expect("time");
            prop_assert_eq!(at.as_millisecond(), ms);
            let line = combined(&record);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(line.matches('"').count(), 6);
            prop_assert!(line.trim_end().bytes().all(|b| (0x20..0x7f).contains(&b)));
        }
    }
}
