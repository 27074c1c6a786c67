//! Certificates that look after themselves, against Let's Encrypt's own test CA.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::harness::{
    Gateway,
    pebble::{Manner, Pebble, Ports},
    tls::TlsClient,
    wait::{eventually_async, secs},
};

/// Three sites, five names.
const SITES: [&[&str]; 3] = [&["a.test", "www.a.test"], &["b.test", "alias.b.test"], &["c.test"]];

fn names() -> impl Iterator<Item = &'static str> {
    SITES.iter().flat_map(|names| names.iter().copied())
}

fn config(ports: Ports, cas: &[String], more: &str) -> String {
    let mut text = format!("email = \"ops@a.test\"\n{}[tls]\nca = [{}]\n{more}\n", ports.listen(), cas.join(", "));
    for names in SITES {
        let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("[[site]]\nhost = [{list}]\n[site.route.\"/\"]\nrespond = \"{}\"\n", names[0]));
    }
    text
}

/// Waits until every name is served with a certificate that leads to the CA's root.
async fn served(gateway: &Gateway, tls: &TlsClient) {
    for name in names() {
        eventually_async(&format!("{name} is served with the CA's chain"), secs(60), || async {
            tls.shown(gateway.https(), name).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}

fn certs(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.ask(&serde_json::json!({ "command": "certs" })).expect("certs answers");
    answer.as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_site_gets_its_certificate_by_each_kind_of_challenge() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Manner::default()).await;
        let gateway = Gateway::start(&config(ports, &[pebble.ca("")], &format!("challenges = [\"{challenge}\"]")));
        let root = pebble.issuing_root().await;
        let tls = TlsClient::trusting(root.as_bytes());
        served(&gateway, &tls).await;
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
