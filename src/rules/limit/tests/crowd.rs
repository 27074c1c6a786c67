//! Requests at once.

use super::*;

#[test]
fn a_limit_at_once_is_of_each_key_and_comes_back() {
    let limiter = Limiter::new(&crowd(2, 100));
    let first = limiter.ask(&ip(1), ms(0)).expect("room");
    let second = limiter.ask(&ip(1), ms(0)).expect("room");
    assert_eq!(limiter.ask(&ip(1), ms(9_000)).map(drop), Err(None), "time brings nothing back");
    assert!(limiter.ask(&ip(2), ms(0)).is_ok());
    limiter.leave(&first);
    assert!(limiter.ask(&ip(1), ms(0)).is_ok());
    assert!(limiter.ask(&ip(1), ms(0)).is_err());
    limiter.leave(&second);
    assert!(limiter.ask(&ip(1), ms(0)).is_ok());
}

#[test]
fn who_is_refused_for_one_limit_has_spent_nothing_of_the_other() {
    let limiter = Limiter::new(&Zone { concurrent: NonZeroU32::new(1), ..zone("1r/s", 2, 10) });
    let ticket = limiter.ask(&ip(1), ms(0)).expect("room");
    for _ in 0..10 {
        assert_eq!(limiter.ask(&ip(1), ms(0)).map(drop), Err(None));
    }
    limiter.leave(&ticket);
    limiter.leave(&limiter.ask(&ip(1), ms(0)).expect("two of three are left"));
    limiter.leave(&limiter.ask(&ip(1), ms(0)).expect("one of three is left"));
    assert_eq!(limiter.ask(&ip(1), ms(0)).map(drop), Err(Some(ms(1000))));
    assert!(limiter.ask(&ip(1), ms(1000)).is_ok());
}

proptest! {
    #[test]
    fn no_key_ever_has_more_at_once_than_its_limit(
        steps in prop::collection::vec((0u32..30, any::<bool>(), 0u64..100), 1..300), most in 1u32..4, keys in 1u32..30,
    ) {
        // Few cells: keys come, hold, and move between cells and the overflow.
        let limiter = Limiter::new(&Zone { rate: Some(Pace::parse("1000r/s").expect("a pace")), burst: 5, ..crowd(most, keys) });
        let mut held: HashMap<u32, Vec<Ticket>> = HashMap::new();
        let mut now = ms(0);
        for (key, comes, step) in steps {
            now += ms(step);
            let mine = held.entry(key).or_default();
            if comes {
                mine.extend(limiter.ask(&ip(key), now).ok());
                prop_assert!(mine.len() <= most as usize);
            } else if let Some(ticket) = mine.pop() {
                limiter.leave(&ticket);
            }
        }
        for ticket in held.into_values().flatten() {
            limiter.leave(&ticket);
        }
        // All is given back: everyone has his whole limit again.
        now += ms(10_000);
        for key in 0..keys {
            let all: Vec<_> = (0..most).map(|_| limiter.ask(&ip(key), now)).collect();
            prop_assert!(all.iter().all(Result::is_ok));
            prop_assert!(limiter.ask(&ip(key), now).is_err());
            all.into_iter().flatten().for_each(|ticket| limiter.leave(&ticket));
        }
    }
}
