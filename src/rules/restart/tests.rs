//! Examples, and the laws against a model of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU16, NonZeroU32},
};

use proptest::prelude::*;

use super::*;
use crate::{
    plan::{AppPort, Live, RestartPolicy, app::Policy, testing},
    vocab::Pace,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn spec(procs: u16) -> App {
    App {
        procs: NonZeroU16::new(procs).expect("some"),
        port: AppPort::Socket,
        live: Some(Live {
            path: "/".into(),
            host: None,
            interval: secs(10),
            timeout: secs(5),
            fail: NonZeroU32::MIN,
            pass: NonZeroU32::MIN,
        }),
        ..testing::app()
    }
}

/// A life, the clock, and what it last did.
struct Story {
    life: Life,
    now: Duration,
    last: Vec<Effect>,
}

impl Story {
    fn of(spec: App) -> Self {
        Self { life: Life::new(Arc::new(spec), 1), now: Duration::ZERO, last: Vec::new() }
    }

    fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        self
    }

    fn event(&mut self, event: Event) -> &mut Self {
        self.last = self.life.step(event, self.now, 200);
        self
    }

    fn incarnation(&self, n: u16) -> u64 {
        self.life.view().filter(|v| v.n == n).last().expect("there").incarnation
    }

    fn spawned(&mut self, n: u16) -> &mut Self {
        let incarnation = self.incarnation(n);
        self.event(Event::Spawned { n, incarnation })
    }

    fn ready(&mut self, n: u16) -> &mut Self {
        let incarnation = self.incarnation(n);
        self.event(Event::Ready { n, incarnation })
    }

    fn up(&mut self) -> &mut Self {
        self.event(Event::Start);
        for n in 0..u16::try_from(self.life.view().count()).expect("few") {
            self.spawned(n).ready(n);
        }
        self
    }

    fn exits(&mut self, n: u16, code: i32) -> &mut Self {
        let incarnation = self.incarnation(n);
        self.event(Event::Exited { n, incarnation, exit: Exit::Code(code) })
    }

    fn dead(&mut self, n: u16) -> &mut Self {
        let incarnation = self.incarnation(n);
        self.event(Event::Dead { n, incarnation, why: "timeout".into() })
    }

    /// Waits for whatever is due next.
    fn due(&mut self) -> &mut Self {
        self.now = self.life.due().expect("something is due").max(self.now);
        self.event(Event::Tick)
    }

    fn states(&self) -> Vec<State> {
        self.life.view().map(|v| v.state).collect()
    }

    fn spawns(&self) -> Vec<u16> {
        self.last.iter().filter_map(|e| if let Effect::Spawn { n, .. } = e { Some(*n) } else { None }).collect()
    }

    fn did(&self, effect: &Effect) -> bool {
        self.last.contains(effect)
    }
}

#[test]
fn a_taken_address_is_no_exit_and_is_tried_again_until_it_is_free() {
    let mut story = Story::of(App { port: AppPort::Fixed { first: NonZeroU16::MIN }, ..spec(1) });
    story.event(Event::Start);
    let mut waits = Vec::new();
    for tries in 0..20 {
        let incarnation = story.incarnation(0);
        story.event(Event::Taken { n: 0, incarnation, why: "port 1 is taken by pid 7 (nginx)".into() });
        assert_eq!(story.states(), [State::Taken]);
        let view = story.life.view().next().expect("there");
        assert_eq!(view.taken.as_deref(), Some("port 1 is taken by pid 7 (nginx)"));
        let told = story.last.iter().find_map(|e| if let Effect::Report(Report::Taken { lasts, .. }) = e { Some(*lasts) } else { None });
        assert_eq!(told, Some(tries > 0), "one who is slow to let go is not yet a reason to give up");
        waits.push(story.life.due().expect("tried again") - story.now);
        story.due();
        assert_eq!(story.spawns(), [0]);
    }
    assert!(waits[0] < ms(400) && waits.iter().all(|wait| *wait <= secs(30)) && waits[19] > secs(20), "{waits:?}");
    assert!(!story.life.is_cooling(), "it has cost nothing of the budget");
    story.spawned(0).ready(0);
    assert_eq!(story.states(), [State::Ready]);
    // A crash afterwards waits as the first one does.
    story.exits(0, 1);
    assert!(story.life.due().expect("again") - story.now < ms(400));
}

#[test]
fn a_restart_whose_address_stays_taken_is_given_up_and_the_instance_waits_on() {
    let mut story = Story::of(App { port: AppPort::Fixed { first: NonZeroU16::MIN }, ..spec(1) });
    story.up().event(Event::Restart(Reason::Command));
    let incarnation = story.incarnation(0);
    story.event(Event::Drained { n: 0, incarnation }).exits(0, 0);
    assert_eq!(story.spawns(), [0], "the old one went first");
    let taken = |story: &mut Story| {
        let incarnation = story.incarnation(0);
        story.event(Event::Taken { n: 0, incarnation, why: "taken".into() });
    };
    taken(&mut story);
    assert!(story.life.is_rolling());
    story.due();
    taken(&mut story);
    assert!(!story.life.is_rolling() && story.did(&Effect::Report(Report::RollAborted { n: 0, why: "taken".into() })));
    assert_eq!(story.states(), [State::Taken]);
    story.event(Event::Stop);
    assert_eq!(story.states(), [State::Stopped]);
}

#[test]
fn an_app_starts_all_its_instances_and_each_serves_when_it_is_ready() {
    let mut story = Story::of(spec(2));
    story.event(Event::Start);
    assert_eq!(story.spawns(), [0, 1]);
    assert_eq!(story.states(), [State::Starting, State::Starting]);
    story.spawned(0).spawned(1).ready(1);
    assert_eq!(story.states(), [State::Starting, State::Ready]);
}

#[test]
fn a_crashed_instance_waits_its_delay_and_starts_again() {
    let mut story = Story::of(spec(1));
    story.up().at(secs(1)).exits(0, 1);
    assert!(story.did(&Effect::Report(Report::Again { n: 0, why: "exit 1".into(), delay: ms(250) })));
    assert_eq!(story.states(), [State::Backoff]);
    assert_eq!(story.life.due(), Some(ms(1250)));
    story.at(ms(1249)).event(Event::Tick);
    assert!(story.spawns().is_empty());
    story.due();
    assert_eq!(story.spawns(), [0]);
    let view = story.life.view().next().expect("there");
    assert_eq!((view.restarts, view.last_exit), (1, Some(("exit 1".into(), secs(1)))));
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Exit, 1)]);
}

#[test]
fn an_app_that_keeps_crashing_cools_down_and_is_reported() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).spawned(0);
    for _ in 0..3 {
        story.exits(0, 1).due().spawned(0);
    }
    story.exits(0, 1);
    assert!(story.did(&Effect::Report(Report::BudgetSpent { exits: 4 })));
    assert_eq!(story.states(), [State::Cooldown]);
    let spent = story.now;
    story.due();
    assert_eq!((story.now, story.spawns()), (spent + secs(60), vec![0]));
    story.spawned(0).exits(0, 1);
    assert_eq!(story.states(), [State::Cooldown]);
    assert_eq!(story.life.due(), Some(spent + secs(120)), "one try every minute");
}

