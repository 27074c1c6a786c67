//! Servers behind the gateway, in the test's own process; the bad ones are named by their vice.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// A server on 127.0.0.1. Dropped: it and all its connections end.
pub struct Upstream {
    pub addr: SocketAddr,
    /// Connections accepted.
    pub accepted: Arc<AtomicUsize>,
    /// Requests seen; probes of `/health` are not counted.
    pub hits: Arc<AtomicUsize>,
    /// What the raw ones received, one entry a connection.
    pub received: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The status that [`switched`] answers with.
    pub answer: Arc<AtomicU16>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> Vec<String> {
        let all = self.received.lock().expect("not poisoned");
        all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// Says what it was asked: name, method, target, headers (each a list), length and text of the body.
pub async fn echo(name: &'static str) -> Upstream {
    serve(None, Http::One, move |request, _| async move { described(name, request).await }).await
}

/// As [`echo`], over HTTP/2 in the clear with prior knowledge.
pub async fn echo_h2c(name: &'static str) -> Upstream {
    serve(None, Http::Two, move |request, _| async move { described(name, request).await }).await
}

/// Answers everything with this body.
pub async fn says(body: &'static str) -> Upstream {
    serve(None, Http::One, move |_, _| async move { Response::new(Full::from(body)) }).await
}

/// As [`says`], on this very address.
pub async fn says_at(addr: SocketAddr, body: &'static str) -> Upstream {
    serve(Some(addr), Http::One, move |_, _| async move { Response::new(Full::from(body)) }).await
}

/// Is asked whether a name may have a certificate: those that begin like this may.
pub async fn allows(start: &'static str) -> Upstream {
    serve(None, Http::One, move |request, _| async move {
        let asked = request.uri().query().and_then(|query| query.strip_prefix("domain=")).unwrap_or_default();
        let status = if asked.starts_with(start) { 200 } else { 404 };
        Response::builder().status(status).body(Full::default()).expect("an answer")
    })
    .await
}

/// Is asked who may come in: whoever has `session=ok`, and as `Remote-User: alice` with two groups; others are sent to log in. Remembers every question.
pub async fn door() -> (Upstream, Arc<Mutex<Vec<serde_json::Value>>>) {
    let asked: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let memory = asked.clone();
    let upstream = serve(None, Http::One, move |request, _| {
        let memory = memory.clone();
        async move {
            let said = |request: &Request<Incoming>, text: &str| {
                request.headers().get_all("cookie").iter().any(|cookie| cookie.to_str().is_ok_and(|cookie| cookie.contains(text)))
            };
            let (good, stray) = (said(&request, "session=ok"), said(&request, "stray"));
            let told = described("door", request).await.into_body().collect().await.expect("whole").to_bytes();
            memory.lock().expect("not poisoned").push(serde_json::from_slice(&told).expect("JSON"));
            let answer = Response::builder().header("x-door", "1").header("connection", "x-hop").header("x-hop", "1");
            let answer = if good {
                answer.header("remote-user", "alice").header("remote-groups", "staff").header("remote-groups", "admins")
            } else if stray {
                answer.status(403).header("content-type", "text/plain")
            } else {
                let answer = answer.status(302).header("location", "https://login.test/?to=a").header("set-cookie", "try=1");
                answer.header("set-cookie", "other=2").header("www-authenticate", "Basic realm=\"door\"")
            };
            answer.body(Full::from("the door says")).expect("an answer")
        }
    })
    .await;
    (upstream, asked)
}

/// Answers everything with a body of so many bytes and this status.
pub async fn says_much(status: u16, bytes: usize) -> Upstream {
    serve(
        None,
        Http::One,
        move |_, _| async move { Response::builder().status(status).body(Full::from(vec![b'x'; bytes])).expect("an answer") },
    )
    .await
}

/// Answers 200 with these headers.
pub async fn serve_headers(headers: &'static [(&'static str, &'static str)]) -> Upstream {
    serve(None, Http::One, move |_, _| async move {
        let mut answer = Response::builder();
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer.body(Full::from("ok")).expect("an answer")
    })
    .await
}

/// Answers `/health` with the status in `answer`, anything else with 200 and its name.
pub async fn switched(name: &'static str) -> Upstream {
    serve(None, Http::One, move |request, answer| async move {
        let status = if request.uri().path() == "/health" { answer.load(Ordering::Relaxed) } else { 200 };
        Response::builder().status(status).body(Full::from(name)).expect("an answer")
    })
    .await
}

/// Answers everything but `/health` with this status.
pub async fn fails_with(status: u16) -> Upstream {
    serve(None, Http::One, move |request, _| async move {
        let status = if request.uri().path() == "/health" { 200 } else { status };
        Response::builder().status(status).body(Full::from("from the upstream")).expect("an answer")
    })
    .await
}

/// Is busy, and says when to come again.
pub async fn says_later() -> Upstream {
    serve(None, Http::One, |_, _| async {
        Response::builder().status(503).header("retry-after", "5").body(Full::from("later")).expect("an answer")
    })
    .await
}

/// A wire to `to`, that can be cut: by dropping it.
pub async fn forwards(at: Option<SocketAddr>, to: SocketAddr) -> Upstream {
    each_at(at, move |mut near, _| async move {
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
    })
    .await
}

/// Accepts, reads, never answers.
pub async fn hangs() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {}
    })
    .await
}

