//! Wear: what a process has done since it was started, and when it is to be replaced for that.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: requests, age (±10 %, so that processes of one age do not go together) and memory (the mean of the last three looks); one instance of an app at a time,
//!        and none while something else of it moves. A replacement that does not come up is tried again after [`AGAIN`].
//!        The watchdog: a process that promised WATCHDOG=1 and is silent for too long is dead.
//! Source: sd_watchdog_enabled(3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{After, Effect, Life, Phase, Reason, Report, Role};
use crate::{
    plan::App,
    vocab::{ByteSize, units::duration_text},
};

pub(super) const AGAIN: Duration = Duration::from_secs(60);
const LOOKS: usize = 3;

/// Since its process was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Wear {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The last looks at its memory.
    memory: Vec<u64>,
    /// Its age is reached.
    old_at: Option<Duration>,
    /// The last replacement failed.
    pub(super) not_before: Option<Duration>,
    /// It must have pinged by then.
    pub(super) ping_by: Option<Duration>,
}

impl Life {
    /// A process begins to serve.
    pub(super) fn begin_wear(&mut self, n: u16, now: Duration, dice: u64) {
        let age = self.spec.recycle.age;
        let watchdog = self.spec.watchdog;
        let Some(cell) = self.cells.get_mut(&n) else { return };
        // 900 to 1100 thousandths.
        let spread =
            |age: Duration| (age / 1000).saturating_mul(900 + u32::try_from(dice.wrapping_add(u64::from(n) * 67) % 201).unwrap_or(100));
        cell.wear = Wear { old_at: age.map(|age| now + spread(age)), ping_by: watchdog.map(|within| now + within), ..Wear::default() };
    }

    pub(super) fn tallied(&mut self, n: u16, incarnation: u64, requests: u64, failures: u64, now: Duration) {
        if self.role(n, incarnation) != Role::Present {
            return;
        }
        self.asked = Some(now);
        if let Some(cell) = self.cells.get_mut(&n) {
            (cell.wear.requests, cell.wear.failures) = (requests, failures);
        }
        self.judge(incarnation, requests, failures, now);
    }

    pub(super) fn weighed(&mut self, n: u16, incarnation: u64, bytes: u64) {
        if let (Role::Present, Some(cell)) = (self.role(n, incarnation), self.cells.get_mut(&n)) {
            cell.wear.memory.push(bytes);
            if cell.wear.memory.len() > LOOKS {
                cell.wear.memory.remove(0);
            }
        }
    }

    pub(super) fn pinged(&mut self, n: u16, incarnation: u64, now: Duration) {
        let within = self.spec.watchdog;
        if let (Role::Present, Some(cell)) = (self.role(n, incarnation), self.cells.get_mut(&n)) {
            cell.wear.ping_by = within.map(|within| now + within);
        }
    }

    /// The limits are others, or none at all.
    pub(super) fn rearm(&mut self, old: &App, now: Duration) {
        let (within, age) = (self.spec.watchdog, self.spec.recycle.age);
        for cell in self.cells.values_mut().filter(|cell| cell.phase == Phase::Ready) {
            cell.wear.ping_by = within.map(|within| now + within);
            if age != old.recycle.age {
                cell.wear.old_at = age.map(|age| cell.since + age);
            }
        }
    }

    pub(super) fn look_at_watchdogs(&mut self, now: Duration) {
        let Some(within) = self.spec.watchdog else { return };
        for n in self.numbers() {
            let Some(cell) = self.cells.get_mut(&n).filter(|cell| cell.phase == Phase::Ready) else { continue };
            if cell.wear.ping_by.take_if(|by| *by <= now).is_some() {
                let incarnation = cell.incarnation;
                self.dead(n, incarnation, format!("no WATCHDOG=1 for {}", duration_text(within)), now);
            }
        }
    }

    pub(super) fn wear_due(&self) -> Option<Duration> {
        let due = |cell: &super::Cell| {
            let age = cell.wear.old_at.map(|at| at.max(cell.wear.not_before.unwrap_or_default()));
            // What is old already and must wait for others is looked at when they have moved.
            let age = age.filter(|_| !self.is_in_motion() && self.roll.is_none() && self.deploy.is_none());
            age.into_iter().chain(cell.wear.not_before).chain(cell.wear.ping_by).min()
        };
        self.cells.values().filter(|cell| cell.phase == Phase::Ready).filter_map(due).min()
    }

    /// Replaces the one that is due, if nothing else moves.
    pub(super) fn recycle_one(&mut self, now: Duration) {
        for cell in self.cells.values_mut() {
            cell.wear.not_before.take_if(|at| *at <= now);
        }
        if self.spec.recycle.is_off() || !self.wanted || self.roll.is_some() || self.deploy.is_some() || self.is_in_motion() {
            return;
        }
        let worn = self.cells.iter().find_map(|(n, cell)| {
            let rests = cell.phase != Phase::Ready || cell.dead.is_some() || cell.wear.not_before.is_some();
            if rests { None } else { Some((*n, self.worn(cell, now)?)) }
        });
        let Some((n, why)) = worn else { return };
        self.effects.push(Effect::Report(Report::Recycling { n, why }));
        if Self::surges(&self.spec) {
            self.succeed(n, self.spec.clone(), Reason::Recycle, now);
        } else {
            self.take_down(n, After::Again(Reason::Recycle), now);
        }
    }

    fn worn(&self, cell: &super::Cell, now: Duration) -> Option<String> {
        let limits = &self.spec.recycle;
        let wear = &cell.wear;
        if let Some(most) = limits.requests.filter(|most| wear.requests >= *most) {
            return Some(format!("it has had {} requests, recycle.requests is {most}", wear.requests));
        }
        if wear.old_at.is_some_and(|at| at <= now) {
            return limits.age.map(|age| format!("it is older than recycle.age {}", duration_text(age)));
        }
        let mean = wear.memory.iter().sum::<u64>() / LOOKS as u64;
        let most = limits.memory.filter(|most| wear.memory.len() == LOOKS && mean > *most)?;
        Some(format!("it uses {} MB, recycle.memory is {}", mean >> 20, ByteSize(most)))
    }

    /// The replacement did not come up: the old one goes on for a while.
    pub(super) fn put_off(&mut self, n: u16, why: String, delay: Duration, now: Duration) {
        if let Some(cell) = self.cells.get_mut(&n) {
            cell.wear.not_before = Some(now + delay);
        }
        self.effects.push(Effect::Report(Report::RecycleFailed { n, why }));
    }
}
