//! The banned and the former: a table of a million that is read without a lock.
//!
//! Shape: [`SHARDS`] tables with open addressing. Readers take a table as it is and look at atomics; one writer a shard, under a lock. A place is given to one
//!        client for the life of its table, so that a reader never takes one's ban for another's: who is freed leaves a place that nobody else gets, and when three
//!        quarters of the places are used a new table is made of those who count, and swapped.
//! Units: at most [`MOST`] in all, 20 bytes a place, two places for each at most when a table is made.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{FORGET, Reason, Sentence, Who, seconds};

use crate::vocab::lock;

const SHARDS: usize = 64;
const MOST_IN_SHARD: usize = 16_384;
/// Banned and former at most.
pub const MOST: usize = SHARDS * MOST_IN_SHARD;
/// How many are looked at for one that gives way, where a shard is full.
const LOOK: usize = 32;
/// Places that a sweep looks at, to the end of the shard where it ends.
const SWEEP: usize = 65_536;

/// No client's: multicast, see [`Who`].
const FREE: u64 = 0xFF << 56;

#[derive(Debug)]
pub(super) struct Cells {
    hasher: ahash::RandomState,
    shards: Box<[Shard]>,
    in_force: AtomicUsize,
    /// Where the next sweep begins.
    broom: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    /// Swapped alone: nothing else must agree with it.
    table: ArcSwap<Table>,
    writer: Mutex<Writer>,
}

/// What one writer at a time knows.
#[derive(Debug, Default)]
struct Writer {
    /// Places that somebody has, or had.
    used: usize,
    /// Of these: by the banned and the former.
    kept: usize,
    /// Where the next look for one that gives way begins.
    hand: usize,
}

/// The facts of one are written before its key, and changed one by one: a reader sees the old ban or the new one.
#[derive(Debug)]
struct Table {
    keys: Box<[AtomicU64]>,
    /// `until`, `since`. Zero: freed.
    spans: Box<[AtomicU64]>,
    /// The code of the reason, `times`, and whether it is counted as in force.
    notes: Box<[AtomicU32]>,
}

const IN_FORCE: u32 = 1 << 31;

