//! Every cap of `[limits]` and every deadline of `[timeouts]` that a client can run into: below it, at it and above it.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::harness::{
    Gateway,
    h2raw::{self, DATA, END_STREAM, ENHANCE_YOUR_CALM, Fate, H2, RST_STREAM, frame, headers},
    raw,
    tls::TlsClient,
    upstream::{self, Upstream},
    wait::{eventually_async, ms, secs},
};

fn before(upstream: &Upstream, more: &str) -> String {
    format!(
        "{more}\n[defaults]\nfilters = []\n[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n",
        upstream.addr
    )
}

/// What the static table knows by number, for the rest the question is only whether it is 200.
async fn h2_status(gateway: &Gateway, tls: &TlsClient, fields: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> bool {
    let mut h2 = H2::connect(gateway.https(), tls, "localhost").await;
    let fields: Vec<(&[u8], &[u8])> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let mut bytes = headers(1, if body.is_empty() { END_STREAM } else { 0 }, &fields);
    if !body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, body));
    }
    h2.send(&bytes).await.expect("sent");
    match h2.fate(1, secs(10)).await {
        Fate::Answered(status, _) => status == 200,
        Fate::Reset(_) => false,
        other => panic!("the connection lives on, whatever a stream asks: {other:?}"),
    }
}

fn get(path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    h2raw::get(b"localhost", path.as_bytes()).map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec()
}

