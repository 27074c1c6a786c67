//! One child of the master, and what is known of those that come of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    master::{
        cgroup::{Cage, Short},
        child::MemoryCap,
        kin::{Kin, Leader, Mark, front},
    },
    rules::{program, restart::Exit},
};

/// How long what was killed may take to vanish before the owner is told all the same.
const LINGER: Duration = Duration::from_secs(1);
/// While what was killed vanishes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// While those that a leader left are given time. The end of one that leads the rest wakes us anyway: it is a child of ours by then.
const LOOK_AT_REST: Duration = Duration::from_millis(100);
/// Between two looks at a wrapper that stands before those that were told to stop.
const PASS_AGAIN: Duration = Duration::from_millis(250);
/// Names of those that a leader left behind, as many as are told.
const NAMES: usize = 8;

/// Something to be told once the lock is open.
pub(super) type Word = Box<dyn FnOnce() + Send>;
pub(super) type Tell = Box<dyn FnOnce(Exit) + Send>;
/// The leader has ended, these go on.
pub(super) type TellLeft = Box<dyn FnOnce(Exit, Vec<String>) + Send>;

pub(super) struct Kid {
    pub(super) tell: Tell,
    /// What becomes of those that outlive the leader.
    pub(super) rest: Rest,
    pub(super) mark: Option<Mark>,
    /// The leader was reaped.
    pub(super) ended: Option<Ended>,
    /// KILL was sent to all of it.
    pub(super) killed: Option<Instant>,
    /// It was told to stop.
    pub(super) stop: Option<Stop>,
    pub(super) memory: Memory,
}

pub(super) enum Rest {
    /// They are killed with the leader.
    Kill,
    /// The owner hears of them, once, and ends them: see `Nursery::stop`.
    Owned(Option<TellLeft>),
}

#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    at: Instant,
    /// Somebody still stands in its session or group, so that its number is nobody else's.
    numbered: bool,
}

/// An order to stop that goes on until nobody is left: whoever comes to the front hears it, once.
pub(super) struct Stop {
    signal: Signal,
    /// When wrappers that still stand before others are passed by.
    pass: Option<Instant>,
    /// By pid and start.
    told: BTreeSet<(i32, u64)>,
}

/// How a child's memory is capped.
pub(super) enum Memory {
    Free,
    Caged { cage: Cage, max: u64 },
    Weighed { cap: MemoryCap, kill_at: Option<Instant> },
}

/// A child on its way to the binary that takes over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    mark: Option<u64>,
    /// How the leader ended, where others go on; whether its number is still its own.
    ended: Option<(Exit, bool)>,
    stop: Option<CarriedStop>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CarriedStop {
    signal: i32,
    /// What is left until wrappers are passed by.
    pass: Option<Duration>,
    told: BTreeSet<(i32, u64)>,
}

/// What a look at its kin makes of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Gone,
    GoesOn,
}

impl Kid {
    pub(super) fn new(tell: Tell, rest: Rest, mark: Option<Mark>, memory: Memory) -> Self {
        Self { tell, rest, mark, ended: None, killed: None, stop: None, memory }
    }

    pub(super) fn runs(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) fn leader(&self, pid: Pid) -> Leader {
        Leader { pid, mark: self.mark, numbered: self.ended.is_none_or(|ended| ended.numbered) }
    }

    /// Its owner is about to be told of something.
    pub(super) fn is_vanishing(&self) -> bool {
        self.ended.is_some() && (self.killed.is_some() || matches!(self.rest, Rest::Kill | Rest::Owned(Some(_))))
    }

    /// Whether its kin must be looked at.
    pub(super) fn asks(&self, now: Instant) -> bool {
        self.ended.is_some() || self.stop.as_ref().and_then(|stop| stop.pass).is_some_and(|at| at <= now)
    }

    /// When it must be looked at again at the latest.
    pub(super) fn again(&self, now: Instant) -> Option<Duration> {
        match (&self.ended, &self.killed) {
            (Some(_), Some(_)) => Some(LOOK_AGAIN),
            (Some(_), None) => Some(LOOK_AT_REST),
            (None, _) => self.stop.as_ref()?.pass.map(|at| at.saturating_duration_since(now)),
        }
    }

    /// Its leader, which lies unreaped, has ended. While it lies there its number cannot be anybody else's.
    pub(super) fn leader_ends(&mut self, pid: Pid, now: Instant) {
        if matches!(self.rest, Rest::Kill) || self.killed.is_some() {
            let _ = killpg(pid, Signal::SIGKILL);
            self.memory.kill();
            self.killed.get_or_insert(now);
        }
    }

    /// Its leader was reaped.
    pub(super) fn leader_ended(&mut self, exit: Exit, now: Instant) {
        self.ended = Some(Ended { exit: self.memory.judge(exit), at: now, numbered: true });
    }

