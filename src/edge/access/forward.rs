//! Another server says who may come in: `auth = { forward = … }`.
//!
//! Shape: one GET without a body for each request, with its headers and who asks for what in `X-Forwarded-*`; connections are kept. Bounded in questions at a time, in
//!        those who wait for their turn, in the size of an answer and in time, all of it within the one deadline. No answer is a no.
//! Source: nginx `auth_request`, Traefik's ForwardAuth and Caddy's `forward_auth`, whose field names servers such as Authelia and oauth2-proxy know.

use std::{
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
};

use super::GuardError;
use crate::{
    edge::{
        forward::{self, Origin},
        gate::maintenance::{FIELD, without_parameter},
        reply::Reply,
    },
    plan,
    vocab::{ServerAddr, lock},
};

/// Questions at a time.
const ASKING: usize = 64;
/// Requests that have a question, those that wait for their turn among them.
const INSIDE: usize = 1024;
/// Of an answer that goes to the client; the head has as much.
const LARGEST: usize = 256 * 1024;
/// Connections kept, and for how long: less than what common servers wait for a next request.
const KEPT: usize = 16;
const KEPT_FOR: Duration = Duration::from_secs(4);

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// What of a request is not for whoever is asked about it: framing, what only a body has, and conditions, which would turn its answer into another.
const LEFT_OUT: [HeaderName; 19] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::EXPECT,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("x-original-method"),
];

/// What of an answer belongs to its connection.
const NOT_PASSED_ON: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::DATE,
];

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ForwardError {
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("get an answer")]
    Http(#[from] hyper::Error),
    #[error("read an answer: it is larger than {LARGEST} bytes")]
    Large,
    #[error("get an answer within {0:?}")]
    Late(Duration),
    #[error("ask: {INSIDE} requests wait for an answer already")]
    Full,
    #[error("use an answer with status {0}")]
    Status(StatusCode),
}

/// What there is to tell about the request.
pub struct Asked<'a> {
    pub method: &'a Method,
    /// Path and query as received.
    pub target: &'a [u8],
    pub headers: &'a HeaderMap,
    /// Of an HTTP/2 request without a `Host`.
    pub authority: Option<&'a str>,
    pub peer: IpAddr,
    pub client: IpAddr,
    pub trusted: bool,
    pub tls: bool,
    pub request_id: &'a HeaderValue,
}

/// The answer.
pub enum Said {
    Admitted {
        /// For the access log.
        user: Option<HeaderValue>,
        /// For the app; a name that the answer has not got stands without a value.
        vouched: Vec<(HeaderName, Option<HeaderValue>)>,
    },
    /// For the client.
    Refused(Reply),
}

/// One server, and the connections to it.
pub struct Forward {
    server: ServerAddr,
    host: HeaderValue,
    path: Uri,
    headers: Vec<HeaderName>,
    timeout: Duration,
    slots: Semaphore,
    inside: AtomicUsize,
    /// The last used comes last.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    line: Line,
    since: Instant,
}

/// A connection and what drives it: nobody does while it is kept.
struct Line {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: http1::Connection<TokioIo<Socket>, Empty<Bytes>>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Forward {
    /// Errors: [`GuardError`]
    pub fn new(plan: &plan::Forward) -> Result<Self, GuardError> {
        let plan::Forward { server, host, path, headers, timeout } = plan;
        Ok(Self {
            server: server.clone(),
            host: HeaderValue::try_from(host.as_str()).map_err(|_| GuardError::Host(host.clone()))?,
            path: path.parse().map_err(|_| GuardError::Path(path.clone()))?,
            headers: headers.clone(),
            timeout: *timeout,
            slots: Semaphore::new(ASKING),
            inside: AtomicUsize::new(0),
            kept: Mutex::default(),
        })
    }

    #[must_use]
    pub fn server(&self) -> &ServerAddr {
        &self.server
    }

    /// The headers to ask with.
    #[must_use]
    pub fn question(&self, asked: &Asked<'_>) -> HeaderMap {
        let Asked { method, target, headers, authority, peer, client, trusted, tls, request_id } = asked;
        let mut fields = (*headers).clone();
        // What `Connection` names belongs to that connection too.
        let named: Vec<HeaderName> =
            headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(names).collect();
        for name in LEFT_OUT.iter().chain(&named).chain(forward::HEARSAY.iter().filter(|_| !trusted)) {
            fields.remove(name);
        }
        if let Some(all) = forward::cookie(headers) {
            fields.insert(header::COOKIE, all);
        }
        let written;
        let host = match headers.get(header::HOST) {
            Some(host) => Some(host),
            None => {
                written = authority.and_then(|authority| HeaderValue::from_str(authority).ok());
                written.as_ref()
            }
        };
        let origin = Origin { peer: *peer, client: *client, trusted: *trusted, tls: *tls, host, request_id };
        forward::fields(&origin, headers, |name, value| drop(fields.insert(name, value)));
        if let Ok(method) = HeaderValue::from_str(method.as_str()) {
            fields.insert(X_FORWARDED_METHOD, method);
        }
        match HeaderValue::from_bytes(&without_parameter(target)) {
            Ok(target) => drop(fields.insert(X_FORWARDED_URI, target)),
            Err(_) => drop(fields.remove(X_FORWARDED_URI)),
        }
        // The word for a site in maintenance is not his to know.
        fields.remove(FIELD);
        fields.insert(header::HOST, self.host.clone());
        fields
    }

