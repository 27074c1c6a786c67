//! Buffers: what is held of bodies before a process is chosen for their requests, over all connections and threads, and who must go when it is too much.
//!
//! Shape: a body is here from its first byte until it goes on its way. All together hold `[limits] buffers`, one client an eighth of it. When there is no more room, whoever comes
//!        anew is turned away, and of those that still come in the slowest goes, but none within [`GRACE`].
//! Units: bytes; a body counts as [`LEAST`] at least, which bounds how many there are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{rules::jail::Who, telemetry::BufferMetrics, vocab::lock};

/// With its entry, its connection's buffers and what the allocator adds.
const LEAST: u64 = 1024;
/// A body that is younger is not called slow.
const GRACE: Duration = Duration::from_secs(1);
/// Of all that may be held, one client's.
const SHARE: u64 = 8;
/// Between two searches for the slowest where there is none that may go.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a body is not held any longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// There is no room.
    Full,
    /// It was the slowest when there was none.
    Slow,
}

/// Of the whole edge.
#[derive(Debug)]
pub struct Buffers {
    state: Mutex<State>,
    metrics: Arc<BufferMetrics>,
}

#[derive(Debug, Default)]
struct State {
    all: u64,
    clients: HashMap<Option<Who>, u64, ahash::RandomState>,
    bodies: HashMap<u64, Entry, ahash::RandomState>,
    next: u64,
    /// None was slow then.
    searched: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    who: Option<Who>,
    bytes: u64,
    began: Instant,
    /// `None`: it waits for no client any more.
    cut: Option<CancellationToken>,
}

impl Entry {
    fn cost(&self) -> u64 {
        self.bytes.max(LEAST)
    }
}

/// One of them; gone when dropped.
#[derive(Debug)]
pub struct Body {
    of: Arc<Buffers>,
    id: u64,
    most: u64,
    /// A client may have one body whatever its share is.
    share: u64,
    cut: CancellationToken,
}

impl Buffers {
    #[must_use]
    pub fn new(metrics: Arc<BufferMetrics>) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    /// `most`: of all bodies; `one`: of a single one.
    ///
    /// Errors: [`Refusal::Full`]; the slowest has made room by then.
    pub fn begin(self: &Arc<Self>, client: IpAddr, most: u64, one: u64, now: Instant) -> Result<Body, Refusal> {
        let who = Who::of(client);
        let share = (most / SHARE).max(one);
        let mut state = self.state();
        let of_client = state.clients.get(&who).copied().unwrap_or_default();
        if state.all + LEAST > most || of_client + LEAST > share {
            let only = (state.all + LEAST <= most).then_some(who);
            self.cut_slowest(&mut state, only, now);
            self.metrics.full();
            return Err(Refusal::Full);
        }
        let (id, cut) = (state.next, CancellationToken::new());
        state.next += 1;
        state.all += LEAST;
        *state.clients.entry(who).or_default() += LEAST;
        state.bodies.insert(id, Entry { who, bytes: 0, began: now, cut: Some(cut.clone()) });
        self.metrics.holds(state.all);
        drop(state);
        Ok(Body { of: self.clone(), id, most, share, cut })
    }

    /// A body ended for its pace.
    pub fn dripped(&self) {
        self.metrics.dripped();
    }

    fn grow(&self, body: &Body, bytes: u64, now: Instant) -> Result<(), Refusal> {
        let mut state = self.state();
        loop {
            let Some(entry) = state.bodies.get(&body.id) else { return Err(Refusal::Slow) };
            let (who, more) = (entry.who, bytes.max(LEAST).saturating_sub(entry.cost()));
            let of_client = state.clients.get(&who).copied().unwrap_or_default();
            let only = match (state.all + more > body.most, of_client + more > body.share) {
                (false, false) => {
                    state.all += more;
                    *state.clients.entry(who).or_default() += more;
                    if let Some(entry) = state.bodies.get_mut(&body.id) {
                        entry.bytes = entry.bytes.max(bytes);
                    }
                    self.metrics.holds(state.all);
                    return Ok(());
                }
                (true, _) => None,
                (false, true) => Some(who),
            };
            if !self.cut_slowest(&mut state, only, now) {
                self.metrics.full();
                return Err(Refusal::Full);
            }
        }
    }

