//! CAs that are away for the whole time in which a certificate should be renewed.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{SITES, all_served, cert, config, known, renew, screen, serial, settings, site, trusting};
use crate::harness::{
    Gateway, eventually,
    pebble::{Manner, Pebble, Ports},
    upstream,
    wait::{eventually_async, secs},
};

/// Renewed at half of it, at risk at two thirds.
const LIFE: u64 = 45;

fn short() -> Manner {
    Manner { life: LIFE, sleep: 0, ..Manner::default() }
}

async fn at_risk(gateway: &Gateway, host: &str, wanted: f64) {
    let label = format!("host=\"{host}\"");
    eventually_async(&format!("{host}: at risk is {wanted}"), secs(LIFE), || async {
        let now = gateway.metric("gateway_certificate_at_risk", &[&label]).await;
        if now == wanted { Ok(()) } else { Err(now) }
    })
    .await;
}

/// What stands on the screen while no CA is reached.
fn says_so(gateway: &Gateway, cert: &Value) {
    let problem = cert["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("the CA at localhost:") && problem.contains("refuses connections"), "{cert}");
    assert!(cert["advice"].is_string() && cert["at_risk"] == true && cert["failures"].as_u64() > Some(3), "{cert}");
    let screen = screen(gateway);
    assert!(screen.contains("refuses connections") && screen.contains("at risk"), "{screen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_every_ca_is_down_the_old_certificate_is_served_the_alarm_rings_and_the_second_ca_takes_over() {
    let ports = Ports::free();
    let (mut first, mut second) = tokio::join!(Pebble::start(ports, short()), Pebble::start(ports, short()));
    let gateway = Gateway::start(&(settings(ports, &[first.ca(""), second.ca("")], "") + &site(&["a.test"])));
    let tls = trusting(&first).await;
    super::served(&gateway, &tls, "a.test").await;
    first.stop();
    second.stop();
    at_risk(&gateway, "a.test", 0.0).await;
    let old = serial(&gateway, "a.test");
    at_risk(&gateway, "a.test", 1.0).await;
    tls.shown(gateway.https(), "a.test").await.expect("the old one is served, and good");
    says_so(&gateway, &cert(&gateway, "a.test"));
    assert_eq!((serial(&gateway, "a.test"), second.orders()), (old, 0));
    second.resume().await;
    // A handshake of a client that trusts the second alone.
    super::served(&gateway, &trusting(&second).await, "a.test").await;
    at_risk(&gateway, "a.test", 0.0).await;
    assert_eq!((first.orders(), second.orders(), second.accounts()), (1, 1, 1));
    assert!(cert(&gateway, "a.test")["problem"].is_null(), "{}", cert(&gateway, "a.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_ca_falls_silent_is_gone_on_with_and_not_made_again() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 2, ..Manner::default() }).await;
    let wire = upstream::forwards(None, pebble.addr()).await;
    let at = wire.addr;
    let ca = pebble.ca("").replace(&pebble.directory(), &format!("https://localhost:{}/dir", at.port()));
    let gateway = Gateway::start(&(settings(ports, &[ca], "") + &site(&["a.test"])));
    eventually("the CA has seen the challenge", secs(30), || pebble.log().contains("set VALID").then_some(()).ok_or("not yet"));
    drop(wire);
    let ended = known(&gateway, "a.test", "the attempt has ended", |cert| cert["state"] != "ordering").await;
    let _wire = upstream::forwards(Some(at), pebble.addr()).await;
    // Where all was said before the wire was cut, there is nothing to go on with.
    if ended["failures"] == 1 {
        assert!(ended["problem"].as_str().is_some_and(|problem| problem.contains("the CA at localhost")), "{ended}");
        renew(&gateway, "a.test");
    }
    super::served(&gateway, &trusting(&pebble).await, "a.test").await;
    assert_eq!((pebble.orders(), pebble.issued()), (1, 1));
}

fn account_key(gateway: &Gateway) -> Vec<u8> {
    let all: Vec<PathBuf> =
        fs::read_dir(gateway.state().join("edge/certs/.accounts")).expect("accounts").map(|entry| entry.expect("one").path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    fs::read(all[0].join("key.pem")).expect("its key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_only_ca_is_back_with_no_memory_there_is_one_order_for_each_certificate() {
    let ports = Ports::free();
    let mut pebble = Pebble::start(ports, short()).await;
    let gateway = Gateway::start(&config(ports, &[pebble.ca("")], ""));
    all_served(&gateway, &trusting(&pebble).await).await;
    let old: Vec<String> = SITES.iter().map(|names| serial(&gateway, names[0])).collect();
    let key = account_key(&gateway);
    pebble.stop();
    for names in SITES {
        at_risk(&gateway, names[0], 1.0).await;
        says_so(&gateway, &cert(&gateway, names[0]));
    }
    let before = gateway.metric("gateway_acme_orders_total", &["result=\"failed\""]).await;
    // From half of the life on to two thirds, a thirtieth apart: no tight loop.
    assert!((9.0..=45.0).contains(&before), "{before} attempts failed");
    pebble.resume().await;
    for (names, old) in SITES.iter().zip(&old) {
        known(&gateway, names[0], "it is renewed", |cert| cert["serial"].is_string() && cert["serial"] != old.as_str()).await;
    }
    all_served(&gateway, &trusting(&pebble).await).await;
    assert_eq!((pebble.orders(), pebble.accounts()), (2 * SITES.len(), 2), "one order each and one account in each of its lives");
    assert_eq!(account_key(&gateway), key);
}
