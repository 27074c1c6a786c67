//! Answers that spend.

use super::*;

#[test]
fn an_answer_that_does_not_count_has_spent_nothing() {
    let limiter = Limiter::new(&counting("1r/m", 2));
    for n in 0..100 {
        let mut ticket = limiter.ask(&ip(1), ms(n)).expect("all is there");
        limiter.settle(&mut ticket, ms(n), false);
    }
    for n in 0..3 {
        let mut ticket = limiter.ask(&ip(1), ms(100)).expect("three may fail");
        limiter.settle(&mut ticket, ms(100 + n), true);
    }
    assert_eq!(limiter.ask(&ip(1), ms(102)).map(drop), Err(Some(ms(59_998))));
    assert!(limiter.ask(&ip(1), ms(60_100)).is_ok());
}

#[test]
fn what_is_reserved_keeps_others_out_until_it_is_settled() {
    let limiter = Limiter::new(&counting("1r/m", 1));
    let judge = |now| limiter.hold(limiter.print(&ip(1)), now).judge();
    let (mut one, mut two) = (limiter.ask(&ip(1), ms(0)).expect("room"), limiter.ask(&ip(1), ms(0)).expect("room"));
    assert_eq!(judge(ms(0)), Judgement::Unsettled);
    assert_eq!(judge(ms(999_000)), Judgement::Unsettled, "time settles nothing");
    limiter.settle(&mut one, ms(0), false);
    assert_eq!(judge(ms(0)), Judgement::Admit(ms(0)));
    let mut three = limiter.ask(&ip(1), ms(0)).expect("room");
    limiter.settle(&mut two, ms(0), true);
    assert_eq!(judge(ms(0)), Judgement::Unsettled);
    limiter.settle(&mut three, ms(0), true);
    limiter.settle(&mut three, ms(0), true);
    assert_eq!(judge(ms(0)), Judgement::Refuse(Some(ms(60_000))), "settled once, whatever is said twice");
    assert_eq!(judge(ms(60_000)), Judgement::Admit(ms(0)));
}

proptest! {
    #[test]
    fn however_many_come_at_once_no_more_answers_spend_than_the_budget_has(
        per in 1u64..3_000, burst in 0u32..6, steps in prop::collection::vec((0u64..2_000, 0u8..4, 0usize..8), 1..150),
    ) {
        let spec = Zone { rate: Some(Pace::new(1, ms(per)).expect("a pace")), ..counting("1r/s", burst) };
        let limiter = Limiter::new(&spec);
        let (mut now, mut open, mut spent) = (ms(0), Vec::new(), Vec::new());
        for (step, does, who) in steps {
            now += ms(step);
            if does < 2 || open.is_empty() {
                open.extend(limiter.ask(&ip(1), now).ok());
                continue;
            }
            let mut ticket: Ticket = open.remove(who % open.len());
            limiter.settle(&mut ticket, now, does == 2);
            if does == 2 {
                spent.push(now);
            }
        }
        for (from, start) in spent.iter().enumerate() {
            for (n, end) in spent[from..].iter().enumerate() {
                prop_assert!(n as f64 <= (*end - *start).as_secs_f64() * 1000.0 / per as f64 + f64::from(burst) + 1e-6);
            }
        }
    }

    #[test]
    fn a_refund_is_as_if_the_request_had_never_come(
        burst in 0u32..6, steps in prop::collection::vec((0u64..2_000, any::<bool>()), 1..80), long in 1usize..10,
    ) {
        // In one of two zones requests come that do not count, and are answered late; the other never sees them.
        let (limiter, oracle) = (Limiter::new(&counting("1r/s", burst)), Limiter::new(&counting("1r/s", burst)));
        let judge = |limiter: &Limiter, now| limiter.hold(limiter.print(&ip(1)), now).judge();
        let (mut now, mut late) = (ms(0), std::collections::VecDeque::new());
        for (step, counts) in steps {
            now += ms(step);
            if late.len() >= long {
                late.drain(..).for_each(|mut ticket: Ticket| limiter.settle(&mut ticket, now, false));
            }
            if late.is_empty() {
                prop_assert_eq!(judge(&limiter, now), judge(&oracle, now));
            }
            if counts {
                // With nothing reserved, both admit or neither does; else the one may wait for what the other does not know of.
                if let Ok(mut ticket) = limiter.ask(&ip(1), now) {
                    limiter.settle(&mut ticket, now, true);
                    let mut ticket = oracle.ask(&ip(1), now).expect("it has no less left");
                    oracle.settle(&mut ticket, now, true);
                }
            } else {
                late.extend(limiter.ask(&ip(1), now).ok());
            }
        }
        late.drain(..).for_each(|mut ticket| limiter.settle(&mut ticket, now, false));
        prop_assert_eq!(limiter.standing(limiter.print(&ip(1)), now), oracle.standing(oracle.print(&ip(1)), now));
    }

    #[test]
    fn however_full_the_zone_no_answers_of_a_key_spend_more_than_its_budget(
        steps in prop::collection::vec((0u32..40, 0u64..400, 0u8..3, 0usize..8), 1..300),
    ) {
        // Room for three of forty: keys reserve in cells of their own and in those of the overflow, and move between them.
        let limiter = Limiter::new(&Zone { max_keys: NonZeroU32::new(3).expect("not zero"), ..counting("2r/s", 2) });
        let mut open: Vec<(u32, Ticket)> = Vec::new();
        let mut spent: HashMap<u32, Vec<Duration>> = HashMap::new();
        let mut now = ms(0);
        for (key, step, does, who) in steps {
            now += ms(step / 4);
            if does == 0 || open.is_empty() {
                open.extend(limiter.ask(&ip(key), now).ok().map(|ticket| (key, ticket)));
                continue;
            }
            let (key, mut ticket) = open.remove(who % open.len());
            limiter.settle(&mut ticket, now, does == 1);
            if does == 1 {
                spent.entry(key).or_default().push(now);
            }
            prop_assert!(limiter.keys() <= 3);
        }
        for times in spent.values() {
            for (from, start) in times.iter().enumerate() {
                for (n, end) in times[from..].iter().enumerate() {
                    prop_assert!(n as f64 <= 2.0 * (*end - *start).as_secs_f64() + 2.0 + 1e-6);
                }
            }
        }
    }

    #[test]
    fn refused_with_a_wait_means_refused_before_and_let_in_then(
        per in 1u64..100_000, burst in 0u32..10, steps in prop::collection::vec((0u64..5_000, any::<bool>()), 1..60), early in 0.0f64..1.0,
    ) {
        let limiter = Limiter::new(&Zone { rate: Some(Pace::new(1, ms(per)).expect("a pace")), ..counting("1r/s", burst) });
        let judge = |now| limiter.hold(limiter.print(&ip(1)), now).judge();
        let mut now = ms(0);
        for (step, spends) in steps {
            now += ms(step);
            if let Judgement::Refuse(wait) = judge(now) {
                let wait = wait.expect("a pace says when");
                prop_assert!(wait > Duration::ZERO && wait <= ms(per));
                let before = wait.mul_f64(early).min(wait - Duration::from_nanos(1));
                prop_assert!(matches!(judge(now + before), Judgement::Refuse(_)));
                prop_assert_eq!(judge(now + wait), Judgement::Admit(ms(0)));
                now += wait;
            }
            let mut ticket = limiter.ask(&ip(1), now).expect("something is left");
            limiter.settle(&mut ticket, now, spends);
        }
    }
}
