//! What the demo app answers.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use nix::sys::signal::{Signal, raise};
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Spec,
    body::{self, Body},
    say::say,
};

const PAGE: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

const ICON: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='3.5' fill='#3b5bdb'/></svg>";

/// The most of a body that `/echo` takes.
const ECHO_LIMIT: usize = 1024 * 1024;

/// The app, as every request sees it.
pub struct App {
    pub spec: Spec,
    pub started: Instant,
}

/// What becomes of a request beside its answer.
pub enum Outcome {
    Answer(Response<Body>),
    /// Answered with 101: goes on as a WebSocket that echoes.
    Upgrade(Response<Body>, hyper::upgrade::OnUpgrade),
}

impl App {
    /// Errors: on purpose, where the connection is to be closed without an answer.
    pub async fn answer(&self, mut request: Request<Incoming>) -> io::Result<Outcome> {
        let path = request.uri().path().to_owned();
        if path == "/ws" {
            let upgrade = hyper::upgrade::on(&mut request);
            return Ok(match web_socket(request.headers()) {
                Some(answer) => Outcome::Upgrade(self.signed(answer), upgrade),
                None => Outcome::Answer(self.signed(plain(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n"))),
            });
        }
        let answer = match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
            [""] => of_kind("text/html; charset=utf-8", self.page(&request)),
            ["page.css"] => of_kind("text/css; charset=utf-8", CSS),
            ["page.js"] => of_kind("text/javascript; charset=utf-8", JS),
            ["icon.svg"] => of_kind("image/svg+xml", ICON),
            ["healthz"] => self.health(),
            ["pid"] => plain(StatusCode::OK, format!("{}\n", std::process::id())),
            ["echo"] => echo(request).await,
            ["upload"] => upload(request).await?,
            ["slow"] => {
                let ms = query(request.uri(), "ms").unwrap_or(1_000);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                plain(StatusCode::OK, format!("after {ms} ms\n"))
            }
            ["status", code] => {
                match code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok()).filter(|code| code.as_u16() >= 200) {
                    Some(code) => plain(code, format!("{code}\n")),
                    None => plain(StatusCode::BAD_REQUEST, "a status from 200 to 999\n"),
                }
            }
            ["bytes", size] => match size.parse() {
                Ok(size) => {
                    let mut answer = streamed("application/octet-stream", body::dots(size));
                    answer.headers_mut().insert(header::CONTENT_LENGTH, size.into());
                    answer
                }
                Err(_) => plain(StatusCode::BAD_REQUEST, "a number of bytes\n"),
            },
            ["trickle"] => streamed("text/plain", paced(request.uri(), |n| format!("piece {n}\n"))),
            ["sse"] => streamed("text/event-stream", paced(request.uri(), |n| format!("id: {n}\ndata: event {n}\n\n"))),
            ["large"] => large(request.uri()),
            ["hang"] => std::future::pending().await,
            ["close"] => return Err(io::Error::other("closed on purpose")),
            ["half"] => {
                let mut answer = streamed("text/plain", body::broken("the first half"));
                answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000"));
                answer
            }
            ["crash"] => crash(request.uri()),
            _ => plain(StatusCode::NOT_FOUND, "the demo app has no such page\n"),
        };
        Ok(Outcome::Answer(self.signed(answer)))
    }

    fn signed(&self, mut answer: Response<Body>) -> Response<Body> {
        let headers = answer.headers_mut();
        headers.insert("x-demo-pid", std::process::id().into());
        for (name, value) in [("x-demo-app", &self.spec.name), ("x-demo-instance", &self.spec.instance)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        answer
    }

    fn health(&self) -> Response<Body> {
        match self.spec.unready_after {
            Some(after) if self.started.elapsed() >= after => plain(StatusCode::SERVICE_UNAVAILABLE, "unready\n"),
            Some(_) | None => plain(StatusCode::OK, "ok\n"),
        }
    }

    fn page(&self, request: &Request<Incoming>) -> String {
        let header = |name: &str| escaped(request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("–"));
        PAGE.replace("{app}", &escaped(&self.spec.name))
            .replace("{instance}", &escaped(&self.spec.instance))
            .replace("{pid}", &std::process::id().to_string())
            .replace("{client}", &header("x-real-ip"))
            .replace("{scheme}", &header("x-forwarded-proto"))
            .replace("{id}", &header("x-request-id"))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = of_kind("text/plain; charset=utf-8", text);
    *answer.status_mut() = status;
    answer
}

fn of_kind(kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    streamed(kind, body::text(text))
}

fn streamed(kind: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn query(uri: &Uri, name: &str) -> Option<u64> {
    uri.query()?.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

/// `n` pieces, one each `ms`.
fn paced(uri: &Uri, make: impl Fn(u64) -> String + Send + Sync + 'static) -> Body {
    let (n, ms) = (query(uri, "n").unwrap_or(10), query(uri, "ms").unwrap_or(1_000));
    body::pieces(n, Duration::from_millis(ms), make)
}

/// An answer whose headers have `kb` kilobytes, at most 1 MB.
fn large(uri: &Uri) -> Response<Body> {
    let mut answer = plain(StatusCode::OK, "large headers\n");
    for n in 0..query(uri, "kb").unwrap_or(8).min(1_024) {
        if let Ok(name) = HeaderName::try_from(format!("x-large-{n}")) {
            answer.headers_mut().insert(name, HeaderValue::from_static(ONE_KB));
        }
    }
    answer
}

const ONE_KB: &str = match std::str::from_utf8(&[b'x'; 1_000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Dies: of a signal, or with an exit code.
fn crash(uri: &Uri) -> Response<Body> {
    say("crashing as asked");
    let signal = query(uri, "signal").and_then(|signal| i32::try_from(signal).ok()).and_then(|signal| signal.try_into().ok());
    if let Some(signal) = signal {
        let signal: Signal = signal;
        // The first SEGV or BUS goes to Rust's own handler, which gives up its place and returns.
        return match raise(signal).and_then(|()| raise(signal)) {
            Ok(()) => plain(StatusCode::OK, "survived\n"),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
    }
    std::process::exit(query(uri, "code").and_then(|code| i32::try_from(code).ok()).unwrap_or(1))
}

/// What was received, as JSON.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, incoming) = request.into_parts();
    let Ok(received) = Limited::new(incoming, ECHO_LIMIT).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "more than a megabyte, or broken off\n");
    };
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let trailers: Vec<_> = received
        .trailers()
        .into_iter()
        .flatten()
        .map(|(name, value)| [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let body = received.to_bytes();
    let seen = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "trailers": trailers,
        "body": String::from_utf8_lossy(&body),
        "body_bytes": body.len(),
        "pid": std::process::id(),
    });
    let mut text = seen.to_string();
    text.push('\n');
    let mut answer = of_kind("application/json", text);
    if parts.method == Method::HEAD {
        *answer.body_mut() = body::text("");
    }
    answer
}

/// Counts a body of any size, as slowly as `pause_ms` says.
async fn upload(request: Request<Incoming>) -> io::Result<Response<Body>> {
    let pause = query(request.uri(), "pause_ms").map(Duration::from_millis);
    let mut body = request.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        size += frame.data_ref().map_or(0, Bytes::len);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(plain(StatusCode::OK, format!("{size}\n")))
}

/// The 101, if the request asks for a WebSocket.
fn web_socket(headers: &HeaderMap) -> Option<Response<Body>> {
    let asked = headers.get(header::UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    let mut answer = Response::new(body::text(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Some(answer)
}
