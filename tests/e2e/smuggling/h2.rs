//! Cases for the HTTP/2 front: what is a field there and would be a line of its own behind us.
//!
//! Source: RFC 9113 §8.2 (fields), §8.3 (pseudo-fields), §8.1.1 (malformed messages), §6 (frames); Kettle 2021 (H2.CL, H2.TE, CRLF in names, values and methods). The cases are
//! our own.

use super::h1::Want::{self, Either, Refused, Taken};
use crate::harness::h2raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY, PUSH_PROMISE, RST_STREAM, WINDOW_UPDATE, block, frame, headers,
};

pub struct Case {
    pub name: String,
    /// What follows preface and settings; the request is stream 1.
    pub frames: Vec<u8>,
    pub want: Want,
}

type Field<'a> = (&'a str, &'a str);

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX: ";

/// A POST whose fields are changed: a named pseudo-field is replaced, others are added at the end.
struct Draft<'a> {
    fields: Vec<Field<'a>>,
    body: Option<&'a str>,
    trailers: Vec<Field<'a>>,
}

impl<'a> Draft<'a> {
    fn post(body: &'a str) -> Self {
        Self {
            fields: vec![(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/case")],
            body: Some(body),
            trailers: Vec::new(),
        }
    }

    fn get() -> Self {
        let mut get = Self { body: None, ..Self::post("") };
        get.fields[0].1 = "GET";
        get
    }

    fn set(mut self, name: &'a str, value: &'a str) -> Self {
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = value,
            None => self.fields.push((name, value)),
        }
        self
    }

    fn add(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| *known != name);
        self
    }

    fn trailer(mut self, name: &'a str, value: &'a str) -> Self {
        self.trailers.push((name, value));
        self
    }

