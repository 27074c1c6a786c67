//! Answers to what is not a request: written by the connection itself, with the headers that every answer has.

use std::{
    io::Write as _,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    edge::{
        forward::{self, X_REQUEST_ID},
        refused::By,
        reply::Reply,
    },
    rules::header::{self as rule, Channel},
};

/// Of what was read of a request line.
const LONGEST: usize = 1024;

/// What was refused before it was a request: enough for its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Unread {
    /// As the answer has it; of one without an answer too.
    pub id: HeaderValue,
    pub status: StatusCode,
    pub by: By,
    /// As far as it could be read.
    pub method: String,
    /// Likewise, and cut.
    pub target: Vec<u8>,
    /// Since its first byte.
    pub took: Duration,
}

impl Unread {
    /// `head`: its first bytes.
    #[must_use]
    pub fn new(status: StatusCode, by: By, head: &[u8], took: Duration) -> Self {
        let line = head.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let is_method = |word: &&[u8]| (1..=32).contains(&word.len()) && word.iter().all(u8::is_ascii_alphabetic);
        // Without a second word the first may be cut, or noise.
        let known = words.next().filter(is_method).zip(words.next());
        let (method, target) = known.unwrap_or_default();
        Self {
            id: forward::request_id(&HeaderMap::new(), false),
            status,
            by,
            method: String::from_utf8_lossy(method).into_owned(),
            target: target[..target.len().min(LONGEST)].to_vec(),
            took,
        }
    }
}

/// Appends the whole answer; the connection closes after it.
pub fn write(unread: &Unread, tls: bool, to: &mut Vec<u8>) {
    let Reply { status, headers, body, .. } = Reply::page(unread.status, None, unread.id.to_str().unwrap_or(""));
    let mut fields = HeaderMap::with_capacity(16);
    fields.extend(headers);
    rule::put_on(&mut fields, rule::of_nobody(), Channel::of(tls));
    fields.insert(X_REQUEST_ID, unread.id.clone());
    fields.insert(header::CONTENT_LENGTH, body.len().into());
    let (code, reason) = (status.as_u16(), status.canonical_reason().unwrap_or(""));
    let date = httpdate::fmt_http_date(SystemTime::now());
    write!(to, "HTTP/1.1 {code} {reason}\r\nDate: {date}\r\nConnection: close\r\n").expect("a Vec takes all bytes because it grows");
    for (name, value) in &fields {
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_of_a_line_is_told_and_noise_is_not() {
        let of = |head: &[u8]| {
            let unread = Unread::new(StatusCode::BAD_REQUEST, By::Borrowed("malformed"), head, Duration::ZERO);
            (unread.method, String::from_utf8_lossy(&unread.target).into_owned())
        };
        assert_eq!(of(b"GET /a?b HTTP/1.1\r\nX: y"), ("GET".into(), "/a?b".into()));
        assert_eq!(of(b"\r\nPOST /half"), ("POST".into(), "/half".into()));
        for noise in [&b"\x16\x03\x01 \x02"[..], b"", b"GET", b"{\"a\": 1}", b"\r\n\r\n"] {
            assert_eq!(of(noise), (String::new(), String::new()), "{noise:?}");
        }
        assert_eq!(of(&[b"GET /".to_vec(), vec![b'a'; 9000]].concat()).1.len(), LONGEST);
    }
}
