//! Leftovers: what a client still sends of a body whose answer is out already. It is read and dropped, within bounds.
//!
//! An HTTP/2 stream that ends while its client is sending ends with a reset, and some clients lose the answer with it (curl 7.88, git). So the rest is taken for a while.
//! [`super::linger`] does the same for HTTP/1.
//!
//! Shape: bounds for one stream ([`STREAM`], [`TIME`], [`QUIET`] or [`PAUSE`]), for one connection and for one client (how many at a time, how many bytes a minute). Beyond a bound the
//!        stream is reset at once.
//! Source: RFC 9113 §8.1 (an early answer, then NO_ERROR); nginx's `lingering_close`, `lingering_time`, `lingering_timeout`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::{rules::jail::Who, vocab::lock};

/// Of one body.
const STREAM: u64 = 32 << 20;
/// From the answer on.
pub const TIME: Duration = Duration::from_secs(30);
/// Between two pieces, and in all once the connection drains.
pub const QUIET: Duration = Duration::from_secs(5);
/// The same before an answer of ours, which waits for as long.
pub const PAUSE: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(60);
const CONNECTION: Bounds = Bounds { streams: 16, bytes: 64 << 20 };
const CLIENT: Bounds = Bounds { streams: 64, bytes: 256 << 20 };
/// Clients that are remembered, for a minute each; while there are more, newcomers are reset.
const MOST_CLIENTS: usize = 16 * 1024;

/// `bytes`: in one [`WINDOW`].
#[derive(Clone, Copy, Debug)]
struct Bounds {
    streams: u32,
    bytes: u64,
}

/// What one connection, or one client, has going.
#[derive(Clone, Copy, Debug)]
struct Tally {
    streams: u32,
    bytes: u64,
    since: Instant,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self { streams: 0, bytes: 0, since: now }
    }

    fn begin(&mut self, bounds: Bounds, now: Instant) -> bool {
        if self.streams >= bounds.streams || !self.take(0, bounds, now) {
            return false;
        }
        self.streams += 1;
        true
    }

    /// Whether so many bytes more are within bounds.
    fn take(&mut self, bytes: u64, bounds: Bounds, now: Instant) -> bool {
        if self.is_old(now) {
            (self.bytes, self.since) = (0, now);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= bounds.bytes
    }

    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

/// Those of one connection.
#[derive(Debug, Default)]
pub struct OfConnection(Mutex<Option<Tally>>);

/// Those of all connections, by client.
#[derive(Debug, Default)]
pub struct Leftovers {
    clients: Mutex<HashMap<Option<Who>, Tally, ahash::RandomState>>,
}

/// The rest of one body; it ends with its stream.
#[derive(Debug)]
pub struct Leftover {
    all: Arc<Leftovers>,
    connection: Arc<OfConnection>,
    who: Option<Who>,
    left: u64,
}

impl Leftovers {
    /// `None`: its client, or its connection, has too many.
    #[must_use]
    pub fn begin(self: &Arc<Self>, connection: &Arc<OfConnection>, client: IpAddr, now: Instant) -> Option<Leftover> {
        let who = Who::of(client);
        let mut clients = self.clients();
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&who) {
            clients.retain(|_, tally| tally.streams > 0 || !tally.is_old(now));
            if clients.len() >= MOST_CLIENTS {
                return None;
            }
        }
        let of_client = clients.entry(who).or_insert_with(|| Tally::new(now));
        let mut of_connection = connection.lock();
        let of_connection = of_connection.get_or_insert_with(|| Tally::new(now));
        if !of_connection.begin(CONNECTION, now) {
            return None;
        }
        if !of_client.begin(CLIENT, now) {
            of_connection.streams -= 1;
            return None;
        }
        Some(Leftover { all: self.clone(), connection: connection.clone(), who, left: STREAM })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Option<Who>, Tally, ahash::RandomState>> {
        lock(&self.clients)
    }
}

impl OfConnection {
    fn lock(&self) -> MutexGuard<'_, Option<Tally>> {
        lock(&self.0)
    }
}

impl Leftover {
    /// A piece was dropped. Whether another one may come.
    #[must_use]
    pub fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = bytes as u64;
        self.left = self.left.saturating_sub(bytes);
        let of_client = self.all.clients().get_mut(&self.who).is_none_or(|tally| tally.take(bytes, CLIENT, now));
        let of_connection = self.connection.lock().as_mut().is_none_or(|tally| tally.take(bytes, CONNECTION, now));
        self.left > 0 && of_client && of_connection
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(tally) = self.all.clients().get_mut(&self.who) {
            tally.streams -= 1;
        }
        if let Some(tally) = self.connection.lock().as_mut() {
            tally.streams -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn one_body_has_its_bound() {
        let (all, connection, now) = (Arc::<Leftovers>::default(), Arc::default(), Instant::now());
        let mut rest = all.begin(&connection, ip(1), now).expect("the first");
        assert!((1..32).all(|_| rest.take(MB, now)));
        assert!(!rest.take(MB, now));
    }

    #[test]
    fn a_connection_has_so_many_at_a_time_and_so_much_a_minute() {
        let (all, connection, now) = (Arc::<Leftovers>::default(), Arc::default(), Instant::now());
        let mut some: Vec<_> = std::iter::from_fn(|| all.begin(&connection, ip(1), now)).collect();
        assert_eq!(some.len(), 16);
        some.pop();
        assert!(all.begin(&connection, ip(1), now).is_some(), "one has ended");
        for rest in &mut some[..2] {
            while rest.take(MB, now) {}
        }
        assert!(!some[2].take(MB, now), "64 MB are over");
        drop(some);
        assert!(all.begin(&connection, ip(1), now).is_none());
        assert!(all.begin(&Arc::default(), ip(1), now).is_some(), "another connection of the same client");
        assert!(all.begin(&connection, ip(1), now + WINDOW).is_some(), "a minute later");
    }

    #[test]
    fn a_client_has_so_many_on_all_its_connections() {
        let (all, now) = (Arc::<Leftovers>::default(), Instant::now());
        let connections: Vec<_> = (0..8).map(|_| Arc::default()).collect();
        let some: Vec<_> = connections.iter().flat_map(|one| std::iter::from_fn(|| all.begin(one, ip(1), now))).collect();
        assert_eq!(some.len(), 64);
        assert!(all.begin(&Arc::default(), ip(2), now).is_some(), "nobody else's");
        drop(some);
        assert!(connections.iter().all(|one| one.lock().is_none_or(|tally| tally.streams == 0)));
        assert!(all.begin(&connections[7], ip(1), now).is_some());
    }

    #[test]
    fn clients_are_forgotten_when_there_are_too_many() {
        let (all, now) = (Arc::<Leftovers>::default(), Instant::now());
        for n in 0..MOST_CLIENTS {
            let client = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n).expect("few")).into();
            assert!(all.begin(&Arc::default(), client, now).is_some());
        }
        assert!(all.begin(&Arc::default(), ip(1), now).is_none());
        assert!(all.begin(&Arc::default(), ip(1), now + WINDOW).is_some());
        assert_eq!(all.clients().len(), 1);
    }
}
