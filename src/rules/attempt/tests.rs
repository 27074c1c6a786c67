//! Examples, and the laws against a model of servers that live, die and are replaced.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::{Cause::*, Repeat::*, *};

#[derive(Clone, Copy, Debug)]
struct Server {
    id: u32,
    alive: bool,
    /// Has left the rotation, or is full.
    shut: bool,
    on_trial: bool,
}

/// The servers, and what was asked of them.
#[derive(Debug)]
struct World {
    servers: Vec<Server>,
    next: u32,
    rule: Retry,
    budget: u32,
    coming: bool,
    entered: u32,
    asked: u32,
    paid: u32,
}

fn rule(tries: u32, on: &[RetryOn]) -> Retry {
    Retry { tries: NonZeroU32::new(tries).expect("some"), on: on.to_vec(), budget: 0.2 }
}

fn world(servers: u32) -> World {
    let mut world = World {
        servers: Vec::new(),
        next: 0,
        rule: rule(3, &[RetryOn::Connect]),
        budget: 100,
        coming: true,
        entered: 0,
        asked: 0,
        paid: 0,
    };
    (0..servers).for_each(|_| world.add(false));
    world
}

impl World {
    fn add(&mut self, on_trial: bool) {
        self.servers.push(Server { id: self.next, alive: true, shut: false, on_trial });
        self.next += 1;
    }

    fn server(&mut self, id: u32) -> &mut Server {
        self.servers.iter_mut().find(|server| server.id == id).expect("no server is forgotten here")
    }

    fn found(server: &Server) -> Found<u32> {
        Found { id: server.id, on_trial: server.on_trial }
    }
}

impl Servers for World {
    type Id = u32;

    fn rule(&self) -> &Retry {
        &self.rule
    }

    fn enter(&mut self) {
        self.entered += 1;
    }

    fn spend(&mut self) -> bool {
        self.asked += 1;
        let may = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        self.paid += u32::from(may);
        may
    }

    fn pick(&mut self, but: &[u32], trust: Trust) -> Option<Found<u32>> {
        let fits = |server: &&Server| !server.shut && !but.contains(&server.id) && (trust == Trust::Any || !server.on_trial);
        self.servers.iter().find(fits).map(Self::found)
    }

    fn again(&mut self, id: u32) -> Option<Found<u32>> {
        self.servers.iter().find(|server| server.id == id && !server.shut).map(Self::found)
    }

    fn has_proven(&self) -> bool {
        self.servers.iter().any(|server| !server.shut && !server.on_trial)
    }

    fn comes(&self) -> bool {
        self.coming
    }
}

/// A request in its world.
struct Story {
    world: World,
    attempt: Attempt<u32>,
    next: Next,
}

impl Story {
    fn new(world: World) -> Self {
        let mut story = Self { world, attempt: Attempt::new(), next: Next::Stay };
        story.step(Event::Wanted);
        story
    }

    fn step(&mut self, event: Event) -> Next {
        self.next = self.attempt.step(event, &mut self.world);
        self.next
    }

    fn on(&self) -> Option<u32> {
        match self.attempt.state {
            State::On(on) => Some(on.server),
            State::Fresh | State::Waiting | State::Answering | State::Over => None,
        }
    }

    fn sends(&mut self) -> &mut Self {
        self.step(Event::Connected);
        self.step(Event::Sent);
        self
    }

    fn fails(&mut self, cause: Cause, repeat: Repeat) -> Next {
        self.step(Event::Failed(cause, repeat))
    }

    /// The server dies with the request on a kept connection: told by the connection first, and then by the next one.
    fn dies(&mut self) -> Next {
        let server = self.on().expect("on a server");
        self.sends();
        let stale = self.fails(Stale, Harmless);
        assert_eq!((stale, self.on()), (Next::Go, Some(server)), "the same one is asked whether it lives");
        self.fails(Connect, Harmless)
    }
}

#[test]
fn a_poison_request_reaches_two_processes_and_ends_with_502() {
    let mut story = Story::new(world(5));
    assert_eq!((story.dies(), story.on()), (Next::Go, Some(1)));
    assert_eq!(story.sends().fails(Reset, Harmless), Next::End, "it has met two deaths");
    assert_eq!((story.attempt.lost(), story.attempt.failure().map(Cause::status)), (2, Some(502)));
}

