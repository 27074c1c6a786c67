//! Appetite: how many answers of one HTTP/2 connection may wait on its client at a time.
//!
//! An answer that its client does not take holds what the engine has read ahead of it, some hundred KB. A client that asks for a hundred and reads none would hold all of them;
//! so further requests of it are not sent on while so many of its answers wait. Who reads notices nothing.
//!
//! Shape: Asked ─first bytes of the answer→ Given ─the client takes some→ Given … → gone.
//!        In the way stands what was asked within [`YOUNG`]; and of what was given more than [`LITTLE`], all that was never taken from, or not for [`STUCK`]. What its server is
//!        slow with, or says a word in now and then, stands in nobody's way.
//!        What was taken is heard of late, with the next piece of the same answer. Until then the bytes that the connection has sent since speak for it: when they are more than all
//!        answers have outstanding, it is among them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::vocab::lock;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Answers of one connection that may wait on it.
const WAITING: usize = 16;
/// A server is expected to begin its answer within so long; if it does not, the next are let on.
const YOUNG: Duration = Duration::from_millis(50);
const STUCK: Duration = Duration::from_millis(500);
/// What may be outstanding of an answer without a question.
pub const LITTLE: u64 = 32 * 1024;

#[derive(Clone, Copy, Debug)]
enum Stage {
    Asked(Instant),
    Given {
        since: Instant,
        outstanding: u64,
        taken: bool,
        /// What the connection had sent by then.
        sent: u64,
    },
    /// Next to nothing is outstanding.
    Even,
}

impl Stage {
    fn is_in_the_way(self, now: Instant) -> bool {
        match self {
            Self::Asked(at) => now.duration_since(at) < YOUNG,
            Self::Given { taken: false, .. } => true,
            Self::Given { since, taken: true, .. } => now.duration_since(since) >= STUCK,
            Self::Even => false,
        }
    }

    fn outstanding(self) -> u64 {
        match self {
            Self::Given { outstanding, .. } => outstanding,
            Self::Asked(_) | Self::Even => 0,
        }
    }
}

/// Of one connection.
#[derive(Debug, Default)]
pub struct Appetite {
    /// As many as the connection has streams, at most.
    slots: Mutex<Vec<(u64, Stage)>>,
    freed: Notify,
    sent: AtomicU64,
}

/// One request's; it ends with it.
#[derive(Debug)]
pub struct Portion {
    of: Arc<Appetite>,
    id: u64,
    taken: u64,
}

impl Appetite {
    /// Waits until a request may go on; `None`: not until `by`.
    pub async fn next(self: &Arc<Self>, by: Instant) -> Option<Portion> {
        loop {
            let freed = self.freed.notified();
            let now = Instant::now();
            if let Some(portion) = self.take(now) {
                return Some(portion);
            }
            if now >= by {
                return None;
            }
            // What is asked grows old without a word.
            let _ = timeout_at(by.min(now + YOUNG), freed).await;
        }
    }

    fn take(self: &Arc<Self>, now: Instant) -> Option<Portion> {
        let mut slots = self.slots();
        let full = |slots: &[(u64, Stage)]| slots.iter().filter(|(_, stage)| stage.is_in_the_way(now)).count() >= WAITING;
        if full(&slots) {
            settle(&mut slots, self.sent.load(Relaxed));
            if full(&slots) {
                return None;
            }
        }
        let id = slots.last().map_or(0, |(last, _)| last + 1);
        slots.push((id, Stage::Asked(now)));
        drop(slots);
        Some(Portion { of: self.clone(), id, taken: 0 })
    }

    /// The connection has sent so many bytes more.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    fn slots(&self) -> MutexGuard<'_, Vec<(u64, Stage)>> {
        lock(&self.slots)
    }
}

