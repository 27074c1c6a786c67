//! Examples, and the laws against a model of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU16, NonZeroU32},
};

use proptest::prelude::*;

use super::*;
use crate::{
    plan::{AppLimits, DeployPolicy, Live, Recycle, RestartPolicy, Rotation, Stop, UpstreamTimeouts, app::StopSignal},
    vocab::{ByteSize, Pace},
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn spec(procs: u16) -> App {
    App {
        command: vec!["app".into()],
        dir: None,
        user: None,
        group: None,
        env: BTreeMap::new(),
        procs: NonZeroU16::new(procs).expect("some"),
        port: AppPort::Socket,
        ready: Ready::Tcp { timeout: secs(30) },
        live: Some(Live { path: "/".into(), interval: secs(10), timeout: secs(5), fail: NonZeroU32::MIN, pass: NonZeroU32::MIN }),
        restart: RestartPolicy {
            policy: Policy::Always,
            delay: ms(250),
            max_delay: secs(30),
            budget: Pace::new(3, secs(60)).expect("valid"),
            success: Vec::new(),
            give_up: Vec::new(),
        },
        stop: Stop { signal: StopSignal::Term, timeout: secs(20), drain: secs(15) },
        limits: AppLimits::default(),
        umask: None,
        recycle: Recycle::default(),
        hold: None,
        memory_max: None,
        after: Vec::new(),
        schedule: None,
        before: Vec::new(),
        watchdog: None,
        deploy: DeployPolicy { warm: Vec::new(), guard: Duration::from_secs(30), errors: 0.05, before_timeout: Duration::from_secs(600) },
        log: Rotation { size: ByteSize(1), age: None, keep: 1, compress: false },
        timeouts: UpstreamTimeouts { connect: secs(5), read: secs(60), send: secs(30), idle: secs(4) },
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
        self.life.view().find(|v| v.n == n).expect("there").incarnation
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
fn a_restart_rolls_one_instance_after_the_other() {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Restart(Reason::Command));
    assert_eq!(story.states(), [State::Draining, State::Ready]);
    story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0);
    assert_eq!(story.spawns(), [0]);
    story.spawned(0);
    assert_eq!(story.states(), [State::Starting, State::Ready]);
    story.ready(0);
    assert_eq!(story.states(), [State::Ready, State::Draining]);
    story.event(Event::Drained { n: 1, incarnation: 2 }).exits(1, 0).spawned(1).ready(1);
    assert!(story.did(&Effect::Report(Report::RollDone)));
    assert_eq!(story.life.restarts().collect::<Vec<_>>(), [(Reason::Command, 2)]);
}

#[test]
fn a_roll_ends_at_the_first_instance_that_does_not_come_up() {
    let mut story = Story::of(spec(2));
    story.up().event(Event::Restart(Reason::Command)).event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0).spawned(0).exits(0, 3);
    assert!(story.did(&Effect::Report(Report::RollAborted { n: 0, why: "exit 3".into() })));
    assert_eq!(story.states(), [State::Backoff, State::Ready]);
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
fn unhealthy_instances_are_restarted_one_at_a_time() {
    let mut story = Story::of(spec(2));
    story.up().dead(0);
    assert_eq!(story.states(), [State::Draining, State::Ready]);
    story.dead(1);
    assert_eq!(story.states(), [State::Draining, State::Ready]);
    story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0).due().spawned(0);
    assert_eq!(story.states(), [State::Starting, State::Ready]);
    story.ready(0);
    assert_eq!(story.states(), [State::Ready, State::Draining]);
}

#[test]
fn the_last_one_that_serves_is_not_drained_when_it_is_dead() {
    let mut story = Story::of(spec(1));
    story.up().dead(0);
    assert!(story.did(&Effect::Signal { n: 0, incarnation: 1 }));
    story.exits(0, 0);
    assert_eq!(story.life.view().next().expect("there").last_exit.expect("ended").0, "unhealthy: timeout");
}

