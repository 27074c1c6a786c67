//! Death in any moment of issuing.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use tokio::task::JoinSet;

use super::{SITES, all_served, certs, config, trusting};
use crate::harness::{
    Gateway, eventually,
    pebble::{Manner, Pebble, Ports},
    proc,
    wait::{ms, secs},
};

/// Each with a CA and a state of its own, each killed twice.
const GATEWAYS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Kill {
    Edge,
    Whole,
}

/// Sites without a certificate on disk; those there are must be good.
fn without(state: &Path) -> usize {
    let bundle = |names: &&[&str]| fs::read(state.join("edge/certs").join(names[0]).join("bundle.pem")).ok();
    let there: Vec<Vec<u8>> = SITES.iter().filter_map(bundle).collect();
    for pem in &there {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("a chain");
        assert!(chain.len() > 1, "the chain is whole");
        let key = PrivateKeyDer::from_pem_slice(pem).expect("a key");
        CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).expect("the key is that of the certificate");
    }
    SITES.len() - there.len()
}

/// Waits until an order is under way, or none is needed any more.
fn under_way(gateway: &Gateway) {
    eventually("an order is under way", secs(60), || {
        let all = certs(gateway);
        let there = all.iter().all(|cert| cert["state"] == "served") || all.iter().any(|cert| cert["state"] == "ordering");
        if there { Ok(()) } else { Err(all) }
    });
}

async fn killed_twice(kills: [Kill; 2]) {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner::default()).await;
    let mut gateway = Gateway::launch(&config(ports, &[pebble.ca("")], ""));
    let mut cut = 0;
    for (turn, kill) in kills.into_iter().enumerate() {
        if turn > 0 || matches!(kill, Kill::Edge) {
            gateway.wait_ready();
            under_way(&gateway);
        }
        // A random moment is what this is about: nothing is waited for.
        tokio::time::sleep(ms(fastrand::u64(0..4000))).await;
        match kill {
            Kill::Edge => {
                let edge = gateway.edge();
                proc::kill(edge, Signal::SIGKILL);
                eventually("the edge is dead", secs(5), || (!proc::alive(edge)).then_some(()).ok_or("alive"));
            }
            Kill::Whole => gateway.kill_whole(),
        }
        cut += without(&gateway.state());
        if matches!(kill, Kill::Whole) {
            gateway.start_again();
        }
    }
    gateway.wait_ready();
    all_served(&gateway, &trusting(&pebble).await).await;
    eventually("every certificate is on disk", secs(10), || if without(&gateway.state()) == 0 { Ok(()) } else { Err("one is missing") });
    assert_eq!(pebble.accounts(), 1, "{kills:?}: one account");
    // A site has one order at a time, and with its bundle on disk it orders no more. So a death costs at most one order for each site that has no bundle then: the one
    // that the CA has given and we have not heard of, or that it found wanting because nobody answered its challenge.
    let orders = pebble.orders();
    assert!(orders <= SITES.len() + cut, "{kills:?}: {orders} orders, {cut} cut");
    let left = |names: &&&[&str]| gateway.state().join("edge/certs").join(names[0]).join("order.json").exists();
    eventually("no order is left over", secs(10), || if SITES.iter().any(|names| left(&names)) { Err("one is") } else { Ok(()) });
    eprintln!("{kills:?}: {orders} orders, {cut} at most were cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn killed_at_ten_moments_of_issuing_it_ends_with_one_account_and_no_order_too_many() {
    let mut all = JoinSet::new();
    for n in 0..GATEWAYS {
        all.spawn(killed_twice(if n % 2 == 0 { [Kill::Whole, Kill::Edge] } else { [Kill::Edge, Kill::Whole] }));
    }
    while let Some(ended) = all.join_next().await {
        ended.expect("as it should");
    }
}
