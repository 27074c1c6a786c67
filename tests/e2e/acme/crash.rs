//! Death in any moment of issuing.

use std::{fs, path::Path, time::Instant};

use nix::sys::signal::Signal;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{SITES, all_served, config, trusting};
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
        // An edge that has just begun does not answer yet.
        let all = gateway.ask(&json!({ "command": "certs" }))?;
        let ordering = all.as_array().is_some_and(|all| all.iter().any(|cert| cert["state"] == "ordering"));
        if ordering || without(&gateway.state()) == 0 { Ok(()) } else { Err(all.to_string()) }
    });
}

/// Gives how many orders it cut at most.
async fn killed_twice(kills: [Kill; 2]) -> usize {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 4, ..Manner::default() }).await;
    let mut gateway = Gateway::launch(&config(ports, &[pebble.ca("")], ""));
    gateway.wait_ready();
    let mut cut = 0;
    for kill in kills {
        under_way(&gateway);
        // Some moment, but not after one more certificate is there: it is chance that is to find the worst one.
        let (began, moment, before) = (Instant::now(), ms(fastrand::u64(0..4000)), without(&gateway.state()));
        let come = || began.elapsed() >= moment || before == 0 || without(&gateway.state()) < before;
        eventually("the moment has come", secs(10), || come().then_some(()).ok_or("not yet"));
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
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn killed_at_ten_moments_of_issuing_it_ends_with_one_account_and_no_order_too_many() {
    let mut all = JoinSet::new();
    for n in 0..GATEWAYS {
        all.spawn(killed_twice(if n % 2 == 0 { [Kill::Whole, Kill::Edge] } else { [Kill::Edge, Kill::Whole] }));
    }
    let cut: usize = all.join_all().await.into_iter().sum();
    assert!(cut > 0, "no kill fell into an order");
}
