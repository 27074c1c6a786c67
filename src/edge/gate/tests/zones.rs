//! Zones on a route: whose budget a request uses, and what several zones spend.

use std::collections::HashMap;

use super::*;
use crate::telemetry::ZoneCounts;

fn name(text: &str) -> ZoneName {
    ZoneName::parse(text).expect("a name")
}

/// Two at once, and one more each minute.
fn zone(key: &[ZoneKey]) -> Zone {
    Zone { key: key.to_vec(), rate: Some(testing::pace("1r/m")), burst: 1, delay: 1, ..testing::zone() }
}

/// Gates with these zones alone, in this order on the route.
fn zoned(zones: &[(&str, Zone)]) -> Gates {
    let metrics = Metrics::new();
    let set = ZoneSet::of(&zones.iter().map(|(text, zone)| (name(text), zone.clone())).collect(), None, &metrics);
    let route = Route { zones: zones.iter().map(|(text, _)| name(text)).collect(), ..route() };
    let gate = GateRoute::new(&site(), &route, &set, &Arc::new(Screen::new()), &metrics);
    Gates { site: GateSite::new(&site(), Some(8443), Demand::Nothing), route: gate, metrics }
}

impl Gates {
    fn counts(&self, zone: &str) -> ZoneCounts {
        self.metrics.zone(&name(zone)).read()
    }

    fn waiting(&self, zone: &str) -> u32 {
        self.route.zones.iter().find(|live| live.name == name(zone)).map_or(0, |live| live.queue.len())
    }

    /// Admits, and says what was given.
    fn enter(&self, request: &Request, now: Duration) -> (Result<(), u16>, Passage) {
        let mut passage = Passage::default();
        let verdict = request.ask(|ask| admit(ask, &self.site, &self.route, now, &mut passage));
        (status(verdict), passage)
    }

    /// Whether both requests use one budget.
    fn same(key: &[ZoneKey], one: &Request, other: &Request) -> bool {
        let gates = zoned(&[("z", zone(key))]);
        for _ in 0..2 {
            assert_eq!(gates.status(one), Ok(()));
        }
        assert_eq!(gates.status(one), Err(429));
        gates.status(other).is_err()
    }
}

#[test]
fn a_hundred_at_once_are_twenty_one_and_seventy_nine() {
    let gates = Gates::new(Route { zones: vec![ZoneName::parse("api").expect("a name")], ..route() });
    let passed = (0..100).filter(|_| gates.status(&Request::get("/")).is_ok()).count();
    assert_eq!(passed, 21);
    let verdict = gates.verdict(&Request::get("/"), Duration::ZERO);
    assert_eq!((value(&verdict, "retry-after"), status(verdict.clone())), (Some("1"), Err(429)));
    assert_eq!(gates.status(&Request::get("/").from("203.0.113.8")), Ok(()));
    assert_eq!(
        gates.metrics.zone(&ZoneName::parse("api").expect("a name")).read(),
        ZoneCounts { passed: 22, rejected: 80, ..ZoneCounts::default() }
    );
}

#[test]
fn a_zone_by_header_falls_back_to_the_address() {
    let gates = Gates::new(Route { zones: vec![ZoneName::parse("key").expect("a name")], ..route() });
    let passed = |request: &Request| (0..50).filter(|_| gates.status(request).is_ok()).count();
    assert_eq!(passed(&Request::get("/").with("x-key", "a")), 21);
    assert_eq!(passed(&Request::get("/").with("x-key", "b")), 21);
    assert_eq!(passed(&Request::get("/")), 21);
    assert_eq!(passed(&Request::get("/").with("x-key", "")), 0);
}

