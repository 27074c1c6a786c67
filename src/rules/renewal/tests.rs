use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_767_225_600;
const NINETY: Validity = Validity { not_before: NOW, not_after: NOW + 90 * DAY };

fn of(failure: Failure) -> Fault {
    Fault { failure, retry_after: None }
}

fn limited(moment: i64) -> Fault {
    Fault { failure: Failure::RateLimited, retry_after: Some(moment) }
}

fn one(staging: &[bool]) -> Options<'_> {
    Options { staging, challenges: 2 }
}

/// Fails the next attempt; gives what it was.
fn fail(history: &mut History, options: &Options, failure: Failure) -> Attempt {
    let attempt = history.attempt(options);
    let now = history.next().max(NOW);
    *history = history.clone().failed(options, attempt, of(failure), None, now, 0.5);
    attempt
}

fn cas(history: &mut History, options: &Options, failure: Failure, times: usize) -> Vec<(usize, bool)> {
    (0..times).map(|_| fail(history, options, failure)).map(|attempt| (attempt.ca, attempt.staging)).collect()
}

#[test]
fn a_window_of_the_ca_is_kept_to() {
    let window = Window { start: NOW + 40 * DAY, end: NOW + 44 * DAY };
    assert_eq!(due(NINETY, Some(window), 0.0), (window.start, Why::Suggested));
    assert_eq!(due(NINETY, Some(window), 0.5), (NOW + 42 * DAY, Why::Suggested));
    let revoked = Window { start: NOW - DAY, end: NOW - HOUR };
    assert_eq!(due(NINETY, Some(revoked), 0.5), (NOW, Why::Suggested));
    let late = Window { start: NOW + 100 * DAY, end: NOW + 101 * DAY };
    assert_eq!(due(NINETY, Some(late), 0.5), (NOW + 89 * DAY, Why::Suggested));
    let nonsense = Window { start: NOW + 40 * DAY, end: NOW + 40 * DAY };
    assert_eq!(due(NINETY, Some(nonsense), 0.5).1, Why::TwoThirds);
}

#[test]
fn a_renewal_that_goes_well_never_raises_the_alarm() {
    // As Boulder computes it: two percent of the life, around two thirds of it.
    let lets_encrypt = Window { start: NOW + 60 * DAY - DAY * 9 / 10, end: NOW + 60 * DAY + DAY * 9 / 10 };
    for spread in [0.0, 0.3, 0.999_999] {
        for window in [None, Some(lets_encrypt)] {
            assert!(!at_risk(NINETY, due(NINETY, window, spread).0 + HOUR), "{window:?} {spread}");
        }
    }
    assert!(!at_risk(NINETY, NOW + 60 * DAY - 1));
    assert!(at_risk(NINETY, NOW + 60 * DAY));
    assert!(at_risk(NINETY, NOW + 100 * DAY));
}

#[test]
fn without_a_window_it_is_two_thirds_and_half_of_a_short_life() {
    let (early, why) = due(NINETY, None, 0.999_999);
    assert_eq!(why, Why::TwoThirds);
    assert!((NOW + 56 * DAY..NOW + 57 * DAY).contains(&early), "{early}");
    assert_eq!(due(NINETY, None, 0.0).0, NOW + 60 * DAY - 90 * DAY / 100);
    let six = Validity { not_before: NOW, not_after: NOW + 6 * DAY };
    let (at, why) = due(six, None, 0.0);
    assert_eq!(why, Why::Half);
    assert_eq!(at, NOW + 3 * DAY - 6 * DAY / 100);
}

#[test]
fn reasons_read_as_words() {
    assert_eq!(Why::Suggested.to_string(), "suggested by the CA");
    assert_eq!(Why::TwoThirds.to_string(), "two thirds of its life are over");
    let mut history = History::default();
    assert_eq!(history.why(), None);
    cas(&mut history, &one(&[true]), Failure::Validation, 2);
    assert_eq!(history.why().map(|why| why.to_string()).as_deref(), Some("try 3 after a failure"));
    assert_eq!(history.rehearsed(NOW).why(), Some(Why::Rehearsed));
}

#[test]
fn after_three_failures_the_next_ca_has_its_turn() {
    let options = one(&[false, false]);
    for failure in [Failure::Unreachable, Failure::Validation, Failure::Refused] {
        let seen: Vec<_> = cas(&mut History::default(), &options, failure, 8).into_iter().map(|(ca, _)| ca).collect();
        assert_eq!(seen, [0, 0, 0, 1, 1, 1, 0, 0], "{failure:?}");
    }
}

