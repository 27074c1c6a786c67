//! One process: how it is started as somebody, signalled, and found to have ended.
//!
//! Shape: every child leads its own session and group, dies by TERM with the master's main thread, and has no descriptor it was not given.
//!        Start children on the main thread only: the death signal follows the thread that started them.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{self, Gid, Pid, Uid},
};
use thiserror::Error;

use super::kin::Mark;
use crate::{
    plan::{AppLimits, app::StopSignal},
    rules::restart::Exit,
    vocab::story,
};

/// Who a process becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub home: PathBuf,
    groups: Vec<Gid>,
    /// Whether that differs from what we are, so that the child must change.
    changes: bool,
}

impl Identity {
    /// `user` and `group` as written in the configuration, by name or number; without them what this process is.
    ///
    /// Shape: a number that no user has is taken as it is, as containers do: its group is the one of the same number, and it is in no other.
    /// Errors: an unknown name, or another user than ours while we are not root.
    pub fn of(user: Option<&str>, group: Option<&str>) -> Result<Self, SpawnError> {
        let us = Uid::effective();
        let found = match user {
            Some(name) => Account::named(name).ok_or_else(|| SpawnError::NoUser { user: name.to_owned() })?,
            // As in a container that runs under a bare number.
            None => {
                Account::of(us).unwrap_or(Account { name: us.to_string(), uid: us, gid: Gid::effective(), home: "/".into(), listed: false })
            }
        };
        let gid = match group {
            Some(name) => unistd::Group::from_name(name)
                .ok()
                .flatten()
                .map(|g| g.gid)
                .or_else(|| name.parse().ok().map(Gid::from_raw))
                .ok_or_else(|| SpawnError::NoGroup { group: name.to_owned() })?,
            None => found.gid,
        };
        let changes = user.is_some() && found.uid != us || group.is_some() && gid != Gid::effective();
        if changes && !us.is_root() {
            return Err(SpawnError::NotRoot { user: found.name });
        }
        let mut groups = vec![gid];
        if changes && found.listed {
            let name = CString::new(found.name.as_bytes()).map_err(|_| SpawnError::NoUser { user: found.name.clone() })?;
            groups = unistd::getgrouplist(&name, gid).unwrap_or(groups);
        }
        Ok(Self { name: found.name, uid: found.uid, gid, home: found.home, groups, changes })
    }

    /// As the edge is it: in no group but its own.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { groups: vec![self.gid], ..self }
    }

    #[must_use]
    pub fn groups(&self) -> &[Gid] {
        &self.groups
    }

    /// Whether it is another than ours.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.changes
    }
}

/// What the system knows of a user.
struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
    /// It stands in the user database.
    listed: bool,
}

impl Account {
    fn named(name: &str) -> Option<Self> {
        if let Some(found) = unistd::User::from_name(name).ok().flatten() {
            return Some(Self::from(found));
        }
        // The highest number means "nobody at all" to the kernel.
        let number = name.parse::<u32>().ok().filter(|number| *number != u32::MAX)?;
        let uid = Uid::from_raw(number);
        Some(Self::of(uid).unwrap_or(Self { name: name.to_owned(), uid, gid: Gid::from_raw(number), home: "/".into(), listed: false }))
    }

    fn of(uid: Uid) -> Option<Self> {
        unistd::User::from_uid(uid).ok().flatten().map(Self::from)
    }
}

impl From<unistd::User> for Account {
    fn from(user: unistd::User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir, listed: true }
    }
}

/// What to start, completely.
#[derive(Debug)]
pub struct Launch {
    pub argv: Vec<OsString>,
    /// `None`: ours.
    pub nice: Option<i8>,
    /// Shown in `ps` instead of the program.
    pub arg0: Option<String>,
    pub dir: Option<PathBuf>,
    /// All of it: nothing is inherited.
    pub env: BTreeMap<OsString, OsString>,
    pub identity: Identity,
    pub umask: u32,
    pub limits: Limits,
    pub memory: Option<MemoryCap>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Further descriptors and the numbers at which the child finds them; all are 10 or above on our side.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
}