#[test]
fn cells_live_on_over_a_reload_that_leaves_the_budget_as_it_is() {
    let metrics = Metrics::new();
    let set = |zone: Zone, old: Option<&ZoneSet>| ZoneSet::of(&[(name("z"), zone)].into(), old, &metrics);
    let get = |set: &ZoneSet| Arc::clone(set.get(&name("z")).expect("it is there"));
    let spend = |set: &ZoneSet| {
        let route = Route { zones: vec![name("z")], ..route() };
        let gate = GateRoute::new(&site(), &route, set, &Arc::new(Screen::new()), &metrics);
        let here = GateSite::new(&site(), Some(8443), Demand::Nothing);
        status(Request::get("/").ask(|ask| admit(ask, &here, &gate, Duration::ZERO, &mut Passage::default())))
    };
    let first = set(zone(&[ZoneKey::Ip]), None);
    let same = set(zone(&[ZoneKey::Ip]), Some(&first));
    assert!(Arc::ptr_eq(&get(&first), &get(&same)));
    assert_eq!((spend(&same), spend(&same), spend(&same)), (Ok(()), Ok(()), Err(429)));
    let told_otherwise = set(Zone { status: StatusCode::SERVICE_UNAVAILABLE, ..zone(&[ZoneKey::Ip]) }, Some(&same));
    assert_eq!(spend(&told_otherwise), Err(503), "another status is no new budget");
    let other = set(Zone { burst: 2, delay: 2, ..zone(&[ZoneKey::Ip]) }, Some(&told_otherwise));
    assert_eq!(spend(&other), Ok(()));
}

#[test]
fn each_part_of_a_key_is_counted_apart() {
    let get = Request::get;
    let cookie = [ZoneKey::Cookie("sid".into())];
    let query = [ZoneKey::Query("key".into())];
    let header = [ZoneKey::Header(HeaderName::from_static("x-key"))];
    let elsewhere = || get("/").from("198.51.100.1");
    // One budget wherever it comes from.
    assert!(Gates::same(&cookie, &get("/").with("cookie", "sid=a"), &elsewhere().with("cookie", "b=1; sid=%61")));
    assert!(!Gates::same(&cookie, &get("/").with("cookie", "sid=a"), &get("/").with("cookie", "sid=b")));
    assert!(Gates::same(&query, &get("/x?key=a"), &get("/y?b=1&key=%61").from("198.51.100.1")));
    assert!(!Gates::same(&query, &get("/?key=a"), &get("/?key=b")));
    assert!(Gates::same(&header, &get("/").with("x-key", "a"), &elsewhere().with("x-key", "a")));
    assert!(Gates::same(&[ZoneKey::Path], &get("/a?x=1"), &get("/b/..//%61").from("198.51.100.1")));
    assert!(!Gates::same(&[ZoneKey::Path], &get("/a"), &get("/b")));
    assert!(Gates::same(&[ZoneKey::Site], &get("/a"), &get("/b").from("198.51.100.1")));
    // What is not there, empty, or there twice falls back to the address.
    for key in [&cookie[..], &query, &header] {
        for odd in [
            get("/?key=").with("cookie", "sid=").with("x-key", ""),
            get("/?key=1&key=2").with("cookie", "sid=1; sid=2").with("x-key", "1").with("x-key", "2"),
        ] {
            assert!(Gates::same(key, &get("/"), &odd), "{key:?}");
        }
        assert!(!Gates::same(key, &get("/"), &elsewhere()), "{key:?}");
    }
}

#[test]
fn a_key_of_several_parts_is_one() {
    let key = [ZoneKey::Ip, ZoneKey::Path, ZoneKey::Query("k".into())];
    let get = Request::get;
    assert!(Gates::same(&key, &get("/a?k=1"), &get("/a?k=1&x=2")));
    for other in [get("/a?k=1").from("198.51.100.1"), get("/b?k=1"), get("/a?k=2"), get("/a")] {
        assert!(!Gates::same(&key, &get("/a?k=1"), &other));
    }
}

#[test]
fn a_zone_that_observes_counts_and_lets_pass() {
    let observed = Zone { mode: ZoneMode::Observe, ..zone(&[ZoneKey::Ip]) };
    let gates = zoned(&[("z", observed.clone())]);
    for _ in 0..10 {
        assert_eq!(gates.status(&Request::get("/")), Ok(()));
    }
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 2, would_reject: 8, ..ZoneCounts::default() });
    // What it lets pass has spent nothing: a minute later there is one again.
    let (verdict, _) = gates.enter(&Request::get("/"), Duration::from_secs(60));
    assert_eq!((verdict, gates.counts("z").passed), (Ok(()), 3));
}