#[test]
fn a_failed_validation_is_rehearsed_until_it_passes() {
    let options = one(&[true]);
    let mut history = History::default();
    assert_eq!(cas(&mut history, &options, Failure::Validation, 5), [(0, false), (0, true), (0, true), (0, true), (0, true)]);
    let history = history.rehearsed(NOW);
    assert_eq!(history.next(), NOW);
    assert_eq!(history.failures(), 5);
    let attempt = history.attempt(&options);
    assert!(!attempt.staging);
    let history = history.failed(&options, attempt, of(Failure::Validation), None, NOW, 0.5);
    assert!(history.attempt(&options).staging);
}

#[test]
fn the_second_ca_is_rehearsed_too_where_it_can_be() {
    let seen = cas(&mut History::default(), &one(&[true, false]), Failure::Validation, 7);
    assert_eq!(seen, [(0, false), (0, true), (0, true), (1, false), (1, false), (1, false), (0, true)]);
    let seen = cas(&mut History::default(), &one(&[true, true]), Failure::Validation, 4);
    assert_eq!(seen[3], (1, true));
}

#[test]
fn a_staging_directory_that_is_down_stands_in_the_way_no_longer() {
    let options = one(&[true]);
    let mut history = History::default();
    fail(&mut history, &options, Failure::Validation);
    assert_eq!(cas(&mut history, &options, Failure::Unreachable, 4), [(0, true), (0, true), (0, true), (0, false)]);
}

#[test]
fn each_failed_validation_begins_with_the_next_challenge() {
    let options = one(&[false]);
    let mut history = History::default();
    let seen: Vec<_> = (0..3).map(|_| fail(&mut history, &options, Failure::Validation).challenge).collect();
    assert_eq!(seen, [0, 1, 0]);
    fail(&mut history, &options, Failure::Unreachable);
    assert_eq!(history.attempt(&options).challenge, 1);
}

#[test]
fn a_ca_that_asks_for_time_gets_it_and_the_other_is_tried_meanwhile() {
    let later = NOW + 2 * DAY;
    let history = |staging: &[bool], moment| {
        let options = one(staging);
        let first = History::default();
        let attempt = first.attempt(&options);
        let history = first.failed(&options, attempt, limited(moment), None, NOW, 0.5);
        (history.attempt(&options).ca, history.next())
    };
    assert_eq!(history(&[false], later), (0, later));
    assert_eq!(history(&[false], i64::MAX), (0, NOW + RETRY_AFTER_MAX));
    assert_eq!(history(&[false], 0), (0, NOW + MINUTE));
    assert_eq!(history(&[false, false], later), (1, NOW + MINUTE));
    // Both closed: the one that opens first.
    let options = one(&[false, false]);
    let mut both = History::default();
    for moment in [later, NOW + 3 * DAY] {
        let attempt = both.attempt(&options);
        both = both.failed(&options, attempt, limited(moment), None, NOW, 0.5);
    }
    assert_eq!((both.attempt(&options).ca, both.next()), (0, later));
}

#[test]
fn an_attempt_cut_off_again_and_again_waits_by_the_table() {
    let mut history = History::default();
    let mut now = NOW;
    let waits: Vec<_> = (0..6)
        .map(|_| {
            history = history.clone().begun(now);
            let wait = history.next() - now;
            now = history.next();
            wait
        })
        .collect();
    assert_eq!(waits, [10, 10, 10, 60, 60, 120]);
}

#[test]
fn a_success_forgets_the_failures_but_not_itself() {
    let mut history = History::default();
    cas(&mut history, &one(&[true, false]), Failure::Validation, 9);
    let history = history.succeeded(NINETY, NOW);
    assert_eq!((history.failures(), history.rested()), (0, NOW + HOUR));
    assert!(history.next() <= NOW, "what lacks a name is ordered at once");
    assert_eq!(history.attempt(&one(&[true, false])), Attempt { ca: 0, staging: false, challenge: 0 });
    let minute = Validity { not_before: NOW, not_after: NOW + 60 };
    assert_eq!(history.succeeded(minute, NOW).rested(), NOW + 20);
}

