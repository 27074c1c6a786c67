//! Kin: which processes have come of a child of ours, however far they went from it.
//!
//! Shape: a child is marked between fork and exec, and whatever comes of it inherits the mark: through fork, exec, a session of its own, a change of user.
//!        Kin of a child is who stands in its session or group, who carries its mark, and whose parent is kin.
//!        The mark is the soft limit of RLIMIT_LOCKS: a limit that Linux knows and has not enforced since 2.4.25, that nothing sets, and that everybody may
//!        read (/proc/PID/limits). A variable of the environment would not do: nginx, postgres and others write their title over it, `sudo` and `env -i`
//!        drop it, and that of another user's process may not be read without CAP_SYS_PTRACE. Parents alone would not do: they go, and with them the trace.
//! Source: getrlimit(2), proc_pid_limits(5), proc_pid_stat(5), pidfd_open(2).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use nix::{sys::signal::Signal, unistd::Pid};
use rustix::process::{self, PidfdFlags};

/// The most processes that one walk looks at.
const MOST: usize = 65_536;
/// Of a command line, enough to tell a wrapper.
const WORDS: usize = 4096;

/// What a child and its kin carry, unlike those of any other child, of any master that lives at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(u64);

/// The marks of one master: its pid and the time at which it was started, both of which an upgrade keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Marks {
    prefix: u64,
}

impl Marks {
    /// "gw"; pids have 22 bits, of the start 12 are kept, 14 are left to number the children.
    const MAGIC: u64 = 0x6777 << 48;
    const NUMBERS: u64 = 1 << 14;

    /// Those of this process, at the first call after it was executed; each further call gives others.
    #[must_use]
    pub fn own() -> Self {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let us = Pid::this();
        let start = stat(us).map_or(0, |kin| kin.start).wrapping_add(CALLS.fetch_add(1, Relaxed));
        Self { prefix: Self::MAGIC | u64::from(us.as_raw().cast_unsigned() & 0x3f_ffff) << 26 | (start & 0xfff) << 14 }
    }

    /// The next after `last` that is not in use; `None`: there are more children than numbers.
    #[must_use]
    pub fn next(self, last: u64, used: impl Fn(Mark) -> bool) -> Option<(u64, Mark)> {
        let numbers = (1..=Self::NUMBERS).map(|n| (last.wrapping_add(n)) % Self::NUMBERS);
        numbers.map(|n| (n, Mark(self.prefix | n))).find(|(_, mark)| !used(*mark))
    }

    /// Reads `text` of /proc/PID/limits.
    #[must_use]
    pub fn read(self, text: &[u8]) -> Option<Mark> {
        const NAME: &[u8] = b"Max file locks";
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(NAME))?;
        let digits = line.trim_ascii_start();
        let number = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
        (number & !(Self::NUMBERS - 1) == self.prefix).then_some(Mark(number))
    }

    #[must_use]
    pub fn of(self, pid: Pid) -> Option<Mark> {
        self.read(&fs::read(format!("/proc/{pid}/limits")).ok()?)
    }
}

impl Mark {
    /// As a limit.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.0
    }

    /// As [`Mark::limit`] gave it.
    #[must_use]
    pub fn of_limit(limit: u64) -> Self {
        Self(limit)
    }
}

/// A process that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kin {
    pub pid: Pid,
    pub parent: Pid,
    /// In clock ticks: with the pid it means this process and none that comes after it.
    pub start: u64,
    /// Its own idea, at most 15 bytes.
    pub name: String,
    group: Pid,
    session: Pid,
    /// It has ended and waits to be reaped.
    ended: bool,
}

/// A child whose kin is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Leader {
    pub pid: Pid,
    pub mark: Option<Mark>,
    /// Its pid still names its session and group; else it may be somebody else's by now.
    pub numbered: bool,
}

/// Who runs of the kin of each, the child itself among them. One walk over /proc.
///
/// `below`: only what descends from this process is looked at closely; everything, where orphans go elsewhere.
#[must_use]
pub fn of(leaders: &[Leader], marks: Marks, below: Option<Pid>) -> BTreeMap<Pid, Vec<Kin>> {
    let entries = fs::read_dir("/proc").into_iter().flatten().take(MOST);
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    let all: BTreeMap<Pid, Kin> = pids.filter_map(stat).map(|kin| (kin.pid, kin)).collect();
    let mut owners = BTreeMap::new();
    for kin in all.values() {
        let numbered = |leader: &&Leader| leader.numbered && (leader.pid == kin.session || leader.pid == kin.group);
        let owner = leaders.iter().find(numbered).or_else(|| {
            let near = below.is_none_or(|root| kin.pid != root && ancestors(kin, &all).any(|parent| parent == root));
            let mark = marks.of(kin.pid).filter(|_| near)?;
            leaders.iter().find(|leader| leader.mark == Some(mark))
        });
        if let Some(leader) = owner {
            owners.insert(kin.pid, leader.pid);
        }
    }
    let mut families: BTreeMap<Pid, Vec<Kin>> = BTreeMap::new();
    for kin in all.values().filter(|kin| !kin.ended) {
        let owner = owners.get(&kin.pid).or_else(|| ancestors(kin, &all).find_map(|parent| owners.get(&parent)));
        if let Some(owner) = owner {
            families.entry(*owner).or_default().push(kin.clone());
        }
    }
    families
}

