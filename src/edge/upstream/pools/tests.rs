use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    super::{Choice, Lease, ServerId},
    *,
};
use crate::{
    edge::upstream::testing::{self, TestPlan},
    ipc::message::InstanceState,
    rules::{
        attempt::{Cause, Servers, Trust},
        balance::Refused,
    },
    telemetry::Metrics,
};

fn pick(pools: &Pools, name: &str, tried: &[ServerId]) -> Result<Lease, super::super::Unavailable> {
    pick_at(pools, name, tried, Duration::from_secs(100))
}

fn pick_at(pools: &Pools, name: &str, tried: &[ServerId], now: Duration) -> Result<Lease, super::super::Unavailable> {
    let name = UpstreamName::parse(name).expect("a name");
    pools.get(&name).expect("a pool").pick(now, tried, Trust::Any, &mut || 4)
}

fn verdict(pools: &Pools, name: &str, server: usize, verdict: Verdict) {
    pools.get(&UpstreamName::parse(name).expect("a name")).expect("a pool").servers()[server].vitals.set_verdict(verdict, None);
}

#[test]
fn a_probed_server_is_down_until_it_has_passed_once() {
    let plan = TestPlan::new().upstream("api", |api| api.health = Some(testing::health())).plan();
    let pools = Pools::build(&plan, None, &Metrics::new());
    let refused = pick(&pools, "api", &[]).expect_err("none has passed");
    assert_eq!((refused.why, refused.retry_after), (Refused::Down, Duration::from_secs(10)));
    verdict(&pools, "api", 1, Verdict::Up);
    assert_eq!(pick(&pools, "api", &[]).expect("it passed").label(), "127.0.0.1:2");
}

#[test]
fn what_a_reload_does_not_change_is_carried_over_as_it_is() {
    let metrics = Metrics::new();
    let plan = TestPlan::new().upstream("api", |api| api.health = Some(testing::health())).upstream("other", |_| {});
    let old = Pools::build(&plan.clone().plan(), None, &metrics);
    verdict(&old, "api", 0, Verdict::Up);
    let lease = pick(&old, "api", &[]).expect("up");
    // Another weight: the pool is new, its servers are known.
    let new =
        Pools::build(&plan.clone().upstream("api", |api| api.servers[0].weight = std::num::NonZeroU16::MAX).plan(), Some(&old), &metrics);
    let name = |name| UpstreamName::parse(name).expect("a name");
    assert!(Arc::ptr_eq(old.get(&name("other")).expect("there"), new.get(&name("other")).expect("there")));
    assert!(!Arc::ptr_eq(old.get(&name("api")).expect("there"), new.get(&name("api")).expect("there")));
    assert_eq!(new.get(&name("api")).expect("there").servers()[0].in_flight(), 1, "a request of before counts on");
    assert_eq!(pick(&new, "api", &[]).expect("still up").label(), lease.label());
    // Another probe: what was up stays up until the new one says otherwise, what was down is new.
    verdict(&old, "api", 1, Verdict::Down);
    let new = Pools::build(&plan.upstream("api", |api| api.health.as_mut().expect("set").interval *= 2).plan(), Some(&new), &metrics);
    let servers = new.get(&name("api")).expect("there").servers();
    assert_eq!((servers[0].vitals.verdict(), servers[1].vitals.verdict()), (Verdict::Up, Verdict::New));
}

