//! A renewal while clients come.

use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{cert, known, renew, served, settings, site, trusting};
use crate::harness::{
    Gateway, Load, heavy,
    load::How,
    pebble::{Manner, Pebble, Ports},
    raw,
    tls::TlsClient,
};

/// One request on a connection of its own, the tickets at its end taken in: how hands were shaken.
async fn visit(gateway: &Gateway, tls: &TlsClient) -> HandshakeKind {
    let tcp = TcpStream::connect(gateway.https()).await.expect("connected");
    let mut stream = tls.connect(tcp, "a.test", &[b"http/1.1"]).await.expect("a handshake");
    let kind = stream.get_ref().1.handshake_kind().expect("a finished handshake");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut all = Vec::new();
    drop(stream.read_to_end(&mut all).await);
    assert_eq!(raw::status(&String::from_utf8_lossy(&all)), 200);
    kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_under_load_fails_no_handshake_and_is_served_on_every_thread_at_once() {
    let _turn = heavy().await;
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 0, ..Manner::default() }).await;
    let gateway = Gateway::start(&(settings(ports, &[pebble.ca("")], "") + &site(&["a.test"])));
    let tls = trusting(&pebble).await;
    served(&gateway, &tls, "a.test").await;
    known(&gateway, "a.test", "it is served", |cert| cert["state"] == "served").await;
    // Clients that were here before, each with tickets of its own.
    let mut earlier = Vec::new();
    for _ in 0..10 {
        let client = trusting(&pebble).await;
        assert_ne!(visit(&gateway, &client).await, HandshakeKind::Resumed);
        assert_eq!(visit(&gateway, &client).await, HandshakeKind::Resumed);
        earlier.push(client);
    }
    let load = Load { fresh: true, ..Load::new(gateway.https(), How::H2(tls.forgetful()), "a.test", "/", 6) };
    let running = load.start();
    running.more(200).await;
    let mut old = cert(&gateway, "a.test")["serial"].clone();
    let mut leaf = tls.shown(gateway.https(), "a.test").await.expect("a handshake");
    for (round, client) in earlier.iter().enumerate().take(3) {
        renew(&gateway, "a.test");
        // As `certs` says that it is in place, no thread shows the old one any more.
        let cert = known(&gateway, "a.test", "a new one is in place", |cert| cert["serial"].is_string() && cert["serial"] != old).await;
        let mut shown = JoinSet::new();
        for _ in 0..50 {
            let (forgetful, addr) = (tls.forgetful(), gateway.https());
            shown.spawn(async move { forgetful.shown(addr, "a.test").await.expect("a handshake") });
        }
        let shown = shown.join_all().await;
        assert!(shown.iter().all(|now| *now == shown[0] && *now != leaf), "round {round}: the old one is still shown");
        assert_eq!(visit(&gateway, client).await, HandshakeKind::Resumed, "round {round}");
        (old, leaf) = (cert["serial"].clone(), shown[0].clone());
    }
    for client in &earlier {
        assert_eq!(visit(&gateway, client).await, HandshakeKind::Resumed);
    }
    running.more(200).await;
    let tally = running.stop().await;
    tally.assert_all_200();
    eprintln!("{} full handshakes over three renewals", tally.total());
    assert_eq!((pebble.orders(), pebble.accounts()), (4, 1));
    known(&gateway, "a.test", "it was seen on our own listener", |cert| cert["state"] == "served" && cert["problem"].is_null()).await;
}