    /// Of all, or of one client's. Whether there was one that might go.
    fn cut_slowest(&self, state: &mut State, only: Option<Option<Who>>, now: Instant) -> bool {
        if state.searched.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return false;
        }
        let slowest = state
            .bodies
            .iter()
            .filter(|(_, entry)| entry.cut.is_some() && only.is_none_or(|who| who == entry.who))
            .filter_map(|(id, entry)| {
                let age = now.duration_since(entry.began);
                (age >= GRACE).then(|| (entry.bytes * 1000 / u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1), *id))
            })
            .min();
        let Some((_, id)) = slowest else {
            if only.is_none() {
                state.searched = Some(now);
            }
            return false;
        };
        if let Some(cut) = state.remove(id) {
            cut.cancel();
        }
        self.metrics.slow();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn remove(&mut self, id: u64) -> Option<CancellationToken> {
        let entry = self.bodies.remove(&id)?;
        self.all -= entry.cost();
        if let Some(of_client) = self.clients.get_mut(&entry.who) {
            *of_client -= entry.cost();
            if *of_client == 0 {
                self.clients.remove(&entry.who);
            }
        }
        entry.cut
    }
}

impl Body {
    /// So much of it is held now.
    ///
    /// Errors: there is no room for it.
    pub fn grow(&self, bytes: u64, now: Instant) -> Result<(), Refusal> {
        self.of.grow(self, bytes, now)
    }

    /// It waits for no client any more, and is nobody's to cut.
    pub fn rest(&self) {
        if let Some(entry) = self.of.state().bodies.get_mut(&self.id) {
            entry.cut = None;
        }
    }

    /// Returns when it was the slowest.
    pub fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.remove(self.id);
        self.of.metrics.holds(state.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1 << 10;
    const MOST: u64 = 1024 * KB;
    const ONE: u64 = 64 * KB;

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn buffers() -> Arc<Buffers> {
        Arc::new(Buffers::new(Arc::default()))
    }

    /// As many whole bodies of one client as it may have.
    fn fill(buffers: &Arc<Buffers>, client: IpAddr, now: Instant) -> Vec<Body> {
        let grown = || buffers.begin(client, MOST, ONE, now).ok().filter(|body| body.grow(ONE, now).is_ok());
        std::iter::from_fn(grown).collect()
    }

    #[test]
    fn a_client_has_an_eighth_and_at_least_one_body() {
        let (buffers, now) = (buffers(), Instant::now());
        let held = fill(&buffers, ip(1), now);
        assert_eq!(held.len(), 2);
        assert!(buffers.begin(ip(2), MOST, ONE, now).is_ok(), "others have theirs");
        let (small, client) = (ONE, ip(3));
        assert!(buffers.begin(client, 8 * small, ONE, now).is_ok_and(|body| body.grow(ONE, now).is_ok()));
        drop(held);
        assert_eq!(buffers.state().all, 0);
        assert!(buffers.state().clients.is_empty());
    }

    #[test]
    fn when_all_is_full_newcomers_are_turned_away_and_the_slowest_makes_room() {
        let (buffers, now) = (buffers(), Instant::now());
        let held: Vec<Body> = (0..8).flat_map(|n| fill(&buffers, ip(n), now)).collect();
        assert_eq!(held.len(), 16);
        assert_eq!(buffers.begin(ip(9), MOST, ONE, now).err(), Some(Refusal::Full));
        assert!(held.iter().all(|body| !body.cut.is_cancelled()), "nobody is slow yet");
        held[..15].iter().for_each(Body::rest);
        let later = now + 2 * GRACE;
        assert_eq!(buffers.begin(ip(9), MOST, ONE, later).err(), Some(Refusal::Full));
        assert!(held[15].cut.is_cancelled() && held[15].grow(ONE, later) == Err(Refusal::Slow));
        assert!(buffers.begin(ip(9), MOST, ONE, later).is_ok(), "there is room now");
    }

    #[test]
    fn of_those_that_come_in_the_slowest_goes() {
        let (buffers, now) = (buffers(), Instant::now());
        let slow = buffers.begin(ip(20), MOST, ONE, now).expect("room");
        let fast = buffers.begin(ip(21), MOST, ONE, now).expect("room");
        slow.grow(2 * KB, now).and_then(|()| fast.grow(30 * KB, now)).expect("room");
        let _held: Vec<Body> = (0..7).flat_map(|n| fill(&buffers, ip(n), now + GRACE)).collect();
        let last = buffers.begin(ip(7), MOST, ONE, now + GRACE).expect("room");
        last.grow(ONE, now + GRACE).expect("room");
        // 32 KB are left, and it wants 34.
        let later = now + GRACE + PAUSE;
        fast.grow(ONE, later).expect("it finds room");
        assert!(slow.cut.is_cancelled() && !fast.cut.is_cancelled());
    }

    #[test]
    fn however_many_there_are_they_are_bounded() {
        let (buffers, now) = (buffers(), Instant::now());
        let all: Vec<Body> = (0..=255).filter_map(|n| buffers.begin(ip(n), MOST, ONE, now).ok()).collect();
        assert_eq!(all.len(), 256);
        let more: Vec<Body> = std::iter::from_fn(|| buffers.begin(ip(1), MOST, ONE, now).ok()).collect();
        assert_eq!(more.len(), 127, "an eighth of 1 MB in bodies that count as 1 KB each");
    }
}
