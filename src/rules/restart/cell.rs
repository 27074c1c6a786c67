//! One instance of an app.
//!
//! Pure; a part of the restart rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Phase, Reason, blame::Charge, recycle::Wear, succession::Successor, taken::Taken};
use crate::rules::backoff::Backoff;

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cell {
    pub(super) phase: Phase,
    pub(super) incarnation: u64,
    pub(super) since: Duration,
    /// When the present process was asked for.
    pub(super) spawned: Duration,
    pub(super) backoff: Backoff,
    /// Why its liveness probes say that it is dead.
    pub(super) dead: Option<String>,
    /// Its next start is a restart for this reason.
    pub(super) pending: Option<Reason>,
    /// Started in cooldown: if it serves, the app has recovered.
    pub(super) trial: bool,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<(String, Duration)>,
    pub(super) last_restart: Option<Duration>,
    pub(super) wear: Wear,
    /// Its last exit, as long as it may turn out that a request is to blame.
    #[serde(default)]
    pub(super) charge: Option<Charge>,
    /// Its next process, which does not serve yet.
    pub(super) successor: Option<Successor>,
    /// Its last tries found its address taken.
    pub(super) taken: Option<Taken>,
}
