//! How text gets on the wire: the percent-encodings of browsers, libraries and attackers, and the escapes of JSON.

use super::dice::Dice;

/// Who percent-encodes, and so what is left as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// Hand tools: only what would end the value, or break the request line.
    Raw,
    /// A browser that is given a URL.
    Browser,
    /// JavaScript's `encodeURIComponent`.
    Component,
    /// Python's `quote`, Go's `QueryEscape`, Java's `URLEncoder`.
    Strict,
}

impl Style {
    pub fn any(dice: &mut Dice) -> Self {
        [Self::Raw, Self::Browser, Self::Component, Self::Strict][dice.below(4)]
    }

    fn keeps(self, byte: u8) -> bool {
        match self {
            Self::Raw => byte.is_ascii_graphic() && !b"#&+%".contains(&byte),
            Self::Browser => byte.is_ascii_graphic() && !b"#&+%\"<>'".contains(&byte),
            Self::Component => byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte),
            Self::Strict => byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte),
        }
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
}

fn percent(text: &[u8], keeps: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for &byte in text {
        if keeps(byte) { out.push(byte) } else { escape(&mut out, byte) }
    }
    out
}

/// A value in a query or in a form.
pub fn value(text: &[u8], style: Style, dice: &mut Dice) -> Vec<u8> {
    let plus = style != Style::Component && dice.chance(50);
    let encoded = percent(text, |byte| style.keeps(byte));
    if plus { replace(&encoded, b"%20", b"+") } else { encoded }
}

/// A name in a query or in a form: brackets may stay.
pub fn name(text: &[u8], style: Style) -> Vec<u8> {
    percent(text, |byte| style.keeps(byte) && byte != b'=')
}

/// A part of a path. Hand tools and browsers leave slashes.
pub fn segment(text: &[u8], style: Style) -> Vec<u8> {
    percent(text, |byte| style.keeps(byte) && byte != b'?')
}

/// What can stand in a request line.
pub fn line(target: &[u8]) -> Vec<u8> {
    percent(target, |byte| byte.is_ascii_graphic())
}

/// A value in a `Cookie`.
pub fn cookie(text: &[u8], style: Style) -> Vec<u8> {
    percent(text, |byte| style.keeps(byte) && !b";,\"\\".contains(&byte))
}

/// Every byte.
pub fn full(text: &[u8], dice: &mut Dice) -> Vec<u8> {
    let encoded = percent(text, |_| false);
    if dice.chance(50) { encoded.to_ascii_lowercase() } else { encoded }
}

pub fn double(text: &[u8]) -> Vec<u8> {
    replace(&percent(text, |byte| Style::Strict.keeps(byte)), b"%", b"%25")
}

/// `%uXXXX`, as IIS and old JavaScript's `escape` have it.
pub fn unicode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for letter in String::from_utf8_lossy(text).chars() {
        match letter {
            letter if letter.is_ascii_alphanumeric() => out.push(letter as u8),
            letter => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.extend_from_slice(format!("%u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out
}

/// Separators and dots in two bytes where UTF-8 has one.
pub fn overlong(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in text {
        match byte {
            b'.' | b'/' | b'\\' | b'<' | b'>' | b'\'' => {
                escape(&mut out, 0xc0 | (byte >> 6));
                escape(&mut out, 0x80 | (byte & 0x3f));
            }
            byte if Style::Strict.keeps(byte) => out.push(byte),
            byte => escape(&mut out, byte),
        }
    }
    out
}

/// A string of JSON with its quotes; `all` escapes whatever is not a letter or a digit.
pub fn json(text: &[u8], all: bool) -> Vec<u8> {
    let mut out = String::from("\"");
    for letter in String::from_utf8_lossy(text).chars() {
        match letter {
            '"' if !all => out.push_str("\\\""),
            '\\' if !all => out.push_str("\\\\"),
            letter if letter.is_control() || (all && !letter.is_alphanumeric()) => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out.into_bytes()
}

pub const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";

/// One part of a multipart form. A file has a name and a type.
pub fn part(name: &str, file: Option<(&str, &str)>, content: &[u8]) -> Vec<u8> {
    let file = file.map_or(String::new(), |(name, kind)| {
        let name = name.replace('"', "%22").replace('\n', "%0A").replace('\r', "%0D");
        format!("; filename=\"{name}\"\r\ncontent-type: {kind}")
    });
    [format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(), content, b"\r\n"].concat()
}

/// What follows the last part.
pub fn last() -> Vec<u8> {
    format!("--{BOUNDARY}--\r\n").into_bytes()
}

pub fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}
