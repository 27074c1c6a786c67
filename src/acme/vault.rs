//! What is served of automatic certificates: one slot a name, read by traffic threads without a wait.
//!
//! Shape: a slot keeps its certificate until it is given a better one; an empty slot means that a stand-in is served. Slots outlive a reload.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use crate::{
    pki::pair::Pair,
    vocab::{
        Host,
        lock::{read, write},
    },
};

/// Clients that may wait for a certificate on demand; one more is turned away.
pub const WAITING: usize = 64;

/// The place of one certificate.
#[derive(Debug, Default)]
pub struct Slot {
    /// Swapped alone: nothing else must agree with it.
    pair: ArcSwapOption<Pair>,
}

impl Slot {
    #[must_use]
    pub fn pair(&self) -> Option<Arc<Pair>> {
        self.pair.load_full()
    }

    pub fn put(&self, pair: Arc<Pair>) {
        self.pair.store(Some(pair));
    }
}

/// Somebody asks for a name that has no certificate yet.
#[derive(Debug)]
pub struct Demand {
    pub name: Host,
    /// Where to ask whether it may have one.
    pub ask: String,
    /// Told whether there is one now.
    pub answer: oneshot::Sender<bool>,
}

/// Every slot, by the name that its certificate goes by.
#[derive(Debug)]
pub struct Vault {
    /// Read by handshakes for names on demand alone; written by the steward and by a reload.
    slots: RwLock<HashMap<Host, Arc<Slot>>>,
    demands: mpsc::Sender<Demand>,
}

impl Vault {
    /// And where its demands arrive.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Demand>) {
        let (demands, wanted) = mpsc::channel(WAITING);
        (Arc::new(Self { slots: RwLock::default(), demands }), wanted)
    }

    /// The slot of this name, made if there is none.
    #[must_use]
    pub fn slot(&self, name: &Host) -> Arc<Slot> {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let mut slots = write(&self.slots);
        slots.entry(name.clone()).or_default().clone()
    }

    /// The slots of a configuration that is in force now. One that somebody has made meanwhile stays.
    pub fn put(&self, fresh: &[(Host, Arc<Slot>)]) {
        let mut slots = write(&self.slots);
        for (name, slot) in fresh {
            slots.entry(name.clone()).or_insert_with(|| slot.clone());
        }
    }

    #[must_use]
    pub fn find(&self, name: &Host) -> Option<Arc<Slot>> {
        // Nothing panics while it is held.
        read(&self.slots).get(name).cloned()
    }

    pub fn remove(&self, name: &Host) {
        write(&self.slots).remove(name);
    }

    /// Waits until there is a certificate for `name`, or it is clear that there will be none. Too many wait already: none.
    ///
    /// Cancel-safety: safe; the order goes on.
    pub async fn demand(&self, name: Host, ask: &str) -> bool {
        let (answer, told) = oneshot::channel();
        if self.demands.try_send(Demand { name, ask: ask.to_owned(), answer }).is_err() {
            return false;
        }
        told.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_demand_is_answered_or_turned_away_but_never_waits_for_nobody() {
        let (vault, mut wanted) = Vault::new();
        let name = Host::parse("a.test").expect("a host");
        assert!(vault.find(&name).is_none());
        assert!(Arc::ptr_eq(&vault.slot(&name), &vault.slot(&name)) && vault.find(&name).is_some());
        let (answered, ()) = tokio::join!(vault.demand(name.clone(), "http://127.0.0.1/"), async {
            let demand = wanted.recv().await.expect("asked");
            demand.answer.send(true).expect("heard");
        });
        assert!(answered);
        drop(wanted);
        assert!(!vault.demand(name, "http://127.0.0.1/").await);
    }
}
