//! Control groups (v2): a cage for each process whose memory is capped, where the kernel and whoever started us let us have one.
//!
//! Shape: OWN/gateway.PID/app/NAME.N-INCARNATION, below the group OWN that we were started in. A group that gives controllers to others below it
//!        may hold no process itself, so where OWN is not the root we move into OWN/gateway.PID/master first. The names are those of this very
//!        master, whose pid never changes: two in one group never meet, and what a dead one left is known.
//! Source: Documentation/admin-guide/cgroup-v2.rst ("Delegation", "No Internal Process Constraint", memory.oom.group, cgroup.kill).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use thiserror::Error;

/// Why there are no cgroups for us.
#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("find cgroup v2: it is not mounted")]
    NotMounted,
    #[error("find our own cgroup: it lies outside of what is mounted")]
    Outside,
    #[error("limit memory by {}: the memory controller is not there", path.display())]
    NoMemory { path: PathBuf },
    #[error("give controllers to cgroups below {}: processes that are not ours live in it", path.display())]
    Shared { path: PathBuf },
    #[error("{what} {}", path.display())]
    Os {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl CgroupError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted | Self::Outside => None,
            Self::NoMemory { .. } => Some("boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1); under systemd set Delegate=yes"),
            Self::Shared { .. } => Some("start gateway as a service of its own with Delegate=yes"),
            Self::Os { .. } => Some("under systemd set Delegate=yes; in a container mount /sys/fs/cgroup so that it can be written"),
        }
    }
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Os { what, path, source }
}

/// Where cages are made.
#[derive(Debug)]
pub struct Cgroups {
    apps: PathBuf,
}

impl Cgroups {
    /// Makes the place for them, moving this process and its children if it must. Done twice it is as done once, so that a master which
    /// replaced its own binary goes on with what it had.
    pub fn prepare() -> Result<Self, CgroupError> {
        Self::below(&own()?, Pid::this())
    }

    fn below(own: &Path, us: Pid) -> Result<Self, CgroupError> {
        let name = format!("gateway.{us}");
        let own = own.strip_suffix_path(&Path::new(&name).join("master"));
        let controllers = fs::read_to_string(own.join("cgroup.controllers")).map_err(os("read the controllers of", own))?;
        if !has_memory(&controllers) {
            return Err(CgroupError::NoMemory { path: own.into() });
        }
        sweep(own);
        let home = own.join(&name);
        let apps = home.join("app");
        let made = make(&home).and_then(|()| make(&apps)).and_then(|()| vacate(own, &home, us)).and_then(|()| {
            for path in [&home, &apps] {
                enable(path).map_err(os("give the memory controller to cgroups below", path))?;
            }
            Ok(())
        });
        if let Err(error) = made {
            // As if we had not tried; what is not empty stays.
            for path in [&apps, &home] {
                let _ = fs::remove_dir(path);
            }
            return Err(error);
        }
        Ok(Self { apps })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.apps
    }

    /// A cage that holds `max` bytes, swap among them. It is there already where a master before us with our pid made it.
    pub fn cage(&self, name: &str, max: u64) -> Result<Cage, CgroupError> {
        let path = self.apps.join(name);
        make(&path)?;
        let put = |file: &str, value: &str| fs::write(path.join(file), value);
        let filled = put("memory.max", &max.to_string()).and_then(|()| put("memory.oom.group", "1"));
        // Not there where the kernel counts no swap.
        let _ = put("memory.swap.max", "0");
        let cage = filled.and_then(|()| Cage::at(path.clone())).map_err(os("limit memory by", &path));
        if cage.is_err() {
            let _ = fs::remove_dir(&path);
        }
        cage
    }
}

/// One process and all that comes of it, however it forks.
#[derive(Debug)]
pub struct Cage {
    path: PathBuf,
    procs: File,
}

/// How a cage was short of memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Short {
    /// It reached its own limit.
    Cage,
    /// The machine had none left.
    Machine,
}