/// How much memory a process and its children may use together; kept by the nursery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryCap {
    pub max: u64,
    /// Of its cgroup: unlike that of any other process of ours.
    pub name: String,
    /// Where the kernel does not end it: how it is told to, and how long it has for that.
    pub signal: Signal,
    pub patience: Duration,
}

/// Soft and hard resource limits; those not named are as ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Limits(Vec<(Step, Resource, u64, u64)>);

impl Limits {
    /// `nofile`: soft and hard limit of open files where the app says nothing.
    #[must_use]
    pub fn of(limits: &AppLimits, nofile: Option<(u64, u64)>) -> Self {
        let AppLimits { nofile: files, nproc, core, fsize, stack, address_space } = limits;
        let both = |limit: &Option<u64>| limit.map(|n| (n, n));
        let all = [
            (Step::Nofile, Resource::RLIMIT_NOFILE, both(files).or(nofile)),
            (Step::Nproc, Resource::RLIMIT_NPROC, both(nproc)),
            (Step::Core, Resource::RLIMIT_CORE, both(core)),
            (Step::Fsize, Resource::RLIMIT_FSIZE, both(fsize)),
            (Step::Stack, Resource::RLIMIT_STACK, both(stack)),
            (Step::AddressSpace, Resource::RLIMIT_AS, both(address_space)),
        ];
        Self(all.into_iter().filter_map(|(step, resource, limit)| limit.map(|(soft, hard)| (step, resource, soft, hard))).collect())
    }

    /// Of open files alone.
    #[must_use]
    pub fn nofile(soft: u64, hard: u64) -> Self {
        Self::of(&AppLimits::default(), Some((soft, hard)))
    }
}

/// Why a process could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    #[error("start an empty command")]
    Empty,
    #[error("find program {program:?} in PATH ({path})")]
    NotFound { program: String, path: String },
    #[error("find program {program:?}: there is no such file")]
    NoFile { program: String },
    #[error("run program {program:?}: it is not executable")]
    NotExecutable { program: String },
    #[error("find user {user:?}")]
    NoUser { user: String },
    #[error("find group {group:?}")]
    NoGroup { group: String },
    #[error("become user {user:?}: gateway does not run as root")]
    NotRoot { user: String },
    #[error("enter directory {dir}: it does not exist")]
    NoDir { dir: String },
    #[error("{step}{of}")]
    Step {
        step: Step,
        /// What of, with a space before it; empty where the step says it all.
        of: String,
        #[source]
        source: io::Error,
    },
    #[error("use an argument or a value with a zero byte")]
    Zero,
    #[error("prepare {what}")]
    Prepare {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("use the socket path {path}: it is longer than 107 bytes")]
    LongPath { path: String },
    #[error("find a free port for it")]
    NoPort,
    /// Nothing was started. The whole story, in words.
    #[error("have its address: {why}")]
    Taken { why: String },
    #[error("start {program}")]
    Os {
        program: String,
        #[source]
        source: io::Error,
    },
}

impl SpawnError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::NotFound { .. } => Some("give its full path in `command`, or set PATH in the app's `env`"),
            Self::NoFile { .. } => Some("the path is taken from `dir`, or from where gateway runs if there is none"),
            Self::NotExecutable { .. } => Some("chmod +x it, or start it through its interpreter"),
            Self::NoUser { .. } => Some("create it with: useradd --system --no-create-home NAME"),
            Self::NoGroup { .. } => Some("create it with: groupadd --system NAME"),
            Self::NotRoot { .. } => Some("leave out `user` and `group`, or start gateway as root"),
            Self::NoDir { .. } => Some("create it, or correct `dir`"),
            Self::Step { step: Step::Nice, .. } => Some("only root may choose less than gateway has: leave `nice` out or raise it"),
            Self::Step { step: Step::Dir, .. } => Some("the app's user must be able to enter it"),
            Self::Step { step: Step::Nofile, .. } => Some("lower limits.nofile, or raise the hard limit of gateway (LimitNOFILE=)"),
            Self::Step { step: Step::Nproc | Step::Core | Step::Fsize | Step::Stack | Step::AddressSpace, .. } => Some(
                "lower it, or raise the hard limit of gateway (under systemd LimitNPROC=, LimitCORE=, LimitFSIZE=, LimitSTACK=, LimitAS=)",
            ),
            // The kernel refuses exec where the user has more processes than its limit.
            Self::Os { source, .. } if source.kind() == io::ErrorKind::WouldBlock => Some(
                "limits.nproc counts every process and thread of the app's user, whoever started it: raise it, or give the app a user of its own",
            ),
            Self::LongPath { .. } => Some("set `run` to a shorter directory"),
            Self::NoPort => Some("set `port` to the first of a range of your own"),
            Self::Taken { .. } => Some("end what has it, or choose another `port`"),
            Self::Empty | Self::Step { .. } | Self::Zero | Self::Prepare { .. } | Self::Os { .. } => None,
        }
    }

    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        story(self, self.advice())
    }
}

