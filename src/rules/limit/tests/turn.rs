//! Requests that wait for their turn.

use super::*;

proptest! {
    #[test]
    fn turns_are_at_the_pace_and_waiting_changes_nothing_of_who_is_admitted(
        per in 1u64..5_000, burst in 0u32..12, delay in 0u32..12, steps in prop::collection::vec(0u64..4_000, 1..80),
    ) {
        let pace = Pace::new(1, ms(per)).expect("a pace");
        let delay = delay.min(burst);
        let spec = Zone { rate: Some(pace), delay, ..zone("1r/s", burst, 10) };
        let (queueing, at_once) = (Limiter::new(&spec), Limiter::new(&Zone { delay: burst, ..spec.clone() }));
        let (mut now, mut starts) = (ms(0), Vec::new());
        for step in steps {
            now += ms(step);
            let turn = queueing.turn(&ip(1), now);
            prop_assert_eq!(turn.is_some(), at_once.admit(&ip(1), now).is_ok());
            if let Some((start, _)) = turn {
                prop_assert!(start >= now && start - now <= pace.every() * (burst - delay));
                starts.push(start);
            }
        }
        // First come, first served; and in no time do more go on than the pace and `delay` allow.
        prop_assert!(starts.is_sorted());
        for (from, start) in starts.iter().enumerate() {
            for (n, end) in starts[from..].iter().enumerate() {
                prop_assert!(n as f64 <= (*end - *start).as_secs_f64() / pace.every().as_secs_f64() + f64::from(delay) + 1e-6);
            }
        }
    }

    #[test]
    fn a_turn_given_back_by_the_last_in_line_is_as_if_it_had_never_come(
        burst in 1u32..12, before in prop::collection::vec(0u64..2_000, 0..20), leaves in 1usize..6, after in prop::collection::vec(0u64..2_000, 1..20),
    ) {
        let spec = Zone { delay: 0, ..zone("1r/s", burst, 10) };
        let (limiter, oracle) = (Limiter::new(&spec), Limiter::new(&spec));
        let starts = |turn: Option<(Duration, Ticket)>| turn.map(|(start, _)| start);
        let mut now = ms(0);
        for step in before {
            now += ms(step);
            prop_assert_eq!(starts(limiter.turn(&ip(1), now)), starts(oracle.turn(&ip(1), now)));
        }
        let mut waiting: Vec<_> = (0..leaves).filter_map(|_| limiter.turn(&ip(1), now)).collect();
        while let Some((_, ticket)) = waiting.pop() {
            limiter.refund(&ticket);
        }
        for step in after {
            prop_assert_eq!(starts(limiter.turn(&ip(1), now)), starts(oracle.turn(&ip(1), now)));
            now += ms(step);
        }
    }

    #[test]
    fn whoever_leaves_in_whatever_order_nobody_else_gets_more_than_the_pace(
        burst in 0u32..8, steps in prop::collection::vec((0u64..1_500, any::<bool>(), 0usize..8), 1..80),
    ) {
        let limiter = Limiter::new(&Zone { delay: 0, ..zone("1r/s", burst, 10) });
        let (mut now, mut stay, mut waiting) = (ms(0), Vec::new(), Vec::new());
        for (step, comes, who) in steps {
            now += ms(step);
            // Whose turn has come goes on.
            waiting.retain(|(start, _)| { if *start <= now { stay.push(*start); } *start > now });
            if comes {
                waiting.extend(limiter.turn(&ip(1), now));
            } else if !waiting.is_empty() {
                let (_, ticket): (Duration, Ticket) = waiting.remove(who % waiting.len());
                limiter.refund(&ticket);
            }
            waiting.retain(|(start, _)| { if *start <= now { stay.push(*start); } *start > now });
        }
        stay.extend(waiting.into_iter().map(|(start, _)| start));
        stay.sort_unstable();
        prop_assert!(stay.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(1)));
    }
}
