//! How many connections one address may have open.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::harness::{Answer, Edge, closed, echo, origin, run, site};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// All of 127.0.0.0/8 is this machine's.
async fn from(edge: &Edge, source: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("a source of ours");
    socket.connect(edge.http).await.expect("accepted")
}

/// Whether it is served; it stays open either way.
async fn served(client: &mut TcpStream, before: &str) -> bool {
    client.write_all(format!("{before}{GET}").as_bytes()).await.ok();
    Answer::read(client).await.is_some_and(|answer| answer.status == 200)
}

async fn until_served(edge: &Edge, source: &str) {
    tokio::time::timeout(Duration::from_secs(5), async { while !served(&mut from(edge, source).await, "").await {} })
        .await
        .expect("a place is free again");
}

#[test]
fn one_address_has_as_many_as_the_cap_says_and_others_have_their_own() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "[listen]\nmax_connections_per_ip = 3\n", "", ""));
        let mut open = Vec::new();
        for n in 0..3 {
            let mut client = from(&edge, "127.0.0.1").await;
            assert!(served(&mut client, "").await, "connection {n}");
            open.push(client);
        }
        for _ in 0..5 {
            assert!(closed(&mut from(&edge, "127.0.0.1").await).await, "one more than the cap");
        }
        assert!(served(&mut from(&edge, "127.0.0.2").await, "").await, "another address");
        let mut text = String::new();
        edge.metrics.render(&mut text);
        let refused = text.lines().find(|line| {
            line.starts_with("gateway_connections_refused_total")
                && line.contains("reason=\"per_ip\"")
                && line.contains(&edge.http.to_string())
        });
        assert!(refused.is_some_and(|line| line.ends_with(" 5")), "{text}");
        open.pop();
        until_served(&edge, "127.0.0.1").await;
    });
}

#[test]
fn loopback_has_no_cap_unless_the_file_says_one() {
    run(async {
        let app = origin(echo).await;
        let edge = Edge::start(&site(&[app], "", "", ""));
        let mut open = Vec::new();
        for _ in 0..300 {
            open.push(edge.connect().await);
        }
        assert!(served(open.last_mut().expect("300"), "").await);
    });
}

#[test]
fn a_trusted_proxy_brings_many_and_each_has_the_cap() {
    run(async {
        let app = origin(echo).await;
        let top = "trusted_proxies = [\"127.0.0.1\"]\n[listen]\nmax_connections_per_ip = 2\n";
        let edge = Edge::start(&site(&[app], top, "", ""));
        let mut open = Vec::new();
        for n in 0..10 {
            open.push(from(&edge, "127.0.0.1").await);
            assert!(served(open.last_mut().expect("pushed"), "").await, "connection {n} of the proxy");
        }
        let edge = Edge::start(&site(&[app], &format!("{top}proxy_protocol = true\n"), "", ""));
        let named = |ip: &str| format!("PROXY TCP{} {ip} {ip} 1 2\r\n", if ip.contains(':') { 6 } else { 4 });
        let mut open = Vec::new();
        for (ip, fits) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::3", true),
        ] {
            let mut client = from(&edge, "127.0.0.1").await;
            assert_eq!(served(&mut client, &named(ip)).await, fits, "{ip}");
            open.push(client);
        }
    });
}
