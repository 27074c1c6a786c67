//! What is known of a request that failed: the edge's part and the master's.
//!
//! Pure shapes; `gateway why ID --json` prints an [`Account`]. Names are a contract: extend, never rename.
//! Units: moments in Unix milliseconds.

use serde::{Deserialize, Serialize};

pub use super::id::{IdError, LONGEST_ID, RequestId, Suspect};
use super::message::{Incarnation, InstanceId, InstanceState};
use crate::vocab::AppName;

/// Why a request was answered with an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No server is up.
    NoServer,
    /// Every server has as many requests as it may have.
    Full,
    /// It would have waited for an instance, and `hold` was full.
    HoldFull,
    /// It waited for an instance, and none came within `hold.time`.
    HoldTimedOut,
    ConnectRefused,
    ConnectTimeout,
    /// Any other reason why there was no connection.
    Connect,
    /// The connection broke before a byte of the answer.
    Reset,
    /// No byte of the answer in time.
    ReadTimeout,
    /// The server took the request too slowly.
    SendTimeout,
    /// What came was no HTTP, or broke off.
    BadAnswer,
    /// The server that says who may come in could not be asked, or did not answer in time.
    Door,
    /// As many passwords waited for their verification as may.
    DoorBusy,
    /// It was refused: [`Failed::refused`] says by what.
    Refused,
    /// The app itself answered so.
    Answered,
    /// None of these.
    Other,
}

/// What the edge knows of a request that it refused or could not serve, or that an app answered with 5xx.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub id: String,
    /// When it was answered.
    pub at_ms: u64,
    pub site: Option<String>,
    pub route: Option<String>,
    pub method: String,
    /// Escaped, and cut to 200 bytes.
    pub path: String,
    pub status: u16,
    pub upstream: Option<String>,
    /// The app whose instances the upstream's servers are.
    pub app: Option<AppName>,
    /// The last server that had the request: an address, or `APP.N`.
    pub server: Option<String>,
    /// Which instance and which start of it that was.
    pub n: Option<u16>,
    pub incarnation: Option<Incarnation>,
    /// On how many servers it was.
    pub tries: u32,
    /// The processes that broke off while they had it, in order.
    pub lost_by: Vec<(InstanceId, Incarnation)>,
    pub fault: Fault,
    /// As in the access log: `zone:api`, `filter:bad-uri/sql`, `ban`.
    #[serde(default)]
    pub refused: Option<String>,
    /// The deadline that passed, for a timeout.
    pub deadline_ms: Option<u64>,
    /// In the words of the proxy engine; escaped, and cut to 200 bytes.
    pub detail: Option<String>,
    /// How long it waited for an instance.
    pub queue_ms: u64,
    /// Until the last connection stood; `None`: none did.
    pub connect_ms: Option<u64>,
    /// On all servers together.
    pub upstream_ms: u64,
    /// From its head to our answer.
    pub total_ms: u64,
    /// How long the edge that tells this has run: it remembers nothing of the one before.
    pub edge_started_ms: u64,
}

/// How a process ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// As in "exit 1", "signal 9 (KILL)".
    pub how: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Whether the kernel killed it for memory: it was killed, and the kernel's count of such kills rose in its lifetime. `None`: the kernel does not say.
    pub oom: Option<bool>,
    pub at_ms: u64,
}

/// What the master knows of one process of an app.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fate {
    /// `APP.N`
    pub instance: String,
    pub incarnation: Incarnation,
    pub release: Option<String>,
    pub pid: u32,
    pub started_ms: u64,
    /// How often the instance had been started before.
    pub restart: u64,
    /// `None`: it runs.
    pub end: Option<End>,
    /// Its last lines there; no control characters.
    pub stderr: Vec<String>,
    /// Requests that it had when it ended: those that met more than one end first.
    pub suspects: Vec<Suspect>,
}

/// How an instance stands at the moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Now {
    pub instance: String,
    pub state: InstanceState,
    pub pid: Option<u32>,
    pub last_exit: Option<String>,
}

/// All that is known.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub request: Failed,
    /// The process that had the request; where it had none, the last one of the app that ended before. `None`: not an app's, or not remembered any more.
    pub process: Option<Fate>,
    /// Those that ended while they had it, in order.
    pub ended: Vec<Fate>,
    /// The app's instances.
    pub now: Vec<Now>,
}