#[test]
fn failures_in_a_row_eject_a_server_but_never_the_last_one() {
    let pools = Pools::build(&TestPlan::new().upstream("api", |_| {}).plan(), None, &Metrics::new());
    let now = Duration::from_secs(50);
    let fail = |label: &str, now| {
        for _ in 0..100 {
            let lease = pick_at(&pools, "api", &[], now).expect("one");
            if lease.label() == label {
                let until = lease.failed(now, Cause::Connect, crate::edge::upstream::Asked::default());
                return until
                    .into_iter()
                    .for_each(|until| pools.get(&UpstreamName::parse("api").expect("a name")).expect("one").eject(lease.id(), now, until));
            }
            lease.answered(now, 200, Duration::ZERO, crate::edge::upstream::Asked::default());
        }
        panic!("{label} is never picked");
    };
    (0..3).for_each(|_| fail("127.0.0.1:1", now));
    for _ in 0..10 {
        assert_eq!(pick_at(&pools, "api", &[], now).expect("the other").label(), "127.0.0.1:2");
    }
    (0..3).for_each(|_| fail("127.0.0.1:2", now));
    let name = UpstreamName::parse("api").expect("a name");
    let pool = pools.get(&name).expect("there");
    let states = || pool.view(now).servers.iter().map(|server| server.state).collect::<Vec<_>>();
    assert_eq!((pool.view(now).panic, states()), (false, vec!["ejected", "up"]), "the last one serves on");
    let later = now + Duration::from_secs(10);
    assert!(pool.view(later).servers.iter().all(|server| server.state == "up"), "ejection is over");
}

#[test]
fn a_tried_server_is_not_picked_again_and_a_full_one_refuses() {
    let plan = TestPlan::new().upstream("api", |api| {
        api.servers.truncate(1);
        api.servers[0].max_conns = NonZeroU32::new(2);
    });
    let pools = Pools::build(&plan.plan(), None, &Metrics::new());
    let first = pick(&pools, "api", &[]).expect("free");
    assert_eq!(pick(&pools, "api", &[first.id()]).expect_err("tried").why, Refused::Tried);
    let second = pick(&pools, "api", &[]).expect("free");
    assert_eq!(pick(&pools, "api", &[]).expect_err("two are on it").why, Refused::Full);
    drop(second);
    assert!(pick(&pools, "api", &[]).is_ok());
}

#[test]
fn a_choice_holds_one_server_at_a_time_and_the_budget_is_the_pools() {
    let pools = Pools::build(&TestPlan::new().upstream("api", |_| {}).plan(), None, &Metrics::new());
    let pool = pools.get(&UpstreamName::parse("api").expect("a name")).expect("there");
    let in_flight = || pool.servers().iter().map(|server| server.in_flight()).sum::<u32>();
    let mut choice = Choice::new(pool, &pools);
    let first = choice.pick(&[], Trust::Any).expect("two are up");
    let second = choice.pick(&[first.id], Trust::Any).expect("the other");
    assert_eq!(in_flight(), 1, "the first was given back");
    assert_eq!(choice.again(first.id), Some(first));
    assert_eq!(choice.pick(&[first.id, second.id], Trust::Any), None);
    assert_eq!(choice.made().1.map(|none| none.why), Some(Refused::Tried));
    assert_eq!(in_flight(), 0);
    let mut choice = Choice::new(pool, &pools);
    assert_eq!((0..200).filter(|_| choice.spend()).count(), 100, "the budget of a pool that has had no requests");
}

/// A table that makes it ready and puts it on trial makes both known at once: not a request finds it up and proven in between.
#[test]
fn a_server_that_becomes_ready_on_trial_is_on_trial_from_its_first_request() {
    let metrics = Metrics::new();
    let pools = Pools::build(&TestPlan::new().app("web", 1).plan(), None, &metrics);
    pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Starting)]), &metrics);
    let mut table = testing::table(&[("web", 0, 1, InstanceState::Ready)]);
    table.instances[0].duty = Duty::OnTrial;
    // As far as the vitals: the servers are still those of the table before.
    pools.instances().take(&table);
    assert!(pick(&pools, "web", &[]).expect("ready").is_on_trial());
}