#[test]
fn it_is_held_once_for_the_restarted_process() {
    let mut story = Story::new(world(1));
    story.world.servers[0].shut = true;
    let mut story = Story::new(World { coming: true, ..story.world });
    assert_eq!(story.next, Next::Wait, "nobody is there yet");
    story.world.add(false);
    assert_eq!(story.step(Event::Rang { afresh: false }), Next::Go);
    assert_eq!(story.sends().fails(Reset, Harmless), Next::Wait, "the only one died of it");
    story.world.server(1).shut = true;
    assert_eq!(story.step(Event::Rang { afresh: true }), Next::Wait);
    story.world.add(false);
    assert_eq!(story.step(Event::Rang { afresh: false }), Next::Go);
    assert_eq!(story.sends().fails(Reset, Harmless), Next::End);
}

#[test]
fn a_kept_connection_that_was_given_up_costs_nothing_and_is_no_death() {
    let mut story = Story::new(World { rule: rule(1, &[]), budget: 0, ..world(1) });
    assert_eq!(story.sends().fails(Stale, Harmless), Next::Go, "the same server, on a new connection");
    assert_eq!(story.sends().step(Event::Status(200, Harmless)), Next::Answer);
    assert_eq!((story.attempt.lost(), story.world.asked), (0, 0));
}

#[test]
fn who_closes_kept_connections_and_then_meets_one_death_is_answered() {
    let mut story = Story::new(world(2));
    story.sends().fails(Stale, Harmless);
    assert_eq!(story.sends().fails(Reset, Harmless), Next::Go, "one death");
    assert_eq!((story.attempt.lost(), story.on()), (1, Some(1)));
}

#[test]
fn what_a_server_has_not_looked_at_goes_on_whatever_it_is() {
    let mut story = Story::new(world(2));
    assert_eq!(story.sends().fails(NotTaken, Harmful), Next::Go);
    assert_eq!(story.on(), Some(0), "the same server, on a new connection");
    assert_eq!(story.sends().fails(NotTaken, Harmful), Next::Go);
    assert_eq!((story.on(), story.world.paid, story.attempt.lost()), (Some(1), 0, 0), "the next one; nobody has failed");
    assert_eq!(story.sends().fails(Reset, Harmful), Next::End, "it was taken, and may have had effect");
    // What another one may have had stays there, whatever the next one says.
    let mut story = Story::new(world(3));
    assert_eq!(story.sends().fails(Reset, Harmless), Next::Go);
    assert_eq!(story.sends().fails(NotTaken, Harmful), Next::End, "its body is gone meanwhile");
}

#[test]
fn what_cannot_be_sent_is_tried_nowhere_else() {
    let mut story = Story::new(world(3));
    assert_eq!((story.fails(Unsendable, Harmless), story.attempt.lost()), (Next::End, 0));
}

#[test]
fn what_may_have_had_effect_goes_nowhere_else() {
    for cause in [Stale, Reset, Timeout, Broken] {
        let mut story = Story::new(world(3));
        assert_eq!(story.sends().fails(cause, Harmful), Next::End, "{cause:?}");
    }
    let mut story = Story::new(world(3));
    assert_eq!(story.fails(Connect, Harmful), Next::Go, "nothing was sent");
    assert_eq!(story.sends().fails(Reset, Harmful), Next::End);
    assert_eq!(Repeat::of(&http::Method::PUT, true), Harmless);
    assert_eq!((Repeat::of(&http::Method::PUT, false), Repeat::of(&http::Method::POST, true)), (Harmful, Harmful));
}

#[test]
fn a_body_that_is_gone_is_not_sent_again_even_where_the_next_server_took_nothing() {
    let mut story = Story::new(world(3));
    assert_eq!(story.sends().fails(Reset, Harmless), Next::Go);
    assert_eq!(story.fails(Connect, Harmful), Next::End, "the first one has had a part of it");
}

#[test]
fn a_post_that_a_release_on_trial_did_not_take_is_sent_once() {
    let mut world = world(0);
    world.add(true);
    (0..3).for_each(|_| world.add(false));
    let mut story = Story::new(world);
    assert_eq!(story.on(), Some(0), "the new release");
    assert_eq!((story.fails(Connect, Harmful), story.on()), (Next::Go, Some(1)), "an old process stands by");
    assert_eq!(story.sends().fails(Reset, Harmful), Next::End, "it has it now, and breaks off");
}

