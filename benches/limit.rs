//! What it costs to ask a zone.

use std::{net::Ipv4Addr, num::NonZeroU32, time::Duration};

use divan::{Bencher, black_box};
use gateway::{
    plan::{Zone, ZoneKey, ZoneMode},
    rules::limit::{Judgement, Limiter, Print},
    vocab::Pace,
};
use http::StatusCode;

fn main() {
    divan::main();
}

fn limiter(rate: &str) -> Limiter {
    Limiter::new(&Zone {
        key: vec![ZoneKey::Ip],
        rate: Some(Pace::parse(rate).expect("a pace")),
        burst: 20,
        delay: 20,
        concurrent: None,
        status: StatusCode::TOO_MANY_REQUESTS,
        count: vec![],
        headers: None,
        mode: ZoneMode::Enforce,
        max_keys: NonZeroU32::new(100_000).expect("not zero"),
    })
}

fn ip(limiter: &Limiter, n: u32) -> Print {
    limiter.key().ip(Ipv4Addr::from_bits(n).into()).finish()
}

/// What the gate does for a zone.
fn admit(limiter: &Limiter, print: Print, now: Duration) -> bool {
    let mut asked = limiter.hold(print, now);
    let admitted = matches!(asked.judge(), Judgement::Admit(_));
    if admitted {
        black_box(asked.take());
    }
    admitted
}

#[divan::bench(threads = [1, 2])]
fn one_key_admitted(bencher: Bencher) {
    let limiter = limiter("1000000000r/s");
    bencher.bench(|| admit(&limiter, ip(&limiter, black_box(7)), black_box(Duration::from_secs(5))));
}

#[divan::bench]
fn one_key_refused(bencher: Bencher) {
    let limiter = limiter("1r/m");
    bencher.bench(|| admit(&limiter, ip(&limiter, black_box(7)), black_box(Duration::from_secs(5))));
}

/// 50,000 keys in turn: every look-up misses the caches.
#[divan::bench]
fn many_keys(bencher: Bencher) {
    let limiter = limiter("10r/s");
    let mut n = 0u32;
    let mut now = Duration::ZERO;
    bencher.bench_local(|| {
        n = n.wrapping_add(1);
        now += Duration::from_micros(3);
        admit(&limiter, ip(&limiter, n.wrapping_mul(2_654_435_761) % 50_000), now)
    });
}

/// New keys all the time, on a zone full of idle cells.
#[divan::bench]
fn new_keys_in_a_full_zone(bencher: Bencher) {
    let limiter = limiter("1000000r/s");
    let mut n = 0u32;
    let mut now = Duration::ZERO;
    let mut next = move || {
        n = n.wrapping_add(1);
        now += Duration::from_micros(3);
        (n, now)
    };
    for _ in 0..200_000 {
        let (n, now) = next();
        let _ = admit(&limiter, ip(&limiter, n), now);
    }
    bencher.bench_local(|| {
        let (n, now) = next();
        admit(&limiter, ip(&limiter, n), now)
    });
}

/// New keys all the time, on a zone full of busy cells: each looks in vain for an idle one.
#[divan::bench]
fn new_keys_in_a_busy_zone(bencher: Bencher) {
    let limiter = limiter("1r/d");
    let mut n = 0u32;
    for _ in 0..200_000 {
        n += 1;
        let _ = admit(&limiter, ip(&limiter, n), Duration::ZERO);
    }
    bencher.bench_local(|| {
        n = n.wrapping_add(1);
        admit(&limiter, ip(&limiter, n), Duration::ZERO)
    });
}

#[divan::bench]
fn header_key(bencher: Bencher) {
    let limiter = limiter("1000000000r/s");
    let key = "0123456789abcdef0123456789abcdef";
    bencher.bench(|| admit(&limiter, limiter.key().text(black_box(key.as_bytes())).finish(), black_box(Duration::from_secs(5))));
}
