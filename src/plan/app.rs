//! `[app.NAME]`: a program that we supervise.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{log::Rotation, upstream::UpstreamTimeouts};
use crate::vocab::{Pace, Secret};

/// Shape: equal specs mean that a reload need not touch a running process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Program and arguments, not yet filled in: `{socket}`, `{port}`, `{n}` are replaced an instance.
    pub command: Vec<String>,
    pub dir: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    /// `env` over `env_file`. Values may be secrets and never show.
    pub env: BTreeMap<String, Secret<String>>,
    pub procs: NonZeroU16,
    pub port: AppPort,
    pub ready: Ready,
    pub live: Option<Live>,
    pub restart: RestartPolicy,
    pub stop: Stop,
    /// RLIMIT_NOFILE
    pub nofile: Option<u64>,
    pub log: Rotation,
    /// How requests travel to it; the defaults of `[upstream]`.
    pub timeouts: UpstreamTimeouts,
}

/// How an instance is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AppPort {
    /// A worker: nothing is routed to it.
    None,
    /// `{port}` in the command: a free one from a private range for each instance.
    Allotted,
    /// `port = 8000`: instance n listens on `first + n`.
    Fixed { first: NonZeroU16 },
    /// `{socket}` in the command: RUN/app/NAME/N.sock.
    Socket,
}

/// What proves that an instance may serve. Elapsed time alone never does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ready {
    /// 2xx or 3xx on this path. Probed by the edge.
    Http { path: String, timeout: Duration },
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
    Kill,
}