#[test]
fn a_failure_on_trial_is_free_and_the_ones_after_it_are_not() {
    let mut world = World { budget: 0, ..world(0) };
    world.add(true);
    (0..3).for_each(|_| world.add(false));
    let mut story = Story::new(world);
    assert_eq!(story.sends().step(Event::Status(500, Harmless)), Next::Go);
    assert_eq!((story.world.asked, story.on()), (0, Some(1)));
    assert_eq!(story.fails(Connect, Harmless), Next::Wait, "no budget is left");
    assert_eq!(story.world.asked, 1);
}

#[test]
fn the_answer_of_a_proven_server_stands_and_that_of_one_on_trial_where_nobody_stands_by() {
    let mut story = Story::new(world(2));
    assert_eq!(story.sends().step(Event::Status(500, Harmless)), Next::Answer);
    let mut world = world(0);
    world.add(true);
    let mut story = Story::new(world);
    assert_eq!(story.sends().step(Event::Status(500, Harmless)), Next::Answer);
}

#[test]
fn after_the_first_word_of_an_answer_nothing_moves() {
    for cause in [Connect, Stale, Reset, Timeout, Broken] {
        let mut world = world(0);
        (0..3).for_each(|_| world.add(true));
        world.add(false);
        let mut story = Story::new(world);
        story.fails(Connect, Harmless);
        assert_eq!(story.sends().step(Event::Status(200, Harmless)), Next::Answer);
        assert_eq!(story.fails(cause, Harmless), Next::End, "{cause:?}");
        assert_eq!(story.step(Event::Late(Harmless)), Next::End);
    }
}

#[test]
fn the_rule_says_what_is_tried_elsewhere() {
    let all = [RetryOn::Connect, RetryOn::Timeout, RetryOn::Status(503)];
    let next = |rule: Retry, cause| Story::new(World { rule, coming: false, ..world(2) }).sends().fails(cause, Harmless);
    for cause in [Connect, Reset, Timeout] {
        assert_eq!(next(rule(2, &all), cause), Next::Go, "{cause:?}");
        assert_eq!(next(rule(2, &[]), cause), Next::End, "{cause:?}");
        assert_eq!(next(rule(1, &all), cause), Next::End, "{cause:?}");
    }
    let status = |rule: Retry, status| Story::new(World { rule, ..world(2) }).sends().step(Event::Status(status, Harmless));
    assert_eq!(status(rule(2, &all), 503), Next::Go);
    assert_eq!(status(rule(2, &all), 502), Next::Answer);
    assert_eq!(status(rule(1, &all), 503), Next::Answer);
}

#[test]
fn a_server_that_was_told_to_go_is_no_death_and_costs_nothing() {
    let mut story = Story::new(World { budget: 0, ..world(5) });
    for _ in 0..4 {
        assert_eq!(story.sends().fails(Left, Harmless), Next::Go);
    }
    assert_eq!((story.attempt.lost(), story.world.asked), (0, 0));
    assert_eq!(story.sends().fails(Left, Harmful), Next::End, "it may have had effect");
}

#[test]
fn whom_the_budget_refuses_waits_for_a_new_server_or_for_a_pause() {
    let mut story = Story::new(World { budget: 0, ..world(3) });
    assert_eq!(story.fails(Connect, Harmless), Next::Wait);
    assert_eq!(story.step(Event::Rang { afresh: false }), Next::Wait, "the same three");
    story.world.add(false);
    assert_eq!((story.step(Event::Rang { afresh: false }), story.on()), (Next::Go, Some(3)), "a new one");
    assert_eq!(story.fails(Connect, Harmless), Next::Wait);
    assert_eq!(story.step(Event::Rang { afresh: true }), Next::Go, "after a pause");
}