impl Cage {
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        let procs = File::options().write(true).open(path.join("cgroup.procs"))?;
        Ok(Self { path, procs })
    }

    /// Where a process writes itself in.
    #[must_use]
    pub fn door(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// KILL to everything in it.
    pub fn kill(&self) {
        // Kernels before 5.14 have no such file: there the process group must do.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Whether the kernel killed somebody in it for memory.
    #[must_use]
    pub fn short(&self) -> Option<Short> {
        short(&fs::read_to_string(self.path.join("memory.events")).ok()?)
    }

    /// Takes it away, which succeeds once nothing lives in it.
    #[must_use]
    pub fn remove(&self) -> bool {
        match fs::remove_dir(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn short(events: &str) -> Option<Short> {
    let count = |name: &str| {
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok();
        events.lines().find_map(number).unwrap_or(0)
    };
    let killed = count("oom_kill") > 0 || count("oom_group_kill") > 0;
    killed.then(|| if count("oom") > 0 { Short::Cage } else { Short::Machine })
}

fn has_memory(controllers: &str) -> bool {
    controllers.split_ascii_whitespace().any(|controller| controller == "memory")
}

/// The directory of the cgroup that this process is in.
pub(super) fn own() -> Result<PathBuf, CgroupError> {
    let read = |path: &str| fs::read_to_string(path).map_err(os("read", Path::new(path)));
    where_we_are(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

/// The directory of our cgroup: where the hierarchy is mounted, and where in it we are.
fn where_we_are(cgroup: &str, mounts: &str) -> Result<PathBuf, CgroupError> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NotMounted)?;
    let own = Path::new(own);
    let mut mounted = false;
    for line in mounts.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        mounted = true;
        let mut fields = place.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        // A space in a path stands as \040.
        let [root, point] = [root, point].map(|path| path.replace("\\040", " "));
        if let Ok(inside) = own.strip_prefix(&root)
            && !inside.components().any(|part| part == std::path::Component::ParentDir)
        {
            return Ok(Path::new(&point).join(inside));
        }
    }
    Err(if mounted { CgroupError::Outside } else { CgroupError::NotMounted })
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(os("make the cgroup", path)(source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is below `path` may limit memory.
fn enable(path: &Path) -> io::Result<()> {
    let file = path.join("cgroup.subtree_control");
    if has_memory(&fs::read_to_string(&file)?) {
        return Ok(());
    }
    fs::write(file, "+memory")
}

/// Gives the memory controller to what is below `own`; moves us and our children out of it into `home`/master if they stand in the way.
fn vacate(own: &Path, home: &Path, us: Pid) -> Result<(), CgroupError> {
    const WHAT: &str = "give the memory controller to cgroups below";
    let busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    match enable(own) {
        Err(error) if busy(&error) => {}
        other => return other.map_err(os(WHAT, own)),
    }
    let master = home.join("master");
    make(&master)?;
    let (from, to) = (own.join("cgroup.procs"), master.join("cgroup.procs"));
    let ours = |pid: &str| pid == us.to_string() || parent_of(pid) == Some(us);
    let inside = fs::read_to_string(&from).map_err(os("see who lives in", own))?;
    let moved: Vec<&str> = inside.lines().filter(|pid| ours(pid)).collect();
    let result = moved.iter().try_for_each(|pid| fs::write(&to, pid)).map_err(os("move into", &master)).and_then(|()| match enable(own) {
        Err(error) if busy(&error) => Err(CgroupError::Shared { path: own.into() }),
        other => other.map_err(os(WHAT, own)),
    });
    if result.is_err() {
        for pid in moved {
            let _ = fs::write(&from, pid);
        }
        let _ = fs::remove_dir(&master);
    }
    result
}

fn parent_of(pid: &str) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok().map(Pid::from_raw)
}

/// Takes away what masters that are gone have left, as far as it is empty.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("gateway.")).and_then(|pid| pid.parse::<i32>().ok());
        let Some(pid) = pid.filter(|pid| nix::sys::signal::kill(Pid::from_raw(*pid), None) == Err(nix::Error::ESRCH)) else { continue };
        let home = entry.path();
        for cage in fs::read_dir(home.join("app")).into_iter().flatten().filter_map(Result::ok) {
            let _ = fs::remove_dir(cage.path());
        }
        for path in [home.join("app"), home.join("master"), home] {
            let _ = fs::remove_dir(path);
        }
        tracing::debug!(pid, "took away the cgroups of a gateway that is gone");
    }
}

trait StripSuffixPath {
    fn strip_suffix_path(&self, suffix: &Path) -> &Path;
}

impl StripSuffixPath for Path {
    fn strip_suffix_path(&self, suffix: &Path) -> &Path {
        if self.ends_with(suffix) { self.ancestors().nth(suffix.components().count()).unwrap_or(self) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str =
        "24 30 0:22 / /sys rw - sysfs sysfs rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str =
        "33 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n34 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn our_cgroup_is_found_below_what_is_mounted() {
        let at = |cgroup, mounts| where_we_are(cgroup, mounts).map(|path| path.display().to_string());
        assert_eq!(at("0::/system.slice/gateway.service\n", UNIFIED).expect("found"), "/sys/fs/cgroup/system.slice/gateway.service");
        assert_eq!(at("4:memory:/x\n0::/\n", HYBRID).expect("found"), "/sys/fs/cgroup/unified/");
        let part = "40 24 0:30 /docker/ab\\040c /my\\040groups rw - cgroup2 cgroup rw\n";
        assert_eq!(at("0::/docker/ab c/in\n", part).expect("found"), "/my groups/in");
        assert!(matches!(where_we_are("0::/elsewhere\n", part), Err(CgroupError::Outside)));
        assert!(matches!(where_we_are("0::/../../host\n", UNIFIED), Err(CgroupError::Outside)));
        assert!(matches!(where_we_are("4:memory:/x\n", UNIFIED), Err(CgroupError::NotMounted)));
        assert!(matches!(where_we_are("0::/\n", ""), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn a_master_that_moved_before_finds_the_group_above() {
        let path = Path::new("/c/own/gateway.7/master");
        assert_eq!(path.strip_suffix_path(Path::new("gateway.7/master")), Path::new("/c/own"));
        assert_eq!(path.strip_suffix_path(Path::new("gateway.8/master")), path);
    }

    #[test]
    fn a_kill_at_the_own_limit_is_told_from_one_because_the_machine_was_full() {
        assert_eq!(short("low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n"), Some(Short::Cage));
        assert_eq!(short("max 0\noom 0\noom_kill 1\noom_group_kill 0\n"), Some(Short::Machine));
        assert_eq!(short("max 900\noom 0\noom_kill 0\n"), None);
        assert_eq!(short(""), None);
    }

    #[test]
    fn what_is_no_cgroup_is_refused_with_a_cure_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("dir");
        let gone = Cgroups::below(dir.path(), Pid::this()).expect_err("no cgroup");
        assert!(matches!(gone, CgroupError::Os { .. }) && gone.advice().is_some(), "{gone}");
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io hugetlb pids\n").expect("written");
        let without = Cgroups::below(dir.path(), Pid::this()).expect_err("no memory");
        assert!(matches!(without, CgroupError::NoMemory { .. }) && without.advice().is_some(), "{without}");
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").expect("written");
        assert!(matches!(Cgroups::below(dir.path(), Pid::this()), Err(CgroupError::Os { .. })));
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1, "only what the test wrote");
    }
}