#[test]
fn who_knows_a_path_that_crashes_an_app_does_not_keep_it_down() {
    let mut story = Story::of(spec(2));
    story.up();
    for _ in 0..20 {
        for n in 0..2 {
            let incarnation = story.incarnation(n);
            story.event(Event::Tallied { n, incarnation, requests: 50, failures: 1 }).exits(n, 1).event(Event::Blamed {
                n,
                incarnation,
                answered: false,
            });
            assert_eq!(story.states()[usize::from(n)], State::Backoff, "{:?}", story.life);
            let ended = story.now;
            story.due().spawned(n).ready(n);
            assert_eq!(story.now, ended + ms(250), "the shortest delay");
        }
    }
    assert!(!story.life.is_cooling());
}

/// Its tallies come ten times a second: one that is killed before the first has answered all the same.
#[test]
fn a_process_that_is_killed_a_moment_after_it_became_ready_is_forgiven_as_well() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).spawned(0).ready(0);
    for _ in 0..10 {
        let incarnation = story.incarnation(0);
        story.exits(0, 1).event(Event::Blamed { n: 0, incarnation, answered: true });
        story.due().spawned(0).ready(0);
    }
    assert!(!story.life.is_cooling());
}

#[test]
fn a_process_that_answers_nothing_pays_for_its_end_whatever_it_had() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).spawned(0).ready(0);
    for _ in 0..4 {
        let incarnation = story.incarnation(0);
        story.exits(0, 1).event(Event::Blamed { n: 0, incarnation, answered: false });
        if !story.life.is_cooling() {
            story.due().spawned(0).ready(0);
        }
    }
    assert!(story.life.is_cooling());
    assert!(story.now > ms(250 + 500), "the delays grow");
}

#[test]
fn one_that_spends_the_budget_does_not_take_its_siblings_into_the_cooldown() {
    let mut story = Story::of(spec(2));
    story.event(Event::Start).spawned(0).spawned(1);
    while !story.life.is_cooling() {
        // Both wait when the next one ends.
        match story.states().iter().position(|state| *state == State::Starting) {
            Some(n) => story.exits(u16::try_from(n).expect("few"), 1),
            None => story.due(),
        };
        for n in story.spawns() {
            story.spawned(n);
        }
    }
    let states = story.states();
    assert!(states.contains(&State::Cooldown) && states.contains(&State::Backoff), "{states:?}");
}

#[test]
fn in_cooldown_one_comes_by_its_own_delay_while_requests_come() {
    let mut story = Story::of(spec(2));
    story.event(Event::Start).spawned(0).spawned(1);
    while story.states() != [State::Cooldown, State::Cooldown] {
        if story.states()[0] == State::Starting {
            story.exits(0, 1);
        } else if story.states()[1] == State::Starting {
            story.exits(1, 1);
        } else {
            story.due();
        }
        for n in story.spawns() {
            story.spawned(n);
        }
    }
    let due = story.life.due().expect("a try");
    assert!(due >= story.now + secs(50), "nobody asks: one try a minute");
    story.event(Event::Wanted).due();
    assert_eq!(story.spawns().len(), 1, "one of them");
    assert!(story.now < due - secs(40), "{:?} is not {due:?}", story.now);
    let n = story.spawns()[0];
    story.spawned(n).exits(n, 1);
    assert_eq!(story.states().iter().filter(|state| **state == State::Backoff).count(), 1, "and again, by its delay");
}

#[test]
fn a_try_that_serves_ends_the_cooldown_for_all() {
    let mut story = Story::of(spec(2));
    story.event(Event::Start).spawned(0).spawned(1).exits(0, 1).exits(1, 1);
    for _ in 0..20 {
        if story.life.is_cooling() {
            break;
        }
        story.due();
        for n in story.spawns() {
            story.spawned(n).exits(n, 1);
        }
    }
    story.due();
    let tried = story.spawns();
    assert_eq!((tried.len(), story.life.is_cooling()), (1, true));
    story.spawned(tried[0]).ready(tried[0]);
    assert!(story.life.due().is_some());
    while story.life.is_cooling() {
        story.due();
        assert!(story.now < secs(600));
        for n in story.spawns() {
            story.spawned(n).ready(n);
        }
    }
    while story.life.view().any(|v| v.state != State::Ready) {
        story.due();
        for n in story.spawns() {
            story.spawned(n).ready(n);
        }
    }
}

#[test]
fn starting_an_app_by_hand_clears_its_budget() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).spawned(0);
    for _ in 0..3 {
        story.exits(0, 1).due().spawned(0);
    }
    story.exits(0, 1).event(Event::Start);
    assert_eq!(story.spawns(), [0]);
    story.spawned(0).exits(0, 1);
    assert_eq!(story.states(), [State::Backoff]);
    assert_eq!(story.life.due(), Some(story.now + ms(250)));
}

#[test]
fn an_instance_that_flaps_every_second_and_a_half_backs_off_further_and_further() {
    let mut story =
        Story::of(App { restart: RestartPolicy { budget: Pace::new(1000, secs(60)).expect("valid"), ..spec(1).restart }, ..spec(1) });
    story.event(Event::Start).spawned(0);
    let mut delays = Vec::new();
    for _ in 0..9 {
        story.ready(0);
        story.now += ms(1500);
        story.exits(0, 0);
        delays.push((story.life.due().expect("backoff") - story.now).as_millis());
        story.due().spawned(0);
    }
    assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
}

#[test]
fn not_ready_in_time_is_a_failed_start() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).spawned(0).due();
    assert_eq!(story.now, secs(30));
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
    assert_eq!(story.states(), [State::Stopping]);
    story.due();
    assert!(story.did(&Effect::KillGroup { n: 0, incarnation: 1 }));
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Signal(9) });
    assert_eq!(story.states(), [State::Backoff]);
    let view = story.life.view().next().expect("there");
    assert_eq!(view.last_exit.expect("ended").0, "not ready within 30s");
    story.due();
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Unready, 1)]);
}

#[test]
fn a_program_that_cannot_be_started_backs_off_too() {
    let mut story = Story::of(spec(1));
    story.event(Event::Start).event(Event::SpawnFailed { n: 0, incarnation: 1, why: "no such program".into() });
    assert_eq!(story.states(), [State::Backoff]);
}

#[test]
fn stopping_drains_then_signals_then_kills() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Stop);
    assert!(story.did(&Effect::Drain { n: 0, incarnation: 1, within: secs(15) }));
    story.at(secs(2)).event(Event::Drained { n: 0, incarnation: 1 });
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
    story.due();
    assert_eq!(story.now, secs(22));
    assert!(story.did(&Effect::KillGroup { n: 0, incarnation: 1 }));
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Signal(9) });
    assert_eq!((story.states(), story.life.due()), (vec![State::Stopped], None));
}

