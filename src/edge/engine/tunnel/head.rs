//! What the upstream of an upgrade has said so far: heads are told apart by their status, up to the one that counts.

/// Interim answers may stand before the one that counts (RFC 9110 §15.2); of those 101 alone ends the wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Its head is awaited, or under way.
    Awaited(Head),
    /// An upgrade: may be silent from here on.
    Tunnel,
    /// An ordinary answer, which has deadlines as any other.
    Plain,
}

/// A head that is under way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// Bytes of its first line, as far as they matter.
    seen: u8,
    status: u16,
    /// Nothing but a carriage return has come since the last line's end.
    blank: bool,
}

/// Where the status begins and ends in `HTTP/1.1 101`.
const STATUS: std::ops::Range<u8> = 9..12;

impl Default for Answer {
    fn default() -> Self {
        Self::Awaited(Head::default())
    }
}

impl Answer {
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Self {
        let mut answer = self;
        for byte in bytes {
            let Self::Awaited(head) = answer else { break };
            answer = head.read(*byte);
        }
        answer
    }
}

impl Head {
    fn read(mut self, byte: u8) -> Answer {
        if self.seen == 0 && matches!(byte, b'\r' | b'\n') {
            // Empty lines before it count for nothing (RFC 9112 §2.2).
            return Answer::Awaited(self);
        }
        if STATUS.contains(&self.seen) && byte.is_ascii_digit() {
            self.status = self.status * 10 + u16::from(byte - b'0');
        }
        self.seen = self.seen.saturating_add(1);
        match (byte, self.blank) {
            (b'\n', true) => match self.status {
                101 => Answer::Tunnel,
                100..200 => Answer::default(),
                _ => Answer::Plain,
            },
            (b'\n', false) => Answer::Awaited(Self { blank: true, ..self }),
            (b'\r', blank) => Answer::Awaited(Self { blank, ..self }),
            (_, _) => Answer::Awaited(Self { blank: false, ..self }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Answer {
        Answer::default().read(text.as_bytes())
    }

    #[test]
    fn a_tunnel_begins_after_the_head_of_a_101_and_nowhere_before() {
        assert_eq!(read("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), Answer::Tunnel);
        assert_eq!(read("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 101 x\r\n\r\nbytes"), Answer::Tunnel);
        for awaited in
            ["", "HTTP/1.1 1", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n"]
        {
            assert!(matches!(read(awaited), Answer::Awaited(_)), "{awaited:?}");
        }
        for plain in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 404\n\n", "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 426 y\r\n\r\n", "SSH-2.0\r\n\r\n"] {
            assert_eq!(read(plain), Answer::Plain, "{plain:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_head_comes(cuts in proptest::collection::vec(0..90_usize, 0..6)) {
            let text = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x81\x00";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut answer = Answer::default();
            let mut from = 0;
            for cut in cuts {
                answer = answer.read(&text[from..cut]);
                prop_assert_eq!(answer, Answer::default().read(&text[..cut]));
                from = cut;
            }
            prop_assert_eq!(answer.read(&text[from..]), Answer::Tunnel);
        }

        #[test]
        fn nothing_that_an_upstream_says_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Answer::default().read(&bytes);
        }
    }
}