#[test]
fn of_several_zones_that_refuse_the_longest_answers() {
    let long = Zone {
        rate: Some(Pace::parse("1r/h").expect("a pace")),
        burst: 0,
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..zone(&[ZoneKey::Ip])
    };
    let short = Zone { rate: Some(Pace::parse("1r/s").expect("a pace")), burst: 0, ..zone(&[ZoneKey::Ip]) };
    for zones in [[("a", long.clone()), ("b", short.clone())], [("a", short), ("b", long)]] {
        let gates = zoned(&zones);
        assert_eq!(gates.status(&Request::get("/")), Ok(()));
        let verdict = gates.verdict(&Request::get("/"), Duration::ZERO);
        assert_eq!((value(&verdict, "retry-after"), status(verdict.clone())), (Some("3600"), Err(503)));
    }
}

#[test]
fn what_a_request_has_at_once_comes_back_at_its_end() {
    let gates = zoned(&[("z", Zone { rate: None, burst: 0, concurrent: NonZeroU32::new(2), ..zone(&[ZoneKey::Ip]) })]);
    let enter = || gates.enter(&Request::get("/"), Duration::ZERO);
    let ((first, mut one), (second, two)) = (enter(), enter());
    assert_eq!((first, second, enter().0), (Ok(()), Ok(()), Err(429)));
    one.end();
    let (third, _three) = enter();
    assert_eq!((third, enter().0), (Ok(()), Err(429)));
    drop(two);
    assert_eq!(enter().0, Ok(()));
}

/// Three a minute; of the three more that may come, one does not wait.
fn queueing() -> Zone {
    Zone { rate: Some(Pace::parse("3r/m").expect("a pace")), burst: 3, delay: 1, ..zone(&[ZoneKey::Ip]) }
}

#[test]
fn what_exceeds_delay_waits_its_turn_and_what_exceeds_burst_is_refused() {
    let gates = zoned(&[("z", queueing())]);
    let all: Vec<_> = (0..6).map(|_| gates.enter(&Request::get("/"), Duration::ZERO)).collect();
    let seen: Vec<_> = all.iter().map(|(verdict, passage)| (*verdict, passage.wait().as_secs())).collect();
    assert_eq!(seen, [(Ok(()), 0), (Ok(()), 0), (Ok(()), 20), (Ok(()), 40), (Err(429), 0), (Err(429), 0)]);
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 2, delayed: 2, rejected: 2, would_reject: 0 });
    assert_eq!(gates.waiting("z"), 2);
}

#[test]
fn who_leaves_before_his_turn_has_spent_nothing_if_nobody_came_after() {
    let gates = zoned(&[("z", queueing()), ("other", Zone { burst: 9, delay: 9, ..zone(&[ZoneKey::Ip]) })]);
    let enter = || gates.enter(&Request::get("/"), Duration::ZERO).1;
    let (_first, _second, third, mut fourth) = (enter(), enter(), enter(), enter());
    assert_eq!((third.wait().as_secs(), fourth.wait().as_secs()), (20, 40));
    fourth.begin();
    drop(fourth);
    let (refused, _) = gates.enter(&Request::get("/"), Duration::ZERO);
    assert_eq!(refused, Err(429), "it was its turn: that is spent");
    drop(third);
    let (refused, _) = gates.enter(&Request::get("/"), Duration::ZERO);
    assert_eq!(refused, Err(429), "the fourth came after: its turn stays where it is");
    assert_eq!(gates.waiting("z"), 0);

    let gates = zoned(&[("z", queueing())]);
    let enter = || gates.enter(&Request::get("/"), Duration::ZERO).1;
    let (_first, _second, third, fourth) = (enter(), enter(), enter(), enter());
    drop(fourth);
    drop(third);
    let (third, fourth) = (enter(), enter());
    assert_eq!((third.wait().as_secs(), fourth.wait().as_secs()), (20, 40), "as if they had never come");
}

