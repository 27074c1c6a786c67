//! The instances of all apps, as the master's table has them: which may serve, and how many requests are on each.
//!
//! Shape: outlives every reload. An instance is known from its first appearance in the table until it has left it and its last request is answered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::server::{Address, Vitals};
use crate::{
    ipc::message::{AppTable, Incarnation, Instance, InstanceId, InstanceState, Tally},
    rules::health::Verdict,
    vocab::lock::lock,
};

#[derive(Debug)]
pub(super) struct Instances {
    inside: Mutex<Inside>,
    /// Counts the tables: the prober watches it.
    version: watch::Sender<u64>,
    pub(super) epoch: Instant,
}

#[derive(Debug, Default)]
struct Inside {
    table: AppTable,
    known: HashMap<(InstanceId, Incarnation), Known>,
}

/// One start of an instance.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) vitals: Arc<Vitals>,
    pub(super) address: Arc<Address>,
    pub(super) state: InstanceState,
}

impl Instances {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), version: watch::Sender::new(0), epoch: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    pub(super) fn take(&self, table: &AppTable) {
        let mut inside = self.lock();
        for instance in &table.instances {
            let Some(addr) = &instance.addr else { continue };
            let key = (instance.id.clone(), instance.incarnation);
            let known = inside.known.entry(key).or_insert_with(|| Known {
                vitals: Vitals::new(Verdict::New),
                address: Address::new(addr.clone()),
                state: instance.state,
            });
            if known.address.asked() != addr {
                known.address = Address::new(addr.clone());
            }
            known.state = instance.state;
            follow(&known.vitals, instance);
        }
        let stands = |key: &(InstanceId, Incarnation)| table.instances.iter().any(|i| i.id == key.0 && i.incarnation == key.1);
        inside.known.retain(|key, known| {
            let stands = stands(key);
            if !stands {
                known.vitals.close();
            }
            stands || known.vitals.in_flight() > 0
        });
        inside.table = table.clone();
        drop(inside);
        self.version.send_modify(|version| *version += 1);
    }

    pub(super) fn table(&self) -> AppTable {
        self.lock().table.clone()
    }

    pub(super) fn find(&self, id: &InstanceId, incarnation: Incarnation) -> Option<Known> {
        self.lock().known.get(&(id.clone(), incarnation)).cloned()
    }

    /// See [`super::Pools::tallies`]; bounded by the instances that are known.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        let inside = self.lock();
        let told = inside.known.iter().filter_map(|((id, incarnation), known)| {
            let (requests, failures) = known.vitals.tally()?;
            Some(Tally { id: id.clone(), incarnation: *incarnation, requests, failures })
        });
        told.collect()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until no request is on it, or `within` has passed. Gives how many are left.
    ///
    /// Cancel-safety: safe; it stays closed.
    pub(super) async fn drained(&self, id: &InstanceId, incarnation: Incarnation, within: Duration) -> u32 {
        // One that is not known has no requests: it never had an address, or has left the table and is empty.
        let Some(Known { vitals, .. }) = self.find(id, incarnation) else { return 0 };
        vitals.close();
        // Requests have all of the time; WebSockets are asked to go at half of it.
        let half = within / 2;
        if tokio::time::timeout(half, vitals.emptied()).await.is_ok() {
            return 0;
        }
        vitals.hurry();
        match tokio::time::timeout(within.saturating_sub(half), vitals.emptied()).await {
            Ok(()) => 0,
            Err(_) => vitals.in_flight(),
        }
    }
}

/// Ready is up, draining is closed for good, everything else is down. One that leaves keeps its duty: whoever was sent to it knows it as what it was.
fn follow(vitals: &Vitals, instance: &Instance) {
    match instance.state {
        InstanceState::Ready => {
            vitals.set_duty(instance.duty);
            match vitals.verdict() {
                Verdict::New | Verdict::Down => vitals.set_verdict(Verdict::Up, None),
                // Slow: a live probe says it is dead. It stays the last choice until the master has acted.
                Verdict::Up | Verdict::Slow => {}
            }
        }
        InstanceState::Draining | InstanceState::Stopping => vitals.close(),
        InstanceState::Stopped
        | InstanceState::Starting
        | InstanceState::Exited
        | InstanceState::Backoff
        | InstanceState::Cooldown
        | InstanceState::Taken
        | InstanceState::Failed => {
            if vitals.verdict() != Verdict::New {
                vitals.set_verdict(Verdict::New, None);
            }
        }
    }
}