/// Reads a request, says the first words, and then the others again and again.
pub async fn drips(first: &'static [u8], then: &'static [u8]) -> Upstream {
    each(move |mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        let mut said = stream.write_all(first).await;
        while said.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            said = stream.write_all(then).await;
        }
    })
    .await
}

/// Answers with the status that the path names.
pub async fn answers_by_path() -> Upstream {
    serve(None, Http::One, move |request, _| async move {
        let status: u16 = request.uri().path().trim_start_matches('/').parse().unwrap_or(404);
        Response::builder().status(status).body(Full::from("as you say")).expect("an answer")
    })
    .await
}

/// Answers each request with 200 once there is a permit for it.
pub async fn answers_when_told() -> (Upstream, Arc<Semaphore>) {
    let word = Arc::new(Semaphore::new(0));
    let told = word.clone();
    let upstream = serve(None, Http::One, move |_, _| {
        let told = told.clone();
        async move {
            told.acquire().await.expect("it is never closed").forget();
            Response::new(Full::from("at last"))
        }
    })
    .await;
    (upstream, word)
}

/// Reads a request and resets the connection.
pub async fn resets() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        drop(socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)));
    })
    .await
}

/// Answers one request a connection and keeps it; reads a second one and closes without a word, as a server does that has just been killed, or whose patience with
/// idle connections ended as the request came in.
pub async fn answers_once() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
        drop(stream.read(&mut buffer).await);
    })
    .await
}

/// Promises 1000 bytes, sends 10, closes.
pub async fn breaks_off() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789").await);
        drop(stream.shutdown().await);
    })
    .await
}

/// Speaks no HTTP.
pub async fn babbles() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        drop(stream.write_all(b"220 mail.example ESMTP ready\r\n").await);
        drop(stream.shutdown().await);
    })
    .await
}

/// Writes `101 Switching Protocols` before it has read the request (pingora #946), then echoes bytes.
pub async fn eager_101() -> Upstream {
    each(|mut stream, _| async move {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        // The client may have spoken on its tunnel before we had read its head.
        let end = seen.windows(4).position(|four| four == b"\r\n\r\n").map_or(seen.len(), |at| at + 4);
        let mut said = seen.split_off(end);
        loop {
            if stream.write_all(&said).await.is_err() {
                return;
            }
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => said = buffer[..count].to_vec(),
                _ => return,
            }
        }
    })
    .await
}

