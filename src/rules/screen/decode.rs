//! The normal form in which targets are matched: every layer of encoding taken off, lower case, one kind of white space.
//!
//! Shape: one pass with a stack: a byte is pushed, and as long as the end of the stack is an escape it is replaced by what it means. So `%2525252e`, `%%32e` and
//!        `%c0%ae` all end as `.`, however deep they were nested, in time linear in the input; and nothing that is left could be decoded again.
//! Source: RFC 3986 §2.1; `%uXXXX` as IIS reads it; overlong UTF-8 (RFC 3629 §10); full-width forms as best-fit mappings read them; numeric and a few named
//!         character references (HTML §13.5); `\xHH` and `\uHHHH` of JavaScript.

/// The normal form of a part of a target. Normalising it again changes nothing.
///
/// Shape: `+` and every control byte but NUL and line ends read as a space, CR as LF. NUL stays, so that it can be refused.
#[must_use]
pub fn normalise(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    normalise_into(text, &mut out);
    out
}

/// Appends the normal form to `out`, whose last byte must not be part of an escape.
pub(super) fn normalise_into(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        out.push(FOLD[usize::from(byte)]);
        while let Some((length, meant)) = escape(out) {
            out.truncate(out.len() - length);
            match u8::try_from(meant) {
                // What was encoded divides no parameters.
                Ok(b'&') => out.push(AMPERSAND),
                Ok(byte) => out.push(FOLD[usize::from(byte)]),
                Err(_) => {
                    let mut utf8 = [0; 4];
                    out.extend_from_slice(char::from_u32(meant).unwrap_or('?').encode_utf8(&mut utf8).as_bytes());
                    break;
                }
            }
        }
    }
}

/// An ampersand that was encoded: one of a value, while `&` stands between two. `¤` in patterns.
pub(super) const AMPERSAND: u8 = 2;

/// The normal form with every gap as one byte: a run of white space and SQL comments becomes a space, or a line end if it holds one. What MySQL runs of a comment
/// (`/*!50000 … */`) stays, without its marks.
pub(super) fn squash(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut closed = true;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'/', b'*', b'!', tail @ ..] => {
                let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
                gap(b' ', &mut out);
                rest = &tail[digits..];
            }
            // Without an end it is none, and one look at the rest is enough to know that of all that follow.
            [b'/', b'*', tail @ ..] if closed => match tail.windows(2).position(|two| two == b"*/") {
                Some(end) => {
                    gap(b' ', &mut out);
                    rest = &tail[end + 2..];
                }
                None => closed = false,
            },
            [b'*', b'/', tail @ ..] => {
                gap(b' ', &mut out);
                rest = tail;
            }
            [white @ (b' ' | b'\n'), tail @ ..] => {
                gap(*white, &mut out);
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// What a shell makes of it: quotes, backslashes, carets and empty expansions within words are gone. `None`: there are none.
pub(super) fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    if !text.iter().any(|byte| matches!(byte, b'\'' | b'"' | b'\\' | b'^' | b'$')) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'$', b'@' | b'*' | b'\'' | b'"', tail @ ..] | [b'$', b'(', b')', tail @ ..] => rest = tail,
            [b'\'' | b'"' | b'\\' | b'^', tail @ ..] => rest = tail,
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    (out.len() < text.len()).then_some(out)
}

/// What SQL makes of it: from `#` or `--` to the end of the line is a gap. `None`: no such line is followed by another.
pub(super) fn uncomment(text: &[u8]) -> Option<Vec<u8>> {
    let last = text.iter().rposition(|byte| *byte == b'\n')?;
    let begins = |at: usize| text[at] == b'#' || text[at..].starts_with(b"--");
    (0..last).find(|at| begins(*at))?;
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if at < last && begins(at) {
            at += text[at..].iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            gap(b' ', &mut out);
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    Some(out)
}

/// The text without the fences of Markdown: three or more back-ticks that begin a line, with the name of a language or nothing behind them. `None`: it has none.
pub(super) fn unfence(text: &[u8]) -> Option<Vec<u8>> {
    let fence = |at: usize| {
        let begins = at == 0 || matches!(text[at - 1], b'\n' | b'=');
        let ticks = text[at..].iter().take_while(|byte| **byte == b'`').count();
        if !begins || ticks < 3 {
            return None;
        }
        let name = text[at + ticks..]
            .iter()
            .take(30)
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'#' | b' '))
            .count();
        let end = at + ticks + name;
        matches!(text.get(end), None | Some(b'\n' | b'&')).then_some(end)
    };
    let first = text.windows(3).position(|three| three == b"```")?;
    let mut out = text[..first].to_vec();
    let mut at = first;
    while at < text.len() {
        if let Some(end) = fence(at) {
            at = end;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    (out.len() < text.len()).then_some(out)
}

fn gap(white: u8, out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last @ (b' ' | b'\n')) => *last = (*last).min(white),
        Some(_) | None => out.push(white),
    }
}