#[test]
fn a_drain_nobody_answers_ends_at_its_deadline() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Stop).due();
    assert_eq!(story.now, secs(15));
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
}

#[test]
fn a_restart_replaces_one_instance_after_the_other_and_the_new_one_is_ready_first() {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Restart(Reason::Command));
    assert!(story.did(&Effect::Spawn { n: 0, incarnation: 3, beside: Some(1) }));
    assert_eq!(story.states(), [State::Ready, State::Starting, State::Ready]);
    story.spawned(0).ready(0);
    assert!(story.did(&Effect::Drain { n: 0, incarnation: 1, within: secs(15) }));
    assert_eq!(story.states(), [State::Draining, State::Ready, State::Ready]);
    assert!(story.spawns().is_empty(), "two of instance 0 are enough");
    story.event(Event::Drained { n: 0, incarnation: 1 });
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Code(0) });
    assert_eq!(story.spawns(), [1]);
    story.spawned(1).ready(1).event(Event::Drained { n: 1, incarnation: 2 });
    story.event(Event::Exited { n: 1, incarnation: 2, exit: Exit::Code(0) });
    assert!(story.did(&Effect::Report(Report::RollDone)));
    assert_eq!(story.states(), [State::Ready, State::Ready]);
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Command, 2)]);
}

#[test]
fn where_two_cannot_be_side_by_side_the_old_one_goes_first() {
    let fixed = App { port: AppPort::Fixed { first: NonZeroU16::MIN }, ..spec(1) };
    let worker = App { port: AppPort::None, ready: Ready::Started, ..spec(1) };
    for spec in [fixed, worker] {
        let mut story = Story::of(spec);
        story.up().event(Event::Restart(Reason::Command));
        assert!(story.spawns().is_empty());
        story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0);
        assert_eq!(story.spawns(), [0]);
        story.spawned(0).ready(0);
        assert_eq!(story.states(), [State::Ready]);
    }
    // Nor where memory is short.
    let mut story = Story::of(spec(1));
    story.up().event(Event::Restart(Reason::Command)).event(Event::NoRoom { n: 0, incarnation: 2, why: "2 MB".into() });
    assert!(story.did(&Effect::Report(Report::NoRoom { n: 0, why: "2 MB".into() })));
    story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0).spawned(0).ready(0);
    assert!(story.did(&Effect::Report(Report::RollDone)));
}

#[test]
fn a_roll_ends_at_the_first_instance_that_does_not_come_up_and_the_old_ones_stay() {
    for late in [false, true] {
        let mut story = Story::of(spec(2));
        story.up().event(Event::Restart(Reason::Command)).spawned(0);
        if late {
            story.due();
            assert!(story.did(&Effect::Signal { n: 0, incarnation: 3 }));
            assert!(story.did(&Effect::Report(Report::RollAborted { n: 0, why: "not ready within 30s".into() })));
            story.event(Event::Exited { n: 0, incarnation: 3, exit: Exit::Signal(15) });
        } else {
            story.event(Event::Exited { n: 0, incarnation: 3, exit: Exit::Code(3) });
            assert!(story.did(&Effect::Report(Report::RollAborted { n: 0, why: "exit 3".into() })));
        }
        assert_eq!(story.states(), [State::Ready, State::Ready]);
        assert_eq!(story.life.view().map(|v| v.incarnation).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(story.life.restarts().count(), 0);
    }
}

#[test]
fn an_old_process_that_crashes_while_its_successor_starts_does_not_end_the_roll() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Restart(Reason::Command)).spawned(0);
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Signal(9) });
    assert_eq!(story.states(), [State::Backoff, State::Starting]);
    story.ready(0);
    assert_eq!(story.states(), [State::Ready]);
    assert!(story.did(&Effect::Report(Report::RollDone)));
}

#[test]
fn a_stop_in_the_middle_of_a_succession_ends_both() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Restart(Reason::Command)).spawned(0).event(Event::Stop);
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 2 }));
    assert!(story.did(&Effect::Drain { n: 0, incarnation: 1, within: secs(15) }));
    story.event(Event::Exited { n: 0, incarnation: 2, exit: Exit::Signal(15) });
    assert!(!story.life.is_at_rest());
    story.event(Event::Drained { n: 0, incarnation: 1 }).event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Code(0) });
    assert!(story.life.is_at_rest());
    assert_eq!(story.states(), [State::Stopped]);
}

fn released(procs: u16) -> Arc<App> {
    let mut new = spec(procs);
    new.dir = Some("/srv/two".into());
    new.release = Some("two".into());
    Arc::new(new)
}

fn duties(story: &Story) -> Vec<(u16, State, Duty)> {
    story.life.view().map(|v| (v.n, v.state, v.duty)).collect()
}

/// Two instances, the new release just switched to.
fn on_trial() -> Story {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Deploy(released(2)));
    assert_eq!(story.spawns(), [0, 1]);
    story.spawned(0).spawned(1).ready(0);
    assert_eq!(story.life.settled_spec().release, None);
    assert!(!story.did(&Effect::Report(Report::Switched { guard: secs(30) })), "all or none");
    story.ready(1);
    assert!(story.did(&Effect::Report(Report::Switched { guard: secs(30) })));
    story
}

#[test]
fn a_deploy_switches_when_all_are_ready_and_the_old_ones_go_when_the_guard_is_over() {
    let mut story = on_trial();
    let (old, new) = ((State::Ready, Duty::StandsBy), (State::Ready, Duty::OnTrial));
    assert_eq!(duties(&story), [(0, old.0, old.1), (0, new.0, new.1), (1, old.0, old.1), (1, new.0, new.1)]);
    story.event(Event::Tallied { n: 0, incarnation: 3, requests: 1000, failures: 20 });
    story.due();
    assert_eq!(story.now, secs(30));
    assert!(story.did(&Effect::Report(Report::DeployDone)));
    assert!(
        story.did(&Effect::Drain { n: 0, incarnation: 1, within: secs(15) })
            && story.did(&Effect::Drain { n: 1, incarnation: 2, within: secs(15) })
    );
    for (n, incarnation) in [(0, 1), (1, 2)] {
        story.event(Event::Drained { n, incarnation }).event(Event::Exited { n, incarnation, exit: Exit::Code(0) });
    }
    assert_eq!(duties(&story), [(0, State::Ready, Duty::Serves), (1, State::Ready, Duty::Serves)]);
    assert!(story.life.view().all(|v| v.release.as_deref() == Some("two")));
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Deploy, 2)]);
}