#[test]
fn a_zone_that_observes_makes_nobody_wait() {
    let gates = zoned(&[("z", Zone { mode: ZoneMode::Observe, ..queueing() })]);
    let all: Vec<_> = (0..6).map(|_| gates.enter(&Request::get("/"), Duration::ZERO)).collect();
    assert!(all.iter().all(|(verdict, passage)| verdict.is_ok() && passage.wait().is_zero()));
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 4, would_reject: 2, ..ZoneCounts::default() });
}

#[test]
fn a_request_waits_for_the_longest_of_its_zones() {
    let slow = Zone { rate: Some(Pace::parse("1r/m").expect("a pace")), burst: 5, delay: 0, ..zone(&[ZoneKey::Ip]) };
    let quick = Zone { rate: Some(Pace::parse("1r/s").expect("a pace")), burst: 5, delay: 0, ..zone(&[ZoneKey::Ip]) };
    for zones in [[("a", slow.clone()), ("b", quick.clone())], [("a", quick), ("b", slow)]] {
        let gates = zoned(&zones);
        let (_, _one) = gates.enter(&Request::get("/"), Duration::ZERO);
        let (_, two) = gates.enter(&Request::get("/"), Duration::ZERO);
        assert_eq!(two.wait().as_secs(), 60);
        assert_eq!((gates.waiting("a"), gates.waiting("b")), (1, 1));
    }
}

#[test]
fn a_full_queue_refuses_and_spends_nothing() {
    let wide = Zone { rate: Some(Pace::parse("1r/s").expect("a pace")), burst: 5000, delay: 0, ..zone(&[ZoneKey::Ip]) };
    let gates = zoned(&[("z", wide)]);
    let enter = || gates.enter(&Request::get("/"), Duration::ZERO);
    let mut waiting: Vec<_> = (0..1001).map(|_| enter().1).collect();
    assert_eq!(waiting[1000].wait().as_secs(), 1000);
    for _ in 0..3 {
        assert_eq!(enter().0, Err(429));
    }
    assert_eq!(gates.waiting("z"), 1000);
    waiting[1].begin();
    assert_eq!(enter().1.wait().as_secs(), 1001, "those that were refused have no turn");
}

/// Two logins may fail at once, and one more each minute.
fn counting() -> Zone {
    Zone { count: vec![StatusCode::UNAUTHORIZED], ..zone(&[ZoneKey::Ip]) }
}

impl Passage {
    fn answered(&mut self, status: StatusCode, now: Duration) -> HeaderMap {
        let mut fields = HeaderMap::new();
        self.answer(status, &mut fields, || now);
        fields
    }
}

#[test]
fn only_answers_that_count_spend() {
    let gates = zoned(&[("z", counting())]);
    let ask = |status: Option<StatusCode>| {
        let (verdict, mut passage) = gates.enter(&Request::get("/"), Duration::ZERO);
        if let Some(status) = status.filter(|_| verdict.is_ok()) {
            passage.answered(status, Duration::ZERO);
        }
        verdict
    };
    for _ in 0..10 {
        assert_eq!(ask(Some(StatusCode::OK)), Ok(()));
        assert_eq!(ask(None), Ok(()), "who leaves without an answer has spent nothing");
    }
    assert_eq!((ask(Some(StatusCode::UNAUTHORIZED)), ask(Some(StatusCode::UNAUTHORIZED))), (Ok(()), Ok(())));
    assert_eq!(ask(Some(StatusCode::OK)), Err(429));
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 22, rejected: 1, ..ZoneCounts::default() });
}

