use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::AtomicBool,
};

use proptest::prelude::*;

use super::*;
use crate::plan::ban::Offence;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn v4(n: u32) -> Who {
    Who::of(Ipv4Addr::from_bits(0x0100_0000 + n).into()).expect("an address")
}

fn hour(_: u8) -> Duration {
    Duration::from_secs(3600)
}

const BAD_URI: Reason = Reason::Offence(Offence::BadUri);

#[test]
fn a_million_banned_cost_at_most_64_mb_and_all_are_found() {
    let cells = Cells::new();
    let who = |n: u32| match n % 2 {
        0 => v4(n.wrapping_mul(2_654_435_761) & 0x7FFF_FFFF),
        _ => Who::of(Ipv6Addr::from_bits(u128::from(n) << 64 | 0x2001 << 112).into()).expect("an address"),
    };
    for n in 0..1_000_000 {
        cells.ban(who(n), BAD_URI, NOW, hour);
    }
    assert_eq!(cells.in_force(), 1_000_000);
    assert!((0..1_000_000).all(|n| cells.find(who(n)).is_some_and(|sentence| sentence.reason == BAD_URI)));
    assert!((1_000_000..1_100_000).all(|n| cells.find(who(n)).is_none()));
    let memory = cells.memory();
    println!("{memory} bytes, {} for each", memory / 1_000_000);
    assert!(memory <= 64_000_000, "{memory}");
    // What is over is given back.
    let later = NOW + Duration::from_secs(3600 + u64::from(FORGET));
    (0..SHARDS).for_each(|_| cells.sweep(later));
    assert_eq!(cells.in_force(), 0);
    assert!(cells.memory() < 100_000, "{}", cells.memory());
}

#[test]
fn beyond_the_most_a_ban_gives_way_but_never_one_by_hand() {
    let cells = Cells::new();
    for n in 0..1_000 {
        cells.ban(v4(n), Reason::Hand, NOW, |_| Duration::from_secs(60));
    }
    for n in 1_000..u32::try_from(MOST + 200_000).expect("small") {
        cells.ban(v4(n), BAD_URI, NOW, hour);
        if n % 100_000 == 0 {
            assert!(cells.in_force() <= MOST);
        }
    }
    assert!(cells.in_force() <= MOST);
    assert!((0..1_000).all(|n| cells.find(v4(n)).is_some()));
    assert!(cells.memory() <= 64_000_000, "{}", cells.memory());
}

#[test]
fn times_are_counted_until_they_are_forgotten() {
    let cells = Cells::new();
    let after = |secs: u64| NOW + Duration::from_secs(secs);
    assert_eq!(cells.ban(v4(1), BAD_URI, NOW, hour).times, 1);
    assert_eq!(cells.ban(v4(1), BAD_URI, after(4000), hour).times, 2);
    (0..SHARDS).for_each(|_| cells.sweep(after(10_000)));
    assert_eq!(cells.in_force(), 0);
    let ended = 4000 + 3600;
    assert_eq!(cells.ban(v4(1), BAD_URI, after(ended + u64::from(FORGET) - 1), hour).times, 3);
    assert_eq!(cells.ban(v4(1), BAD_URI, after(ended + 2 * u64::from(FORGET) + 3600), hour).times, 1);
    cells.remove(v4(1));
    assert_eq!(cells.ban(v4(1), BAD_URI, after(ended), hour).times, 1, "who is freed has a clean slate");
}

#[test]
fn a_part_of_a_second_counts_whole() {
    let cells = Cells::new();
    let sentence = cells.ban(v4(1), BAD_URI, NOW + Duration::from_millis(300), |_| Duration::from_secs(2));
    assert!(sentence.holds(NOW + Duration::from_millis(2_299)));
    let sentence = cells.ban(v4(2), BAD_URI, NOW, |_| Duration::ZERO);
    assert!(sentence.holds(NOW) && !sentence.holds(NOW + Duration::from_secs(1)));
    cells.ban(v4(3), BAD_URI, Duration::MAX, |_| Duration::MAX);
}

