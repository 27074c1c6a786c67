//! What the shell must do for an app.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;

/// What the shell must do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Answered by `Spawned`, `SpawnFailed` or `Taken`; with [`Life::spec_of`]. `beside` the process that it will replace, if there is memory for both: else `NoRoom`.
    Spawn {
        n: u16,
        incarnation: u64,
        beside: Option<u64>,
    },
    /// Ask it for the paths of `deploy.warm`; answered by `Warmed`.
    Warm {
        n: u16,
        incarnation: u64,
    },
    /// Take it out of rotation; answered by `Drained`, or not.
    Drain {
        n: u16,
        incarnation: u64,
        within: Duration,
    },
    /// The app's stop signal to the leader; where it has gone before the others, to those that lead what is left, one generation after the other.
    Signal {
        n: u16,
        incarnation: u64,
    },
    /// KILL to all of it.
    KillGroup {
        n: u16,
        incarnation: u64,
    },
    /// The table changed.
    Publish,
    Report(Report),
}
