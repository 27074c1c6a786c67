//! Whose budget a request uses: one keyed hash of all parts of a zone's key. Hostile text is hashed, never kept, and nothing is allocated for it.
//!
//! Pure.
//!
//! Shape: a part that is missing, empty or not to be told (a name that occurs twice: apps differ in which one they take) is `None`; the caller puts the
//!        client's address in its place. So whoever sends what cannot be told is counted, by address.
//!        Values of cookies and queries are hashed decoded: another way to write a value is no other budget.
//! Source: RFC 6265 §4.2.1 (cookies, quotes), WHATWG URL §5.1 (forms: `+` is a space).

use std::{
    hash::{BuildHasher, Hash, Hasher},
    net::IpAddr,
};

use crate::vocab::Network;

/// 64 bits of a keyed hash: among 100,000 keys two share a cell with probability 3 × 10⁻¹⁰.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Print(pub(super) u64);

/// A key, part by part.
pub struct KeyHash(ahash::AHasher);

/// Decoded at a time.
const CHUNK: usize = 64;

/// Whether a plus is a space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plus {
    Space,
    Plain,
}

impl KeyHash {
    pub(super) fn new(state: &ahash::RandomState) -> Self {
        Self(state.build_hasher())
    }

    #[must_use]
    pub fn ip(mut self, ip: IpAddr) -> Self {
        (4u8, Network::of(ip)).hash(&mut self.0);
        self
    }

    #[must_use]
    pub fn text(mut self, text: &[u8]) -> Self {
        (0u8, text).hash(&mut self.0);
        self
    }

    /// A text as it stands in a cookie or a query: `a` and `%61` are one.
    #[must_use]
    pub fn decoded(mut self, text: &[u8], plus: Plus) -> Self {
        1u8.hash(&mut self.0);
        let (mut chunk, mut filled, mut whole) = ([0; CHUNK], 0, 0_u64);
        for byte in decode(text, plus) {
            chunk[filled] = byte;
            filled += 1;
            if filled == CHUNK {
                self.0.write(&chunk);
                (filled, whole) = (0, whole + 1);
            }
        }
        self.0.write(&chunk[..filled]);
        (whole, filled).hash(&mut self.0);
        self
    }

    #[must_use]
    pub fn finish(self) -> Print {
        Print(self.0.finish())
    }
}

/// The value of a cookie among several `Cookie` fields. `None`: there is none, it is empty, or there are several.
pub fn cookie<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    let crumbs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    let named = crumbs.filter_map(|crumb| {
        let at = crumb.iter().position(|byte| *byte == b'=')?;
        (crumb[..at].trim_ascii() == name.as_bytes()).then(|| crumb[at + 1..].trim_ascii())
    });
    let value = only(named)?;
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (!bare.is_empty()).then_some(bare)
}

/// The raw value of a parameter of the query. `None`: there is none, it is empty, or there are several.
#[must_use]
pub fn query<'a>(query: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let named = query.split(|byte| *byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (key, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        decode(key, Plus::Space).eq(name.bytes()).then_some(value)
    });
    only(named).filter(|value| !value.is_empty())
}

/// The only one of them.
pub fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

/// One layer of percent encoding off; what is no escape stays as it is.
fn decode(text: &[u8], plus: Plus) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        Some(match (first, after) {
            (b'%', [high, low, beyond @ ..]) => match (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) {
                (Some(high), Some(low)) => {
                    rest = beyond;
                    u8::try_from(high * 16 + low).unwrap_or(first)
                }
                (_, None) | (None, _) => first,
            },
            (b'+', _) if plus == Plus::Space => b' ',
            _ => first,
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crumb<'a>(fields: &[&'a str], name: &str) -> Option<&'a str> {
        cookie(fields.iter().map(|field| field.as_bytes()), name).map(|value| std::str::from_utf8(value).expect("text"))
    }

    fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        query(text.as_bytes(), name).map(|value| std::str::from_utf8(value).expect("text"))
    }

    #[test]
    fn a_cookie_is_found_wherever_it_stands() {
        assert_eq!(crumb(&["sid=abc"], "sid"), Some("abc"));
        assert_eq!(crumb(&["a=1; sid=\"abc\"; b=2"], "sid"), Some("abc"));
        assert_eq!(crumb(&["a=1", "b=2;sid=a=b"], "sid"), Some("a=b"));
        assert_eq!(crumb(&["xsid=1; sidx=2; =3; sid"], "sid"), None);
        for nothing in [&["sid="][..], &["sid=\"\""], &[], &[""], &[";;;"]] {
            assert_eq!(crumb(nothing, "sid"), None, "{nothing:?}");
        }
        assert_eq!(crumb(&["sid=1; sid=2"], "sid"), None, "apps differ in which one they take");
        assert_eq!(crumb(&["sid=1", "sid=1"], "sid"), None);
    }

    #[test]
    fn a_parameter_is_found_however_its_name_is_written() {
        assert_eq!(parameter("a=1&key=x%20y&b", "key"), Some("x%20y"));
        assert_eq!(parameter("%6bey=x", "key"), Some("x"));
        assert_eq!(parameter("a+b=x", "a b"), Some("x"));
        for nothing in ["", "key", "key=", "keys=1", "akey=1", "&&=&", "key=1&key=2", "key=1&%6Bey=2"] {
            assert_eq!(parameter(nothing, "key"), None, "{nothing}");
        }
    }

    #[test]
    fn another_way_to_write_a_value_is_no_other_budget() {
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let print = |text: &str, plus| KeyHash::new(&state).decoded(text.as_bytes(), plus).finish();
        let long = "0123456789".repeat(20);
        let escaped: String = long.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(print(&long, Plus::Plain), print(&escaped, Plus::Plain));
        assert_eq!(print("a b", Plus::Space), print("a+%62", Plus::Space));
        assert_ne!(print("a b", Plus::Plain), print("a+b", Plus::Plain));
        assert_eq!(print("%zz%", Plus::Plain), print("%zz%25", Plus::Plain));
        assert_ne!(print("", Plus::Plain), print("%00", Plus::Plain));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let two = |a: &str, b: &str| KeyHash::new(&state).text(a.as_bytes()).text(b.as_bytes()).finish();
        let decoded = |a: &str, b: &str| {
            let key = KeyHash::new(&state).decoded(a.as_bytes(), Plus::Plain);
            key.decoded(b.as_bytes(), Plus::Plain).finish()
        };
        assert_ne!(two("ab", "c"), two("a", "bc"));
        assert_ne!(decoded("ab", "c"), decoded("a", "bc"));
        assert_ne!(decoded("", "ab"), decoded("ab", ""));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_part_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = cookie([&bytes[..]].into_iter(), "a");
            let _ = query(&bytes, "a");
            let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
            let _ = KeyHash::new(&state).decoded(&bytes, Plus::Space).finish();
        }

        #[test]
        fn escaping_changes_no_print(bytes in prop::collection::vec(any::<u8>(), 0..300), escaped in any::<u64>()) {
            let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
            let mut written = Vec::new();
            for (at, byte) in bytes.iter().enumerate() {
                // What would be read as an escape has to be one.
                if escaped >> (at % 64) & 1 == 1 || *byte == b'%' {
                    written.extend(format!("%{byte:02X}").bytes());
                } else {
                    written.push(*byte);
                }
            }
            let all: Vec<u8> = bytes.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect();
            let print = |text: &[u8]| KeyHash::new(&state).decoded(text, Plus::Plain).finish();
            prop_assert_eq!(print(&written), print(&all));
        }
    }
}
