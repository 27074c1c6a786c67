//! Zone rule: whether one more request of a key fits its pace.
//!
//! Pure: time is an argument. GCRA by governor, over a store of our own that is bounded.
//!
//! Shape: a cell is idle once its whole burst has come back; an idle cell says no more than no cell does. So idle cells, and no others, make room for new keys:
//!        nobody's budget can be reset by filling the zone. While the zone is full of busy cells, newcomers share `max_keys / 4` overflow cells by hash, each at the
//!        pace of one key: a newcomer never gets more than its own pace, others with a cell are not touched, and to lock every newcomer out takes a flood of
//!        `max_keys / 4` times the rate. A newcomer that finds room later starts with what its overflow cell has counted.
//!        So under any load no key is admitted more than rate × time + burst + 1.
//! Units: `now` is monotonic, since an epoch that the caller chose and keeps. Memory: at most [`BYTES_PER_KEY`] a key of `max_keys`, taken as keys come.
//! Source: GCRA (ITU-T I.371); nginx's `limit_req nodelay`, which admits burst + 1 at once.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore};

use crate::plan;

/// What a full zone costs at most for each of its `max_keys`: a slot and its index entry, each just after their tables have doubled, and its share of the overflow.
pub const BYTES_PER_KEY: usize = 80;

/// How many cells are looked at for an idle one before a newcomer is sent to the overflow. The look goes on next time where it ended.
const SWEEP: usize = 32;

/// Longer than any pace is meant; keeps governor's 64-bit nanoseconds from overflowing.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Whose budget a request uses. Hostile text is hashed, never kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key<'a> {
    /// IPv6 counts by /64, an IPv4-mapped address as IPv4.
    Ip(IpAddr),
    Text(&'a [u8]),
}

/// The cells of one zone.
#[derive(Debug)]
pub struct Limiter {
    quota: Quota,
    /// Keyed from the kernel's dice: nobody outside can find two keys that share a cell.
    hasher: ahash::RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl Limiter {
    #[must_use]
    pub fn new(zone: &plan::Zone) -> Self {
        let every = zone.rate.every().min(LONGEST);
        let period = Quota::with_period(every).expect("a period is never zero because a Pace checks it");
        // Admitted at once; bounded so that the time for all to come back fits governor's arithmetic: no pace that a person means comes near.
        let most = u32::try_from(LONGEST.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
        let at_once = zone.burst.saturating_add(1).min(most.max(1));
        let keys = zone.max_keys.get() as usize;
        // Small zones are one shard: dividing ten keys by sixteen would leave most shards none.
        let shards = (keys / 1024).clamp(1, 16).next_power_of_two().min(16);
        let shard = |n: usize| Mutex::new(Shard::new(keys / shards + usize::from(n < keys % shards)));
        Self {
            quota: period.allow_burst(NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN)),
            hasher: ahash::RandomState::new(),
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// Admits one request of `key`, or says how long the key must wait until the next one is admitted.
    pub fn admit(&self, key: &Key, now: Duration) -> Result<(), Duration> {
        let limiter: RateLimiter<u64, Cells, Given, NoOpMiddleware<Duration>> =
            RateLimiter::new(self.quota, Cells { shards: &self.shards, now: nanos(now) }, Given::at(now));
        limiter.check_key(&self.print(key)).map_err(|not_until| not_until.wait_time_from(now))
    }

    /// Cells in use, idle ones included; never more than `max_keys`.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    /// Bytes that the cells take now, by the capacity of their tables.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).memory()).sum()
    }

    /// 64 bits of a keyed hash: among 100,000 keys two share a cell with probability 3 × 10⁻¹⁰.
    fn print(&self, key: &Key) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match *key {
            Key::Ip(ip) => match ip.to_canonical() {
                IpAddr::V4(ip) => (4u8, ip.to_bits()).hash(&mut hasher),
                IpAddr::V6(ip) => (6u8, (ip.to_bits() >> 64) as u64).hash(&mut hasher),
            },
            Key::Text(text) => (0u8, text).hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// The governor asks its clock for the start when it is put together, and for the time at the check: the epoch, and then what the caller said.
struct Given {
    now: Duration,
    started: Cell<bool>,
}

impl Given {
    fn at(now: Duration) -> Self {
        Self { now, started: Cell::new(false) }
    }
}

impl Clock for Given {
    type Instant = Duration;

    fn now(&self) -> Duration {
        if self.started.replace(true) { self.now } else { Duration::ZERO }
    }
}

/// What the governor sees of us for one check.
struct Cells<'a> {
    shards: &'a [Mutex<Shard>],
    now: u64,
}

impl StateStore for Cells<'_> {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, &print: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // The index uses the lowest and the highest bits.
        let shard = &self.shards[(print >> 40) as usize & (self.shards.len() - 1)];
        let mut shard = lock(shard);
        let cell = shard.cell(print, self.now);
        // Zero, or any time past: the whole burst is there.
        let before = (*cell > self.now).then(|| Nanos::new(*cell));
        let (admitted, after) = decide(before)?;
        *cell = after.as_u64();
        Ok(admitted)
    }
}

/// One key's state: when its whole burst will be back (GCRA's theoretical arrival time), in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Slot {
    print: u64,
    full_at: u64,
}

