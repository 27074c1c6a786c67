//! A thousand certificates: all of them served, and what they cost.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{
    Gateway,
    gateway::workdir,
    heavy,
    tls::{TlsClient, write_certificate},
};

fn name(n: usize) -> String {
    format!("site-{n}.test")
}

/// `count` sites, all served from one directory of as many pairs; and how long the gateway took to serve.
fn start(certs: &TempDir, count: usize) -> (Gateway, Duration) {
    let site = |n: usize| {
        format!(
            "[[site]]\nhost = \"{}\"\ntls = {{ dir = \"{}\" }}\n[site.route.\"/\"]\nrespond = {{ status = 200, body = \"ok\" }}\n",
            name(n),
            certs.path().display()
        )
    };
    let text: String = (0..count).map(site).collect();
    let began = Instant::now();
    let gateway = Gateway::start(&text);
    (gateway, began.elapsed())
}

/// VmRSS, in kB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_thousand_names_gets_its_own_certificate() {
    let _turn = heavy().await;
    for count in [1, 1000] {
        let certs = workdir();
        let made: Vec<_> = (0..count).map(|n| write_certificate(certs.path(), &name(n), &[&name(n)])).collect();
        let (gateway, took) = start(&certs, count);
        let client = TlsClient::gullible();
        for n in (0..count).step_by(37).chain([count - 1]) {
            assert_eq!(client.shown(gateway.https(), &name(n)).await.expect("a handshake"), made[n], "{}", name(n));
        }
        println!(
            "{count} certificates: served after {} ms, master {} kB, edge {} kB",
            took.as_millis(),
            resident(gateway.pid()),
            resident(gateway.edge())
        );
    }
}
