//! Where a request's head ends and how long its body is: enough to hand the engine whole heads, no more.
//!
//! Pure. The engine parses what is found here once more and is the one that judges it; on any doubt about a body the answer is [`Body::Open`].
//!         What the engine would mend is refused here: a line that ends with LF alone, blanks in a target, a fragment.
//! Source: RFC 9112 §2.2 (empty lines before a request, bare LF), §3 (exactly two blanks), §6.3.

use http::StatusCode;

use super::chunks::{After, Chunks, is_name};
use crate::rules::header::encoded_target;

/// Caps on one head, from `[limits]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caps {
    /// Request line and fields together.
    pub head: usize,
    pub target: usize,
    pub fields: usize,
}

/// What follows a head on the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// So many bytes, then the next request.
    Length(u64),
    Chunked(Chunks),
    /// An upgrade, or not clear: only the engine can tell where it ends.
    Open,
}

/// What the bytes read so far amount to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scan {
    More,
    Whole { len: usize, body: Body },
    Bad(StatusCode),
}

/// Goes once over the bytes of a head, however many pieces they come in.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Start of the line that is not complete yet.
    line: usize,
    /// Bytes looked at.
    seen: usize,
    /// Complete lines, the request line first.
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    /// A length that is none, or named twice: the engine's to refuse.
    open: bool,
}

/// A method and a version beside the target.
const REQUEST_LINE_REST: usize = 64;

impl Scanner {
    /// `bytes` are all bytes of the head so far, from its first.
    pub fn scan(&mut self, bytes: &[u8], caps: &Caps) -> Scan {
        while let Some(end) = memchr::memchr(b'\n', &bytes[self.seen..]).map(|at| self.seen + at) {
            let ended = &bytes[self.line..end];
            // Readers that take a LF for the end of a line and those that do not see different heads.
            let Some(line) = ended.strip_suffix(b"\r") else { return Scan::Bad(StatusCode::BAD_REQUEST) };
            (self.seen, self.line) = (end + 1, end + 1);
            if end >= caps.head {
                return Scan::Bad(self.too_large(line.len(), caps));
            }
            match (self.lines, line) {
                (0, []) => continue,
                (0, line) if line.len() > caps.target + REQUEST_LINE_REST => return Scan::Bad(StatusCode::URI_TOO_LONG),
                (0, line) if !is_request_line(line) => return Scan::Bad(StatusCode::BAD_REQUEST),
                // Two framings make two readers see two bodies, and the engine would drop one without a word (pingora#945).
                (_, []) if self.chunked && (self.length.is_some() || self.open) => return Scan::Bad(StatusCode::BAD_REQUEST),
                (_, []) => return Scan::Whole { len: end + 1, body: self.body() },
                (n, _) if n > caps.fields => return Scan::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
                (0, _) => {}
                (_, line) => self.field(line),
            }
            self.lines += 1;
        }
        self.seen = bytes.len();
        let open = &bytes[self.line..];
        if self.lines == 0 && !open.is_empty() && open != b"\r" && !starts_request(open) {
            return Scan::Bad(StatusCode::BAD_REQUEST);
        }
        if bytes.len() > caps.head || (self.lines == 0 && open.len() > caps.target + REQUEST_LINE_REST) {
            return Scan::Bad(self.too_large(open.len(), caps));
        }
        Scan::More
    }

    fn too_large(&self, line: usize, caps: &Caps) -> StatusCode {
        if self.lines == 0 && line > caps.target { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE }
    }

    fn field(&mut self, line: &[u8]) {
        // Most fields start with another letter.
        let (Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U'), Some(colon)) = (line.first(), line.iter().position(|b| *b == b':')) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit())).and_then(|v| v.parse().ok());
            self.open |= value.is_none() || self.length.is_some();
            self.length = value;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.open |= self.chunked;
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
    }

    fn body(&self) -> Body {
        match (self.open, self.chunked, self.upgrade) {
            (false, true, _) => Body::Chunked(Chunks::new(if self.upgrade { After::Open } else { After::Next })),
            (true, _, _) | (false, false, true) => Body::Open,
            (false, false, false) => Body::Length(self.length.unwrap_or(0)),
        }
    }
}

/// Method, target and version with one blank between. The engine would percent-encode control bytes and further blanks in a target, and send it on; a fragment it would cut off.
fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    !method.is_empty()
        && method.iter().all(|b| is_name(*b))
        && !target.is_empty()
        && !target.iter().any(|b| b.is_ascii_control() || *b == b'#')
}

/// Encodes in place what a target may not hold raw ([`encoded_target`]), before the engine, which would refuse some of it, and anyone else reads it.
/// `bytes` begin with a whole head of `len` bytes; its length afterwards.
pub fn encode_target(bytes: &mut Vec<u8>, len: usize) -> usize {
    let head = &bytes[..len];
    let blank = |from: usize| memchr::memchr(b' ', &head[from..]).map(|at| from + at);
    // The request line is the first with a blank: only empty lines stand before it.
    let Some((start, end)) = blank(0).and_then(|first| Some((first + 1, blank(first + 1)?))) else { return len };
    let Some(encoded) = encoded_target(&head[start..end]) else { return len };
    let longer = len + encoded.len() - (end - start);
    bytes.splice(start..end, encoded);
    longer
}

