//! Counters that many threads add to and one scrape reads.
//!
//! Shape: each cell is a few cache lines, one a thread slot; a thread adds to its own, a reader sums them. Adding is wait-free and allocates at most once
//! a status class. Sums are exact once the writers are quiet, and never go backwards.
//! Source: an uncontended `lock xadd` costs about 5 ns, one that bounces between two cores 50 ns and more; a request touches a dozen of them.

use std::{
    cell::Cell as ThreadCell,
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Slots a cell has at most: beyond 16 threads they share.
const MAX_SLOTS: usize = 16;

fn slots() -> usize {
    static SLOTS: OnceLock<usize> = OnceLock::new();
    *SLOTS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(MAX_SLOTS))
}

/// This thread's slot, before it is folded to the number of slots.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: ThreadCell<usize> = const { ThreadCell::new(usize::MAX) };
    }
    SLOT.with(|slot| {
        if slot.get() == usize::MAX {
            slot.set(NEXT.fetch_add(1, Relaxed));
        }
        slot.get()
    })
}

/// Two lines: the adjacent-line prefetcher pairs them.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

#[derive(Debug)]
pub(super) struct Slots<T>(Box<[Padded<T>]>);

impl<T: Default> Default for Slots<T> {
    fn default() -> Self {
        Self((0..slots()).map(|_| Padded::default()).collect())
    }
}

impl<T> Slots<T> {
    pub(super) fn mine(&self) -> &T {
        // The length is a power of two and at least 1, so the mask keeps the index inside.
        &self.0[slot() & (self.0.len() - 1)].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(Slots<AtomicU64>);

impl Count {
    pub fn add(&self, by: u64) {
        self.0.mine().fetch_add(by, Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }
}

/// How many there are at the moment. What one thread adds another may take away.
#[derive(Debug, Default)]
pub struct Level(Slots<AtomicI64>);

impl Level {
    pub fn add(&self, by: i64) {
        self.0.mine().fetch_add(by, Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> u64 {
        let sum: i64 = self.0.iter().map(|cell| cell.load(Relaxed)).sum();
        // A reader between the two halves of a move may see the taking before the adding.
        u64::try_from(sum).unwrap_or(0)
    }
}

/// Answers by status code.
#[derive(Debug, Default)]
pub struct Codes(Slots<CodeSlot>);

#[derive(Debug, Default)]
struct CodeSlot {
    /// 1xx to 5xx, made when the first of its class is counted.
    classes: [OnceLock<Box<[AtomicU64; 100]>>; 5],
    other: AtomicU64,
}

impl Codes {
    /// A code outside 100 to 599 counts as `other`.
    pub fn add(&self, code: u16) {
        let slot = self.0.mine();
        let class = usize::from(code / 100).wrapping_sub(1);
        match slot.classes.get(class) {
            Some(class) => {
                class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]))[usize::from(code % 100)].fetch_add(1, Relaxed)
            }
            None => slot.other.fetch_add(1, Relaxed),
        };
    }

    /// Every code that was counted, ascending; `None` is `other`.
    #[must_use]
    pub fn read(&self) -> Vec<(Option<u16>, u64)> {
        let mut codes = Vec::new();
        for code in 100..600_u16 {
            let (class, at) = (usize::from(code / 100 - 1), usize::from(code % 100));
            let sum = self.0.iter().filter_map(|slot| slot.classes[class].get()).map(|cells| cells[at].load(Relaxed)).sum::<u64>();
            if sum > 0 {
                codes.push((Some(code), sum));
            }
        }
        let other = self.0.iter().map(|slot| slot.other.load(Relaxed)).sum::<u64>();
        if other > 0 {
            codes.push((None, other));
        }
        codes
    }
}

/// Upper bounds of a [`Spread`]'s buckets in microseconds: 1 ms to 60 s.
pub const BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
    60_000_000,
];

/// How long things took: a histogram.
#[derive(Debug, Default)]
pub struct Spread(Slots<SpreadSlot>);

#[derive(Debug, Default)]
struct SpreadSlot {
    /// One a bound, and one for longer.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Units: `buckets` are not cumulative; the last is beyond every bound.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpreadReading {
    pub buckets: [u64; BOUNDS_US.len() + 1],
    pub sum: Duration,
}

impl Spread {
    pub fn add(&self, took: Duration) {
        let slot = self.0.mine();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 16);
        slot.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        slot.sum_us.fetch_add(us, Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> SpreadReading {
        let mut reading = SpreadReading::default();
        for slot in self.0.iter() {
            for (sum, cell) in reading.buckets.iter_mut().zip(&slot.buckets) {
                *sum += cell.load(Relaxed);
            }
            reading.sum += Duration::from_micros(slot.sum_us.load(Relaxed));
        }
        reading
    }
}

impl SpreadReading {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound under which `share` (0 to 1) of the values lie; `None` without values, the last bound when it is beyond all.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_US) {
            seen += bucket;
            if seen >= rank {
                return Some(Duration::from_micros(bound));
            }
        }
        BOUNDS_US.last().copied().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_every_thread_adds_is_in_the_sum() {
        let cells = Arc::new((Count::default(), Level::default(), Codes::default(), Spread::default()));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let cells = cells.clone();
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        cells.0.add(3);
                        cells.1.add(1);
                        cells.2.add(200);
                        cells.3.add(Duration::from_millis(3));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        cells.1.add(-7_000);
        assert_eq!(cells.0.read(), 24_000);
        assert_eq!(cells.1.read(), 1_000);
        assert_eq!(cells.2.read(), [(Some(200), 8_000)]);
        assert_eq!(cells.3.read().count(), 8_000);
        assert_eq!(cells.3.read().sum, Duration::from_secs(24));
    }

    #[test]
    fn codes_nobody_defined_count_as_other() {
        let codes = Codes::default();
        for code in [0, 99, 100, 404, 404, 599, 600, 999, u16::MAX] {
            codes.add(code);
        }
        assert_eq!(codes.read(), [(Some(100), 1), (Some(404), 2), (Some(599), 1), (None, 5)]);
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let spread = Spread::default();
        for us in [0, 1_000, 1_001, 60_000_000, 60_000_001] {
            spread.add(Duration::from_micros(us));
        }
        let reading = spread.read();
        assert_eq!((reading.buckets[0], reading.buckets[1], reading.buckets[14], reading.buckets[15]), (2, 1, 1, 1));
        assert_eq!(reading.quantile(0.4), Some(Duration::from_millis(1)));
        assert_eq!(reading.quantile(0.99), Some(Duration::from_secs(60)));
        assert_eq!(Spread::default().read().quantile(0.5), None);
    }
}
