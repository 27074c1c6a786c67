//! Bodies that are long, slow, or both; tunnels.

use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Conn, Gateway,
    client::{request, request_h2},
    demo_app, get, raw, send,
    tls::TlsClient,
    wait::{secs, within},
    ws::Socket,
};

fn demo() -> Gateway {
    let gateway = Gateway::start(&format!(
        "[limits]\nbody = \"64MB\"\n[app.web]\ncommand = \"{}\"\nhealth = \"/healthz\"\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\napp = \"web\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\napp = \"web\"\n",
        demo_app("--port {port}")
    ));
    gateway.wait_app("web", "ready");
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_arrive_one_by_one() {
    let gateway = demo();
    let tls = TlsClient::internal(&gateway);
    let mut h1 = Conn::h1(gateway.http()).await.expect("connected");
    let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let plain = request("GET", "a.test", "/sse?n=1000&ms=300").body(Full::default()).expect("a request");
    let secure = request_h2("GET", "localhost", "/sse?n=1000&ms=300").body(Full::default()).expect("a request");
    for (conn, asked) in [(&mut h1, plain), (&mut h2, secure)] {
        // A thousand events take five minutes: what is here at once was not held back.
        let answer = within(secs(10), "the head arrives before the events", conn.start(asked)).await.expect("an answer");
        assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("text/event-stream"));
        let mut body = answer.into_body();
        let mut seen = String::new();
        within(secs(15), "three events arrive", async {
            while seen.matches("data:").count() < 3 {
                let frame = body.frame().await.expect("more").expect("a frame");
                seen.push_str(&String::from_utf8_lossy(frame.data_ref().expect("data")));
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_arrive_whole_in_both_directions() {
    let gateway = demo();
    let answer = get(gateway.http(), "a.test", "/bytes/50000000").await.expect("an answer");
    assert_eq!(answer.body.len(), 50_000_000);
    let tls = TlsClient::internal(&gateway);
    let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let answer =
        h2.send(request_h2("GET", "localhost", "/bytes/20000000").body(Full::default()).expect("a request")).await.expect("an answer");
    assert_eq!(answer.body.len(), 20_000_000);
    let up = request("POST", "a.test", "/upload").body(Full::from(vec![b'x'; 8 << 20])).expect("a request");
    let answer = send(gateway.http(), up).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        format!(
            "{}
",
            8 << 20
        )
    );
    let head =
        send(gateway.http(), request("HEAD", "a.test", "/bytes/1000").body(Full::default()).expect("a request")).await.expect("an answer");
    assert!(head.body.is_empty());
    // Expect: 100-continue is answered, then the body is taken.
    let mut stream = raw::connect(gateway.http()).await;
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        .await
        .expect("sent");
    raw::read_until(&mut stream, "HTTP/1.1 100").await;
    stream.write_all(b"hello").await.expect("sent");
    assert!(raw::read_to_end(&mut stream, secs(10)).await.contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_echo() {
    let gateway = demo();
    for i in 0..20 {
        let mut socket = Socket::open(gateway.http(), "a.test", "/ws").await.expect("a WebSocket opens");
        socket.echo(&format!("hello {i}")).await.expect("an echo");
        socket.echo(&"long ".repeat(20_000)).await.expect("an echo");
    }
}
