//! The points of those who are not banned yet.
//!
//! Shape: `find_time` is counted in [`SLICES`] slices. A point counts for at least `find_time`, and for at most one slice longer.
//!        Good answers raise the `max` of a suspect, at most to [`RAISE`] times, so that one of many behind one address does not shut out the others; not for what is certain.
//!        Who has no points left makes room for others; then who of the next [`LOOK`] has the fewest.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Rule, Who};

use crate::vocab::lock;

const SLICES: usize = 16;
/// How many are looked at for one that gives way.
const LOOK: usize = 8;
const SHARDS: usize = 16;
/// Paths of a suspect that are remembered, as hashes: two alike count once.
const PATHS: usize = 16;
/// So many refusals of zones without a good answer between them are what a page with many parts may meet.
const ROW: u8 = 50;
/// How far good answers raise `max`, and how many of them are worth it once.
const RAISE: u32 = 3;
const WORTH: u32 = 10;
/// Suspects at most: 12 MB at most.
pub const ROOM: usize = 65_536;

#[derive(Debug)]
pub(super) struct Docket {
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// Somebody has been a suspect: before that, good answers cost one relaxed load.
    used: AtomicBool,
}

impl Docket {
    pub fn new() -> Self {
        Self::with_room(ROOM, SHARDS)
    }

    fn with_room(room: usize, shards: usize) -> Self {
        let hasher = ahash::RandomState::new();
        let shard = || Mutex::new(Shard { room: room / shards, index: HashMap::with_hasher(hasher.clone()), files: Vec::new(), hand: 0 });
        Self { shards: (0..shards).map(|_| shard()).collect(), hasher, used: AtomicBool::new(false) }
    }

    /// Adds points. The sum, and a clean slate, where it is the rule's `max` or more; where the offence is not certain, the `max` that good answers have raised.
    pub fn strike(&self, who: Who, points: u16, certain: bool, rule: &Rule, now: Duration) -> Option<u32> {
        let slice = slice(rule.find_time, now);
        let mut shard = self.open(who);
        let file = shard.file(who, slice);
        file.add(points, slice);
        let sum = file.sum();
        let max = if certain { rule.max } else { rule.max.saturating_mul(file.raise()) };
        if sum < max {
            return None;
        }
        shard.remove(who);
        Some(sum)
    }

    pub fn is_new(&self, who: Who, path: &[u8], rule: &Rule, now: Duration) -> bool {
        // The lowest bits, and never the mark of an empty place.
        let mark = (self.hasher.hash_one(path) as u16).max(1);
        let mut shard = self.open(who);
        let file = shard.file(who, slice(rule.find_time, now));
        file.age(slice(rule.find_time, now));
        if file.paths.contains(&mark) {
            return false;
        }
        file.paths.rotate_right(1);
        file.paths[0] = mark;
        true
    }

    pub fn crowds(&self, who: Who, rule: &Rule, now: Duration) -> bool {
        let mut shard = self.open(who);
        let file = shard.file(who, slice(rule.find_time, now));
        file.age(slice(rule.find_time, now));
        file.row = file.row.saturating_add(1);
        file.row > ROW
    }

    pub fn credit(&self, who: Who) {
        if !self.used.load(Relaxed) {
            return;
        }
        let Ok(mut shard) = self.place(who).try_lock() else { return };
        if let Some(at) = shard.index.get(&who).copied() {
            let file = &mut shard.files[at as usize];
            (file.row, file.good) = (0, file.good.saturating_add(1));
        }
    }

    fn open(&self, who: Who) -> MutexGuard<'_, Shard> {
        self.used.store(true, Relaxed);
        self.shard(who)
    }

    pub fn acquit(&self, who: Who) {
        self.shard(who).remove(who);
    }

    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            *shard = Shard { room: shard.room, index: HashMap::with_hasher(self.hasher.clone()), files: Vec::new(), hand: 0 };
        }
    }

    fn shard(&self, who: Who) -> MutexGuard<'_, Shard> {
        lock(self.place(who))
    }

    fn place(&self, who: Who) -> &Mutex<Shard> {
        // The maps use the lowest bits and the highest.
        &self.shards[(self.hasher.hash_one(who) >> 32) as usize % self.shards.len()]
    }
}

/// Counts slices of `find_time` since the epoch.
fn slice(find_time: Duration, now: Duration) -> u64 {
    let slices = now.as_millis() * SLICES as u128 / find_time.as_millis().max(1);
    u64::try_from(slices).unwrap_or(u64::MAX)
}

/// One suspect's points, slice by slice; `newest` is the last that has any.
#[derive(Clone, Copy, Debug)]
struct File {
    who: Who,
    newest: u64,
    /// The present slice, and as many before it as `find_time` reaches into.
    points: [u16; SLICES + 1],
    /// Marks of paths, the newest first; 0: none.
    paths: [u16; PATHS],
    /// Refusals of zones since the last good answer.
    row: u8,
    /// Good answers.
    good: u8,
}