const FOLD: [u8; 256] = {
    let mut fold = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        fold[byte] = match byte as u8 {
            b'\r' | b'\n' => b'\n',
            AMPERSAND => AMPERSAND,
            b'+' | 1..=0x1f | 0x7f => b' ',
            other => other.to_ascii_lowercase(),
        };
        byte += 1;
    }
    fold
};

/// The escape that ends `text`: its length and the byte (below 256) or character that it means.
fn escape(text: &[u8]) -> Option<(usize, u32)> {
    let last = *text.last()?;
    match last {
        b'0'..=b'9' | b'a'..=b'f' => hexadecimal(text),
        0x80..=0xbf => sequence(text),
        b';' => reference(text),
        _ => None,
    }
}

fn hexadecimal(text: &[u8]) -> Option<(usize, u32)> {
    if let [.., b'%', high, low] = text {
        return Some((3, hex(*high)? << 4 | hex(*low)?));
    }
    if let [.., b'\\', b'x', high, low] = text {
        return ascii(hex(*high)? << 4 | hex(*low)?).map(|meant| (4, meant));
    }
    let [.., mark @ (b'%' | b'\\'), b'u', a, b, c, d] = text else { return None };
    let meant = hex(*a)? << 12 | hex(*b)? << 8 | hex(*c)? << 4 | hex(*d)?;
    match ascii(meant) {
        Some(meant) => Some((6, meant)),
        // Beyond ASCII: `%u` becomes the character, which has no byte of its own below 256; Latin-1 stays as written.
        None => (*mark == b'%' && meant > 0xff).then_some((6, meant)),
    }
}

/// Overlong or full-width UTF-8 for an ASCII character.
fn sequence(text: &[u8]) -> Option<(usize, u32)> {
    let low = |byte: u8| u32::from(byte & 0x3f);
    match *text {
        // A blank to MySQL, and no part of a character.
        [0xa0] | [.., ..0x80, 0xa0] => Some((1, b' '.into())),
        [.., 0xc2, 0xa0] => Some((2, b' '.into())),
        // U+017F and U+0131, the long s and the dotless i: folding case makes ASCII of them.
        [.., 0xc5, 0xbf] => Some((2, b's'.into())),
        [.., 0xc4, 0xb1] => Some((2, b'i'.into())),
        [.., 0xe2, 0x84, 0xaa] => Some((3, b'k'.into())),
        [.., lead @ (0xc0 | 0xc1), last] => Some((2, u32::from(lead & 1) << 6 | low(last))),
        [.., 0xe0, middle @ (0x80 | 0x81), last] => Some((3, u32::from(middle & 1) << 6 | low(last))),
        [.., 0xf0, 0x80, middle @ (0x80 | 0x81), last] => Some((4, u32::from(middle & 1) << 6 | low(last))),
        [.., 0xef, middle @ (0xbc | 0xbd), last] => ascii(0xf000 | u32::from(middle & 0x3f) << 6 | low(last)).map(|meant| (3, meant)),
        _ => None,
    }
}

/// `&lt;`, `&#60;`, `&#x3c;`, with any zeroes before up to 24.
fn reference(text: &[u8]) -> Option<(usize, u32)> {
    let body = &text[..text.len() - 1];
    let name_length = body.iter().rev().take(30).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'#').count();
    let start = (body.len() - name_length).checked_sub(1).filter(|at| matches!(body[*at], b'&' | AMPERSAND))?;
    let meant = match &body[start + 1..] {
        [b'#', b'x', digits @ ..] => number(digits, 16)?,
        [b'#', digits @ ..] => number(digits, 10)?,
        b"lt" => b'<'.into(),
        b"gt" => b'>'.into(),
        b"quot" => b'"'.into(),
        b"apos" => b'\''.into(),
        b"amp" => b'&'.into(),
        b"lpar" => b'('.into(),
        b"rpar" => b')'.into(),
        b"colon" => b':'.into(),
        b"semi" => b';'.into(),
        b"sol" => b'/'.into(),
        b"bsol" => b'\\'.into(),
        b"grave" => b'`'.into(),
        b"equals" => b'='.into(),
        b"tab" | b"newline" | b"nbsp" => b' '.into(),
        _ => return None,
    };
    ascii(meant).map(|meant| (text.len() - start, meant))
}