#[test]
fn what_is_changed_is_tried_at_once_but_for_what_the_ca_asked_for() {
    let options = one(&[true, false]);
    let mut history = History::default();
    cas(&mut history, &options, Failure::Validation, 9);
    let afresh = history.clone().afresh(NOW);
    assert_eq!((afresh.failures(), afresh.why()), (0, None));
    assert!(afresh.next() <= NOW && !afresh.attempt(&options).staging);
    let attempt = history.attempt(&options);
    let told = history.failed(&options, Attempt { ca: 0, ..attempt }, limited(NOW + DAY), None, NOW, 0.5);
    assert_eq!(told.clone().afresh(NOW).attempt(&options).ca, 1, "the other CA may be asked meanwhile");
    let alone = told.failed(&options, Attempt { ca: 1, ..attempt }, limited(NOW + 2 * DAY), None, NOW, 0.5).afresh(NOW);
    assert_eq!((alone.attempt(&options).ca, alone.next()), (0, NOW + DAY));
    assert_eq!(History::default().begun(NOW).afresh(NOW).next(), NOW + CUT);
}

#[test]
fn a_history_survives_a_restart_and_a_clock_that_was_wrong() {
    let options = one(&[true, true]);
    let mut history = History::default();
    cas(&mut history, &options, Failure::Validation, 12);
    let text = serde_json::to_string(&history).expect("json");
    let again: History = serde_json::from_str(&text).expect("the same");
    assert_eq!(again, history);
    assert_eq!(again.attempt(&options), history.attempt(&options));
    assert_eq!(again.next(), history.next());
    assert_eq!(serde_json::from_str::<History>("{}").expect("of an older version"), History::default());
    let earlier = NOW - 20 * 365 * DAY;
    assert_eq!(history.clone().restored(earlier).next(), earlier + LONGEST * 11 / 10);
    let attempt = history.attempt(&options);
    let limited = Fault { failure: Failure::RateLimited, retry_after: Some(NOW + 2 * DAY) };
    let closed = history.failed(&one(&[false]), attempt, limited, None, NOW, 0.5);
    assert_eq!(closed.clone().restored(earlier).next(), earlier + RETRY_AFTER_MAX);
    assert_eq!(closed.restored(NOW).next(), NOW + 2 * DAY);
}

/// 48 hours in which validation never passes on production. Gives attempts that failed, those on production, rehearsals that passed.
fn two_days(staging: &[bool], served: Option<Validity>, dice: &[f64], passes: &[bool]) -> (u32, u32, u32) {
    let options = one(staging);
    let mut history = History::default();
    let (mut now, mut failed, mut production, mut passed) = (NOW, 0, 0, 0);
    let mut turn = 0;
    while now < NOW + 48 * HOUR {
        let attempt = history.attempt(&options);
        history = serde_json::from_slice(&serde_json::to_vec(&history).expect("json")).expect("the same");
        history = history.restored(now).begun(now);
        if attempt.staging && passes[turn % passes.len()] {
            passed += 1;
            history = history.rehearsed(now);
        } else {
            failed += 1;
            production += u32::from(!attempt.staging);
            history = history.failed(&options, attempt, of(Failure::Validation), served, now, dice[turn % dice.len()]);
        }
        turn += 1;
        now = history.next();
    }
    (failed, production, passed)
}

#[test]
fn the_constant_is_what_the_table_allows() {
    assert_eq!(two_days(&[false], None, &[0.0], &[false]), (ATTEMPTS_IN_48H, ATTEMPTS_IN_48H, 0));
    assert_eq!(two_days(&[true], None, &[0.0], &[false]), (ATTEMPTS_IN_48H, 1, 0));
}

