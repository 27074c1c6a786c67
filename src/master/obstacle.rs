//! What stands in the way of an upgrade: why the running binary stays, and why the next one cannot go on.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::child::SpawnError;
use crate::vocab::{AppName, story};

/// Why the running binary stays.
#[derive(Debug, Error)]
pub enum UpgradeError {
    #[error("upgrade: gateway is stopping")]
    Stopping,
    #[error("upgrade: the edge is not ready")]
    EdgeDown,
    #[error("upgrade: {count} edges of upgrades before still drain")]
    Elders { count: usize },
    #[error("upgrade: a deploy of {app} is under way")]
    Deploying { app: AppName },
    #[error("upgrade: {count} processes run that cannot be handed over")]
    Busy { count: usize },
    #[error("upgrade: the log files are written too slowly")]
    Logs,
    #[error("upgrade: a process that ended is still being cleared away")]
    Leaving,
    #[error("upgrade: there is no guard")]
    NoGuard,
    #[error("copy a descriptor for the next binary")]
    Descriptors(#[source] io::Error),
    #[error("write down the state for the next binary")]
    Write(#[source] serde_json::Error),
    #[error("keep the state for the next binary")]
    Memory(#[source] io::Error),
    #[error("start the self-check of {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: SpawnError,
    },
    #[error("upgrade: {} did not finish its self-check within {} s", program.display(), within.as_secs())]
    Silent { program: PathBuf, within: Duration },
    #[error("upgrade: {} is not a gateway that knows how to take over ({how}{})", program.display(), quoted(said))]
    Stranger { program: PathBuf, how: String, said: String },
    #[error("upgrade: {} failed its self-check{}", program.display(), quoted(said))]
    Refused { program: PathBuf, said: String },
    #[error("execute {}", program.display())]
    Exec {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl UpgradeError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::EdgeDown | Self::Leaving | Self::Logs | Self::NoGuard => Some("try again in a moment"),
            Self::Elders { .. } | Self::Busy { .. } | Self::Deploying { .. } => Some("try again when they have ended"),
            Self::Start { source, .. } => source.advice(),
            Self::Stranger { .. } => Some("put the new binary where the running one was started from"),
            Self::Descriptors(_) => Some("raise the limit of open files of gateway (LimitNOFILE=)"),
            Self::Stopping | Self::Write(_) | Self::Memory(_) | Self::Silent { .. } | Self::Refused { .. } | Self::Exec { .. } => None,
        }
    }

    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        story(self, self.advice())
    }
}

/// Why a state cannot be gone on with.
#[derive(Debug, Error)]
pub enum TakeOverError {
    #[error("find the state of the binary before")]
    Missing(#[source] io::Error),
    #[error("read the state of the binary before")]
    Misread(#[source] serde_json::Error),
    #[error("read the state of the binary before: it has format {theirs}, this build reads {ours}")]
    Format { theirs: u32, ours: u32 },
    #[error("take over app {app}")]
    App {
        app: AppName,
        #[source]
        source: serde_json::Error,
    },
    #[error("take over app {app} while it is being removed")]
    Leaving { app: AppName },
    #[error("take over a descriptor")]
    Descriptor(#[source] io::Error),
    #[error("take over a plan of another build while the file has been changed since the last reload")]
    Edited,
    #[error("take over: {key} is not what it was in this build")]
    Fixed { key: &'static str },
    #[error("take over: the listeners of this build are not those that are open")]
    Listeners,
}

impl TakeOverError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Edited => Some("`gateway reload` first, so that the file is what is in force"),
            Self::Leaving { .. } => Some("try again when it is gone"),
            Self::Format { .. } | Self::Fixed { .. } | Self::Listeners => Some("stop gateway and start the new binary"),
            Self::Missing(_) | Self::Misread(_) | Self::App { .. } | Self::Descriptor(_) => None,
        }
    }
}
