use super::*;
use crate::{
    acme::{handle::handle, vault::WAITING},
    plan::Acme,
    store::certs::Certs,
    telemetry::Metrics,
};

fn host(text: &str) -> Host {
    Host::parse(text).expect("a host")
}

fn setting(sites: &[&[&str]], asks: &[&str]) -> Setting {
    let sites = sites.iter().map(|names| (host(names[0]), names.iter().map(|name| host(name)).collect()));
    Setting {
        acme: Acme::none(),
        sites: sites.collect(),
        asks: asks.iter().map(|&ask| ask.to_owned()).collect(),
        challenges: Vec::new(),
        door: None,
        transports: Vec::new(),
        staging: Vec::new(),
    }
}

fn steward(dir: &std::path::Path, setting: Setting) -> Steward {
    let (vault, demands) = Vault::new();
    let (_, desk) = handle();
    let (_, settings) = watch::channel(Arc::new(setting));
    let metrics = Metrics::new().acme();
    Steward::new(Parts { certs: Certs::new(dir.to_owned()), vault, board: Arc::default(), metrics, demands, desk, settings })
}

/// Another configuration is in force.
fn apply(steward: &mut Steward, setting: Setting) {
    steward.setting = Arc::new(setting);
    steward.take_sites();
}

/// A certificate for these names, as it lies on disk.
fn bundle(names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.signing_key.serialize_pem() + &made.cert.pem()).into_bytes()
}

fn served(steward: &Steward, name: &str) -> Option<String> {
    Some(steward.wards.get(&host(name))?.slot.pair()?.serial.clone())
}

#[tokio::test]
async fn a_fault_in_an_attempt_is_a_failed_attempt_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut steward = steward(dir.path(), setting(&[&["a.test"]], &[]));
    steward.running.insert(host("a.test"));
    steward.wards.get_mut(&host("a.test")).expect("looked after").busy = true;
    let fallback = Done::Attempt(Ended {
        name: host("a.test"),
        directory: String::new(),
        ca: String::new(),
        attempt: crate::rules::renewal::Attempt { ca: 0, staging: false, challenge: 0 },
        took: Duration::ZERO,
        outcome: Outcome::Failed { error: AttemptError::Fault, challenge: None, retry_after: None },
    });
    steward.spawn(async { panic!("of somebody else's making") }, fallback);
    let done = steward.tasks.join_next().await.expect("a task").expect("caught");
    steward.done(done).await;
    let ward = &steward.wards[&host("a.test")];
    assert!(!ward.busy && ward.memory.history.failures() == 1 && steward.running.is_empty());
    assert!(ward.next().0 > now(), "tried again, but not at once");
}

#[test]
fn a_site_whose_hosts_change_places_keeps_its_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    Certs::new(dir.path().to_owned()).write(&host("a.test"), Item::Bundle, &bundle(&["a.test", "b.test"])).expect("written");
    let mut first = steward(dir.path(), setting(&[&["a.test", "b.test"]], &[]));
    let serial = served(&first, "a.test");
    assert!(serial.is_some());
    apply(&mut first, setting(&[&["b.test", "a.test"]], &[]));
    assert_eq!(served(&first, "b.test"), serial, "after a reload");
    assert!(first.wards[&host("b.test")].next().0 > now(), "and needs no other");
    let again = steward(dir.path(), setting(&[&["b.test", "a.test"]], &[]));
    assert_eq!(served(&again, "b.test"), serial, "after a restart");
}

#[test]
fn hosts_that_move_to_another_site_are_served_until_there_is_something_better() {
    let dir = tempfile::tempdir().expect("a directory");
    Certs::new(dir.path().to_owned()).write(&host("a.test"), Item::Bundle, &bundle(&["a.test", "b.test"])).expect("written");
    let mut steward = steward(dir.path(), setting(&[&["a.test", "b.test"]], &[]));
    let serial = served(&steward, "a.test");
    apply(&mut steward, setting(&[&["a.test"], &["b.test", "c.test"], &["d.test"]], &[]));
    assert_eq!((served(&steward, "b.test"), served(&steward, "d.test")), (serial, None));
    assert!(steward.wards[&host("b.test")].next().0 <= now(), "c.test is not in it");
}

#[test]
fn a_site_that_comes_back_while_its_order_runs_is_not_ordered_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut steward = steward(dir.path(), setting(&[&["a.test"]], &[]));
    steward.running.insert(host("a.test"));
    apply(&mut steward, setting(&[], &[]));
    assert!(steward.wards.is_empty());
    apply(&mut steward, setting(&[&["a.test"]], &[]));
    assert!(steward.wards[&host("a.test")].busy);
}

#[test]
fn what_nobody_renews_any_more_is_not_served_on_demand_either() {
    let dir = tempfile::tempdir().expect("a directory");
    Certs::new(dir.path().to_owned()).write(&host("a.test"), Item::Bundle, &bundle(&["a.test"])).expect("written");
    let mut steward = steward(dir.path(), setting(&[&["a.test"]], &["http://x/"]));
    apply(&mut steward, setting(&[], &["http://x/"]));
    assert!(steward.vault.find(&host("a.test")).is_none(), "it is asked for first");
    assert!(steward.asked(host("a.test"), "http://x/".into(), true) && served(&steward, "a.test").is_some());
    apply(&mut steward, setting(&[], &[]));
    assert!(steward.wards.is_empty(), "its site is gone");
}

#[tokio::test]
async fn clients_that_wait_for_a_name_on_demand_are_bounded_and_those_who_go_make_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut steward = steward(dir.path(), setting(&[], &["http://x/"]));
    let ask = |steward: &mut Steward| {
        let (answer, mut told) = oneshot::channel();
        let stirred = steward.wanted(Demand { name: host("a.test"), ask: "http://127.0.0.1:1/".into(), answer });
        assert!(!stirred, "a stranger moves nothing");
        (told.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty), told)
    };
    let mut all: Vec<_> = (0..1000).map(|_| ask(&mut steward)).collect();
    assert_eq!(all.iter().filter(|(waits, _)| *waits).count(), WAITING);
    assert_eq!(steward.tasks.len(), 1, "one question for all of them");
    all.clear();
    assert!(ask(&mut steward).0);
}

#[tokio::test]
async fn a_window_of_the_old_certificate_is_no_word_about_the_new_one() {
    let dir = tempfile::tempdir().expect("a directory");
    Certs::new(dir.path().to_owned()).write(&host("a.test"), Item::Bundle, &bundle(&["a.test"])).expect("written");
    let mut steward = steward(dir.path(), setting(&[&["a.test"]], &[]));
    let pem = bundle(&["a.test"]);
    let old = Arc::new(Pair::from_pem(&pem, &pem).expect("good"));
    let past = crate::rules::renewal::Window { start: 1, end: 2 };
    let look = Look { word: attempt::Word::Within(past), again: 3600 };
    let before = steward.wards[&host("a.test")].next();
    steward.done(Done::Look { name: host("a.test"), pair: old, look }).await;
    assert_eq!(steward.wards[&host("a.test")].next(), before);
    let own = steward.wards[&host("a.test")].slot.pair().expect("served");
    steward.done(Done::Look { name: host("a.test"), pair: own, look }).await;
    assert!(steward.wards[&host("a.test")].next().0 <= now());
}
