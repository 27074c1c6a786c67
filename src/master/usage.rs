//! What a process uses, from /proc.
//!
//! Source: proc_pid_stat(5) fields 14 and 15 (clock ticks), proc_pid_statm(5) field 2 (pages).

use std::fs;

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
    fn a_process_that_is_gone_uses_nothing() {
        assert_eq!(of(Pid::from_raw(i32::MAX)), None);
    }
}
