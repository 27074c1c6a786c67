//! Frames: how a message becomes bytes on the link, and back.
//!
//! Pure. A frame is the length of its body (u32, little endian), the number of descriptors that travel beside it (u8), and the body (postcard).
//! Shape: bounded by [`MAX_FRAME`]; no input makes the decoder panic or hold more than one frame and one read.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The longest body: a plan with all its certificates stays far below.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Below the kernel's SCM_MAX_FD (253).
pub const MAX_DESCRIPTORS: u8 = 250;

const HEADER: usize = 5;
/// A buffer that one large frame blew up is given back beyond this.
const KEEP: usize = 256 * 1024;

/// Why a message could not be framed or read.
#[derive(Debug, Error)]
pub enum CodecError {
    #[error("fit a message of {0} bytes into a frame")]
    Long(usize),
    #[error("send {0} descriptors with one message")]
    Descriptors(u8),
    #[error("write a message")]
    Write(#[source] postcard::Error),
    #[error("read a message of {bytes} bytes")]
    Read {
        bytes: usize,
        #[source]
        source: postcard::Error,
    },
    #[error("read a message: {0} bytes are left over")]
    Rest(usize),
}

/// One message as it travels.
///
/// Errors: a body over [`MAX_FRAME`], more than [`MAX_DESCRIPTORS`], or a value that has no wire form (a path that is not UTF-8).
pub fn encode<T: Serialize>(message: &T, descriptors: u8) -> Result<Vec<u8>, CodecError> {
    if descriptors > MAX_DESCRIPTORS {
        return Err(CodecError::Descriptors(descriptors));
    }
    let mut frame = postcard::to_extend(message, vec![0; HEADER]).map_err(CodecError::Write)?;
    let body = frame.len() - HEADER;
    let length = u32::try_from(body).ok().filter(|_| body <= MAX_FRAME).ok_or(CodecError::Long(body))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4] = descriptors;
    Ok(frame)
}

/// Bytes in, messages out.
///
/// Shape: after an error the stream is out of step: the link must be given up.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && (self.start == self.buffer.len() || self.start > KEEP) {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.capacity() > KEEP && self.buffer.len() < KEEP / 2 {
                self.buffer.shrink_to(KEEP / 2);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message and the number of descriptors that came with it; `None`: more bytes are needed.
    pub fn pop<T: DeserializeOwned>(&mut self) -> Result<Option<(T, u8)>, CodecError> {
        let pending = &self.buffer[self.start..];
        let Some((header, rest)) = pending.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, descriptors] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            return Err(CodecError::Long(length));
        }
        if descriptors > MAX_DESCRIPTORS {
            return Err(CodecError::Descriptors(descriptors));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (message, left) = postcard::take_from_bytes(body).map_err(|source| CodecError::Read { bytes: length, source })?;
        if !left.is_empty() {
            return Err(CodecError::Rest(left.len()));
        }
        self.start += HEADER + length;
        Ok(Some((message, descriptors)))
    }

    /// Whether part of a frame is waiting for its rest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipc::message::{Build, Generation, ToEdge, ToMaster};

    fn message() -> impl Strategy<Value = ToMaster> {
        prop_oneof![
            ".*".prop_map(|text| ToMaster::Hello { build: Build(text) }),
            any::<u64>().prop_map(|g| ToMaster::Ready { generation: Generation(g) }),
            (any::<u64>(), ".{0,200}").prop_map(|(ask, json)| ToMaster::Answer { ask, json }),
            (any::<u64>(), any::<u64>()).prop_map(|(connections, in_flight)| ToMaster::Alive { connections, in_flight }),
        ]
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_gives_it_back_however_it_was_cut(
            messages in prop::collection::vec((message(), 0u8..=MAX_DESCRIPTORS), 0..8),
            cut in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for (message, descriptors) in &messages {
                wire.extend(encode(message, *descriptors).expect("small"));
            }
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(next) = decoder.pop::<ToMaster>().expect("good frames") {
                    seen.push(next);
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut decoder = Decoder::new();
            for piece in pieces {
                decoder.push(&piece);
                for _ in 0..100 {
                    match decoder.pop::<ToEdge>() {
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }

        #[test]
        fn no_body_makes_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let mut frame = u32::try_from(body.len()).expect("short").to_le_bytes().to_vec();
            frame.push(0);
            frame.extend(body);
            let mut decoder = Decoder::new();
            decoder.push(&frame);
            let _ = decoder.pop::<ToEdge>();
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        let mut decoder = Decoder::new();
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 0]);
        assert!(matches!(decoder.pop::<ToMaster>(), Err(CodecError::Long(_))));
        let mut decoder = Decoder::new();
        decoder.push(&[1, 0, 0, 0, 251]);
        assert!(matches!(decoder.pop::<ToMaster>(), Err(CodecError::Descriptors(251))));
    }

    #[test]
    fn bytes_after_a_message_are_an_error_not_a_guess() {
        let mut frame = encode(&ToMaster::Ready { generation: Generation(1) }, 0).expect("small");
        frame.push(7);
        frame[0] += 1;
        let mut decoder = Decoder::new();
        decoder.push(&frame);
        assert!(matches!(decoder.pop::<ToMaster>(), Err(CodecError::Rest(1))));
    }

    #[test]
    fn a_large_frame_does_not_keep_its_memory() {
        let big = ToMaster::Answer { ask: 1, json: "x".repeat(4 << 20) };
        let mut decoder = Decoder::new();
        decoder.push(&encode(&big, 0).expect("below the limit"));
        assert!(decoder.pop::<ToMaster>().expect("good").is_some());
        decoder.push(&[]);
        assert!(decoder.buffer.capacity() <= KEEP);
    }
}
