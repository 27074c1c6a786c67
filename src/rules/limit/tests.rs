//! The laws of a zone.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    plan::{Zone, ZoneKey, ZoneMode, testing},
    vocab::Pace,
};

mod count;
mod crowd;
mod turn;

fn zone(rate: &str, burst: u32, max_keys: u32) -> Zone {
    Zone { rate: Some(testing::pace(rate)), burst, delay: burst, max_keys: NonZeroU32::new(max_keys).expect("not zero"), ..testing::zone() }
}

/// At most so many at once, at any pace.
fn crowd(concurrent: u32, max_keys: u32) -> Zone {
    Zone { rate: None, concurrent: NonZeroU32::new(concurrent), ..zone("1r/s", 0, max_keys) }
}

fn limiter(rate: &str, burst: u32, max_keys: u32) -> Limiter {
    Limiter::new(&zone(rate, burst, max_keys))
}

#[derive(Clone, Copy)]
enum Key {
    Ip(IpAddr),
    Text(&'static [u8]),
}

fn ip(n: u32) -> Key {
    Key::Ip(Ipv4Addr::from_bits(n).into())
}

impl Limiter {
    fn print(&self, key: &Key) -> Print {
        match key {
            Key::Ip(ip) => self.key().ip(*ip).finish(),
            Key::Text(text) => self.key().text(text).finish(),
        }
    }

    fn ask(&self, key: &Key, now: Duration) -> Result<Ticket, Option<Duration>> {
        let mut asked = self.hold(self.print(key), now);
        match asked.judge() {
            Judgement::Admit(_) => Ok(asked.take()),
            Judgement::Refuse(wait) => Err(wait),
            Judgement::Unsettled => Err(None),
        }
    }

    /// When the request goes on, if it is admitted.
    fn turn(&self, key: &Key, now: Duration) -> Option<(Duration, Ticket)> {
        let mut asked = self.hold(self.print(key), now);
        match asked.judge() {
            Judgement::Admit(wait) => Some((now + wait, asked.take())),
            Judgement::Refuse(_) | Judgement::Unsettled => None,
        }
    }

