//! Validation that cannot pass, and rehearsals before the next order proper.

use std::fs;

use serde_json::json;

use super::{known, renew, screen, served, settings, site, trusting};
use crate::harness::{
    Gateway,
    gateway::workdir,
    pebble::{Manner, Pebble, Ports},
    tls::TlsClient,
    wait::eventually_async,
    wait::secs,
};

/// Names lead nowhere but those that are told.
async fn leads(pebble: &Pebble, names: &[(&str, &str)]) {
    pebble.names("set-default-ipv4", json!({ "ip": "" })).await;
    for (name, addr) in names {
        pebble.names("clear-a", json!({ "host": format!("{name}.") })).await;
        pebble.names("add-a", json!({ "host": format!("{name}."), "addresses": [addr] })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_elsewhere_is_said_to_and_the_other_sites_get_theirs() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 0, ..Manner::default() }).await;
    leads(&pebble, &[("good.test", "127.0.0.1"), ("elsewhere.test", "127.0.0.2")]).await;
    let text = ["elsewhere.test", "nowhere.test", "good.test"]
        .iter()
        .fold(settings(ports, &[pebble.ca("")], ""), |text, name| text + &site(&[name]));
    let gateway = Gateway::start(&text);
    served(&gateway, &trusting(&pebble).await, "good.test").await;
    let failed = |cert: &serde_json::Value| cert["problem"].is_string() && cert["state"] == "waiting";
    let elsewhere = known(&gateway, "elsewhere.test", "its problem is known", failed).await;
    let nowhere = known(&gateway, "nowhere.test", "its problem is known", failed).await;
    for (cert, words, advice) in [
        (&elsewhere, "is refused a connection to port", "port"),
        (&nowhere, "nowhere.test has no address in the DNS", "add an A or AAAA record"),
    ] {
        let says = |key: &str, what: &str| cert[key].as_str().is_some_and(|text| text.contains(what));
        assert!(says("problem", words) && says("advice", advice), "{cert}");
        assert_eq!((&cert["source"], cert["at_risk"].as_bool()), (&json!("stand-in"), Some(true)), "{cert}");
    }
    let screen = screen(&gateway);
    assert!(screen.contains("is refused a connection to port") && screen.contains("has no address in the DNS"), "{screen}");
    for name in ["elsewhere.test", "nowhere.test"] {
        TlsClient::internal(&gateway).shown(gateway.https(), name).await.expect("the stand-in is served");
    }
    // One for the good one, one by each kind of challenge for the others; the next try is a minute away.
    assert_eq!((pebble.orders(), pebble.accounts(), pebble.issued()), (1 + 2 + 2, 1, 1));
    gateway.counts("gateway_acme_orders_total", &["result=\"failed\""], 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_validation_the_next_orders_are_rehearsals_until_one_passes() {
    let ports = Ports::free();
    let quick = || Manner { sleep: 0, ..Manner::default() };
    let (pebble, staging) = tokio::join!(Pebble::start(ports, quick()), Pebble::start(ports, quick()));
    for ca in [&pebble, &staging] {
        leads(ca, &[("a.test", "127.0.0.2")]).await;
    }
    let dir = workdir();
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, [pebble.root_file(), staging.root_file()].concat()).expect("written");
    let ca = format!("{{ directory = \"{}\", root = \"{}\", staging = \"{}\" }}", pebble.directory(), roots.display(), staging.directory());
    let gateway = Gateway::start(&(settings(ports, &[ca], "") + &site(&["a.test"])));
    let fails = |times: u64| {
        let gateway = &gateway;
        async move { known(gateway, "a.test", "it has failed", |cert| cert["failures"] == times && cert["state"] == "waiting").await }
    };
    let cert = fails(1).await;
    assert!(cert["renew_ca"].as_str().is_some_and(|ca| ca.ends_with("(staging)")), "{cert}");
    assert_eq!((pebble.orders(), staging.orders()), (2, 0));
    for times in [2, 3] {
        renew(&gateway, "a.test");
        fails(times).await;
    }
    assert_eq!((pebble.orders(), staging.orders()), (2, 4), "by each kind of challenge, at staging alone");
    for ca in [&pebble, &staging] {
        leads(ca, &[("a.test", "127.0.0.1")]).await;
    }
    renew(&gateway, "a.test");
    served(&gateway, &trusting(&pebble).await, "a.test").await;
    known(&gateway, "a.test", "all is well", |cert| cert["state"] == "served" && cert["problem"].is_null()).await;
    assert_eq!((pebble.orders(), staging.orders()), (3, 5), "one rehearsal, and the order proper");
    assert_eq!((pebble.accounts(), staging.accounts()), (1, 1));
    eventually_async("both are counted", secs(10), || async {
        let counted = |result| {
            let gateway = &gateway;
            async move { gateway.metric("gateway_acme_orders_total", &[result]).await }
        };
        let all = (counted("result=\"failed\"").await, counted("result=\"rehearsed\"").await, counted("result=\"ok\"").await);
        if all == (3.0, 1.0, 1.0) { Ok(()) } else { Err(all) }
    })
    .await;
}
