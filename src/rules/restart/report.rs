//! What is said of an app: for the log and for whoever waits.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For the log and for whoever waits.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Report {
    Ready {
        n: u16,
        took: Duration,
    },
    /// It ended and is started again after `delay`.
    Again {
        n: u16,
        why: String,
        delay: Duration,
    },
    /// Somebody else has its address; it is tried again after `delay`. `lasts`: it was so at the try before, too.
    Taken {
        n: u16,
        why: String,
        delay: Duration,
        lasts: bool,
    },
    /// It ended and its policy leaves it so.
    Ended {
        n: u16,
        why: String,
    },
    Stopped {
        n: u16,
    },
    Unhealthy {
        n: u16,
        why: String,
    },
    /// KILL was necessary.
    Stubborn {
        n: u16,
    },
    BudgetSpent {
        exits: usize,
    },
    /// A try in cooldown has served long enough.
    Recovered,
    /// It goes first and the next one comes after it, because both have no room.
    NoRoom {
        n: u16,
        why: String,
    },
    RollDone,
    RollAborted {
        n: u16,
        why: String,
    },
    Recycling {
        n: u16,
        why: String,
    },
    RecycleFailed {
        n: u16,
        why: String,
    },
    Warmed {
        n: u16,
    },
    /// The new release takes the requests; the old one stands by for so long.
    Switched {
        guard: Duration,
    },
    DeployDone,
    /// The old release serves on, or again.
    DeployFailed {
        /// Whose process it was that failed, where it was one.
        n: Option<u16>,
        why: String,
    },
}

/// Why it was started again: a label of `gateway_app_restarts_total`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Reason {
    Exit,
    Signal,
    Memory,
    /// Could not be started, or was not ready in time.
    Unready,
    Unhealthy,
    Command,
    Reload,
    Recycle,
    Deploy,
}

impl Reason {
    pub const ALL: [Self; 9] =
        [Self::Exit, Self::Signal, Self::Memory, Self::Unready, Self::Unhealthy, Self::Command, Self::Reload, Self::Recycle, Self::Deploy];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Memory => "memory",
            Self::Unready => "unready",
            Self::Unhealthy => "unhealthy",
            Self::Command => "command",
            Self::Reload => "reload",
            Self::Recycle => "recycle",
            Self::Deploy => "deploy",
        }
    }
}
