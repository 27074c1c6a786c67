//! A client on one connection: HTTP/1.1 or HTTP/2, in the clear or over TLS.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};

use super::{tls::TlsClient, wait::secs};

/// Where a request got stuck: a refused connection and a broken one are different promises.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("connect: {0}")]
    Connect(std::io::Error),
    #[error("TLS handshake: {0}")]
    Tls(std::io::Error),
    #[error("request: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within 30 s")]
    Late,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible text"))
    }
}

enum Sender {
    H1(conn::http1::SendRequest<Full<Bytes>>),
    H2(conn::http2::SendRequest<Full<Bytes>>),
}

/// One connection. Dropped: closed.
pub struct Conn {
    sender: Sender,
    /// The server has said `Connection: close`.
    leaving: bool,
    /// Ends with it.
    _driver: JoinSet<()>,
}

impl Conn {
    pub async fn h1(addr: SocketAddr) -> Result<Self, ClientError> {
        Self::h1_over(tcp(addr).await?).await
    }

    pub async fn h1_tls(addr: SocketAddr, tls: &TlsClient, name: &str) -> Result<Self, ClientError> {
        Self::h1_over(tls.connect(tcp(addr).await?, name, &[b"http/1.1"]).await.map_err(ClientError::Tls)?).await
    }

    pub async fn h2_tls(addr: SocketAddr, tls: &TlsClient, name: &str) -> Result<Self, ClientError> {
        let stream = tls.connect(tcp(addr).await?, name, &[b"h2"]).await.map_err(ClientError::Tls)?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "h2 was offered and not chosen");
        Self::h2_over(stream).await
    }

    pub async fn h2_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Self, ClientError> {
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { sender: Sender::H2(sender), leaving: false, _driver: driver })
    }

    pub async fn h1_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Self, ClientError> {
        let (sender, connection) = conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self { sender: Sender::H1(sender), leaving: false, _driver: driver })
    }

    /// The head of the answer; its body can be read as it comes.
    pub async fn start(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let sent = async {
            match &mut self.sender {
                Sender::H1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        Ok(tokio::time::timeout(secs(30), sent).await.map_err(|_| ClientError::Late)??)
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let (head, body) = self.start(request).await?.into_parts();
        self.leaving = head.headers.get("connection").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let body = tokio::time::timeout(secs(30), body.collect()).await.map_err(|_| ClientError::Late)??.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A second handle on the same HTTP/2 connection, for streams side by side.
    pub fn share(&self) -> conn::http2::SendRequest<Full<Bytes>> {
        match &self.sender {
            Sender::H2(sender) => sender.clone(),
            Sender::H1(_) => panic!("an HTTP/1.1 connection carries one request at a time"),
        }
    }

    /// It can carry another request.
    pub fn open(&self) -> bool {
        let closed = match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        };
        !closed && !self.leaving
    }
}

pub async fn tcp(addr: SocketAddr) -> Result<TcpStream, ClientError> {
    let stream = TcpStream::connect(addr).await.map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    Ok(stream)
}

/// `http` wants an absolute URI for HTTP/2; for HTTP/1.1 hyper takes the path of it and we set Host.
pub fn request(method: &str, host: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", host)
}

/// One request on a new connection in the clear.
pub async fn send(addr: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
    Conn::h1(addr).await?.send(request).await
}

pub async fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Answer, ClientError> {
    send(addr, request("GET", host, path).body(Full::default()).expect("a request")).await
}

/// The same request for HTTP/2: scheme and authority in the URI, no Host.
pub fn request_h2(method: &str, host: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://{host}{path}"))
}