/// Shape: `index` and `slots` hold the same keys; `slots.len() <= max`.
#[derive(Debug)]
struct Shard {
    max: usize,
    index: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    slots: Vec<Slot>,
    /// Where the sweep for an idle cell goes on.
    hand: usize,
    /// Empty until first needed.
    overflow: Vec<u64>,
}

impl Shard {
    fn new(max: usize) -> Self {
        Self { max, index: HashMap::default(), slots: Vec::new(), hand: 0, overflow: Vec::new() }
    }

    /// The cell that counts `print`: its own, a new one, an idle one taken over, or one of the overflow.
    fn cell(&mut self, print: u64, now: u64) -> &mut u64 {
        if let Some(&at) = self.index.get(&print) {
            return &mut self.slots[at as usize].full_at;
        }
        let shared = self.overflow.get(self.overflow_at(print)).copied().unwrap_or(0);
        let slot = Slot { print, full_at: shared };
        let at = if self.slots.len() < self.max {
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact(self.slots.len().max(16).min(self.max - self.slots.len()));
            }
            self.slots.push(slot);
            self.slots.len() - 1
        } else if let Some(at) = self.idle(now) {
            self.index.remove(&self.slots[at].print);
            self.slots[at] = slot;
            at
        } else {
            if self.overflow.is_empty() {
                self.overflow = vec![0; (self.max / 4).max(16)];
            }
            let at = self.overflow_at(print);
            return &mut self.overflow[at];
        };
        self.index.insert(print, u32::try_from(at).expect("a slot number is small because max_keys is a u32"));
        &mut self.slots[at].full_at
    }

    /// An idle slot, if one stands among the next [`SWEEP`].
    fn idle(&mut self, now: u64) -> Option<usize> {
        for _ in 0..SWEEP.min(self.slots.len()) {
            let at = self.hand;
            self.hand = if at + 1 == self.slots.len() { 0 } else { at + 1 };
            if self.slots[at].full_at <= now {
                return Some(at);
            }
        }
        None
    }

    fn overflow_at(&self, print: u64) -> usize {
        // The high half of a product spreads any range evenly without a division.
        ((u128::from(print.rotate_left(20)) * self.overflow.len() as u128) >> 64) as usize
    }

    fn memory(&self) -> usize {
        // hashbrown keeps at most 7 of 8 buckets, and one control byte for each.
        let buckets = (self.index.capacity() * 8 / 7).next_power_of_two();
        buckets * (size_of::<(u64, u32)>() + 1) + self.slots.capacity() * size_of::<Slot>() + self.overflow.capacity() * size_of::<u64>()
    }
}

/// A print is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.0 = chunk.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}