    /// Of a zone that limits the pace alone.
    fn admit(&self, key: &Key, now: Duration) -> Result<(), Duration> {
        self.ask(key, now).map(drop).map_err(|wait| wait.expect("a pace says when"))
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How many of `n` requests at one time are admitted.
fn admitted(limiter: &Limiter, key: &Key, n: usize, now: Duration) -> usize {
    (0..n).filter(|_| limiter.admit(key, now).is_ok()).count()
}

#[test]
fn ten_a_second_with_a_burst_of_twenty_admits_twenty_one_at_once() {
    let limiter = limiter("10r/s", 20, 1000);
    assert_eq!(admitted(&limiter, &ip(1), 100, ms(5)), 21);
    assert_eq!(limiter.admit(&ip(1), ms(5)), Err(ms(100)));
    assert_eq!(admitted(&limiter, &ip(1), 100, ms(1005)), 10);
    assert_eq!(admitted(&limiter, &ip(2), 100, ms(1005)), 21);
    assert_eq!(admitted(&limiter, &ip(1), 100, ms(100_000)), 21);
}

#[test]
fn without_a_burst_requests_come_one_by_one() {
    let limiter = limiter("1r/s", 0, 10);
    assert_eq!(admitted(&limiter, &ip(1), 5, ms(0)), 1);
    assert_eq!(limiter.admit(&ip(1), ms(400)), Err(ms(600)));
}

#[test]
fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_ipv4() {
    let limiter = limiter("1r/s", 0, 10);
    let v6 = |text: &str| Key::Ip(text.parse::<Ipv6Addr>().expect("an address").into());
    assert!(limiter.admit(&v6("2001:db8:1:2::1"), ms(0)).is_ok());
    assert!(limiter.admit(&v6("2001:db8:1:2:ffff::9"), ms(0)).is_err());
    assert!(limiter.admit(&v6("2001:db8:1:3::1"), ms(0)).is_ok());
    assert!(limiter.admit(&v6("::ffff:1.2.3.4"), ms(0)).is_ok());
    assert!(limiter.admit(&Key::Ip(Ipv4Addr::new(1, 2, 3, 4).into()), ms(0)).is_err());
    assert!(limiter.admit(&Key::Text(b"1.2.3.4"), ms(0)).is_ok());
    assert!(limiter.admit(&Key::Text(b"1.2.3.4"), ms(0)).is_err());
}

#[test]
fn a_million_keys_stay_under_the_cap_and_its_memory() {
    const CAP: u32 = 100_000;
    let limiter = limiter("1r/m", 5, CAP);
    for n in 0..1_000_000 {
        let _ = limiter.admit(&ip(n), ms(u64::from(n) / 100));
        if n % 50_000 == 0 {
            assert!(limiter.keys() <= CAP as usize);
        }
    }
    assert_eq!(limiter.keys(), CAP as usize);
    let memory = limiter.memory();
    println!("{memory} bytes, {} a key", memory / CAP as usize);
    assert!(memory <= CAP as usize * BYTES_PER_KEY, "{memory}");
}

#[test]
fn an_idle_key_makes_room_and_a_busy_one_does_not() {
    let limiter = limiter("1r/s", 1, 4);
    for n in 0..4 {
        assert_eq!(admitted(&limiter, &ip(n), 5, ms(0)), 2);
    }
    // Full of busy keys: a newcomer is served at the pace of one key, and nobody's cell is given up for it.
    assert_eq!(admitted(&limiter, &ip(9), 5, ms(0)), 2);
    for n in 0..4 {
        assert_eq!(admitted(&limiter, &ip(n), 5, ms(0)), 0, "{n}");
    }
    assert_eq!(limiter.keys(), 4);
    // Two seconds later all are idle, and a newcomer takes one over.
    assert_eq!(admitted(&limiter, &ip(8), 5, ms(2000)), 2);
    assert_eq!(limiter.keys(), 4);
}

#[test]
fn a_pace_no_person_means_does_not_overflow() {
    for (rate, burst) in [("1r/1000000y", u32::MAX), ("1r/1y", u32::MAX), ("4294967295r/4295s", u32::MAX), ("1000000r/1ms", u32::MAX)] {
        let limiter = limiter(rate, burst, 1);
        assert_eq!(limiter.admit(&ip(1), ms(0)), Ok(()), "{rate} {burst}");
        for now in [ms(0), ms(1), Duration::from_secs(3_000_000_000)] {
            let _ = limiter.admit(&ip(1), now);
        }
    }
}

/// Eight threads ask for one key, 80,000 times in two seconds of a clock that they share; how often `done` says yes.
fn hammered(done: impl Fn(Duration) -> bool + Sync) -> u64 {
    let (clock, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    if done(Duration::from_micros(clock.fetch_add(25, Ordering::SeqCst))) {
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn eight_threads_on_one_key_are_admitted_what_one_would_be() {
    let expected = 2000 + 50 + 1;
    let within = expected - expected / 100..=expected;
    let spec = zone("1000r/s", 50, 1000);
    let limiter = Limiter::new(&spec);
    let passed = hammered(|now| limiter.admit(&ip(7), now).is_ok());
    assert!(within.contains(&passed), "{passed} of {expected}");
    // Queueing admits as many, and they go on at the pace: at no two moments within a turn.
    let queueing = Limiter::new(&Zone { delay: 0, ..spec.clone() });
    let starts = std::sync::Mutex::new(Vec::new());
    let passed = hammered(|now| queueing.turn(&ip(7), now).map(|(start, _)| starts.lock().expect("whole").push(start)).is_some());
    assert!(within.contains(&passed), "{passed} of {expected}");
    let mut starts = starts.into_inner().expect("whole");
    starts.sort_unstable();
    assert!(starts.windows(2).all(|two| two[1] - two[0] >= ms(1)));
    // Where answers spend, every second of them not.
    let counting = Limiter::new(&Zone { count: vec![StatusCode::UNAUTHORIZED], ..spec.clone() });
    let turn = AtomicU64::new(0);
    let spent = hammered(|now| {
        let Ok(mut ticket) = counting.ask(&ip(7), now) else { return false };
        let spends = turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        counting.settle(&mut ticket, now, spends);
        spends
    });
    assert!(within.contains(&spent), "{spent} of {expected}");
    // At once: never more, and all is there afterwards.
    let crowd = Limiter::new(&crowd(5, 1000));
    let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
    hammered(|at| {
        let Ok(ticket) = crowd.ask(&ip(7), at) else { return false };
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        now.fetch_sub(1, Ordering::SeqCst);
        crowd.leave(&ticket);
        true
    });
    assert!(most.into_inner() <= 5);
    assert_eq!(crowd.standing(crowd.print(&ip(7)), ms(0)).at_once, Some((5, 5)));
}

/// Only some answers spend.
fn counting(rate: &str, burst: u32) -> Zone {
    Zone { count: vec![StatusCode::UNAUTHORIZED], ..zone(rate, burst, 10) }
}

#[test]
fn what_is_left_is_what_will_be_admitted() {
    let limiter = Limiter::new(&Zone { concurrent: NonZeroU32::new(30), ..zone("10r/s", 20, 10) });
    let standing = |now| limiter.standing(limiter.print(&ip(1)), now);
    let whole = Budget { limit: 21, left: 21, back: ms(0), whole: ms(2100) };
    assert_eq!(standing(ms(0)), Standing { pace: Some(whole), at_once: Some((30, 30)) });
    let _held: Vec<_> = (0..5).map(|_| limiter.ask(&ip(1), ms(0)).expect("room")).collect();
    assert_eq!(standing(ms(0)), Standing { pace: Some(Budget { left: 16, back: ms(500), ..whole }), at_once: Some((30, 25)) });
    assert_eq!(standing(ms(450)).pace, Some(Budget { left: 20, back: ms(50), ..whole }));
    assert_eq!(admitted(&limiter, &ip(1), 100, ms(450)), 20);
    assert_eq!(standing(ms(450)).pace.map(|pace| pace.left), Some(0));
    assert_eq!(limiter.keys(), 1, "to look makes no cell");
}

#[test]
fn another_limit_at_once_keeps_the_budget_and_another_rate_does_not() {
    let before = zone("1r/m", 1, 16);
    let old = Limiter::new(&before);
    assert_eq!(admitted(&old, &ip(1), 5, ms(0)), 2);
    let kept = [
        before.clone(),
        Zone { concurrent: NonZeroU32::new(5), ..before.clone() },
        Zone { status: StatusCode::SERVICE_UNAVAILABLE, ..before.clone() },
        Zone { mode: ZoneMode::Observe, ..before.clone() },
        Zone { delay: 0, ..before.clone() },
        Zone { max_keys: NonZeroU32::new(100_000).expect("not zero"), ..before.clone() },
    ];
    for now in kept {
        assert!(Limiter::succeed(&now, &old, &before).ask(&ip(1), ms(1)).is_err(), "{now:?}");
    }
    let anew = [
        Zone { rate: Some(Pace::parse("2r/m").expect("a pace")), ..before.clone() },
        Zone { burst: 3, delay: 3, ..before.clone() },
        Zone { key: vec![ZoneKey::Ip, ZoneKey::Path], ..before.clone() },
    ];
    for now in anew {
        assert!(Limiter::succeed(&now, &old, &before).ask(&ip(1), ms(1)).is_ok(), "{now:?}");
    }
}

#[test]
fn a_reload_that_lowers_the_bound_forgets_the_idle_alone() {
    let before = zone("1r/s", 0, 100);
    let old = Limiter::new(&before);
    for n in 0..100 {
        assert!(old.admit(&ip(n), ms(if n < 40 { 0 } else { 900 })).is_ok());
    }
    let limiter = Limiter::succeed(&Zone { max_keys: NonZeroU32::new(20).expect("not zero"), ..before.clone() }, &old, &before);
    // From 1 s to 1.9 s forty cells are idle, and sixty are not.
    for n in 1000..1100 {
        let _ = limiter.admit(&ip(n), ms(1500));
    }
    assert_eq!(limiter.keys(), 60);
    for n in 40..100 {
        assert!(limiter.admit(&ip(n), ms(1500)).is_err(), "{n} got a budget anew");
    }
    for n in 2000..2100 {
        let _ = limiter.admit(&ip(n), ms(5000));
    }
    assert_eq!(limiter.keys(), 20);
}

proptest! {
    #[test]
    fn refused_with_a_wait_means_refused_before_and_admitted_then(
        count in 1u32..2000, per in 1u64..100_000, burst in 0u32..30, steps in prop::collection::vec(0u64..3_000, 1..60), early in 0.0f64..1.0,
    ) {
        let pace = Pace::new(count, ms(per)).expect("a pace");
        let spec = Zone { rate: Some(pace), ..zone("1r/s", burst, 10) };
        let limiter = Limiter::new(&spec);
        let mut now = ms(0);
        for step in steps {
            now += ms(step);
            if let Err(wait) = limiter.admit(&ip(1), now) {
                prop_assert!(wait > Duration::ZERO && wait <= pace.every());
                let before = wait.mul_f64(early).min(wait - Duration::from_nanos(1));
                prop_assert!(limiter.admit(&ip(1), now + before).is_err());
                prop_assert!(limiter.admit(&ip(1), now + wait).is_ok());
                now += wait;
            }
        }
    }

    #[test]
    fn one_key_never_sees_another_while_there_is_room(steps in prop::collection::vec((0u32..20, 0u64..500), 1..200)) {
        let together = limiter("5r/s", 3, 20);
        let mut alone: Vec<Limiter> = (0..20).map(|_| limiter("5r/s", 3, 1)).collect();
        let mut now = ms(0);
        for (key, step) in steps {
            now += ms(step);
            prop_assert_eq!(together.admit(&ip(key), now), alone[key as usize].admit(&ip(key), now));
        }
        alone.clear();
    }

    #[test]
    fn however_full_the_zone_no_key_gets_more_than_its_pace(steps in prop::collection::vec((0u32..40, 0u64..400), 1..400)) {
        // Room for three of forty: keys move between cells and the overflow all the time.
        let limiter = limiter("2r/s", 2, 3);
        let mut admitted: HashMap<u32, Vec<Duration>> = HashMap::new();
        let mut now = ms(0);
        for (key, step) in steps {
            now += ms(step / 8);
            if limiter.admit(&ip(key), now).is_ok() {
                admitted.entry(key).or_default().push(now);
            }
            prop_assert!(limiter.keys() <= 3);
        }
        for times in admitted.values() {
            for (from, start) in times.iter().enumerate() {
                for (n, end) in times[from..].iter().enumerate() {
                    let most = 2.0 * (*end - *start).as_secs_f64() + 2.0 + 1.0;
                    prop_assert!((n + 1) as f64 <= most + 1e-6);
                }
            }
        }
    }
}
