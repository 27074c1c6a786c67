//! Ban rule: who has misbehaved too often, for how long he is shut out, and whether somebody is at the moment.
//!
//! Pure: time is an argument. `edge::warden` brings it, and writes down what is to outlive the process.
//!
//! Shape: Free ─points < max→ Suspect ─points ≥ max→ Banned{until} ─until→ Former ─[`FORGET`]→ Free. A former's next ban lasts twice as long as his last.
//!        Suspects are few and kept by [`docket`], the banned and the former may be a million and are kept by [`cells`]. To ask for one takes no lock, and where
//!        nobody is banned one relaxed load.
//!        Both are bounded. A suspect gives way to a new one only where of those looked at he has the fewest points: to have p points forgotten takes as many
//!        addresses with p points each as there is room ([`docket::ROOM`]), which costs far more than another address. A ban gives way only to another one, where
//!        a million are in force, and then the one of those looked at that ends soonest, never one by hand.
//! Units: `now` since the Unix epoch, as bans outlive the process; bans are counted in seconds.

use std::{fmt, net::IpAddr, time::Duration};

use crate::plan::{
    self,
    ban::{LONGEST, Offence, OffenceError},
};

mod cells;
mod docket;
mod who;

pub use cells::MOST;
pub use docket::ROOM;
pub use who::{Who, WhoError};

use cells::Cells;
use docket::Docket;

/// After the end of a ban its next one is a second no more.
pub const FORGET: u32 = 7 * 86_400;

/// Why somebody is banned.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// `gateway ban`
    Hand,
    /// The one that was too much.
    Offence(Offence),
}

impl Reason {
    const HAND: &str = "manual";

    /// Errors: [`OffenceError`]: nobody is banned for that.
    pub fn parse(text: &str) -> Result<Self, OffenceError> {
        if text == Self::HAND { Ok(Self::Hand) } else { Offence::parse(text).map(Self::Offence) }
    }

    /// Fits beside a ban.
    fn code(self) -> u16 {
        match self {
            Self::Hand => 0,
            Self::Offence(Offence::BadUri) => 1,
            Self::Offence(Offence::BadMethod) => 2,
            Self::Offence(Offence::ScannerUa) => 3,
            Self::Offence(Offence::Zone) => 4,
            Self::Offence(Offence::Auth) => 5,
            Self::Offence(Offence::Probe) => 6,
            Self::Offence(Offence::Observed) => 7,
            Self::Offence(Offence::ZoneRow) => 8,
            Self::Offence(Offence::Class(class)) => 10 + u16::from(class),
            Self::Offence(Offence::Status(status)) => status,
        }
    }

    fn of(code: u16) -> Self {
        match code {
            1 => Self::Offence(Offence::BadUri),
            2 => Self::Offence(Offence::BadMethod),
            3 => Self::Offence(Offence::ScannerUa),
            4 => Self::Offence(Offence::Zone),
            5 => Self::Offence(Offence::Auth),
            6 => Self::Offence(Offence::Probe),
            7 => Self::Offence(Offence::Observed),
            8 => Self::Offence(Offence::ZoneRow),
            14 => Self::Offence(Offence::Class(4)),
            15 => Self::Offence(Offence::Class(5)),
            400..600 => Self::Offence(Offence::Status(code)),
            _ => Self::Hand,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hand => f.write_str(Self::HAND),
            Self::Offence(offence) => offence.fmt(f),
        }
    }
}

/// One ban, in force or over.
///
/// Units: seconds since the Unix epoch; it holds before `until`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sentence {
    pub since: u32,
    pub until: u32,
    /// How often, this time included; 255 is as often or more.
    pub times: u8,
    pub reason: Reason,
}

impl Sentence {
    #[must_use]
    pub fn holds(&self, now: Duration) -> bool {
        now < Duration::from_secs(self.until.into())
    }
}

/// What `[ban]` says, without whom it does not concern.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub max: u32,
    pub find_time: Duration,
    pub ban_time: Duration,
    pub grow: bool,
}

impl Rule {
    #[must_use]
    pub fn of(ban: &plan::Ban) -> Self {
        Self { max: ban.max.get(), find_time: ban.find_time, ban_time: ban.ban_time, grow: ban.grow }
    }

