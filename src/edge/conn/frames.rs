//! Reads the frame heads of an HTTP/2 connection as they pass by: what a client may not do too often, and how long a head may take.
//!
//! Pure but for the clock it is given. The engine bounds what one frame may cost; what many cost together is bounded here.
//!
//! Shape: holds no byte of a payload; a frame head may come in any number of pieces. Resets keep the pace of `[limits] resets`;
//!        frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, kinds that nobody knows) have a budget that every kilobyte we send adds to:
//!        who downloads must grant windows.
//! Source: RFC 9113 §3.4 (preface), §4.1 (frame head), §6; CVE-2023-44487 (rapid reset), CVE-2019-9511 to 9518 (floods); nginx weighs overhead against payload likewise.

use std::time::Duration;

use tokio::time::Instant;

use super::endings::{Endings, RESET};
use crate::vocab::Pace;

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Frames without a payload of anybody's, in [`WINDOW`]; browsers send some ten a page.
const IDLE_FRAMES: u32 = 1000;
const WINDOW: Duration = Duration::from_secs(10);
/// As many bytes sent earn the client one frame more, and a frame of DATA two: some grant the windows of stream and connection for each.
const EARNS: u64 = 1024;
/// What can be earned at most, in frames.
const SAVINGS: u64 = 64 * 1024;
/// As long as the padding of one frame gets.
const PADDING: usize = 256;