#[test]
fn a_release_that_does_not_come_up_is_not_switched_to() {
    let fails: [fn(&mut Story); 4] = [
        |story| {
            story.event(Event::Exited { n: 1, incarnation: 4, exit: Exit::Code(1) });
        },
        |story| {
            story.event(Event::SpawnFailed { n: 1, incarnation: 4, why: "no such program".into() });
        },
        |story| {
            story.event(Event::NoRoom { n: 1, incarnation: 4, why: "2 MB".into() });
        },
        |story| {
            story.spawned(1).due();
        },
    ];
    for fail in fails {
        let mut story = Story::of(spec(2));
        story.up().event(Event::Deploy(released(2))).spawned(0).ready(0);
        fail(&mut story);
        assert!(story.last.iter().any(|e| matches!(e, Effect::Report(Report::DeployFailed { .. }))), "{:?}", story.last);
        assert!(story.did(&Effect::Signal { n: 0, incarnation: 3 }));
        let serving: Vec<_> = story.life.view().filter(|v| v.state == State::Ready).map(|v| (v.incarnation, v.duty)).collect();
        assert_eq!(serving, [(1, Duty::Serves), (2, Duty::Serves)]);
        assert_eq!(story.life.spec().release, None);
    }
}

#[test]
fn a_release_must_answer_its_warm_up_first() {
    let mut new = (*released(1)).clone();
    new.deploy.warm.push("/".into());
    for good in [true, false] {
        let mut story = Story::of(spec(1));
        story.up().event(Event::Deploy(Arc::new(new.clone()))).spawned(0).ready(0);
        assert!(story.did(&Effect::Warm { n: 0, incarnation: 2 }));
        let result = if good { Ok(()) } else { Err("/ answered 500".to_owned()) };
        story.event(Event::Warmed { n: 0, incarnation: 2, result });
        assert_eq!(story.did(&Effect::Report(Report::Switched { guard: secs(30) })), good);
        assert_eq!(story.life.is_deploying(), good);
    }
}

#[test]
fn a_release_that_fails_on_trial_is_taken_back_and_the_old_processes_serve_again() {
    let fails: [fn(&mut Story); 3] = [
        |story| {
            story.event(Event::Tallied { n: 0, incarnation: 3, requests: 50, failures: 3 });
        },
        |story| {
            story.event(Event::Exited { n: 1, incarnation: 4, exit: Exit::Signal(11) });
        },
        |story| {
            story.event(Event::Dead { n: 0, incarnation: 3, why: "timeout".into() });
        },
    ];
    for fail in fails {
        let mut story = on_trial();
        story.event(Event::Tallied { n: 0, incarnation: 3, requests: 20, failures: 2 });
        assert!(story.life.is_deploying(), "two failures prove nothing");
        fail(&mut story);
        assert!(story.last.iter().any(|e| matches!(e, Effect::Report(Report::DeployFailed { .. }))), "{:?}", story.last);
        let serving: Vec<_> = story.life.view().filter(|v| v.state == State::Ready).map(|v| (v.incarnation, v.duty)).collect();
        assert_eq!(serving, [(1, Duty::Serves), (2, Duty::Serves)]);
        assert_eq!(story.life.spec().release, None);
        assert_eq!(story.life.restarts().map(|(_, count)| count).sum::<u64>(), 2, "nothing was started again");
    }
}

#[test]
fn a_process_that_is_put_back_wears_what_it_wore_and_nothing_of_the_failed_release() {
    let mut new = (*released(1)).clone();
    new.recycle.requests = Some(100);
    let old = App { recycle: new.recycle.clone(), watchdog: Some(secs(60)), ..spec(1) };
    new.watchdog = old.watchdog;
    let mut story = Story::of(old);
    story.up().event(Event::Tallied { n: 0, incarnation: 1, requests: 90, failures: 40 });
    let before = story.life.view().next().expect("one");
    story.at(secs(10)).event(Event::Deploy(Arc::new(new))).spawned(0).ready(0);
    // Beyond what it may have: the old process must not be recycled for it.
    story.at(secs(59)).event(Event::Tallied { n: 0, incarnation: 2, requests: 150, failures: 140 });
    assert!(story.last.iter().any(|e| matches!(e, Effect::Report(Report::DeployFailed { .. }))), "{:?}", story.last);
    assert!(!story.last.iter().any(|e| matches!(e, Effect::Report(Report::Recycling { .. }))), "{:?}", story.last);
    story.event(Event::Exited { n: 0, incarnation: 2, exit: Exit::Code(7) });
    let after = story.life.view().next().expect("one");
    assert_eq!((after.incarnation, after.restarts, after.last_exit.clone(), after.since), (1, 0, None, before.since));
    assert_eq!(after, before, "nothing has happened to it");
    // It could say nothing for itself while it stood by.
    story.at(secs(61)).event(Event::Tick);
    assert!(!story.last.iter().any(|e| matches!(e, Effect::Report(Report::Unhealthy { .. }))), "{:?}", story.last);
    // Its own wear goes on where it was: the next deploy is judged by it.
    story.event(Event::Tallied { n: 0, incarnation: 1, requests: 100, failures: 40 });
    assert!(story.last.iter().any(|e| matches!(e, Effect::Report(Report::Recycling { .. }))), "{:?}", story.last);
}

#[test]
fn an_old_process_that_ends_while_it_stands_by_is_the_last_exit_whatever_becomes_of_the_release() {
    let mut story = on_trial();
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Signal(9) });
    story.event(Event::Tallied { n: 1, incarnation: 4, requests: 9, failures: 9 });
    let of_zero = story.life.view().filter(|v| v.n == 0).last().expect("there");
    assert_eq!(of_zero.last_exit.map(|(why, _)| why), Some("signal 9 (KILL)".to_owned()));
    for n in [3, 4] {
        story.event(Event::Exited { n: n - 3, incarnation: n.into(), exit: Exit::Code(1) });
    }
    let exits: Vec<_> = story.life.view().map(|v| v.last_exit.map(|(why, _)| why)).collect();
    assert_eq!(exits, [Some("signal 9 (KILL)".to_owned()), None]);
}

#[test]
fn a_release_that_never_served_is_nobodys_last_exit() {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Deploy(released(2))).spawned(0).ready(0).spawned(1);
    story.event(Event::Exited { n: 1, incarnation: 4, exit: Exit::Code(1) });
    story.event(Event::Exited { n: 0, incarnation: 3, exit: Exit::Signal(15) });
    assert!(story.life.view().all(|v| v.last_exit.is_none() && v.restarts == 0));
}

#[test]
fn what_the_old_release_failed_at_is_not_held_against_the_new_one() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Tallied { n: 0, incarnation: 1, requests: 1000, failures: 200 });
    story.event(Event::Deploy(released(1))).spawned(0).ready(0);
    story.event(Event::Tallied { n: 0, incarnation: 2, requests: 100, failures: 22 });
    assert!(story.life.is_deploying());
    story.event(Event::Tallied { n: 0, incarnation: 2, requests: 100, failures: 26 });
    assert!(!story.life.is_deploying());
}

