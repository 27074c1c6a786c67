//! Bodies of requests: there before a process is chosen, within bounds, at a pace; and streams that nobody holds up.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http_body_util::Full;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::{
    harness::{
        Conn, Gateway,
        client::{request, request_h2},
        get,
        h2raw::{self, DATA, END_STREAM, Fate, H2},
        heavy, raw, send,
        tls::TlsClient,
        upstream::{self, Upstream},
        wait::{eventually_async, ms, secs, within},
    },
    real::venv,
};

const KB64: usize = 64 << 10;

async fn echo(more: &str) -> (Gateway, Upstream) {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&format!(
        "{more}[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\n[site.route.\"/\"]\nupstream = \"api\"\n[site.route.\"/off/\"]\nupstream = \"api\"\nlimits = {{ buffer = \"off\" }}\n",
        echo.addr
    ));
    (gateway, echo)
}

/// A body that goes out byte by byte.
enum Upload {
    H1(TcpStream, bool),
    H2(Box<H2>),
}

impl Upload {
    /// `declared`: its length, or chunked.
    async fn h1(addr: SocketAddr, host: &str, path: &str, declared: Option<usize>, more: &str) -> Self {
        let mut stream = raw::connect(addr).await;
        let framing = declared.map_or("Transfer-Encoding: chunked".into(), |length| format!("Content-Length: {length}"));
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.expect("taken");
        Self::H1(stream, declared.is_none())
    }

    async fn h2(gateway: &Gateway, path: &str, declared: Option<usize>, kind: &str) -> Self {
        let mut h2 = H2::connect(gateway.https(), &TlsClient::internal(gateway), "localhost").await;
        let length = declared.map(|length| length.to_string()).unwrap_or_default();
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.as_bytes()),
            (b"content-type", kind.as_bytes()),
        ];
        if declared.is_some() {
            fields.push((b"content-length", length.as_bytes()));
        }
        h2.send(&h2raw::headers(1, 0, &fields)).await.expect("taken");
        Self::H2(Box::new(h2))
    }

    async fn piece(&mut self, bytes: usize) {
        let piece = vec![b'x'; bytes];
        match self {
            // Whoever is refused may find the connection closed; what it heard is looked at by itself.
            Self::H1(stream, false) => drop(stream.write_all(&piece).await),
            Self::H1(stream, true) => {
                drop(stream.write_all(&[format!("{bytes:x}\r\n").as_bytes(), &piece, b"\r\n"].concat()).await);
            }
            Self::H2(h2) => {
                for piece in piece.chunks(16_000) {
                    drop(h2.send(&h2raw::frame(DATA, 0, 1, piece)).await);
                    // The first window is full; the next is granted as it is read.
                    tokio::time::sleep(ms(5)).await;
                }
            }
        }
    }

    /// Its last bytes, and what was answered: the status, and the body.
    async fn end(mut self, bytes: usize) -> (u16, String) {
        match &mut self {
            Self::H1(_, false) => self.piece(bytes).await,
            Self::H1(_, true) => {
                if bytes > 0 {
                    self.piece(bytes).await;
                }
                let Self::H1(stream, _) = &mut self else { unreachable!("matched above") };
                drop(stream.write_all(b"0\r\n\r\n").await);
            }
            Self::H2(h2) => drop(h2.send(&h2raw::frame(DATA, END_STREAM, 1, &vec![b'x'; bytes])).await),
        }
        self.answer(secs(15)).await
    }

    async fn answer(&mut self, longest: Duration) -> (u16, String) {
        match self {
            Self::H1(stream, _) => {
                let mut all = String::new();
                let end = Instant::now() + longest;
                while Instant::now() < end && !whole(&all) {
                    let more = raw::read_to_end(stream, ms(100)).await;
                    all.push_str(&more);
                }
                (raw::status(&all), all)
            }
            Self::H2(h2) => match h2.fate(1, longest).await {
                // Those that the harness does not read stand in our page.
                Fate::Answered(0, body) => (body.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default(), body),
                Fate::Answered(status, body) => (status, body),
                other => (0, format!("{other:?}")),
            },
        }
    }
}

