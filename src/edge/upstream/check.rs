//! One probe: a connection of its own, a request, a verdict on the answer.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};

use super::server::PeerAddr;
use crate::{plan::UpstreamHttp, rules::health::Outcome, vocab::units::duration_text};

const USER_AGENT: HeaderValue = HeaderValue::from_static("gateway-probe");
/// Of the answer's body; read so that the server is not cut off in the middle of it, then ignored.
const BODY_MAX: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(1);

/// What to ask a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Check {
    /// Passes when it accepts a connection.
    Tcp,
    /// Passes when the status is in one of the inclusive ranges. Over HTTP/2 with prior knowledge where requests go that way too.
    Http { path: String, host: String, expect: Vec<(u16, u16)>, version: UpstreamHttp },
}

/// Why a probe did not pass.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("no connection within {}", duration_text(*.0))]
    Unreachable(Duration),
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("its queue of connections is full")]
    Backlog,
    #[error("no answer within {}", duration_text(*.0))]
    Silent(Duration),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("closed the connection without an answer")]
    Closed,
    #[error("its answer is not HTTP/1: {0}")]
    Http1(hyper::Error),
    #[error("its answer is not HTTP/2: {0}")]
    Http2(h2::Error),
    #[error("the request cannot be made: {0}")]
    Request(http::Error),
}

impl Fault {
    /// Whether the server said anything, be it wrong.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Status(_) => true,
            Self::Http1(error) => error.is_parse(),
            Self::Http2(error) => !error.is_io(),
            Self::Unreachable(_) | Self::Connect(_) | Self::Backlog | Self::Silent(_) | Self::Closed | Self::Request(_) => false,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Backlog | Self::Silent(_) => Outcome::Slow,
            Self::Unreachable(_)
            | Self::Connect(_)
            | Self::Status(_)
            | Self::Closed
            | Self::Http1(_)
            | Self::Http2(_)
            | Self::Request(_) => Outcome::Fail,
        }
    }
}

impl Check {
    /// Errors: [`Fault`]; a server that accepts the connection and then says nothing within `within` is slow, one that does not accept it is not.
    pub(super) async fn run(&self, addr: &PeerAddr, within: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + within;
        let connected = async {
            match addr {
                PeerAddr::Tcp(addr) => {
                    let stream = TcpStream::connect(addr).await?;
                    // A port of the ephemeral range that nobody listens on may connect to itself.
                    if stream.local_addr()? == *addr {
                        return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                    }
                    Ok(Stream::Tcp(stream))
                }
                PeerAddr::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            }
        };
        let stream = match timeout_at(deadline, connected).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(Fault::Backlog),
            Ok(Err(error)) => return Err(Fault::Connect(error)),
            Err(_) => return Err(Fault::Unreachable(within)),
        };
        let Self::Http { path, host, expect, version } = self else { return Ok(()) };
        let answered = async {
            match stream {
                Stream::Tcp(stream) => ask(stream, path, host, *version).await,
                Stream::Unix(stream) => ask(stream, path, host, *version).await,
            }
        };
        let status = timeout_at(deadline, answered).await.unwrap_or(Err(Fault::Silent(within)))?;
        let passes = expect.iter().any(|(first, last)| (*first..=*last).contains(&status.as_u16()));
        if passes { Ok(()) } else { Err(Fault::Status(status)) }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn ask<S>(stream: S, path: &str, host: &str, version: UpstreamHttp) -> Result<StatusCode, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match version {
        UpstreamHttp::V1 => {
            // As a request over TLS reaches it: an app that insists on https answers instead of redirecting.
            let request = Request::get(path)
                .header(header::HOST, host)
                .header(header::USER_AGENT, USER_AGENT)
                .header(header::ACCEPT, "*/*")
                .header("x-forwarded-proto", "https")
                .header(header::CONNECTION, "close")
                .body(Empty::<Bytes>::new())
                .map_err(Fault::Request)?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Fault::Http1)?;
            let exchange = async move {
                let mut answer = sender.send_request(request).await.map_err(|error| match error.is_incomplete_message() {
                    true => Fault::Closed,
                    false => Fault::Http1(error),
                })?;
                let status = answer.status();
                let rest = async {
                    let mut read = 0;
                    while read < BODY_MAX
                        && let Some(Ok(frame)) = answer.body_mut().frame().await
                    {
                        read += frame.data_ref().map_or(0, Bytes::len);
                    }
                };
                // What comes after the status does not matter, nor whether it comes at all.
                let _ = tokio::time::timeout(BODY_TIME, rest).await;
                Ok(status)
            };
            while_driven(connection, exchange).await
        }
        UpstreamHttp::V2 => {
            let request = Request::get(format!("http://{host}{path}"))
                .header(header::USER_AGENT, USER_AGENT)
                .header("x-forwarded-proto", "https")
                .body(())
                .map_err(Fault::Request)?;
            let (sender, connection) = h2::client::handshake(stream).await.map_err(Fault::Http2)?;
            let exchange = async move {
                let mut sender = sender.ready().await?;
                let (answer, _) = sender.send_request(request, true)?;
                Ok(answer.await?.status())
            };
            while_driven(connection, async { exchange.await.map_err(Fault::Http2) }).await
        }
    }
}

