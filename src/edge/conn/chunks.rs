//! Follows a chunked body to its end, and finds what two readers might read in two ways.
//!
//! Pure. The engine decodes the body; it forgives more than is safe: a size of no digits, a LF in an extension. Here every byte outside of the data has one meaning or is refused.
//!
//! Shape: Size → (Extension →) Data → Size … ; a size of 0 leads to the trailers and their empty line, and there the body ends.
//! Units: sizes have 16 digits at most, leading zeros included; extensions and trailers of one body share a budget of [`ROOM`] bytes.
//! Source: RFC 9112 §7.1 (chunked coding), §11.2 (smuggling); "TERM.EXT" and its kin (chunk extensions with a bare LF).

/// Of extensions and trailers, over a whole body.
const ROOM: u16 = 8 * 1024;
/// As many as a u64 has.
const DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Size,
    /// Blanks before an extension or the end of the line.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What is behind the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    /// The next request.
    Next,
    /// A tunnel, if the upstream makes it one.
    Open,
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunks {
    after: After,
    state: State,
    size: u64,
    digits: u8,
    room: u16,
    /// Of data, so far.
    data: u64,
}

/// What a piece of the body amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece {
    /// All of it is the body's, and more is to come.
    Within,
    /// The body ends after so many bytes of it.
    End(usize),
    Bad,
}

impl Chunks {
    #[must_use]
    pub fn new(after: After) -> Self {
        Self { after, state: State::Size, size: 0, digits: 0, room: ROOM, data: 0 }
    }

    #[must_use]
    pub fn after(self) -> After {
        self.after
    }

    /// Bytes of data that have passed.
    #[must_use]
    pub fn data(self) -> u64 {
        self.data
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Piece {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.state == State::Data {
                let pass = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= pass as u64;
                self.data += pass as u64;
                at += pass;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            match self.step(byte) {
                Some(state) => self.state = state,
                None if self.state == State::EndLf && byte == b'\n' => return Piece::End(at),
                None => return Piece::Bad,
            }
        }
        Piece::Within
    }

    /// `None`: it has no place here, or the body is over.
    fn step(&mut self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() && self.digits < DIGITS => {
                self.digits += 1;
                self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16)?);
                Some(State::Size)
            }
            (State::Size | State::Blank, b' ' | b'\t') if self.digits > 0 => self.spend(State::Blank),
            (State::Size | State::Blank, b';') if self.digits > 0 => self.spend(State::Extension),
            (State::Size | State::Blank, b'\r') if self.digits > 0 => Some(State::SizeLf),
            (State::Extension, b'\r') => Some(State::SizeLf),
            (State::Extension, _) if is_text(byte) => self.spend(State::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                Some(if self.size == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataCr, b'\r') => Some(State::DataLf),
            (State::DataLf, b'\n') => Some(State::Size),
            (State::TrailerStart, b'\r') => Some(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if is_name(byte) => self.spend(State::TrailerName),
            (State::TrailerName, b':') => self.spend(State::TrailerValue),
            (State::TrailerValue, b'\r') => Some(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => self.spend(State::TrailerValue),
            (State::TrailerLf, b'\n') => Some(State::TrailerStart),
            (
                State::Size
                | State::Blank
                | State::Extension
                | State::SizeLf
                | State::Data
                | State::DataCr
                | State::DataLf
                | State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::EndLf,
                _,
            ) => None,
        }
    }

    fn spend(&mut self, then: State) -> Option<State> {
        self.room = self.room.checked_sub(1)?;
        Some(then)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// Source: RFC 9110 §5.6.2 (token).
pub fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(text: impl AsRef<[u8]>) -> Piece {
        Chunks::new(After::Next).feed(text.as_ref())
    }

    #[test]
    fn a_body_ends_where_it_ends() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5\r\n\r\n0\r\n\r\n000\r\n\r\n",
            "A;a=\"b\"\r\n0123456789\r\n0;c \r\n\r\n",
            "5 \r\nhello\r\n0\t;x\r\n\r\n",
            "1\r\nx\r\n0\r\nX-Sum: \u{e9}\tb\r\nY:\r\n\r\n",
        ] {
            assert_eq!(feed(format!("{body}GET /next")), Piece::End(body.len()), "{body:?}");
            assert_eq!(feed(&body[..body.len() - 1]), Piece::Within, "{body:?}");
        }
    }

    #[test]
    fn what_could_be_read_otherwise_is_bad() {
        for bad in [
            "\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "g\r\n",
            ";a\r\n",
            "5\n",
            "5\rh",
            "5\r\r\n",
            "5,5\r\n",
            "5\x0b\r\n",
            "5\0\r\n",
            "5 5\r\n",
            "5;a\nb",
            "5;a\rb",
            "5;\0",
            "10000000000000005",
            "00000000000000005",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "0\r\n\n",
            "0\r\nX",
            "0\r\n X: y",
            "0\r\n: y",
            "0\r\nX : y",
            "0\r\nX: y\n",
            "0\r\nX: y\0",
            "0\r\nX: y\rz",
            "0\r\n\rX",
        ] {
            let verdict = feed(bad);
            assert!(verdict == Piece::Bad || (bad == "0\r\nX" && verdict == Piece::Within), "{bad:?}: {verdict:?}");
        }
        assert_eq!(feed("ffffffffffffffff\r\nx"), Piece::Within, "large, and clear");
    }

    #[test]
    fn extensions_and_trailers_have_their_room_together() {
        let half = "a".repeat(usize::from(ROOM) / 2);
        assert!(matches!(feed(format!("1;{half}\r\nx\r\n0\r\n\r\n")), Piece::End(_)));
        assert_eq!(feed(format!("1;{half}\r\nx\r\n1;{half}\r\nx\r\n0\r\n\r\n")), Piece::Bad);
        assert_eq!(feed(format!("1;{half}\r\nx\r\n0\r\nX: {half}\r\n\r\n")), Piece::Bad);
        assert_eq!(feed(format!("0\r\n{}", "X: y\r\n".repeat(usize::from(ROOM) / 4 + 1))), Piece::Bad);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_where_it_ends(
            text in "([0-9a-fA-F]{0,3}(;[ -~]{0,5})?\r?\n[ -~]{0,20}\r?\n){0,4}(0\r\n(X: [ -~]{0,5}\r\n){0,2}\r\n)?[ -~\r\n]{0,9}",
            cut in 0usize..120,
        ) {
            let bytes = text.as_bytes();
            let whole = Chunks::new(After::Next).feed(bytes);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut chunks = Chunks::new(After::Next);
            let pieces = match chunks.feed(first) {
                Piece::Within => match chunks.feed(second) {
                    Piece::End(n) => Piece::End(first.len() + n),
                    other => other,
                },
                other => other,
            };
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn what_was_coded_ends_at_its_end(pieces in prop::collection::vec("[ -~\r\n]{1,40}", 0..6), after in "[ -~\r\n]{0,20}") {
            let coded: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect::<String>() + "0\r\n\r\n";
            prop_assert_eq!(feed(format!("{coded}{after}")), Piece::End(coded.len()));
        }
    }
}
