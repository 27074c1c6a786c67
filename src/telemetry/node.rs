//! Figures of the machine: CPU, memory, load, free space where it matters.
//!
//! Shape: sampled when someone asks, at most once a second; in between the last sample stands. No thread of its own.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use sysinfo::System;

const MIN_AGE: Duration = Duration::from_secs(1);

/// The machine as it was at most a second ago.
///
/// Units: bytes; `cpu_ratio` 0.0 to 1.0 over all cores since the sample before; `load1` as in `uptime`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSample {
    pub cpu_ratio: f64,
    pub memory_total: u64,
    pub memory_available: u64,
    pub load1: f64,
    pub disks: Vec<Disk>,
}

/// One mounted file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disk {
    pub mount: PathBuf,
    pub total: u64,
    /// What someone who is not root may still write.
    pub free: u64,
}

/// The one who looks.
pub struct Node(Mutex<State>);

struct State {
    /// `None` where /proc does not say.
    system: Option<System>,
    mounts: BTreeSet<PathBuf>,
    sampled: Option<Instant>,
    sample: NodeSample,
}

impl Default for Node {
    fn default() -> Self {
        let mut system = System::new().ok();
        // The first reading is the start of the interval that the second one covers.
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        let mounts = BTreeSet::from([PathBuf::from("/")]);
        Self(Mutex::new(State { system, mounts, sampled: None, sample: NodeSample::default() }))
    }
}

impl Node {
    /// Watches the root file system and those that hold these paths.
    pub fn watch<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) {
        let mounts = paths.into_iter().filter_map(mount_of).chain([PathBuf::from("/")]).collect();
        if let Ok(mut state) = self.0.lock() {
            state.sampled = state.sampled.filter(|_| state.mounts == mounts);
            state.mounts = mounts;
        }
    }

    #[must_use]
    pub fn sample(&self) -> NodeSample {
        let Ok(mut state) = self.0.lock() else { return NodeSample::default() };
        let now = Instant::now();
        if state.sampled.is_none_or(|at| now.duration_since(at) >= MIN_AGE) {
            state.sample = state.look();
            state.sampled = Some(now);
        }
        state.sample.clone()
    }
}

impl State {
    fn look(&mut self) -> NodeSample {
        let mut sample = NodeSample { disks: self.mounts.iter().filter_map(|mount| disk(mount)).collect(), ..NodeSample::default() };
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            sample.cpu_ratio = f64::from(system.global_cpu_usage() / 100.0).clamp(0.0, 1.0);
            sample.memory_total = system.total_memory();
            sample.memory_available = system.available_memory();
            sample.load1 = System::load_average().map_or(0.0, |load| load.one);
        }
        sample
    }
}

fn disk(mount: &Path) -> Option<Disk> {
    let stat = statvfs(mount).ok()?;
    let unit = stat.fragment_size();
    Some(Disk { mount: mount.into(), total: stat.blocks().saturating_mul(unit), free: stat.blocks_available().saturating_mul(unit) })
}

/// The root of the file system that holds `path`: the last ancestor on the same device. `None` for what does not exist.
fn mount_of(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let device = path.metadata().ok()?.dev();
    path.ancestors().take_while(|dir| dir.metadata().is_ok_and(|meta| meta.dev() == device)).last().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_a_root_file_system() {
        let node = Node::default();
        node.watch([Path::new("/proc/self"), Path::new("/no/such/path")]);
        let sample = node.sample();
        assert!(sample.memory_total > 0 && sample.memory_available <= sample.memory_total, "{sample:?}");
        assert!((0.0..=1.0).contains(&sample.cpu_ratio), "{sample:?}");
        let root = sample.disks.iter().find(|disk| disk.mount == Path::new("/")).expect("there is a root");
        assert!(root.free <= root.total && root.total > 0);
        assert!(sample.disks.iter().any(|disk| disk.mount == Path::new("/proc")), "{sample:?}");
    }

    #[test]
    fn within_a_second_the_same_sample_is_given() {
        let node = Node::default();
        assert_eq!(node.sample(), node.sample());
    }
}