#[test]
fn a_deploy_that_cannot_be_is_refused() {
    let refused = |story: &Story| story.last.iter().any(|e| matches!(e, Effect::Report(Report::DeployFailed { .. })));
    let mut story = Story::of(spec(1));
    story.event(Event::Deploy(released(1)));
    assert!(refused(&story) && story.spawns().is_empty(), "it is stopped");
    let mut story = Story::of(spec(1));
    let fixed = App { port: AppPort::Fixed { first: NonZeroU16::MIN }, ..spec(1) };
    story.up().event(Event::Deploy(Arc::new(fixed)));
    assert!(refused(&story) && story.spawns().is_empty(), "a fixed port");
    let mut story = on_trial();
    story.event(Event::Deploy(released(2)));
    assert!(refused(&story) && story.life.is_deploying(), "one is under way");
    story.event(Event::Restart(Reason::Command));
    assert!(story.last.iter().any(|e| matches!(e, Effect::Report(Report::RollAborted { .. }))));
}

#[test]
fn worn_instances_are_replaced_one_at_a_time() {
    let mut worn = spec(2);
    worn.recycle.requests = Some(100);
    let mut story = Story::of(worn);
    story.up().event(Event::Tallied { n: 0, incarnation: 1, requests: 99, failures: 0 });
    assert!(story.spawns().is_empty());
    story.event(Event::Tallied { n: 0, incarnation: 1, requests: 100, failures: 0 });
    assert_eq!(story.spawns(), [0]);
    story.event(Event::Tallied { n: 1, incarnation: 2, requests: 100, failures: 0 });
    assert!(story.spawns().is_empty(), "one at a time");
    story.spawned(0).ready(0).event(Event::Drained { n: 0, incarnation: 1 });
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Code(0) });
    assert_eq!(story.spawns(), [1]);
    story.event(Event::SpawnFailed { n: 1, incarnation: 4, why: "no".into() });
    assert!(story.did(&Effect::Report(Report::RecycleFailed { n: 1, why: "no".into() })));
    assert!(story.spawns().is_empty(), "not at once again");
    story.due();
    assert_eq!((story.now, story.spawns()), (secs(60), vec![1]));
}

#[test]
fn age_and_memory_wear_too() {
    let mut old = spec(1);
    old.recycle.age = Some(secs(100));
    let mut story = Story::of(old);
    story.up().due();
    assert!((secs(90)..=secs(110)).contains(&story.now), "{:?}", story.now);
    assert_eq!(story.spawns(), [0]);

    let mut fat = spec(1);
    fat.recycle.memory = Some(100);
    let mut story = Story::of(fat);
    story.up();
    for bytes in [400, 10, 10] {
        assert!(story.spawns().is_empty());
        story.event(Event::Weighed { n: 0, incarnation: 1, bytes });
    }
    assert_eq!(story.spawns(), [0], "the mean of three looks is 140");
}

#[test]
fn a_watchdog_that_is_not_fed_is_an_unhealthy_instance() {
    let mut story = Story::of(App { watchdog: Some(secs(30)), ..spec(1) });
    story.up().at(secs(20)).event(Event::Pinged { n: 0, incarnation: 1 }).due();
    assert_eq!(story.now, secs(50));
    story.spawned(0).ready(0).event(Event::Drained { n: 0, incarnation: 1 }).event(Event::Exited {
        n: 0,
        incarnation: 1,
        exit: Exit::Code(0),
    });
    assert_eq!(story.life.view().next().expect("there").last_exit.expect("ended").0, "unhealthy: no WATCHDOG=1 for 30s");
}

#[test]
fn exit_codes_mean_what_the_configuration_says() {
    let policy = |policy| RestartPolicy { policy, success: vec![3], give_up: vec![78], ..spec(1).restart };
    for (of, code, state) in [
        (Policy::OnFailure, 3, State::Exited),
        (Policy::OnFailure, 4, State::Backoff),
        (Policy::Always, 3, State::Backoff),
        (Policy::Always, 78, State::Exited),
    ] {
        let mut story = Story::of(App { restart: policy(of), ..spec(1) });
        story.up().exits(0, code);
        assert_eq!(story.states(), [state], "{of:?} {code}");
    }
}

#[test]
fn an_app_that_waits_for_another_is_starting_until_it_may() {
    let mut story = Story::of(spec(1));
    story.event(Event::Await);
    assert_eq!((story.states(), story.spawns().len(), story.life.is_awaiting()), (vec![State::Starting], 0, true));
    story.event(Event::Start);
    assert_eq!(story.spawns(), [0]);
    let mut story = Story::of(spec(1));
    story.event(Event::Await).event(Event::Stop);
    assert_eq!(story.states(), [State::Stopped]);
}

#[test]
fn restarting_a_stopped_app_starts_it() {
    let mut story = Story::of(spec(2));
    story.event(Event::Restart(Reason::Command));
    assert_eq!(story.spawns(), [0, 1]);
    story.spawned(0).spawned(1).ready(1).ready(0);
    assert!(story.did(&Effect::Report(Report::RollDone)));
    assert_eq!(story.life.restarts().count(), 0);
}

#[test]
fn unhealthy_instances_are_replaced_one_at_a_time_and_within_the_budget() {
    let mut story = Story::of(spec(2));
    story.up().dead(0);
    assert!(story.did(&Effect::Spawn { n: 0, incarnation: 3, beside: Some(1) }));
    story.event(Event::Dead { n: 1, incarnation: 2, why: "timeout".into() });
    assert!(story.spawns().is_empty(), "one at a time");
    story.spawned(0).ready(0).event(Event::Drained { n: 0, incarnation: 1 }).event(Event::Exited {
        n: 0,
        incarnation: 1,
        exit: Exit::Code(0),
    });
    assert_eq!(story.life.view().next().expect("there").last_exit.expect("ended").0, "unhealthy: timeout");
    assert_eq!(story.spawns(), [1]);
    story.spawned(1).ready(1).event(Event::Drained { n: 1, incarnation: 2 }).event(Event::Exited {
        n: 1,
        incarnation: 2,
        exit: Exit::Code(0),
    });
    story.dead(0);
    assert_eq!(story.spawns(), [0], "the third of three in a minute");
    story.spawned(0).ready(0).event(Event::Drained { n: 0, incarnation: 3 }).event(Event::Exited {
        n: 0,
        incarnation: 3,
        exit: Exit::Code(0),
    });
    story.dead(1);
    assert!(story.spawns().is_empty(), "it serves on, unwell");
    assert_eq!(story.states(), [State::Ready, State::Ready]);
    story.due();
    assert_eq!((story.now, story.spawns()), (secs(60), vec![1]), "when the first has passed");
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Unhealthy, 3)]);
}

#[test]
fn an_unhealthy_one_whose_replacement_fails_serves_on_for_a_while() {
    let mut story = Story::of(spec(1));
    story.up().dead(0).event(Event::SpawnFailed { n: 0, incarnation: 2, why: "no".into() });
    assert!(story.did(&Effect::Report(Report::RecycleFailed { n: 0, why: "no".into() })));
    assert_eq!((story.states(), story.spawns().len()), (vec![State::Ready], 0));
    story.due();
    assert_eq!((story.now, story.spawns()), (ms(250), vec![0]));
}

