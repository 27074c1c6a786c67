//! Certificates that look after themselves, against a CA in the test's own process: what pebble lacks, and what no CA should do.

use std::{fs, time::SystemTime};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Gateway,
    ca_double::{CaDouble, Fault, Manner, Signs},
    get,
    pebble::Ports,
    proc,
    tls::TlsClient,
    wait::{eventually, eventually_async, secs},
};

const DAY: i64 = 24 * 3600;

/// One site of two names.
fn config(ca: &CaDouble, more: &str) -> String {
    listening("", ca, more)
}

fn listening(listen: &str, ca: &CaDouble, more: &str) -> String {
    format!(
        "email = \"ops@a.test\"\n{listen}[tls]\nca = [{}]\nchallenges = [\"http-01\"]\n{more}\n[[site]]\nhost = [\"a.test\", \"www.a.test\"]\n[site.route.\"/\"]\nrespond = \"a\"\n",
        ca.ca()
    )
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn cert(gateway: &Gateway) -> Value {
    let answer = gateway.ask(&serde_json::json!({ "command": "certs" })).expect("certs answers");
    answer[0].clone()
}

/// When the next attempt is made, from now.
fn wait_of(cert: &Value) -> i64 {
    cert["renew_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).map_or(i64::MIN, |at| at.as_second() - now())
}

/// Waits until the certificate of this order is served.
async fn serves(gateway: &Gateway, ca: &CaDouble, order: usize) {
    let tls = TlsClient::gullible();
    eventually_async(&format!("the certificate of order {order} is served"), secs(30), || async {
        let shown = tls.shown(gateway.https(), "a.test").await.map_err(|error| error.to_string())?;
        match ca.orders().get(order) {
            Some(_) if shown == ca.certificate(order) => Ok(()),
            _ => Err(format!("{} orders", ca.orders().len())),
        }
    })
    .await;
}

/// Waits until there is a complaint with all of these words, and gives it.
fn complaint(gateway: &Gateway, words: &[&str]) -> Value {
    eventually(&format!("a problem with {words:?}"), secs(50), || {
        let cert = cert(gateway);
        let said = cert["problem"].as_str().unwrap_or_default();
        if words.iter().all(|word| said.contains(word)) { Ok(cert.clone()) } else { Err(format!("{cert}")) }
    })
}

/// Ends the edge; the next one knows what is on disk, and nothing of when the certificate was issued.
fn restart(gateway: &Gateway, forget: bool) {
    if !forget {
        return replace(gateway, || {});
    }
    replace_settled(gateway, || {
        let path = gateway.state().join("edge/certs/a.test/history.json");
        let mut kept: Value = serde_json::from_slice(&fs::read(&path).expect("kept")).expect("JSON");
        kept["history"] = serde_json::json!({});
        // Of whoever is its owner, in place.
        fs::write(&path, kept.to_string()).expect("written");
    });
}

/// As [`replace`], once the certificate is served and all of it written down: that comes after it has begun to be served.
fn replace_settled(gateway: &Gateway, meddle: impl FnOnce()) {
    eventually("all is written down", secs(30), || {
        let cert = cert(gateway);
        if cert["state"] == "served" { Ok(()) } else { Err(cert) }
    });
    replace(gateway, meddle);
}

/// Ends the edge, and meddles with its files when it cannot write any more.
fn replace(gateway: &Gateway, meddle: impl FnOnce()) {
    let old = gateway.edge();
    proc::kill(old, Signal::SIGSTOP);
    meddle();
    proc::kill(old, Signal::SIGKILL);
    eventually("there is another edge", secs(40), || match gateway.edge_pid() {
        Some(pid) if pid != old && gateway.ask(&serde_json::json!({ "command": "certs" })).is_ok() => Ok(()),
        other => Err(other),
    });
}

fn far() -> Option<(i64, i64)> {
    Some((now() + 40 * DAY, now() + 41 * DAY))
}

fn past() -> Option<(i64, i64)> {
    Some((now() - DAY, now() - 3600))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_is_open_renews_at_once_and_says_what_is_replaced() {
    let ca = CaDouble::start(Manner { window: far(), ..Manner::default() }).await;
    let gateway = Gateway::start(&config(&ca, ""));
    serves(&gateway, &ca, 0).await;
    assert_eq!(ca.orders()[0].replaces, None);
    restart(&gateway, true);
    let planned = eventually("the window is heeded", secs(20), || {
        let cert = cert(&gateway);
        if cert["renew_why"] == "suggested by the CA" { Ok(cert.clone()) } else { Err(cert.to_string()) }
    });
    assert!((39 * DAY..41 * DAY).contains(&wait_of(&planned)), "{planned}");
    assert_eq!(ca.orders().len(), 1, "it is far away");
    ca.change(|manner| manner.window = past());
    restart(&gateway, false);
    serves(&gateway, &ca, 1).await;
    assert_eq!(ca.orders()[1].replaces, Some(ca.id(0)));
    // The new one has a window in the past as well: no tight loop.
    eventually("the new one is looked at", secs(20), || {
        let cert = cert(&gateway);
        if cert["renew_why"] == "suggested by the CA" && wait_of(&cert) > 3000 { Ok(()) } else { Err(cert.to_string()) }
    });
    assert_eq!(ca.orders().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_moves_is_noticed_at_the_next_look() {
    let ca =
        CaDouble::start(Manner { life: 900, window: Some((now() + 500, now() + 590)), look_again: "1".into(), ..Manner::default() }).await;
    let gateway = Gateway::start(&config(&ca, ""));
    serves(&gateway, &ca, 0).await;
    restart(&gateway, true);
    let looks = ca.asked("window");
    eventually("it is asked again", secs(40), || if ca.asked("window") > looks + 1 { Ok(()) } else { Err(ca.asked("window")) });
    assert_eq!(ca.orders().len(), 1);
    ca.change(|manner| manner.window = past());
    serves(&gateway, &ca, 1).await;
    assert_eq!(ca.orders()[1].replaces, Some(ca.id(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_already_is_ordered_once_more_without_the_word() {
    let ca = CaDouble::start(Manner { window: far(), ..Manner::default() }).await;
    let gateway = Gateway::start(&config(&ca, ""));
    serves(&gateway, &ca, 0).await;
    ca.change(|manner| {
        manner.faults.insert("order", Fault::RefusesReplacement);
    });
    assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
    serves(&gateway, &ca, 2).await;
    let seen: Vec<_> = ca.orders().into_iter().map(|order| (order.replaces.is_some(), order.refused)).collect();
    assert_eq!(seen, [(false, false), (true, true), (false, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_asked_for_where_the_directory_offers_it_and_only_there() {
    for (offered, asked) in [(&["classic", "shortlived"][..], Some("shortlived")), (&["classic"], None), (&[], None)] {
        let ca = CaDouble::start(Manner { profiles: offered, ..Manner::default() }).await;
        let gateway = Gateway::start(&config(&ca, "profile = \"shortlived\""));
        serves(&gateway, &ca, 0).await;
        assert_eq!(ca.orders()[0].profile.as_deref(), asked, "{offered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_proven_to_a_ca_that_wants_it() {
    let ports = Ports::free();
    let ca = CaDouble::start(Manner { prove_at: Some(ports.http), ..Manner::default() }).await;
    let gateway = Gateway::start(&listening(&ports.listen(), &ca, ""));
    serves(&gateway, &ca, 0).await;
    let tls = TlsClient::trusting(ca.issuing_root().as_bytes());
    for name in ["a.test", "www.a.test"] {
        tls.shown(gateway.https(), name).await.expect("trusted");
    }
    assert_eq!((ca.orders().len(), ca.asked("challenge")), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_asks_for_time_gets_it_over_restarts_and_reloads_and_it_is_said_until_when() {
    for (status, kind, as_date) in [(429, "rateLimited", false), (429, "rateLimited", true), (503, "serverInternal", false)] {
        let after = |seconds| if as_date { httpdate::fmt_http_date(SystemTime::now() + secs(seconds)) } else { seconds.to_string() };
        let refuses = |manner: &mut Manner, hours: u64| {
            manner.faults.insert("order", Fault::Refuses(status, kind, Some(after(hours * 3600))));
        };
        let mut manner = Manner::default();
        refuses(&mut manner, 1);
        let ca = CaDouble::start(manner).await;
        let text = config(&ca, "");
        let gateway = Gateway::start(&text);
        let said = complaint(&gateway, &["it is not to be asked before", "UTC"]);
        assert!((3300..3700).contains(&wait_of(&said)), "{status}: {said}");
        // What an account that was opened before a reload is told must be heard as well.
        gateway.reload(&text).expect("reloaded");
        ca.change(|manner| refuses(manner, 2));
        assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
        eventually("it waits for longer", secs(20), || {
            let cert = cert(&gateway);
            if (6900..7300).contains(&wait_of(&cert)) { Ok(()) } else { Err(cert.to_string()) }
        });
        let shown = gateway.cli(&["certs"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("it is not to be asked before"), "{shown}");
        restart(&gateway, false);
        let said = complaint(&gateway, &["it is not to be asked before"]);
        assert!((6900..7300).contains(&wait_of(&said)), "{status}: {said}");
        assert_eq!(ca.orders().len(), 2, "not before that moment");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_out_of_its_mind_is_a_reason_on_screen_and_nothing_else() {
    for (at, fault, words) in [
        ("dir", Fault::Garbage, "answered what is not understood"),
        ("dir", Fault::Wordless, "answered 503"),
        ("dir", Fault::Huge, "was of no use"),
        ("dir", Fault::Closes, "was of no use"),
        ("nonce", Fault::Wordless, "answered 503"),
        ("account", Fault::Garbage, "answered what is not understood"),
        ("order", Fault::Garbage, "answered what is not understood"),
        ("finalize", Fault::Closes, "was of no use"),
        ("cert", Fault::Huge, "was of no use"),
        ("cert", Fault::Garbage, "could not use what the CA has sent"),
        ("state", Fault::AsksForEver, "did not answer in time"),
    ] {
        let mut manner = Manner::default();
        manner.faults.insert(at, fault.clone());
        if at == "state" {
            // An order that stays as it is, so that it is asked for again.
            manner.prove_at = Some(1);
        }
        let ca = CaDouble::start(manner).await;
        let gateway = Gateway::start(&config(&ca, ""));
        let said = complaint(&gateway, &[words]);
        assert!((1..7 * 3600).contains(&wait_of(&said)), "{at} {fault:?}: {said}");
        assert_eq!(said["failures"], 1, "{at} {fault:?}: {said}");
        assert!(ca.orders().len() <= 1, "{at} {fault:?}: {:?}", ca.orders());
        // What is served goes on: a stand-in here.
        TlsClient::gullible().shown(gateway.https(), "a.test").await.expect("a stand-in");
        // And the steward is at its desk: healed, it is done at once.
        ca.change(|manner| (manner.faults, manner.prove_at) = Default::default());
        assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success(), "{at} {fault:?}");
        let tls = TlsClient::trusting(ca.issuing_root().as_bytes());
        eventually_async(&format!("{at} {fault:?} is forgotten"), secs(30), || async {
            tls.shown(gateway.https(), "www.a.test").await.map(drop).map_err(|error| format!("{error}: {}", cert(&gateway)))
        })
        .await;
        gateway.counts("gateway_acme_orders_total", &["result=\"failed\""], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_hangs_is_given_up_in_time() {
    let mut manner = Manner::default();
    manner.faults.insert("order", Fault::Hangs);
    let ca = CaDouble::start(manner).await;
    let gateway = Gateway::start(&config(&ca, ""));
    assert_eq!(get(gateway.http(), "a.test", "/").await.expect("served meanwhile").status, 301);
    let said = complaint(&gateway, &["did not answer in time"]);
    assert_eq!((said["state"].as_str(), said["failures"].as_u64()), (Some("waiting"), Some(1)), "{said}");
    assert_eq!(ca.asked("order"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_what_was_asked_for_is_refused_and_the_old_certificate_stays() {
    for (signs, words) in [
        (Signs::OtherNames, "it is not for a.test"),
        (Signs::OtherKey, "a key that is not that of the certificate"),
        (Signs::WhatIsOver, "that expired at"),
    ] {
        let ca = CaDouble::start(Manner::default()).await;
        let gateway = Gateway::start(&config(&ca, ""));
        serves(&gateway, &ca, 0).await;
        ca.change(|manner| manner.signs = signs);
        assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
        complaint(&gateway, &["could not use", words]);
        serves(&gateway, &ca, 0).await;
        restart(&gateway, false);
        serves(&gateway, &ca, 0).await;
        // The next attempt makes an order of its own: the old one would be sent the same again.
        ca.change(|manner| manner.signs = Signs::WhatIsAsked);
        assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
        serves(&gateway, &ca, 2).await;
        assert_eq!(ca.orders().len(), 3, "{signs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_ordered_that_could_not_be_kept() {
    let ca = CaDouble::start(Manner::default()).await;
    let gateway = Gateway::start(&config(&ca, ""));
    serves(&gateway, &ca, 0).await;
    let folder = gateway.state().join("edge/certs/a.test");
    fs::remove_dir_all(&folder).expect("removed");
    // Nobody writes into that, whoever runs the edge.
    fs::write(&folder, "").expect("written");
    assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
    complaint(&gateway, &["could not keep the certificate"]);
    assert_eq!(ca.asked("order"), 1, "the CA was not asked");
    serves(&gateway, &ca, 0).await;
    fs::remove_file(&folder).expect("removed");
    assert!(gateway.cli(&["certs", "renew", "a.test"]).status.success());
    serves(&gateway, &ca, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_damaged_are_said_and_made_anew() {
    let ca = CaDouble::start(Manner::default()).await;
    let gateway = Gateway::start(&config(&ca, ""));
    serves(&gateway, &ca, 0).await;
    let certs = gateway.state().join("edge/certs");
    let account = fs::read_dir(certs.join(".accounts")).expect("accounts").next().expect("one").expect("readable").path();
    let key = fs::read(account.join("key.pem")).expect("a key");
    replace_settled(&gateway, || {
        for path in [
            certs.join("a.test/history.json"),
            certs.join("a.test/order.json"),
            certs.join("a.test/bundle.pem"),
            account.join("account.json"),
        ] {
            fs::write(&path, "{ \u{1b}[31m half").expect("written");
        }
    });
    serves(&gateway, &ca, 1).await;
    assert_eq!(ca.orders().len(), 2);
    assert_eq!(fs::read(account.join("key.pem")).expect("a key"), key, "the account is the same");
    let said = gateway.output();
    for words in [
        "what was tried before was not read",
        "an order under way was not read",
        "certificate on disk is not usable",
        "account on disk is damaged",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
