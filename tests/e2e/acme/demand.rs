//! Certificates for names that nobody wrote down.

use std::{fs, io, net::SocketAddr};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::{served, settings, site, trusting};
use crate::harness::{
    Gateway, eventually,
    pebble::{Manner, Pebble, Ports},
    tls::{TlsClient, write_certificate},
    upstream,
    wait::secs,
};

fn config(ports: Ports, pebble: &Pebble, ask: SocketAddr) -> String {
    let any = format!("[[site]]\nhost = \"_\"\ntls = {{ on_demand = \"http://{ask}/ask\" }}\n[site.route.\"/\"]\nrespond = \"any\"\n");
    settings(ports, &[pebble.ca("")], "") + &site(&["a.test"]) + &any
}

fn is_unrecognized(shown: io::Result<Vec<u8>>) -> bool {
    let Err(error) = shown else { return false };
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(alert, Some(rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_allowed_gets_its_certificate_and_others_an_alert() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner { sleep: 1, ..Manner::default() }).await;
    let ask = upstream::allows("yes").await;
    let mut gateway = Gateway::start(&config(ports, &pebble, ask.addr));
    let tls = trusting(&pebble).await;
    served(&gateway, &tls, "a.test").await;
    assert_eq!((pebble.orders(), ask.hits()), (1, 0));
    // The first handshake waits for it.
    served(&gateway, &tls, "yes.test").await;
    assert_eq!((pebble.orders(), ask.hits()), (2, 1));
    for _ in 0..5 {
        tls.shown(gateway.https(), "yes.test").await.expect("at once");
        assert!(is_unrecognized(tls.shown(gateway.https(), "no.test").await));
    }
    assert_eq!((pebble.orders(), ask.hits()), (2, 2), "both answers are remembered");
    let mut many = JoinSet::new();
    for n in 0..200 {
        let (client, addr) = (TlsClient::gullible(), gateway.https());
        many.spawn(async move { client.shown(addr, &format!("no-{n}.test")).await });
    }
    for _ in 0..20 {
        tls.shown(gateway.https(), "a.test").await.expect("the other site is not held up");
        tls.shown(gateway.https(), "yes.test").await.expect("nor what is there already");
    }
    for refused in many.join_all().await {
        assert!(is_unrecognized(refused));
    }
    assert!(ask.hits() <= 202, "no name is asked about twice: {}", ask.hits());
    served(&gateway, &tls, "yes-too.test").await;
    assert_eq!(pebble.orders(), 3);
    // After a restart it comes from the disk.
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(30));
    gateway.start_again();
    for name in ["yes.test", "yes-too.test", "a.test"] {
        tls.shown(gateway.https(), name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(is_unrecognized(tls.shown(gateway.https(), "no.test").await));
    assert_eq!((pebble.orders(), pebble.accounts()), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_on_disk_are_served_however_many_they_are() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner::default()).await;
    let ask = upstream::allows("yes").await;
    let mut gateway = Gateway::start(&config(ports, &pebble, ask.addr));
    served(&gateway, &trusting(&pebble).await, "a.test").await;
    gateway.signal(Signal::SIGTERM);
    gateway.wait_end(secs(30));
    // More than may be ordered in an hour, as a year leaves them.
    let certs = gateway.state().join("edge/certs");
    let names: Vec<String> = (0..120).map(|n| format!("yes-{n}.test")).collect();
    let mut leaves = Vec::new();
    for name in &names {
        let dir = certs.join(name);
        fs::create_dir(&dir).expect("made");
        leaves.push(write_certificate(&dir, "made", &[name]));
        let bundle = ["made.key", "made.pem"].map(|file| fs::read(dir.join(file)).expect("read")).concat();
        fs::write(dir.join("bundle.pem"), bundle).expect("written");
    }
    own_as(&certs.join("a.test/bundle.pem"), names.iter().map(|name| certs.join(name)));
    gateway.start_again();
    let tls = TlsClient::gullible();
    for (name, leaf) in names.iter().zip(&leaves) {
        let shown = tls.shown(gateway.https(), name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(shown, *leaf, "{name}");
    }
    assert_eq!(pebble.orders(), 1);
}

/// Gives what is in these directories to whoever has `like`.
fn own_as(like: &std::path::Path, dirs: impl Iterator<Item = std::path::PathBuf>) {
    use std::os::unix::fs::MetadataExt;
    let of = fs::metadata(like).expect("metadata");
    let give = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(of.uid()), Some(of.gid())).expect("given");
    for dir in dirs {
        give(&dir);
        fs::read_dir(&dir).expect("read").for_each(|entry| give(&entry.expect("one").path()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ask_program_that_is_down_says_no() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Manner::default()).await;
    let gateway = Gateway::start(&config(ports, &pebble, upstream::refuses().await));
    assert!(is_unrecognized(TlsClient::gullible().shown(gateway.https(), "yes.test").await));
    let said = || gateway.output().contains("could not ask whether a name may have a certificate");
    eventually("the log says so", secs(10), || said().then_some(()).ok_or_else(|| gateway.output()));
}