/// What the child does between fork and exec; the first to fail is told to the parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i32)]
pub enum Step {
    Session = 1,
    Nofile = 2,
    Group = 3,
    User = 4,
    Dir = 5,
    Privileges = 6,
    Parent = 7,
    Descriptor = 8,
    Nproc = 9,
    Core = 10,
    Fsize = 11,
    Stack = 12,
    AddressSpace = 13,
    Cgroup = 14,
    Nice = 15,
}

/// Codes above this are a step and an errno: the pipe through which std reports a failed start carries one number.
const STEP_BASE: i32 = 100_000;

impl Step {
    const ALL: [Self; 15] = [
        Self::Session,
        Self::Nofile,
        Self::Group,
        Self::User,
        Self::Dir,
        Self::Privileges,
        Self::Parent,
        Self::Descriptor,
        Self::Nproc,
        Self::Core,
        Self::Fsize,
        Self::Stack,
        Self::AddressSpace,
        Self::Cgroup,
        Self::Nice,
    ];

    fn failed(self, errno: nix::Error) -> io::Error {
        io::Error::from_raw_os_error(self as i32 * STEP_BASE + errno as i32)
    }

    fn of(error: &io::Error) -> Option<(Self, io::Error)> {
        let code = error.raw_os_error()?;
        let step = Self::ALL.into_iter().find(|step| *step as i32 == code / STEP_BASE)?;
        Some((step, io::Error::from_raw_os_error(code % STEP_BASE)))
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Session => "make a session for it",
            Self::Nofile => "set its limit of open files",
            Self::Nproc => "set its limit of processes",
            Self::Core => "set its limit of core files",
            Self::Fsize => "set its limit of files that it writes",
            Self::Stack => "set its limit of stack",
            Self::AddressSpace => "set its limit of address space",
            Self::Cgroup => "enter its cgroup",
            Self::Nice => "set its niceness",
            Self::Group => "take on its group",
            Self::User => "take on its user",
            Self::Dir => "enter its directory",
            Self::Privileges => "give up privileges",
            Self::Parent => "bind its life to ours",
            Self::Descriptor => "hand it its descriptors",
        })
    }
}

