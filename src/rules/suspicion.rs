//! Suspicion rule: which servers hang, and which of the requests that wait there go on to a sibling.
//!
//! Pure. `edge::upstream::pool` brings what it knows of each server of an upstream, a few times a second; the prober asks those that [`Verdict::Questioned`] names.
//!
//! Shape: Trusted ─a request has waited [`PATIENCE`] without a byte from the server→ Questioned: it and its siblings are probed
//!        ─[`GRACE`] more, and a sibling has answered what it was asked meanwhile→ Suspect: out of the rotation ─any byte→ Trusted.
//!        Nothing is remembered: the same facts give the same verdict.
//!        A server is compared with what a sibling did in the same time, and with what it did within [`PATIENCE`], so a pool where all are slow takes nobody out; and because the sibling must have been asked after
//!        the suspect had been silent for [`PATIENCE`], servers that stop together never vouch against each other. So not all of a pool are ever suspect.
//!        A byte of any answer counts: a long poll waits in peace on a server that sends others something.
//! Units: times since an epoch of the caller's.
//! Source: a stopped process accepts connections (its kernel does), so neither a connection nor a TCP probe says anything of it.

use std::time::Duration;

/// A request waits so long without a byte from its server before anyone is asked.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// So long the server has to answer a probe. A server that is well takes milliseconds.
pub const GRACE: Duration = Duration::from_millis(500);
/// A suspect that has been silent for so long gives up what was sent to it later than the first request that it is silent about.
const MOVES: Duration = Duration::from_secs(3);
/// The first request, and whatever was there before, may be what the server is working on (one worker, one slow page): it would be done twice. It moves after so long.
const MOVES_FIRST: Duration = Duration::from_secs(6);

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// When it was sent the first request of those since which no byte has come from it; `None`: it owes nothing.
    pub owes_since: Option<Duration>,
    /// When it was sent the latest of those requests, probes included, that it has answered within [`PATIENCE`].
    pub answered: Option<Duration>,
    /// It may be picked for requests.
    pub serves: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Trusted,
    /// To be probed at once, and its siblings too, where none has answered in the same time.
    Questioned,
    /// It hangs, as far as anyone can tell. It takes requests only where no other server does.
    Suspect,
}

/// The verdict on one server, beside its siblings.
#[must_use]
pub fn judge(server: &Known, siblings: impl Iterator<Item = Known>, now: Duration) -> Verdict {
    let Some(since) = server.owes_since else { return Verdict::Trusted };
    let silent = now.saturating_sub(since);
    if silent < PATIENCE {
        return Verdict::Trusted;
    }
    let mut siblings = siblings.filter(|sibling| sibling.serves).peekable();
    if siblings.peek().is_none() {
        // The last one is never taken out.
        return Verdict::Trusted;
    }
    let vouched = siblings.any(|sibling| vouches(&sibling, since));
    if vouched && silent >= PATIENCE + GRACE { Verdict::Suspect } else { Verdict::Questioned }
}

/// Whether the server has answered what it was asked when the other had been silent for [`PATIENCE`] since then.
#[must_use]
pub fn vouches(sibling: &Known, since: Duration) -> bool {
    sibling.serves && sibling.answered.is_some_and(|asked| asked >= since.saturating_add(PATIENCE))
}