#[test]
fn the_last_one_that_serves_is_not_drained_when_it_is_dead_and_cannot_be_replaced_first() {
    let mut story = Story::of(App { port: AppPort::Fixed { first: NonZeroU16::MIN }, ..spec(1) });
    story.up().dead(0);
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
    story.exits(0, 0);
    assert_eq!(story.life.view().next().expect("there").last_exit.expect("ended").0, "unhealthy: timeout");
}

#[test]
fn one_that_recovers_before_its_turn_stays() {
    let mut story = Story::of(spec(2));
    story.up().dead(0).dead(1).event(Event::Alive { n: 1, incarnation: 2 });
    story.spawned(0).ready(0).event(Event::Drained { n: 0, incarnation: 1 }).event(Event::Exited {
        n: 0,
        incarnation: 1,
        exit: Exit::Code(0),
    });
    assert_eq!((story.states(), story.spawns().len()), (vec![State::Ready, State::Ready], 0));
}

#[test]
fn policies_decide_what_an_exit_means() {
    for (policy, code, state) in [
        (Policy::Always, 0, State::Backoff),
        (Policy::OnFailure, 0, State::Exited),
        (Policy::OnFailure, 1, State::Backoff),
        (Policy::Never, 1, State::Exited),
    ] {
        let mut story = Story::of(App { restart: RestartPolicy { policy, ..spec(1).restart }, ..spec(1) });
        story.up().exits(0, code);
        assert_eq!(story.states(), [state], "{policy:?} {code}");
    }
}

#[test]
fn a_change_of_the_command_rolls_and_a_change_of_the_budget_does_not() {
    let mut story = Story::of(spec(2));
    story.up();
    let mut changed = spec(2);
    changed.restart.max_delay = secs(5);
    story.event(Event::Change(Arc::new(changed.clone())));
    assert_eq!(story.states(), [State::Ready, State::Ready]);
    changed.command.push("--new".into());
    story.event(Event::Change(Arc::new(changed)));
    assert_eq!(story.states(), [State::Ready, State::Starting, State::Ready]);
    for (n, old) in [(0, 1), (1, 2)] {
        story.spawned(n).ready(n).event(Event::Drained { n, incarnation: old }).event(Event::Exited {
            n,
            incarnation: old,
            exit: Exit::Code(0),
        });
    }
    assert!(story.did(&Effect::Report(Report::RollDone)));
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Reload, 2)]);
}

#[test]
fn a_change_of_procs_adds_and_removes_without_touching_the_rest() {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Change(Arc::new(spec(3))));
    assert_eq!(story.spawns(), [2]);
    story.spawned(2).ready(2).event(Event::Change(Arc::new(spec(1))));
    assert_eq!(story.states(), [State::Ready, State::Draining, State::Draining]);
    story.event(Event::Drained { n: 1, incarnation: 2 }).exits(1, 0).event(Event::Drained { n: 2, incarnation: 3 }).exits(2, 0);
    assert_eq!(story.states(), [State::Ready]);
}

#[test]
fn a_removed_app_stops_and_is_gone() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Remove).event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0);
    assert!(story.life.is_gone());
    story.event(Event::Start);
    assert!(story.spawns().is_empty());
}

#[test]
fn a_verdict_on_an_earlier_incarnation_is_void() {
    let mut story = Story::of(spec(1));
    story.up().exits(0, 1).due().spawned(0);
    story.event(Event::Ready { n: 0, incarnation: 1 });
    assert_eq!(story.states(), [State::Starting]);
    story.event(Event::Exited { n: 0, incarnation: 1, exit: Exit::Code(1) });
    assert_eq!(story.states(), [State::Starting]);
}

#[test]
fn those_that_a_leader_left_have_the_apps_patience_and_its_end_counts_once_they_are_gone() {
    let mut story = Story::of(spec(1));
    story.up().at(secs(10));
    let incarnation = story.incarnation(0);
    let left = |why: &str| Event::Left { n: 0, incarnation, exit: Exit::Code(0), why: why.into() };
    story.event(left("exit 0: it went to the background"));
    assert_eq!(story.states(), [State::Stopping], "no request goes there any more");
    assert!(story.did(&Effect::Signal { n: 0, incarnation }) && story.life.exits.is_empty());
    story.event(left("twice"));
    assert_eq!(story.last, []);
    assert_eq!(story.life.due(), Some(secs(30)));
    story.due();
    assert!(story.did(&Effect::KillGroup { n: 0, incarnation }), "after stop.timeout");
    story.exits(0, 0);
    assert_eq!((story.states(), story.life.exits.len()), (vec![State::Backoff], 1));
    let view = story.life.view().next().expect("one");
    assert_eq!(view.last_exit.map(|(why, _)| why).as_deref(), Some("exit 0: it went to the background"));
}

#[test]
fn those_that_a_crashed_leader_left_have_less_than_requests_are_held_for() {
    let mut story = Story::of(spec(1));
    story.up().at(secs(10));
    let incarnation = story.incarnation(0);
    story.event(Event::Left { n: 0, incarnation, exit: Exit::Signal(9), why: "signal 9 (KILL)".into() });
    assert_eq!((story.states(), story.life.due()), (vec![State::Stopping], Some(secs(15))));
}

#[test]
fn a_leader_that_ends_when_told_changes_nothing_until_the_last_of_it_has_ended() {
    let mut story = Story::of(spec(1));
    story.up().at(secs(10)).event(Event::Stop);
    let incarnation = story.incarnation(0);
    story.event(Event::Drained { n: 0, incarnation });
    story.at(secs(11)).event(Event::Left { n: 0, incarnation, exit: Exit::Signal(15), why: "signal 15 (TERM)".into() });
    assert_eq!((story.last.clone(), story.states()), (Vec::new(), vec![State::Stopping]));
    assert_eq!(story.life.due(), Some(secs(30)), "the timeout is the whole group's");
    story.exits(0, 0);
    assert_eq!(story.states(), [State::Stopped]);
}

#[test]
fn a_worker_that_ends_well_and_leaves_others_stays_ended_where_its_policy_says_so() {
    let mut worker = spec(1);
    worker.restart.policy = Policy::OnFailure;
    let mut story = Story::of(worker);
    story.up();
    let incarnation = story.incarnation(0);
    story.event(Event::Left { n: 0, incarnation, exit: Exit::Code(0), why: "exit 0".into() }).exits(0, 0);
    assert_eq!((story.states(), story.spawns()), (vec![State::Exited], vec![]));
}

#[test]
fn a_successor_whose_leader_ends_early_is_given_up() {
    let mut story = Story::of(spec(1));
    story.up().event(Event::Restart(Reason::Command));
    let incarnation = story.incarnation(0);
    story.spawned(0).event(Event::Left { n: 0, incarnation, exit: Exit::Code(0), why: "left".into() });
    assert!(story.did(&Effect::Signal { n: 0, incarnation }));
    assert!(story.states().contains(&State::Ready), "the old one serves on");
    assert!(!story.life.is_rolling());
}

