//! Cases for the HTTP/1 front, from a small grammar: where a body ends, what a line is, who is asked.
//!
//! Source: the ideas of Watchfire 2005 (CL.CL, CL.TE), Kettle 2019 to 2025 (TE obfuscation, CL.0, 0.CL, Expect), Klein 2020 (CR in fields), Jabiyev 2021 (T-Reqs:
//!         versions, methods, lines), Grenfeldt 2021 (what proxies do with odd fields); RFC 9112 and RFC 9110. The cases are our own.

/// What must become of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// The backend sees no whole request of it, and the connection ends.
    Refused,
    /// The backend sees so many.
    Taken(usize),
    /// Either; what the backend sees is plain.
    Either,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub want: Want,
}

/// What an attacker would have the backend take for a request of its own.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\nX: ";

use Want::{Either, Refused, Taken};

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    codings(&mut all);
    lengths(&mut all);
    chunks(&mut all);
    lines(&mut all);
    hosts(&mut all);
    fields(&mut all);
    hops(&mut all);
    sequences(&mut all);
    all
}

fn add(all: &mut Vec<Case>, family: &str, what: &str, want: Want, bytes: impl AsRef<[u8]>) {
    let name = format!("{family}: {}", what.escape_default());
    all.push(Case { name, bytes: bytes.as_ref().to_vec(), want });
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /case HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

/// Every spelling of Transfer-Encoding, alone and beside a length that says otherwise.
fn codings(all: &mut Vec<Case>) {
    let plain = ["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "Transfer-Encoding:\tchunked \t"];
    let odd = [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\x0b: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: chunked;x=1",
        "Transfer-Encoding: chunked ;",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: x chunked",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:",
        "Transfer-Encoding",
        "Transfer-Encoding chunked",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chun\r\n\tked",
        "X: x\r\n Transfer-Encoding: chunked",
        "X: x\nTransfer-Encoding: chunked",
        "X: x\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding: \rchunked",
        "Transfer\u{ad}-Encoding: chunked",
        "Transfer-Encoding: chunke\u{212a}",
        "Transfer-Encoding: \u{a0}chunked",
        ":Transfer-Encoding: chunked",
    ];
    let hidden = format!("0\r\n\r\n{HIDDEN}");
    for line in plain {
        add(all, "TE alone", line, Taken(1), post(&format!("{line}\r\n"), "5\r\nhello\r\n0\r\n\r\n"));
    }
    for line in plain.iter().chain(&odd) {
        // Who goes by the length reads all of it as one body; who goes by the coding sees a second request.
        add(all, "CL.TE", line, Refused, post(&format!("Content-Length: {}\r\n{line}\r\n", hidden.len()), &hidden));
        // The other way about.
        let body = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
        add(all, "TE.CL", line, Refused, post(&format!("{line}\r\nContent-Length: 4\r\n"), &body));
    }
    for line in odd {
        add(all, "TE alone", line, Refused, post(&format!("{line}\r\n"), &hidden));
    }
    // No coding at all, to us and to whoever is behind us: dropped, and the length holds.
    let dropped = "Transfer_Encoding: chunked";
    add(all, "CL.TE", dropped, Taken(1), post(&format!("Content-Length: {}\r\n{dropped}\r\n", hidden.len()), &hidden));
    add(all, "TE on 1.0", "chunked", Refused, format!("POST /case HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"));
    add(all, "TE and no body", "GET", Either, "GET /case HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
}

fn lengths(all: &mut Vec<Case>) {
    for good in ["Content-Length: 5", "content-length:5", "Content-Length:\t5 \t"] {
        add(all, "CL", good, Taken(1), post(&format!("{good}\r\n"), "hello"));
    }
    for bad in [
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5,5",
        "Content-Length: 5, 6",
        "Content-Length: ,5",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: \"5\"",
        "Content-Length:",
        "Content-Length",
        "Content-Length: 05",
        "Content-Length: 00",
        "Content-Length: 000000000000000000000000000005",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551621",
        "Content-Length: 9223372036854775808",
        "Content-Length: 5\0",
        "Content-Length: \x0b5",
        "Content-Length: \u{665}",
        "Content-Length: \u{a0}5",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\n 6",
        "Content-Length : 5",
        " Content-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\ncontent-length: 5",
        "X: y\nContent-Length: 5",
        "X: y\rContent-Length: 5",
    ] {
        add(all, "CL", bad, Refused, post(&format!("{bad}\r\n"), "hello"));
    }
    add(all, "CL", "beside one with an underscore", Taken(1), post("Content-Length: 5\r\nContent_Length: 6\r\n", "hello"));
    add(all, "CL", "of a body that is cut off", Refused, post("Content-Length: 100\r\n", "hello"));
    let hidden = HIDDEN.len();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "JEFF"] {
        // To some servers these have no body, whatever is said.
        let text = format!("{method} /case HTTP/1.1\r\nHost: a.test\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}");
        add(all, "CL.0", method, Either, text);
    }
    add(all, "0.CL", "a body that was not announced", Taken(1), post("", "0\r\n\r\n"));
    add(all, "CL on 1.0", "5", Either, "POST /case HTTP/1.0\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
}

fn chunks(all: &mut Vec<Case>) {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for (what, body) in [
        ("sizes in both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        ("leading zeros", "0005\r\nhello\r\n00\r\n\r\n"),
        ("an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
        ("a quoted extension", "5;a=\"b\"\r\nhello\r\n0\r\n\r\n"),
        ("a trailer", "5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        ("a length as trailer", "5\r\nhello\r\n0\r\nContent-Length: 100\r\n\r\n"),
        ("a coding as trailer", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a host as trailer", "5\r\nhello\r\n0\r\nHost: b.test\r\n\r\n"),
    ] {
        add(all, "chunks", what, Either, chunked(body));
    }
    for (what, size) in [
        ("0x", "0x5"),
        ("a blank before", " 5"),
        ("a plus", "+5"),
        ("a minus", "-5"),
        ("a vertical tab", "5\x0b"),
        ("a NUL", "5\0"),
        ("nothing", ""),
        ("no digit", "g"),
        ("an underscore", "0_5"),
        ("a comma", "5,"),
        ("2^64 + 5", "10000000000000005"),
        ("2^64 - 1", "ffffffffffffffff"),
        ("2^32 + 5 and more zeros", "000000000000000000000100000005"),
        ("LF alone", "5\nhello\r\n0\r\n\r\n"),
        ("CR alone", "5\rhello\r\n0\r\n\r\n"),
        ("CR CR LF", "5\r"),
        ("LF in an extension", "5;a\nb"),
        ("CR in an extension", "5;a\rb"),
        ("LF in a quoted extension", "5;a=\"\n\""),
    ] {
        add(all, "a chunk's size", what, Refused, chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}")));
    }
    add(all, "a chunk's size", "a blank after", Either, chunked("5 \r\nhello\r\n0\r\n\r\n"));
    add(all, "chunks", "an extension of 100 KB", Refused, chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000))));
    add(all, "chunks", "trailers of 100 KB", Either, chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(16_000))));
    for (what, body) in [
        ("no end after the data", format!("5\r\nhello0\r\n\r\n{HIDDEN}")),
        ("LF after the data", format!("5\r\nhello\n0\r\n\r\n{HIDDEN}")),
        ("CR X after the data", format!("5\r\nhello\rX0\r\n\r\n{HIDDEN}")),
        ("XX after the data", format!("5\r\nhelloXX0\r\n\r\n{HIDDEN}")),
        ("more data than was said", "3\r\nhello\r\n0\r\n\r\n".into()),
        ("LF LF at the end", format!("5\r\nhello\r\n0\n\n{HIDDEN}")),
        ("LF in a trailer", format!("5\r\nhello\r\n0\r\nX: y\n\r\n{HIDDEN}")),
        ("cut off in a chunk", "5\r\nhel".into()),
        ("cut off before the last one", "5\r\nhello\r\n".into()),
        ("cut off in the end", "5\r\nhello\r\n0\r\n".into()),
    ] {
        add(all, "chunks", what, Refused, chunked(&body));
    }
}

fn lines(all: &mut Vec<Case>) {
    let rest = "\r\nHost: a.test\r\n\r\n";
    for (line, want) in [
        ("GET /case HTTP/1.1", Taken(1)),
        ("GET http://a.test/case HTTP/1.1", Taken(1)),
        ("GET /case HTTP/1.0", Taken(1)),
        ("GET  /case HTTP/1.1", Refused),
        ("GET /case  HTTP/1.1", Refused),
        ("GET\t/case HTTP/1.1", Refused),
        ("GET /case\tHTTP/1.1", Refused),
        ("GET\x0b/case HTTP/1.1", Refused),
        ("GET /case HTTP/1.1 ", Refused),
        ("GET /case HTTP/1.1\t", Refused),
        (" GET /case HTTP/1.1", Refused),
        ("GET /case /smuggled HTTP/1.1", Refused),
        ("GET /case HTTP/1.1 HTTP/1.1", Refused),
        ("GET /case\0 HTTP/1.1", Refused),
        ("GET /case\r HTTP/1.1", Refused),
        ("GET /case\n HTTP/1.1", Refused),
        ("GET /case HTTP/1.1\nX: y", Refused),
        ("GET /case HTTP/1.1\rX: y", Refused),
        ("GET /case HTTP/1.1\r", Refused),
        ("GET /case", Refused),
        ("GET", Refused),
        ("/case HTTP/1.1", Refused),
        ("GET /case HTTP/0.9", Refused),
        ("GET /case HTTP/1.2", Refused),
        ("GET /case HTTP/1.10", Refused),
        ("GET /case HTTP/01.1", Refused),
        ("GET /case HTTP/2.0", Refused),
        ("GET /case HTTP/2", Refused),
        ("GET /case HTTP/3.0", Refused),
        ("GET /case http/1.1", Refused),
        ("GET /case HTTP/1,1", Refused),
        ("GET /case HTTP 1.1", Refused),
        ("GET /case HTTP/1.1x", Refused),
        ("GET /case HTTPS/1.1", Refused),
        ("GET /case ICY/1.1", Refused),
        ("get /case HTTP/1.1", Either),
        ("G@T /case HTTP/1.1", Refused),
        ("GET: /case HTTP/1.1", Refused),
        ("GET\0 /case HTTP/1.1", Refused),
        ("\u{e9} /case HTTP/1.1", Refused),
        ("CONNECT a.test:80 HTTP/1.1", Refused),
        ("CONNECT /case HTTP/1.1", Refused),
        ("GET case HTTP/1.1", Refused),
        ("GET ?case HTTP/1.1", Refused),
        ("GET * HTTP/1.1", Refused),
        ("OPTIONS * HTTP/1.1", Either),
        ("GET #case HTTP/1.1", Refused),
        ("GET /case#x HTTP/1.1", Refused),
        ("GET //a.test/case HTTP/1.1", Either),
        ("GET /\\a.test/case HTTP/1.1", Either),
        ("GET http:/a.test/case HTTP/1.1", Refused),
        ("GET http:///case HTTP/1.1", Refused),
        ("GET http://b.test/case HTTP/1.1", Refused),
        ("GET http://a.test:80/case HTTP/1.1", Either),
        ("GET http://me@a.test/case HTTP/1.1", Refused),
        ("GET http://a.test\\@b.test/case HTTP/1.1", Refused),
        ("GET http://a.test#@b.test/case HTTP/1.1", Refused),
        ("GET ftp://a.test/case HTTP/1.1", Refused),
        ("GET a.test:80 HTTP/1.1", Refused),
        ("GET /case\u{e9} HTTP/1.1", Either),
        ("GET /case%0d%0aX:%20y HTTP/1.1", Either),
        ("GET /case?x\u{85}y HTTP/1.1", Either),
        ("PRI * HTTP/2.0", Refused),
    ] {
        add(all, "request line", line, want, format!("{line}{rest}"));
    }
    add(all, "request line", "no HTTP/1 after an empty line", Taken(1), format!("\r\nGET /case HTTP/1.1{rest}"));
    add(all, "request line", "empty lines of LF alone", Refused, format!("\n\nGET /case HTTP/1.1{rest}"));
    add(all, "request line", "HTTP/0.9", Refused, "GET /case\r\n");
    add(all, "request line", "HTTP/2's preface and a frame", Refused, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    add(all, "heads", "LF alone everywhere", Refused, "GET /case HTTP/1.1\nHost: a.test\n\n");
    add(all, "heads", "LF alone at the end", Refused, "GET /case HTTP/1.1\r\nHost: a.test\r\n\n");
    add(all, "heads", "LF CR at the end", Refused, format!("GET /case HTTP/1.1\r\nHost: a.test\n\r\n{HIDDEN}"));
    add(all, "heads", "CR CR LF at the end", Refused, "GET /case HTTP/1.1\r\nHost: a.test\r\n\r\r\n");
    add(all, "heads", "cut off", Refused, "GET /case HTTP/1.1\r\nHost: a.test\r\nX: y");
}

fn hosts(all: &mut Vec<Case>) {
    for (fields, want) in [
        ("HOST: a.test", Taken(1)),
        ("Host: A.Test", Taken(1)),
        ("Host:a.test", Taken(1)),
        ("Host: a.test:80", Taken(1)),
        ("Host: a.test.", Either),
        ("X: y", Refused),
        ("Host:", Refused),
        ("Host: a.test\r\nHost: a.test", Refused),
        ("Host: a.test\r\nHost: b.test", Refused),
        ("Host: a.test\r\nhost: b.test", Refused),
        ("Host: a.test, b.test", Refused),
        ("Host: a.test b.test", Refused),
        ("Host: a.test/case", Refused),
        ("Host: a.test?x", Refused),
        ("Host: a.test#x", Refused),
        ("Host: a.test\\b", Refused),
        ("Host: me@a.test", Refused),
        ("Host: a.test@b.test", Refused),
        ("Host: http://a.test", Refused),
        ("Host: a.test:", Either),
        ("Host: a.test:99999", Refused),
        ("Host: a.test:x", Refused),
        ("Host: a.test:80:80", Refused),
        ("Host: a.test:-80", Refused),
        ("Host: a.test:80@b.test", Refused),
        ("Host: a%2etest", Refused),
        ("Host: [::1", Refused),
        ("Host: ::1", Refused),
        ("Host: [a.test]", Refused),
        ("Host: .a.test", Refused),
        ("Host: a..test", Refused),
        ("Host: a.test\0", Refused),
        ("Host: a.test\x0b", Refused),
        ("Host: \"a.test\"", Refused),
        ("Host: a.t\u{e9}st", Refused),
        ("Host:\r\n a.test", Refused),
        ("Host: a.test\r\n b.test", Refused),
        ("Host : a.test", Refused),
        (" Host: a.test", Refused),
        ("Ho\0st: a.test", Refused),
    ] {
        add(all, "host", fields, want, format!("GET /case HTTP/1.1\r\n{fields}\r\nX-Y: z\r\n\r\n"));
    }
    add(all, "host", "none on 1.0", Either, "GET /case HTTP/1.0\r\n\r\n");
    add(all, "host", "absolute form without one", Refused, "GET http://a.test/case HTTP/1.1\r\n\r\n");
}

fn fields(all: &mut Vec<Case>) {
    for (line, want) in [
        ("X: \u{e9}", Taken(1)),
        ("X: a\tb", Taken(1)),
        ("X:", Taken(1)),
        ("X_Y: z", Taken(1)),
        ("X-Y: z\r\nX_Y: w", Taken(1)),
        ("X Y: z", Refused),
        ("X : z", Refused),
        ("X\t: z", Refused),
        ("X(y): z", Refused),
        ("X\x7f: z", Refused),
        ("\u{e9}: z", Refused),
        ("X", Refused),
        (": z", Refused),
        ("", Either),
        ("X: y\0z", Refused),
        ("X: y\x01z", Refused),
        ("X: y\x7fz", Refused),
        ("X: y\x0bz", Refused),
        ("X: y\rz", Refused),
        ("X: y\nz", Refused),
        ("X: y\nZ: z", Refused),
        ("X: y\n Z: z", Refused),
        ("X: y\r\n z", Refused),
        ("X: y\r\n\tz", Refused),
        ("X: y\r\n \r\nZ: z", Refused),
    ] {
        add(all, "field", line, want, format!("GET /case HTTP/1.1\r\nHost: a.test\r\n{line}\r\nX-End: z\r\n\r\n"));
    }
    add(all, "field", "a blank line as the first", Refused, "GET /case HTTP/1.1\r\n Host: a.test\r\nHost: a.test\r\n\r\n");
}

/// Fields that are for one hop, and the doors they open.
fn hops(all: &mut Vec<Case>) {
    let hidden = HIDDEN.len();
    for (what, fields) in [
        ("the length named in Connection", "Connection: Content-Length\r\nContent-Length: 5\r\n"),
        ("the coding named in Connection", "Connection: close, Transfer-Encoding\r\nContent-Length: 5\r\n"),
        ("the host named in Connection", "Connection: Host\r\nContent-Length: 5\r\n"),
        ("a cookie named in Connection", "Connection: Cookie\r\nCookie: a=b\r\nContent-Length: 5\r\n"),
        ("a quoted name in Connection", "Connection: \"Content-Length\"\r\nContent-Length: 5\r\n"),
        ("TE", "TE: trailers, chunked\r\nConnection: TE\r\nContent-Length: 5\r\n"),
        ("Proxy-Connection and Keep-Alive", "Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=1000\r\nContent-Length: 5\r\n"),
        ("Expect: 100-continue", "Expect: 100-continue\r\nContent-Length: 5\r\n"),
        ("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\nContent-Length: 5\r\n"),
        ("h2c without Connection", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\nContent-Length: 5\r\n"),
        ("WebSocket with a body", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nContent-Length: 5\r\n"),
        ("TLS/1.0", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nContent-Length: 5\r\n"),
    ] {
        add(all, "hop", what, Either, post(fields, "hello"));
    }
    add(
        all,
        "hop",
        "the length of a whole request named in Connection",
        Either,
        post(&format!("Connection: Content-Length\r\nContent-Length: {hidden}\r\n"), HIDDEN),
    );
    let coded = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", hidden);
    add(
        all,
        "hop",
        "the coding named in Connection",
        Either,
        post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", &coded),
    );
    for expect in
        ["x", "100-continue, x", "x 100-continue", "100-Continue;q=1", "\u{a0}100-continue", "100-continue\r\nExpect: 100-continue"]
    {
        add(all, "Expect", expect, Refused, post(&format!("Expect: {expect}\r\nContent-Length: {hidden}\r\n"), HIDDEN));
    }
    add(all, "Expect", "with a GET", Either, "GET /case HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n\r\n");
    add(all, "Expect", "on 1.0", Either, "POST /case HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    // The backend switches to nothing: what follows was never anybody's tunnel.
    let socket = "GET /case HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    add(all, "hop", "a WebSocket that is none, and a request behind it", Either, format!("{socket}{HIDDEN}\r\n\r\n"));
    let h2c = "GET /case HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n\r\n";
    add(all, "hop", "h2c, and HTTP/2 behind it", Either, format!("{h2c}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
    add(all, "hop", "h2c, and a request behind it", Either, format!("{h2c}{HIDDEN}\r\n\r\n"));
}

/// One after the other on one connection.
fn sequences(all: &mut Vec<Case>) {
    let next = "GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n";
    add(all, "sequence", "two", Taken(2), format!("GET /case HTTP/1.1\r\nHost: a.test\r\n\r\n{next}"));
    add(all, "sequence", "after a length", Taken(2), format!("{}{next}", post("Content-Length: 5\r\n", "hello")));
    add(all, "sequence", "after chunks", Taken(2), format!("{}{next}", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")));
    add(all, "sequence", "CR LF between", Taken(2), format!("{}\r\n{next}", post("Content-Length: 5\r\n", "hello")));
    add(all, "sequence", "garbage between", Taken(1), format!("{}\0{next}", post("Content-Length: 5\r\n", "hello")));
    add(
        all,
        "sequence",
        "after Connection: close",
        Taken(1),
        format!("{}{next}", post("Connection: close\r\nContent-Length: 5\r\n", "hello")),
    );
    add(all, "sequence", "after a 1.0", Taken(1), format!("GET /case HTTP/1.0\r\nHost: a.test\r\n\r\n{next}"));
    add(all, "sequence", "after HEAD", Taken(2), format!("HEAD /case HTTP/1.1\r\nHost: a.test\r\n\r\n{next}"));
    // The backend answers before the body has come, and keeps its connection: what is left of the body must not be the next one's.
    let early = format!("POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", 10 + HIDDEN.len());
    add(all, "sequence", "an early answer", Either, format!("{early}0123456789"));
    let early = "POST /early HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    add(all, "sequence", "an early answer to chunks", Either, format!("{early}5\r\nhello\r\n"));
    add(
        all,
        "sequence",
        "not taken, with a body",
        Refused,
        format!("POST /case HTTP/1.1\r\nHost: b.test\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()),
    );
}
