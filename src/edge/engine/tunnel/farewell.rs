//! Where one WebSocket frame ends and the next may begin, on the way from the app to the client: there, and only there, a Close of ours may stand.
//!
//! Shape: heads of interim answers and of the 101 → frame header (2 to 10 bytes, from a server without a mask) → payload → next header …
//!        What is no 101 has no boundaries. Bounded state, whatever is sent.
//! Source: RFC 6455 §5.2 (frames), §5.4 (control frames may stand between fragments), §7.4.1 (1001: going away).

/// 1001, to a client: unmasked.
pub const CLOSE: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];
/// Of a status line: `HTTP/1.1 101`.
const STATUS: std::ops::Range<usize> = 9..12;
const END: &[u8] = b"\r\n\r\n";

/// How far the bytes from the app have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Boundary {
    /// In a head: so many bytes of it, so many of [`END`] seen, and its status.
    Head {
        at: usize,
        end: usize,
        status: [u8; 3],
    },
    /// So many bytes of a frame's header.
    Header {
        at: usize,
        bytes: [u8; 10],
    },
    Payload {
        left: u64,
    },
    /// No WebSocket, or none that is understood.
    Foreign,
}

impl Default for Boundary {
    fn default() -> Self {
        Self::Head { at: 0, end: 0, status: [0; 3] }
    }
}

impl Boundary {
    const FRESH: Self = Self::Header { at: 0, bytes: [0; 10] };

    /// Whether a frame may begin here.
    #[must_use]
    pub fn is_between(self) -> bool {
        self == Self::FRESH
    }

    /// How many bytes may be read before the next boundary could be passed over.
    #[must_use]
    pub fn room(self) -> usize {
        match self {
            Self::Header { at, .. } => {
                if at < 2 {
                    2 - at
                } else {
                    1
                }
            }
            Self::Payload { left } => usize::try_from(left).unwrap_or(usize::MAX),
            Self::Head { .. } | Self::Foreign => usize::MAX,
        }
    }

    /// These bytes have passed.
    #[must_use]
    pub fn after(mut self, mut bytes: &[u8]) -> Self {
        while let Some((&byte, rest)) = bytes.split_first() {
            self = match self {
                Self::Foreign => return self,
                Self::Payload { left } => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[n..];
                    let left = left - n as u64;
                    self = if left == 0 { Self::FRESH } else { Self::Payload { left } };
                    continue;
                }
                Self::Head { at, end, mut status } => {
                    if let Some(digit) = at.checked_sub(STATUS.start).and_then(|i| status.get_mut(i)) {
                        *digit = byte;
                    }
                    let end = if byte == END[end] { end + 1 } else { usize::from(byte == END[0]) };
                    match (end == END.len(), &status) {
                        (false, _) => Self::Head { at: at.saturating_add(1), end, status },
                        (true, b"101") => Self::FRESH,
                        (true, [b'1', ..]) => Self::default(),
                        (true, _) => Self::Foreign,
                    }
                }
                Self::Header { at, mut bytes } => {
                    bytes[at] = byte;
                    let at = at + 1;
                    let wanted = if at < 2 { 2 } else { 2 + extended(bytes[1]) };
                    match at == wanted {
                        false => Self::Header { at, bytes },
                        // A server's frames have no mask.
                        true if bytes[1] & 0x80 != 0 => Self::Foreign,
                        true => match length(bytes) {
                            0 => Self::FRESH,
                            left => Self::Payload { left },
                        },
                    }
                }
            };
            bytes = rest;
        }
        self
    }
}

/// How many bytes of length follow the first two of a header.
fn extended(second: u8) -> usize {
    match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

fn length(header: [u8; 10]) -> u64 {
    let big = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    match header[1] & 0x7F {
        126 => big(&header[2..4]),
        127 => big(&header[2..10]),
        short => u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match payload {
            0..=125 => frame.push(u8::try_from(payload).expect("small")),
            126..=0xFFFF => {
                frame.push(126);
                frame.extend(u16::try_from(payload).expect("middling").to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn what_is_no_websocket_has_no_boundary() {
        let plain = Boundary::default().after(b"HTTP/1.1 200 OK\r\n\r\n\x81\x00");
        assert_eq!(plain, Boundary::Foreign);
        let masked = Boundary::default().after(HEAD).after(&[0x81, 0x80]);
        assert_eq!(masked, Boundary::Foreign);
        assert!(Boundary::default().after(b"HTTP/1.1 100 Continue\r\n\r\n").after(HEAD).is_between());
    }

    proptest! {
        #[test]
        fn boundaries_are_where_frames_end_however_the_bytes_are_cut(
            sizes in prop::collection::vec(prop_oneof![0usize..130, 65_530usize..65_540, 120usize..400], 0..6),
            cuts in prop::collection::vec(1usize..5000, 1..40),
        ) {
            let mut bytes = HEAD.to_vec();
            let mut ends = vec![bytes.len()];
            for size in sizes {
                bytes.extend(frame(size));
                ends.push(bytes.len());
            }
            let (mut at, mut boundary) = (0, Boundary::default());
            for cut in cuts.iter().cycle() {
                if at == bytes.len() {
                    break;
                }
                let n = (*cut).min(bytes.len() - at);
                boundary = boundary.after(&bytes[at..at + n]);
                at += n;
                prop_assert_eq!(boundary.is_between(), ends.contains(&at), "at {}", at);
            }
            // Read no further than there is room, and no boundary is passed over.
            let (mut at, mut boundary, mut seen) = (0, Boundary::default(), Vec::new());
            while at < bytes.len() {
                let n = boundary.room().min(if at < HEAD.len() { HEAD.len() - at } else { bytes.len() - at });
                boundary = boundary.after(&bytes[at..at + n]);
                at += n;
                if boundary.is_between() {
                    seen.push(at);
                }
            }
            prop_assert_eq!(seen, ends);
        }
    }
}
