//! Deploy: a new release beside the old one; it takes over on trial, and the old one stands by until the new one is proven.
//!
//! Pure; a part of the restart rule.
//!
//! Shape: Starting (one new process beside each old one, all ready and warm) → Guarding{until} → done.
//!        Whatever fails before the end puts everything back: the old processes have never gone.
//!        A worker has no requests to be judged by: it is done at the switch.
//! Source: blue-green deployment; the verdict is the part of answers that failed, over what the old release had.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Effect, Exit, Life, Phase, Reason, Report,
    cell::Cell,
    recycle::Wear,
    succession::{Leave, Stage},
};
use crate::{
    plan::{App, AppPort},
    rules::backoff::Backoff,
};

/// During the guard a verdict needs so many failures: one alone may be anybody's.
const FAILURES: u64 = 3;

/// A deploy under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Deploy {
    /// What was in force before, and is again if it fails.
    #[serde(with = "super::shared")]
    pub(super) old: Arc<App>,
    #[serde(with = "super::shared")]
    new: Arc<App>,
    /// Failures and requests of the old release.
    before: (u64, u64),
    /// What each instance was before the switch, and is again if the new release fails.
    #[serde(default)]
    kept: BTreeMap<u16, Kept>,
    guard: Option<Guard>,
}

/// An instance with its old process, for which nothing has happened while the new one was on trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    since: Duration,
    spawned: Duration,
    backoff: Backoff,
    restarts: u64,
    last_exit: Option<(String, Duration)>,
    last_restart: Option<Duration>,
    wear: Wear,
}

impl Kept {
    fn of(cell: &Cell) -> Self {
        let Cell { since, spawned, backoff, restarts, last_exit, last_restart, wear, .. } = cell.clone();
        Self { since, spawned, backoff, restarts, last_exit, last_restart, wear }
    }

    fn put_back(self, cell: &mut Cell) {
        let Self { since, spawned, backoff, restarts, last_exit, last_restart, wear } = self;
        (cell.since, cell.spawned, cell.backoff, cell.wear) = (since, spawned, backoff, wear);
        (cell.restarts, cell.last_exit, cell.last_restart) = (restarts, last_exit, last_restart);
    }
}

/// The new release on trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Guard {
    until: Duration,
    /// By incarnation: requests and failures.
    tallies: BTreeMap<u64, (u64, u64)>,
}

impl Deploy {
    pub(super) fn is_guarding(&self) -> bool {
        self.guard.is_some()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.guard.as_ref().map(|guard| guard.until)
    }

    /// Why the new release is not good enough, if it is not: more of its answers fail than may, and than did before.
    fn verdict(&self, at_least: u64) -> Option<String> {
        let tallies = &self.guard.as_ref()?.tallies;
        let (requests, failures) = tallies.values().fold((0, 0), |(r, f), (requests, failures)| (r + requests, f + failures));
        let share = |failures: u64, requests: u64| failures as f64 / requests.max(1) as f64;
        let allowed = self.new.deploy.errors + share(self.before.0, self.before.1);
        let bad = failures >= at_least && share(failures, requests) > allowed;
        bad.then(|| format!("{failures} of {requests} requests to the new release failed ({:.1} % may)", allowed.min(1.0) * 100.0))
    }
}

impl Life {
    /// A process that was replaced has ended. Of the last exit of an instance one speaks that has served it: not a process of a release that failed.
    pub(super) fn leaver_exited(&mut self, n: u16, incarnation: u64, exit: Exit, now: Duration) {
        let served = self.leaving.get_mut(&incarnation).filter(|leaving| leaving.served);
        let told = served.map(|leaving| (leaving.told.take().unwrap_or_else(|| exit.to_string()), now));
        if told.is_some() {
            if let Some(kept) = self.deploy.as_mut().and_then(|deploy| deploy.kept.get_mut(&n)) {
                kept.last_exit.clone_from(&told);
            }
            if let Some(cell) = self.cells.get_mut(&n) {
                cell.last_exit = told;
            }
        }
        self.leaver_gone(incarnation);
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.deploy.as_ref().is_some_and(Deploy::is_guarding)
    }

    pub(super) fn begin_deploy(&mut self, spec: Arc<App>, now: Duration) {
        let refused = if self.deploy.is_some() {
            Some("another deploy of it is under way")
        } else if self.removed || !self.wanted {
            Some("it is stopped: start it first")
        } else if let AppPort::Fixed { .. } = spec.port {
            Some(
                "it listens on a fixed port, so there is no room for the new release beside the old: write {port} or {socket} into its command, and take `port` out",
            )
        } else {
            None
        };
        if let Some(why) = refused {
            self.effects.push(Effect::Report(Report::DeployFailed { n: None, why: why.to_owned() }));
            return;
        }
        self.abort_roll(None, "a deploy was asked for");
        let (requests, failures) = self.cells.values().fold((0, 0), |(r, f), cell| (r + cell.wear.requests, f + cell.wear.failures));
        self.deploy =
            Some(Deploy { old: self.spec.clone(), new: spec.clone(), before: (failures, requests), kept: BTreeMap::new(), guard: None });
        let procs = self.spec.procs.get();
        for n in self.numbers().into_iter().filter(|n| *n < procs) {
            self.succeed(n, spec.clone(), Reason::Deploy, now);
        }
    }

