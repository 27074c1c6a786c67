//! The waiting room of an app: requests stay here while no instance is ready, and go on the moment one is.
//!
//! Shape: bounded in number, in the bytes of bodies that wait with them, and in time; who finds it full is told so at once. A request that is dropped while it
//!        waits leaves the room. The room outlives reloads: those who wait find the pool that is in force.
//! Source: "stall the client until the app is back" (caddy#4088).

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::pool::Pool;
use crate::{plan::Hold, telemetry::HoldMetrics, vocab::lock};

/// Of one app, over all threads.
#[derive(Debug)]
pub struct Room {
    waiting: AtomicU32,
    bytes: AtomicU64,
    /// Rung when the instances of the app have changed.
    bell: Notify,
    /// The pool in force: a reload may have replaced the one that a request was routed to.
    pool: Mutex<Weak<Pool>>,
    metrics: Arc<HoldMetrics>,
}

/// A place in the room; given up when dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    bytes: u64,
    since: Instant,
    until: Instant,
}

impl Room {
    #[must_use]
    pub(super) fn new(metrics: Arc<HoldMetrics>) -> Arc<Self> {
        Arc::new(Self { waiting: AtomicU32::new(0), bytes: AtomicU64::new(0), bell: Notify::new(), pool: Mutex::default(), metrics })
    }

    pub(super) fn is_of(&self, pool: &Arc<Pool>) {
        *lock(&self.pool) = Arc::downgrade(pool);
    }

    /// `None`: the app is gone.
    #[must_use]
    pub fn pool(&self) -> Option<Arc<Pool>> {
        lock(&self.pool).upgrade()
    }

    /// The instances have changed: whoever waits looks again.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// A place for a request with so many bytes of body read already; `None`: the room is full.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bounds: &Hold, bytes: u64) -> Option<Place> {
        let enters = |waiting: u32| (waiting < bounds.requests).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, enters).ok()?;
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= bounds.bytes);
        if self.bytes.fetch_update(Relaxed, Relaxed, fits).is_err() {
            self.waiting.fetch_sub(1, Relaxed);
            return None;
        }
        self.metrics.entered();
        let since = Instant::now();
        Some(Place { room: self.clone(), bytes, since, until: since + bounds.time })
    }
}

impl Place {
    /// How long it has been held.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits for the bell, but for `longest` and its own time at most. `look` is called after the ear is at the bell: what has changed before is seen by it.
    ///
    /// Cancel-safety: safe; a ring that comes while nobody waits is what `look` is for.
    pub async fn wait<T>(&self, longest: Duration, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut bell = std::pin::pin!(self.room.bell.notified());
        bell.as_mut().enable();
        if let Some(found) = look() {
            return Some(found);
        }
        let left = self.until.saturating_duration_since(Instant::now()).min(longest);
        // Late or rung: the caller looks again.
        let _ = tokio::time::timeout(left, bell).await;
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Relaxed);
        self.room.metrics.left(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room() -> Arc<Room> {
        Room::new(Arc::default())
    }

    fn bounds(requests: u32, bytes: u64) -> Hold {
        Hold { time: Duration::from_secs(15), requests, bytes }
    }

    #[test]
    fn who_leaves_makes_room() {
        let room = room();
        let first = room.enter(&bounds(1, 10), 0).expect("empty");
        assert!(room.enter(&bounds(1, 10), 0).is_none(), "full");
        drop(first);
        assert!(room.enter(&bounds(1, 10), 0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_bell_is_heard_and_so_is_what_was_before_it() {
        let room = room();
        let place = room.enter(&bounds(1, 0), 0).expect("empty");
        assert_eq!(place.wait(Duration::from_secs(3600), || Some(1)).await, Some(1));
        let other = room.clone();
        let ring = async move { other.ring() };
        let (heard, ()) = tokio::join!(place.wait(Duration::from_secs(10), || None::<()>), ring);
        assert_eq!(heard, None);
    }

    proptest! {
        #[test]
        fn neither_bound_is_ever_passed(steps in prop::collection::vec((0u64..40, any::<bool>()), 0..100), requests in 1u32..10, bytes in 0u64..100) {
            let room = room();
            let bounds = bounds(requests, bytes);
            let mut places: Vec<Place> = Vec::new();
            for (size, enters) in steps {
                let held: u64 = places.iter().map(|place| place.bytes).sum();
                if enters {
                    let fits = places.len() < requests as usize && held + size <= bytes;
                    let place = room.enter(&bounds, size);
                    prop_assert_eq!(place.is_some(), fits);
                    places.extend(place);
                } else {
                    places.pop();
                }
                prop_assert_eq!(room.waiting.load(Relaxed) as usize, places.len());
                prop_assert_eq!(room.bytes.load(Relaxed), places.iter().map(|place| place.bytes).sum::<u64>());
            }
        }
    }
}
