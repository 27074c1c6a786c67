//! What is known of an app and its processes.
//!
//! Pure; a part of the restart rule.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Cell, Life, Phase, Reason, State};
use crate::plan::App;

/// Which requests a process gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    Serves,
    OnTrial,
    StandsBy,
}

/// What is known of one process of an instance; the newest of an instance comes last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    pub n: u16,
    pub incarnation: u64,
    pub state: State,
    pub duty: Duty,
    pub release: Option<String>,
    pub since: Duration,
    pub restarts: u64,
    pub last_exit: Option<(String, Duration)>,
    pub last_restart: Option<Duration>,
    /// When the next start is due, in backoff and cooldown, and while its address is taken.
    pub due: Option<Duration>,
    /// Who has its address, in words.
    pub taken: Option<String>,
}

impl Life {
    #[must_use]
    pub fn spec(&self) -> &Arc<App> {
        &self.spec
    }

    /// As the configuration has it: a release on trial does not count yet.
    #[must_use]
    pub fn settled_spec(&self) -> &Arc<App> {
        self.deploy.as_ref().map_or(&self.spec, |deploy| &deploy.old)
    }

    /// What this process is, or is to be, made from.
    #[must_use]
    pub fn spec_of(&self, n: u16, incarnation: u64) -> &Arc<App> {
        let successor = self.cells.get(&n).and_then(|cell| cell.successor.as_ref()).filter(|next| next.incarnation == incarnation);
        let leaving = self.leaving.get(&incarnation).map(|leaving| &leaving.spec);
        successor.map(|next| &next.spec).or(leaving).unwrap_or(&self.spec)
    }

    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.removed && self.cells.is_empty() && self.leaving.is_empty()
    }

    /// Whether every instance is in one of these states, whatever else of it is still going.
    #[must_use]
    pub fn are(&self, good: &[State]) -> bool {
        self.cells.values().all(|cell| good.contains(&cell.phase.state()))
    }

    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        self.cells.values().any(|cell| cell.phase == Phase::Awaiting)
    }

    /// Whether a start of it was asked for and is still wanted.
    #[must_use]
    pub fn spawns(&self, n: u16, incarnation: u64) -> bool {
        let cell = self.cells.get(&n);
        let present = cell.is_some_and(|cell| cell.incarnation == incarnation && cell.phase == Phase::Spawning { then: None });
        let next = cell.and_then(|cell| cell.successor.as_ref());
        present || next.is_some_and(|next| next.incarnation == incarnation && next.stage == super::succession::Stage::Spawning)
    }

    /// Whether somebody has asked for it and nobody has stopped it since.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether no process of it runs or is about to.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let rests = |cell: &Cell| matches!(cell.phase, Phase::Stopped | Phase::Exited) && cell.successor.is_none();
        self.leaving.is_empty() && self.cells.values().all(rests)
    }

    #[must_use]
    pub fn is_cooling(&self) -> bool {
        self.cooling.is_some()
    }

    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.roll.is_some()
    }

    #[must_use]
    pub fn is_deploying(&self) -> bool {
        self.deploy.is_some()
    }

    pub fn restarts(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.restarts.iter().map(|(reason, count)| (*reason, *count))
    }

    pub fn view(&self) -> impl Iterator<Item = View> {
        let numbers: BTreeSet<u16> = self.cells.keys().copied().chain(self.leaving.values().map(|leaving| leaving.n)).collect();
        numbers.into_iter().flat_map(|n| {
            let cell = self.cells.get(&n);
            let leaving = self.leaving.iter().filter(move |(_, leaving)| leaving.n == n);
            let leaving = leaving.map(move |(incarnation, leaving)| leaving.view(*incarnation, cell));
            let current = cell.map(|cell| self.view_of(n, cell));
            let next = cell.and_then(|cell| Some(cell.successor.as_ref()?.view(n, cell)));
            leaving.chain(current).chain(next)
        })
    }

    fn view_of(&self, n: u16, cell: &Cell) -> View {
        View {
            n,
            incarnation: cell.incarnation,
            state: cell.phase.state(),
            duty: if self.is_on_trial() { Duty::OnTrial } else { Duty::Serves },
            release: self.spec.release.clone(),
            since: cell.since,
            restarts: cell.restarts,
            last_exit: cell.last_exit.clone(),
            last_restart: cell.last_restart,
            due: match cell.phase {
                Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => self.cell_due(cell),
                Phase::Stopped
                | Phase::Awaiting
                | Phase::Exited
                | Phase::Spawning { .. }
                | Phase::Starting { .. }
                | Phase::Ready
                | Phase::Draining { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. } => None,
            },
            taken: cell.taken.as_ref().filter(|_| matches!(cell.phase, Phase::Taken { .. })).map(|taken| taken.why.clone()),
        }
    }
}
