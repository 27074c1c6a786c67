//! Answers to what is not a request: written by the connection itself, with the headers that every answer has.

use std::{io::Write as _, time::SystemTime};

use http::{HeaderMap, StatusCode};

use crate::edge::reply::{self, Reply};

/// Appends the whole answer; the connection closes after it.
pub fn write(status: StatusCode, tls: bool, to: &mut Vec<u8>) {
    let Reply { status, headers, body, offence: _, last: _ } = Reply::page(status, None, "");
    let mut fields = HeaderMap::with_capacity(16);
    fields.extend(headers);
    reply::decorate(&mut fields, None, tls);
    let (code, reason) = (status.as_u16(), status.canonical_reason().unwrap_or(""));
    let date = httpdate::fmt_http_date(SystemTime::now());
    write!(to, "HTTP/1.1 {code} {reason}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())
        .expect("a Vec takes all bytes because it grows");
    for (name, value) in &fields {
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(&body);
}
