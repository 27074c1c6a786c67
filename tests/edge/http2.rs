//! HTTP/2 over TLS.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::task::JoinSet;

use crate::{
    harness::{Edge, echo, origin, run, sink},
    tls::{client, handshake},
};

async fn connect(edge: &Edge, tasks: &mut JoinSet<()>) -> SendRequest<Bytes> {
    let stream = handshake(edge, &client(&["h2", "http/1.1"], &[&rustls::version::TLS13]), "a.test").await.expect("served");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tasks.spawn(async move {
        connection.await.ok();
    });
    send
}

async fn get(send: &mut SendRequest<Bytes>, path: &str) -> Result<(StatusCode, http::HeaderMap, String), h2::Error> {
    let request = Request::get(format!("https://a.test{path}")).body(()).expect("a request");
    let (answer, _) = send.clone().ready().await?.send_request(request, true)?;
    let (parts, mut body) = answer.await?.into_parts();
    let mut text = String::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        text.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    Ok((parts.status, parts.headers, text))
}

fn text(app: std::net::SocketAddr, top: &str) -> String {
    format!("{top}\n[upstream.app]\nservers = [\"{app}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"internal\"\nupstream = \"app\"\n")
}

#[test]
fn a_raw_target_reaches_the_app_encoded() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(echo).await;
        let edge = Edge::start(&text(app, ""));
        let mut send = connect(&edge, &mut tasks).await;
        let (status, _, body) = get(&mut send, "/b\u{fc}cher|\\^?filter={id:`1`}").await.expect("answered");
        assert_eq!(status, 200);
        assert!(body.starts_with("GET /b%C3%BCcher%7C%5C%5E?filter=%7Bid:%601%60%7D HTTP/1.1\r\n"), "{body}");
    });
}

#[test]
fn many_streams_are_served_with_every_header() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(echo).await;
        let edge = Edge::start(&text(app, ""));
        let mut send = connect(&edge, &mut tasks).await;
        for round in 0..5 {
            let mut gets = JoinSet::new();
            for n in 0..50 {
                let mut send = send.clone();
                gets.spawn(async move { get(&mut send, &format!("/{round}/{n}")).await });
            }
            while let Some(done) = gets.join_next().await {
                let (status, headers, body) = done.expect("no panic").expect("answered");
                assert_eq!(status, 200);
                assert!(headers["x-content-type-options"] == "nosniff" && !headers.contains_key("server"));
                assert!(body.to_lowercase().contains("host: a.test") && body.to_lowercase().contains("x-forwarded-proto: https"), "{body}");
            }
        }
        let (status, headers, _) = get(&mut send, "/../../etc/passwd").await.expect("answered");
        assert!(headers.contains_key("x-frame-options"), "{status}");
    });
}

#[test]
fn a_post_that_ends_with_an_empty_frame_leaves_the_app_connection_sound() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(|mut stream: tokio::net::TcpStream| async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            // A strict origin: anything after a body's one end is garbage to it.
            loop {
                let Some(head) = crate::harness::head(&mut stream).await else { return };
                assert!(head.starts_with("GET ") || head.starts_with("POST "), "garbage: {head:?}");
                if head.to_lowercase().contains("chunked") {
                    let mut body = String::new();
                    while !body.ends_with("0\r\n\r\n") {
                        body.push(stream.read_u8().await.expect("more").into());
                    }
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("sent");
            }
        })
        .await;
        let edge = Edge::start(&text(app, ""));
        let mut send = connect(&edge, &mut tasks).await;
        for _ in 0..10 {
            let request = Request::post("https://a.test/").body(()).expect("a request");
            let (answer, mut body) = send.clone().ready().await.expect("ready").send_request(request, false).expect("sent");
            body.send_data(Bytes::from_static(b"hello"), false).expect("sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
            body.send_data(Bytes::new(), true).expect("ended");
            assert_eq!(answer.await.expect("answered").status(), 200);
            assert_eq!(get(&mut send, "/").await.expect("answered").0, 200);
        }
    });
}