/// Finds where frames begin, however the bytes are cut.
#[derive(Clone, Debug)]
struct Heads {
    /// Bytes to pass over before the next frame head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Heads {
    fn new(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], filled: 0 }
    }

    /// The next head that is complete, and the bytes after it.
    fn next<'a>(&mut self, mut bytes: &'a [u8]) -> Option<([u8; HEAD], &'a [u8])> {
        let pass = self.skip.min(bytes.len());
        (self.skip, bytes) = (self.skip - pass, &bytes[pass..]);
        let take = (HEAD - self.filled).min(bytes.len());
        self.head[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
        (self.filled, bytes) = (self.filled + take, &bytes[take..]);
        if self.filled < HEAD {
            return None;
        }
        self.filled = 0;
        self.skip = length(&self.head);
        Some((self.head, bytes))
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

fn length(&[a, b, c, ..]: &[u8; HEAD]) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// Padding alone is nothing, too; how much of a frame is padding stands behind its head.
fn is_empty(head: &[u8; HEAD], flags: u8) -> bool {
    length(head) <= if flags & PADDED == 0 { 0 } else { PADDING }
}

/// What passes by on one connection, both ways.
#[derive(Debug)]
pub struct Frames {
    came: Heads,
    went: Heads,
    resets: Window,
    pace: Pace,
    idle: Window,
    earned: u64,
    /// A head of a request, or the preface, has begun and is not complete: since when.
    begun: Option<Instant>,
    /// The frame on its way completes that head.
    ends: bool,
    last_stream: [u8; 4],
    endings: Endings,
}

/// Counts anew when its time is over.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

impl Window {
    /// How many there were, with this one.
    fn add(&mut self, now: Instant, per: Duration) -> u32 {
        if self.since.is_none_or(|since| now.duration_since(since) >= per) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

impl Frames {
    #[must_use]
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            came: Heads::new(PREFACE),
            went: Heads::new(0),
            resets: Window::default(),
            pace,
            idle: Window::default(),
            earned: 0,
            begun: Some(now),
            ends: false,
            last_stream: [0; 4],
            endings: Endings::default(),
        }
    }

    /// Whether the client still keeps within bounds after these bytes.
    #[must_use]
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        loop {
            let next = self.came.next(bytes);
            if self.ends && (next.is_some() || self.came.skip == 0) {
                (self.begun, self.ends) = (None, false);
            }
            let Some((head, rest)) = next else { return true };
            bytes = rest;
            if !self.frame(&head, rest.len(), &now) {
                return false;
            }
        }
    }

    /// `there`: bytes that follow the head, of its payload or of what is behind it.
    fn frame(&mut self, head: &[u8; HEAD], there: usize, now: &impl Fn() -> Instant) -> bool {
        let &[_, _, _, kind, flags, stream @ ..] = head;
        self.endings.came(kind, flags, stream);
        match kind {
            HEADERS | CONTINUATION => {
                if kind == HEADERS {
                    self.last_stream = stream;
                }
                self.ends = flags & END_HEADERS != 0;
                if self.ends && there >= length(head) {
                    (self.begun, self.ends) = (None, false);
                } else {
                    self.begun = Some(self.begun.unwrap_or_else(now));
                }
                true
            }
            RST_STREAM => self.resets.add(now(), self.pace.per()) <= self.pace.count().get(),
            DATA if flags & END_STREAM != 0 || !is_empty(head, flags) => self.settled(),
            _ => self.settled() && self.spend(now()),
        }
    }

    /// The preface is over when a first frame has come.
    fn settled(&mut self) -> bool {
        self.begun = None;
        true
    }

    fn spend(&mut self, now: Instant) -> bool {
        if self.idle.add(now, WINDOW) <= IDLE_FRAMES {
            return true;
        }
        // Beyond what everybody has: what was earned.
        let earned = self.earned.checked_sub(EARNS);
        self.earned = earned.unwrap_or_default();
        earned.is_some()
    }

    /// These bytes went to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        let mut earned = bytes.len() as u64;
        while let Some((head, rest)) = self.went.next(bytes) {
            bytes = rest;
            let [_, _, _, kind, flags, stream @ ..] = head;
            self.endings.went(kind, flags, stream);
            earned += if kind == DATA { 2 * EARNS } else { 0 };
        }
        self.earned = self.earned.saturating_add(earned).min(SAVINGS * EARNS);
    }

    /// Where in what is to be sent next a reset begins that nobody needs ([`super::endings`]).
    #[must_use]
    pub fn moot(&self, pieces: &[std::io::IoSlice<'_>]) -> Option<usize> {
        if !self.endings.any() {
            return None;
        }
        let (mut heads, mut at) = (self.went.clone(), 0);
        for piece in pieces {
            let mut rest = &piece[..];
            loop {
                if heads.is_between() && self.endings.is_moot(rest) {
                    return Some(at + piece.len() - rest.len());
                }
                let Some((_, after)) = heads.next(rest) else { break };
                rest = &after[heads.skip.min(after.len())..];
                heads.skip -= after.len() - rest.len();
            }
            at += piece.len();
        }
        None
    }

    /// What is to be said to a client whose stream is over, unless something is on its way already.
    pub fn nudge(&mut self) -> Option<[u8; RESET]> {
        self.endings.nudge().filter(|_| self.went.is_between())
    }

    /// A reset that nobody needs, which comes next, is kept back: so many bytes.
    pub fn keep_back(&mut self, pieces: &[std::io::IoSlice<'_>]) -> usize {
        if let Some(&[_, _, _, _, _, a, b, c, d, ..]) = pieces.iter().map(|piece| &piece[..]).find(|piece| !piece.is_empty()) {
            self.endings.forget([a, b, c, d]);
        }
        RESET
    }

    /// Since when a head, or the preface, has been on the way.
    #[must_use]
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The last word to a client that was too much; `None`: a frame of ours is not complete, and cannot be any more.
    ///
    /// Source: RFC 9113 §6.8 and §7 (ENHANCE_YOUR_CALM).
    #[must_use]
    pub fn farewell(&self) -> Option<[u8; 17]> {
        if !self.went.is_between() {
            return None;
        }
        let [a, b, c, d] = self.last_stream;
        Some([0, 0, 8, 7, 0, 0, 0, 0, 0, a & 0x7f, b, c, d, 0, 0, 0, 11])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const SECOND: Duration = Duration::from_secs(1);

    fn frames(resets: u32) -> Frames {
        Frames::new(Pace::new(resets, 10 * SECOND).expect("a valid pace"), Instant::now())
    }

    fn frame_of(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(RST_STREAM, payload));
        frame
    }

    fn preface() -> Vec<u8> {
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame_of(4, 0, 18)].concat()
    }

    fn resets(count: usize) -> Vec<u8> {
        let pair = [frame_of(HEADERS, END_HEADERS, 30), frame_of(RST_STREAM, 0, 4)].concat();
        [preface(), pair.repeat(count)].concat()
    }

    #[test]
    fn only_resets_are_counted_as_such_however_the_bytes_are_cut() {
        let now = Instant::now();
        for cut in [1, 2, 7, 9, 10, 33, 1000] {
            let mut frames = frames(5);
            assert!(resets(5).chunks(cut).all(|piece| frames.feed(piece, || now)), "cut {cut}");
            assert!(!frame_of(RST_STREAM, 0, 4).chunks(cut).all(|piece| frames.feed(piece, || now)), "cut {cut}");
        }
    }

    #[test]
    fn a_new_window_forgives() {
        let now = Instant::now();
        let mut frames = frames(2);
        assert!(frames.feed(&resets(2), || now));
        assert!(frames.feed(&frame_of(RST_STREAM, 0, 4), || now + 10 * SECOND));
    }

    #[test]
    fn frames_that_carry_nothing_have_a_budget() {
        let now = Instant::now();
        for (kind, flags, payload) in
            [(PING, 0, 8), (4, 0, 0), (2, 0, 5), (WINDOW_UPDATE, 0, 4), (DATA, 0, 0), (DATA, PADDED, 200), (0xaa, 0, 3)]
        {
            let mut frames = frames(5);
            assert!(frames.feed(&preface(), || now));
            let one = frame_of(kind, flags, payload);
            assert!(frames.feed(&one.repeat(IDLE_FRAMES as usize - 1), || now), "{kind}");
            assert!(!frames.feed(&one, || now), "{kind}");
        }
        let mut frames = frames(5);
        assert!(frames.feed(&preface(), || now));
        let carrying = [frame_of(HEADERS, END_HEADERS | END_STREAM, 0), frame_of(DATA, 0, 1), frame_of(DATA, END_STREAM, 0)].concat();
        assert!(frames.feed(&carrying.repeat(5000), || now), "these are the engine's to bound");
    }

    #[test]
    fn who_downloads_may_grant_windows() {
        let now = Instant::now();
        let mut frames = frames(5);
        assert!(frames.feed(&preface(), || now));
        for _ in 0..10_000 {
            frames.sent(&frame_of(DATA, 0, 10));
            assert!(frames.feed(&frame_of(WINDOW_UPDATE, 0, 4).repeat(2), || now));
        }
    }

    #[test]
    fn a_head_is_on_its_way_until_its_last_byte() {
        let now = Instant::now();
        let mut frames = frames(5);
        assert!(frames.begun().is_some(), "the preface is owed");
        assert!(frames.feed(&preface(), || now) && frames.begun().is_none());
        assert!(frames.feed(&frame_of(HEADERS, END_HEADERS, 30), || now) && frames.begun().is_none());
        let head = frame_of(HEADERS, 0, 30);
        assert!(frames.feed(&head, || now) && frames.begun() == Some(now));
        assert!(frames.feed(&frame_of(CONTINUATION, 0, 30), || now + SECOND) && frames.begun() == Some(now), "in total");
        let last = frame_of(CONTINUATION, END_HEADERS, 30);
        assert!(frames.feed(&last[..20], || now + SECOND) && frames.begun() == Some(now));
        assert!(frames.feed(&last[20..], || now + SECOND) && frames.begun().is_none());
    }

    #[test]
    fn the_last_word_stands_between_two_frames() {
        let now = Instant::now();
        let mut frames = frames(5);
        assert!(frames.feed(&[preface(), frame_of(HEADERS, END_HEADERS, 3)].concat(), || now));
        assert_eq!(frames.farewell().expect("nothing was sent yet")[9..], [0, 0, 0, 1, 0, 0, 0, 11]);
        let answer = frame_of(DATA, 0, 100);
        frames.sent(&answer[..50]);
        assert_eq!(frames.farewell(), None);
        frames.sent(&answer[50..]);
        assert!(frames.farewell().is_some());
    }

    proptest! {
        #[test]
        fn cuts_change_no_verdict(kinds in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..60), cut in 1usize..50) {
            let now = Instant::now();
            let all = [preface(), kinds.iter().flat_map(|(kind, flags, payload)| frame_of(*kind, *flags, *payload)).collect()].concat();
            let (mut whole, mut pieces) = (frames(3), frames(3));
            let verdict = whole.feed(&all, || now);
            prop_assert_eq!(all.chunks(cut).all(|piece| pieces.feed(piece, || now)), verdict);
            prop_assert_eq!(whole.begun().is_some(), pieces.begun().is_some());
        }
    }
}