#[test]
fn only_ready_instances_take_requests() {
    let metrics = Metrics::new();
    let pools = Pools::build(&TestPlan::new().app("web", 2).plan(), None, &metrics);
    let refused = pick(&pools, "web", &[]).expect_err("nothing runs");
    assert_eq!((refused.why, refused.retry_after), (Refused::Down, Duration::from_secs(1)));
    pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Ready), ("web", 1, 1, InstanceState::Starting)]), &metrics);
    for _ in 0..4 {
        assert_eq!(pick(&pools, "web", &[]).expect("one is ready").label(), "web.0");
    }
    let before = pick(&pools, "web", &[]).expect("one is ready").group();
    pools.apps(&testing::table(&[("web", 0, 2, InstanceState::Ready)]), &metrics);
    assert_ne!(pick(&pools, "web", &[]).expect("ready").group(), before, "connections to a process that is gone are not used again");
    // A reload builds the pool anew: the table is known already.
    let plan = TestPlan::new().app("web", 3).plan();
    assert!(pick(&Pools::build(&plan, Some(&pools), &metrics), "web", &[]).is_ok());
}

#[tokio::test]
async fn draining_waits_for_exactly_the_requests_that_are_on_it() {
    let metrics = Metrics::new();
    let plan = TestPlan::new().app("web", 1).plan();
    let pools = Pools::build(&plan, None, &metrics);
    let (id, incarnation) = (InstanceId { app: AppName::parse("web").expect("a name"), n: 0 }, Incarnation(7));
    pools.apps(&testing::table(&[("web", 0, 7, InstanceState::Ready)]), &metrics);
    let leases = [pick(&pools, "web", &[]).expect("ready"), pick(&pools, "web", &[]).expect("ready")];
    assert_eq!(pools.in_flight(&id, incarnation), 2);
    assert_eq!(pools.drained(&id, incarnation, Duration::from_millis(10)).await, 2, "the deadline");
    assert!(leases[0].draining());
    assert_eq!(pick(&pools, "web", &[]).expect_err("closed").why, Refused::Down);
    // The app leaves the plan and the table while its requests go on.
    pools.apps(&testing::table(&[]), &metrics);
    let pools = Pools::build(&TestPlan::new().plan(), Some(&pools), &metrics);
    assert_eq!(pools.in_flight(&id, incarnation), 2);
    let mut drained = tokio::task::JoinSet::new();
    drained.spawn(pools.drained(&id, incarnation, Duration::from_secs(60)));
    tokio::task::yield_now().await;
    drop(leases);
    assert_eq!(drained.join_next().await.expect("one").expect("no panic"), 0);
    assert_eq!(pools.in_flight(&id, incarnation), 0);
    assert_eq!(pools.drained(&id, Incarnation(8), Duration::from_secs(60)).await, 0, "never heard of");
}

#[test]
fn no_request_slips_onto_an_instance_that_was_closed() {
    for _ in 0..50 {
        let metrics = Metrics::new();
        let pools = Pools::build(&TestPlan::new().app("web", 1).plan(), None, &metrics);
        let (id, incarnation) = (InstanceId { app: AppName::parse("web").expect("a name"), n: 0 }, Incarnation(1));
        pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Ready)]), &metrics);
        let after_close = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Ok(lease) = pick(&pools, "web", &[]) {
                        drop(lease)
                    }
                });
            }
            scope.spawn(|| {
                pools.apps(&testing::table(&[("web", 0, 1, InstanceState::Draining)]), &metrics);
                let known = pools.instances.find(&id, incarnation).expect("known");
                while known.vitals.in_flight() > 0 {
                    std::hint::spin_loop();
                }
                for _ in 0..1000 {
                    after_close.fetch_add(known.vitals.in_flight(), Ordering::Relaxed);
                }
            });
        });
        assert_eq!(after_close.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn max_conns_holds_over_all_threads() {
    let plan = TestPlan::new().upstream("api", |api| api.servers.iter_mut().for_each(|server| server.max_conns = NonZeroU32::new(3)));
    let pools = Pools::build(&plan.plan(), None, &Metrics::new());
    let most = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3000 {
                    let leases: Vec<_> = (0..3).filter_map(|_| pick(&pools, "api", &[]).ok()).collect();
                    for server in pools.get(&UpstreamName::parse("api").expect("a name")).expect("there").servers() {
                        most.fetch_max(server.in_flight(), Ordering::Relaxed);
                    }
                    drop(leases);
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), 3);
}
