//! The text of a PEM file, as people and programs leave it behind: glued together without a line's end, indented, with a byte order mark, in UTF-16.
//!
//! Pure.
//!
//! Source: RFC 7468, whose readers want each boundary at the beginning of a line.

use std::borrow::Cow;

const BOUNDARY: &[u8] = b"-----BEGIN ";
const MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// The same text, so that every boundary begins a line. What needs nothing is given back as it is.
#[must_use]
pub fn tidied(text: &[u8]) -> Cow<'_, [u8]> {
    let text = narrowed(text);
    if is_tidy(&text) {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let mut rest = line;
        // Cut before each boundary but the one that begins it: what stands before is the end of another one, or a mark.
        while let Some(at) = rest.get(1..).and_then(position) {
            let (before, from) = rest.split_at(at + 1);
            push_line(&mut out, before);
            rest = from;
        }
        push_line(&mut out, rest);
    }
    Cow::Owned(out)
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    let line = trimmed(line);
    if !line.is_empty() {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}

/// Without blanks and marks at both ends.
fn trimmed(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii();
    while let Some(rest) = line.strip_prefix(MARK).or_else(|| line.strip_suffix(MARK)) {
        line = rest.trim_ascii();
    }
    line
}

fn position(line: &[u8]) -> Option<usize> {
    line.windows(BOUNDARY.len()).position(|window| window == BOUNDARY)
}

fn is_tidy(text: &[u8]) -> bool {
    let at_start = |at: usize| at == 0 || text.get(at - 1) == Some(&b'\n');
    let boundaries = text.windows(BOUNDARY.len()).enumerate().filter(|(_, window)| *window == BOUNDARY);
    let lines = text.contains(&b'\n') || !text.contains(&b'\r');
    lines && boundaries.into_iter().all(|(at, _)| at_start(at))
}

/// UTF-16, as some editors and shells write it: only where a mark says so, and only what PEM is made of.
fn narrowed(text: &[u8]) -> Cow<'_, [u8]> {
    let unit = match text {
        [0xff, 0xfe, ..] => |pair: &[u8; 2]| u16::from_le_bytes(*pair),
        [0xfe, 0xff, ..] => |pair: &[u8; 2]| u16::from_be_bytes(*pair),
        _ => return Cow::Borrowed(text),
    };
    let (pairs, _) = text.as_chunks::<2>();
    Cow::Owned(pairs.iter().skip(1).map(|pair| u8::try_from(unit(pair)).unwrap_or(b'?')).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----";

    fn count(text: &[u8]) -> usize {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        CertificateDer::pem_slice_iter(&tidied(text)).filter(Result::is_ok).count()
    }

    #[test]
    fn certificates_glued_together_are_two() {
        assert_eq!(count(format!("{ONE}{ONE}").as_bytes()), 2);
        assert_eq!(count(format!("# mine\r\n{ONE}\r\n{ONE}{ONE}\n").as_bytes()), 3);
    }

    #[test]
    fn marks_and_indents_are_skipped() {
        assert_eq!(count(format!("\u{feff}{ONE}").as_bytes()), 1);
        assert_eq!(count(format!("\u{feff}{ONE}\n\u{feff}{ONE}\u{feff}{ONE}").as_bytes()), 3);
        assert_eq!(count(format!("   {}", ONE.replace('\n', "\n   ")).as_bytes()), 1);
        assert_eq!(count(ONE.replace('\n', "\r").as_bytes()), 1);
    }

    #[test]
    fn utf_16_with_a_mark_is_read() {
        let wide = |to: fn(u16) -> [u8; 2]| format!("\u{feff}{ONE}\n{ONE}").encode_utf16().flat_map(to).collect::<Vec<u8>>();
        assert_eq!((count(&wide(u16::to_le_bytes)), count(&wide(u16::to_be_bytes))), (2, 2));
    }

    #[test]
    fn what_is_tidy_is_not_copied() {
        assert!(matches!(tidied(format!("{ONE}\n{ONE}\n").as_bytes()), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_grows(text in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(tidied(&text).len() <= 2 * text.len() + 1);
        }
    }
}