#[test]
fn one_that_hangs_is_left_only_for_another_and_within_the_budget() {
    let mut story = Story::new(world(2));
    assert_eq!(story.sends().step(Event::Late(Harmful)), Next::Stay, "it may have had effect");
    assert_eq!((story.step(Event::Late(Harmless)), story.on()), (Next::Go, Some(1)));
    assert_eq!(story.world.asked, 1);
    assert_eq!(story.sends().step(Event::Late(Harmless)), Next::Stay, "there is no other one");
    assert_eq!(story.step(Event::Status(200, Harmless)), Next::Answer);
    let mut story = Story::new(World { budget: 0, ..world(2) });
    assert_eq!(story.sends().step(Event::Late(Harmless)), Next::Stay, "the budget is spent");
    assert_eq!(story.on(), Some(0));
}

#[test]
fn one_that_hangs_when_it_is_asked_whether_it_lives_counts_as_dead() {
    let mut story = Story::new(world(4));
    story.sends().fails(Stale, Harmless);
    assert_eq!((story.step(Event::Late(Harmless)), story.attempt.lost()), (Next::Go, 1));
    assert_eq!(story.sends().fails(Reset, Harmless), Next::End, "the second death");
}

#[test]
fn the_budget_is_told_once_however_long_a_request_is_held() {
    let mut story = Story::new(world(0));
    for _ in 0..50 {
        assert_eq!(story.step(Event::Rang { afresh: true }), Next::Wait);
    }
    story.world.coming = false;
    assert_eq!(story.step(Event::Rang { afresh: false }), Next::End);
    assert_eq!((story.world.entered, story.world.asked), (1, 0));
}

// ── the laws ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The server takes the connection and the request; then `Fate`.
    Serve(Fate),
    Refuse,
    Hang,
    Kill(u8),
    Shut(u8),
    Start {
        on_trial: bool,
    },
    Prove,
    Coming(bool),
    Ring {
        afresh: bool,
    },
    Late,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It dies with the request.
    Dies,
    /// A kept connection turns out to be closed; the server lives.
    GivesUp,
    Resets,
    /// It says that it has not looked at it.
    Declines,
    TimesOut,
    /// It was told to go, and breaks off.
    Leaves,
    Answers(u16),
    /// And breaks off after the head.
    Breaks(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let status = prop_oneof![Just(200u16), Just(404), Just(500), Just(502), Just(503)];
    let fate = prop_oneof![
        4 => Just(Fate::Dies),
        2 => Just(Fate::GivesUp),
        2 => Just(Fate::Resets),
        2 => Just(Fate::Declines),
        1 => Just(Fate::TimesOut),
        1 => Just(Fate::Leaves),
        2 => status.clone().prop_map(Fate::Answers),
        1 => status.prop_map(Fate::Breaks),
    ];
    prop_oneof![
        8 => fate.prop_map(Act::Serve),
        3 => Just(Act::Refuse),
        1 => Just(Act::Hang),
        1 => (0u8..6).prop_map(Act::Kill),
        1 => (0u8..6).prop_map(Act::Shut),
        3 => any::<bool>().prop_map(|on_trial| Act::Start { on_trial }),
        1 => Just(Act::Prove),
        1 => any::<bool>().prop_map(Act::Coming),
        4 => any::<bool>().prop_map(|afresh| Act::Ring { afresh }),
        1 => Just(Act::Late),
    ]
}

/// What was seen of one request.
#[derive(Default)]
struct Seen {
    /// To a server that read it while sending it twice did harm.
    sent_harmful: u32,
    deaths: u32,
    heads: u32,
    over: bool,
}

/// Lives one history and holds every law at each step of it.
fn live(world: World, repeat: Repeat, acts: &[(Act, bool)]) -> (Story, Seen) {
    let mut story = Story::new(world);
    let mut seen = Seen::default();
    for (act, kept) in acts {
        let (asked, tries) = (story.world.asked, story.attempt.tries());
        perform(&mut story, &mut seen, *act, *kept, repeat);
        assert!(story.world.asked - asked <= 1, "the budget is asked once a retry");
        assert!(story.attempt.tries() <= MOST_TRIES, "tries are bounded");
        assert_eq!(story.world.entered, 1, "the budget is told once a request");
        assert!(seen.sent_harmful <= 1, "nothing is sent twice that may have had effect");
        assert!(seen.deaths <= MOST_LOST, "it has met {} deaths", seen.deaths);
        assert!(seen.heads <= 1, "one answer");
        assert!(!seen.over || story.attempt.tries() == tries, "after the end, or the first word of an answer, nothing moves");
        seen.over |= matches!(story.attempt.state, State::Over | State::Answering);
    }
    (story, seen)
}