    fn frames(&self) -> Vec<u8> {
        let bytes = |fields: &[Field<'a>]| fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect::<Vec<_>>();
        let fields = bytes(&self.fields);
        let Some(body) = self.body else { return headers(1, END_STREAM, &fields) };
        let mut all = headers(1, 0, &fields);
        all.extend(frame(DATA, if self.trailers.is_empty() { END_STREAM } else { 0 }, 1, body.as_bytes()));
        if !self.trailers.is_empty() {
            all.extend(headers(1, END_STREAM, &bytes(&self.trailers)));
        }
        all
    }
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut case =
        |what: &str, want, draft: Draft<'_>| all.push(Case { name: what.escape_default().to_string(), frames: draft.frames(), want });
    let hidden = HIDDEN.len().to_string();
    let shorter = (HIDDEN.len() - 3).to_string();

    case("a GET", Taken(1), Draft::get());
    case("a POST", Taken(1), Draft::post("hello"));
    case("a POST of nothing", Taken(1), Draft::post(""));
    case("a POST with its length", Taken(1), Draft::post(HIDDEN).add("content-length", &hidden));
    case("a HEAD", Taken(1), Draft::get().set(":method", "HEAD"));

    // Sent on before the body comes, as what it says: a request without one.
    case("H2.CL: 0", Either, Draft::post(HIDDEN).add("content-length", "0"));
    for length in [
        "3",
        "1000",
        &shorter,
        "+41",
        "-1",
        "0x29",
        "041",
        "41,41",
        "41, 42",
        "4 1",
        "",
        "99999999999999999999",
        "18446744073709551657",
        "4\u{661}",
        "41\0",
    ] {
        case(&format!("H2.CL: {length}"), Refused, Draft::post(HIDDEN).add("content-length", length));
    }
    case("H2.CL: twice the same", Either, Draft::post(HIDDEN).add("content-length", &hidden).add("content-length", &hidden));
    case("H2.CL: twice", Refused, Draft::post(HIDDEN).add("content-length", &hidden).add("content-length", "0"));
    case("H2.CL: of a GET without a body", Refused, Draft::get().add("content-length", "41"));
    case("H2.CL: a GET of length 0", Either, Draft::get().add("content-length", "0"));
    case("H2.CL: a GET with a body", Either, Draft { body: Some(HIDDEN), ..Draft::get() });

    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding ", "chunked"),
        (" transfer-encoding", "chunked"),
        ("transfer-encoding\t", "chunked"),
        ("transfer-encoding:", "chunked"),
        ("transfer-encoding: chunked\r\nx", "y"),
        ("x", "y\r\ntransfer-encoding: chunked"),
        ("x", "y\ntransfer-encoding: chunked"),
        ("x", "y\rtransfer-encoding: chunked"),
        ("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost"),
        ("x", "y\0z"),
        ("x", "\r\n y"),
        ("x\r\n", "y"),
        ("x\ny", "z"),
        ("x\0", "y"),
        ("x y", "z"),
        ("x:y", "z"),
        ("", "y"),
        ("X-Upper", "y"),
        ("\u{e9}", "y"),
        ("x(", "y"),
        ("x\x7f", "y"),
        ("connection", "close"),
        ("connection", "content-length"),
        ("keep-alive", "timeout=1000"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
        ("expect", "x 100-continue"),
        ("x", "y\x01"),
        ("x", "y\x7f"),
    ] {
        case(&format!("field: {name}: {value}"), Refused, Draft::post("0\r\n\r\n").add(name, value));
    }
    for (name, value) in [
        ("te", "trailers"),
        ("http2-settings", "AAMAAABkAAQAoAAA"),
        ("transfer_encoding", "chunked"),
        ("content_length", "3"),
        ("x", " y"),
        ("x", "y "),
        ("x", "\u{e9}"),
        ("x", "a\tb"),
        ("x", ""),
        ("expect", "100-continue"),
        ("trailer", "x"),
        ("proxy-authorization", "basic x"),
    ] {
        case(&format!("field: {name}: {value}"), Either, Draft::post("0\r\n\r\n").add(name, value));
    }
    case("cookies in crumbs", Taken(1), Draft::get().add("cookie", "a=1").add("cookie", "b=2"));

    for path in [
        "/case x",
        "/case\tx",
        "/case\r\nx: y",
        "/case\n",
        "/case\r",
        "/case\0",
        "/case\x7f",
        "/case HTTP/1.1\r\nhost: localhost\r\n\r\nGET /smuggled",
        "",
        "case",
        "?case",
        "https://localhost/case",
        "http://b.test/case",
        "*",
    ] {
        case(&format!(":path {path}"), Refused, Draft::get().set(":path", path));
    }
    for path in ["/case#x", "//b.test/case", "/\\b.test/case", "/case\u{e9}", "/case%0d%0ax:%20y", "#case", "/case?a b"] {
        case(&format!(":path {path}"), Either, Draft::get().set(":path", path));
    }
    for method in [
        "",
        "GET /smuggled HTTP/1.1\r\nx: y\r\n\r\nGET",
        "GE T",
        "GET ",
        " GET",
        "GET\r\n",
        "GET\0",
        "G@T",
        "GET\t/x",
        "CONNECT",
        "G\u{e9}T",
    ] {
        case(&format!(":method {method}"), Refused, Draft::get().set(":method", method));
    }
    case(":method get", Either, Draft::get().set(":method", "get"));
    for scheme in ["ht tp", "https\r\nx: y", "https://b.test/", "https:", "\0"] {
        case(&format!(":scheme {scheme}"), Refused, Draft::get().set(":scheme", scheme));
    }
    for scheme in ["", "http", "HTTPS", "ftp", "javascript"] {
        case(&format!(":scheme {scheme}"), Either, Draft::get().set(":scheme", scheme));
    }
    for authority in [
        "",
        "localhost\r\nx: y",
        "localhost\r\n\r\nGET /smuggled HTTP/1.1",
        "localhost x",
        "localhost/case",
        "localhost?x",
        "localhost#x",
        "localhost\\x",
        "me@localhost",
        "localhost@b.test",
        "localhost:x",
        "localhost:99999",
        "localhost:443:443",
        "localhost,b.test",
        "localhost\0",
        "lo\tcalhost",
        "[localhost]",
        "[::1",
        "b.test",
    ] {
        case(&format!(":authority {authority}"), Refused, Draft::get().set(":authority", authority));
    }
    for authority in ["localhost:443", "LOCALHOST", "localhost."] {
        case(&format!(":authority {authority}"), Either, Draft::get().set(":authority", authority));
    }
    case("the same host beside", Taken(1), Draft::get().add("host", "localhost"));
    case("another host beside", Refused, Draft::get().add("host", "b.test"));
    case("a host with a port beside", Refused, Draft::get().add("host", "localhost:80"));
    case("two hosts beside", Refused, Draft::get().add("host", "localhost").add("host", "b.test"));
    case("a host with CR LF beside", Refused, Draft::get().add("host", "localhost\r\nx: y"));
    case("a host alone", Either, Draft::get().without(":authority").add("host", "localhost"));
    case("two hosts alone", Refused, Draft::get().without(":authority").add("host", "localhost").add("host", "localhost"));
    case("no host at all", Refused, Draft::get().without(":authority"));

    for (name, value) in [
        (":method", "GET"),
        (":path", "/smuggled"),
        (":authority", "b.test"),
        (":scheme", "http"),
        (":status", "200"),
        (":x", "y"),
        (":", "y"),
        (":protocol", "websocket"),
    ] {
        case(&format!("{name} at the end"), Refused, Draft::get().add("x", "y").add(name, value));
        let mut doubled = Draft::get();
        doubled.fields.insert(0, (name, value));
        case(&format!("{name} at the start"), Refused, doubled);
    }
    for name in [":method", ":path", ":scheme"] {
        case(&format!("no {name}"), Refused, Draft::get().without(name));
    }
    case(
        "CONNECT as it should be",
        Refused,
        Draft::get().set(":method", "CONNECT").set(":authority", "localhost:443").without(":path").without(":scheme"),
    );
    case("extended CONNECT", Refused, Draft::get().set(":method", "CONNECT").add(":protocol", "websocket"));

    case("a trailer", Either, Draft::post("hello").trailer("x", "y"));
    case("a trailer that is empty", Either, Draft::post("hello").trailer("x", ""));
    for (name, value) in [
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("host", "b.test"),
        ("connection", "close"),
        (":path", "/smuggled"),
        (":status", "200"),
        ("X", "y"),
        ("x", "y\r\n\r\nGET /smuggled HTTP/1.1"),
        ("x y", "z"),
    ] {
        case(&format!("trailer {name}: {value}"), Either, Draft::post("hello").trailer(name, value));
    }
    frames(&mut all);
    all
}

/// Frames in an order, or of a shape, that they may not have.
fn frames(all: &mut Vec<Case>) {
    let get = Draft::get().frames();
    let post =
        |flags| headers(1, flags, &[(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/case")]);
    let fields = block(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/case")]);
    let (first, second) = fields.split_at(20);
    let mut case = |what: &str, want, pieces: &[&[u8]]| all.push(Case { name: what.into(), frames: pieces.concat(), want });
    case("a head in two frames", Taken(1), &[&frame(HEADERS, END_STREAM, 1, first), &frame(CONTINUATION, END_HEADERS, 1, second)]);
    case(
        "a head interrupted by DATA",
        Refused,
        &[&frame(HEADERS, 0, 1, first), &frame(DATA, END_STREAM, 1, b"x"), &frame(CONTINUATION, END_HEADERS, 1, second)],
    );
    case(
        "a head continued on another stream",
        Refused,
        &[&frame(HEADERS, END_STREAM, 1, first), &frame(CONTINUATION, END_HEADERS, 3, second)],
    );
    case("a continuation of nothing", Refused, &[&frame(CONTINUATION, END_HEADERS | END_STREAM, 1, &fields)]);
    case("a head on stream 0", Refused, &[&frame(HEADERS, END_HEADERS | END_STREAM, 0, &fields)]);
    case("a head on an even stream", Refused, &[&frame(HEADERS, END_HEADERS | END_STREAM, 2, &fields)]);
    case("DATA before its head", Refused, &[&frame(DATA, END_STREAM, 1, b"hello")]);
    case("DATA on stream 0", Refused, &[&post(0), &frame(DATA, END_STREAM, 0, b"hello")]);
    case("DATA after the end", Either, &[&get, &frame(DATA, END_STREAM, 1, b"hello")]);
    case("a second head", Either, &[&get, &get]);
    case("a second head that does not end", Refused, &[&post(0), &post(0)]);
    case("padding longer than the frame", Refused, &[&post(0), &frame(DATA, END_STREAM | PADDED, 1, b"\xffhello")]);
    case("padding", Taken(1), &[&post(0), &frame(DATA, END_STREAM | PADDED, 1, b"\x05hello\0\0\0\0\0")]);
    case(
        "many small pieces, one empty",
        Taken(1),
        &[&post(0), &frame(DATA, 0, 1, b"he"), &frame(DATA, 0, 1, b""), &frame(DATA, 0, 1, b"llo"), &frame(DATA, END_STREAM, 1, b"")],
    );
    case("a body that never ends", Refused, &[&post(0), &frame(DATA, 0, 1, b"hello")]);
    case("a stream that depends on itself", Either, &[&frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 16]), &get]);
    case("a promise by the client", Refused, &[&frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &fields].concat())]);
    case("a window grown beyond its limit", Either, &[&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &get]);
    case("a window grown by nothing", Either, &[&get, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0])]);
    case("a head and its reset", Either, &[&get, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])]);
    case("an index that is in no table", Refused, &[&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x80, 0x01])]);
    case(
        "a table larger than agreed",
        Refused,
        &[&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x3f, 0xe1, 0xff, 0x03][..], &fields].concat())],
    );
    case("a string longer than the block", Refused, &[&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0, 0x7f, 0xff, 0xff, 0x7f, b'x'])]);
    case("a frame of a kind that nobody knows", Taken(1), &[&frame(0xaa, 0xff, 1, b"hello"), &get]);
    case("a frame larger than agreed", Refused, &[&post(0), &frame(DATA, END_STREAM, 1, &[b'x'; 20_000])]);
    case("HTTP/1 on HTTP/2", Refused, &[b"GET /case HTTP/1.1\r\nHost: localhost\r\n\r\n"]);
}
