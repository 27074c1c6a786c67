//! Balance rule: which of an upstream's servers takes the next request.
//!
//! Pure. `edge::upstream::pool` brings what it knows of each server and the dice.
//!
//! Shape: first the tier (`Tier::of`), then one of its members by `turn`, `least` or `p2c`. Each is total: one of the tier is found whenever there is one.
//!        First primaries that are well, then backups that are well, then doubtful primaries and doubtful backups, and in the same order those that are suspect.
//!        All but the first two are panic mode: better a server that may be sick than an answer that surely is.
//!        A server this request has tried already counts as gone for it, so a retry may reach a backup. A full one does not: load is not sickness.
//! Source: smooth weighted round robin as in nginx's ngx_http_upstream_round_robin.c; power of two choices, Mitzenmacher 2001.

use std::{cmp::Ordering, num::NonZeroU32};

/// What is known of one server at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// At least 1; zero counts as 1.
    pub weight: u16,
    pub in_flight: u32,
    pub max_conns: Option<NonZeroU32>,
    pub role: Role,
    pub standing: Standing,
    /// By this very request.
    pub tried: bool,
}

/// In the order of preference.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Primary,
    /// Used only while no primary is up.
    Backup,
}

/// In the order of preference.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    Well,
    /// Ejected for failures, or too slow for its probes: used only when no other server is well.
    Doubtful,
    /// Silent while a sibling answers ([`super::suspicion`]): used only when there is no other server at all.
    Suspect,
    /// Proven down, never proven up, or draining: never used.
    Out,
}

/// Why no server can take the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// None is up.
    Down,
    /// Those that are up have as many requests as they may.
    Full,
    /// The request has been to every one that is up.
    Tried,
}

/// Servers that are equally fit for this request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tier {
    role: Role,
    standing: Standing,
}

impl Tier {
    /// The best tier that has a server for this request.
    ///
    /// Errors: [`Refused`]
    pub fn of(candidates: &[Candidate]) -> Result<Self, Refused> {
        let mut best: Option<Self> = None;
        let mut tried = false;
        for candidate in candidates.iter().filter(|candidate| candidate.standing != Standing::Out) {
            if candidate.tried {
                tried = true;
                continue;
            }
            let tier = Self { role: candidate.role, standing: candidate.standing };
            if best.is_none_or(|best| tier.rank() < best.rank()) {
                best = Some(tier);
            }
        }
        let tier = best.ok_or(if tried { Refused::Tried } else { Refused::Down })?;
        if candidates.iter().any(|candidate| tier.admits(candidate)) { Ok(tier) } else { Err(Refused::Full) }
    }

    #[must_use]
    pub fn admits(self, candidate: &Candidate) -> bool {
        let full = candidate.max_conns.is_some_and(|max| candidate.in_flight >= max.get());
        candidate.role == self.role && candidate.standing == self.standing && !candidate.tried && !full
    }

    /// The lower, the better.
    fn rank(self) -> (Standing, Role) {
        (self.standing, self.role)
    }

    /// No server is well.
    #[must_use]
    pub fn panic(self) -> bool {
        self.standing != Standing::Well
    }
}

/// Whose turn it is: the state of a smooth weighted round robin.
///
/// Shape: in any `sum of weights` turns over the same servers each has exactly its weight, as evenly spread as can be.
#[derive(Clone, Debug, Default)]
pub struct Wheel {
    credit: Vec<i64>,
}

impl Wheel {
    /// The next of those that fit; `None` only when none does.
    pub fn turn(&mut self, candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) -> Option<usize> {
        self.credit.resize(candidates.len(), 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate)) {
            let weight = i64::from(candidate.weight.max(1));
            total += weight;
            self.credit[index] += weight;
            if best.is_none_or(|best| self.credit[index] > self.credit[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            self.credit[best] -= total;
        }
        best
    }
}

/// Requests in flight by weight.
///
/// Shape: compared exactly, as fractions.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    in_flight: u32,
    weight: u16,
}