#[test]
fn one_that_recovers_before_its_turn_stays() {
    let mut story = Story::of(spec(2));
    story.up().dead(0).dead(1).event(Event::Alive { n: 1, incarnation: 2 });
    story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0).due().spawned(0).ready(0);
    assert_eq!(story.states(), [State::Ready, State::Ready]);
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
    assert_eq!(story.states(), [State::Draining, State::Ready]);
    story.event(Event::Drained { n: 0, incarnation: 1 }).exits(0, 0).spawned(0).ready(0);
    story.event(Event::Drained { n: 1, incarnation: 2 }).exits(1, 0).spawned(1).ready(1);
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

/// What may happen next in the world; the model fills in what is alive.
#[derive(Clone, Debug)]
enum Act {
    Start,
    Stop,
    Restart,
    Change { procs: u16, command: bool },
    KillNow,
    Wait(u64),
    Due,
    Answer { n: u16, good: bool },
    Exit { n: u16, code: i32 },
    Ready { n: u16 },
    Dead { n: u16 },
    Alive { n: u16 },
    Drained { n: u16 },
    Stale { n: u16, incarnation: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0u16..4;
    prop_oneof![
        2 => Just(Act::Start),
        1 => Just(Act::Stop),
        1 => Just(Act::Restart),
        1 => (1u16..4, any::<bool>()).prop_map(|(procs, command)| Act::Change { procs, command }),
        1 => Just(Act::KillNow),
        4 => (0u64..100_000).prop_map(Act::Wait),
        8 => Just(Act::Due),
        10 => (n.clone(), prop::bool::weighted(0.9)).prop_map(|(n, good)| Act::Answer { n, good }),
        6 => (n.clone(), 0i32..2).prop_map(|(n, code)| Act::Exit { n, code }),
        6 => n.clone().prop_map(|n| Act::Ready { n }),
        2 => n.clone().prop_map(|n| Act::Dead { n }),
        1 => n.clone().prop_map(|n| Act::Alive { n }),
        3 => n.clone().prop_map(|n| Act::Drained { n }),
        1 => (n, 0u64..30).prop_map(|(n, incarnation)| Act::Stale { n, incarnation }),
    ]
}

/// The world as the shell would see it.
#[derive(Default)]
struct World {
    asked: BTreeMap<u16, u64>,
    alive: BTreeMap<u16, u64>,
    /// Unexpectedly ended at.
    ended: BTreeMap<u16, Duration>,
    /// Unexpected exits and tries since a person last intervened.
    tries: Vec<Duration>,
    signalled: BTreeSet<(u16, u64)>,
}

impl World {
    fn perform(&mut self, effects: &[Effect], now: Duration) {
        for effect in effects {
            match effect {
                Effect::Spawn { n, incarnation } => {
                    assert!(!self.alive.contains_key(n) && !self.asked.contains_key(n), "two processes of instance {n}");
                    if let Some(at) = self.ended.remove(n) {
                        assert!(now >= at + ms(250), "instance {n} ended at {at:?} and was started at {now:?}");
                        self.tries.push(now);
                    }
                    self.asked.insert(*n, *incarnation);
                }
                Effect::Signal { n, incarnation } | Effect::KillGroup { n, incarnation } => {
                    assert_eq!(self.alive.get(n), Some(incarnation), "signalled what is not alive");
                    self.signalled.insert((*n, *incarnation));
                }
                Effect::Drain { .. } | Effect::Publish | Effect::Report(_) => {}
            }
        }
    }
}

struct Run {
    life: Life,
    world: World,
    now: Duration,
    dice: u64,
}

impl Run {
    fn step(&mut self, event: Event) {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let effects = self.life.step(event, self.now, self.dice >> 33);
        self.world.perform(&effects, self.now);
        assert!(self.life.exits.len() <= 5);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start | Act::Restart | Act::KillNow | Act::Change { .. } | Act::Stop => {
                // A person may start at once what had just ended.
                self.world.ended.clear();
                self.world.tries.clear();
                let event = match act {
                    Act::Start => Event::Start,
                    Act::Restart => Event::Restart(Reason::Command),
                    Act::KillNow => Event::KillNow,
                    Act::Change { procs, command } => {
                        let mut changed = spec(procs);
                        if command {
                            changed.command.push(self.now.as_millis().to_string());
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
                    assert!(self.life.due().is_none_or(|next| next > self.now), "due at {due:?} for ever");
                }
            }
            Act::Answer { n, good } => {
                let Some(incarnation) = self.world.asked.remove(&n) else { return };
                if good {
                    self.world.alive.insert(n, incarnation);
                    self.step(Event::Spawned { n, incarnation });
                } else {
                    self.world.ended.insert(n, self.now);
                    let rolling = self.life.is_rolling();
                    self.unexpected(n, rolling);
                    self.step(Event::SpawnFailed { n, incarnation, why: "no".into() });
                }
            }
            Act::Exit { n, code } => {
                let Some(incarnation) = self.world.alive.remove(&n) else { return };
                if !self.world.signalled.contains(&(n, incarnation)) {
                    self.unexpected(n, self.life.is_rolling());
                }
                self.step(Event::Exited { n, incarnation, exit: Exit::Code(code) });
            }
            Act::Ready { n } => self.about(n, |n, incarnation| Event::Ready { n, incarnation }),
            Act::Dead { n } => self.about(n, |n, incarnation| Event::Dead { n, incarnation, why: "x".into() }),
            Act::Alive { n } => self.about(n, |n, incarnation| Event::Alive { n, incarnation }),
            Act::Drained { n } => self.about(n, |n, incarnation| Event::Drained { n, incarnation }),
            Act::Stale { n, incarnation } => {
                if self.world.alive.get(&n) != Some(&incarnation) && self.world.asked.get(&n) != Some(&incarnation) {
                    self.step(Event::Exited { n, incarnation, exit: Exit::Code(1) });
                    self.step(Event::Ready { n, incarnation });
                    self.step(Event::Spawned { n, incarnation });
                    self.step(Event::Drained { n, incarnation });
                }
            }
        }
    }

    /// An exit that counts, unless the instance was on its way to something else by command.
    fn unexpected(&mut self, n: u16, rolling: bool) {
        let draining =
            self.life.cells.get(&n).is_none_or(|c| matches!(c.phase, Phase::Draining { .. } | Phase::Spawning { then: Some(_) }));
        if !rolling && !draining {
            self.world.ended.insert(n, self.now);
        } else {
            self.world.ended.remove(&n);
        }
    }

    fn about(&mut self, n: u16, event: impl Fn(u16, u64) -> Event) {
        if let Some(incarnation) = self.world.alive.get(&n) {
            self.step(event(n, *incarnation));
        }
    }
}

fn run(acts: Vec<Act>, procs: u16) -> Run {
    let mut run = Run { life: Life::new(Arc::new(spec(procs)), 1), world: World::default(), now: Duration::ZERO, dice: 7 };
    for act in acts {
        run.act(act);
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_process_an_instance_and_none_before_the_minimum_delay(acts in prop::collection::vec(act(), 0..120), procs in 1u16..4) {
        run(acts, procs);
    }

    #[test]
    fn after_stop_everything_ends_in_stopped(acts in prop::collection::vec(act(), 0..80), procs in 1u16..4) {
        let mut run = run(acts, procs);
        run.step(Event::Stop);
        for _ in 0..200 {
            if run.life.is_at_rest() {
                break;
            }
            for n in 0..4 {
                run.act(Act::Answer { n, good: true });
                // Only KILL ends them.
                let stubborn = run.life.cells.get(&n).is_none_or(|c| matches!(c.phase, Phase::Killing { .. }));
                if stubborn {
                    run.act(Act::Exit { n, code: 0 });
                }
            }
            run.act(Act::Due);
        }
        prop_assert!(run.life.view().all(|v| v.state == State::Stopped), "{:?}", run.life);
        prop_assert!(run.world.alive.is_empty());
        prop_assert_eq!(run.life.due(), None);
    }

    #[test]
    fn a_crashing_app_never_exceeds_its_budget(procs in 1u16..4, dice in any::<u64>(), life_ms in 0u64..5000) {
        let mut run = Run { life: Life::new(Arc::new(spec(procs)), 1), world: World::default(), now: Duration::ZERO, dice };
        run.step(Event::Start);
        run.world.tries.clear();
        while run.now < secs(1800) {
            for n in 0..procs {
                run.act(Act::Answer { n, good: true });
                if run.world.alive.contains_key(&n) {
                    run.act(Act::Ready { n });
                }
            }
            run.now += ms(life_ms);
            for n in 0..procs {
                run.act(Act::Exit { n, code: 1 });
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
