//! Session tickets: sealed by keys that the master keeps, so that they outlive this process and are good on every thread.
//!
//! Shape: a ticket is the name of its key (16 bytes, authenticated), a random nonce (12) and what AES-256-GCM-SIV makes of the session.
//!        Every [`Scope`] derives names and keys of its own: a ticket of one scope is noise in another.
//! Source: RFC 5077 §4 (layout), RFC 8452 (a nonce that comes twice gives no key away), RFC 5869 §2.3 (one block of HKDF-Expand is one HMAC).

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hmac,
};
use rustls::server::ProducesTickets;

use super::demand::CaMark;
use crate::ipc::message::{TicketKey, TicketKeys};

/// What a ticket says of its life; the keys end it, at the latest then.
const LIFETIME: u32 = 12 * 3600;
const NAME: usize = 16;
/// A session with a long chain of client certificates gets no ticket: it would fill each hello.
const LONGEST: usize = 16 * 1024;

/// Which sessions may be taken up where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All sites that ask for no client certificate.
    Open,
    /// Sites that trust this file of CAs.
    Of(CaMark),
}

impl Scope {
    fn context(&self) -> &[u8] {
        match self {
            Self::Open => b"open",
            Self::Of(CaMark(mark)) => mark,
        }
    }
}

/// The keys as they came last.
#[derive(Debug)]
pub struct Tickets(Arc<ArcSwap<TicketKeys>>);

impl Tickets {
    #[must_use]
    pub fn new(keys: TicketKeys) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys)))
    }

    /// From now on tickets are made with these; every ticketer sees them at once.
    pub fn rotate(&self, keys: TicketKeys) {
        self.0.store(Arc::new(keys));
    }

    /// Errors: the cryptography library refuses the key.
    pub fn ticketer(&self, scope: Scope) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let derived = Derived::new(self.0.load_full(), scope).map_err(|_| rustls::Error::General("no ticket key".into()))?;
        Ok(Arc::new(Ticketer { keys: self.0.clone(), scope, derived: ArcSwap::from_pointee(derived) }))
    }
}

/// Makes and opens the tickets of one scope.
#[derive(Debug)]
struct Ticketer {
    keys: Arc<ArcSwap<TicketKeys>>,
    scope: Scope,
    derived: ArcSwap<Derived>,
}

impl Ticketer {
    /// Derived anew after the keys have changed.
    fn derived(&self) -> Option<Arc<Derived>> {
        let (keys, derived) = (self.keys.load(), self.derived.load_full());
        if Arc::ptr_eq(&keys, &derived.of) {
            return Some(derived);
        }
        let fresh = Arc::new(Derived::new(keys.clone(), self.scope).ok()?);
        // Another thread may store older ones after us: then they are derived once more.
        self.derived.store(fresh.clone());
        Some(fresh)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > LONGEST {
            return None;
        }
        self.derived()?.current.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let derived = self.derived()?;
        derived.current.open(ticket).or_else(|| derived.previous.as_ref()?.open(ticket))
    }
}

/// The keys of one scope.
#[derive(Debug)]
struct Derived {
    of: Arc<TicketKeys>,
    current: Seal,
    previous: Option<Seal>,
}

impl Derived {
    fn new(of: Arc<TicketKeys>, scope: Scope) -> Result<Self, Unspecified> {
        let current = Seal::new(&of.current, scope)?;
        let previous = of.previous.as_ref().map(|key| Seal::new(key, scope)).transpose()?;
        Ok(Self { of, current, previous })
    }
}

struct Seal {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    fn new(TicketKey(key): &TicketKey, scope: Scope) -> Result<Self, Unspecified> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal());
        let derive = |what: &[u8]| hmac::sign(&key, &[what, scope.context(), &[1]].concat());
        let mut name = [0; NAME];
        name.copy_from_slice(&derive(b"gateway ticket name ").as_ref()[..NAME]);
        Ok(Self { name, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, derive(b"gateway ticket key ").as_ref())? })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name), &mut sealed).ok()?;
        Some([&self.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        // Whoever sends more than we ever make makes us work for nothing.
        let sealed = ticket.strip_prefix(&self.name).filter(|sealed| sealed.len() <= LONGEST + 64)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut sealed = sealed.to_vec();
        let plain = self.key.open_in_place(Nonce::try_assume_unique_for_key(nonce).ok()?, Aad::from(self.name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey(crate::vocab::Secret::new([byte; 32]))
    }

    fn keys(current: u8, previous: Option<u8>) -> TicketKeys {
        TicketKeys { current: key(current), previous: previous.map(key) }
    }

    fn ticketer(tickets: &Tickets, scope: Scope) -> Arc<dyn ProducesTickets> {
        tickets.ticketer(scope).expect("good keys")
    }

    #[test]
    fn a_ticket_is_good_in_the_next_process_and_over_one_rotation() {
        let tickets = Tickets::new(keys(1, None));
        let old = ticketer(&tickets, Scope::Open);
        let ticket = old.encrypt(b"session").expect("made");
        assert_eq!(ticketer(&Tickets::new(keys(1, None)), Scope::Open).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        tickets.rotate(keys(2, Some(1)));
        assert_eq!(old.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let next = old.encrypt(b"session").expect("made");
        tickets.rotate(keys(3, Some(2)));
        assert_eq!(old.decrypt(&ticket), None, "its key is gone");
        assert_eq!(old.decrypt(&next).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn no_ticket_is_good_in_another_scope() {
        let tickets = Tickets::new(keys(1, None));
        let scopes = [Scope::Open, Scope::Of(CaMark([1; 32])), Scope::Of(CaMark([2; 32]))];
        for from in scopes {
            let ticket = ticketer(&tickets, from).encrypt(b"session").expect("made");
            for to in scopes {
                assert_eq!(ticketer(&tickets, to).decrypt(&ticket).is_some(), from == to, "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn what_is_too_long_gets_no_ticket() {
        let ticketer = ticketer(&Tickets::new(keys(1, None)), Scope::Open);
        assert!(ticketer.encrypt(&vec![0; LONGEST]).and_then(|ticket| ticketer.decrypt(&ticket)).is_some());
        assert_eq!(ticketer.encrypt(&vec![0; LONGEST + 1]), None);
    }

    proptest! {
        #[test]
        fn noise_opens_nothing(noise in prop::collection::vec(any::<u8>(), 0..200), named in any::<bool>()) {
            let ticketer = ticketer(&Tickets::new(keys(1, Some(2))), Scope::Open);
            let name = ticketer.encrypt(b"").expect("made")[..NAME].to_vec();
            let ticket = if named { [name, noise].concat() } else { noise };
            prop_assert_eq!(ticketer.decrypt(&ticket), None);
        }

        #[test]
        fn a_ticket_with_any_bit_changed_or_cut_opens_nothing(plain in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let ticketer = ticketer(&Tickets::new(keys(1, None)), Scope::Open);
            let ticket = ticketer.encrypt(&plain).expect("made");
            let mut changed = ticket.clone();
            let at = at.index(ticket.len());
            changed[at] ^= 1 << bit;
            prop_assert_eq!(ticketer.decrypt(&changed), None);
            prop_assert_eq!(ticketer.decrypt(&ticket[..at]), None);
            prop_assert_eq!(ticketer.decrypt(&ticket), Some(plain));
        }
    }
}
