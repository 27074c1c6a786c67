//! Endings: HTTP/2 streams whose answer ended while their request was still on its way, and what may no longer be said of them.
//!
//! A client that hears a refusal stops sending and ends its stream before all that it had declared (curl 7.88). For the engine that is an error of protocol and worth a reset,
//! for which the client would throw away the answer that it has. Nobody needs that reset: both sides have ended the stream. The same client notices its own end only when
//! it hears something more: a grant of one byte, which the stream has no use for, is sent as many a server sends one after the last piece of a body.
//!
//! Pure. Shape: Sending ─our end→ Answered ─its end→ Over → gone with the reset, or when others need the room. Only requests that have a body are here.
//! Units: at most [`MOST`] streams; those beyond get their resets.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

/// As many as a connection has streams by default, and some.
const MOST: usize = 128;

/// A reset, head and code; a grant is as long.
pub const RESET: usize = 13;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Sending,
    Answered,
    Over,
}

#[derive(Debug, Default)]
pub struct Endings {
    streams: Vec<([u8; 4], Stage)>,
    /// Of those that are over.
    over: usize,
    /// The last that came to be so, until its client was nudged.
    nudge: Option<[u8; 4]>,
}

impl Endings {
    /// The head of a frame from the client.
    pub fn came(&mut self, kind: u8, flags: u8, stream: [u8; 4]) {
        let ends = flags & END_STREAM != 0;
        match kind {
            HEADERS if !ends && self.find(stream).is_none() => self.begin(stream),
            HEADERS | DATA if ends => match self.find(stream) {
                Some(at) if self.streams[at].1 == Stage::Answered => {
                    self.streams[at].1 = Stage::Over;
                    self.over += 1;
                    self.nudge = Some(stream);
                }
                Some(at) if self.streams[at].1 == Stage::Sending => drop(self.streams.swap_remove(at)),
                Some(_) | None => {}
            },
            RST_STREAM => self.forget(stream),
            _ => {}
        }
    }

    /// The head of a frame to the client.
    pub fn went(&mut self, kind: u8, flags: u8, stream: [u8; 4]) {
        if self.streams.is_empty() {
            return;
        }
        match kind {
            HEADERS | DATA if flags & END_STREAM != 0 => {
                if let Some(at) = self.find(stream)
                    && self.streams[at].1 == Stage::Sending
                {
                    self.streams[at].1 = Stage::Answered;
                }
            }
            RST_STREAM => self.forget(stream),
            _ => {}
        }
    }

    /// A frame that wakes a client whose stream is over: WINDOW_UPDATE by one byte.
    pub fn nudge(&mut self) -> Option<[u8; RESET]> {
        let [a, b, c, d] = self.nudge.take()?;
        Some([0, 0, 4, WINDOW_UPDATE, 0, a, b, c, d, 0, 0, 0, 1])
    }

    /// Whether a reset may be on its way that nobody needs.
    #[must_use]
    pub fn any(&self) -> bool {
        self.over > 0
    }

    /// Whether these bytes begin with such a reset.
    #[must_use]
    pub fn is_moot(&self, bytes: &[u8]) -> bool {
        let &[0, 0, 4, RST_STREAM, _, a, b, c, d, ref code @ ..] = bytes else { return false };
        code.starts_with(&PROTOCOL_ERROR) && self.find([a, b, c, d]).is_some_and(|at| self.streams[at].1 == Stage::Over)
    }

    /// Its reset was kept back, or it was reset.
    pub fn forget(&mut self, stream: [u8; 4]) {
        if let Some(at) = self.find(stream) {
            let (_, stage) = self.streams.swap_remove(at);
            self.over -= usize::from(stage == Stage::Over);
        }
    }

    fn begin(&mut self, stream: [u8; 4]) {
        if self.streams.len() >= MOST {
            self.streams.retain(|(_, stage)| *stage != Stage::Over);
            self.over = 0;
        }
        if self.streams.len() < MOST {
            self.streams.push((stream, Stage::Sending));
        }
    }

    fn find(&self, stream: [u8; 4]) -> Option<usize> {
        self.streams.iter().position(|(known, _)| *known == stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 4] = [0, 0, 0, 1];

    fn reset(stream: [u8; 4], code: u8) -> Vec<u8> {
        [&[0, 0, 4, RST_STREAM, 0][..], &stream, &[0, 0, 0, code]].concat()
    }

    /// Its end came before, or after, ours.
    fn ended(answer_first: bool) -> Endings {
        let mut endings = Endings::default();
        endings.came(HEADERS, 4, ONE);
        if answer_first {
            endings.went(HEADERS, 4, ONE);
            endings.went(DATA, END_STREAM, ONE);
        }
        endings.came(DATA, END_STREAM, ONE);
        endings
    }

    #[test]
    fn a_reset_of_what_both_have_ended_is_moot() {
        let mut endings = ended(true);
        assert_eq!(endings.nudge(), Some([0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 1, 0, 0, 0, 1]));
        assert_eq!(endings.nudge(), None, "once");
        assert!(endings.any() && endings.is_moot(&reset(ONE, 1)));
        assert!(!endings.is_moot(&reset(ONE, 0)) && !endings.is_moot(&reset([0, 0, 0, 3], 1)));
        assert!(!endings.is_moot(&reset(ONE, 1)[..12]), "not all of it is there");
    }

    #[test]
    fn before_its_answer_has_ended_a_request_that_is_cut_short_is_reset() {
        let mut endings = ended(false);
        assert_eq!(endings.nudge(), None);
        assert!(!endings.any() && !endings.is_moot(&reset(ONE, 1)));
        assert!(endings.streams.is_empty());
    }

    #[test]
    fn what_has_no_body_is_not_remembered_and_what_has_is_within_bounds() {
        let mut endings = Endings::default();
        endings.came(HEADERS, END_STREAM, ONE);
        assert!(endings.streams.is_empty());
        for n in 0..1000_u32 {
            let stream = (2 * n + 1).to_be_bytes();
            endings.came(HEADERS, 0, stream);
            endings.went(HEADERS, END_STREAM, stream);
            endings.came(DATA, END_STREAM, stream);
            assert!(endings.is_moot(&reset(stream, 1)));
        }
        assert!(endings.streams.len() <= MOST && endings.over == endings.streams.len());
        endings.forget(1999_u32.to_be_bytes());
        assert_eq!(endings.over, endings.streams.len());
    }

    #[test]
    fn a_stream_that_was_reset_is_forgotten() {
        let mut endings = ended(true);
        endings.went(RST_STREAM, 0, ONE);
        assert!(!endings.any() && endings.streams.is_empty());
    }
}