/// Runs `exchange` to its end; `connection` moves its bytes and is dropped when it ends first, which ends the exchange too.
async fn while_driven<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut exchange = std::pin::pin!(exchange);
    {
        let mut connection = Box::pin(connection);
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            _ = &mut connection => {}
        }
    }
    exchange.await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixListener},
        task::JoinSet,
    };

    use super::*;

    fn http(version: UpstreamHttp) -> Check {
        Check::Http { path: "/healthz?x=1".into(), host: "api.internal:81".into(), expect: vec![(200, 299)], version }
    }

    /// Answers one connection with `answer` after it has read a request; gives the request.
    async fn once(tasks: &mut JoinSet<String>, answer: &'static str) -> PeerAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.expect("readable") > 0 {}
            stream.write_all(answer.as_bytes()).await.expect("written");
            // Until the probe has closed it.
            let _ = stream.read_buf(&mut Vec::new()).await;
            String::from_utf8(request).expect("text")
        });
        PeerAddr::Tcp(addr)
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_probe_asks_what_is_configured_and_says_who_it_is() {
        let mut tasks = JoinSet::new();
        let addr = once(&mut tasks, "HTTP/1.1 204 No Content\r\n\r\n").await;
        http(UpstreamHttp::V1).run(&addr, SOON).await.expect("it passes");
        let request = tasks.join_next().await.expect("one").expect("no panic");
        assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: api.internal:81\r\n") && request.contains("user-agent: gateway-probe\r\n"), "{request}");
    }

    #[tokio::test]
    async fn the_reason_says_what_was_wrong() {
        let mut tasks = JoinSet::new();
        let mut reason = async |answer| {
            let addr = once(&mut tasks, answer).await;
            let fault = http(UpstreamHttp::V1).run(&addr, Duration::from_millis(200)).await.expect_err("it fails");
            (fault.outcome(), fault.to_string())
        };
        assert_eq!(
            reason("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await,
            (Outcome::Fail, "it answered 503 Service Unavailable".into())
        );
        assert_eq!(reason("").await, (Outcome::Slow, "no answer within 200ms".into()));
        assert_eq!(reason("SSH-2.0-OpenSSH_9.2\r\n").await.0, Outcome::Fail);
        // Status first, the rest never: the status counts.
        let (outcome, text) = reason("HTTP/1.1 500 x\r\ncontent-length: 9\r\n\r\n").await;
        assert!(outcome == Outcome::Slow || text.contains("500"), "{text}");
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure_not_slowness() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr: SocketAddr = listener.local_addr().expect("bound");
        assert!(Check::Tcp.run(&PeerAddr::Tcp(addr), SOON).await.is_ok());
        drop(listener);
        let fault = Check::Tcp.run(&PeerAddr::Tcp(addr), SOON).await.expect_err("nobody listens");
        assert_eq!((fault.outcome(), fault.to_string()), (Outcome::Fail, "connect: Connection refused (os error 111)".into()));
        let fault = Check::Tcp.run(&PeerAddr::Unix("/nowhere/x.sock".into()), SOON).await.expect_err("no file");
        assert_eq!(fault.outcome(), Outcome::Fail);
    }

    #[tokio::test]
    async fn unix_sockets_and_h2c_are_probed_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("h2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().to_string(), "http://api.internal:81/healthz?x=1");
                respond.send_response(http::Response::new(()), true).expect("sent");
            }
        });
        http(UpstreamHttp::V2).run(&PeerAddr::Unix(path), SOON).await.expect("it passes");
        tasks.join_next().await.expect("one").expect("no panic");
    }
}