#[test]
fn readers_see_every_ban_while_the_tables_grow_and_nobody_elses() {
    let cells = Cells::new();
    cells.ban(v4(7), BAD_URI, NOW, hour);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        assert!(cells.find(v4(7)).is_some());
                        assert!((3_000_000_000..3_000_000_100).all(|n| cells.find(v4(n)).is_none()));
                    }
                })
            })
            .collect();
        for n in 1_000..40_000 {
            cells.ban(v4(n), BAD_URI, NOW, hour);
            if n % 3 == 0 {
                cells.remove(v4(n));
            }
        }
        done.store(true, Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("no reader saw what is not"));
    });
}

#[derive(Clone, Debug)]
enum Deed {
    Ban(u32, u64),
    Remove(u32),
    Restore(u32, u32),
    Sweep,
    RetainOdd,
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0_u32..40, 0_u64..3_000).prop_map(|(n, secs)| Deed::Ban(n, secs)),
        2 => (0_u32..40).prop_map(Deed::Remove),
        2 => (0_u32..40, 0_u32..5_000).prop_map(|(n, secs)| Deed::Restore(n, secs)),
        2 => Just(Deed::Sweep),
        1 => Just(Deed::RetainOdd),
        3 => prop_oneof![0_u64..2_000, Just(u64::from(FORGET))].prop_map(Deed::Wait),
    ]
}

proptest! {
    /// The oracle is a map, and every one is put into the same few shards by being few.
    #[test]
    fn the_cells_say_what_a_map_says(deeds in prop::collection::vec(deed(), 0..300)) {
        let cells = Cells::new();
        let mut map: HashMap<u32, Sentence> = HashMap::new();
        let mut now = NOW;
        for deed in deeds {
            match deed {
                Deed::Ban(n, secs) => {
                    let sentence = cells.ban(v4(n), BAD_URI, now, |_| Duration::from_secs(secs));
                    let times = map.get(&n).filter(|before| !is_forgotten(before, seconds(now))).map_or(0, |before| before.times);
                    prop_assert_eq!(sentence.times, times.saturating_add(1));
                    prop_assert!(sentence.holds(now) && u64::from(sentence.until) <= now.as_secs() + secs.max(1));
                    map.insert(n, sentence);
                }
                Deed::Remove(n) => {
                    // What is forgotten may be there still, or not.
                    let removed = cells.remove(v4(n)).filter(|sentence| !is_forgotten(sentence, seconds(now)));
                    prop_assert_eq!(removed, map.remove(&n).filter(|sentence| !is_forgotten(sentence, seconds(now))));
                }
                Deed::Restore(n, secs) => {
                    let sentence = Sentence { since: seconds(now) - 1_000, until: seconds(now) - 500 + secs, times: 3, reason: Reason::Hand };
                    let better = map.get(&n).filter(|before| !is_forgotten(before, seconds(now))).is_none_or(|before| before.until < sentence.until);
                    prop_assert_eq!(cells.restore(v4(n), sentence, now), better);
                    if better {
                        map.insert(n, sentence);
                    }
                }
                Deed::Sweep => {
                    (0..SHARDS).for_each(|_| cells.sweep(now));
                    map.retain(|_, sentence| !is_forgotten(sentence, seconds(now)));
                    prop_assert_eq!(cells.in_force(), map.values().filter(|sentence| sentence.holds(now)).count());
                }
                Deed::RetainOdd => {
                    cells.retain(|who, _| who.0 % 2 == 1);
                    map.retain(|n, _| n % 2 == 1);
                }
                Deed::Wait(secs) => now += Duration::from_secs(secs),
            }
            for n in 0..40 {
                let held = |sentence: Option<Sentence>| sentence.filter(|sentence| sentence.holds(now));
                prop_assert_eq!(held(cells.find(v4(n))), held(map.get(&n).copied()), "{}", n);
            }
            let mut listed = 0;
            cells.each(|_, sentence| listed += usize::from(sentence.holds(now)));
            prop_assert_eq!(listed, map.values().filter(|sentence| sentence.holds(now)).count());
        }
    }
}