/// Agrees to an upgrade, and resets the connection with the first byte that is said on it.
pub async fn resets_after_101() -> Upstream {
    each(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        drop(stream.read(&mut buffer).await);
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        drop(stream.write_all(head).await);
        drop(stream.read(&mut buffer).await);
        drop(socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)));
    })
    .await
}

/// Answers every request with 200 and keeps every byte it received, connection by connection.
pub async fn remembers_bytes() -> Upstream {
    each(|mut stream, memory| async move {
        let mine = {
            let mut all = memory.lock().expect("not poisoned");
            all.push(Vec::new());
            all.len() - 1
        };
        let mut buffer = [0; 64 * 1024];
        let mut answered = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let whole = {
                let mut all = memory.lock().expect("not poisoned");
                all[mine].extend_from_slice(&buffer[..count]);
                requests_in(&all[mine])
            };
            while answered < whole {
                answered += 1;
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// An address on which nothing listens.
pub async fn refuses() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address")
}

/// Whole requests, chunked or without a body, at the start of these bytes.
fn requests_in(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let mut count = 0;
    let mut rest = &text[..];
    while let Some(end) = rest.find("\r\n\r\n") {
        let head = rest[..end].to_ascii_lowercase();
        let body = &rest[end + 4..];
        if head.contains("transfer-encoding: chunked") {
            let Some(last) = (if body.starts_with("0\r\n\r\n") { Some(0) } else { body.find("\r\n0\r\n\r\n").map(|at| at + 2) }) else {
                break;
            };
            rest = &body[last + 5..];
        } else {
            rest = body;
        }
        count += 1;
    }
    count
}

async fn described(name: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let authority = head.uri.authority().map(ToString::to_string);
    let target = head.uri.path_and_query().map(ToString::to_string);
    let said = json!({
        "upstream": name,
        "method": head.method.as_str(),
        "target": target,
        "authority": authority,
        "version": format!("{:?}", head.version),
        "headers": headers,
        "length": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
    });
    let mut answer = Response::new(Full::from(said.to_string()));
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer.headers_mut().insert("server", http::HeaderValue::from_static("echo/1"));
    answer.headers_mut().insert("x-powered-by", http::HeaderValue::from_static("tests"));
    answer
}

#[derive(Clone, Copy)]
enum Http {
    One,
    Two,
}

async fn serve<F, Fut>(addr: Option<SocketAddr>, version: Http, answer: F) -> Upstream
where
    F: Fn(Request<Incoming>, Arc<AtomicU16>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let hits = Arc::new(AtomicUsize::new(0));
    let status = Arc::new(AtomicU16::new(200));
    let (count, current) = (hits.clone(), status.clone());
    let mut upstream = each_at(addr, move |stream, _| {
        let (answer, count, current) = (answer.clone(), count.clone(), current.clone());
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                if request.uri().path() != "/health" {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let answered = answer(request, current.clone());
                async move { Ok::<_, Infallible>(answered.await) }
            });
            match version {
                Http::One => drop(conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
                Http::Two => drop(conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await),
            }
        }
    })
    .await;
    upstream.hits = hits;
    upstream.answer = status;
    upstream
}

pub type Memory = Arc<Mutex<Vec<Vec<u8>>>>;

/// Does this with each connection.
pub async fn each<F, Fut>(handle: F) -> Upstream
where
    F: Fn(TcpStream, Memory) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    each_at(None, handle).await
}

async fn each_at<F, Fut>(addr: Option<SocketAddr>, handle: F) -> Upstream
where
    F: Fn(TcpStream, Memory) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(addr.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address"))).await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let received: Memory = Arc::default();
    let mut tasks = JoinSet::new();
    let (count, memory) = (accepted.clone(), received.clone());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(stream.set_nodelay(true));
            connections.spawn(handle(stream, memory.clone()));
            while connections.try_join_next().is_some() {}
        }
    });
    Upstream { addr, accepted, hits: Arc::default(), received, answer: Arc::default(), _tasks: tasks }
}
