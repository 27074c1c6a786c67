//! What a process uses, from /proc.
//!
//! Source: proc_pid_stat(5) fields 5 and 6 (group and session), 14 and 15 (clock ticks), proc_pid_statm(5) field 2 (pages),
//!         proc_pid_status(5) VmRSS and VmSwap, proc_pid_smaps(5) Pss and SwapPss.

use std::{collections::BTreeMap, fs};

use nix::unistd::{Pid, SysconfVar, sysconf};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// User and system, of the leader and of the children it has waited for.
    pub cpu_ms: u64,
    /// Resident, of the leader.
    pub memory_bytes: u64,
}

/// `None`: it is gone.
#[must_use]
pub fn of(pid: Pid) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let ticks: u64 = cpu_ticks(&stat)?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let constant = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    let per_second = constant(SysconfVar::CLK_TCK).unwrap_or(100);
    let page = constant(SysconfVar::PAGE_SIZE).unwrap_or(4096);
    Some(Usage { cpu_ms: ticks.saturating_mul(1000) / per_second, memory_bytes: pages.saturating_mul(page) })
}

/// What the machine can give without swapping; `None`: it does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The most processes that one walk looks at; beyond them memory is not counted.
const MOST: usize = 65_536;

/// Bytes in memory and in swap of all processes in the session or group of each leader, where they are more than its `max`. One walk over /proc.
///
/// Shape: pages that processes share are counted once: the cheap sum, which counts them each time, only chooses who is looked at closely.
#[must_use]
pub fn over(leaders: &BTreeMap<Pid, u64>) -> BTreeMap<Pid, u64> {
    let mut families: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().take(MOST);
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw) {
        let Some((group, session)) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(kinship) else { continue };
        if let Some(leader) = [session, group].into_iter().find(|leader| leaders.contains_key(leader)) {
            families.entry(leader).or_default().push(pid);
        }
    }
    let sum = |family: &[Pid], file: &str, names: &[&str]| {
        let of = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/{file}")).ok().map(|text| kilobytes(&text, names));
        // A process that went meanwhile uses nothing; a kernel or a user that forbids the look gives no sum at all.
        let known: Vec<u64> = family.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<u64>().saturating_mul(1024))
    };
    let mut over = BTreeMap::new();
    for (leader, family) in families {
        let max = leaders.get(&leader).copied().unwrap_or(u64::MAX);
        let Some(rough) = sum(&family, "status", &["VmRSS:", "VmSwap:"]).filter(|bytes| *bytes > max) else { continue };
        let exact = if family.len() > 1 { sum(&family, "smaps_rollup", &["Pss:", "SwapPss:"]).unwrap_or(rough) } else { rough };
        if exact > max {
            over.insert(leader, exact);
        }
    }
    over
}

/// Group and session.
fn kinship(stat: &str) -> Option<(Pid, Pid)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |n: usize| fields.split(' ').nth(n - 3)?.parse::<i32>().ok().map(Pid::from_raw);
    Some((field(5)?, field(6)?))
}

/// The sum of the lines that begin with these names.
fn kilobytes(text: &str, names: &[&str]) -> u64 {
    let number = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).filter_map(number).sum()
}

/// After the name, which may hold spaces and brackets itself.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |n: usize| fields.split(' ').nth(n - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)? + field(16)? + field(17)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_use_is_something() {
        let usage = of(Pid::this()).expect("we live");
        assert!(usage.memory_bytes > 100_000);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(available().expect("Linux says so") > 1 << 20);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(5 + 6 + 7 + 8));
    }

    #[test]
    fn who_uses_more_than_it_may_is_found_with_its_whole_session() {
        let session = nix::unistd::getsid(None).expect("we have one");
        let much = over(&BTreeMap::from([(session, 1000)]));
        assert!(much.get(&session).is_some_and(|bytes| *bytes > 100_000), "{much:?}");
        assert!(over(&BTreeMap::from([(session, u64::MAX), (Pid::from_raw(i32::MAX), 0)])).is_empty());
    }

    #[test]
    fn families_and_sizes_are_read_from_their_fields() {
        let stat = "12 (a) b (c) S 1 13 14 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0";
        assert_eq!(kinship(stat), Some((Pid::from_raw(13), Pid::from_raw(14))));
        assert_eq!(kilobytes("VmPeak:\t 9 kB\nVmRSS:\t  120 kB\nRssAnon:\t 7 kB\nVmSwap:\t 3 kB\n", &["VmRSS:", "VmSwap:"]), 123);
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        assert_eq!(of(Pid::from_raw(i32::MAX)), None);
    }
}