#[test]
fn who_is_kept_out_by_the_unanswered_alone_waits_for_them() {
    let gates = zoned(&[("z", counting())]);
    let now = Duration::ZERO;
    let ((_, mut one), (_, mut two)) = (gates.enter(&Request::get("/"), now), gates.enter(&Request::get("/"), now));
    let (verdict, mut three) = gates.enter(&Request::get("/"), now);
    let (_, mut four) = gates.enter(&Request::get("/"), now);
    assert!(verdict.is_ok() && three.unsettled().is_some() && four.unsettled().is_some());
    assert_eq!(gates.waiting("z"), 2);
    assert_eq!(again(&gates.route, now, &mut three), Ok(false));
    one.answered(StatusCode::OK, now);
    assert_eq!(again(&gates.route, now, &mut three), Ok(true));
    assert_eq!(again(&gates.route, now, &mut four), Ok(false));
    two.answered(StatusCode::UNAUTHORIZED, now);
    three.answered(StatusCode::UNAUTHORIZED, now);
    let refused = again(&gates.route, now, &mut four).expect_err("both are spent");
    assert_eq!(refused, Refused { status: StatusCode::TOO_MANY_REQUESTS, wait: Duration::from_secs(60), zone: name("z") });
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 2, delayed: 1, rejected: 1, would_reject: 0 });
    assert_eq!(gates.waiting("z"), 0);
}

#[test]
fn who_waits_for_others_holds_nothing_of_another_zone() {
    let crowd = Zone { rate: None, burst: 0, delay: 0, concurrent: NonZeroU32::new(3), ..zone(&[ZoneKey::Ip]) };
    let gates = zoned(&[("a", crowd), ("z", counting())]);
    let enter = || gates.enter(&Request::get("/"), Duration::ZERO);
    let (_one, mut two, mut three, four) = (enter().1, enter().1, enter().1, enter());
    assert!(three.unsettled().is_some() && four.1.unsettled().is_some() && four.0.is_ok());
    two.answered(StatusCode::OK, Duration::ZERO);
    assert_eq!(again(&gates.route, Duration::ZERO, &mut three), Ok(true));
    assert_eq!(enter().0, Err(429), "now there are three");
    let mut four = four.1;
    let refused = four.give_up().expect("it waited");
    assert_eq!((refused.status, gates.waiting("z")), (StatusCode::TOO_MANY_REQUESTS, 0));
}

#[test]
fn a_zone_that_observes_counts_answers_and_makes_nobody_wait() {
    let gates = zoned(&[("z", Zone { mode: ZoneMode::Observe, ..counting() })]);
    let mut all: Vec<_> = (0..5).map(|_| gates.enter(&Request::get("/"), Duration::ZERO)).collect();
    assert!(all.iter().all(|(verdict, passage)| verdict.is_ok() && passage.unsettled().is_none()));
    for (_, passage) in &mut all {
        passage.answered(StatusCode::UNAUTHORIZED, Duration::ZERO);
    }
    assert_eq!(gates.enter(&Request::get("/"), Duration::ZERO).0, Ok(()));
    assert_eq!(gates.counts("z"), ZoneCounts { passed: 5, would_reject: 1, ..ZoneCounts::default() });
    // Five have failed, and two were there: what had failed beyond does not count for later.
    assert!(gates.enter(&Request::get("/"), Duration::from_secs(60)).0.is_ok());
    assert_eq!(gates.counts("z").passed, 6);
}