    /// How long the `times`th ban lasts.
    #[must_use]
    pub fn lasts(&self, times: u8) -> Duration {
        if !self.grow {
            return self.ban_time;
        }
        let doubled = 1_u32.checked_shl(u32::from(times.saturating_sub(1))).and_then(|factor| self.ban_time.checked_mul(factor));
        doubled.unwrap_or(Duration::MAX).min(LONGEST.max(self.ban_time))
    }
}

/// Suspects and banned.
#[derive(Debug)]
pub struct Jail {
    cells: Cells,
    docket: Docket,
}

impl Default for Jail {
    fn default() -> Self {
        Self::new()
    }
}

impl Jail {
    #[must_use]
    pub fn new() -> Self {
        Self { cells: Cells::new(), docket: Docket::new() }
    }

    /// Whether nobody is banned; [`Jail::sweep`] finds out who is no more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.in_force() == 0
    }

    /// How many are banned, as of the last sweep.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cells.in_force()
    }

    /// The ban that is in force. Without a lock.
    pub fn held(&self, who: Who, now: impl FnOnce() -> Duration) -> Option<Sentence> {
        if self.is_empty() {
            return None;
        }
        self.cells.find(who).filter(|sentence| sentence.holds(now()))
    }

    /// Counts an offence. Gives the ban that it leads to, and the points that were too many; who is banned already is not counted.
    pub fn strike(&self, who: Who, offence: Offence, points: u16, rule: &Rule, now: Duration) -> Option<(Sentence, u32)> {
        if points == 0 || self.held(who, || now).is_some() {
            return None;
        }
        let sum = self.docket.strike(who, points, offence.is_certain(), rule, now)?;
        let sentence = self.cells.ban(who, Reason::Offence(offence), now, |times| rule.lasts(times));
        Some((sentence, sum))
    }

    /// Whether he has not been charged with this path yet; of the last few that he was charged with.
    pub fn is_new(&self, who: Who, path: &[u8], rule: &Rule, now: Duration) -> bool {
        self.docket.is_new(who, path, rule, now)
    }

    /// Counts a refusal by a zone. Whether it was one of many in a row.
    pub fn crowds(&self, who: Who, rule: &Rule, now: Duration) -> bool {
        self.docket.crowds(who, rule, now)
    }

    /// He was answered as honest people are. Never waits: what is not counted is missing to him alone.
    pub fn credit(&self, who: Who) {
        self.docket.credit(who);
    }

    /// Bans by hand; whatever ban there is is replaced.
    pub fn ban(&self, who: Who, lasts: Duration, now: Duration) -> Sentence {
        self.docket.acquit(who);
        self.cells.ban(who, Reason::Hand, now, |_| lasts)
    }

    /// Frees, and forgets all that was. Whether a ban was in force.
    pub fn free(&self, who: Who, now: Duration) -> bool {
        self.docket.acquit(who);
        self.cells.remove(who).is_some_and(|sentence| sentence.holds(now))
    }

    /// Frees whomever `keep` does not keep, the former too.
    pub fn free_all_but(&self, keep: impl FnMut(Who, &Sentence) -> bool) {
        self.cells.retain(keep);
    }

    /// Forgets every point, as when their time is counted otherwise.
    pub fn acquit_all(&self) {
        self.docket.clear();
    }

    /// Takes a ban as it was written down, if it is not known better. Whether it was taken.
    pub fn restore(&self, who: Who, sentence: Sentence, now: Duration) -> bool {
        self.cells.restore(who, sentence, now)
    }

    /// Finds bans that are over, a part at a time: at once where there are few, within a minute where there are a million.
    pub fn sweep(&self, now: Duration) {
        self.cells.sweep(now);
    }

    /// Everybody in the cells, the former too, in no order. Others may come and go meanwhile.
    pub fn each(&self, see: impl FnMut(Who, Sentence)) {
        self.cells.each(see);
    }

    /// Bytes of the banned and the former, by the capacity of their tables.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.cells.memory()
    }

    /// Whom an address belongs to; `None`: to nobody.
    #[must_use]
    pub fn who(ip: IpAddr) -> Option<Who> {
        Who::of(ip)
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