    /// The switch, when every new process may serve.
    pub(super) fn advance_deploy(&mut self, now: Duration, dice: u64) {
        let Some(deploy) = self.deploy.as_ref().filter(|deploy| deploy.guard.is_none()) else { return };
        let procs = self.spec.procs.get();
        let warm = |n: u16| self.cells.get(&n).and_then(|cell| cell.successor.as_ref()).is_some_and(|next| next.stage == Stage::Warm);
        if !(0..procs).all(warm) {
            return;
        }
        let (old, new) = (deploy.old.clone(), deploy.new.clone());
        let guard = if new.port == AppPort::None { Duration::ZERO } else { new.deploy.guard };
        self.thaw(now);
        let kept = self.cells.iter().map(|(n, cell)| (*n, Kept::of(cell))).collect();
        for n in 0..procs {
            self.take_over(n, Some(&old), now, dice);
        }
        self.spec = new;
        self.effects.push(Effect::Report(Report::Switched { guard }));
        if let Some(deploy) = &mut self.deploy {
            deploy.kept = kept;
            deploy.guard = Some(Guard { until: now + guard, tallies: BTreeMap::new() });
        }
        if guard.is_zero() {
            self.end_guard(now);
        }
    }

    pub(super) fn judge(&mut self, incarnation: u64, requests: u64, failures: u64, now: Duration) {
        let of_the_new = self.cells.values().any(|cell| cell.incarnation == incarnation);
        let Some(deploy) = self.deploy.as_mut().filter(|_| of_the_new) else { return };
        let Some(guard) = &mut deploy.guard else { return };
        guard.tallies.insert(incarnation, (requests, failures));
        if let Some(why) = deploy.verdict(FAILURES) {
            self.fail_deploy(None, &why, now);
        }
    }

    /// The guard is over: the last verdict.
    pub(super) fn end_guard(&mut self, now: Duration) {
        let Some(deploy) = self.deploy.as_ref().filter(|deploy| deploy.due().is_some_and(|until| until <= now)) else { return };
        if let Some(why) = deploy.verdict(1) {
            return self.fail_deploy(None, &why, now);
        }
        self.deploy = None;
        self.effects.push(Effect::Report(Report::DeployDone));
        self.release_standbys(now);
        self.changed = true;
    }

    fn release_standbys(&mut self, now: Duration) {
        let standing = self.leaving.iter().filter(|(_, leaving)| leaving.stage == Leave::StandsBy);
        for incarnation in standing.map(|(incarnation, _)| *incarnation).collect::<Vec<_>>() {
            self.drain_leaver(incarnation, now);
        }
    }

    /// The old release serves on, or again.
    pub(super) fn fail_deploy(&mut self, n: Option<u16>, why: &str, now: Duration) {
        let Some(mut deploy) = self.deploy.take() else { return };
        let guarded = deploy.guard.is_some();
        for each in self.numbers() {
            self.dismiss(each, now);
            if guarded {
                self.put_back(each, &mut deploy, now);
            }
        }
        if guarded {
            self.spec = deploy.old;
        }
        self.changed = true;
        self.effects.push(Effect::Report(Report::DeployFailed { n, why: why.to_owned() }));
    }

    /// The process that stands by serves again; the new one leaves.
    fn put_back(&mut self, n: u16, deploy: &mut Deploy, now: Duration) {
        let standing = self.leaving.iter().find(|(_, leaving)| leaving.n == n && leaving.stage == Leave::StandsBy);
        let standing = standing.map(|(incarnation, _)| *incarnation);
        let Some(cell) = self.cells.get_mut(&n) else { return };
        let new = cell.incarnation;
        let phase = std::mem::replace(&mut cell.phase, Phase::Stopped);
        cell.dead = None;
        cell.charge = None;
        if let Some(kept) = deploy.kept.remove(&n) {
            kept.put_back(cell);
        }
        match standing {
            Some(old) => {
                self.leaving.remove(&old);
                cell.incarnation = old;
                cell.phase = Phase::Ready;
                // What it said while it stood by was not heard.
                cell.wear.ping_by = deploy.old.watchdog.map(|within| now + within);
            }
            // Its old process is gone: it takes a new one, of the old release.
            None => (cell.incarnation, cell.since, cell.wear) = (0, now, Wear::default()),
        }
        match phase {
            Phase::Stopped | Phase::Awaiting | Phase::Exited | Phase::Backoff { .. } | Phase::Cooldown { .. } | Phase::Taken { .. } => {}
            Phase::Spawning { .. } => self.leave(n, new, Leave::Spawning, deploy.new.clone(), now),
            Phase::Starting { .. } | Phase::Ready => {
                self.leave(n, new, Leave::StandsBy, deploy.new.clone(), now);
                self.drain_leaver(new, now);
            }
            Phase::Draining { deadline, .. } => self.leave(n, new, Leave::Draining { deadline }, deploy.new.clone(), now),
            Phase::Stopping { deadline, .. } => self.leave(n, new, Leave::Stopping { deadline }, deploy.new.clone(), now),
            Phase::Killing { again, .. } => self.leave(n, new, Leave::Killing { again }, deploy.new.clone(), now),
        }
        if standing.is_none() && self.wanted {
            let old = std::mem::replace(&mut self.spec, deploy.old.clone());
            self.spawn(n, now);
            self.spec = old;
        }
    }
}