    pub(super) fn stop(&mut self, pid: Pid, signal: Signal, within: Duration, now: Instant) {
        // A third of its patience: a wrapper that goes by the signal has gone by then, and a server to which one hands it on has mostly ended (node keeps idle
        // connections for 5 s); those behind one that only waits have the rest. Whoever is slower hears it twice.
        self.stop = Some(Stop { signal, pass: Some(now + within / 3), told: BTreeSet::new() });
        if self.runs() {
            // Only ESRCH can come of it, and that is an exit we have not looked at yet.
            let _ = nix::sys::signal::kill(pid, signal);
        }
    }

    /// KILL to everything that is known of it without a look.
    pub(super) fn kill(&mut self, pid: Pid, now: Instant) {
        if self.runs() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        self.memory.kill();
        self.killed.get_or_insert(now);
    }

    /// What follows from who runs of its kin. The owner's first word of those left behind is put into `left`.
    pub(super) fn regard(&mut self, pid: Pid, family: &[Kin], now: Instant, left: &mut Vec<Word>) -> Verdict {
        let Some(ended) = &mut self.ended else {
            if self.killed.is_some() {
                family.iter().for_each(|kin| kin.signal(Signal::SIGKILL));
            }
            self.pass_by(pid, family, now);
            return Verdict::GoesOn;
        };
        if family.is_empty() {
            return Verdict::Gone;
        }
        ended.numbered &= family.iter().any(|kin| kin.is_numbered(pid));
        let (exit, at) = (ended.exit, ended.at);
        if let Some(killed) = self.killed {
            if killed.max(at) + LINGER <= now {
                return Verdict::Gone;
            }
            self.memory.kill();
            family.iter().for_each(|kin| kin.signal(Signal::SIGKILL));
            return Verdict::GoesOn;
        }
        if let Rest::Owned(tell) = &mut self.rest
            && let Some(tell) = tell.take()
        {
            let names: BTreeSet<String> = front(family, |_| true).into_iter().map(|kin| kin.name.clone()).collect();
            let names = names.into_iter().take(NAMES).collect();
            left.push(Box::new(move || tell(exit, names)));
        }
        self.pass_by(pid, family, now);
        Verdict::GoesOn
    }

    /// The order to stop, to whoever has come to the front. The leader heard it first; when it has gone, those that it left lead what remains.
    fn pass_by(&mut self, pid: Pid, family: &[Kin], now: Instant) {
        let leads = self.runs();
        let Some(Stop { signal, pass, told }) = &mut self.stop else { return };
        let due = pass.is_some_and(|at| at <= now);
        let wraps = |kin: &Kin| due && program::wraps(&kin.words());
        let front = front(family, wraps);
        if due {
            *pass = (front.len() > 1 || !leads).then(|| now + PASS_AGAIN);
        }
        // While the leader lives, those that left it are its own affair: only what stands behind it, if it is a wrapper, is told in its stead.
        let behind = |kin: &&&Kin| !leads || kin.pid != pid && family.iter().any(|parent| parent.pid == kin.parent);
        for kin in front.iter().filter(behind) {
            if told.insert((kin.pid.as_raw(), kin.start)) {
                kin.signal(*signal);
            }
        }
    }

    pub(super) fn export(&self, now: Instant) -> Carried {
        Carried {
            mark: self.mark.map(Mark::limit),
            ended: self.ended.map(|ended| (ended.exit, ended.numbered)),
            stop: self.stop.as_ref().map(|stop| {
                let pass = stop.pass.map(|at| at.saturating_duration_since(now));
                CarriedStop { signal: stop.signal as i32, pass, told: stop.told.clone() }
            }),
        }
    }

    pub(super) fn import(&mut self, carried: Carried, now: Instant) {
        let Carried { mark, ended, stop } = carried;
        self.mark = mark.map(Mark::of_limit).or(self.mark);
        self.ended = ended.map(|(exit, numbered)| Ended { exit, at: now, numbered });
        self.stop = stop.and_then(|CarriedStop { signal, pass, told }| {
            let signal = Signal::try_from(signal).ok()?;
            Some(Stop { signal, pass: pass.map(|left| now + left), told })
        });
        if self.ended.is_some() {
            // The binary before has told it.
            self.rest = Rest::Owned(None);
        }
    }
}

impl Memory {
    /// How a leader ended that ended so.
    fn judge(&self, exit: Exit) -> Exit {
        match self {
            Self::Caged { cage, max } => match cage.short() {
                Some(Short::Cage) => Exit::Memory { max: Some(*max) },
                Some(Short::Machine) if exit == Exit::Signal(libc::SIGKILL) => Exit::Memory { max: None },
                Some(Short::Machine) | None => exit,
            },
            Self::Weighed { cap, kill_at: Some(_) } => Exit::Memory { max: Some(cap.max) },
            Self::Weighed { kill_at: None, .. } | Self::Free => exit,
        }
    }

    fn kill(&self) {
        match self {
            Self::Caged { cage, .. } => cage.kill(),
            Self::Weighed { .. } | Self::Free => {}
        }
    }
}