fn perform(story: &mut Story, seen: &mut Seen, act: Act, kept: bool, repeat: Repeat) {
    match (act, story.on()) {
        (Act::Kill(n), _) => {
            if let Some(server) = story.world.servers.get_mut(usize::from(n)) {
                server.alive = false;
            }
        }
        (Act::Shut(n), _) => {
            if let Some(server) = story.world.servers.get_mut(usize::from(n)) {
                server.shut = true;
            }
        }
        (Act::Start { on_trial }, _) => story.world.add(on_trial),
        (Act::Prove, _) => story.world.servers.iter_mut().for_each(|server| server.on_trial = false),
        (Act::Coming(coming), _) => story.world.coming = coming,
        (Act::Ring { afresh }, _) => drop(story.step(Event::Rang { afresh })),
        (Act::Late, None) => drop(story.step(Event::Late(repeat))),
        (Act::Late | Act::Hang, Some(_)) => drop(story.step(Event::Late(repeat))),
        (Act::Refuse, Some(_)) => drop(story.fails(Connect, repeat)),
        (Act::Serve(fate), Some(id)) => serve(story, seen, id, fate, kept, repeat),
        // A late word of a server that does not have it any more.
        (Act::Refuse | Act::Hang, None) => drop(story.fails(Reset, repeat)),
        (Act::Serve(_), None) => drop(story.step(Event::Status(200, repeat))),
    }
}

fn serve(story: &mut Story, seen: &mut Seen, id: u32, fate: Fate, kept: bool, repeat: Repeat) {
    let kept = kept && !story.attempt.needs_new_connection();
    let alive = story.world.server(id).alive;
    if !alive && !kept {
        story.fails(Connect, repeat);
        return;
    }
    story.sends();
    if !alive {
        // It had died before; nobody has read it.
        story.fails(Stale, repeat);
        return;
    }
    let reads = !matches!(fate, Fate::GivesUp | Fate::Declines);
    seen.sent_harmful += u32::from(reads && repeat == Harmful);
    let broken = if kept { Stale } else { Reset };
    match fate {
        Fate::Dies => {
            seen.deaths += 1;
            story.world.server(id).alive = false;
            story.fails(broken, repeat);
        }
        Fate::GivesUp | Fate::Resets => drop(story.fails(broken, repeat)),
        Fate::Declines => drop(story.fails(NotTaken, repeat)),
        Fate::Leaves => {
            story.world.server(id).shut = true;
            story.fails(Left, repeat);
        }
        Fate::TimesOut => drop(story.fails(Timeout, repeat)),
        Fate::Answers(status) | Fate::Breaks(status) => {
            if story.step(Event::Status(status, repeat)) == Next::Answer {
                seen.heads += 1;
                if let Fate::Breaks(_) = fate {
                    story.fails(Broken, repeat);
                }
            }
        }
    }
}

fn rules() -> impl Strategy<Value = Retry> {
    let on = prop::sample::subsequence(vec![RetryOn::Connect, RetryOn::Timeout, RetryOn::Status(502), RetryOn::Status(503)], 0..=4);
    (1u32..5, on).prop_map(|(tries, on)| rule(tries, &on))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_of_tries_hold_in_every_history(
        trials in prop::collection::vec(any::<bool>(), 0..5),
        rule in rules(),
        budget in 0u32..6,
        coming: bool,
        harmless: bool,
        acts in prop::collection::vec((act(), any::<bool>()), 0..40),
    ) {
        let mut world = World { rule, budget, coming, ..world(0) };
        trials.into_iter().for_each(|on_trial| world.add(on_trial));
        let repeat = if harmless { Harmless } else { Harmful };
        let (story, _) = live(world, repeat, &acts);
        prop_assert!(story.world.paid <= story.attempt.tries(), "what is paid for is tried");
    }

    #[test]
    fn a_request_that_may_be_repeated_survives_one_death_where_somebody_else_serves(others in 1u32..5, kept: bool) {
        let mut story = Story::new(world(1 + others));
        let next = if kept { story.dies() } else { story.sends().fails(Reset, Harmless) };
        prop_assert_eq!(next, Next::Go);
        prop_assert_eq!(story.sends().step(Event::Status(200, Harmless)), Next::Answer);
    }
}
