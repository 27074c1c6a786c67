//! The configuration changes while orders run.

use super::{cert, certs, known, served, settings, site, trusting};
use crate::harness::{
    Gateway,
    pebble::{Manner, Pebble, Ports},
    tls::TlsClient,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_come_and_go_while_orders_run_are_ordered_and_let_go() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner::default()).await;
    let text = |sites: &[&[&str]]| sites.iter().fold(settings(ports, &[pebble.ca("")], ""), |text, names| text + &site(names));
    let gateway = Gateway::start(&text(&[&["a.test"], &["b.test"]]));
    known(&gateway, "a.test", "an order is under way", |cert| cert["state"] == "ordering").await;
    gateway.reload(&text(&[&["a.test"], &["b.test"], &["c.test"]])).expect("reloaded");
    let tls = trusting(&pebble).await;
    for name in ["a.test", "b.test", "c.test"] {
        served(&gateway, &tls, name).await;
    }
    for name in ["a.test", "b.test", "c.test"] {
        known(&gateway, name, "it is served", |cert| cert["state"] == "served").await;
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (3, 1), "the reload repeats nothing");
    // A name more, just after the certificate was issued: it is ordered at once, and the old one serves the others meanwhile.
    let old = tls.shown(gateway.https(), "a.test").await.expect("a handshake");
    gateway.reload(&text(&[&["a.test", "www.a.test"], &["b.test"], &["c.test"]])).expect("reloaded");
    assert_eq!(tls.shown(gateway.https(), "a.test").await.expect("the old one"), old);
    served(&gateway, &tls, "www.a.test").await;
    let new = tls.shown(gateway.https(), "a.test").await.expect("a handshake");
    assert!(new != old && new == tls.shown(gateway.https(), "www.a.test").await.expect("a handshake"));
    assert_eq!(pebble.orders(), 4);
    // While an order runs: the certificate of that order lacks the name, and the next follows it.
    super::renew(&gateway, "b.test");
    known(&gateway, "b.test", "an order is under way", |cert| cert["state"] == "ordering").await;
    gateway.reload(&text(&[&["a.test", "www.a.test"], &["b.test", "www.b.test"]])).expect("reloaded");
    served(&gateway, &tls, "www.b.test").await;
    known(&gateway, "b.test", "it is served", |cert| cert["state"] == "served").await;
    assert_eq!(pebble.orders(), 6);
    // And the site that is gone is cared for no more.
    assert!(cert(&gateway, "c.test").is_null(), "{:?}", certs(&gateway));
    let refused = gateway.cli(&["certs", "renew", "c.test"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("c.test"), "{refused:?}");
    TlsClient::gullible().shown(gateway.https(), "c.test").await.expect_err("no site has that name");
}