fn number(digits: &[u8], base: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |n, digit| n.checked_mul(base)?.checked_add(hex(*digit).filter(|d| *d < base)?))
}

/// ASCII but NUL, straight or as a full-width form.
fn ascii(meant: u32) -> Option<u32> {
    match meant {
        1..=0x7f => Some(meant),
        0xff01..=0xff5e => Some(meant - 0xff01 + 0x21),
        // Slashes of mathematics, as best-fit mappings read them.
        0x2044 | 0x2215 => Some(b'/'.into()),
        0x2216 => Some(b'\\'.into()),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(of: &str) -> String {
        String::from_utf8(normalise(of.as_bytes())).expect("ASCII in these examples")
    }

    #[test]
    fn every_layer_comes_off() {
        for dot in [
            "%2e",
            "%2E",
            "%252e",
            "%25252e",
            "%%32%65",
            "%%32e",
            "%u002e",
            "%25u002e",
            "%c0%ae",
            "%e0%80%ae",
            "%f0%80%80%ae",
            "%uff0e",
            "%ef%bc%8e",
            "%26%2346;",
            "&#x2e;",
            "&#x000000002E;",
            "&amp;#46;",
            "\\x2e",
            "\\u002e",
            "%5cu002e",
        ] {
            assert_eq!(text(dot), ".", "{dot}");
        }
        assert_eq!(text("A+b%20C%09d%0D%0aE"), "a b c d\n\ne");
        assert_eq!(text("a=b%26c&d=%2526"), "a=b\u{2}c&d=\u{2}");
        assert_eq!(normalise(b"a%a0b%c2%a0c%c3%a0"), b"a b c\xc3\xa0");
    }

    #[test]
    fn what_is_no_escape_stays() {
        for same in ["100%", "50%-off", "%zz", "%u12", "&lt", "&foo;", "a;b", "&#;", "&#x;", "\\x0", "c:\\users"] {
            assert_eq!(text(same), same);
        }
        assert_eq!(normalise("é".as_bytes()), "é".as_bytes());
        assert_eq!(normalise(b"%c3%a9"), "é".as_bytes());
        assert_eq!(normalise(b"a%00b"), b"a\0b");
        assert_eq!(normalise(b"%u20ac"), "€".as_bytes());
    }

    #[test]
    fn a_gap_is_one_byte() {
        for (text, squashed) in [
            ("a  b", "a b"),
            ("a/**/b/* x */ c", "a b c"),
            ("a/*!50000b*/c", "a b c"),
            ("a/*b", "a/*b"),
            ("/*/*/*", " *"),
            ("a \n b", "a\nb"),
            ("*/a", " a"),
            ("src/**/*.js", "src *.js"),
        ] {
            assert_eq!(String::from_utf8(squash(text.as_bytes())).as_deref(), Ok(squashed), "{text}");
        }
    }

    #[test]
    fn fences_that_begin_a_line_are_no_commands() {
        for (text, without) in [("=a\n```bash\nls\n```\nb", "=a\n\nls\n\nb"), ("=```\nx\n```", "=\nx\n"), ("=````c++", "=````c++")] {
            let out = unfence(text.as_bytes()).unwrap_or_else(|| text.into());
            assert_eq!(String::from_utf8_lossy(&out), without, "{text}");
        }
        assert_eq!(unfence(b"=a```id```"), None);
        assert_eq!(unfence(b"=``id``"), None);
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn normalising_twice_is_normalising_once_for_text_full_of_escapes(
            parts in prop::collection::vec(prop::sample::select(vec![
                "%", "2", "5", "u", "0", "3", "c", "e", "f", "\\", "x", "&", "#", ";", "lt", "amp", "%25", "%c0", "%ae", "%ef", "%bc", "%u00", "%uff", "%e0", "%80", "\u{ff05}", "&#x26;", "&amp;", "%26", "%3b",
            ]), 0..40),
        ) {
            let once = normalise(parts.concat().as_bytes());
            prop_assert_eq!(normalise(&once), once);
        }
    }
}
