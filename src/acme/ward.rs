//! One certificate that is looked after: what is known of it, and what is to be done next.
//!
//! Pure but for the slot it fills.
//!
//! Shape: where validation cannot pass, 48 hours cost no more orders than the table has attempts, times the kinds of challenge: 68 of two kinds; with a restart every hour
//!        that cuts an attempt off as well, one attempt more for each such restart. With a staging directory only the first attempt of them is made on the CA proper.
//! Units: Unix seconds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    attempt::{Look, Word},
    standing::{Cert, Next, Standing, State, Trouble},
    vault::Slot,
};
use crate::{
    pki::pair::Pair,
    plan::Ca,
    rules::renewal::{self, History, Validity, Why, Window},
    vocab::Host,
};

/// The CA is asked for its window this often at most, or after a hundredth of the certificate's life where that is less, and this seldom at least.
const LOOK_SOONEST: i64 = 60;
const LOOK_LATEST: i64 = 24 * 3600;

/// What is kept of it beside the certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub history: History,
    /// The directory that issued the certificate.
    pub directory: Option<String>,
    pub trouble: Option<Trouble>,
}

/// Why it is looked after.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The configuration names it.
    Site,
    /// A client asked for it, and `ask` said yes.
    Demand { ask: String },
}

pub struct Ward {
    pub name: Host,
    pub names: Vec<Host>,
    pub reason: Reason,
    pub slot: Arc<Slot>,
    pub memory: Memory,
    pub busy: bool,
    /// `gateway certs renew`
    pub asked: bool,
    /// What our own handshake said; `None`: not asked yet.
    pub proven: Option<bool>,
    window: Option<Window>,
    look_at: i64,
}

impl Ward {
    pub fn new(name: Host, names: Vec<Host>, reason: Reason, slot: Arc<Slot>, memory: Memory) -> Self {
        Self { name, names, reason, slot, memory, busy: false, asked: false, proven: None, window: None, look_at: i64::MIN }
    }

    /// It has a certificate, for all of its names.
    fn is_complete(&self, pair: &Pair) -> bool {
        self.names.iter().all(|name| pair.is_for(name.as_str()))
    }

    /// The configuration names it, for these names.
    pub fn named(&mut self, names: Vec<Host>, now: i64) {
        if self.names != names {
            self.memory.history = self.memory.history.clone().afresh(now);
        }
        (self.names, self.reason) = (names, Reason::Site);
    }

    /// When the next attempt is made, and why.
    pub fn next(&self) -> (i64, Why) {
        let history = &self.memory.history;
        if self.asked {
            return (i64::MIN, Why::Asked);
        }
        let (due, why) = match self.slot.pair() {
            Some(pair) if self.is_complete(&pair) => {
                let (due, why) = renewal::due(validity(&pair), self.window, spread(&pair.serial));
                (due.max(history.rested()), why)
            }
            Some(_) | None => (i64::MIN, Why::First),
        };
        // A renewal by hand that failed does not make the next one a matter of tries.
        let tried = history.why().filter(|_| due <= history.next());
        (due.max(history.next()), tried.unwrap_or(why))
    }

    /// Whether the CA that issued it is to be asked for its window.
    pub fn wants_look(&self, now: i64) -> bool {
        !self.busy && self.look_at <= now && self.slot.pair().is_some() && self.memory.directory.is_some()
    }

    /// The earlier of what comes next.
    pub fn wakes_at(&self) -> i64 {
        match (self.busy, self.slot.pair().is_some() && self.memory.directory.is_some()) {
            (true, _) => i64::MAX,
            (false, true) => self.next().0.min(self.look_at),
            (false, false) => self.next().0,
        }
    }

    pub fn looked(&mut self, look: Look, now: i64) {
        match look.word {
            Word::Within(window) => self.window = Some(window),
            Word::None => self.window = None,
            Word::Silence => {}
        }
        let life = self.slot.pair().map_or(i64::MAX, |pair| pair.not_after.saturating_sub(pair.not_before));
        let soonest = (life / 100).clamp(1, LOOK_SOONEST);
        self.look_at = now.saturating_add(look.again.clamp(soonest, LOOK_LATEST));
    }

    /// Nothing waits for a moment that a wrong clock has named.
    pub fn clock_was_set_back(&mut self, now: i64) {
        self.memory.history = self.memory.history.clone().restored(now);
        self.look_at = self.look_at.min(now);
    }

    /// There is a new certificate in its slot.
    pub fn issued(&mut self, pair: &Pair, directory: String, now: i64) {
        self.memory =
            Memory { history: self.memory.history.clone().succeeded(validity(pair), now), directory: Some(directory), trouble: None };
        self.asked = false;
        self.proven = None;
        self.window = None;
        self.look_at = i64::MIN;
    }

