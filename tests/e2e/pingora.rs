//! Three open bugs of the engine, each by its symptom.

use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Gateway, get, raw,
    tls::TlsClient,
    upstream,
    wait::{ms, secs, within},
};

fn proxied(addr: std::net::SocketAddr, more: &str) -> String {
    format!(
        "{more}\n[upstream.api]\nservers = [\"{addr}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n"
    )
}

/// pingora #946: the tunnel was torn down when the 101 was already readable as the request's own end was handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_survives_an_upstream_that_answers_101_before_the_request() {
    let eager = upstream::eager_101().await;
    let gateway = Gateway::start(&proxied(eager.addr, ""));
    let addr = gateway.http();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..200 {
        tasks.spawn(async move {
            let mut stream = raw::connect(addr).await;
            let head = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("sent");
            let answer = raw::read_until(&mut stream, "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 101"), "tunnel {i}: {answer}");
            for round in 0..3 {
                let ping = format!("ping {i} {round};");
                stream.write_all(ping.as_bytes()).await.unwrap_or_else(|error| panic!("tunnel {i}: {error}"));
                raw::read_until(&mut stream, &ping).await;
            }
        });
        if i % 20 == 19 {
            while let Some(done) = tasks.join_next().await {
                done.expect("the tunnel carries bytes both ways");
            }
        }
    }
}

/// pingora #935: an HTTP/2 body that ends in an empty DATA frame was ended twice towards an HTTP/1 upstream, which poisoned the pooled connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_ends_in_an_empty_data_frame_is_ended_once() {
    let memory = upstream::remembers_bytes().await;
    let gateway = Gateway::start(&proxied(memory.addr, "workers = 1"));
    let tls = TlsClient::internal(&gateway);
    let stream = tls
        .connect(tokio::net::TcpStream::connect(gateway.https()).await.expect("connected"), "localhost", &[b"h2"])
        .await
        .expect("a handshake");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("an HTTP/2 connection");
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    for round in 0..10 {
        let request = http::Request::builder().method("PUT").uri("https://localhost/upload").body(()).expect("a request");
        client = client.ready().await.expect("ready");
        let (answer, mut body) = client.send_request(request, false).expect("sent");
        body.send_data(Bytes::from_static(b"hello"), false).expect("sent");
        // Apart in time, so that it is a frame of its own on the other side too.
        tokio::time::sleep(ms(20)).await;
        body.send_data(Bytes::new(), true).expect("sent");
        let answer = within(secs(10), "an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), 200, "round {round}");
        let mut body = answer.into_body();
        while let Some(chunk) = body.data().await {
            chunk.expect("the body arrives");
        }
    }
    let received = memory.received();
    let all = received.concat();
    assert_eq!(all.matches("PUT /upload").count(), 10, "{all}");
    assert!(!all.contains("0\r\n\r\n0\r\n\r\n"), "ended twice: {all}");
    assert!(received.len() < 10, "the connections to the upstream are reused, and none was poisoned: {} were opened", received.len());
}

/// pingora #447: no deadline on a whole head, and keep-alive without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_never_ends_and_an_idle_connection_are_cut_at_their_deadlines() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&proxied(echo.addr, "[timeouts]\nheader = \"1s\"\nidle = \"2s\"\n"));

    // A byte each 100 ms: every single read is in time, the whole is not.
    let mut slow = raw::connect(gateway.http()).await;
    let (mut read, mut write) = slow.split();
    let begin = Instant::now();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: ".iter().copied().chain(std::iter::repeat(b'a')) {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(ms(100)).await;
        }
    };
    let closed = async {
        let mut all = Vec::new();
        drop(read.read_to_end(&mut all).await);
        String::from_utf8_lossy(&all).into_owned()
    };
    let said = tokio::select! {
        () = drip => String::new(),
        said = closed => said,
        () = tokio::time::sleep(secs(10)) => panic!("a head that drips is still read after 10 s (deadline 1 s)"),
    };
    assert!(said.is_empty() || raw::status(&said) == 408, "{said}");
    assert!(begin.elapsed() >= ms(800), "cut too early: {:?}", begin.elapsed());

    let mut idle = raw::connect(gateway.http()).await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("sent");
    raw::read_until(&mut idle, "\r\n\r\n").await;
    let lived = raw::lifetime(&mut idle, secs(15)).await;
    assert!(lived >= ms(1500) && lived < secs(10), "an idle connection lived {lived:?} (idle 2 s)");

    // One that says nothing at all is under the header deadline.
    let mut silent = raw::connect(gateway.http()).await;
    assert!(raw::lifetime(&mut silent, secs(15)).await < secs(10));
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("an answer").status, 200);
}
