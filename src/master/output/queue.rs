//! What waits to be written: a bounded lane for each file, so that a flood in one drowns no other.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::vocab::{
    AppName,
    lock::{lock, wait},
};

/// Of one lane. Full: the oldest lines of that lane are dropped and counted; who can wait instead, waits.
const LANE_BYTES: usize = 512 * 1024;
/// Small writes are joined up to this, so that a chatty app costs few allocations.
const JOIN: usize = 32 * 1024;

/// Where a line belongs.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    Gateway,
    Error,
    Access,
    App(AppName),
}

/// What the writer gets next.
#[derive(Debug)]
pub enum Item<O> {
    /// Whole lines, and how many before them were dropped.
    Lines {
        target: Target,
        batches: VecDeque<Vec<u8>>,
        dropped: u64,
    },
    Order(O),
    /// Closed, and all is written.
    End,
}

#[derive(Debug, Default)]
struct Lane {
    batches: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

#[derive(Debug)]
struct State<O> {
    lanes: BTreeMap<Target, Lane>,
    /// Served before lines that come after them; few, from signals and reloads.
    orders: VecDeque<O>,
    /// Lanes take turns after this one.
    last: Option<Target>,
    closed: bool,
}

#[derive(Debug)]
pub struct Queue<O> {
    state: Mutex<State<O>>,
    filled: Condvar,
    emptied: Notify,
}

impl<O> Default for Queue<O> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { lanes: BTreeMap::new(), orders: VecDeque::new(), last: None, closed: false }),
            filled: Condvar::new(),
            emptied: Notify::new(),
        }
    }
}

impl<O> Queue<O> {
    /// Whole lines; never waits, drops the oldest of the lane instead.
    pub fn push(&self, target: &Target, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.lock();
        let lane = state.lane(target);
        while lane.bytes + lines.len() > LANE_BYTES {
            let Some(oldest) = lane.batches.pop_front() else { break };
            lane.bytes -= oldest.len();
            lane.dropped += count(&oldest);
        }
        lane.add(lines);
        drop(state);
        self.filled.notify_one();
    }

    /// Whole lines; waits while the lane is full.
    pub async fn push_patiently(&self, target: &Target, lines: &[u8]) {
        loop {
            // Made before the look, so that what is emptied in between wakes us.
            let emptied = self.emptied.notified();
            if self.push_if_it_fits(target, lines) {
                return;
            }
            emptied.await;
        }
    }

    fn push_if_it_fits(&self, target: &Target, lines: &[u8]) -> bool {
        let mut state = self.lock();
        let lane = state.lane(target);
        let fits = lane.bytes == 0 || lane.bytes + lines.len() <= LANE_BYTES;
        if fits {
            lane.add(lines);
            drop(state);
            self.filled.notify_one();
        }
        fits
    }

    pub fn order(&self, order: O) {
        self.lock().orders.push_back(order);
        self.filled.notify_one();
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Waits for work. For the writer thread alone.
    pub fn take(&self) -> Item<O> {
        let mut state = self.lock();
        loop {
            if let Some(order) = state.orders.pop_front() {
                return Item::Order(order);
            }
            if let Some((target, lane)) = state.next_lane() {
                let target = target.clone();
                let Lane { batches, dropped, .. } = std::mem::take(lane);
                state.last = Some(target.clone());
                drop(state);
                self.emptied.notify_waiters();
                return Item::Lines { target, batches, dropped };
            }
            if state.closed {
                return Item::End;
            }
            state = wait(&self.filled, state);
        }
    }

    /// Everything that is there now, without waiting, and how many lines before it were dropped.
    pub fn take_lines(&self) -> Vec<(Target, VecDeque<Vec<u8>>, u64)> {
        let lanes = std::mem::take(&mut self.lock().lanes);
        self.emptied.notify_waiters();
        lanes.into_iter().map(|(target, lane)| (target, lane.batches, lane.dropped)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        lock(&self.state)
    }
}

impl<O> State<O> {
    fn lane(&mut self, target: &Target) -> &mut Lane {
        self.lanes.entry(target.clone()).or_default()
    }

    fn next_lane(&mut self) -> Option<(&Target, &mut Lane)> {
        let next = {
            let full = || self.lanes.iter().filter(|(_, lane)| lane.bytes > 0).map(|(target, _)| target);
            full().find(|target| Some(*target) > self.last.as_ref()).or_else(|| full().next()).cloned()?
        };
        self.lanes.range_mut(next..).next()
    }
}

impl Lane {
    fn add(&mut self, lines: &[u8]) {
        self.bytes += lines.len();
        match self.batches.back_mut().filter(|last| last.len() + lines.len() <= JOIN) {
            Some(last) => last.extend_from_slice(lines),
            None => self.batches.push_back(lines.to_vec()),
        }
    }
}

#[must_use]
pub fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_drops_its_oldest_lines_and_counts_them() {
        let queue: Queue<()> = Queue::default();
        let app = Target::App(AppName::parse("web").expect("valid"));
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for _ in 0..1000 {
            queue.push(&app, &line);
        }
        queue.push(&Target::Gateway, b"ours\n");
        queue.close();
        let mut kept = 0;
        let mut lost = 0;
        let mut ours = 0;
        loop {
            match queue.take() {
                Item::Lines { target, batches, dropped } => {
                    let lines: u64 = batches.iter().map(|b| count(b)).sum();
                    if target == app {
                        kept += lines;
                        lost += dropped;
                    } else {
                        ours += lines;
                    }
                }
                Item::Order(()) => {}
                Item::End => break,
            }
        }
        assert_eq!((kept + lost, ours), (1000, 1));
        assert!((480..=512).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn who_can_wait_loses_nothing() {
        let queue: std::sync::Arc<Queue<()>> = std::sync::Arc::default();
        let writer = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let mut lines = 0;
                loop {
                    match queue.take() {
                        Item::Lines { batches, dropped, .. } => {
                            assert_eq!(dropped, 0);
                            lines += batches.iter().map(|b| count(b)).sum::<u64>();
                        }
                        Item::Order(()) => {}
                        Item::End => return lines,
                    }
                }
            }
        });
        let batch = [vec![b'x'; 9_999], vec![b'\n']].concat();
        for _ in 0..1000 {
            queue.push_patiently(&Target::Access, &batch).await;
        }
        queue.close();
        assert_eq!(writer.join().expect("writer"), 1000);
    }
}