    pub fn standing(&self, now: i64, cas: &[Ca], staging: &[bool], challenges: usize) -> Standing {
        let pair = self.slot.pair();
        let (at, why) = self.next();
        let attempt = self.memory.history.attempt(&renewal::Options { staging, challenges });
        let ca = cas.get(attempt.ca).map_or("", |ca| ca.name.as_str());
        let next =
            Next { at: at.max(now), why: why.to_string(), ca: if attempt.staging { format!("{ca} (staging)") } else { ca.to_owned() } };
        let state = match (&pair, self.busy, self.proven) {
            (_, true, _) => State::Ordering,
            (None, false, _) => State::Waiting,
            (Some(_), false, Some(false)) => State::Unproven,
            (Some(_), false, Some(true) | None) => State::Served,
        };
        Standing {
            site: self.name.to_string(),
            names: self.names.iter().map(ToString::to_string).collect(),
            state,
            cert: pair.as_ref().map(|pair| Cert {
                issuer: pair.issuer.clone(),
                serial: pair.serial.clone(),
                not_before: pair.not_before,
                not_after: pair.not_after,
            }),
            next: Some(next),
            failures: self.memory.history.failures(),
            last_error: self.memory.trouble.clone(),
            at_risk: self.proven == Some(false) || pair.is_none_or(|pair| renewal::at_risk(validity(&pair), now)),
        }
    }
}

pub fn validity(pair: &Pair) -> Validity {
    Validity { not_before: pair.not_before, not_after: pair.not_after }
}

/// Where within its window a certificate is renewed: different for each, the same whenever it is asked.
fn spread(serial: &str) -> f64 {
    // FNV-1a, and the end of MurmurHash3 to bring what differs in the last bytes to the top.
    let hash = serial.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = hash ^ (hash >> 33);
    f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600;
    const HOUR: i64 = 3600;
    /// Of challenge.
    const KINDS: usize = 2;

    fn ward(memory: Memory) -> Ward {
        let name = Host::parse("a.test").expect("a host");
        Ward::new(name.clone(), vec![name], Reason::Site, Arc::default(), memory)
    }

    fn fault(failure: renewal::Failure) -> renewal::Fault {
        renewal::Fault { failure, retry_after: None }
    }

    /// The edge ends and another begins: what it knows is what is on disk.
    fn restarted(old: &Ward, now: i64) -> Ward {
        let disk = serde_json::to_vec(&old.memory).expect("json");
        let mut memory: Memory = serde_json::from_slice(&disk).expect("the same");
        memory.history = memory.history.restored(now);
        ward(memory)
    }

    /// Orders on the CA proper, and at its staging directory, within 48 hours in which no validation passes and the edge is started anew every hour.
    /// `cutting`: each of these starts cuts an attempt off.
    fn two_days(staging: bool, cutting: bool, dice: f64) -> (usize, usize) {
        let staging = [staging];
        let options = renewal::Options { staging: &staging, challenges: KINDS };
        let mut ward = ward(Memory::default());
        let (mut now, mut restart, mut orders, mut rehearsed) = (NOW, NOW + HOUR, 0, 0);
        while now < NOW + 48 * HOUR {
            let cut = now >= restart;
            if cut {
                ward = restarted(&ward, now);
                restart += HOUR;
            }
            let (due, _) = ward.next();
            if due > now {
                // As the steward sleeps, but for the next restart.
                now = due.min(restart);
                continue;
            }
            let attempt = ward.memory.history.attempt(&options);
            ward.memory.history = ward.memory.history.clone().begun(now);
            // Each kind has an order of its own.
            *(if attempt.staging { &mut rehearsed } else { &mut orders }) += KINDS;
            if cutting && cut {
                ward = restarted(&ward, now);
            } else {
                let history = ward.memory.history.clone();
                ward.memory.history = history.failed(&options, attempt, fault(renewal::Failure::Validation), None, now, dice);
            }
        }
        (orders, rehearsed)
    }

    #[test]
    fn validation_that_cannot_pass_costs_no_more_orders_than_the_table_has_attempts() {
        let most = KINDS * usize::try_from(renewal::ATTEMPTS_IN_48H).expect("small");
        for dice in [0.0, 0.3, 0.999_999] {
            let (orders, rehearsed) = two_days(false, false, dice);
            assert!((most / 2..=most).contains(&orders) && rehearsed == 0, "{orders} orders, {rehearsed} rehearsals, dice {dice}");
            let (orders, rehearsed) = two_days(true, false, dice);
            assert!(orders == KINDS && rehearsed <= most, "{orders} orders, {rehearsed} rehearsals, dice {dice}");
            let (orders, _) = two_days(false, true, dice);
            assert!(orders <= most + 48 * KINDS, "{orders} orders, dice {dice}");
        }
    }

    #[test]
    fn a_clock_that_ran_ahead_silences_nobody() {
        let mut ward = ward(Memory::default());
        let options = renewal::Options { staging: &[false], challenges: KINDS };
        let attempt = ward.memory.history.attempt(&options);
        let ahead = NOW + 14 * 365 * 24 * HOUR;
        ward.memory.history = ward.memory.history.clone().failed(&options, attempt, fault(renewal::Failure::Unreachable), None, ahead, 0.5);
        ward.clock_was_set_back(NOW);
        assert!(ward.next().0 <= NOW + 7 * HOUR, "{}", ward.next().0 - NOW);
    }

    #[test]
    fn certificates_are_spread_over_their_window() {
        let all: Vec<f64> = (0..1000).map(|n| spread(&format!("{n:032x}"))).collect();
        assert!(all.iter().all(|at| (0.0..1.0).contains(at)));
        for tenth in 0..10 {
            let within = all.iter().filter(|at| (**at * 10.0) as u32 == tenth).count();
            assert!((50..200).contains(&within), "{within} of 1000 in tenth {tenth}");
        }
        assert!((spread("abc") - spread("abc")).abs() < f64::EPSILON);
    }
}