impl Table {
    fn with_room_for(kept: usize) -> Self {
        let places = if kept == 0 { 0 } else { (kept * 2).next_power_of_two().max(8) };
        Self {
            keys: (0..places).map(|_| AtomicU64::new(FREE)).collect(),
            spans: (0..places).map(|_| AtomicU64::new(0)).collect(),
            notes: (0..places).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    fn places(&self) -> usize {
        self.keys.len()
    }

    /// The place of `who`, or the free one where the search for it ended.
    fn seek(&self, who: Who, hash: u64) -> Result<usize, usize> {
        let mask = self.places() - 1;
        // The highest bits chose the shard.
        let mut at = hash as usize & mask;
        loop {
            // At least a quarter of the places is free.
            match self.keys[at].load(Acquire) {
                FREE => return Err(at),
                key if key == who.0 => return Ok(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// `None`: freed.
    fn sentence(&self, at: usize) -> Option<Sentence> {
        let (span, note) = (self.spans[at].load(Relaxed), self.notes[at].load(Relaxed));
        let sentence =
            Sentence { until: (span >> 32) as u32, since: span as u32, times: (note >> 16) as u8, reason: Reason::of(note as u16) };
        (sentence.until != 0).then_some(sentence)
    }

    fn is_in_force(&self, at: usize) -> bool {
        self.notes[at].load(Relaxed) & IN_FORCE != 0
    }

    fn set(&self, at: usize, sentence: &Sentence, in_force: bool) {
        let Sentence { since, until, times, reason } = *sentence;
        self.notes[at].store(u32::from(reason.code()) | u32::from(times) << 16 | if in_force { IN_FORCE } else { 0 }, Relaxed);
        self.spans[at].store(u64::from(until) << 32 | u64::from(since), Relaxed);
    }

    fn who(&self, at: usize) -> Option<Who> {
        Some(self.keys[at].load(Acquire)).filter(|key| *key != FREE).map(Who)
    }
}

/// Whether it is of no interest any more, even as one that was.
fn is_forgotten(sentence: &Sentence, now: u32) -> bool {
    sentence.until.saturating_add(FORGET) <= now
}

impl Cells {
    pub fn new() -> Self {
        let shard = || Shard { table: ArcSwap::from_pointee(Table::with_room_for(0)), writer: Mutex::default() };
        Self {
            hasher: ahash::RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            in_force: AtomicUsize::new(0),
            broom: AtomicUsize::new(0),
        }
    }

    pub fn in_force(&self) -> usize {
        self.in_force.load(Relaxed)
    }

    /// The last ban that is remembered.
    pub fn find(&self, who: Who) -> Option<Sentence> {
        let hash = self.hasher.hash_one(who);
        let table = self.shard(hash).table.load();
        if table.places() == 0 {
            return None;
        }
        table.sentence(table.seek(who, hash).ok()?)
    }

    /// Bans for as long as `lasts` says of the nth time, at least a second.
    pub fn ban(&self, who: Who, reason: Reason, now: Duration, lasts: impl FnOnce(u8) -> Duration) -> Sentence {
        let since = seconds(now);
        let put = self.put(who, since, |before| {
            let times = before.map_or(0, |before| before.times).saturating_add(1);
            // Of a part of a second the whole.
            let end = now.saturating_add(lasts(times)).saturating_add(Duration::from_nanos(999_999_999));
            Some(Sentence { since, until: seconds(end).max(since.saturating_add(1)), times, reason })
        });
        put.expect("it is put because the judge above always gives one")
    }

    /// Whether it was not known better.
    pub fn restore(&self, who: Who, sentence: Sentence, now: Duration) -> bool {
        let now = seconds(now);
        if sentence.until <= sentence.since || is_forgotten(&sentence, now) {
            return false;
        }
        self.put(who, now, |before| before.is_none_or(|before| before.until < sentence.until).then_some(sentence)).is_some()
    }

    /// `judge` sees what is remembered.
    fn put(&self, who: Who, now: u32, judge: impl FnOnce(Option<Sentence>) -> Option<Sentence>) -> Option<Sentence> {
        let hash = self.hasher.hash_one(who);
        let shard = self.shard(hash);
        let mut writer = lock(&shard.writer);
        let mut table = shard.table.load_full();
        let known = if table.places() == 0 { None } else { table.seek(who, hash).ok() };
        let before = known.and_then(|at| table.sentence(at)).filter(|before| !is_forgotten(before, now));
        let sentence = judge(before)?;
        let at = match known {
            Some(at) => at,
            None => {
                if writer.kept >= MOST_IN_SHARD {
                    self.make_way(&table, &mut writer, now);
                }
                if (writer.used + 1) * 4 > table.places() * 3 {
                    table = self.remake(shard, &table, &mut writer, now);
                }
                let (Ok(at) | Err(at)) = table.seek(who, hash);
                at
            }
        };
        if table.sentence(at).is_none() {
            writer.kept += 1;
        }
        let counted = sentence.until > now;
        self.recount(table.is_in_force(at), counted);
        table.set(at, &sentence, counted);
        if known.is_none() {
            writer.used += 1;
            table.keys[at].store(who.0, Release);
        }
        Some(sentence)
    }

    pub fn remove(&self, who: Who) -> Option<Sentence> {
        let hash = self.hasher.hash_one(who);
        let shard = self.shard(hash);
        let mut writer = lock(&shard.writer);
        let table = shard.table.load();
        if table.places() == 0 {
            return None;
        }
        let at = table.seek(who, hash).ok()?;
        self.vacate(&table, at, &mut writer)
    }

    pub fn retain(&self, mut keep: impl FnMut(Who, &Sentence) -> bool) {
        for shard in &self.shards {
            let mut writer = lock(&shard.writer);
            let table = shard.table.load();
            for at in 0..table.places() {
                if let (Some(who), Some(sentence)) = (table.who(at), table.sentence(at))
                    && !keep(who, &sentence)
                {
                    self.vacate(&table, at, &mut writer);
                }
            }
        }
    }

    pub fn sweep(&self, now: Duration) {
        let now = seconds(now);
        let mut seen = 0;
        for _ in 0..SHARDS {
            let shard = &self.shards[self.broom.fetch_add(1, Relaxed) % SHARDS];
            let mut writer = lock(&shard.writer);
            let table = shard.table.load_full();
            for at in 0..table.places() {
                let Some(sentence) = table.sentence(at) else { continue };
                if is_forgotten(&sentence, now) {
                    self.vacate(&table, at, &mut writer);
                } else if table.is_in_force(at) && sentence.until <= now {
                    self.recount(true, false);
                    table.set(at, &sentence, false);
                }
            }
            // Memory goes back when most are gone.
            if table.places() > 8 && writer.kept * 8 < table.places() {
                self.remake(shard, &table, &mut writer, now);
            }
            seen += table.places();
            if seen >= SWEEP {
                return;
            }
        }
    }

    pub fn each(&self, mut see: impl FnMut(Who, Sentence)) {
        for shard in &self.shards {
            let table = shard.table.load_full();
            for at in 0..table.places() {
                if let (Some(who), Some(sentence)) = (table.who(at), table.sentence(at)) {
                    see(who, sentence);
                }
            }
        }
    }

    pub fn memory(&self) -> usize {
        let place = size_of::<AtomicU64>() * 2 + size_of::<AtomicU32>();
        let tables = self.shards.iter().map(|shard| shard.table.load().places() * place + size_of::<Table>());
        size_of::<Self>() + self.shards.len() * size_of::<Shard>() + tables.sum::<usize>()
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> (u64::BITS - SHARDS.ilog2())) as usize]
    }

    fn recount(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => drop(self.in_force.fetch_add(1, Relaxed)),
            (true, false) => drop(self.in_force.fetch_sub(1, Relaxed)),
            (true, true) | (false, false) => {}
        }
    }

    fn vacate(&self, table: &Table, at: usize, writer: &mut Writer) -> Option<Sentence> {
        let sentence = table.sentence(at)?;
        self.recount(table.is_in_force(at), false);
        table.spans[at].store(0, Relaxed);
        table.notes[at].store(0, Relaxed);
        writer.kept -= 1;
        Some(sentence)
    }

    /// Of the next few a former goes first, then the ban that ends soonest; one by hand only where there is no other.
    fn make_way(&self, table: &Table, writer: &mut Writer, now: u32) {
        let mut least = None;
        let mut looked = 0;
        for _ in 0..table.places() {
            let at = writer.hand & (table.places() - 1);
            writer.hand = at + 1;
            let Some(sentence) = table.sentence(at) else { continue };
            let rank = (sentence.until > now && sentence.reason == Reason::Hand, sentence.until);
            if least.is_none_or(|(least, _)| rank < least) {
                least = Some((rank, at));
            }
            looked += 1;
            if looked >= LOOK {
                break;
            }
        }
        if let Some((_, at)) = least {
            self.vacate(table, at, writer);
        }
    }

    /// A table of those who count, with room for one more at least.
    fn remake(&self, shard: &Shard, old: &Table, writer: &mut Writer, now: u32) -> Arc<Table> {
        let table = Table::with_room_for(writer.kept + 1);
        let (mut kept, mut in_force) = (0, 0);
        for at in 0..old.places() {
            let (Some(who), Some(sentence)) = (old.who(at), old.sentence(at)) else { continue };
            in_force += usize::from(old.is_in_force(at));
            if is_forgotten(&sentence, now) {
                continue;
            }
            let counts = sentence.until > now;
            in_force -= usize::from(old.is_in_force(at) && counts);
            let (Ok(to) | Err(to)) = table.seek(who, self.hasher.hash_one(who));
            table.set(to, &sentence, counts && old.is_in_force(at));
            table.keys[to].store(who.0, Release);
            kept += 1;
        }
        self.in_force.fetch_sub(in_force, Relaxed);
        (writer.used, writer.kept) = (kept, kept);
        let table = Arc::new(table);
        shard.table.store(table.clone());
        table
    }
}

#[cfg(test)]
mod tests;