/// What may happen next in the world; the model fills in what is alive. `k` chooses among the processes that it may happen to.
#[derive(Clone, Debug)]
enum Act {
    Start,
    Stop,
    Restart,
    Deploy,
    Change { procs: u16, command: bool },
    KillNow,
    Wait(u64),
    Due,
    Answer { k: usize, good: bool },
    NoRoom { k: usize },
    Left { k: usize, code: i32 },
    Exit { k: usize, code: i32 },
    Ready { k: usize },
    Warmed { k: usize, good: bool },
    Tallied { k: usize, requests: u64, failures: u64 },
    Blamed { n: u16, back: u64 },
    Wanted,
    Dead { k: usize },
    Alive { k: usize },
    Drained { k: usize },
    Stale { n: u16, incarnation: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let k = 0usize..8;
    prop_oneof![
        2 => Just(Act::Start),
        1 => Just(Act::Stop),
        2 => Just(Act::Restart),
        2 => Just(Act::Deploy),
        1 => (1u16..4, any::<bool>()).prop_map(|(procs, command)| Act::Change { procs, command }),
        1 => Just(Act::KillNow),
        4 => (0u64..100_000).prop_map(Act::Wait),
        8 => Just(Act::Due),
        12 => (k.clone(), prop::bool::weighted(0.9)).prop_map(|(k, good)| Act::Answer { k, good }),
        1 => k.clone().prop_map(|k| Act::NoRoom { k }),
        6 => (k.clone(), 0i32..2).prop_map(|(k, code)| Act::Exit { k, code }),
        3 => (k.clone(), 0i32..2).prop_map(|(k, code)| Act::Left { k, code }),
        10 => k.clone().prop_map(|k| Act::Ready { k }),
        2 => (k.clone(), prop::bool::weighted(0.8)).prop_map(|(k, good)| Act::Warmed { k, good }),
        2 => (k.clone(), 0u64..200, 0u64..4).prop_map(|(k, requests, failures)| Act::Tallied { k, requests, failures }),
        2 => (0u16..4, 0u64..4).prop_map(|(n, back)| Act::Blamed { n, back }),
        2 => Just(Act::Wanted),
        2 => k.clone().prop_map(|k| Act::Dead { k }),
        1 => k.clone().prop_map(|k| Act::Alive { k }),
        3 => k.clone().prop_map(|k| Act::Drained { k }),
        1 => (0u16..4, 0u64..30).prop_map(|(n, incarnation)| Act::Stale { n, incarnation }),
    ]
}

/// The world as the shell would see it: processes by incarnation.
#[derive(Default)]
struct World {
    asked: BTreeMap<u64, u16>,
    alive: BTreeMap<u64, u16>,
    /// Unexpectedly ended at.
    ended: BTreeMap<u16, Duration>,
    /// Unexpected exits and tries since a person last intervened.
    tries: Vec<Duration>,
    signalled: BTreeSet<u64>,
    /// Whose leader ended unexpectedly, while others of it go on.
    left: BTreeSet<u64>,
}

struct Run {
    life: Life,
    world: World,
    now: Duration,
    dice: u64,
}

impl Run {
    fn new(procs: u16, dice: u64) -> Self {
        Self { life: Life::new(Arc::new(worn(procs)), 1), world: World::default(), now: Duration::ZERO, dice }
    }

    fn step(&mut self, event: Event) {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let effects = self.life.step(event, self.now, self.dice >> 33);
        for effect in &effects {
            self.perform(effect);
        }
        assert!(self.life.exits.len() <= 5);
        for (incarnation, n) in self.world.alive.iter().chain(&self.world.asked) {
            assert_ne!(self.life.role(*n, *incarnation), Role::Nobody, "process {incarnation} of instance {n} is forgotten");
        }
    }

    fn perform(&mut self, effect: &Effect) {
        let World { asked, alive, ended, tries, signalled, left: _ } = &mut self.world;
        match effect {
            Effect::Spawn { n, incarnation, beside } => {
                let others = || asked.iter().chain(alive.iter()).filter(|(_, of)| *of == n).map(|(other, _)| self.life.role(*n, *other));
                match beside {
                    None => {
                        assert!(!others().any(|role| role == Role::Present), "two processes of instance {n}");
                        if let Some(at) = ended.remove(n) {
                            assert!(self.now >= at + ms(250), "instance {n} ended at {at:?} and was started at {:?}", self.now);
                            tries.push(self.now);
                        }
                    }
                    Some(_) => assert!(!others().any(|role| role == Role::Next), "two successors of instance {n}"),
                }
                asked.insert(*incarnation, *n);
            }
            Effect::Signal { n, incarnation } | Effect::KillGroup { n, incarnation } => {
                assert_eq!(alive.get(incarnation), Some(n), "signalled what is not alive");
                signalled.insert(*incarnation);
            }
            Effect::Drain { n, incarnation, .. } | Effect::Warm { n, incarnation } => assert_eq!(alive.get(incarnation), Some(n)),
            Effect::Publish | Effect::Report(_) => {}
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start | Act::Restart | Act::KillNow | Act::Deploy | Act::Change { .. } | Act::Stop => {
                // A person may start at once what had just ended.
                self.world.ended.clear();
                self.world.tries.clear();
                self.world.left.clear();
                let mark = self.now.as_millis().to_string();
                let event = match act {
                    Act::Start => Event::Start,
                    Act::Restart => Event::Restart(Reason::Command),
                    Act::KillNow => Event::KillNow,
                    Act::Deploy => {
                        let mut new = (**self.life.settled_spec()).clone();
                        new.release = Some(mark);
                        if self.dice.is_multiple_of(2) {
                            new.deploy.warm = vec!["/".into()];
                        }
                        Event::Deploy(Arc::new(new))
                    }
                    Act::Change { procs, command } => {
                        let mut changed = worn(procs);
                        if command {
                            changed.command.push(mark);
                        }
                        Event::Change(Arc::new(changed))
                    }
                    _ => Event::Stop,
                };
                self.step(event);
            }
            Act::Wait(millis) => {
                self.now += ms(millis);
                self.step(Event::Tick);
            }
            Act::Due => {
                if let Some(due) = self.life.due() {
                    self.now = self.now.max(due);
                    self.step(Event::Tick);
                    assert!(self.life.due().is_none_or(|next| next > self.now), "due at {due:?} for ever: {:?}", self.life);
                }
            }
            Act::Answer { k, good } => {
                let Some((incarnation, n)) = nth(&self.world.asked, k) else { return };
                self.world.asked.remove(&incarnation);
                if good {
                    self.world.alive.insert(incarnation, n);
                    self.step(Event::Spawned { n, incarnation });
                } else if self.dice.is_multiple_of(3) {
                    self.step(Event::Taken { n, incarnation, why: "taken".into() });
                } else {
                    self.unexpected(n, incarnation);
                    self.step(Event::SpawnFailed { n, incarnation, why: "no".into() });
                }
            }
            Act::NoRoom { k } => {
                let Some((incarnation, n)) = nth(&self.world.asked, k) else { return };
                if self.life.role(n, incarnation) != Role::Present {
                    self.world.asked.remove(&incarnation);
                    self.step(Event::NoRoom { n, incarnation, why: "full".into() });
                }
            }
            Act::Left { k, code } => {
                let Some((incarnation, n)) = nth(&self.world.alive, k) else { return };
                let told = self.world.signalled.contains(&incarnation);
                let serves = self.life.cells.get(&n).is_some_and(|c| matches!(c.phase, Phase::Starting { .. } | Phase::Ready));
                self.step(Event::Left { n, incarnation, exit: Exit::Code(code), why: "left".into() });
                if !told && serves && self.life.role(n, incarnation) == Role::Present {
                    assert!(self.world.signalled.contains(&incarnation), "those that were left are told to stop");
                    self.world.left.insert(incarnation);
                }
            }
            Act::Exit { k, code } => {
                let Some((incarnation, n)) = nth(&self.world.alive, k) else { return };
                self.world.alive.remove(&incarnation);
                if !self.world.signalled.contains(&incarnation) || self.world.left.contains(&incarnation) {
                    self.unexpected(n, incarnation);
                }
                self.step(Event::Exited { n, incarnation, exit: Exit::Code(code) });
            }
            Act::Ready { k } => self.about(k, |n, incarnation| Event::Ready { n, incarnation }),
            Act::Warmed { k, good } => {
                self.about(k, |n, incarnation| Event::Warmed { n, incarnation, result: if good { Ok(()) } else { Err("x".into()) } });
            }
            Act::Tallied { k, requests, failures } => self.about(k, |n, incarnation| Event::Tallied { n, incarnation, requests, failures }),
            Act::Blamed { n, back } => {
                let incarnation = self.life.cells.get(&n).map_or(0, |cell| cell.incarnation).saturating_sub(back);
                self.step(Event::Blamed { n, incarnation, answered: back % 2 == 0 });
            }
            Act::Wanted => self.step(Event::Wanted),
            Act::Dead { k } => self.about(k, |n, incarnation| Event::Dead { n, incarnation, why: "x".into() }),
            Act::Alive { k } => self.about(k, |n, incarnation| Event::Alive { n, incarnation }),
            Act::Drained { k } => self.about(k, |n, incarnation| Event::Drained { n, incarnation }),
            Act::Stale { n, incarnation } => {
                if !self.world.alive.contains_key(&incarnation) && !self.world.asked.contains_key(&incarnation) {
                    self.step(Event::Exited { n, incarnation, exit: Exit::Code(1) });
                    self.step(Event::Ready { n, incarnation });
                    self.step(Event::Spawned { n, incarnation });
                    self.step(Event::Drained { n, incarnation });
                    self.step(Event::NoRoom { n, incarnation, why: "x".into() });
                    self.step(Event::Taken { n, incarnation, why: "x".into() });
                    self.step(Event::Warmed { n, incarnation, result: Err("x".into()) });
                }
            }
        }
    }

