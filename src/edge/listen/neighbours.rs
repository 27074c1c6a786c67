//! Connections by where they come from: nobody takes all the seats of a listener.
//!
//! Shape: a [`Network`] is here as long as a connection of it is open, so there are never more than `max_connections`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::vocab::{Network, lock};

/// Threads that accept are few, and each holds a lock for one look-up.
const SHARDS: usize = 32;

type Counts = HashMap<Network, u32, ahash::RandomState>;

#[derive(Debug)]
pub struct Neighbours {
    /// Keyed from the kernel's dice: nobody outside can crowd one shard.
    hasher: ahash::RandomState,
    shards: [Mutex<Counts>; SHARDS],
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { hasher: ahash::RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// One of its network's; gone when dropped.
#[derive(Debug)]
pub struct Place {
    of: Arc<Neighbours>,
    network: Network,
}

impl Neighbours {
    /// `None`: the network has `cap` already.
    pub fn sit(self: &Arc<Self>, ip: IpAddr, cap: u32) -> Option<Place> {
        let network = Network::of(ip);
        let mut shard = self.shard(network);
        let count = shard.entry(network).or_default();
        if *count >= cap {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Place { of: self.clone(), network })
    }

    fn shard(&self, network: Network) -> MutexGuard<'_, Counts> {
        let at = self.hasher.hash_one(network) as usize % SHARDS;
        // Counts are whole between two statements, whoever panicked.
        lock(&self.shards[at])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.of.shard(self.network);
        if let Some(count) = shard.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.network);
            }
        }
        if shard.is_empty() && shard.capacity() > 1024 {
            *shard = Counts::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_cap_holds_at_its_bound_and_a_place_that_is_left_is_free() {
        let all = Arc::new(Neighbours::default());
        let mut places: Vec<_> = (0..3).map(|_| all.sit(ip("192.0.2.1"), 3).expect("below the cap")).collect();
        assert!(all.sit(ip("192.0.2.1"), 3).is_none() && all.sit(ip("::ffff:192.0.2.1"), 3).is_none());
        assert!(all.sit(ip("192.0.2.2"), 3).is_some(), "another has its own");
        places.pop();
        assert!(all.sit(ip("192.0.2.1"), 3).is_some());
    }

    #[test]
    fn ipv6_counts_by_what_one_subscriber_has() {
        let all = Arc::new(Neighbours::default());
        let _place = all.sit(ip("2001:db8:1:2::1"), 1).expect("the first");
        assert!(all.sit(ip("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(all.sit(ip("2001:db8:1:3::1"), 1).is_some());
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let all = Arc::new(Neighbours::default());
        let places: Vec<_> = (0..200_000_u32).map(|n| all.sit(IpAddr::V4(n.into()), 1).expect("the first")).collect();
        drop(places);
        let kept: usize = all.shards.iter().map(|shard| shard.lock().expect("not poisoned").capacity()).sum();
        assert!(kept <= 1024 * SHARDS, "{kept}");
    }

    proptest! {
        #[test]
        fn no_order_of_coming_and_going_goes_beyond_the_cap(moves in prop::collection::vec((0u32..4, any::<bool>()), 0..200), cap in 1u32..5) {
            let all = Arc::new(Neighbours::default());
            let mut places: Vec<Vec<Place>> = (0..4).map(|_| Vec::new()).collect();
            for (who, comes) in moves {
                let mine = &mut places[who as usize];
                if comes {
                    let place = all.sit(IpAddr::V4(who.into()), cap);
                    prop_assert_eq!(place.is_some(), mine.len() < cap as usize);
                    mine.extend(place);
                } else {
                    mine.pop();
                }
            }
        }
    }
}
