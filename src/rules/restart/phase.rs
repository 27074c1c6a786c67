//! Where an instance stands, and what comes next.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Reason;

/// Where an instance stands, as people see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Stopped,
    Starting,
    Ready,
    Draining,
    Stopping,
    Exited,
    Backoff,
    Cooldown,
    /// Somebody else has its address.
    Taken,
}

/// Where an instance stands, with what comes next.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum Phase {
    Stopped,
    /// Until what it needs is there.
    Awaiting,
    /// The policy leaves it so.
    Exited,
    /// `then`: it was told to stop meanwhile.
    Spawning {
        then: Option<After>,
    },
    Starting {
        deadline: Option<Duration>,
    },
    Ready,
    Draining {
        deadline: Duration,
        then: After,
    },
    Stopping {
        deadline: Duration,
        then: After,
    },
    Killing {
        again: Duration,
        then: After,
    },
    Backoff {
        due: Duration,
    },
    Cooldown {
        not_before: Duration,
    },
    /// Somebody else has its address: tried again then. No exit, so it costs no budget.
    Taken {
        due: Duration,
    },
}

/// What follows when the process is gone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum After {
    Rest,
    Again(Reason),
    Fail(Reason, String),
    /// It ended by itself and its policy leaves it so.
    End(String),
    Remove,
}

impl Phase {
    pub(super) fn state(&self) -> State {
        match self {
            Self::Stopped => State::Stopped,
            Self::Awaiting => State::Starting,
            Self::Exited => State::Exited,
            Self::Spawning { .. } | Self::Starting { .. } => State::Starting,
            Self::Ready => State::Ready,
            Self::Draining { .. } => State::Draining,
            Self::Stopping { .. } | Self::Killing { .. } => State::Stopping,
            Self::Backoff { .. } => State::Backoff,
            Self::Cooldown { .. } => State::Cooldown,
            Self::Taken { .. } => State::Taken,
        }
    }
}
