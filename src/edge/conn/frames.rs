//! Counts the streams that an HTTP/2 client resets, by reading the frame heads that pass by.
//!
//! Pure but for the clock it is given. Source: RFC 9113 §3.4 (preface), §4.1 (frame head), §6.4; CVE-2023-44487 (rapid reset).

use tokio::time::Instant;

use crate::vocab::Pace;

const PREFACE: usize = 24;
const HEAD: usize = 9;
const RST_STREAM: u8 = 3;

/// Shape: holds no byte of a payload; a frame head may come in any number of pieces.
#[derive(Debug)]
pub struct Frames {
    /// Bytes to pass over before the next frame head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
    pace: Pace,
    since: Option<Instant>,
    resets: u32,
}

impl Frames {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], filled: 0, pace, since: None, resets: 0 }
    }

    /// Whether the client still keeps the pace after these bytes.
    #[must_use]
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            let pass = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - pass, &bytes[pass..]);
            if self.skip > 0 {
                return true;
            }
            let take = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            (self.filled, bytes) = (self.filled + take, &bytes[take..]);
            if self.filled < HEAD {
                return true;
            }
            self.filled = 0;
            let [a, b, c, kind, ..] = self.head;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind == RST_STREAM && !self.reset(now()) {
                return false;
            }
        }
        true
    }

    fn reset(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.pace.per()) {
            (self.since, self.resets) = (Some(now), 0);
        }
        self.resets += 1;
        self.resets <= self.pace.count().get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pace(count: u32, per: Duration) -> Pace {
        Pace::new(count, per).expect("a valid pace")
    }

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload).expect("short"), kind, 0, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(RST_STREAM, payload));
        frame
    }

    fn stream(resets: usize) -> Vec<u8> {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frame(4, 18));
        for _ in 0..resets {
            all.extend(frame(1, 30));
            all.extend(frame(RST_STREAM, 4));
        }
        all
    }

    #[test]
    fn only_resets_are_counted_however_the_bytes_are_cut() {
        let now = Instant::now();
        for cut in [1, 2, 7, 9, 10, 33, 1000] {
            let mut frames = Frames::new(pace(5, Duration::from_secs(10)));
            assert!(stream(5).chunks(cut).all(|piece| frames.feed(piece, || now)), "cut {cut}");
            assert!(!frame(RST_STREAM, 4).chunks(cut).all(|piece| frames.feed(piece, || now)), "cut {cut}");
        }
    }

    #[test]
    fn a_new_window_forgives() {
        let now = Instant::now();
        let mut frames = Frames::new(pace(2, Duration::from_secs(10)));
        assert!(frames.feed(&stream(2), || now));
        assert!(frames.feed(&frame(RST_STREAM, 4), || now + Duration::from_secs(10)));
    }
}
