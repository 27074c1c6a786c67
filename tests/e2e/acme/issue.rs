//! From nothing to certificates: by each kind of challenge, by an account bound to another, and what was left by an order that was cut off.

use std::{collections::BTreeSet, fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{SITES, all_served, certs, config, known, names, renew, screen, serial, served, settings, site, trusting};
use crate::harness::{
    Gateway, eventually,
    pebble::{Manner, Pebble, Ports},
    proc,
    tls::TlsClient,
    wait::secs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_site_gets_its_certificate_by_each_kind_of_challenge() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Manner::default()).await;
        let gateway = Gateway::start(&config(ports, &[pebble.ca("")], &format!("challenges = [\"{challenge}\"]")));
        let root = pebble.issuing_root().await;
        let tls = TlsClient::trusting(root.as_bytes());
        all_served(&gateway, &tls).await;
        assert_eq!((pebble.orders(), pebble.accounts()), (SITES.len(), 1), "{challenge}: one order a site, one account");
        std::fs::write(gateway.dir().join("root.pem"), &root).expect("written");
        for name in names() {
            let at = format!("127.0.0.1:{}", ports.https);
            let seen = Command::new("openssl")
                .args([
                    "s_client",
                    "-connect",
                    &at,
                    "-servername",
                    name,
                    "-verify_hostname",
                    name,
                    "-verify_return_error",
                    "-CAfile",
                    "root.pem",
                ])
                .current_dir(gateway.dir())
                .stdin(std::process::Stdio::null())
                .output()
                .expect("openssl runs");
            assert!(seen.status.success(), "{name}: {}", String::from_utf8_lossy(&seen.stderr));
            let resolve = format!("{name}:{}:127.0.0.1", ports.https);
            let url = format!("https://{name}:{}/", ports.https);
            // A redirected name answers 308, which is no failure.
            let words = ["-sS", "--fail", "--cacert", "root.pem", "--resolve", &resolve, &url];
            let got = Command::new("curl").args(words).current_dir(gateway.dir()).output().expect("curl runs");
            assert!(got.status.success(), "{name}: {}", String::from_utf8_lossy(&got.stderr));
        }
        let all = certs(&gateway);
        assert_eq!(all.len(), SITES.len(), "{all:?}");
        for cert in &all {
            assert!(cert["issuer"].as_str().is_some_and(|issuer| issuer.contains("Pebble")), "{cert}");
            assert_eq!(cert["state"], "served", "{cert}");
            assert!(cert["renew_at"].is_string() && cert["not_after"].is_string() && cert["problem"].is_null(), "{cert}");
        }
        let hosts: BTreeSet<&str> = all.iter().filter_map(|cert| cert["host"].as_str()).collect();
        assert_eq!(hosts, BTreeSet::from(["a.test", "b.test", "c.test"]));
        gateway.counts("gateway_acme_orders_total", &["result=\"ok\""], 3.0).await;
    }
}

const KID: &str = "kid-1";
const MAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_bound_to_one_that_the_ca_knows_and_a_wrong_key_is_said() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { eab: Some((KID, MAC)), sleep: 0, ..Manner::default() }).await;
    let text = |key: &str| {
        let bound = format!(", eab_kid = \"{KID}\", eab_key = \"{key}\"");
        settings(ports, &[pebble.ca(&bound)], "") + &site(&["a.test"])
    };
    let wrong = MAC.replace('z', "y");
    let gateway = Gateway::start(&text(&wrong));
    let cert = known(&gateway, "a.test", "its problem is known", |cert| cert["problem"].is_string()).await;
    assert!(cert["advice"].as_str().is_some_and(|advice| advice.contains("eab_key")), "{cert}");
    assert!(screen(&gateway).contains("eab_key") && !screen(&gateway).contains(&wrong), "{}", screen(&gateway));
    assert_eq!((pebble.orders(), pebble.accounts()), (0, 0));
    // What is set right is tried at once.
    gateway.reload(&text(MAC)).expect("reloaded");
    served(&gateway, &trusting(&pebble).await, "a.test").await;
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_cut_off_after_its_end_does_not_bring_the_old_certificate_again() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 1, ..Manner::default() }).await;
    let gateway = Gateway::start(&(settings(ports, &[pebble.ca("")], "") + &site(&["a.test"])));
    let of = |file: &str| gateway.state().join("edge/certs/a.test").join(file);
    // As a crash leaves it between the bundle on disk and the order's end.
    eventually("the order is on disk", secs(30), || fs::hard_link(of("order.json"), of("kept")));
    let old = known(&gateway, "a.test", "it is served", |cert| cert["state"] == "served").await["serial"].clone();
    fs::rename(of("kept"), of("order.json")).expect("put back");
    proc::kill(gateway.edge(), Signal::SIGKILL);
    eventually("the next edge is done with the order", secs(20), || if of("order.json").exists() { Err("it is there") } else { Ok(()) });
    eventually("it answers", secs(20), || gateway.ask(&json!({ "command": "certs" })));
    renew(&gateway, "a.test");
    known(&gateway, "a.test", "a new one is served", |cert| cert["state"] == "served" && cert["serial"] != old).await;
    assert_ne!(serial(&gateway, "a.test"), old.as_str().expect("a serial"));
    assert_eq!((pebble.orders(), pebble.issued()), (2, 2));
}