    /// Asks, within the deadline.
    ///
    /// Cancel-safety: dropped, the question and its connection are given up.
    /// Errors: [`ForwardError`]: nobody comes in then.
    pub async fn ask(&self, question: HeaderMap) -> Result<Said, ForwardError> {
        let _inside = Inside::enter(&self.inside).ok_or(ForwardError::Full)?;
        let asked = async {
            // It is never closed.
            let _slot = self.slots.acquire().await;
            self.fetch(&question).await
        };
        let (head, body) = tokio::time::timeout(self.timeout, asked).await.map_err(|_| ForwardError::Late(self.timeout))??;
        self.judge(head, body)
    }

    fn judge(&self, head: http::response::Parts, body: Option<Bytes>) -> Result<Said, ForwardError> {
        let status = head.status;
        if status.is_success() {
            let mut vouched = Vec::with_capacity(self.headers.len());
            for name in &self.headers {
                let before = vouched.len();
                vouched.extend(head.headers.get_all(name).iter().map(|value| (name.clone(), Some(value.clone()))));
                if vouched.len() == before {
                    vouched.push((name.clone(), None));
                }
            }
            let user = vouched.iter().find(|(name, _)| name.as_str().ends_with("-user")).and_then(|(_, value)| value.clone());
            return Ok(Said::Admitted { user, vouched });
        }
        if status.is_informational() {
            return Err(ForwardError::Status(status));
        }
        let mut reply = Reply::bare(status).body(body.ok_or(ForwardError::Large)?);
        let named: Vec<HeaderName> =
            head.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(names).collect();
        for (name, value) in &head.headers {
            if !NOT_PASSED_ON.contains(name) && !named.contains(name) {
                reply = reply.with(name.clone(), value.clone());
            }
        }
        Ok(Said::Refused(reply))
    }

    /// On a kept connection, and on a new one where that was closed meanwhile: a GET may be sent twice.
    async fn fetch(&self, question: &HeaderMap) -> Result<(http::response::Parts, Option<Bytes>), ForwardError> {
        if let Some(line) = self.take()
            && let Ok(answer) = self.fetch_on(line, question).await
        {
            return Ok(answer);
        }
        let line = Line::open(&self.server).await?;
        self.fetch_on(line, question).await
    }

    async fn fetch_on(&self, line: Line, question: &HeaderMap) -> Result<(http::response::Parts, Option<Bytes>), ForwardError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        request.headers_mut().clone_from(question);
        let Line { mut sender, mut connection } = line;
        let (answer, open) = {
            let mut asked = pin!(async {
                sender.ready().await?;
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok::<_, ForwardError>((head, read(body).await?))
            });
            let mut driven = Some(&mut connection);
            loop {
                match driven.take() {
                    Some(connection) => tokio::select! {
                        biased;
                        answer = &mut asked => break (answer?, true),
                        // The last byte of an answer may end its connection too: what was heard counts.
                        _ = &mut *connection => {}
                    },
                    None => break (asked.as_mut().await?, false),
                }
            }
        };
        if open && answer.1.is_some() && !sender.is_closed() {
            self.keep(Line { sender, connection });
        }
        Ok(answer)
    }

    fn take(&self) -> Option<Line> {
        let mut kept = lock(&self.kept);
        let now = Instant::now();
        kept.retain(|kept| now.duration_since(kept.since) < KEPT_FOR && !kept.line.sender.is_closed());
        kept.pop().map(|kept| kept.line)
    }

    fn keep(&self, line: Line) {
        let mut kept = lock(&self.kept);
        if kept.len() < KEPT {
            kept.push(Kept { line, since: Instant::now() });
        }
    }
}

/// `None`: there is more than may be.
async fn read(body: Incoming) -> Result<Option<Bytes>, ForwardError> {
    if body.is_end_stream() {
        return Ok(Some(Bytes::new()));
    }
    match Limited::new(body, LARGEST).collect().await {
        Ok(whole) => Ok(Some(whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(ForwardError::Http(*error)),
            Err(_) => Ok(None),
        },
    }
}

fn names(list: &str) -> impl Iterator<Item = HeaderName> {
    list.split(',').filter_map(|name| HeaderName::try_from(name.trim()).ok())
}

impl Line {
    async fn open(server: &ServerAddr) -> Result<Self, ForwardError> {
        let socket = match server {
            ServerAddr::Tcp(addr) => TcpStream::connect(addr).await.map(Socket::Tcp),
            ServerAddr::Name { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(Socket::Tcp),
            ServerAddr::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        };
        let socket = socket.map_err(ForwardError::Connect)?;
        if let Socket::Tcp(tcp) = &socket {
            // Without it a question of two segments would wait for a delayed acknowledgement.
            tcp.set_nodelay(true).map_err(ForwardError::Connect)?;
        }
        let (sender, connection) = http1::Builder::new().max_buf_size(LARGEST).handshake(TokioIo::new(socket)).await?;
        Ok(Self { sender, connection })
    }
}

/// One of those inside.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        count.fetch_update(Relaxed, Relaxed, |inside| (inside < INSIDE).then_some(inside + 1)).ok().map(|_| Self(count))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
