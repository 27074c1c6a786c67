//! What it costs to ask whether a client is banned, and to count what he did.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use divan::{Bencher, black_box};
use gateway::{
    plan::ban::Offence,
    rules::jail::{Jail, Reason, Rule, Sentence, Who},
};

fn main() {
    divan::main();
}

const NOW: Duration = Duration::from_secs(1_800_000_000);
const MILLION: u32 = 1_000_000;

/// Half of them IPv4, half IPv6, spread over all that clients may have.
fn who(n: u32) -> Who {
    let spread = n.wrapping_mul(2_654_435_761);
    let ip = if n.is_multiple_of(2) {
        // `n` is even: an odd one is neither that of another nor the unspecified address; below 128.0.0.0 none is multicast.
        Ipv4Addr::from_bits(spread & 0x7FFF_FFFF | 1).into()
    } else {
        Ipv6Addr::from_bits(0x2001 << 112 | u128::from(spread) << 64).into()
    };
    Who::of(ip).expect("a client's address")
}

fn with(banned: u32) -> Jail {
    let jail = Jail::new();
    let sentence = Sentence { since: 1_799_999_000, until: 1_900_000_000, times: 1, reason: Reason::Offence(Offence::BadUri) };
    for n in 0..banned {
        assert!(jail.restore(who(n), sentence, NOW));
    }
    jail
}

/// Nobody is banned: what every request pays.
#[divan::bench]
fn nobody(bencher: Bencher) {
    let jail = with(0);
    bencher.bench(|| jail.held(black_box(who(7)), || NOW));
}

/// Each look-up for another client, so that the caches are no help; the figure includes the making of an address, some 2 ns.
#[divan::bench(args = [1, 1_000, MILLION])]
fn one_who_is_banned(bencher: Bencher, banned: u32) {
    let jail = with(banned);
    let mut n = 0_u32;
    bencher.bench_local(|| {
        n = n.wrapping_add(611_953) % banned;
        jail.held(black_box(who(n)), || NOW).expect("banned")
    });
}

#[divan::bench(args = [1, 1_000, MILLION])]
fn one_who_is_not(bencher: Bencher, banned: u32) {
    let jail = with(banned);
    let mut n = 0_u32;
    bencher.bench_local(|| {
        n = n.wrapping_add(611_953) % (2 * MILLION);
        jail.held(black_box(who(2 * MILLION + n)), || NOW)
    });
}

#[divan::bench(threads = [2])]
fn one_who_is_not_while_another_thread_asks(bencher: Bencher) {
    let jail = with(MILLION);
    bencher.bench(|| jail.held(black_box(who(2 * MILLION + 7)), || NOW));
}

/// A point for somebody who has some.
#[divan::bench]
fn a_point(bencher: Bencher) {
    let jail = with(0);
    let rule = Rule { max: u32::MAX, find_time: Duration::from_secs(600), ban_time: Duration::from_secs(3600), grow: true };
    bencher.bench_local(|| jail.strike(black_box(who(7)), Offence::Status(404), 1, &rule, NOW));
}

/// Points for everybody in turn, on a docket that is full: each opens a file in the place of another.
#[divan::bench]
fn a_point_for_a_newcomer_in_a_full_docket(bencher: Bencher) {
    let jail = with(0);
    let rule = Rule { max: u32::MAX, find_time: Duration::from_secs(600), ban_time: Duration::from_secs(3600), grow: true };
    let mut n = 0_u32;
    let mut next = move || {
        n = n.wrapping_add(1);
        n
    };
    for _ in 0..200_000 {
        jail.strike(who(next()), Offence::Status(404), 1, &rule, NOW);
    }
    bencher.bench_local(|| jail.strike(who(next()), Offence::Status(404), 1, &rule, NOW));
}

/// A million bans one after the other, the tables growing beneath them.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn a_million_bans(bencher: Bencher) {
    bencher.bench_local(|| with(MILLION));
}