impl File {
    fn new(who: Who, slice: u64) -> Self {
        Self { who, newest: slice, points: [0; SLICES + 1], paths: [0; PATHS], row: 0, good: 0 }
    }

    /// Lets slices go that are too old by now. A clock that runs back ages nothing.
    fn age(&mut self, slice: u64) {
        let by = usize::try_from(slice.saturating_sub(self.newest)).unwrap_or(usize::MAX).min(self.points.len());
        if by > 0 {
            self.points.rotate_right(by % (SLICES + 1));
            self.points[..by].fill(0);
            self.newest = slice;
        }
        if by == SLICES + 1 {
            // All that was is too long ago, the good too.
            (self.paths, self.row, self.good) = ([0; PATHS], 0, 0);
        }
    }

    /// How many times `max` he may have.
    fn raise(&self) -> u32 {
        RAISE.min(1 + u32::from(self.good) / WORTH)
    }

    fn add(&mut self, points: u16, slice: u64) {
        self.age(slice);
        self.points[0] = self.points[0].saturating_add(points);
    }

    fn sum(&self) -> u32 {
        self.points.iter().map(|points| u32::from(*points)).sum()
    }
}

/// Shape: `index` and `files` hold the same suspects; `files.len() <= room`.
#[derive(Debug)]
struct Shard {
    room: usize,
    index: HashMap<Who, u32, ahash::RandomState>,
    files: Vec<File>,
    /// Where the next look begins.
    hand: usize,
}

impl Shard {
    fn file(&mut self, who: Who, slice: u64) -> &mut File {
        let at = match self.index.get(&who) {
            Some(at) => *at as usize,
            None => self.open(who, slice),
        };
        &mut self.files[at]
    }

    fn open(&mut self, who: Who, slice: u64) -> usize {
        let at = if self.files.len() < self.room {
            self.files.push(File::new(who, slice));
            self.files.len() - 1
        } else {
            let at = self.least(slice);
            self.index.remove(&self.files[at].who);
            self.files[at] = File::new(who, slice);
            at
        };
        self.index.insert(who, u32::try_from(at).expect("a place is small because ROOM is"));
        at
    }

    /// Who has the fewest points of the next few, and the longest ago.
    fn least(&mut self, slice: u64) -> usize {
        let mut least = (u32::MAX, u64::MAX, self.hand);
        for _ in 0..LOOK.min(self.files.len()) {
            let at = self.hand;
            self.hand = if at + 1 == self.files.len() { 0 } else { at + 1 };
            let file = &mut self.files[at];
            let last = file.newest;
            file.age(slice);
            least = least.min((file.sum(), last, at));
            if file.sum() == 0 {
                break;
            }
        }
        least.2
    }