proptest! {
    #[test]
    fn validation_that_never_passes_costs_no_more_than_the_table(
        staging in prop::collection::vec(any::<bool>(), 1..4),
        dice in prop::collection::vec(0.0..1.0f64, 1..50),
        passes in prop::collection::vec(any::<bool>(), 1..50),
        life in prop::option::of(15 * DAY / 2..400 * DAY),
    ) {
        let served = life.map(|life| Validity { not_before: NOW, not_after: NOW + life });
        let (failed, production, passed) = two_days(&staging, served, &dice, &passes);
        prop_assert!(failed <= ATTEMPTS_IN_48H);
        if staging.iter().all(|has| *has) {
            prop_assert!(production <= passed + 1, "{production} on production, {passed} rehearsals passed");
        }
    }

    #[test]
    fn a_renewal_is_due_within_the_life_and_a_margin_before_its_end(
        not_before in any::<i64>(),
        not_after in any::<i64>(),
        start in any::<i64>(),
        end in any::<i64>(),
        spread in any::<f64>(),
        now in any::<i64>(),
    ) {
        let validity = Validity { not_before, not_after };
        for window in [None, Some(Window { start, end })] {
            let (at, _) = due(validity, window, spread);
            prop_assert!(at >= not_before);
            if not_after > not_before {
                prop_assert!(i128::from(at) <= validity.latest());
            }
        }
        prop_assert!(at_risk(validity, now.max(not_after)));
    }

    #[test]
    fn a_real_life_is_renewed_in_time(life in 1..400 * DAY, spread in 0.0..1.0f64, start in -10 * DAY..400 * DAY, width in 1..30 * DAY) {
        let validity = Validity { not_before: NOW, not_after: NOW + life };
        let window = Window { start: NOW + start, end: NOW + start + width };
        let (at, _) = due(validity, Some(window), spread);
        prop_assert!(at <= NOW + life - (life / 10).min(MARGIN));
        if at > NOW && at < NOW + life - (life / 10).min(MARGIN) {
            prop_assert!(at >= window.start && at < window.end);
        }
        let (plain, _) = due(validity, None, spread);
        prop_assert!(plain >= NOW + life * 45 / 100 - 2 && plain <= NOW + life * 2 / 3 + 1);
    }

    #[test]
    fn waits_never_shrink_and_stay_below_the_longest(failures in any::<u32>(), more in 0..100u32, now in -1e15 as i64..1e15 as i64, dice in any::<f64>()) {
        prop_assert!(nominal(failures) <= nominal(failures.saturating_add(more)));
        let history = History { failures, ..History::default() };
        let options = one(&[false]);
        let next = history.clone().failed(&options, history.attempt(&options), of(Failure::Unreachable), None, now, dice).next();
        prop_assert!(next - now >= MINUTE * 9 / 10 && next - now <= LONGEST * 11 / 10);
    }

    #[test]
    fn a_certificate_in_service_is_tried_again_within_a_thirtieth_of_its_life(failures in any::<u32>(), life in 0..400 * DAY, dice in any::<f64>()) {
        let history = History { failures, ..History::default() };
        let options = one(&[false]);
        let served = Some(Validity { not_before: NOW, not_after: NOW + life });
        let after = |fault| history.clone().failed(&options, history.attempt(&options), fault, served, NOW, dice).next() - NOW;
        prop_assert!((1..=(life / PATIENCE).max(1)).contains(&after(of(Failure::Unreachable))));
        prop_assert_eq!(after(limited(NOW + 8 * HOUR)), 8 * HOUR, "but the CA has the last word");
    }

    #[test]
    fn any_sequence_of_calls_on_any_history_survives(
        start in (any::<u32>(), any::<i64>(), any::<usize>(), any::<u32>(), any::<bool>(), any::<usize>(), prop::collection::vec(any::<i64>(), 0..5)),
        calls in prop::collection::vec((0..5u8, 0..5u8, any::<Option<i64>>(), any::<i64>(), any::<f64>(), any::<usize>()), 0..40),
        staging in prop::collection::vec(any::<bool>(), 0..4),
        challenges in 0..3usize,
    ) {
        let (failures, not_before, ca, streak, rehearse, challenge, closed) = start;
        let mut history = History { failures, not_before, ca, streak, rehearse, challenge, closed, cuts: streak, stage_faults: streak, passed: rehearse, rest: not_before };
        let options = Options { staging: &staging, challenges };
        for (call, kind, moment, now, dice, any) in calls {
            let attempt = history.attempt(&options);
            prop_assert!(attempt.ca < staging.len().max(1) && attempt.challenge < challenges.max(1));
            prop_assert!(!attempt.staging || staging[attempt.ca]);
            let failure = [Failure::Validation, Failure::RateLimited, Failure::Refused, Failure::Unreachable, Failure::Broken][usize::from(kind)];
            history = match call {
                0 => history.begun(now),
                1 => history.rehearsed(now),
                2 => history.succeeded(Validity { not_before: now, not_after: moment.unwrap_or(now) }, now),
                3 if kind == 0 => history.afresh(now),
                3 => history.restored(now),
                _ => {
                    // Whatever an earlier configuration may have handed out.
                    let served = (kind > 2).then_some(Validity { not_before: any as i64, not_after: now });
                    let attempt = if kind == 0 { Attempt { ca: any, staging: true, challenge: any } } else { attempt };
                    let next = history.failed(&options, attempt, Fault { failure, retry_after: moment }, served, now, dice);
                    prop_assert!(next.next() > now || now > i64::MAX - DAY);
                    next
                }
            };
        }
    }
}