/// A poisoned shard is used as it is: every step leaves it whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        sync::atomic::{AtomicU64, Ordering},
    };

    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::{Zone, ZoneKey},
        vocab::Pace,
    };

    fn zone(rate: &str, burst: u32, max_keys: u32) -> Zone {
        Zone {
            key: ZoneKey::Ip,
            rate: Pace::parse(rate).expect("a pace"),
            burst,
            status: StatusCode::TOO_MANY_REQUESTS,
            max_keys: NonZeroU32::new(max_keys).expect("not zero"),
        }
    }

    fn limiter(rate: &str, burst: u32, max_keys: u32) -> Limiter {
        Limiter::new(&zone(rate, burst, max_keys))
    }

    fn ip(n: u32) -> Key<'static> {
        Key::Ip(Ipv4Addr::from_bits(n).into())
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// How many of `n` requests at one time are admitted.
    fn admitted(limiter: &Limiter, key: &Key, n: usize, now: Duration) -> usize {
        (0..n).filter(|_| limiter.admit(key, now).is_ok()).count()
    }

    #[test]
    fn ten_a_second_with_a_burst_of_twenty_admits_twenty_one_at_once() {
        let limiter = limiter("10r/s", 20, 1000);
        assert_eq!(admitted(&limiter, &ip(1), 100, ms(5)), 21);
        assert_eq!(limiter.admit(&ip(1), ms(5)), Err(ms(100)));
        assert_eq!(admitted(&limiter, &ip(1), 100, ms(1005)), 10);
        assert_eq!(admitted(&limiter, &ip(2), 100, ms(1005)), 21);
        assert_eq!(admitted(&limiter, &ip(1), 100, ms(100_000)), 21);
    }

    #[test]
    fn without_a_burst_requests_come_one_by_one() {
        let limiter = limiter("1r/s", 0, 10);
        assert_eq!(admitted(&limiter, &ip(1), 5, ms(0)), 1);
        assert_eq!(limiter.admit(&ip(1), ms(400)), Err(ms(600)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_ipv4() {
        let limiter = limiter("1r/s", 0, 10);
        let v6 = |text: &str| Key::Ip(text.parse::<Ipv6Addr>().expect("an address").into());
        assert!(limiter.admit(&v6("2001:db8:1:2::1"), ms(0)).is_ok());
        assert!(limiter.admit(&v6("2001:db8:1:2:ffff::9"), ms(0)).is_err());
        assert!(limiter.admit(&v6("2001:db8:1:3::1"), ms(0)).is_ok());
        assert!(limiter.admit(&v6("::ffff:1.2.3.4"), ms(0)).is_ok());
        assert!(limiter.admit(&Key::Ip(Ipv4Addr::new(1, 2, 3, 4).into()), ms(0)).is_err());
        assert!(limiter.admit(&Key::Text(b"1.2.3.4"), ms(0)).is_ok());
        assert!(limiter.admit(&Key::Text(b"1.2.3.4"), ms(0)).is_err());
    }

    #[test]
    fn a_million_keys_stay_under_the_cap_and_its_memory() {
        const CAP: u32 = 100_000;
        let limiter = limiter("1r/m", 5, CAP);
        for n in 0..1_000_000 {
            let _ = limiter.admit(&ip(n), ms(u64::from(n) / 100));
            if n % 50_000 == 0 {
                assert!(limiter.keys() <= CAP as usize);
            }
        }
        assert_eq!(limiter.keys(), CAP as usize);
        let memory = limiter.memory();
        println!("{memory} bytes, {} a key", memory / CAP as usize);
        assert!(memory <= CAP as usize * BYTES_PER_KEY, "{memory}");
    }

    #[test]
    fn an_idle_key_makes_room_and_a_busy_one_does_not() {
        let limiter = limiter("1r/s", 1, 4);
        for n in 0..4 {
            assert_eq!(admitted(&limiter, &ip(n), 5, ms(0)), 2);
        }
        // Full of busy keys: a newcomer is served at the pace of one key, and nobody's cell is given up for it.
        assert_eq!(admitted(&limiter, &ip(9), 5, ms(0)), 2);
        for n in 0..4 {
            assert_eq!(admitted(&limiter, &ip(n), 5, ms(0)), 0, "{n}");
        }
        assert_eq!(limiter.keys(), 4);
        // Two seconds later all are idle, and a newcomer takes one over.
        assert_eq!(admitted(&limiter, &ip(8), 5, ms(2000)), 2);
        assert_eq!(limiter.keys(), 4);
    }

    #[test]
    fn a_pace_no_person_means_does_not_overflow() {
        for (rate, burst) in [("1r/1000000y", u32::MAX), ("1r/1y", u32::MAX), ("4294967295r/4295s", u32::MAX), ("1000000r/1ms", u32::MAX)] {
            let limiter = limiter(rate, burst, 1);
            assert_eq!(limiter.admit(&ip(1), ms(0)), Ok(()), "{rate} {burst}");
            for now in [ms(0), ms(1), Duration::from_secs(3_000_000_000)] {
                let _ = limiter.admit(&ip(1), now);
            }
        }
    }

    #[test]
    fn eight_threads_on_one_key_are_admitted_what_one_would_be() {
        let limiter = limiter("1000r/s", 50, 1000);
        let clock = AtomicU64::new(0);
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // 80,000 requests over two seconds, ten times the pace and more; the clock never runs back within one shard's lock by more than a step.
                    for _ in 0..10_000 {
                        let now = Duration::from_micros(clock.fetch_add(25, Ordering::SeqCst));
                        if limiter.admit(&ip(7), now).is_ok() {
                            passed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let passed = passed.load(Ordering::SeqCst);
        assert!((2040..=2051).contains(&passed), "{passed} of 2000 + 50 + 1");
    }

    proptest! {
        #[test]
        fn refused_with_a_wait_means_refused_before_and_admitted_then(
            count in 1u32..2000, per in 1u64..100_000, burst in 0u32..30, steps in prop::collection::vec(0u64..3_000, 1..60), early in 0.0f64..1.0,
        ) {
            let pace = Pace::new(count, ms(per)).expect("a pace");
            let spec = Zone { rate: pace, ..zone("1r/s", burst, 10) };
            let limiter = Limiter::new(&spec);
            let mut now = ms(0);
            for step in steps {
                now += ms(step);
                if let Err(wait) = limiter.admit(&ip(1), now) {
                    prop_assert!(wait > Duration::ZERO && wait <= pace.every());
                    let before = wait.mul_f64(early).min(wait - Duration::from_nanos(1));
                    prop_assert!(limiter.admit(&ip(1), now + before).is_err());
                    prop_assert!(limiter.admit(&ip(1), now + wait).is_ok());
                    now += wait;
                }
            }
        }

        #[test]
        fn one_key_never_sees_another_while_there_is_room(steps in prop::collection::vec((0u32..20, 0u64..500), 1..200)) {
            let together = limiter("5r/s", 3, 20);
            let mut alone: Vec<Limiter> = (0..20).map(|_| limiter("5r/s", 3, 1)).collect();
            let mut now = ms(0);
            for (key, step) in steps {
                now += ms(step);
                prop_assert_eq!(together.admit(&ip(key), now), alone[key as usize].admit(&ip(key), now));
            }
            alone.clear();
        }

        #[test]
        fn however_full_the_zone_no_key_gets_more_than_its_pace(steps in prop::collection::vec((0u32..40, 0u64..400), 1..400)) {
            // Room for three of forty: keys move between cells and the overflow all the time.
            let limiter = limiter("2r/s", 2, 3);
            let mut admitted: HashMap<u32, Vec<Duration>> = HashMap::new();
            let mut now = ms(0);
            for (key, step) in steps {
                now += ms(step / 8);
                if limiter.admit(&ip(key), now).is_ok() {
                    admitted.entry(key).or_default().push(now);
                }
                prop_assert!(limiter.keys() <= 3);
            }
            for times in admitted.values() {
                for (from, start) in times.iter().enumerate() {
                    for (n, end) in times[from..].iter().enumerate() {
                        let most = 2.0 * (*end - *start).as_secs_f64() + 2.0 + 1.0;
                        prop_assert!((n + 1) as f64 <= most + 1e-6);
                    }
                }
            }
        }
    }
}
