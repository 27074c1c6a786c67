//! Who the client is: forwarded headers, trusted proxies, the PROXY protocol, request ids.

use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Conn, Gateway,
    client::request,
    raw, send,
    tls::TlsClient,
    upstream::{self, Upstream},
    wait::secs,
};

fn config(echo: &Upstream, top: &str, tables: &str) -> String {
    format!(
        "{top}\n[upstream.api]\nservers = [\"{}\"]\n[[site]]\nhost = \"a.test\"\ntls = \"off\"\nupstream = \"api\"\n[[site]]\nhost = \"localhost\"\ntls = \"internal\"\nupstream = \"api\"\n{tables}",
        echo.addr
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_cannot_say_who_it_is() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&config(&echo, "", ""));
    let asked = request("GET", "a.test", "/x")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.test")
        .header("x-request-id", "mine")
        .body(Full::default())
        .expect("a request");
    let answer = send(gateway.http(), asked).await.expect("an answer");
    let seen = answer.json();
    assert_eq!(seen["headers"]["x-forwarded-for"], serde_json::json!(["127.0.0.1"]), "{seen}");
    assert_eq!(seen["headers"]["x-real-ip"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(seen["headers"]["x-forwarded-proto"], serde_json::json!(["http"]));
    assert_eq!(seen["headers"]["x-forwarded-host"], serde_json::json!(["a.test"]));
    assert_eq!(seen["headers"]["host"], serde_json::json!(["a.test"]));
    let id = answer.header("x-request-id").to_owned();
    assert!(id != "mine" && id.len() >= 16, "{id}");
    assert_eq!(seen["headers"]["x-request-id"], serde_json::json!([id]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed_to_the_first_stranger() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&config(&echo, "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", ""));
    let asked = request("GET", "a.test", "/")
        .header("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.1.1.1")
        .header("x-request-id", "from-the-proxy-0123456789")
        .body(Full::default())
        .expect("a request");
    let answer = send(gateway.http(), asked).await.expect("an answer");
    let seen = answer.json();
    assert_eq!(seen["headers"]["x-real-ip"], serde_json::json!(["203.0.113.7"]), "{seen}");
    let forwarded =
        seen["headers"]["x-forwarded-for"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
    assert_eq!(forwarded.replace(' ', ""), "6.6.6.6,203.0.113.7,10.1.1.1,127.0.0.1");
    assert_eq!(answer.header("x-request-id"), "from-the-proxy-0123456789");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_upstream_learns_https() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&config(&echo, "", ""));
    let tls = TlsClient::internal(&gateway);
    let mut h1 = Conn::h1_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let seen = h1.send(request("GET", "localhost", "/?a=b").body(Full::default()).expect("a request")).await.expect("an answer").json();
    assert_eq!(seen["headers"]["x-forwarded-proto"], serde_json::json!(["https"]));
    assert_eq!(seen["target"], "/?a=b");
    let mut h2 = Conn::h2_tls(gateway.https(), &tls, "localhost").await.expect("connected");
    let asked = crate::harness::client::request_h2("POST", "localhost", "/up").body(Full::from("body")).expect("a request");
    let seen = h2.send(asked).await.expect("an answer").json();
    assert_eq!(seen["headers"]["host"], serde_json::json!(["localhost"]), "{seen}");
    assert_eq!((seen["method"].as_str(), seen["body"].as_str()), (Some("POST"), Some("body")));
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

fn v2(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[127, 0, 0, 1]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&443_u16.to_be_bytes());
    header
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_names_the_client_in_both_versions_and_under_tls() {
    let echo = upstream::echo("echo").await;
    let listen = "[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nproxy_protocol = true\n[timeouts]\nheader = \"2s\"\n";
    let gateway = Gateway::start(&config(&echo, "trusted_proxies = [\"127.0.0.0/8\"]", listen));
    let said = raw::speak(gateway.http(), format!("PROXY TCP4 203.0.113.5 127.0.0.1 5555 80\r\n{GET}").as_bytes()).await;
    assert!(said.contains("\"x-real-ip\":[\"203.0.113.5\"]"), "{said}");
    let said = raw::speak(gateway.http(), format!("PROXY TCP6 2001:db8::5 ::1 5555 80\r\n{GET}").as_bytes()).await;
    assert!(said.contains("\"x-real-ip\":[\"2001:db8::5\"]"), "{said}");
    let said = raw::speak(gateway.http(), &[v2([203, 0, 113, 6], 5555), GET.into()].concat()).await;
    assert!(said.contains("\"x-real-ip\":[\"203.0.113.6\"]"), "{said}");
    // In front of the TLS handshake, and in pieces.
    let mut stream = raw::connect(gateway.https()).await;
    for piece in v2([203, 0, 113, 8], 5555).chunks(5) {
        stream.write_all(piece).await.expect("sent");
        tokio::time::sleep(crate::harness::wait::ms(10)).await;
    }
    let tls = TlsClient::internal(&gateway).connect(stream, "localhost", &[b"http/1.1"]).await.expect("a handshake");
    let seen =
        Conn::h1_over(tls).await.expect("connected").send(request("GET", "localhost", "/").body(Full::default()).expect("a request")).await;
    assert_eq!(seen.expect("an answer").json()["headers"]["x-real-ip"], serde_json::json!(["203.0.113.8"]));
    // Without the header, or with a broken one, there is no service.
    for text in [GET.to_owned(), format!("PROXY TCP4 nonsense\r\n{GET}"), format!("PROXY {}", "x".repeat(500))] {
        let said = raw::speak_and_finish(gateway.http(), text.as_bytes()).await;
        assert_ne!(raw::status(&said), 200, "{said}");
    }
    // One that is never finished is cut at the header deadline.
    let mut stream = raw::connect(gateway.http()).await;
    stream.write_all(b"PROXY TCP4 ").await.expect("sent");
    assert!(raw::lifetime(&mut stream, secs(15)).await < secs(12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_from_a_stranger_is_garbage() {
    let echo = upstream::echo("echo").await;
    let listen = "[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nproxy_protocol = true\n";
    let gateway = Gateway::start(&config(&echo, "trusted_proxies = [\"10.0.0.0/8\"]", listen));
    let said = raw::speak_and_finish(gateway.http(), format!("PROXY TCP4 203.0.113.5 127.0.0.1 5555 80\r\n{GET}").as_bytes()).await;
    assert_ne!(raw::status(&said), 200, "{said}");
    assert_eq!(echo.hits(), 0);
}

/// Without it a site behind a CDN that ends TLS is a 301 to itself for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_trusted_proxy_served_over_tls_is_not_sent_to_https_again() {
    let echo = upstream::echo("echo").await;
    let gateway = Gateway::start(&config(&echo, "trusted_proxies = [\"127.0.0.0/8\"]", "").replace("tls = \"off\"", "tls = \"internal\""));
    let asked = async |proto: &str| {
        let head = format!(
            "GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: {proto}\r\nConnection: close\r\n\r\n"
        );
        raw::status(&raw::speak(gateway.http(), head.as_bytes()).await)
    };
    assert_eq!((asked("https").await, asked("http").await, asked("https, http").await), (200, 301, 301));
    // A stranger's word is nobody's.
    let gateway = Gateway::start(&config(&echo, "", "").replace("tls = \"off\"", "tls = \"internal\""));
    let head = "GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    assert_eq!(raw::status(&raw::speak(gateway.http(), head.as_bytes()).await), 301);
}