/// A head, and as much as it says.
fn whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.map_or_else(|| body.ends_with("\r\n0\r\n\r\n"), |length| body.len() >= length)
}

async fn held(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_http_buffered_bytes", &[]).await
}

async fn holds(gateway: &Gateway, bytes: usize) {
    gateway.counts("gateway_http_buffered_bytes", &[], bytes as f64).await;
}

const SYNC: &str = r#"
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(body)).encode()]
"#;

/// Two workers that do one request at a time: four slow uploads occupied both for ever, and no page came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_occupy_no_worker_of_gunicorn() {
    let _turn = heavy().await;
    let gateway = Gateway::start_beside(
        &[("main.py", SYNC)],
        &format!(
            "[app.web]\ncommand = \"{}/bin/gunicorn --workers 2 --bind unix:{{socket}} main:app\"\nhealth = \"/\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"web\"\n",
            venv().display()
        ),
    );
    gateway.wait_app_for("web", "ready", secs(60));
    let mut slow = vec![
        Upload::h1(gateway.http(), "a.test", "/", Some(1000), "").await,
        Upload::h1(gateway.http(), "a.test", "/", None, "").await,
        Upload::h1(gateway.http(), "a.test", "/", Some(1000), "").await,
        Upload::h2(&gateway, "/", Some(1000), "text/plain").await,
        Upload::h2(&gateway, "/", None, "text/plain").await,
        Upload::h2(&gateway, "/", Some(1000), "text/plain").await,
    ];
    let tls = TlsClient::internal(&gateway);
    for _ in 0..7 {
        for upload in &mut slow {
            upload.piece(100).await;
        }
        for _ in 0..4 {
            let page = within(secs(10), "a page over HTTP/1", get(gateway.http(), "a.test", "/")).await.expect("an answer");
            assert_eq!((page.status.as_u16(), page.text().as_str()), (200, "0"));
            let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
            let asked = request_h2("GET", "localhost", "/").body(Full::default()).expect("a request");
            assert_eq!(within(secs(10), "a page over HTTP/2", h2.send(asked)).await.expect("an answer").status, 200);
        }
    }
    holds(&gateway, 6 * 1024).await;
    for upload in slow {
        let (status, text) = upload.end(300).await;
        assert!(status == 200 && text.contains("1000"), "{status} {text}");
    }
    holds(&gateway, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_up_to_the_buffer_is_whole_before_a_process_is_chosen() {
    let (gateway, echo) = echo("").await;
    let mut hits = 0;
    for bytes in [1, KB64 - 1, KB64] {
        for declared in [Some(bytes), None] {
            for secure in [false, true] {
                let mut upload = match secure {
                    false => Upload::h1(gateway.http(), "a.test", "/", declared, "").await,
                    true => Upload::h2(&gateway, "/", declared, "text/plain").await,
                };
                if bytes > 1 {
                    upload.piece(bytes - 1).await;
                    holds(&gateway, bytes - 1).await;
                }
                // A chunked one is not over with its last byte.
                if let (None, Upload::H1(..)) = (declared, &upload) {
                    upload.piece(1).await;
                    holds(&gateway, bytes.max(1024)).await;
                    assert_eq!(echo.hits(), hits, "{bytes} {declared:?} {secure}");
                    let (status, text) = upload.end(0).await;
                    assert!(status == 200 && text.contains(&format!("\"length\":{bytes},")), "{status} {text}");
                } else {
                    assert_eq!(echo.hits(), hits, "{bytes} {declared:?} {secure}");
                    let (status, text) = upload.end(1).await;
                    assert!(status == 200 && text.contains(&format!("\"length\":{bytes},")), "{status} {text}");
                }
                hits += 1;
                assert_eq!(echo.hits(), hits);
            }
        }
    }
    holds(&gateway, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_body_streams_on_when_its_beginning_is_there() {
    let (gateway, echo) = echo("").await;
    let mut hits = 0;
    for declared in [true, false] {
        for secure in [false, true] {
            let (first, bytes) = if declared { (KB64, KB64 + 1) } else { (KB64 + 1, KB64 + 2) };
            let length = declared.then_some(bytes);
            let mut upload = match secure {
                false => Upload::h1(gateway.http(), "a.test", "/", length, "").await,
                true => Upload::h2(&gateway, "/", length, "text/plain").await,
            };
            upload.piece(KB64 - 1).await;
            holds(&gateway, KB64 - 1).await;
            assert_eq!(echo.hits(), hits, "{declared} {secure}");
            upload.piece(first - (KB64 - 1)).await;
            hits += 1;
            eventually_async("the app has it", secs(10), || async { if echo.hits() == hits { Ok(()) } else { Err(echo.hits()) } }).await;
            let (status, text) = upload.end(1).await;
            assert!(status == 200 && text.contains(&format!("\"length\":{bytes},")), "{status} {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_not_held_up() {
    let (gateway, echo) = echo("").await;
    let grpc = "application/grpc+proto";
    for n in 0..4 {
        let mut upload = match n {
            0 => Upload::h1(gateway.http(), "a.test", "/", None, &format!("Content-Type: {grpc}\r\n")).await,
            1 => Upload::h2(&gateway, "/", None, grpc).await,
            2 => Upload::h2(&gateway, "/off/", None, "text/plain").await,
            _ => Upload::h2(&gateway, "/off/", Some(10), "text/plain").await,
        };
        upload.piece(5).await;
        eventually_async("the app has it", secs(10), || async { if echo.hits() == n + 1 { Ok(()) } else { Err(echo.hits()) } }).await;
        let (status, text) = upload.end(5).await;
        assert!(status == 200 && text.contains("\"length\":10,"), "{n}: {status} {text}");
    }
    assert_eq!(held(&gateway).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_not_sent_goes_whole_to_the_next_server() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&format!(
        "[upstream.api]\nservers = [\"{}\", \"{}\"]\npassive = {{ fails = 1000, within = \"1m\", for = \"1s\" }}\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n",
        upstream::refuses().await,
        echo.addr
    ));
    for _ in 0..4 {
        for (bytes, declared) in [(60_000, true), (60_000, false), (KB64, true), (KB64, false), (200_000, true)] {
            let mut h1 = Upload::h1(gateway.http(), "a.test", "/", declared.then_some(bytes), "").await;
            h1.piece(bytes - 1).await;
            let (status, text) = h1.end(1).await;
            assert!(status == 200 && text.contains(&format!("\"length\":{bytes},")), "{bytes} {declared}: {status} {text}");
            if bytes <= KB64 {
                let mut h2 = Upload::h2(&gateway, "/", declared.then_some(bytes), "text/plain").await;
                h2.piece(bytes - 1).await;
                let (status, text) = h2.end(1).await;
                assert!(status == 200 && text.contains(&format!("\"length\":{bytes},")), "{bytes} {declared}: {status} {text}");
            }
        }
    }
}

/// From another address of this machine: another client.
async fn from(ip: [u8; 4], gateway: &Gateway, declared: usize) -> Upload {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((ip, 0).into()).expect("an address of this machine");
    let mut stream = socket.connect(gateway.http()).await.expect("connected");
    let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {declared}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("taken");
    Upload::H1(stream, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_buffers_are_full_newcomers_are_told_to_come_again_and_the_slowest_goes() {
    let (gateway, echo) = echo("[limits]\nbuffers = \"512KB\"\n").await;
    // A client's share is one body: with that, its next is turned away, and nobody else's.
    let mut slow = from([127, 0, 0, 1], &gateway, KB64).await;
    slow.piece(KB64 - 1).await;
    holds(&gateway, KB64 - 1).await;
    let mut next = from([127, 0, 0, 1], &gateway, 10).await;
    next.piece(1).await;
    let (status, text) = next.answer(secs(10)).await;
    assert!(status == 503 && text.to_ascii_lowercase().contains("retry-after: 1"), "{status} {text}");
    let (status, _) = from([127, 0, 0, 2], &gateway, 10).await.end(10).await;
    assert_eq!(status, 200);
    let mut held = vec![slow];
    for n in 3..=9 {
        held.push(from([127, 0, 0, n], &gateway, KB64).await);
        held.last_mut().expect("pushed").piece(KB64 - 1).await;
    }
    holds(&gateway, 8 * (KB64 - 1)).await;
    // The slowest is the first one, once it is a second old.
    tokio::time::sleep(ms(1100)).await;
    let mut newcomer = from([127, 0, 0, 20], &gateway, 10).await;
    newcomer.piece(1).await;
    assert_eq!(newcomer.answer(secs(10)).await.0, 503);
    assert_eq!(held.remove(0).answer(secs(10)).await.0, 408);
    assert_eq!(from([127, 0, 0, 20], &gateway, 10).await.end(10).await.0, 200, "it made room");
    for upload in held {
        assert_eq!(upload.end(1).await.0, 200);
    }
    assert_eq!(echo.hits(), 9);
    holds(&gateway, 0).await;
    let refused = "gateway_http_buffers_refused_total";
    assert_eq!(gateway.metric(refused, &["reason=\"full\""]).await, 2.0);
    assert_eq!(gateway.metric(refused, &["reason=\"slow\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_whether_to_send_is_answered_by_us_after_the_gates() {
    let (gateway, echo) = echo("").await;
    for declared in [Some(5), None] {
        let Upload::H1(mut stream, chunked) = Upload::h1(gateway.http(), "a.test", "/", declared, "Expect: 100-continue\r\n").await else {
            unreachable!("made above")
        };
        raw::read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(echo.hits(), usize::from(declared.is_none()), "the app is not asked");
        let (status, text) = Upload::H1(stream, chunked).end(5).await;
        assert!(status == 200 && text.contains("\"length\":5,") && !text.contains("expect"), "{status} {text}");
    }
    gateway
        .reload(&format!(
            "[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\ndeny = [\"127.0.0.1\"]\n",
            echo.addr
        ))
        .expect("in force");
    let mut refused = Upload::h1(gateway.http(), "a.test", "/", Some(5), "Expect: 100-continue\r\n").await;
    let (status, text) = refused.answer(secs(10)).await;
    assert!(status == 403 && !text.contains("100 Continue"), "{text}");
}

/// Sends this much, and then a byte a second until it is answered.
async fn drips(mut upload: Upload, first: usize) -> (u16, Duration) {
    let began = Instant::now();
    if first > 0 {
        upload.piece(first).await;
    }
    while began.elapsed() < secs(50) {
        upload.piece(1).await;
        let (status, _) = upload.answer(secs(1)).await;
        if status != 0 {
            return (status, began.elapsed());
        }
    }
    (0, began.elapsed())
}

/// Half a minute is the least that a client has: with that this test takes as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drips_a_declared_body_is_ended_after_half_a_minute_and_nobody_else() {
    let (gateway, _echo) = echo("").await;
    let steady = async {
        let mut upload = Upload::h1(gateway.http(), "a.test", "/", Some(45 * 1500), "").await;
        for _ in 0..44 {
            upload.piece(1500).await;
            tokio::time::sleep(secs(1)).await;
        }
        upload.end(1500).await.0
    };
    let (held, streamed, off, secure, steady) = tokio::join!(
        drips(Upload::h1(gateway.http(), "a.test", "/", Some(10_000), "").await, 0),
        drips(Upload::h1(gateway.http(), "a.test", "/", Some(100_000), "").await, KB64 + 100),
        drips(Upload::h2(&gateway, "/off/", Some(10_000), "text/plain").await, 0),
        drips(Upload::h2(&gateway, "/", Some(10_000), "text/plain").await, 0),
        steady,
    );
    assert_eq!(steady, 200, "1500 bytes a second are fast enough");
    for (name, (status, took)) in [("held", held), ("streamed", streamed), ("off", off), ("secure", secure)] {
        assert!(status == 408 && took > secs(28), "{name}: {status} after {took:?}");
    }
    eventually_async("all are counted", secs(10), || async {
        let pace = gateway.metric("gateway_http_buffers_refused_total", &["reason=\"pace\""]).await;
        if pace == 4.0 { Ok(()) } else { Err(pace) }
    })
    .await;
    let answer = send(gateway.http(), request("POST", "a.test", "/").body(Full::from("x")).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 200);
}
