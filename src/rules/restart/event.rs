//! What happens to an app.
//!
//! Pure; a part of the restart rule.

use std::sync::Arc;

use super::{Exit, Reason};
use crate::plan::App;

/// What happened. Instances are meant by number and incarnation; an event about an earlier incarnation is void.
#[derive(Clone, Debug)]
pub enum Event {
    /// Also clears the budget and every delay.
    Start,
    /// What it needs is not there yet: [`Event::Start`] follows.
    Await,
    Stop,
    /// One instance after the other.
    Restart(Reason),
    /// A new release: beside the old one, on trial, and back again if it fails.
    Deploy(Arc<App>),
    /// A reload changed its block: what can be is applied live, the rest instance by instance.
    Change(Arc<App>),
    /// A reload took it away: stop, then [`Life::is_gone`].
    Remove,
    /// No more patience: KILL everything that runs.
    KillNow,
    /// Time has passed; see [`Life::due`].
    Tick,
    Spawned {
        n: u16,
        incarnation: u64,
    },
    SpawnFailed {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// Nothing was started: somebody else has its address.
    Taken {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// Its leader has ended and others that came of it go on; `Exited` follows when nobody is left. `why`: how it is told.
    Left {
        n: u16,
        incarnation: u64,
        exit: Exit,
        why: String,
    },
    /// Nothing of it is left.
    Exited {
        n: u16,
        incarnation: u64,
        exit: Exit,
    },
    Ready {
        n: u16,
        incarnation: u64,
    },
    /// It failed its liveness probes.
    Dead {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// It passes them again.
    Alive {
        n: u16,
        incarnation: u64,
    },
    Drained {
        n: u16,
        incarnation: u64,
    },
    /// There is not the memory for one more process.
    NoRoom {
        n: u16,
        incarnation: u64,
        why: String,
    },
    /// It was asked for what a new release must answer.
    Warmed {
        n: u16,
        incarnation: u64,
        result: Result<(), String>,
    },
    /// So many requests since it was started, and so many of them failed.
    Tallied {
        n: u16,
        incarnation: u64,
        requests: u64,
        failures: u64,
    },
    /// A look at its memory.
    Weighed {
        n: u16,
        incarnation: u64,
        bytes: u64,
    },
    /// It had a request when it ended, which is most likely what it ended of.
    Blamed {
        n: u16,
        incarnation: u64,
        /// It had answered others, by what is known where requests are seen: tallies come later.
        answered: bool,
    },
    /// Requests find no process of the app.
    Wanted,
    /// WATCHDOG=1
    Pinged {
        n: u16,
        incarnation: u64,
    },
}
