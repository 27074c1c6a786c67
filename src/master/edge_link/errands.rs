//! What the edge is to do about processes of apps: take them out of rotation, ask them before they serve.
//!
//! Shape: one entry a process, so however many are asked for at once it is bounded by the processes there are and none is lost; what waits goes to the edge in one
//!        message. Whoever asks never waits.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    ipc::message::{Drain, Incarnation, InstanceId, WarmUp},
    vocab::lock,
};

#[derive(Debug, Default)]
pub(super) struct Errands {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    drains: BTreeMap<(InstanceId, Incarnation), Duration>,
    warm_ups: BTreeMap<(InstanceId, Incarnation), (Vec<String>, Duration)>,
}

impl Errands {
    pub(super) fn drain(&self, id: InstanceId, incarnation: Incarnation, within: Duration) {
        self.lock().drains.insert((id, incarnation), within);
        self.bell.notify_one();
    }

    pub(super) fn warm(&self, id: InstanceId, incarnation: Incarnation, paths: Vec<String>, within: Duration) {
        self.lock().warm_ups.insert((id, incarnation), (paths, within));
        self.bell.notify_one();
    }

    /// Waits until there are some, and takes them all.
    ///
    /// Cancel-safety: safe; they are taken after the last wait.
    pub(super) async fn take(&self) -> (Vec<Drain>, Vec<WarmUp>) {
        loop {
            let Waiting { drains, warm_ups } = std::mem::take(&mut *self.lock());
            if !drains.is_empty() || !warm_ups.is_empty() {
                let drains = drains.into_iter().map(|((id, incarnation), within)| Drain { id, incarnation, within });
                let warm_ups = warm_ups.into_iter().map(|((id, incarnation), (paths, within))| WarmUp { id, incarnation, paths, within });
                return (drains.collect(), warm_ups.collect());
            }
            // A ring between the look and this is kept for us.
            self.bell.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Maps stay whole whoever panicked.
        lock(&self.waiting)
    }
}
