//! What /proc knows of the processes a test started.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use nix::{sys::signal::Signal, unistd::Pid};

/// Every live process whose environment carries `NAME=value`, or that runs in this directory: the children of a test, however deep and whoever adopted them.
pub fn marked(mark: &str, dir: &Path) -> Vec<u32> {
    let carries = |pid: u32| read(pid, "environ").split(|b| *b == 0).any(|entry| entry == mark.as_bytes());
    let inside = |pid: u32| fs::read_link(path(pid, "cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    pids().filter(|pid| alive(*pid) && (carries(*pid) || inside(*pid))).collect()
}

pub fn children(parent: u32) -> Vec<u32> {
    pids().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Open descriptors by what they are (`socket`, `pipe`, `anon_inode`, …); a file by its path.
pub fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for target in fs::read_dir(path(pid, "fd")).into_iter().flatten().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
        let target = target.to_string_lossy().into_owned();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    counts
}

/// Children that have ended and were not reaped.
pub fn zombies(parent: u32) -> Vec<u32> {
    children(parent).into_iter().filter(|pid| !alive(*pid)).collect()
}

/// The words of its command line.
pub fn command(pid: u32) -> Vec<String> {
    read(pid, "cmdline").split(|b| *b == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Neither gone nor a zombie.
/// Resident, in bytes.
pub fn memory(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it lives");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).unwrap_or_else(|error| panic!("kill {pid} {signal}: {error}"));
}

pub fn describe(pids: &[u32]) -> String {
    pids.iter().map(|pid| format!("{pid} {:?}", command(*pid).join(" "))).collect::<Vec<_>>().join(", ")
}

fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// State, parent, … : the fields after the name, which may itself hold blanks and brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(path(pid, "stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn read(pid: u32, what: &str) -> Vec<u8> {
    fs::read(path(pid, what)).unwrap_or_default()
}

fn path(pid: u32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
