//! HTTP/2 frame by frame, for what no library would send.
//!
//! Source: RFC 9113 §4.1 and §6 (frames), RFC 7541 §6.2.2 (literals without indexing: every byte is sent as given).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{raw, tls::TlsClient};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No library sends larger ones unless it was told to.
const MOST: usize = 16_384;

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or RST_STREAM.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            GOAWAY => 4,
            RST_STREAM => 0,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// What became of one stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Its status, where it is one that the static table knows (else 0), and its body.
    Answered(u16, String),
    Reset(u32),
    /// The connection ended, with the code of its GOAWAY.
    Closed(Option<u32>),
    /// Nothing in time.
    Silence,
}

pub type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// One frame, its length as long as the payload is.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend_from_slice(&stream.to_be_bytes());
    all.extend_from_slice(payload);
    all
}

/// A block of fields, each byte as given.
pub fn block(fields: Fields<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, value) in fields {
        all.push(0);
        for text in [name, value] {
            number(&mut all, text.len());
            all.extend_from_slice(text);
        }
    }
    all
}

/// A length with a prefix of seven bits.
fn number(to: &mut Vec<u8>, n: usize) {
    if n < 127 {
        return to.push(u8::try_from(n).expect("below 127"));
    }
    to.push(127);
    let mut left = n - 127;
    while left >= 128 {
        to.push(u8::try_from(left % 128).expect("below 128") | 128);
        left /= 128;
    }
    to.push(u8::try_from(left).expect("below 128"));
}

/// HEADERS, and CONTINUATION where one frame does not hold them.
pub fn headers(stream: u32, flags: u8, fields: Fields<'_>) -> Vec<u8> {
    let block = block(fields);
    let mut pieces = block.chunks(MOST).peekable();
    let mut all = Vec::new();
    let mut kind = HEADERS;
    loop {
        let piece = pieces.next().unwrap_or_default();
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        all.extend(frame(kind, last | if kind == HEADERS { flags } else { 0 }, stream, piece));
        if last != 0 {
            return all;
        }
        kind = CONTINUATION;
    }
}

/// The fields of a plain GET.
pub fn get<'a>(authority: &'a [u8], path: &'a [u8]) -> [(&'a [u8], &'a [u8]); 4] {
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]
}

pub struct H2 {
    stream: TlsStream<TcpStream>,
    inbox: Vec<u8>,
}

impl H2 {
    /// Connected, preface and settings sent; the server may keep no table for our sake.
    pub async fn connect(addr: SocketAddr, tls: &TlsClient, name: &str) -> Self {
        let mut h2 = Self::silent(addr, tls, name).await;
        // SETTINGS_HEADER_TABLE_SIZE = 0
        h2.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat()).await.expect("the preface is taken");
        h2
    }

    /// Connected, and nothing said.
    pub async fn silent(addr: SocketAddr, tls: &TlsClient, name: &str) -> Self {
        let stream = tls.connect(raw::connect(addr).await, name, &[b"h2"]).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self { stream, inbox: Vec::new() }
    }

    /// Errors: the server has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next frame; `None`: the connection has ended, or nothing came in time.
    pub async fn frame(&mut self, longest: Duration) -> Result<Option<Frame>, tokio::time::error::Elapsed> {
        tokio::time::timeout(longest, self.next()).await
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, stream @ ..] = &self.inbox[..]
                && stream.len() >= 4
            {
                let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if self.inbox.len() >= 9 + length {
                    let stream = u32::from_be_bytes([stream[0], stream[1], stream[2], stream[3]]);
                    let (kind, flags) = (*kind, *flags);
                    let payload = self.inbox[9..9 + length].to_vec();
                    self.inbox.drain(..9 + length);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(count @ 1..) => self.inbox.extend_from_slice(&buffer[..count]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Reads until this stream, or the connection, has ended.
    pub async fn fate(&mut self, stream: u32, longest: Duration) -> Fate {
        let (mut status, mut body, mut goaway) = (None, Vec::new(), None);
        let end = tokio::time::Instant::now() + longest;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            let frame = match self.frame(left).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Fate::Closed(goaway),
                Err(_) => return Fate::Silence,
            };
            match frame.kind {
                GOAWAY => goaway = frame.code(),
                SETTINGS if frame.flags & ACK == 0 => drop(self.send(&self::frame(SETTINGS, ACK, 0, &[])).await),
                RST_STREAM if frame.stream == stream && status.is_none() => return Fate::Reset(frame.code().unwrap_or_default()),
                RST_STREAM if frame.stream == stream => {
                    return Fate::Answered(status.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned());
                }
                HEADERS if frame.stream == stream && status.is_none() => status = Some(self::status(&frame.payload)),
                DATA if frame.stream == stream => {
                    body.extend_from_slice(&frame.payload);
                    if let Ok(taken @ 1..) = u32::try_from(frame.payload.len()) {
                        drop(self.send(&self::frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes())).await);
                    }
                }
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Fate::Answered(status.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned());
            }
        }
    }

    /// Reads until the connection ends; the code of its GOAWAY.
    pub async fn end(&mut self, longest: Duration) -> Fate {
        self.fate(u32::MAX, longest).await
    }
}

/// By the static table; 0: another.
fn status(block: &[u8]) -> u16 {
    let first = block.iter().find(|byte| !(0x20..0x40).contains(*byte));
    match first {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}
