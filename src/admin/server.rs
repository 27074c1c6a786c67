//! The admin listener's HTTP: accepts, bounds, hands to `api`.
//!
//! Shape: at most 64 connections, the next one waits in the accept queue; one has 10 s for a request's headers, at most 16 KB of them, and lives for a minute.
//! Cancel-safety: `run` may be dropped at any time, every connection goes with it.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::api::{Api, Source};
use crate::vocab::Secret;

const CONNECTIONS: usize = 64;
const HEADER_TIME: Duration = Duration::from_secs(10);
const HEADER_SIZE: usize = 16 * 1024;
const HEADER_COUNT: usize = 64;
/// After that the connection closes with its current answer; a reader that is slower than `DRAIN_TIME` loses it.
const LIFETIME: Duration = Duration::from_secs(60);
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The admin listener.
pub struct Server {
    listener: TcpListener,
    api: Arc<Api>,
}

impl Server {
    /// Takes a bound listener.
    ///
    /// Errors: the listener's address cannot be had, or it cannot be made non-blocking.
    pub fn new(listener: TcpListener, token: Option<Secret<String>>, source: Arc<dyn Source>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let api = Arc::new(Api::new(source, listener.local_addr()?, token));
        Ok(Self { listener, api })
    }

    /// Serves until `shutdown` is done; then answers what is under way and ends within `DRAIN_TIME`.
    ///
    /// Errors: the listener cannot be given to this runtime.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        // One value, no queue: the phase.
        let (closing, _) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accept = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, listener.accept().await)
            };
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                (slot, accepted) = accept => match accepted {
                    Ok((stream, peer)) => {
                        let (api, closing) = (self.api.clone(), closing.subscribe());
                        connections.spawn(async move {
                            serve(stream, peer, api, closing).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: give it time.
                        tracing::warn!(%error, "could not accept on the admin listener");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(listener);
        closing.send_replace(true);
        // Whatever is left after that goes with the set.
        drop(timeout(DRAIN_TIME, async { while connections.join_next().await.is_some() {} }).await);
        Ok(())
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, api: Arc<Api>, mut closing: watch::Receiver<bool>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // A body is never read: hyper closes the connection where there is one.
        let (parts, _) = request.into_parts();
        let answer: Response<Full<Bytes>> = api.answer(&parts, peer.ip()).map(Full::new);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_SIZE)
        .max_headers(HEADER_COUNT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let end = Instant::now() + LIFETIME;
    tokio::select! {
        result = &mut connection => {
            if let Err(error) = result {
                tracing::debug!(client = %peer, %error, "an admin connection ended");
            }
            return;
        }
        () = sleep_until(end) => {}
        // Errs only where the server is gone, which means the same.
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(DRAIN_TIME, connection).await);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    use super::*;
    use crate::admin::api::tests::Fake;

    async fn start() -> (SocketAddr, oneshot::Sender<()>, JoinSet<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let server = Server::new(listener, None, Arc::new(Fake::default())).expect("a server");
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(async {
            drop(stopped.await);
        }));
        (addr, stop, tasks)
    }

    async fn talk(addr: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connected");
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn it_answers_and_stops() {
        let (addr, stop, mut tasks) = start().await;
        let answer = talk(addr, "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"the process answers\""), "{answer}");
        let answer = talk(addr, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        // One that is idle does not hold it up.
        let _idle = TcpStream::connect(addr).await.expect("connected");
        stop.send(()).expect("runs");
        tasks.join_next().await.expect("one").expect("no panic").expect("no error");
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn large_and_malformed_requests_are_refused() {
        let (addr, _stop, _tasks) = start().await;
        let big = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(HEADER_SIZE * 2));
        assert!(talk(addr, &big).await.starts_with("HTTP/1.1 431 "));
        let many: String = (0..HEADER_COUNT + 1).map(|n| format!("X-{n}: 1\r\n")).collect();
        assert!(talk(addr, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")).await.starts_with("HTTP/1.1 431 "));
        assert!(talk(addr, "\x00\x01garbage\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
        assert!(talk(addr, post).await.starts_with("HTTP/1.1 405 "));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_sends_nothing_is_cut_at_the_deadline() {
        let (addr, _stop, _tasks) = start().await;
        let begun = Instant::now();
        let answer = talk(addr, "GET / HTTP/1.1\r\nHost: loc").await;
        assert!(begun.elapsed() <= HEADER_TIME + Duration::from_secs(1), "{:?} {answer}", begun.elapsed());
    }
}