    fn remove(&mut self, who: Who) {
        let Some(at) = self.index.remove(&who) else { return };
        let at = at as usize;
        self.files.swap_remove(at);
        if let Some(moved) = self.files.get(at) {
            self.index.insert(moved.who, u32::try_from(at).expect("a place is small because ROOM is"));
        }
        if self.hand >= self.files.len() {
            self.hand = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn rule(max: u32, find_time: u64) -> Rule {
        Rule { max, find_time: Duration::from_secs(find_time), ban_time: Duration::from_secs(60), grow: false }
    }

    fn who(n: u32) -> Who {
        Who::of(Ipv4Addr::from_bits(0x0100_0000 + n).into()).expect("an address")
    }

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn points_count_for_find_time_and_a_slice_more_at_most() {
        let rule = rule(2, 160);
        for (after, banned) in [(0, true), (160, true), (171, false)] {
            let docket = Docket::new();
            assert_eq!(docket.strike(who(1), 1, false, &rule, secs(1_000_000)), None);
            assert_eq!(docket.strike(who(1), 1, false, &rule, secs(1_000_000 + after)).is_some(), banned, "{after}");
        }
    }

    #[test]
    fn a_clock_that_runs_back_neither_frees_nor_panics() {
        let docket = Docket::new();
        assert_eq!(docket.strike(who(1), 1, false, &rule(2, 10), secs(1_000)), None);
        assert_eq!(docket.strike(who(1), 1, false, &rule(2, 10), secs(1)), Some(2));
        assert_eq!(docket.strike(who(1), u16::MAX, false, &rule(70_000, 10), Duration::MAX), None);
        assert_eq!(docket.strike(who(1), u16::MAX, false, &rule(70_000, 10), Duration::ZERO), None, "one slice counts 65,535 at most");
    }

    #[test]
    fn points_in_a_full_docket_are_not_washed_away_by_those_with_fewer() {
        let docket = Docket::with_room(64, 1);
        let rule = rule(10, 600);
        assert_eq!(docket.strike(who(0), 9, false, &rule, secs(1)), None);
        // A hundred thousand others with fewer points, one after the other.
        for n in 1..100_000 {
            assert_eq!(docket.strike(who(n), 8, false, &rule, secs(2)), None);
        }
        assert!(lock(&docket.shards[0]).files.len() <= 64);
        assert_eq!(docket.strike(who(0), 1, false, &rule, secs(3)), Some(10));
    }

    #[test]
    fn a_newcomer_is_counted_also_where_all_others_have_more() {
        let docket = Docket::with_room(16, 1);
        let rule = rule(10, 600);
        for n in 0..1_000 {
            docket.strike(who(n), 9, false, &rule, secs(1));
        }
        assert_eq!(docket.strike(who(5_000), 5, false, &rule, secs(1)), None);
        assert_eq!(docket.strike(who(5_000), 5, false, &rule, secs(1)), Some(10));
    }

    #[test]
    fn good_answers_raise_what_is_uncertain_and_at_most_threefold() {
        let rule = rule(10, 600);
        for (good, certain, times) in [(0, false, 10), (9, false, 10), (10, false, 20), (200, false, 30), (200, true, 10)] {
            let docket = Docket::new();
            assert_eq!(docket.strike(who(1), 1, certain, &rule, secs(1)), None);
            (0..good).for_each(|_| docket.credit(who(1)));
            let banned = (2..=40).find(|_| docket.strike(who(1), 1, certain, &rule, secs(1)).is_some());
            assert_eq!(banned, Some(times), "{good} {certain}");
        }
    }

    #[test]
    fn a_path_is_new_once_and_refusals_in_a_row_end_with_a_good_answer() {
        let (docket, rule) = (Docket::new(), rule(10, 160));
        assert!(docket.is_new(who(1), b"/a", &rule, secs(1_000)) && !docket.is_new(who(1), b"/a", &rule, secs(1_100)));
        assert!(docket.is_new(who(2), b"/a", &rule, secs(1_000)));
        assert!(docket.is_new(who(1), b"/a", &rule, secs(9_000)), "forgotten");
        for _ in 0..ROW {
            assert!(!docket.crowds(who(1), &rule, secs(9_000)));
        }
        assert!(docket.crowds(who(1), &rule, secs(9_000)));
        docket.credit(who(1));
        assert!(!docket.crowds(who(1), &rule, secs(9_000)));
    }

    #[derive(Clone, Debug)]
    struct Event {
        who: u32,
        points: u16,
        after_ms: u64,
    }

    fn event() -> impl Strategy<Value = Event> {
        (0_u32..4, 1_u16..6, prop_oneof![0_u64..50, 0_u64..3_000, 5_000_u64..20_000]).prop_map(|(who, points, after_ms)| Event {
            who,
            points,
            after_ms,
        })
    }

    proptest! {
        /// The oracle keeps every point with its time.
        #[test]
        fn who_has_max_points_within_find_time_is_banned_and_nobody_else(events in prop::collection::vec(event(), 0..200), find_time in 1_u64..15, max in 1_u32..20) {
            let (docket, rule) = (Docket::new(), rule(max, find_time));
            let mut now = secs(1_800_000_000);
            let mut all: Vec<(u32, Duration, u32)> = Vec::new();
            for Event { who: n, points, after_ms } in events {
                now += Duration::from_millis(after_ms);
                all.push((n, now, points.into()));
                let within = |time: Duration| all.iter().filter(|(who, at, _)| *who == n && now - *at <= time).map(|(.., points)| points).sum::<u32>();
                let (sure, most) = (within(rule.find_time), within(rule.find_time + rule.find_time / 16));
                match docket.strike(who(n), points, false, &rule, now) {
                    Some(sum) => {
                        prop_assert!(most >= max && sum <= most, "banned with {most} points at most");
                        all.retain(|(who, ..)| *who != n);
                    }
                    None => prop_assert!(sure < max, "free with {sure} points"),
                }
            }
        }

        #[test]
        fn index_and_files_agree(strikes in prop::collection::vec((0_u32..60, 1_u16..12, any::<bool>()), 0..300)) {
            let (docket, rule) = (Docket::with_room(16, 1), rule(10, 100));
            for (n, (person, points, acquit)) in strikes.into_iter().enumerate() {
                if acquit {
                    docket.acquit(who(person));
                } else {
                    docket.strike(who(person), points, false, &rule, secs(n as u64));
                }
                let shard = lock(&docket.shards[0]);
                prop_assert!(shard.files.len() <= 16 && shard.files.len() == shard.index.len());
                prop_assert!(shard.files.iter().enumerate().all(|(at, file)| shard.index.get(&file.who) == Some(&(at as u32))));
            }
        }
    }
}