/// Starts it and gives its pid, which is its group and session too. `cgroup`: the `cgroup.procs` of the cgroup that it shall live in. `mark`: what it and
/// all that come of it carry.
pub fn spawn(launch: Launch, cgroup: Option<BorrowedFd<'_>>, mark: Option<Mark>) -> Result<Pid, SpawnError> {
    let Launch { argv, nice, arg0, dir, env, identity, umask: mask, limits, memory: _, stdout, stderr, descriptors } = launch;
    let (program, arguments) = argv.split_first().ok_or(SpawnError::Empty)?;
    find_program(program, dir.as_deref(), env.get(OsStr::new("PATH")).map(OsString::as_os_str))?;
    if let Some(dir) = dir.as_ref().filter(|dir| !dir.is_dir()) {
        return Err(SpawnError::NoDir { dir: dir.display().to_string() });
    }
    let entered = dir.as_ref().map(|dir| format!(" {}", dir.display())).unwrap_or_default();
    let name = program.to_string_lossy().into_owned();
    let dir = dir.map(|dir| CString::new(dir.into_os_string().as_bytes())).transpose().map_err(|_| SpawnError::Zero)?;
    let us = unistd::getpid();
    let wired: Vec<(RawFd, RawFd)> = descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
    let cgroup = cgroup.map(|fd| fd.as_raw_fd());
    let prepare = move || -> io::Result<()> {
        if let Some(procs) = cgroup {
            // SAFETY: writes one byte that lives for ever to a descriptor that the caller keeps open until after the spawn. "0" is who writes.
            if unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } != 1 {
                return Err(Step::Cgroup.failed(nix::Error::last()));
            }
        }
        for signal in 1..32 {
            // SAFETY: signal(2) is async-signal-safe; KILL and STOP refuse harmlessly. What we ignore or handle must not reach the program.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        unistd::setsid().map_err(|e| Step::Session.failed(e))?;
        umask(Mode::from_bits_truncate(mask));
        for (from, to) in &wired {
            // SAFETY: both numbers are plain descriptors of this process; the source is kept open by `descriptors` until after the spawn.
            if unsafe { libc::dup2(*from, *to) } < 0 {
                return Err(Step::Descriptor.failed(nix::Error::last()));
            }
        }
        let first = wired.iter().map(|(_, to)| *to + 1).max().unwrap_or(3);
        // SAFETY: only marks descriptors close-on-exec: those that whoever started us left open. std's error pipe is so already.
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        restore_oom_score();
        if let Some(nice) = nice {
            // SAFETY: setpriority(2) takes three numbers; 0 is who calls.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) } != 0 {
                return Err(Step::Nice.failed(nix::Error::last()));
            }
        }
        for (step, resource, soft, hard) in &limits.0 {
            setrlimit(*resource, *soft, *hard).map_err(|e| step.failed(e))?;
        }
        if let Some(mark) = mark {
            set_mark(mark);
        }
        if identity.changes {
            unistd::setgroups(&identity.groups).map_err(|e| Step::Group.failed(e))?;
            unistd::setresgid(identity.gid, identity.gid, identity.gid).map_err(|e| Step::Group.failed(e))?;
            unistd::setresuid(identity.uid, identity.uid, identity.uid).map_err(|e| Step::User.failed(e))?;
        }
        if !identity.uid.is_root() {
            // No program with the set-user bit gives back what it has not.
            prctl::set_no_new_privs().map_err(|e| Step::Privileges.failed(e))?;
        }
        if let Some(dir) = &dir {
            unistd::chdir(dir.as_c_str()).map_err(|e| Step::Dir.failed(e))?;
        }
        // After the change of user, which clears it.
        prctl::set_pdeathsig(Signal::SIGTERM).map_err(|e| Step::Parent.failed(e))?;
        if unistd::getppid() != us {
            return Err(Step::Parent.failed(nix::Error::ESRCH));
        }
        Ok(())
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if let Some(arg0) = arg0 {
        command.arg0(arg0);
    }
    // SAFETY: `prepare` runs between fork and exec: it makes system calls on values prepared before the fork, allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn().map_err(|error| match Step::of(&error) {
        Some((step, source)) => SpawnError::Step { step, source, of: if step == Step::Dir { entered } else { String::new() } },
        None if error.kind() == io::ErrorKind::InvalidInput => SpawnError::Zero,
        None => SpawnError::Os { program: name, source: error },
    })?;
    drop(descriptors);
    // Dropping std's handle neither waits nor kills: the nursery reaps by pid.
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// Our own score as text, as it was before we lowered it.
static OOM_SCORE: OnceLock<Vec<u8>> = OnceLock::new();

/// Our score as it was, for a binary that takes over: what it finds is what we made of it.
#[must_use]
pub fn oom_score() -> Option<String> {
    OOM_SCORE.get().map(|score| String::from_utf8_lossy(score).into_owned())
}

/// As [`lower_oom_score`], in the place of a binary that has done so.
pub fn keep_oom_score(before: Option<String>) {
    if let Some(before) = before {
        // Called once, at the start.
        let _ = OOM_SCORE.set(before.into_bytes());
    }
}

/// The kernel shall take the master last when memory is short; only root may ask for that.
pub fn lower_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    if let Ok(before) = std::fs::read(FILE)
        && std::fs::write(FILE, "-900").is_ok()
    {
        // Called once; a second call keeps the first value, which is the true one.
        let _ = OOM_SCORE.set(before);
    }
}

