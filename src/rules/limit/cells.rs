//! The cells of a zone: what is known of each key, within a bound that nobody can use to reset his own budget.
//!
//! Pure.
//!
//! Shape: a cell is idle once its whole budget is there and nothing of it is held; an idle cell says no more than no cell does. So idle cells, and no others, make
//!        room for new keys. While the zone is full of busy cells, newcomers share `max_keys / 4` overflow cells by hash, each with the budget of one key: a
//!        newcomer never gets more than its own budget, others with a cell are not touched, and to lock every newcomer out takes a flood of `max_keys / 4` times the
//!        rate. A newcomer that finds room later starts with what its overflow cell has counted; while something is held of that cell, it stays there. So what a
//!        key holds is always in the cell where it is looked for, and under any load no key is admitted more than its budget.
//! Units: nanoseconds since an epoch that the caller chose and keeps.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, MutexGuard},
};

use super::key::{KeyHash, Print};

use crate::vocab::lock;

/// How many cells are looked at for an idle one before a newcomer is sent to the overflow. The look goes on next time where it ended.
const SWEEP: usize = 32;

/// What is known of a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cell {
    /// When the whole burst will be back (GCRA's theoretical arrival time).
    pub full_at: u64,
    /// Requests whose answers will tell whether they spend.
    pub reserved: u32,
    /// Requests that are not over.
    pub running: u32,
}

impl Cell {
    /// How far ahead of the pace the key is, if all that is reserved were spent.
    pub fn ahead(&self, now: u64, every: u64) -> u64 {
        self.full_at.saturating_sub(now).saturating_add(every.saturating_mul(self.reserved.into()))
    }

    fn is_held(&self) -> bool {
        self.reserved > 0 || self.running > 0
    }

    fn is_idle(&self, now: u64) -> bool {
        self.full_at <= now && !self.is_held()
    }
}

/// All cells of one zone; kept over reloads that leave the budget as it is.
#[derive(Debug)]
pub struct Cells {
    /// Keyed from the kernel's dice: nobody outside can find two keys that share a cell.
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl Cells {
    pub fn new(max_keys: usize) -> Self {
        // Small zones are one shard: dividing ten keys by sixteen would leave most shards none.
        let shards = (max_keys / 1024).clamp(1, 16).next_power_of_two().min(16);
        Self { hasher: ahash::RandomState::new(), shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    pub fn key(&self) -> KeyHash {
        KeyHash::new(&self.hasher)
    }

    /// The cell that counts `print`, made if there is none; nobody else sees it until it is dropped.
    pub fn hold(&self, print: Print, max_keys: usize, now: u64) -> Held<'_> {
        let at = self.shard(print);
        let most = max_keys / self.shards.len() + usize::from(at < max_keys % self.shards.len());
        let mut shard = lock(&self.shards[at]);
        let place = shard.place(print.0, most, now);
        Held { shard, place }
    }

    /// The cell that counts `print`, if there is one.
    pub fn find(&self, print: Print) -> Option<Held<'_>> {
        let shard = lock(&self.shards[self.shard(print)]);
        let place = shard.find(print.0)?;
        Some(Held { shard, place })
    }

    fn shard(&self, print: Print) -> usize {
        // The index uses the lowest and the highest bits.
        (print.0 >> 40) as usize & (self.shards.len() - 1)
    }

    /// Cells in use, idle ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    /// Bytes that the cells take now, by the capacity of their tables.
    pub fn memory(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).memory()).sum()
    }
}

/// One cell, and the lock on it.
pub struct Held<'a> {
    shard: MutexGuard<'a, Shard>,
    place: Place,
}

impl Held<'_> {
    pub fn cell(&mut self) -> &mut Cell {
        match self.place {
            Place::Own(at) => &mut self.shard.slots[at].cell,
            Place::Shared(at) => &mut self.shard.overflow[at],
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Own(usize),
    Shared(usize),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    print: u64,
    cell: Cell,
}

/// Shape: `index` and `slots` hold the same keys.
#[derive(Debug, Default)]
struct Shard {
    index: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    slots: Vec<Slot>,
    /// Where the sweep for an idle cell goes on.
    hand: usize,
    /// Empty until first needed.
    overflow: Vec<Cell>,
}

impl Shard {
    fn find(&self, print: u64) -> Option<Place> {
        match self.index.get(&print) {
            Some(&at) => Some(Place::Own(at as usize)),
            None if self.overflow.is_empty() => None,
            None => Some(Place::Shared(self.overflow_at(print))),
        }
    }

    /// Where `print` is counted: in its own cell, a new one, an idle one taken over, or one of the overflow.
    fn place(&mut self, print: u64, most: usize, now: u64) -> Place {
        let shared = match self.find(print) {
            Some(own @ Place::Own(_)) => return own,
            Some(shared @ Place::Shared(at)) if self.overflow[at].is_held() => return shared,
            Some(Place::Shared(at)) => self.overflow[at],
            None => Cell::default(),
        };
        let slot = Slot { print, cell: shared };
        let at = if self.slots.len() < most {
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact(self.slots.len().max(16).min(most - self.slots.len()));
            }
            self.slots.push(slot);
            self.slots.len() - 1
        } else if let Some(at) = self.idle(now) {
            if self.slots.len() > most {
                // A reload has lowered the bound.
                self.remove(at);
                return self.share(print, most);
            }
            self.index.remove(&self.slots[at].print);
            self.slots[at] = slot;
            at
        } else {
            return self.share(print, most);
        };
        self.index.insert(print, number(at));
        Place::Own(at)
    }

    fn share(&mut self, print: u64, most: usize) -> Place {
        if self.overflow.is_empty() {
            self.overflow = vec![Cell::default(); (most / 4).max(16)];
        }
        Place::Shared(self.overflow_at(print))
    }

    /// An idle slot, if one stands among the next [`SWEEP`].
    fn idle(&mut self, now: u64) -> Option<usize> {
        for _ in 0..SWEEP.min(self.slots.len()) {
            let at = if self.hand < self.slots.len() { self.hand } else { 0 };
            self.hand = at + 1;
            if self.slots[at].cell.is_idle(now) {
                return Some(at);
            }
        }
        None
    }

    fn remove(&mut self, at: usize) {
        self.index.remove(&self.slots[at].print);
        self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.print, number(at));
        }
    }

    fn overflow_at(&self, print: u64) -> usize {
        // The high half of a product spreads any range evenly without a division.
        ((u128::from(print.rotate_left(20)) * self.overflow.len() as u128) >> 64) as usize
    }

    fn memory(&self) -> usize {
        // hashbrown keeps at most 7 of 8 buckets, and one control byte for each.
        let buckets = (self.index.capacity() * 8 / 7).next_power_of_two();
        buckets * (size_of::<(u64, u32)>() + 1) + self.slots.capacity() * size_of::<Slot>() + self.overflow.capacity() * size_of::<Cell>()
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("a slot number is small because max_keys is a u32")
}

/// A print is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}
