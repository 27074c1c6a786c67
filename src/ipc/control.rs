//! What the command line and the master say over RUN/gateway.sock.
//!
//! Pure shapes. One JSON document a line; the client sends one [`Request`], the master answers with any number of `Progress` and then one `Done` or `Failed`.

use serde::{Deserialize, Serialize};

use crate::vocab::{AppName, Host};

/// The longest line either side accepts; a longer one ends the conversation with an error.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

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
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A line for a human who waits.
    Progress {
        text: String,
    },
    Done {
        result: serde_json::Value,
    },
    Failed {
        error: String,
        kind: Failure,
    },
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