impl Load {
    #[must_use]
    pub fn of(candidate: &Candidate) -> Self {
        Self { in_flight: candidate.in_flight, weight: candidate.weight.max(1) }
    }

    /// With the request that is to be placed: so an idle server of weight 3 is less loaded than one of weight 1.
    fn with_one_more(self) -> Self {
        Self { in_flight: self.in_flight.saturating_add(1), ..self }
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        (u64::from(self.in_flight) * u64::from(other.weight)).cmp(&(u64::from(other.in_flight) * u64::from(self.weight)))
    }
}

/// The outcome of [`least`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Least {
    One(usize),
    /// Several have this load: they take turns.
    Tie(Load),
}

/// The fewest requests in flight by weight; `None` only when none fits.
pub fn least(candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) -> Option<Least> {
    let mut best: Option<(Load, Least)> = None;
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate)) {
        let load = Load::of(candidate);
        best = match best {
            Some((least, so_far)) => match load.cmp(&least) {
                Ordering::Less => Some((load, Least::One(index))),
                Ordering::Equal => Some((least, Least::Tie(least))),
                Ordering::Greater => Some((least, so_far)),
            },
            None => Some((load, Least::One(index))),
        };
    }
    best.map(|(_, least)| least)
}

/// The less loaded of two that the dice name; `None` only when none fits.
pub fn p2c(candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool, dice: &mut impl FnMut() -> u64) -> Option<usize> {
    let members = || candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate));
    let count = members().count() as u64;
    match count {
        0 => None,
        1 => members().next().map(|(index, _)| index),
        2.. => {
            let first = dice() % count;
            // Any of the others, each as likely.
            let second = (first + 1 + dice() % (count - 1)) % count;
            let (one, other) = (members().nth(first as usize)?, members().nth(second as usize)?);
            let lighter = Load::of(other.1).with_one_more() < Load::of(one.1).with_one_more();
            Some(if lighter { other.0 } else { one.0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn well(weight: u16, in_flight: u32) -> Candidate {
        Candidate { weight, in_flight, max_conns: None, role: Role::Primary, standing: Standing::Well, tried: false }
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let role = prop_oneof![Just(Role::Primary), Just(Role::Backup)];
        let standing = prop_oneof![Just(Standing::Well), Just(Standing::Doubtful), Just(Standing::Suspect), Just(Standing::Out)];
        let one = (0..9_u16, 0..6_u32, proptest::option::of(1..6_u32), role, standing, proptest::bool::weighted(0.2));
        let one = one.prop_map(|(weight, in_flight, max, role, standing, tried)| Candidate {
            weight,
            in_flight,
            max_conns: max.and_then(NonZeroU32::new),
            role,
            standing,
            tried,
        });
        proptest::collection::vec(one, 0..9)
    }

    /// Every way to choose, on the same candidates.
    fn choices(candidates: &[Candidate], tier: Tier, mut dice: impl FnMut() -> u64) -> [Option<usize>; 3] {
        let fits = |candidate: &Candidate| tier.admits(candidate);
        let least = match least(candidates, fits) {
            Some(Least::One(index)) => Some(index),
            Some(Least::Tie(load)) => Wheel::default().turn(candidates, |candidate| tier.admits(candidate) && Load::of(candidate) == load),
            None => None,
        };
        [Wheel::default().turn(candidates, fits), least, p2c(candidates, fits, &mut dice)]
    }

    proptest! {
        #[test]
        fn no_sick_server_while_a_well_one_exists(candidates in candidates(), seed: u64) {
            let usable = |c: &&Candidate| !c.tried;
            let well = candidates.iter().filter(usable).any(|c| c.standing == Standing::Well);
            let well_primary = candidates.iter().filter(usable).any(|c| c.standing == Standing::Well && c.role == Role::Primary);
            let mut rng = fastrand::Rng::with_seed(seed);
            if let Ok(tier) = Tier::of(&candidates) {
                prop_assert_eq!(tier.panic(), !well);
                for choice in choices(&candidates, tier, || rng.u64(..)) {
                    let chosen = candidates[choice.expect("a tier is never empty")];
                    prop_assert!(!chosen.tried && chosen.standing != Standing::Out);
                    prop_assert!(chosen.standing == Standing::Well || !well);
                    prop_assert!(chosen.standing != Standing::Suspect || candidates.iter().filter(usable).all(|c| c.standing >= Standing::Suspect));
                    prop_assert!(chosen.role == Role::Primary || !well_primary, "a backup while a primary is up");
                    prop_assert!(chosen.max_conns.is_none_or(|max| chosen.in_flight < max.get()), "over max_conns");
                }
            }
        }

        #[test]
        fn a_request_is_refused_only_where_no_server_may_take_it(candidates in candidates()) {
            let full = |c: &Candidate| c.max_conns.is_some_and(|max| c.in_flight >= max.get());
            match Tier::of(&candidates) {
                Ok(_) => {}
                Err(Refused::Down) => prop_assert!(candidates.iter().all(|c| c.standing == Standing::Out)),
                Err(Refused::Tried) => prop_assert!(candidates.iter().all(|c| c.standing == Standing::Out || c.tried)),
                Err(Refused::Full) => prop_assert!(candidates.iter().any(|c| c.standing != Standing::Out && !c.tried && full(c))),
            }
        }

        #[test]
        fn round_robin_is_fair_to_weight(weights in proptest::collection::vec(1..9_u16, 1..7), rounds in 1..4_u64) {
            let candidates: Vec<_> = weights.iter().map(|w| well(*w, 0)).collect();
            let mut wheel = Wheel::default();
            let mut taken = vec![0_u64; weights.len()];
            for _ in 0..rounds * weights.iter().map(|w| u64::from(*w)).sum::<u64>() {
                taken[wheel.turn(&candidates, |_| true).expect("there are some")] += 1;
            }
            prop_assert_eq!(taken, weights.iter().map(|w| rounds * u64::from(*w)).collect::<Vec<_>>());
        }

        #[test]
        fn no_one_has_less_in_flight_by_weight_than_the_least(candidates in candidates()) {
            match least(&candidates, |_| true) {
                None => prop_assert!(candidates.is_empty()),
                Some(Least::One(index)) => prop_assert!(candidates.iter().enumerate().all(|(i, c)| i == index || Load::of(c) > Load::of(&candidates[index]))),
                Some(Least::Tie(load)) => {
                    prop_assert!(candidates.iter().all(|c| Load::of(c) >= load));
                    prop_assert!(candidates.iter().filter(|c| Load::of(c) == load).count() >= 2);
                }
            }
        }
    }

    #[test]
    fn turns_are_spread_as_nginx_spreads_them() {
        let candidates = [well(5, 0), well(1, 0), well(1, 0)];
        let mut wheel = Wheel::default();
        let turns: Vec<_> = (0..7).filter_map(|_| wheel.turn(&candidates, |_| true)).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_full_primary_is_waited_for_but_a_tried_one_gives_way_to_the_backup() {
        let backup = Candidate { role: Role::Backup, ..well(1, 0) };
        let full = Candidate { max_conns: NonZeroU32::new(2), ..well(1, 2) };
        assert_eq!(Tier::of(&[full, backup]), Err(Refused::Full));
        let tried = Candidate { tried: true, ..well(1, 0) };
        let tier = Tier::of(&[tried, backup]).expect("the backup");
        assert!(tier.admits(&backup) && !tier.panic());
    }

    #[test]
    fn two_choices_avoid_the_loaded_one_and_reach_everyone() {
        let mut rng = fastrand::Rng::with_seed(7);
        let candidates = [well(1, 50), well(1, 0), well(1, 1)];
        let mut taken = [0; 3];
        for _ in 0..3000 {
            taken[p2c(&candidates, |_| true, &mut || rng.u64(..)).expect("there are some")] += 1;
        }
        assert!(taken[0] == 0 && taken[1] > 1800 && taken[2] > 800, "{taken:?}");
    }
}
