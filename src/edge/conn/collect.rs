//! Collecting: an HTTP/1 body stays in the inbox of its connection until as much of it is there as was asked for.
//!
//! The engine reads what it is given and could keep no more than it can send again; what waits here is not read yet, so it is whole for each try.
//!
//! Shape: the task that serves a request asks ([`Collect::ask`]) and reads; the read gives nothing as long as it collects, and says here how far it has come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{
    chunks::{Chunks, Piece},
    head::Body,
};

/// Framing of a body that is mostly framing.
const MOST_FRAMING: usize = 256 * 1024;

/// Of one connection. All of it is used by one task.
#[derive(Debug, Default)]
pub struct Collect {
    /// 0: nothing is collected.
    wanted: AtomicU64,
    have: AtomicU64,
    enough: AtomicBool,
}

impl Collect {
    /// So many bytes of the body that have not been read yet, or all of it.
    pub fn ask(&self, wanted: u64) {
        self.have.store(0, Relaxed);
        self.enough.store(false, Relaxed);
        self.wanted.store(wanted, Relaxed);
    }

    /// What is there is given from here on.
    pub fn stop(&self) {
        self.wanted.store(0, Relaxed);
    }

    #[must_use]
    pub fn have(&self) -> u64 {
        self.have.load(Relaxed)
    }

    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.enough.load(Relaxed)
    }

    pub(super) fn is_on(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// Looks at all that is there of the body. Whether more is wanted; `None`: it is no body.
    pub(super) fn look(&self, ahead: &mut Option<Ahead>, body: Body, held: &[u8]) -> Option<bool> {
        let (have, whole) = match body {
            Body::Length(left) => (left.min(held.len() as u64), left <= held.len() as u64),
            Body::Chunked(chunks) => ahead.get_or_insert(Ahead { chunks, read: chunks.data(), seen: 0, over: false }).look(held)?,
            Body::Open => (0, true),
        };
        self.have.store(have, Relaxed);
        let enough = whole || have >= self.wanted.load(Relaxed);
        self.enough.store(enough, Relaxed);
        Some(!enough)
    }
}

/// How far a chunked body has been followed before it is given.
#[derive(Debug)]
pub struct Ahead {
    chunks: Chunks,
    /// Data that was read before.
    read: u64,
    seen: usize,
    over: bool,
}

impl Ahead {
    fn look(&mut self, held: &[u8]) -> Option<(u64, bool)> {
        if !self.over {
            match self.chunks.feed(held.get(self.seen..).unwrap_or_default()) {
                Piece::Within => {}
                Piece::End(_) => self.over = true,
                Piece::Bad => return None,
            }
            self.seen = held.len();
        }
        Some((self.chunks.data() - self.read, self.over || held.len() > MOST_FRAMING))
    }
}