    /// An exit that counts, unless the instance was on its way to something else by command.
    fn unexpected(&mut self, n: u16, incarnation: u64) {
        let draining =
            self.life.cells.get(&n).is_none_or(|c| matches!(c.phase, Phase::Draining { .. } | Phase::Spawning { then: Some(_) }));
        if self.life.role(n, incarnation) != Role::Present {
            return;
        }
        if !self.life.is_rolling() && !self.life.is_deploying() && !draining {
            self.world.ended.insert(n, self.now);
        } else {
            self.world.ended.remove(&n);
        }
    }

    fn about(&mut self, k: usize, event: impl Fn(u16, u64) -> Event) {
        if let Some((incarnation, n)) = nth(&self.world.alive, k) {
            self.step(event(n, incarnation));
        }
    }
}

/// One of the processes.
fn nth(of: &BTreeMap<u64, u16>, k: usize) -> Option<(u64, u16)> {
    of.iter().nth(k % of.len().max(1)).map(|(incarnation, n)| (*incarnation, *n))
}

/// One that is replaced for what it has done, too.
fn worn(procs: u16) -> App {
    let mut spec = spec(procs);
    spec.recycle.requests = Some(150);
    spec.recycle.age = Some(secs(500));
    spec
}

fn run(acts: Vec<Act>, procs: u16) -> Run {
    let mut run = Run::new(procs, 7);
    for act in acts {
        run.act(act);
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_process_is_forgotten_none_is_one_too_many_and_none_starts_before_the_minimum_delay(acts in prop::collection::vec(act(), 0..160), procs in 1u16..4) {
        run(acts, procs);
    }

    #[test]
    fn after_stop_everything_ends_in_stopped(acts in prop::collection::vec(act(), 0..100), procs in 1u16..4) {
        let mut run = run(acts, procs);
        run.step(Event::Stop);
        for _ in 0..200 {
            if run.life.is_at_rest() {
                break;
            }
            for k in 0..8 {
                run.act(Act::Answer { k, good: true });
            }
            // Only KILL ends them.
            let alive: Vec<(u64, u16)> = run.world.alive.iter().map(|(incarnation, n)| (*incarnation, *n)).collect();
            for (incarnation, n) in alive {
                let killed = run.life.cells.get(&n).is_some_and(|c| c.incarnation == incarnation && matches!(c.phase, Phase::Killing { .. }));
                let killed = killed || run.life.leaving.get(&incarnation).is_some_and(|l| matches!(l.stage, succession::Leave::Killing { .. }));
                if killed {
                    run.world.alive.remove(&incarnation);
                    run.step(Event::Exited { n, incarnation, exit: Exit::Signal(9) });
                }
            }
            run.act(Act::Due);
        }
        prop_assert!(run.life.view().all(|v| v.state == State::Stopped), "{:?}", run.life);
        prop_assert!(run.world.alive.is_empty());
        prop_assert_eq!(run.life.due(), None);
    }

    #[test]
    fn a_crashing_app_never_exceeds_its_budget(procs in 1u16..4, dice in any::<u64>(), life_ms in 0u64..5000, leaves in any::<bool>()) {
        let mut run = Run::new(procs, dice);
        run.step(Event::Start);
        run.world.tries.clear();
        while run.now < secs(1800) {
            for k in 0..usize::from(procs) {
                run.act(Act::Answer { k, good: true });
            }
            for k in 0..usize::from(procs) {
                run.act(Act::Ready { k });
            }
            run.now += ms(life_ms);
            while !run.world.alive.is_empty() {
                if leaves {
                    run.act(Act::Left { k: 0, code: 1 });
                }
                run.act(Act::Exit { k: 0, code: 1 });
            }
            run.act(Act::Due);
        }
        // Budget 3 in 60 s, then one try each 60 s.
        for (i, first) in run.world.tries.iter().enumerate() {
            let within = run.world.tries[i..].iter().take_while(|at| **at < *first + secs(60)).count();
            prop_assert!(within <= 3 + 1, "{within} starts in a minute: {:?}", run.world.tries);
        }
        let late = run.world.tries.iter().filter(|at| **at > secs(600)).count();
        prop_assert!(late <= 21, "{late} starts in the last 20 minutes");
    }
}
