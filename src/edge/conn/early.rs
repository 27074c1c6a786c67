//! Early: what came of a body before a process was chosen for its request, and how fast the rest comes.
//!
//! Shape: HTTP/1 leaves what came in the connection ([`super::collect`]). Of HTTP/2 the engine keeps the beginning, as far as it can send it again, and the rest stands here: it goes
//!        behind the beginning whenever that is sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::buffers::Body;
use crate::rules::floor::Floor;

#[derive(Debug, Default)]
pub struct Early {
    /// Bytes that came before a process was chosen.
    pub bytes: u64,
    /// As long as it is held back, if it did not come at once.
    pub body: Option<Body>,
    /// Of a body whose length was declared.
    pub floor: Option<Floor>,
    /// Bytes that the engine sends again by itself, before `rest`.
    pub kept: usize,
    rest: BytesMut,
    /// The try that it was sent in.
    of: u32,
}

impl Early {
    #[must_use]
    pub fn new(floor: Option<Floor>) -> Self {
        Self { floor, ..Self::default() }
    }

    /// A piece that the engine does not keep.
    pub fn keep(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    #[must_use]
    pub fn is_kept_here(&self) -> bool {
        !self.rest.is_empty()
    }

    /// A piece goes on in try `of`: the first of a try is the beginning.
    pub fn complete(&mut self, piece: &mut Option<Bytes>, of: u32) {
        if self.rest.is_empty() || std::mem::replace(&mut self.of, of) == of {
            return;
        }
        let begun = piece.take().unwrap_or_default();
        let kept = self.kept.min(begun.len());
        *piece = Some([&begun[..kept], &self.rest[..], &begun[kept..]].concat().into());
    }

    /// Whether what comes on the way comes fast enough.
    pub fn passes(&mut self, now: Duration, bytes: usize) -> bool {
        self.floor.as_mut().is_none_or(|floor| floor.passed(now, bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(early: &mut Early, piece: &'static str, of: u32) -> String {
        let mut piece = Some(Bytes::from_static(piece.as_bytes()));
        early.complete(&mut piece, of);
        String::from_utf8_lossy(&piece.expect("a piece")).into_owned()
    }

    #[test]
    fn each_try_gets_all_of_it_once_and_in_order() {
        let mut early = Early { kept: 2, ..Early::default() };
        early.keep(b"cd");
        early.keep(b"e");
        assert_eq!(sent(&mut early, "ab", 1), "abcde");
        assert_eq!(sent(&mut early, "fg", 1), "fg");
        assert_eq!(sent(&mut early, "abfg", 2), "abcdefg", "the engine has kept what came later too");
        assert_eq!(sent(&mut early, "h", 2), "h");
        assert_eq!(sent(&mut Early::default(), "x", 1), "x");
    }
}
