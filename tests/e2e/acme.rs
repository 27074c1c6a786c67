//! Certificates that look after themselves, against Let's Encrypt's own test CA.

use serde_json::Value;

use crate::harness::{
    Gateway,
    pebble::{Pebble, Ports},
    tls::TlsClient,
    wait::{eventually_async, secs},
};

mod crash;
mod demand;
mod issue;
mod outage;
mod refusal;
mod reload;
mod renewal;

/// Three sites, five names.
const SITES: [&[&str]; 3] = [&["a.test", "www.a.test"], &["b.test", "alias.b.test"], &["c.test"]];

fn names() -> impl Iterator<Item = &'static str> {
    SITES.iter().flat_map(|names| names.iter().copied())
}

/// All but the sites.
fn settings(ports: Ports, cas: &[String], more: &str) -> String {
    format!("email = \"ops@a.test\"\n{}[tls]\nca = [{}]\n{more}\n", ports.listen(), cas.join(", "))
}

/// A site that answers with its first name.
fn site(names: &[&str]) -> String {
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    format!("[[site]]\nhost = [{list}]\n[site.route.\"/\"]\nrespond = \"{}\"\n", names[0])
}

/// With all of [`SITES`].
fn config(ports: Ports, cas: &[String], more: &str) -> String {
    SITES.iter().fold(settings(ports, cas, more), |text, names| text + &site(names))
}

/// Waits until this name is served with a certificate that leads to a root of the client's.
async fn served(gateway: &Gateway, tls: &TlsClient, name: &str) {
    eventually_async(&format!("{name} is served with the CA's chain"), secs(60), || async {
        tls.shown(gateway.https(), name).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

async fn all_served(gateway: &Gateway, tls: &TlsClient) {
    for name in names() {
        served(gateway, tls, name).await;
    }
}

/// Trusts what this CA signs.
async fn trusting(pebble: &Pebble) -> TlsClient {
    TlsClient::trusting(pebble.issuing_root().await.as_bytes())
}

fn certs(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.ask(&serde_json::json!({ "command": "certs" })).expect("certs answers");
    answer.as_array().cloned().unwrap_or_default()
}

/// What `gateway certs` knows of this host.
fn cert(gateway: &Gateway, host: &str) -> Value {
    certs(gateway).into_iter().find(|cert| cert["host"] == host).unwrap_or_default()
}

fn serial(gateway: &Gateway, host: &str) -> String {
    cert(gateway, host)["serial"].as_str().unwrap_or_default().to_owned()
}

/// Waits until what is known of this host is so; gives it.
async fn known(gateway: &Gateway, host: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    eventually_async(&format!("{host}: {what}"), secs(60), || async {
        let cert = cert(gateway, host);
        if so(&cert) { Ok(cert) } else { Err(cert) }
    })
    .await
}

/// `gateway certs renew HOST`.
fn renew(gateway: &Gateway, host: &str) {
    let said = gateway.cli(&["certs", "renew", host]);
    assert!(said.status.success(), "{host}: {}", String::from_utf8_lossy(&said.stderr));
}

/// What `gateway certs` puts on the screen.
fn screen(gateway: &Gateway) -> String {
    String::from_utf8_lossy(&gateway.cli(&["certs"]).stdout).into_owned()
}