/// Finds out what has been taken without a word.
fn settle(slots: &mut [(u64, Stage)], sent: u64) {
    let mut all: u64 = slots.iter().map(|(_, stage)| stage.outstanding()).sum();
    let since = |stage: Stage| if let Stage::Given { sent: then, .. } = stage { Some(sent.saturating_sub(then)) } else { None };
    while let Some((_, stage)) = slots.iter_mut().find(|(_, stage)| since(*stage).is_some_and(|sent| sent >= all)) {
        all -= stage.outstanding();
        *stage = Stage::Even;
    }
}

impl Portion {
    /// A piece of the answer goes to the client: so much of it waits now, so much has been taken in all.
    pub fn gives(&mut self, outstanding: u64, taken: u64, now: Instant) {
        let went_on = taken > self.taken;
        self.taken = taken;
        let stage = match outstanding > LITTLE {
            true => Stage::Given { since: now, outstanding, taken: taken > 0, sent: self.of.sent.load(Relaxed) },
            false => Stage::Even,
        };
        if let Some((_, mine)) = self.of.slots().iter_mut().find(|(id, _)| *id == self.id) {
            *mine = stage;
        }
        if went_on {
            self.of.freed.notify_one();
        }
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.of.slots().retain(|(id, _)| *id != self.id);
        self.of.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const MUCH: u64 = 100_000;

    async fn next(appetite: &Arc<Appetite>) -> Option<Portion> {
        appetite.next(Instant::now() + SOON).await
    }

    async fn all(appetite: &Arc<Appetite>) -> Vec<Portion> {
        let mut taken = Vec::new();
        while let Some(portion) = next(appetite).await {
            taken.push(portion);
        }
        taken
    }

    /// As many as may wait, each with much that is not taken.
    async fn stuffed(appetite: &Arc<Appetite>) -> Vec<Portion> {
        let mut taken = all(appetite).await;
        assert_eq!(taken.len(), WAITING);
        taken.iter_mut().for_each(|portion| portion.gives(MUCH, 0, Instant::now()));
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_takes_stand_in_the_way_of_more() {
        let appetite = Arc::new(Appetite::default());
        let mut taken = stuffed(&appetite).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(next(&appetite).await.is_none());
        taken.pop();
        assert!(next(&appetite).await.is_some(), "one has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_slow_is_in_nobodys_way() {
        let appetite = Arc::new(Appetite::default());
        let taken = all(&appetite).await;
        assert_eq!(taken.len(), WAITING);
        tokio::time::sleep(YOUNG).await;
        assert_eq!(all(&appetite).await.len(), WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_lets_others_on_whenever_it_reads() {
        let appetite = Arc::new(Appetite::default());
        let mut taken = stuffed(&appetite).await;
        let (found, ()) = tokio::join!(appetite.next(Instant::now() + Duration::from_secs(10)), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            taken[3].gives(MUCH, MUCH, Instant::now());
        });
        assert!(found.is_some(), "at once");
        drop(found);
        tokio::time::sleep(STUCK).await;
        assert!(next(&appetite).await.is_none(), "that one is stuck again");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_events_are_in_nobodys_way_however_long_they_are_silent() {
        let appetite = Arc::new(Appetite::default());
        let mut taken = all(&appetite).await;
        taken.iter_mut().for_each(|portion| portion.gives(1000, 0, Instant::now()));
        assert_eq!(all(&appetite).await.len(), WAITING, "small ones");
        drop(taken);
        let _large = stuffed(&appetite).await;
        assert!(next(&appetite).await.is_none());
        appetite.sent(WAITING * MUCH as usize);
        assert_eq!(all(&appetite).await.len(), WAITING, "large ones, and the connection has sent as much");
    }

    #[test]
    fn what_was_sent_before_speaks_for_nobody() {
        let appetite = Arc::new(Appetite::default());
        appetite.sent(1 << 40);
        let now = Instant::now();
        let mut taken: Vec<_> = (0..WAITING).map(|_| appetite.take(now).expect("room")).collect();
        taken.iter_mut().for_each(|portion| portion.gives(MUCH, 0, now));
        appetite.sent(MUCH as usize);
        assert!(appetite.take(now + Duration::from_secs(1)).is_none());
    }
}
