//! One app and its processes.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc};

use nix::unistd::Pid;
use tokio::{sync::watch, time::Instant};

use super::waiter::Waiter;
use crate::{
    master::{launch::Notify, output::Tail, usage},
    plan::{App, AppPort},
    rules::restart::Life,
    vocab::ServerAddr,
};

/// What is known of a process on its way.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// It wrote the awaited line or notified, and a stranger had its address.
    pub(super) seen: bool,
    pub(super) hint_at: Option<Instant>,
}

/// A process of an instance.
#[derive(Default)]
pub(super) struct Process {
    pub(super) n: u16,
    pub(super) pid: Option<Pid>,
    pub(super) addr: Option<ServerAddr>,
    pub(super) tail: Option<Arc<Tail>>,
    pub(super) notify: Option<Notify>,
    /// It is not started yet: what runs before it, to be told when it is not wanted.
    pub(super) prelude: Option<watch::Sender<bool>>,
    pub(super) arrival: Arrival,
    /// What else is to be known of it.
    pub(super) note: Option<String>,
    pub(super) cpu_ms: u64,
    pub(super) memory_bytes: u64,
}

pub(super) struct Track {
    pub(super) life: Life,
    /// By incarnation.
    pub(super) processes: BTreeMap<u64, Process>,
    /// How many processes a person asked for, and how many the configuration did at that time.
    pub(super) scaled: Option<(NonZeroU16, NonZeroU16)>,
    pub(super) waiters: Vec<Waiter>,
    /// Removed by a reload and added by a later one before it was gone.
    pub(super) again: Option<Arc<App>>,
    pub(super) removed: bool,
    /// A deploy has ended well, and no configuration can know of that yet.
    pub(super) unrecorded: bool,
}

impl Process {
    /// As it is now, not as it was at the last look.
    pub(super) fn memory(&self) -> Option<u64> {
        Some(self.pid.and_then(usage::of)?.memory_bytes)
    }
}

impl Track {
    pub(super) fn scale(&mut self, procs: NonZeroU16) -> Result<Arc<App>, String> {
        let spec = self.life.settled_spec();
        if self.life.is_deploying() {
            return Err("a deploy of it is under way".to_owned());
        }
        if let AppPort::Fixed { first } = spec.port
            && first.get().checked_add(procs.get() - 1).is_none()
        {
            return Err(format!("{procs} processes from port {first} on would need ports beyond 65535"));
        }
        let configured = self.scaled.map_or(spec.procs, |(_, configured)| configured);
        self.scaled = (procs != configured).then_some((procs, configured));
        let mut spec = (**spec).clone();
        spec.procs = procs;
        Ok(Arc::new(spec))
    }

    /// Whether it is as `spec` of the configuration wants it. A number of processes that was asked for by hand stays while the configuration's is the same.
    pub(super) fn is_at(&mut self, spec: &mut Arc<App>) -> bool {
        match self.scaled {
            Some((asked, configured)) if configured == spec.procs => Arc::make_mut(spec).procs = asked,
            Some(_) => self.scaled = None,
            None => {}
        }
        **self.life.settled_spec() == **spec
    }
}
