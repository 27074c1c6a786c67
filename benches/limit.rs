//! What it costs to ask a zone.

use std::{net::Ipv4Addr, num::NonZeroU32, time::Duration};

use divan::{Bencher, black_box};
use gateway::{
    plan::{Zone, ZoneKey},
    rules::limit::{Key, Limiter},
    vocab::Pace,
};
use http::StatusCode;

fn main() {
    divan::main();
}

fn limiter(rate: &str) -> Limiter {
    Limiter::new(&Zone {
        key: ZoneKey::Ip,
        rate: Pace::parse(rate).expect("a pace"),
        burst: 20,
        status: StatusCode::TOO_MANY_REQUESTS,
        max_keys: NonZeroU32::new(100_000).expect("not zero"),
    })
}

fn ip(n: u32) -> Key<'static> {
    Key::Ip(Ipv4Addr::from_bits(n).into())
}

#[divan::bench(threads = [1, 2])]
fn one_key_admitted(bencher: Bencher) {
    let limiter = limiter("1000000000r/s");
    bencher.bench(|| limiter.admit(&ip(black_box(7)), black_box(Duration::from_secs(5))));
}

#[divan::bench]
fn one_key_refused(bencher: Bencher) {
    let limiter = limiter("1r/m");
    bencher.bench(|| limiter.admit(&ip(black_box(7)), black_box(Duration::from_secs(5))));
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
        limiter.admit(&ip(n.wrapping_mul(2_654_435_761) % 50_000), now)
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
        let _ = limiter.admit(&ip(n), now);
    }
    bencher.bench_local(|| {
        let (n, now) = next();
        limiter.admit(&ip(n), now)
    });
}

/// New keys all the time, on a zone full of busy cells: each looks in vain for an idle one.
#[divan::bench]
fn new_keys_in_a_busy_zone(bencher: Bencher) {
    let limiter = limiter("1r/d");
    let mut n = 0u32;
    for _ in 0..200_000 {
        n += 1;
        let _ = limiter.admit(&ip(n), Duration::ZERO);
    }
    bencher.bench_local(|| {
        n = n.wrapping_add(1);
        limiter.admit(&ip(n), Duration::ZERO)
    });
}

#[divan::bench]
fn header_key(bencher: Bencher) {
    let limiter = limiter("1000000000r/s");
    let key = "0123456789abcdef0123456789abcdef";
    bencher.bench(|| limiter.admit(&Key::Text(black_box(key.as_bytes())), black_box(Duration::from_secs(5))));
}
