use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn who(n: u32) -> Who {
    Who::of(Ipv4Addr::from_bits(0x0100_0000 + n).into()).expect("an address")
}

fn rule(max: u32, find: u64, ban: u64, grow: bool) -> Rule {
    Rule { max, find_time: Duration::from_secs(find), ban_time: Duration::from_secs(ban), grow }
}

const fn after(secs: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + secs)
}

#[test]
fn five_times_two_points_are_a_ban_and_others_are_not_touched() {
    let (jail, rule) = (Jail::new(), rule(10, 600, 3600, true));
    for _ in 0..4 {
        assert_eq!(jail.strike(who(1), Offence::BadUri, 2, &rule, NOW), None);
    }
    assert!(jail.is_empty() && jail.held(who(1), || NOW).is_none());
    let (sentence, points) = jail.strike(who(1), Offence::BadUri, 2, &rule, NOW).expect("a ban");
    assert_eq!((sentence.until - sentence.since, sentence.times, points), (3600, 1, 10));
    assert_eq!(sentence.reason.to_string(), "bad-uri");
    assert_eq!(jail.held(who(1), || NOW), Some(sentence));
    assert_eq!(jail.held(who(2), || NOW), None);
    assert_eq!(jail.held(who(1), || after(3600)), None);
}

#[test]
fn points_older_than_find_time_do_not_count() {
    let (jail, rule) = (Jail::new(), rule(3, 600, 60, false));
    for n in 0..100 {
        // One each five minutes and a half: two within ten minutes.
        assert_eq!(jail.strike(who(1), Offence::Status(404), 1, &rule, after(n * 330)), None);
    }
}

#[test]
fn each_ban_is_twice_as_long_up_to_seven_days() {
    let (jail, rule) = (Jail::new(), rule(1, 600, 3600, true));
    let mut at = 0;
    let hours = [1, 2, 4, 8, 16, 32, 64, 128, 168, 168, 168];
    for (n, hours) in hours.into_iter().enumerate() {
        let (sentence, _) = jail.strike(who(1), Offence::Zone, 2, &rule, after(at)).expect("a ban");
        assert_eq!(sentence.until - sentence.since, hours * 3600, "{n}");
        assert_eq!(usize::from(sentence.times), n + 1);
        assert_eq!(jail.strike(who(1), Offence::Zone, 2, &rule, after(at + 1)), None, "who is banned collects nothing");
        at += u64::from(hours) * 3600;
    }
    for times in [0, 1, 200, 255] {
        assert!(rule.lasts(times) <= LONGEST);
        assert_eq!(super::Rule { ban_time: LONGEST * 3, ..rule.clone() }.lasts(times), LONGEST * 3, "a longer one stays as it is");
    }
}

#[test]
fn who_is_freed_has_neither_points_nor_a_past() {
    let (jail, rule) = (Jail::new(), rule(3, 600, 3600, true));
    let strike = || jail.strike(who(1), Offence::Status(404), 1, &rule, NOW);
    assert!(strike().is_none() && strike().is_none());
    assert!(!jail.free(who(1), NOW), "not banned yet");
    assert!(strike().is_none() && strike().is_none());
    assert!(strike().is_some());
    assert!(jail.free(who(1), NOW) && jail.is_empty());
    assert!(strike().is_none() && strike().is_none());
    assert_eq!(strike().expect("a ban").0.times, 1);
}

#[test]
fn a_ban_by_hand_replaces_any_other() {
    let jail = Jail::new();
    let long = jail.ban(who(1), Duration::from_secs(7200), NOW);
    let short = jail.ban(who(1), Duration::from_secs(10), NOW);
    assert!(short.until < long.until && jail.held(who(1), || after(11)).is_none());
    assert_eq!((short.reason, short.times, jail.count()), (Reason::Hand, 2, 1));
}

#[test]
fn a_reason_is_kept_in_few_bits_and_read_as_it_is_written() {
    let words = Offence::WORDS.into_iter().map(str::to_owned).chain((400..600).map(|n: u16| n.to_string())).chain(["manual".to_owned()]);
    for word in words {
        let reason = Reason::parse(&word).expect("a reason");
        assert_eq!((Reason::of(reason.code()), reason.to_string()), (reason, word));
    }
}

proptest! {
    #[test]
    fn a_longer_past_never_makes_a_shorter_ban(ban in 1_u64..1_000_000, grow: bool, times in 0_u8..255) {
        let rule = rule(1, 1, ban, grow);
        prop_assert!(rule.lasts(times) <= rule.lasts(times + 1));
        prop_assert!(rule.lasts(times) >= rule.ban_time);
    }

    /// Whatever comes: who collects nothing is never banned, and a ban ends.
    #[test]
    fn nobody_is_banned_for_what_others_do(strikes in prop::collection::vec((1_u32..50, 0_u16..5, 0_u64..100), 0..300)) {
        let (jail, rule) = (Jail::new(), rule(5, 60, 30, false));
        let mut now = NOW;
        for (n, points, wait) in strikes {
            now += Duration::from_secs(wait);
            let banned = jail.strike(who(n), Offence::Zone, points, &rule, now).is_some();
            prop_assert!(!banned || points > 0);
            prop_assert!(jail.held(who(0), || now).is_none());
        }
        let later = now + Duration::from_secs(31);
        prop_assert!((0..50).all(|n| jail.held(who(n), || later).is_none()));
    }
}
