//! One server as a target of probes, and what every task that probes needs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, mpsc};

use super::{
    check::{Check, Fault},
    server::{Address, Vitals},
};
use crate::{
    ipc::message::{Health, Incarnation, InstanceId, ToMaster},
    vocab::UpstreamName,
};

/// Probes under way at once: more wait. Bounds the descriptors that hanging servers can hold.
const AT_ONCE: usize = 256;

/// What every task needs.
#[derive(Clone)]
pub(super) struct Tools {
    out: mpsc::Sender<ToMaster>,
    pub(super) slots: Arc<Semaphore>,
    /// A verdict has turned: gauges are out of date.
    pub(super) turned: Arc<Notify>,
    /// Of [`super::Pools::now`].
    epoch: Instant,
}

/// Who is probed, in logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Who {
    pub(super) upstream: UpstreamName,
    pub(super) server: String,
}

#[derive(Clone)]
pub(super) struct Target {
    pub(super) who: Who,
    pub(super) address: Arc<Address>,
    pub(super) vitals: Arc<Vitals>,
}

impl Target {
    pub(super) fn same(&self, other: &Self) -> bool {
        self.who == other.who && Arc::ptr_eq(&self.address, &other.address) && Arc::ptr_eq(&self.vitals, &other.vitals)
    }
}

impl Tools {
    /// `epoch`: of [`super::Pools::now`].
    pub(super) fn new(out: mpsc::Sender<ToMaster>, epoch: Instant) -> Self {
        Self { out, slots: Arc::new(Semaphore::new(AT_ONCE)), turned: Arc::new(Notify::new()), epoch }
    }

    /// `None`: the name is not resolved yet, or no longer.
    pub(super) async fn probe(&self, target: &Target, check: &Check, within: Duration) -> Option<Result<(), Fault>> {
        let _slot = self.slots.acquire().await.ok()?;
        let addr = target.address.found()?;
        let asked = self.epoch.elapsed();
        let result = check.run(&addr, within).await;
        let says = match (&result, check) {
            // A connection is the kernel's word.
            (_, Check::Tcp) => false,
            (Ok(()), Check::Http { .. }) => true,
            (Err(fault), Check::Http { .. }) => fault.is_answer(),
        };
        if says {
            target.vitals.silence.answered(asked, self.epoch.elapsed());
        }
        Some(result)
    }

    pub(super) async fn report(&self, id: InstanceId, incarnation: Incarnation, health: Health) {
        // No receiver: the edge is going down.
        let _ = self.out.send(ToMaster::Health { id, incarnation, health }).await;
    }
}