/// Nearest first. Bounded: what is read of a living machine may go in a ring.
fn ancestors<'a>(kin: &'a Kin, all: &'a BTreeMap<Pid, Kin>) -> impl Iterator<Item = Pid> + 'a {
    std::iter::successors(Some(kin.parent), |parent| all.get(parent).map(|kin| kin.parent)).take_while(|pid| pid.as_raw() > 0).take(64)
}

fn stat(pid: Pid) -> Option<Kin> {
    // The name is whatever the process likes.
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (name, fields) = text.split_once(" (")?.1.rsplit_once(") ")?;
    let field = |n: usize| fields.split(' ').nth(n - 3);
    let number = |n: usize| field(n)?.parse::<i32>().ok().map(Pid::from_raw);
    Some(Kin {
        pid,
        parent: number(4)?,
        start: field(22)?.parse().ok()?,
        name: name.to_owned(),
        group: number(5)?,
        session: number(6)?,
        ended: matches!(field(3)?, "Z" | "X"),
    })
}

impl Kin {
    /// It stands in the session or the group of that number.
    #[must_use]
    pub fn is_numbered(&self, leader: Pid) -> bool {
        self.session == leader || self.group == leader
    }

    /// Signals this very process: one that has taken over its number meanwhile is left alone.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = process::Pid::from_raw(self.pid.as_raw()) else { return };
        let opened: Option<OwnedFd> = process::pidfd_open(pid, PidfdFlags::empty()).ok();
        if stat(self.pid).is_none_or(|now| now.start != self.start) {
            return;
        }
        match (opened, process::Signal::from_named_raw(signal as i32)) {
            // ESRCH: gone by itself.
            (Some(fd), Some(signal)) => drop(process::pidfd_send_signal(fd, signal)),
            // Where the kernel has no such descriptors.
            (_, _) => drop(nix::sys::signal::kill(self.pid, signal)),
        }
    }

    /// The words of its command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.truncate(WORDS);
        bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// Who leads what is left of a family: those whose parent is none of it. `through`: what only stands before its children, and counts as not there.
#[must_use]
pub fn front(family: &[Kin], through: impl Fn(&Kin) -> bool) -> Vec<&Kin> {
    let mut front: Vec<&Kin> = Vec::new();
    let pids: BTreeSet<Pid> = family.iter().map(|kin| kin.pid).collect();
    let mut next: Vec<&Kin> = family.iter().filter(|kin| !pids.contains(&kin.parent)).collect();
    // Each process has one parent: every turn goes one generation down.
    while let Some(kin) = next.pop() {
        if through(kin) {
            next.extend(family.iter().filter(|child| child.parent == kin.pid && child.pid != kin.pid));
        }
        front.push(kin);
        if front.len() > family.len() {
            break;
        }
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin(pid: i32, parent: i32) -> Kin {
        let [group, session] = [pid; 2].map(Pid::from_raw);
        Kin { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), start: 1, name: "x".into(), group, session, ended: false }
    }

    fn pids(front: Vec<&Kin>) -> Vec<i32> {
        let mut pids: Vec<i32> = front.into_iter().map(|kin| kin.pid.as_raw()).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn the_front_are_those_whose_parent_is_gone_and_what_stands_behind_a_wrapper() {
        let family = [kin(10, 1), kin(11, 10), kin(12, 11), kin(20, 1), kin(21, 20)];
        assert_eq!(pids(front(&family, |_| false)), [10, 20]);
        assert_eq!(pids(front(&family, |kin| kin.pid.as_raw() == 10)), [10, 11, 20]);
        assert_eq!(pids(front(&family, |kin| kin.pid.as_raw() < 12)), [10, 11, 12, 20]);
        let ring = [kin(10, 11), kin(11, 10)];
        assert_eq!(pids(front(&ring, |_| true)), Vec::<i32>::new());
    }

    #[test]
    fn a_mark_is_read_from_the_limits_and_is_no_other_masters() {
        let marks = Marks::own();
        let (n, mark) = marks.next(0, |_| false).expect("free");
        assert_eq!(n, 1);
        let (second, other) = marks.next(n, |used| used == mark).expect("free");
        assert!(second == 2 && other != mark);
        let text = |limit: u64| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax cpu time  unlimited  unlimited  seconds\nMax file locks            {limit} unlimited            locks     \n"
            )
        };
        assert_eq!(marks.read(text(mark.limit()).as_bytes()), Some(mark));
        assert_eq!(marks.read(text(mark.limit() ^ 1 << 26).as_bytes()), None, "of another master");
        for other in
            ["", "Max file locks unlimited unlimited locks\n", "Max file locks 99999999999999999999999 unlimited\n", "Max file locks\n"]
        {
            assert_eq!(marks.read(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(marks.next(5, |_| true), None);
    }

    #[test]
    fn our_own_row_is_read() {
        let us = stat(Pid::this()).expect("we live");
        assert_eq!((us.parent, us.session), (Pid::parent(), nix::unistd::getsid(None).expect("one")));
        assert!(us.start > 0 && !us.ended && !us.name.is_empty());
    }
}
