//! Lines out of a stream of bytes, none longer than [`MAX_LINE`].
//!
//! Pure.

use serde::{Deserialize, Serialize};

/// A longer line is cut into lines.
pub const MAX_LINE: usize = 16 * 1024;

/// Keeps what is not a whole line yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cutter {
    partial: Vec<u8>,
}

impl Cutter {
    /// Gives every whole line of `bytes` (the first with what waited for it) without its end to `line`.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            match memchr(window) {
                Some(end) if self.partial.is_empty() => {
                    line(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                }
                Some(end) => {
                    self.partial.extend_from_slice(&bytes[..end]);
                    line(&self.partial);
                    self.partial.clear();
                    bytes = &bytes[end + 1..];
                }
                None if window.len() == room => {
                    self.partial.extend_from_slice(window);
                    line(&self.partial);
                    self.partial.clear();
                    bytes = &bytes[room..];
                    // The end of a line of exactly that length is not a line of its own.
                    bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
                }
                None => {
                    self.partial.extend_from_slice(window);
                    return;
                }
            }
        }
    }

    /// The stream has ended: what was left is a line too.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial = Vec::new();
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.push(piece, |line| lines.push(line.to_vec()));
        }
        cutter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_last_one_is_not_lost() {
        let lines = cut(&[vec![b'x'; MAX_LINE + 10], b"\nnext".to_vec()]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE, 10, 4]);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            text in "[ab\n]{0,300}",
            cuts in prop::collection::vec(0usize..300, 0..10),
        ) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<Vec<u8>> = at.windows(2).map(|w| bytes[w[0]..w[1]].to_vec()).collect();
            let mut expected: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(cut(&pieces), expected);
        }
    }
}