/// A TLS hello, an SSH banner or noise is told by its first byte: nobody needs to wait for the rest.
fn starts_request(line: &[u8]) -> bool {
    line.first().is_some_and(|b| is_name(*b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPS: Caps = Caps { head: 1024, target: 256, fields: 10 };

    fn scan(text: &str) -> Scan {
        Scanner::default().scan(text.as_bytes(), &CAPS)
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
        assert_eq!(scan(text), Scan::Whole { len: text.len() - 9, body: Body::Length(0) });
        assert_eq!(scan("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Scan::Whole { len: 31, body: Body::Length(0) });
        assert_eq!(scan("GET / HTTP/1.1\r\nHost: a\r\n"), Scan::More);
    }

    #[test]
    fn a_body_is_known_by_its_length_or_not_at_all() {
        let body = |fields: &str| match scan(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")) {
            Scan::Whole { body, .. } => body,
            other => panic!("{other:?}"),
        };
        assert_eq!(body("content-Length: 12"), Body::Length(12));
        for unclear in ["Content-Length: +1", "Content-Length: 1, 1", "Content-Length: 1\r\nContent-Length: 1", "Upgrade: x"] {
            assert_eq!(body(unclear), Body::Open, "{unclear}");
        }
        assert_eq!(body("Transfer-Encoding: chunked"), Body::Chunked(Chunks::new(After::Next)));
        assert_eq!(body("Upgrade: h2c\r\nTransfer-Encoding: chunked"), Body::Chunked(Chunks::new(After::Open)));
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_refused() {
        for text in
            ["\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "GET / HTTP/1.1\r\nHost: a\r\n\n", "GET / HTTP/1.1\r\nX: y\nZ: z\r\n"]
        {
            assert_eq!(scan(text), Scan::Bad(StatusCode::BAD_REQUEST), "{text:?}");
        }
    }

    #[test]
    fn a_request_line_has_three_words() {
        for line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "GET /",
            "GET",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET /#a HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET HTTP/1.1",
        ] {
            assert_eq!(scan(&format!("{line}\r\nHost: a\r\n\r\n")), Scan::Bad(StatusCode::BAD_REQUEST), "{line:?}");
        }
        assert!(matches!(scan("OPTIONS * HTTP/1.0\r\n\r\n"), Scan::Whole { .. }));
    }

    #[test]
    fn two_framings_are_none() {
        for bad in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
            "TRANSFER-ENCODING: x\r\nContent-Length: ,",
        ] {
            assert_eq!(scan(&format!("POST / HTTP/1.1\r\n{bad}\r\n\r\n")), Scan::Bad(StatusCode::BAD_REQUEST), "{bad}");
        }
    }

    #[test]
    fn what_is_too_large_is_named() {
        assert_eq!(scan(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(400))), Scan::Bad(StatusCode::URI_TOO_LONG));
        assert_eq!(scan(&"A".repeat(400)), Scan::Bad(StatusCode::URI_TOO_LONG));
        assert_eq!(scan(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1024))), Scan::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        assert_eq!(scan(&format!("GET / HTTP/1.1\r\n{}", "X: 1\r\n".repeat(11))), Scan::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    #[test]
    fn control_bytes_in_the_request_line_are_refused() {
        for line in ["GET /a\x01b HTTP/1.1", "GET /a\tb HTTP/1.1", "GET\t/ HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /\rX: y HTTP/1.1"] {
            assert_eq!(scan(&format!("{line}\r\nHost: a\r\n\r\n")), Scan::Bad(StatusCode::BAD_REQUEST), "{line:?}");
        }
    }

    #[test]
    fn a_target_is_encoded_in_place_and_what_follows_stays() {
        let mut bytes = b"\r\nGET /\xc3\xa4?{q} HTTP/1.1\r\nX: {\xff\r\n\r\nGET /{".to_vec();
        let Scan::Whole { len, .. } = Scanner::default().scan(&bytes, &CAPS) else { panic!("whole") };
        let len = encode_target(&mut bytes, len);
        assert_eq!(bytes, b"\r\nGET /%C3%A4?%7Bq%7D HTTP/1.1\r\nX: {\xff\r\n\r\nGET /{");
        assert_eq!(&bytes[len..], b"GET /{");
        assert_eq!(encode_target(&mut bytes, len), len, "once");
    }

    #[test]
    fn what_is_no_request_is_told_by_its_first_byte() {
        for noise in ["\x16\x03\x01", "\0", "\x7f", "\r\n\x01", "{\"a\""] {
            assert_eq!(scan(noise), Scan::Bad(StatusCode::BAD_REQUEST), "{noise:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_what_is_found(text in "(\r\n)?[A-Z]{0,5} /[ -~]{0,20}\r?\n([A-Za-z-]{1,18}: ?[ -~]{0,10}\r?\n){0,12}(\r?\n)?[ -~]{0,9}", cut in 0usize..400) {
            let bytes = text.as_bytes();
            let whole = Scanner::default().scan(bytes, &CAPS);
            let mut scanner = Scanner::default();
            let first = scanner.scan(&bytes[..cut.min(bytes.len())], &CAPS);
            let pieces = if first == Scan::More { scanner.scan(bytes, &CAPS) } else { first };
            prop_assert_eq!(pieces, whole);
        }
    }
}
