//! Whether listeners are accepted on: each accept loop says once a second that it turns, and when accepting begins to fail.
//!
//! Shape: as many loops must turn as sockets were handed out. A loop that is gone, that has not turned for [`STILL`] because its thread hangs, or whose accept has failed for
//!        [`FAILING`], accepts nobody: connections wait in a queue that nobody empties.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::DoorKey;
use crate::vocab::lock;

/// How often a loop says that it turns.
pub const BEAT: Duration = Duration::from_secs(1);
/// A thread that does not come round in this time hangs.
const STILL: Duration = Duration::from_secs(10);
/// Accepting that fails for so long is not a moment without descriptors.
const FAILING: Duration = Duration::from_secs(3);

/// Of all listeners.
#[derive(Debug)]
pub struct Pulses {
    began: Instant,
    doors: Mutex<HashMap<DoorKey, Expected>>,
}

/// The loops of one listener.
#[derive(Debug, Default)]
struct Expected {
    sockets: usize,
    loops: Vec<Arc<Loop>>,
}

/// Milliseconds since the beginning of [`Pulses`], 0 for never.
#[derive(Debug)]
struct Loop {
    beat: AtomicU64,
    failing: AtomicU64,
}

impl Default for Pulses {
    fn default() -> Self {
        Self { began: Instant::now(), doors: Mutex::default() }
    }
}

impl Pulses {
    /// So many sockets of a listener are handed out, each to be accepted on.
    pub fn expect(&self, key: DoorKey, sockets: usize) {
        lock(&self.doors).entry(key).or_default().sockets += sockets;
    }

    /// It is closed on purpose.
    pub fn forget(&self, key: &DoorKey) {
        lock(&self.doors).remove(key);
    }

    /// For one loop, which turns from now on until this is dropped.
    #[must_use]
    pub fn turn(self: &Arc<Self>, key: DoorKey) -> Pulse {
        let own = Arc::new(Loop { beat: AtomicU64::new(self.now()), failing: AtomicU64::new(0) });
        lock(&self.doors).entry(key).or_default().loops.push(own.clone());
        Pulse { pulses: self.clone(), key, own }
    }

    /// Whether every socket of a listener is accepted on.
    #[must_use]
    pub fn accepts(&self, key: DoorKey) -> bool {
        let now = self.now();
        let since = |at: &AtomicU64| Duration::from_millis(now.saturating_sub(at.load(Relaxed)));
        let turns = |one: &&Arc<Loop>| since(&one.beat) < STILL && (one.failing.load(Relaxed) == 0 || since(&one.failing) < FAILING);
        lock(&self.doors).get(&key).is_some_and(|door| door.sockets > 0 && door.loops.iter().filter(turns).count() >= door.sockets)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Held by a loop that accepts.
#[derive(Debug)]
pub struct Pulse {
    pulses: Arc<Pulses>,
    key: DoorKey,
    own: Arc<Loop>,
}

impl Pulse {
    pub fn beat(&self) {
        self.own.beat.store(self.pulses.now(), Relaxed);
    }

    pub fn accepted(&self) {
        self.own.failing.store(0, Relaxed);
    }

    pub fn failed(&self) {
        // Since the first of them.
        let _ = self.own.failing.compare_exchange(0, self.pulses.now(), Relaxed, Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some(door) = lock(&self.pulses.doors).get_mut(&self.key) {
            door.loops.retain(|one| !Arc::ptr_eq(one, &self.own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::Role;

    #[test]
    fn a_listener_accepts_while_every_socket_of_it_is_accepted_on() {
        let pulses = Arc::new(Pulses::default());
        let key = (Role::Http, "127.0.0.1:80".parse().expect("an address"));
        assert!(!pulses.accepts(key), "nobody has opened it");
        pulses.expect(key, 2);
        let first = pulses.turn(key);
        assert!(!pulses.accepts(key), "one thread has not come to it");
        let second = pulses.turn(key);
        assert!(pulses.accepts(key));
        first.failed();
        assert!(pulses.accepts(key), "a moment without descriptors");
        drop(second);
        assert!(!pulses.accepts(key), "a loop has ended");
        pulses.forget(&key);
        assert!(!pulses.accepts(key));
    }

    #[test]
    fn a_loop_that_hangs_or_fails_for_long_accepts_nobody() {
        let began = Instant::now().checked_sub(Duration::from_secs(60)).expect("a machine that is up for a minute");
        let pulses = Arc::new(Pulses { began, ..Pulses::default() });
        let key = (Role::Https, "127.0.0.1:443".parse().expect("an address"));
        pulses.expect(key, 1);
        let pulse = pulses.turn(key);
        pulse.own.failing.store(1, Relaxed);
        assert!(!pulses.accepts(key), "failing for a minute");
        pulse.accepted();
        assert!(pulses.accepts(key));
        pulse.own.beat.store(1, Relaxed);
        assert!(!pulses.accepts(key), "silent for a minute");
        pulse.beat();
        assert!(pulses.accepts(key));
    }
}