fn with(mut fields: Vec<(Vec<u8>, Vec<u8>)>, name: &str, value: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.push((name.into(), value.into()));
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_and_counts_hold_at_their_bound() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[limits]\nheaders = \"4KB\"\nheader_count = 20\nuri = \"1KB\"\nbody = \"10KB\"\n"));
    let tls = TlsClient::internal(&gateway);
    let ask = async |text: String| raw::status(&raw::speak(gateway.http(), text.as_bytes()).await);
    for (more, fits) in [(-1_i32, true), (0, true), (1, false)] {
        let by = |bound: usize| bound.checked_add_signed(more as isize).expect("above zero");
        let is = |refused: u16| if fits { 200 } else { refused };
        let target = format!("/{}", "a".repeat(by(1024) - 1));
        assert_eq!(ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")).await, is(414), "uri {more}");
        assert_eq!(h2_status(&gateway, &tls, &get(&target), b"").await, fits, "uri {more} on HTTP/2");

        let start = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX: ";
        let head = format!("{start}{}\r\n\r\n", "a".repeat(by(4096) - start.len() - 4));
        assert_eq!(head.len(), by(4096));
        assert_eq!(ask(head).await, is(431), "headers {more}");
        // As it would stand on HTTP/1.1, without the empty line: `GET / HTTP/1.1`, and `x: ` with its value.
        let value = "a".repeat(by(4096) - "GET / HTTP/1.1\r\n".len() - "x: \r\n".len());
        assert_eq!(h2_status(&gateway, &tls, &with(get("/"), "x", &value), b"").await, fits, "headers {more} on HTTP/2");

        let many = "X: y\r\n".repeat(by(20) - 2);
        assert_eq!(ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{many}\r\n")).await, is(431), "header_count {more}");
        let fields = (0..by(20)).fold(get("/"), |fields, _| with(fields, "x", "y"));
        assert_eq!(h2_status(&gateway, &tls, &fields, b"").await, fits, "header_count {more} on HTTP/2");

        let body = "x".repeat(by(10 << 10));
        let length = format!("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(ask(length).await, is(413), "body {more}");
        let chunked = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        assert_eq!(ask(chunked).await, is(413), "body in chunks {more}");
        let mut post = get("/");
        post[0].1 = b"POST".to_vec();
        assert_eq!(h2_status(&gateway, &tls, &post, body.as_bytes()).await, fits, "body {more} on HTTP/2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_resets_hold_at_their_bound() {
    let hangs = upstream::hangs().await;
    let gateway = Gateway::start(&before(&hangs, "[limits]\nstreams = 10\nresets = \"20r/10s\"\n"));
    let tls = TlsClient::internal(&gateway);
    let mut h2 = H2::connect(gateway.https(), &tls, "localhost").await;
    let get = h2raw::get(b"localhost", b"/");
    for n in 0..10 {
        h2.send(&headers(2 * n + 1, END_STREAM, &get)).await.expect("sent");
    }
    gateway.counts("gateway_http_in_flight", &["site=\"localhost\""], 10.0).await;
    h2.send(&headers(21, END_STREAM, &get)).await.expect("sent");
    assert_eq!(h2.fate(21, secs(10)).await, Fate::Reset(7), "REFUSED_STREAM");
    h2.send(&[frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), headers(23, END_STREAM, &get)].concat()).await.expect("sent");
    gateway.counts("gateway_http_in_flight", &["site=\"localhost\""], 10.0).await;
    assert_eq!(h2.fate(23, ms(200)).await, Fate::Silence, "it has the place of the one that was reset");
    // That was the first reset of twenty.
    for n in 0..19 {
        let stream = 25 + 2 * n;
        h2.send(&[headers(stream, END_STREAM, &get), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()).await.expect("sent");
    }
    assert_eq!(h2.fate(3, ms(300)).await, Fate::Silence, "twenty are allowed");
    h2.send(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])).await.expect("sent");
    assert_eq!(h2.end(secs(10)).await, Fate::Closed(Some(ENHANCE_YOUR_CALM)));
    gateway.counts("gateway_http_in_flight", &["site=\"localhost\""], 0.0).await;
}

/// Between what was waited for and this, a machine that is busy may take its time.
fn in_time(took: Duration, bound: Duration) -> bool {
    (bound.mul_f64(0.8)..bound + secs(5)).contains(&took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_let_be_what_is_below_and_end_what_is_above() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[timeouts]\nheader = \"1500ms\"\nidle = \"1500ms\"\nbody = \"1500ms\"\n"));
    let bound = ms(1500);
    let pause = ms(600);
    let addr = gateway.http();
    let drip = async |pieces: &[&str]| {
        let mut stream = raw::connect(addr).await;
        let begun = Instant::now();
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(pause).await;
            }
            if stream.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        let said = raw::read_to_end(&mut stream, secs(15)).await;
        (raw::status(&said), begun.elapsed())
    };
    let (below, above, body_below, body_above, idle) = tokio::join!(
        // The head has its time in total: two pauses fit, three do not, though each piece comes in time.
        drip(&["GET / HTTP/1.1\r\n", "Host: a.test\r\n", "Connection: close\r\n\r\n"]),
        drip(&["GET / HTTP/1.1\r\n", "Host: a.test\r\n", "X: y\r\n", "Connection: close\r\n\r\n"]),
        // A body has it between two pieces: any number of pauses fits.
        drip(&["POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\n", "a", "b", "c", "d"]),
        drip(&["POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\na"]),
        async {
            let mut stream = raw::connect(addr).await;
            for _ in 0..3 {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("it lives on");
                raw::read_until(&mut stream, "}").await;
                tokio::time::sleep(pause).await;
            }
            let begun = Instant::now();
            let said = raw::read_to_end(&mut stream, secs(15)).await;
            (said, begun.elapsed() + pause)
        }
    );
    assert_eq!(below.0, 200);
    assert!(above.0 == 408 && in_time(above.1, bound), "{above:?}");
    assert_eq!(body_below.0, 200);
    assert!(body_above.0 == 408 && in_time(body_above.1, bound), "{body_above:?}");
    assert!(idle.0.is_empty() && in_time(idle.1, bound), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_slow_has_its_time_between_two_writes_and_one_that_stops_has_no_more() {
    let gateway = Gateway::start(&format!(
        "[timeouts]\nsend = \"1500ms\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n",
        crate::harness::demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    let ask = async || {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("set");
        let mut stream = socket.connect(gateway.http()).await.expect("connected");
        stream.write_all(b"GET /bytes/30000000 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.expect("sent");
        stream
    };
    let (slow, stopped) = tokio::join!(
        async {
            use tokio::io::AsyncReadExt;
            let (mut stream, mut seen, mut buffer) = (ask().await, 0, vec![0; 1 << 20]);
            let begun = Instant::now();
            // Some at a time with pauses, for longer than the deadline in total; then all of it.
            while seen < 30_000_000 {
                match stream.read(&mut buffer).await {
                    Ok(count @ 1..) => seen += count,
                    Ok(0) | Err(_) => break,
                }
                if begun.elapsed() < secs(4) {
                    tokio::time::sleep(ms(400)).await;
                }
            }
            seen
        },
        async {
            let stream = ask().await;
            let begun = Instant::now();
            eventually_async("the other answer is given up", secs(15), || async {
                let given_up = gateway.metric("gateway_http_requests_total", &["site=\"a.test\""]).await >= 1.0;
                if given_up { Ok(()) } else { Err("it is not") }
            })
            .await;
            drop(stream);
            begun.elapsed()
        }
    );
    assert!(slow >= 30_000_000, "{slow}");
    assert!(in_time(stopped, ms(1500)), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_arguments_and_a_packed_bomb_pass_as_they_are() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, "[limits]\nuri = \"60KB\"\nheaders = \"1MB\"\nheader_count = 256\n"));
    let edge = gateway.edge();
    let before = crate::harness::proc::memory(edge);
    let query: String = (0..10_000).map(|n| format!("a={}&", n % 10)).collect();
    let text = format!("GET /?{query} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(raw::status(&raw::speak(gateway.http(), text.as_bytes()).await), 200);
    let text = format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{}\r\n", "X: y\r\n".repeat(80));
    assert_eq!(raw::status(&raw::speak(gateway.http(), text.as_bytes()).await), 200);
    let bomb = bomb();
    for _ in 0..8 {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            bomb.len()
        );
        let mut stream = raw::connect(gateway.http()).await;
        stream.write_all(&[head.as_bytes(), &bomb].concat()).await.expect("sent");
        let said = raw::read_to_end(&mut stream, secs(20)).await;
        assert!(raw::status(&said) == 200 && said.contains(&format!("\"length\":{}", bomb.len())), "{}", &said[..said.len().min(600)]);
    }
    let after = crate::harness::proc::memory(edge);
    println!(
        "ten thousand arguments, and {} KB of gzip that would be 100 MB, eight times: {} MB to {} MB",
        bomb.len() >> 10,
        before >> 20,
        after >> 20
    );
    assert!(after.saturating_sub(before) < 50 << 20, "{before} to {after}");
    assert_eq!(gateway.edge(), edge);
}

/// A thousand times smaller than what it would be.
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..100 {
        packer.write_all(&zeros).expect("packed");
    }
    packer.finish().expect("packed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_targets_and_many_fields_are_refused_by_default() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&before(&echo, ""));
    let ask = async |target: String, fields: String| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n");
        raw::status(&raw::speak(gateway.http(), text.as_bytes()).await)
    };
    let query: String = (0..10_000).map(|n| format!("a{n}=b&")).collect();
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_eq!(ask(format!("/?{query}"), String::new()).await, 414);
    assert_eq!(ask(target(8 << 10), String::new()).await, 200);
    assert_eq!(ask(target((8 << 10) + 1), String::new()).await, 414);
    assert_eq!(ask(target(64 << 10), String::new()).await, 414);
    assert_eq!(ask("/".into(), "X: y\r\n".repeat(80)).await, 200, "no more than the upstream takes, with ours");
    let hits = echo.hits();
    assert_eq!(ask("/".into(), "X: y\r\n".repeat(99)).await, 431);
    assert_eq!(ask("/".into(), "X: y\r\n".repeat(300)).await, 431);
    assert_eq!(echo.hits(), hits, "it was us who refused");
}
