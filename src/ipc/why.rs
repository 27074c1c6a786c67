//! What is known of a request that failed: the edge's part and the master's.
//!
//! Pure shapes; `gateway why ID --json` prints an [`Account`]. Names are a contract: extend, never rename.
//! Units: moments in Unix milliseconds.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::{Incarnation, InstanceId, InstanceState};
use crate::vocab::AppName;

/// The longest id that is taken from a trusted peer.
pub const LONGEST_ID: usize = 128;

/// Why a text cannot be the id of a request.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum IdError {
    #[error("an id has 1 to {LONGEST_ID} characters, this one has {0} bytes")]
    Length(usize),
    #[error("an id is visible ASCII without spaces")]
    Byte,
}

/// The id of a request, as in `X-Request-Id`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// Errors: [`IdError`]: no request has such an id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if !(1..=LONGEST_ID).contains(&text.len()) {
            return Err(IdError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdError::Byte);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

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

/// A request that a process had when its connection broke.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    pub id: String,
    /// Method and path, without the query; escaped, and cut.
    pub request: String,
    /// It had met that before, in another process.
    pub again: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_id_is_refused_at_the_door() {
        assert!(RequestId::parse("4bf92f3577b34da6a3ce929d0e0e4736").is_ok());
        assert_eq!(RequestId::parse(""), Err(IdError::Length(0)));
        assert_eq!(RequestId::parse(&"x".repeat(129)), Err(IdError::Length(129)));
        for bad in ["a b", "a\u{1b}[31m", "größe", "a\0"] {
            assert_eq!(RequestId::parse(bad), Err(IdError::Byte), "{bad:?}");
        }
        assert!(serde_json::from_str::<RequestId>("\"a\\n\"").is_err(), "nor over the socket");
    }
}
