//! The token at the door, and who tries to guess it.
//!
//! Shape: wrong tokens of a [`Network`] have a pace; beyond it nothing that comes from there is looked at, until its next guess is due. So nobody guesses faster,
//!        whatever he guesses. Loopback has no pace: everybody whom a tunnel or a proxy of this machine brings comes from there.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::Mutex,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use http::HeaderValue;

use crate::vocab::{Network, Secret, lock};

/// Wrong tokens of one network: so many at once, and so many a minute.
const GUESSES: NonZeroU32 = NonZeroU32::new(10).expect("not zero because it is ten");
/// Networks that are kept apart; more share one pace.
const APART: usize = 1000;
const CROWD: Network = Network::V4(0);

type Guesses = RateLimiter<
    Network,
    HashMapStateStore<Network, ahash::RandomState>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// See the head of this file.
pub struct Door {
    token: Secret<String>,
    guesses: Guesses,
    /// Until when nothing of these is looked at.
    shut: Mutex<HashMap<Network, Instant>>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    Open,
    Wrong,
    /// Its network has guessed too often.
    Wait(Duration),
}

impl Door {
    #[must_use]
    pub fn new(token: Secret<String>) -> Self {
        let store = HashMapStateStore::new(HashMap::default());
        Self { token, guesses: RateLimiter::new(Quota::per_minute(GUESSES), store, MonotonicClock), shut: Mutex::default() }
    }

    #[must_use]
    pub fn admit(&self, header: Option<&HeaderValue>, client: IpAddr, now: Instant) -> Entry {
        let network = Network::of(client);
        if let Some(until) = lock(&self.shut).get(&network).filter(|until| **until > now) {
            return Entry::Wait(*until - now);
        }
        let Some(header) = header else { return Entry::Wrong };
        if bears(header, self.token.reveal()) {
            return Entry::Open;
        }
        if !network.first().is_loopback() {
            self.guessed(network, now);
        }
        Entry::Wrong
    }

    fn guessed(&self, network: Network, now: Instant) {
        if self.guesses.len() >= APART {
            self.guesses.retain_recent();
        }
        let key = if self.guesses.len() < APART { network } else { CROWD };
        let Err(early) = self.guesses.check_key(&key) else { return };
        let wait = early.wait_time_from(MonotonicClock.now());
        let mut shut = lock(&self.shut);
        if shut.len() >= APART {
            shut.retain(|_, until| *until > now);
        }
        if shut.len() < APART {
            shut.insert(network, now + wait);
        }
    }
}

/// Whether the header bears the token: as `Bearer`, or as the password of `Basic` with any user, which is what a browser can send.
fn bears(header: &HeaderValue, token: &str) -> bool {
    let Some((scheme, value)) = header.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(value.as_bytes(), token.as_bytes());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let Ok(pair) = BASE64_STANDARD.decode(value) else { return false };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
    same(&pair[colon + 1..], token.as_bytes())
}

/// Takes the same time wherever the first difference is; the length of a token is no secret. An empty token opens nothing.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0_u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    differing == 0 && given.len() == token.len() && !token.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("a header")
    }

    #[test]
    fn who_guesses_a_token_waits_and_nobody_else() {
        let (door, now) = (Door::new(Secret::new("s3cret".to_owned())), Instant::now());
        let (wrong, right) = (header("Bearer guess"), header("Bearer s3cret"));
        for _ in 0..11 {
            assert_eq!(door.admit(Some(&wrong), ip("2001:db8::1"), now), Entry::Wrong);
        }
        assert!(matches!(door.admit(Some(&right), ip("2001:db8::2"), now), Entry::Wait(_)), "another address of the same network");
        assert_eq!(door.admit(Some(&right), ip("192.0.2.7"), now), Entry::Open);
        let later = now + Duration::from_secs(7);
        assert_eq!(door.admit(Some(&right), ip("2001:db8::1"), later), Entry::Open, "one guess in six seconds is looked at");
    }

    #[test]
    fn asking_without_a_token_and_coming_from_here_is_no_guess() {
        let (door, now) = (Door::new(Secret::new("s3cret".to_owned())), Instant::now());
        for _ in 0..100 {
            assert_eq!(door.admit(None, ip("192.0.2.7"), now), Entry::Wrong);
            assert_eq!(door.admit(Some(&header("Bearer guess")), ip("127.0.0.1"), now), Entry::Wrong);
        }
        for client in ["192.0.2.7", "127.0.0.1"] {
            assert_eq!(door.admit(Some(&header("Bearer s3cret")), ip(client), now), Entry::Open);
        }
    }

    #[test]
    fn however_many_guess_what_is_kept_of_them_is_bounded() {
        let (door, now) = (Door::new(Secret::new("s3cret".to_owned())), Instant::now());
        for n in 0..20_000_u32 {
            for _ in 0..2 {
                let _ = door.admit(Some(&header("Bearer guess")), IpAddr::V4((0x0B00_0000 + n).into()), now);
            }
        }
        assert!(door.guesses.len() <= APART + 1, "{}", door.guesses.len());
        assert!(lock(&door.shut).len() <= APART);
    }
}