/// Whether a request that may be repeated leaves a suspect, which is silent since then. `sent`: when the request was.
#[must_use]
pub fn moves(since: Duration, sent: Duration, now: Duration) -> bool {
    now.saturating_sub(since) >= if sent > since { MOVES } else { MOVES_FIRST }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn owes(since: u64) -> Known {
        Known { owes_since: Some(ms(since)), answered: None, serves: true }
    }

    fn answered(asked: u64) -> Known {
        Known { owes_since: None, answered: Some(ms(asked)), serves: true }
    }

    fn verdict(server: Known, siblings: &[Known], now: u64) -> Verdict {
        judge(&server, siblings.iter().copied(), ms(now))
    }

    #[test]
    fn a_server_that_is_silent_while_a_sibling_answers_is_suspect_within_three_seconds() {
        let sibling = [answered(12_000)];
        assert_eq!(verdict(owes(10_000), &sibling, 11_999), Verdict::Trusted);
        assert_eq!(verdict(owes(10_000), &sibling, 12_000), Verdict::Questioned);
        assert_eq!(verdict(owes(10_000), &sibling, 12_500), Verdict::Suspect);
        assert_eq!(verdict(Known { owes_since: None, ..owes(0) }, &sibling, 12_500), Verdict::Trusted, "it has sent a byte");
    }

    #[test]
    fn where_nobody_answers_nobody_is_suspect() {
        for now in (0..60_000).step_by(50) {
            let slow = [owes(20), Known { owes_since: Some(ms(30)), answered: Some(ms(10)), serves: true }];
            assert_ne!(verdict(owes(10), &slow, now), Verdict::Suspect, "at {now}");
        }
    }

    #[test]
    fn servers_that_stop_one_after_the_other_do_not_vouch_against_each_other() {
        // The second answered for two more seconds, then it hung as well: what it was sent in that time says nothing.
        let second = Known { owes_since: Some(ms(1_999)), answered: Some(ms(1_998)), serves: true };
        assert!((0..60_000).step_by(50).all(|now| verdict(owes(0), &[second], now) != Verdict::Suspect));
    }

    #[test]
    fn the_last_one_that_serves_is_never_asked_nor_suspect() {
        let down = Known { serves: false, ..answered(5_000) };
        assert_eq!(verdict(owes(0), &[down], 60_000), Verdict::Trusted);
        assert_eq!(verdict(owes(0), &[], 60_000), Verdict::Trusted);
        assert_eq!(verdict(owes(0), &[down, owes(0)], 60_000), Verdict::Questioned);
    }

    #[test]
    fn what_it_may_be_working_on_moves_last() {
        assert!(!moves(ms(0), ms(1), ms(2_999)) && moves(ms(0), ms(1), ms(3_000)));
        for sent in [ms(1_000), ms(10)] {
            assert!(!moves(ms(1_000), sent, ms(6_999)) && moves(ms(1_000), sent, ms(7_000)), "{sent:?}");
        }
    }

    /// What happens to the servers of a pool, one step after the other.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A request, or a probe.
        Ask(usize),
        /// A byte comes, with the answer to the request that was sent so many before the last.
        Answer(usize, usize),
        Pass(u64),
    }

    /// The facts of a pool as the shell would note them.
    fn after(steps: &[Step], servers: usize) -> (Vec<Known>, Duration) {
        let mut known = vec![Known { serves: true, ..Known::default() }; servers];
        let mut asked: Vec<Vec<Duration>> = vec![Vec::new(); servers];
        let mut now = Duration::ZERO;
        for step in steps {
            match *step {
                Step::Ask(server) => {
                    known[server].owes_since.get_or_insert(now);
                    asked[server].push(now);
                }
                Step::Answer(server, back) => {
                    let waiting = &mut asked[server];
                    if !waiting.is_empty() {
                        let at = waiting.len() - 1 - back % waiting.len();
                        let sent = waiting.remove(at);
                        known[server] = Known { owes_since: None, answered: known[server].answered.max(Some(sent)), ..known[server] };
                    }
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
        }
        (known, now)
    }

    fn judged(known: &[Known], now: Duration) -> Vec<Verdict> {
        let others = |at: usize| known.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, known)| *known);
        known.iter().enumerate().map(|(at, server)| judge(server, others(at), now)).collect()
    }

    fn step(servers: usize) -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..servers).prop_map(Step::Ask),
            2 => (0..servers, 0..4_usize).prop_map(|(server, back)| Step::Answer(server, back)),
            2 => (1..3_000_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn not_all_of_a_pool_are_ever_suspect(steps in proptest::collection::vec(step(3), 0..60), servers in 1..4_usize) {
            let steps: Vec<_> = steps.into_iter().filter(|step| match step {
                Step::Ask(server) | Step::Answer(server, _) => *server < servers,
                Step::Pass(_) => true,
            }).collect();
            for end in 0..=steps.len() {
                let (known, now) = after(&steps[..end], servers);
                prop_assert!(judged(&known, now).iter().any(|verdict| *verdict != Verdict::Suspect), "{known:?} at {now:?}");
            }
        }

        #[test]
        fn no_server_is_suspect_that_has_sent_a_byte_in_the_last_two_seconds_and_a_half(steps in proptest::collection::vec(step(3), 0..60)) {
            let (known, now) = after(&steps, 3);
            for (server, verdict) in known.iter().zip(judged(&known, now)) {
                let silent = server.owes_since.map_or(Duration::ZERO, |since| now - since);
                prop_assert!(verdict != Verdict::Suspect || silent >= PATIENCE + GRACE);
            }
        }

        #[test]
        fn a_byte_ends_every_suspicion_at_once(steps in proptest::collection::vec(step(3), 0..60), server in 0..3_usize) {
            let mut steps = steps;
            steps.extend([Step::Ask(server), Step::Answer(server, 0)]);
            let (known, now) = after(&steps, 3);
            prop_assert_eq!(judged(&known, now)[server], Verdict::Trusted);
        }

        #[test]
        fn one_that_is_suspect_stays_so_while_it_is_silent_and_its_sibling_serves(steps in proptest::collection::vec(step(2), 0..60), more in proptest::collection::vec(step(2), 0..20)) {
            let (known, now) = after(&steps, 2);
            let suspect = judged(&known, now).iter().position(|verdict| *verdict == Verdict::Suspect);
            if let Some(suspect) = suspect {
                let more = more.into_iter().filter(|step| !matches!(step, Step::Answer(server, _) if *server == suspect));
                let all: Vec<_> = steps.into_iter().chain(more).collect();
                let (known, now) = after(&all, 2);
                prop_assert_eq!(judged(&known, now)[suspect], Verdict::Suspect);
            }
        }
    }
}