#[test]
fn a_body_that_stalls_on_a_stream_is_given_up() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(crate::harness::sink).await;
        let upstream = "timeouts = { read = \"20s\", send = \"200ms\" }\n[[site]]";
        let edge = Edge::start(&text(app, "[timeouts]\nbody = \"200ms\"").replace("[[site]]", upstream));
        let send = connect(&edge, &mut tasks).await;
        let request = Request::post("https://a.test/").body(()).expect("a request");
        let (answer, mut body) = send.clone().ready().await.expect("ready").send_request(request, false).expect("sent");
        for _ in 0..4 {
            // Each piece in time.
            body.send_data(Bytes::from_static(b"hello"), false).expect("sent");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let begun = std::time::Instant::now();
        let status = answer.await.map(|answer| answer.status());
        assert!(!matches!(status, Ok(status) if status != 408) && begun.elapsed() < std::time::Duration::from_secs(3), "{status:?}");
        assert!(send.clone().ready().await.is_ok(), "the connection lives on");
    });
}

#[test]
fn a_client_that_resets_too_many_streams_is_cut_off() {
    run(async {
        let mut tasks = JoinSet::new();
        let hangs = origin(|mut stream: tokio::net::TcpStream| async move {
            crate::harness::head(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let edge = Edge::start(&text(hangs, "[limits]\nresets = \"20r/10s\"\n"));
        let send = connect(&edge, &mut tasks).await;
        let mut resets = 0;
        let result = loop {
            let mut ready = match send.clone().ready().await {
                Ok(ready) => ready,
                Err(error) => break error,
            };
            let request = Request::get("https://a.test/").body(()).expect("a request");
            match ready.send_request(request, true) {
                Ok((answer, mut stream)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stream.send_reset(h2::Reason::CANCEL);
                    drop(answer);
                    resets += 1;
                }
                Err(error) => break error,
            }
            assert!(resets < 200, "never cut off");
        };
        assert!((20..60).contains(&resets), "{resets}: {result}");
        let mut other = connect(&edge, &mut tasks).await;
        let waits = tokio::time::timeout(Duration::from_millis(200), get(&mut other, "/")).await;
        assert!(waits.is_err(), "others are not touched");
    });
}

#[test]
fn what_is_too_much_is_refused_on_its_own_stream() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(sink).await;
        let edge = Edge::start(&text(app, "[limits]\nheaders = \"2KB\"\nuri = \"512B\"\nbody = \"1KB\"\n"));
        let mut send = connect(&edge, &mut tasks).await;
        assert_eq!(get(&mut send, &format!("/{}", "a".repeat(600))).await.expect("answered").0, 414);
        let request = Request::get("https://a.test/").header("x", "a".repeat(2500)).body(()).expect("a request");
        let (answer, _) = send.clone().ready().await.expect("ready").send_request(request, true).expect("sent");
        assert!(answer.await.map_or(true, |answer| answer.status() == 431));
        let request = Request::post("https://a.test/").body(()).expect("a request");
        let (answer, mut body) = send.clone().ready().await.expect("ready").send_request(request, false).expect("sent");
        body.send_data(Bytes::from(vec![0; 4096]), true).expect("sent");
        assert_eq!(answer.await.expect("answered").status(), 413);
        assert_eq!(get(&mut send, &format!("/{}", "a".repeat(600))).await.expect("the connection lives on").0, 414);
    });
}

#[test]
fn stopping_says_goaway_and_lets_streams_finish() {
    run(async {
        let mut tasks = JoinSet::new();
        let app = origin(|mut stream: tokio::net::TcpStream| async move {
            use tokio::io::AsyncWriteExt;
            crate::harness::head(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.expect("sent");
        })
        .await;
        let edge = Edge::start(&text(app, ""));
        let mut send = connect(&edge, &mut tasks).await;
        let mut other = send.clone();
        let (answer, ()) = tokio::join!(get(&mut send, "/"), async {
            while edge.metrics.totals().in_flight == 0 {
                tokio::task::yield_now().await;
            }
            edge.stop(Duration::from_secs(5)).await;
        });
        assert_eq!(answer.expect("finished").2, "done");
        assert!(get(&mut other, "/").await.is_err(), "gone");
    });
}
