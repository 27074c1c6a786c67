use proptest::prelude::*;

use super::*;
use crate::plan::{RestartPolicy, app::Policy, testing};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A job that takes `timeout` at most and is given 20 s to stop; exit 3 is no failure.
fn spec(cron: &str, timeout: Option<Duration>) -> Arc<App> {
    Arc::new(App {
        command: vec!["backup".into()],
        restart: RestartPolicy { policy: Policy::OnFailure, success: vec![3], ..testing::app().restart },
        schedule: Some(Schedule { cron: cron.into(), zone: Some("Europe/Rome".into()), timeout }),
        ..testing::worker()
    })
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

/// A job and both clocks, which a test moves.
struct Scene {
    job: Job,
    now: Now,
    effects: Vec<Effect>,
}

impl Scene {
    fn new(spec: Arc<App>, wall: &str) -> Self {
        Self::with(spec, None, at(wall))
    }

    fn with(spec: Arc<App>, record: Option<Record>, wall: Timestamp) -> Self {
        let now = Now { mono: secs(1000), wall };
        let (job, effects) = Job::new(spec, record, 0, now);
        let mut scene = Self { job, now, effects };
        scene.step(Event::Tick);
        scene
    }

    /// Gateway is started again at this time, with what was kept.
    fn again(&self, wall: &str) -> Self {
        let record = serde_json::to_string(self.job.record()).expect("json");
        Self::with(self.job.spec().clone(), Some(serde_json::from_str(&record).expect("the same")), at(wall))
    }

    fn step(&mut self, event: Event) -> &mut Self {
        let effects = self.job.step(event, self.now);
        self.effects.extend(effects);
        self
    }

    /// Both clocks go on, with a tick at each moment that the job asked for.
    fn wait(&mut self, duration: Duration) -> &mut Self {
        let end = self.now.mono + duration;
        while self.now.mono < end {
            let next = self.job.due(self.now).clamp(self.now.mono + Duration::from_millis(1), end);
            self.jump_both(next - self.now.mono);
            self.step(Event::Tick);
        }
        self
    }

    fn jump_both(&mut self, by: Duration) {
        self.now.mono += by;
        self.now.wall += by;
    }

    fn exits(&mut self, exit: Exit) -> &mut Self {
        let run = self.job.going().expect("a run goes").0;
        self.step(Event::Exited { run, exit, lines: vec!["bye".into()] })
    }

    fn taken(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn spawned(&mut self) -> usize {
        self.taken().iter().filter(|effect| matches!(effect, Effect::Spawn { .. })).count()
    }

    fn reports(&mut self) -> Vec<Report> {
        let report = |effect| match effect {
            Effect::Report(report) => Some(report),
            Effect::Spawn { .. } | Effect::Signal { .. } | Effect::KillGroup { .. } | Effect::Save | Effect::Publish => None,
        };
        self.taken().into_iter().filter_map(report).collect()
    }

    fn last(&self) -> (Outcome, &str) {
        let run = self.job.record().last.as_ref().expect("a run");
        (run.outcome, run.exit.as_str())
    }
}

#[test]
fn it_runs_when_it_is_due_and_not_before() {
    let mut scene = Scene::new(spec("0 2 * * *", None), "2026-11-27T00:00:00Z");
    assert_eq!(scene.job.next(), Some(at("2026-11-27T01:00:00Z")));
    scene.wait(secs(3599));
    assert_eq!(scene.spawned(), 0);
    scene.wait(secs(1));
    assert_eq!(scene.spawned(), 1);
    scene.wait(secs(90)).exits(Exit::Code(0));
    assert_eq!(scene.last(), (Outcome::Succeeded, "exit 0"));
    assert_eq!(scene.job.record().last.as_ref().expect("a run").took_ms, 90_000);
    assert_eq!(scene.job.next(), Some(at("2026-11-28T01:00:00Z")));
    assert_eq!(scene.job.record().counts, Counts { succeeded: 1, ..Counts::default() });
}

#[test]
fn a_time_that_comes_while_it_still_runs_is_skipped_and_said() {
    let mut scene = Scene::new(spec("*/10 * * * *", None), "2026-11-27T00:09:00Z");
    scene.wait(secs(60));
    assert_eq!(scene.spawned(), 1);
    scene.wait(secs(1200));
    let (first, second, third) = (at("2026-11-27T00:10:00Z"), at("2026-11-27T00:20:00Z"), at("2026-11-27T00:30:00Z"));
    assert_eq!(scene.reports(), [Report::Skipped { due: second, started: first }, Report::Skipped { due: third, started: first }]);
    scene.exits(Exit::Code(0)).wait(secs(600));
    assert_eq!(scene.spawned(), 1, "the next time it runs again");
    assert_eq!(scene.job.record().counts.skipped, 2);
}

#[test]
fn what_was_missed_while_gateway_was_down_is_said_once_and_not_made_up_for() {
    let mut scene = Scene::new(spec("0 * * * *", None), "2026-11-27T00:30:00Z");
    scene.wait(secs(1800)).exits(Exit::Code(0));
    let mut later = scene.again("2026-11-27T05:30:00Z");
    assert_eq!(later.reports(), [Report::Missed { count: 4, more: false, since: at("2026-11-27T02:00:00Z") }]);
    assert_eq!((later.job.going().is_some(), later.job.record().counts.missed), (false, 4));
    assert_eq!(later.again("2026-11-27T05:40:00Z").reports(), []);
}

#[test]
fn a_restart_of_gateway_neither_repeats_a_run_nor_loses_one_that_is_just_due() {
    let mut scene = Scene::new(spec("0 * * * *", None), "2026-11-27T00:59:50Z");
    scene.wait(secs(12)).exits(Exit::Code(0));
    assert_eq!(scene.again("2026-11-27T01:00:20Z").spawned(), 0, "it ran at 01:00 already");
    assert_eq!(scene.again("2026-11-27T02:00:20Z").spawned(), 1, "20 s late is not missed");
    assert_eq!(scene.again("2026-11-27T02:01:01Z").spawned(), 0, "more than a minute late is");
}

#[test]
fn a_run_that_ended_with_gateway_is_a_failure() {
    let mut scene = Scene::new(spec("0 * * * *", None), "2026-11-27T00:59:50Z");
    scene.wait(secs(12));
    let mut later = scene.again("2026-11-27T01:30:00Z");
    assert_eq!(later.reports(), [Report::Lost { started: at("2026-11-27T01:00:00Z") }]);
    assert_eq!(later.last().0, Outcome::Failed);
    assert_eq!(later.again("2026-11-27T01:31:00Z").reports(), []);
}

#[test]
fn a_machine_that_slept_says_so_and_a_clock_that_was_put_back_does_not_stop_the_job() {
    let mut scene = Scene::new(spec("*/5 * * * *", None), "2026-11-27T00:01:00Z");
    scene.now.wall = at("2026-11-27T00:58:00Z");
    scene.step(Event::Tick);
    assert_eq!(scene.reports(), [Report::Missed { count: 11, more: false, since: at("2026-11-27T00:05:00Z") }]);
    // By a few minutes: what has been is not done again.
    scene.now.wall = at("2026-11-27T00:50:00Z");
    scene.step(Event::Tick).wait(secs(9 * 60));
    assert_eq!(scene.spawned(), 0);
    scene.wait(secs(60));
    assert_eq!(scene.spawned(), 1);
    scene.exits(Exit::Code(0));
    // By years: the clock had been wrong.
    scene.now.wall = at("2020-01-01T00:01:00Z");
    scene.step(Event::Tick);
    assert!(scene.reports().iter().any(|report| matches!(report, Report::ClockPutBack { .. })));
    scene.wait(secs(240));
    assert_eq!(scene.spawned(), 1);
}

#[test]
fn years_of_missed_minutes_are_not_counted_to_the_end() {
    let mut scene = Scene::new(spec("* * * * *", None), "2026-11-27T00:00:30Z");
    scene.now.wall = at("2036-11-27T00:00:30Z");
    scene.step(Event::Tick);
    assert_eq!(scene.reports(), [Report::Missed { count: 1000, more: true, since: at("2026-11-27T00:01:00Z") }]);
    scene.wait(secs(30));
    assert_eq!(scene.spawned(), 1);
}

#[test]
fn a_run_that_takes_too_long_is_told_to_stop_and_killed_in_the_end() {
    let mut scene = Scene::new(spec("0 * * * *", Some(secs(600))), "2026-11-27T00:59:00Z");
    scene.wait(secs(60)).taken();
    scene.wait(secs(599));
    assert_eq!(scene.taken(), []);
    scene.wait(secs(1));
    assert_eq!(scene.taken(), [Effect::Report(Report::TimedOut { after: secs(600) }), Effect::Signal { run: 1 }, Effect::Publish]);
    scene.wait(secs(20));
    assert_eq!(scene.taken(), [Effect::Report(Report::Stubborn), Effect::KillGroup { run: 1 }]);
    scene.wait(secs(5));
    assert_eq!(scene.taken(), [Effect::Report(Report::Stubborn), Effect::KillGroup { run: 1 }], "what has not gone is killed again");
    scene.exits(Exit::Signal(9));
    assert_eq!(scene.last(), (Outcome::Failed, "timed out after 10m: signal 9 (KILL)"));
}

#[test]
fn how_it_ended_is_judged_by_code_and_by_who_ended_it() {
    for (exit, outcome) in [
        (Exit::Code(0), Outcome::Succeeded),
        (Exit::Code(3), Outcome::Succeeded),
        (Exit::Code(1), Outcome::Failed),
        (Exit::Signal(11), Outcome::Failed),
        (Exit::Memory { max: Some(1) }, Outcome::Failed),
    ] {
        let mut scene = Scene::new(spec("@yearly", None), "2026-11-27T00:00:00Z");
        scene.step(Event::Start).exits(exit);
        assert_eq!(scene.last().0, outcome, "{exit}");
    }
    let mut stopped = Scene::new(spec("@yearly", None), "2026-11-27T00:00:00Z");
    stopped.step(Event::Start).step(Event::Stop).exits(Exit::Signal(15));
    assert_eq!(stopped.last(), (Outcome::Stopped, "stopped: signal 15 (TERM)"));
    assert_eq!(stopped.job.record().counts, Counts { stopped: 1, ..Counts::default() });
}

#[test]
fn a_new_schedule_counts_at_once_and_leaves_the_run_alone() {
    let mut scene = Scene::new(spec("0 * * * *", None), "2026-11-27T00:59:50Z");
    scene.wait(secs(12)).taken();
    scene.step(Event::Change(spec("30 * * * *", None)));
    assert_eq!(scene.job.next(), Some(at("2026-11-27T01:30:00Z")));
    assert!(scene.taken().iter().all(|effect| matches!(effect, Effect::Save | Effect::Publish)));
    scene.exits(Exit::Code(0)).wait(secs(1800));
    assert_eq!(scene.spawned(), 1);
}

#[test]
fn restart_ends_the_run_and_begins_another_and_close_begins_none() {
    let mut scene = Scene::new(spec("0 * * * *", None), "2026-11-27T00:00:00Z");
    scene.step(Event::Restart).taken();
    scene.step(Event::Restart);
    assert_eq!(scene.taken(), [Effect::Signal { run: 1 }, Effect::Publish]);
    scene.exits(Exit::Signal(15));
    assert_eq!(scene.spawned(), 1);
    scene.step(Event::Close).step(Event::Start);
    assert!(!scene.job.is_gone());
    scene.exits(Exit::Code(0)).wait(secs(7200));
    assert_eq!((scene.job.is_gone(), scene.spawned(), scene.job.next()), (true, 0, None));
}

#[test]
fn a_run_whose_leader_left_others_is_over_when_they_are_and_is_judged_by_its_leader() {
    let mut scene = Scene::new(spec("@yearly", None), "2026-11-27T00:00:00Z");
    scene.step(Event::Start).taken();
    scene.step(Event::Left { run: 1 });
    assert_eq!(scene.taken(), [Effect::Signal { run: 1 }, Effect::Publish], "they are told to stop");
    scene.step(Event::Left { run: 1 }).step(Event::Stop).step(Event::Start);
    assert_eq!(scene.taken(), [], "once");
    scene.exits(Exit::Code(0));
    assert_eq!(scene.last(), (Outcome::Succeeded, "exit 0"));
    scene.step(Event::Start).step(Event::Left { run: 2 }).step(Event::Restart).taken();
    scene.exits(Exit::Code(3));
    assert_eq!((scene.spawned(), scene.last()), (1, (Outcome::Stopped, "stopped: exit 3")), "a restart meanwhile runs it again");
    scene.step(Event::Left { run: 2 }).step(Event::Left { run: 3 }).taken();
    scene.wait(secs(3600));
    assert!(scene.taken().contains(&Effect::KillGroup { run: 3 }), "their patience is the job's");
}

#[test]
fn the_hour_that_is_skipped_in_spring_and_the_one_that_comes_twice_in_autumn_are_one_run_each() {
    for (wall, runs) in [("2026-03-28T12:00:00Z", 1), ("2026-10-24T12:00:00Z", 1)] {
        let mut scene = Scene::new(spec("30 2 * * *", None), wall);
        let mut begun = 0;
        for _ in 0..24 {
            scene.wait(secs(3600));
            begun += scene.spawned();
            if scene.job.going().is_some() {
                scene.exits(Exit::Code(0));
            }
        }
        assert_eq!(begun, runs, "{wall}");
    }
}

proptest! {
    /// However the clock goes forward and however long runs take: each time of the schedule is kept, skipped or missed, exactly once,
    /// and two runs never overlap.
    #[test]
    fn every_time_is_accounted_for_once(steps in prop::collection::vec((1_u64..900, any::<bool>(), any::<bool>()), 1..60)) {
        let start = at("2026-11-27T00:00:30Z");
        let mut scene = Scene::with(spec("*/3 * * * *", None), None, start);
        let (mut begun, mut alive) = (0, 0_i32);
        for (seconds, sleeps, exits) in steps {
            if sleeps {
                scene.jump_both(secs(seconds));
                scene.step(Event::Tick);
            } else {
                scene.wait(secs(seconds));
            }
            if exits && scene.job.going().is_some() {
                scene.exits(Exit::Code(1));
            }
            for effect in scene.taken() {
                match effect {
                    Effect::Spawn { .. } => { begun += 1; alive += 1; prop_assert_eq!(alive, 1); }
                    Effect::Report(Report::Ended(_)) => alive -= 1,
                    Effect::Report(_) | Effect::Signal { .. } | Effect::KillGroup { .. } | Effect::Save | Effect::Publish => {}
                }
            }
        }
        let all = (scene.now.wall.as_second() / 180) - (start.as_second() / 180);
        let Counts { skipped, missed, .. } = scene.job.record().counts;
        prop_assert_eq!(u64::try_from(all).expect("forward"), begun + skipped + missed);
    }

    /// Any event at any time, late and doubled: no panic, and never two at once.
    #[test]
    fn it_answers_everything(events in prop::collection::vec((0_u8..10, 0_u64..4, 0_u64..400), 0..80)) {
        let mut scene = Scene::new(spec("* * * * *", Some(secs(100))), "2026-11-27T00:00:30Z");
        let mut alive = None;
        for (kind, run, seconds) in events {
            scene.jump_both(secs(seconds));
            let event = match kind {
                0 => Event::Start,
                1 => Event::Stop,
                2 => Event::Restart,
                3 => Event::Change(spec("*/2 * * * *", None)),
                4 if seconds > 390 => Event::Close,
                5 if seconds > 390 => Event::KillNow,
                6 => Event::SpawnFailed { run, why: "no".into() },
                7 => Event::Exited { run, exit: Exit::Code(0), lines: Vec::new() },
                8 => Event::Left { run },
                _ => Event::Tick,
            };
            scene.step(event);
            for effect in scene.taken() {
                match effect {
                    Effect::Report(Report::Ended(_)) => alive = None,
                    Effect::Spawn { run } => {
                        prop_assert_eq!(alive, None);
                        alive = Some(run);
                    }
                    Effect::Signal { run } | Effect::KillGroup { run } => prop_assert_eq!(alive, Some(run)),
                    Effect::Report(_) | Effect::Save | Effect::Publish => {}
                }
            }
        }
    }
}
