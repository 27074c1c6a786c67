//! `[app.NAME]`: a program that we supervise.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    log::Rotation,
    upstream::{UpstreamHttp, UpstreamTimeouts},
};
use crate::vocab::{AppName, Pace, Secret};

/// Shape: equal specs mean that a reload need not touch a running process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Program and arguments, not yet filled in: `{socket}`, `{port}`, `{n}` are replaced an instance.
    pub command: Vec<String>,
    /// Before each start of a process, as its user.
    pub before_start: BeforeStart,
    /// `false`: only a person starts it.
    pub autostart: bool,
    /// `None`: as gateway was started with.
    pub nice: Option<i8>,
    pub dir: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Filled in as the command is. Wins over `env_file`. Values may be secrets and never show.
    pub env: BTreeMap<String, Secret<String>>,
    /// What the file holds, as it stands there.
    pub env_file: BTreeMap<String, Secret<String>>,
    pub procs: NonZeroU16,
    pub port: AppPort,
    /// What is spoken to it.
    pub http: UpstreamHttp,
    pub ready: Ready,
    pub live: Option<Live>,
    pub restart: RestartPolicy,
    pub stop: Stop,
    pub limits: AppLimits,
    pub umask: Option<u32>,
    /// A process is replaced after so much.
    pub recycle: Recycle,
    /// `None`: requests do not wait while no process is ready.
    pub hold: Option<Hold>,
    /// Bytes: of the whole cgroup, or of what is seen of the processes.
    pub memory_max: Option<u64>,
    /// Started once these are ready.
    pub after: Vec<AppName>,
    /// A job, not a server.
    pub schedule: Option<Schedule>,
    /// Commands, once a deploy.
    pub before: Vec<Vec<String>>,
    /// The process must send WATCHDOG=1 at least so often.
    pub watchdog: Option<Duration>,
    pub deploy: DeployPolicy,
    /// Which deploy put `dir` in the place of the configuration's own.
    pub release: Option<String>,
    pub log: Rotation,
    /// How requests travel to it; the defaults of `[upstream]`.
    pub timeouts: UpstreamTimeouts,
}

/// How an instance is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AppPort {
    /// A worker: nothing is routed to it.
    None,
    /// `{port}` in the command or in `env`, or a site that names the app: a free one from a private range for each instance, in PORT too.
    Allotted,
    /// `port = 8000`: instance n listens on `first + n`.
    Fixed { first: NonZeroU16 },
    /// `{socket}` in the command or in `env`: RUN/app/NAME/N.sock.
    Socket,
}

/// What proves that an instance may serve. Elapsed time alone never does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ready {
    /// 2xx or 3xx on this path, asked with this Host; `None`: a name that is routed to the app. Probed by the edge.
    Http { path: String, host: Option<String>, timeout: Duration },
    /// The port or socket accepts. Probed by the edge.
    Tcp { timeout: Duration },
    /// A line of output matches this regex (compiles: checked at load). Seen by the master.
    Log { pattern: String, timeout: Duration },
    /// `READY=1` on NOTIFY_SOCKET. Seen by the master.
    Notify { timeout: Duration },
    /// A worker without a port: started is ready.
    Started,
}

impl Ready {
    /// How long a start may take; `None` where being started is enough.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Http { timeout, .. } | Self::Tcp { timeout } | Self::Log { timeout, .. } | Self::Notify { timeout } => Some(*timeout),
            Self::Started => None,
        }
    }
}

/// `live`: an instance that keeps failing this is restarted, one at a time. Probed by the edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    pub path: String,
    /// As in [`Ready::Http`].
    pub host: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub fail: NonZeroU32,
    pub pass: NonZeroU32,
}

/// `restart`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub policy: Policy,
    pub delay: Duration,
    pub max_delay: Duration,
    /// Unexpected exits of the whole app in a time; spent: cooldown.
    pub budget: Pace,
    /// Exit codes that are no failure; 0 always is one of them.
    pub success: Vec<i32>,
    /// Exit codes after which it is not started again, whatever the policy.
    pub give_up: Vec<i32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Policy {
    Always,
    OnFailure,
    Never,
}

/// `stop`: out of rotation, wait for in-flight requests up to `drain`, `signal` to the leader, after `timeout` KILL to the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    pub signal: StopSignal,
    pub timeout: Duration,
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Winch,
    Kill,
}

/// `limits`: resource limits of a process, soft and hard alike; `None`: as gateway was started with.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct AppLimits {
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes of its user.
    pub nproc: Option<u64>,
    /// Bytes of a core file.
    pub core: Option<u64>,
    /// Bytes of a file that it writes.
    pub fsize: Option<u64>,
    /// Bytes of its stack.
    pub stack: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
}

/// `recycle`: always replaced first, then drained; one at a time.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Recycle {
    pub requests: Option<u64>,
    /// ±10 %, so that processes of one age do not go together.
    pub age: Option<Duration>,
    /// Bytes, averaged over three samples.
    pub memory: Option<u64>,
}

impl Recycle {
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// `hold`: requests wait while no process is ready. Beyond any of the bounds: 503 with Retry-After at once.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    pub time: Duration,
    pub requests: u32,
    /// Of bodies that wait with their requests.
    pub bytes: u64,
}

/// `schedule`: when a job runs; never while it still runs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields, or `@daily` and its like; parses: checked at load.
    pub cron: String,
    /// IANA name; `None`: the machine's own zone.
    pub zone: Option<String>,
    /// A run that takes longer is ended, as by `stop`.
    pub timeout: Option<Duration>,
}

/// `before_start`: commands, one after the other; the first that fails or is late makes the start a failed one.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct BeforeStart {
    pub commands: Vec<Vec<String>>,
    /// Of one command.
    pub timeout: Duration,
}

/// `deploy`: how a new release is proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployPolicy {
    /// Paths that each new process must answer below 500 before it takes requests.
    pub warm: Vec<String>,
    /// How long the old processes stand by after the switch.
    pub guard: Duration,
    /// Of its answers that may be 5xx (0 to 1) during the guard; more, and the old release takes over again.
    pub errors: f64,
    /// Of one command of `before`.
    pub before_timeout: Duration,
}
