//! What the command line and the master say over RUN/gateway.sock.
//!
//! Pure shapes. One JSON document a line; the client sends one [`Question`], the master answers with any number of `Progress`, `Line` and `Lost`, and then one
//! `Done` or `Failed`.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::why::RequestId;
use crate::vocab::{AppName, Host};

/// The longest line either side accepts; a longer one ends the conversation with an error.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// How many lines of the past can be asked for.
pub const MOST_LINES: u32 = 10_000;

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// Everything, as `/api/status` gives it.
    Status,
    Apps,
    Upstreams,
    Zones,
    Certs,
    /// Orders the certificate that is for this host now; answers when that has begun.
    RenewCert {
        host: Host,
    },
    /// Who is banned.
    Bans,
    /// Bans an address, and with it its /64 if it is IPv6.
    Ban {
        ip: IpAddr,
        /// `None`: as long as `[ban]` says, or an hour.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<NonZeroU32>,
    },
    /// Ends a ban.
    Unban {
        ip: IpAddr,
    },
    /// What became of a request that was answered with 502, 503 or 504: an [`Account`](super::why::Account).
    Why {
        id: RequestId,
    },
    /// The last lines of an app's output; with `follow` those that come, until the client leaves or the app is removed.
    Logs {
        app: AppName,
        /// At most [`MOST_LINES`].
        lines: u32,
        follow: bool,
        /// Of a follower who comes back: no more than what came after this moment, in Unix milliseconds, and is in memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<i64>,
    },
    /// Loads the configuration again; answers when it is in force or refused.
    Reload,
    /// Becomes the binary on disk; that one answers, when its edge serves.
    Upgrade,
    Start {
        app: AppName,
    },
    Stop {
        app: AppName,
    },
    /// One instance after the other.
    Restart {
        app: AppName,
    },
    /// So many processes until the next reload or restart of gateway.
    Scale {
        app: AppName,
        procs: NonZeroU16,
    },
    /// A new release; goes on when the client has gone.
    Deploy {
        app: AppName,
        /// Absolute. `None`: the configuration's, where its links lead now.
        dir: Option<PathBuf>,
    },
    /// A page in place of the site, or the site again; answers when that is so.
    Maintenance {
        site: String,
        on: bool,
    },
    /// Back to the release before, or to this one; goes on when the client has gone.
    Rollback {
        app: AppName,
        /// A number of [`Request::Releases`], an id or a directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// The releases of an app that are remembered, newest first.
    Releases {
        app: AppName,
    },
}

/// One of the releases of an app.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// Counts from 1, the newest: what `rollback --to` takes.
    pub n: usize,
    pub id: String,
    pub dir: PathBuf,
    /// RFC 3339 in UTC: when it was deployed.
    pub at: String,
    /// The user who asked for it; `None`: it ran before the first deploy.
    pub by: Option<u32>,
    /// `current`, `previous`, `past` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Request {
    /// Whether it changes anything, or only looks.
    #[must_use]
    pub fn intent(&self) -> Intent {
        match self {
            Self::Status
            | Self::Apps
            | Self::Upstreams
            | Self::Zones
            | Self::Certs
            | Self::Bans
            | Self::Why { .. }
            | Self::Releases { .. }
            | Self::Logs { .. } => Intent::Look,
            Self::RenewCert { .. }
            | Self::Ban { .. }
            | Self::Unban { .. }
            | Self::Reload
            | Self::Upgrade
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Restart { .. }
            | Self::Scale { .. }
            | Self::Deploy { .. }
            | Self::Maintenance { .. }
            | Self::Rollback { .. } => Intent::Act,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intent {
    Look,
    Act,
}

/// What the client sends: a request, and which gateway it means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Question {
    #[serde(flatten)]
    pub request: Request,
    /// The file, absolute, whose gateway is meant: one that runs another file does nothing. `None`: whoever answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A line for a human who waits.
    Progress {
        text: String,
    },
    /// Of an app's output.
    Line(LogLine),
    /// So many lines are missing here: they came faster than the client read.
    Lost {
        lines: u64,
    },
    Done {
        result: serde_json::Value,
    },
    Failed {
        error: String,
        kind: Failure,
    },
}

/// A line that an app wrote. What is not known of one that was read from a file is left out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// RFC 3339, with milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<String>,
    pub app: AppName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `stdout` or `stderr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    pub msg: String,
}

/// Chooses the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// 1
    Refused,
    /// 77
    Permission,
    /// 78
    Configuration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_request_with_a_field_more_that_may_be_missing() {
        let bare: Question = serde_json::from_str("{\"command\":\"reload\"}").expect("a question");
        assert_eq!(bare, Question { request: Request::Reload, config: None });
        assert_eq!(serde_json::to_string(&bare).expect("json"), "{\"command\":\"reload\"}");
        let ban = Request::Ban { ip: "2001:db8::1".parse().expect("an address"), seconds: NonZeroU32::new(60) };
        let full = Question { request: ban.clone(), config: Some("/etc/gateway/gateway.toml".into()) };
        let text = serde_json::to_string(&full).expect("json");
        assert_eq!(serde_json::from_str::<Question>(&text).expect("a question"), full);
        // A gateway of an older build reads the request alone.
        assert_eq!(serde_json::from_str::<Request>(&text).expect("a request"), ban);
    }
}