#[test]
fn answers_say_what_is_left_when_they_go_out() {
    let draft = |zone: Zone| Zone { headers: Some(RateHeaders::Draft), ..zone };
    let text = |fields: &HeaderMap, name: &str| fields.get(name).map(|value| value.to_str().expect("text").to_owned());
    let gates = zoned(&[("all", draft(zone(&[ZoneKey::Ip]))), ("login", draft(counting()))]);
    let (_, mut passage) = gates.enter(&Request::get("/"), Duration::ZERO);
    let fields = passage.answered(StatusCode::OK, Duration::ZERO);
    assert_eq!(text(&fields, "ratelimit-policy").as_deref(), Some(r#""all";q=2;w=120, "login";q=2;w=120"#));
    // Each is told after it has counted: the one has spent, the other has given back.
    assert_eq!(text(&fields, "ratelimit").as_deref(), Some(r#""all";r=1;t=60, "login";r=2;t=0"#));
    let (_, mut passage) = gates.enter(&Request::get("/"), Duration::ZERO);
    passage.answered(StatusCode::UNAUTHORIZED, Duration::ZERO);
    let (verdict, mut refused) = gates.enter(&Request::get("/"), Duration::ZERO);
    assert_eq!(verdict, Err(429));
    let fields = refused.answered(StatusCode::TOO_MANY_REQUESTS, Duration::ZERO);
    assert_eq!(text(&fields, "ratelimit").as_deref(), Some(r#""all";r=0;t=120, "login";r=1;t=60"#));
}

#[test]
fn threads_that_name_the_same_zones_in_another_order_never_wait_for_each_other() {
    let metrics = Metrics::new();
    let fast = Zone { rate: Some(Pace::parse("1000r/s").expect("a pace")), burst: 1000, delay: 1000, ..zone(&[ZoneKey::Ip]) };
    let set = ZoneSet::of(&["a", "b", "c"].map(|text| (name(text), fast.clone())).into(), None, &metrics);
    let gates = |order: [&str; 3]| {
        let route = Route { zones: order.map(name).to_vec(), ..route() };
        GateRoute::new(&site(), &route, &set, &Arc::new(Screen::new()), &metrics)
    };
    let routes = [gates(["a", "b", "c"]), gates(["c", "b", "a"]), gates(["b", "c", "a"]), gates(["c", "a", "b"])];
    let here = GateSite::new(&site(), Some(8443), Demand::Nothing);
    std::thread::scope(|scope| {
        for route in &routes {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let _ = Request::get("/").ask(|ask| admit(ask, &here, route, Duration::ZERO, &mut Passage::default()));
                }
            });
        }
    });
    // Each was asked for all three, and admitted by all or by none.
    for text in ["a", "b", "c"] {
        assert_eq!(metrics.zone(&name(text)).read().passed, 1001);
    }
}

proptest! {
    #[test]
    fn a_refusal_spends_nothing_of_any_zone_and_whoever_comes_when_told_is_admitted(
        bursts in prop::collection::vec((0u32..6, any::<bool>()), 1..5), steps in prop::collection::vec((0u8..3, 0u64..90, any::<bool>()), 1..80),
    ) {
        // The oracle asks each zone alone, and only when all would admit.
        let names: Vec<String> = (0..bursts.len()).map(|n| format!("z{n}")).collect();
        let by_path = [ZoneKey::Path];
        let by_all = [ZoneKey::Ip];
        let specs: Vec<Zone> = bursts.iter().map(|(burst, path)| Zone { burst: *burst, delay: *burst, ..zone(if *path { &by_path } else { &by_all }) }).collect();
        let together = zoned(&names.iter().map(String::as_str).zip(specs.iter().cloned()).collect::<Vec<_>>());
        let every = Duration::from_secs(60);
        let mut full_at: HashMap<(usize, u8), Duration> = HashMap::new();
        let mut now = Duration::ZERO;
        let mut told = None;
        for (path, step, heeds) in steps {
            // Whoever heeds Retry-After comes for the same thing, and not before; with nobody else there, he is admitted.
            let (path, heeded) = match told.take().filter(|_| heeds) {
                Some((path, wait)) => {
                    now += wait;
                    (path, true)
                }
                None => {
                    now += Duration::from_secs(step);
                    (path, false)
                }
            };
            let cell = |at: usize| (at, if bursts[at].1 { path } else { 0 });
            let ahead = |at: usize, full_at: &HashMap<(usize, u8), Duration>| {
                full_at.get(&cell(at)).copied().unwrap_or_default().saturating_sub(now)
            };
            let fits = (0..specs.len()).all(|at| ahead(at, &full_at) <= every * bursts[at].0);
            let verdict = together.verdict(&Request::get(["/a", "/b", "/c"][path as usize]), now);
            prop_assert_eq!(verdict == Verdict::Pass, fits);
            prop_assert!(fits || !heeded);
            if let Some(seconds) = value(&verdict, "retry-after") {
                let wait = Duration::from_secs(seconds.parse().expect("seconds"));
                let longest = (0..specs.len()).map(|at| ahead(at, &full_at).saturating_sub(every * bursts[at].0)).max();
                prop_assert_eq!(Some(wait), longest);
                told = Some((path, wait));
            }
            if fits {
                for at in 0..specs.len() {
                    let after = now + ahead(at, &full_at) + every;
                    full_at.insert(cell(at), after);
                }
            }
        }
    }
}