/// A child must not profit from what we asked for ourselves.
fn restore_oom_score() {
    let Some(before) = OOM_SCORE.get() else { return };
    // SAFETY: open, write and close on a literal path and bytes that live for ever; a failure leaves the score as it is.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, before.as_ptr().cast(), before.len());
            libc::close(fd);
        }
    }
}

/// Without it only session, group and parents say whose it is: no reason not to start it.
fn set_mark(mark: Mark) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_LOCKS) {
        let _ = setrlimit(Resource::RLIMIT_LOCKS, mark.limit(), hard);
    }
}

/// So that the reason is clear before the kernel says only "not found".
fn find_program(program: &OsStr, dir: Option<&Path>, path: Option<&OsStr>) -> Result<(), SpawnError> {
    let name = program.to_string_lossy().into_owned();
    if name.is_empty() {
        return Err(SpawnError::Empty);
    }
    if program.as_bytes().contains(&b'/') {
        let file = dir.map_or_else(|| PathBuf::from(program), |dir| dir.join(program));
        return match executable(&file) {
            Some(true) => Ok(()),
            Some(false) => Err(SpawnError::NotExecutable { program: name }),
            None => Err(SpawnError::NoFile { program: file.display().to_string() }),
        };
    }
    let path = path.unwrap_or_default();
    let found: Vec<bool> = std::env::split_paths(path).filter_map(|dir| executable(&dir.join(program))).collect();
    if found.contains(&true) {
        Ok(())
    } else if found.is_empty() {
        Err(SpawnError::NotFound { program: name, path: path.to_string_lossy().into_owned() })
    } else {
        Err(SpawnError::NotExecutable { program: name })
    }
}

fn executable(file: &Path) -> Option<bool> {
    let data = file.metadata().ok().filter(|data| data.is_file())?;
    Some(data.permissions().mode() & 0o111 != 0)
}

/// A stop signal as the kernel knows it.
#[must_use]
pub fn stop_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Hup => Signal::SIGHUP,
        StopSignal::Usr1 => Signal::SIGUSR1,
        StopSignal::Usr2 => Signal::SIGUSR2,
        StopSignal::Winch => Signal::SIGWINCH,
        StopSignal::Kill => Signal::SIGKILL,
    }
}

/// A child that has ended and still lies there.
///
/// `of`: only this one; `None`: any child at all, strangers that were left to us too.
#[must_use]
pub fn ended(of: Option<Pid>) -> Option<Pid> {
    // SAFETY: siginfo_t is plain data for which zeros are valid; waitid fills it in and touches nothing else. WNOWAIT leaves the child as it is.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let (kind, id) = of.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid.as_raw().cast_unsigned()));
        if libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) != 0 {
            return None;
        }
        info.si_pid()
    };
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Takes away a child that [`ended`] found, and says how it ended.
#[must_use]
pub fn reap(pid: Pid) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: waitpid writes one int that we own. By pid: no other child can be taken by mistake.
    let got = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::WNOHANG) };
    if got != pid.as_raw() {
        return None;
    }
    if libc::WIFSIGNALED(status) { Some(Exit::Signal(libc::WTERMSIG(status))) } else { Some(Exit::Code(libc::WEXITSTATUS(status))) }
}

/// Whether anything of the group is left, unreaped processes too.
#[must_use]
pub fn group_exists(group: Pid) -> bool {
    nix::sys::signal::killpg(group, None).is_ok_and(|()| true)
}

/// A descriptor copied to a number of 10 or above, so that handing it over at 3 or 4 never hits its source.
pub fn high(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor that nobody else owns; `fd` is open for the length of the call.
    unsafe {
        let copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10);
        if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

/// Occupies the low numbers for the life of the process: std's own error pipe must not stand where a child's descriptors are put.
pub fn reserve_low_descriptors() -> io::Result<Vec<OwnedFd>> {
    let mut kept = Vec::new();
    loop {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null")?);
        if fd.as_raw_fd() >= 10 {
            return Ok(kept);
        }
        kept.push(fd);
    }
}
