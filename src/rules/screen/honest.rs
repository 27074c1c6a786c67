//! Values of header fields that were judged and found honest: browsers send the same ones with every request.
//!
//! Shape: a fixed table of keyed prints, one to a place, the last one wins; a value that is not there is judged. Keyed from the kernel's dice, so nobody outside
//!        can find a value whose print is that of an honest one; by chance it takes 2⁶⁴ tries for each of [`PLACES`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::field::Kind;
use crate::plan::Families;

/// 32 KB for the process.
const PLACES: usize = 4096;
/// Longer ones are rarely sent twice.
const LONGEST: usize = 2048;

#[derive(Debug)]
pub(super) struct Honest {
    hasher: ahash::RandomState,
    prints: Box<[AtomicU64]>,
}

impl Honest {
    pub fn new() -> Self {
        Self { hasher: ahash::RandomState::new(), prints: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    pub fn knows(&self, kind: Kind, value: &[u8], families: Families) -> bool {
        value.len() <= LONGEST && {
            let print = self.print(kind, value, families);
            self.place(print).load(Relaxed) == print
        }
    }

    pub fn learn(&self, kind: Kind, value: &[u8], families: Families) {
        if value.len() <= LONGEST {
            let print = self.print(kind, value, families);
            self.place(print).store(print, Relaxed);
        }
    }

    fn place(&self, print: u64) -> &AtomicU64 {
        &self.prints[print as usize % PLACES]
    }

    /// Never 0, which stands for an empty place.
    fn print(&self, kind: Kind, value: &[u8], families: Families) -> u64 {
        self.hasher.hash_one((kind, families, value)) | 1 << 63
    }
}
