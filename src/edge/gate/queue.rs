//! Those who wait in one zone: for their turn, or for the answers of others.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::sync::{Notify, futures::Notified};

/// Requests of one zone that wait, over all keys and threads.
const MOST: u32 = 1000;

/// Kept over reloads.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: AtomicU32,
    /// Rung when an answer has settled what it spends.
    bell: Notify,
}

/// A place in it; given up when dropped.
#[derive(Debug)]
pub struct Place(Arc<Queue>);

impl Queue {
    /// `None`: it is full.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let enters = |waiting: u32| (waiting < MOST).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, enters).ok()?;
        Some(Place(Arc::clone(self)))
    }

    pub(super) fn ring(&self) {
        if !self.is_empty() {
            self.bell.notify_waiters();
        }
    }

    /// The next answer that settles something. Hears from when it is enabled.
    pub fn heard(&self) -> Notified<'_> {
        self.bell.notified()
    }

    #[must_use]
    pub fn len(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
