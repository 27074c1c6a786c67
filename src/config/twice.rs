//! Where a key or a table of one TOML text stood before: the parser tells only of the second.
//!
//! Pure. Reads lines, not values: in a text that has other faults too it may find nothing, and then nothing is said.

use std::ops::Range;

/// What stands twice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Twice {
    /// `[app.web]`, as it is written.
    Table {
        name: String,
        first: usize,
    },
    /// `[site]` beside `[[site]]`.
    Mixed {
        name: String,
        first: usize,
    },
    Key {
        name: String,
        first: usize,
    },
    /// Of a table that is told already.
    Consequence,
}

/// A line `[a.b]` or `[[a.b]]`.
struct Header {
    start: usize,
    name: String,
    list: bool,
}

/// What the parser calls a duplicate key at `span`.
#[must_use]
pub fn twice(text: &str, span: &Range<usize>) -> Option<Twice> {
    let key = text.get(span.clone())?.trim();
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let headers = headers(text.get(..line_end(text, span.start))?);
    let last = headers.last();
    let before = |header: &Header| headers.iter().find(|other| other.start < header.start && other.name == header.name);
    if let Some(own) = last.filter(|header| header.start == line_start) {
        let name = own.name.clone();
        let Some(first) = before(own) else {
            // `tls = "on"` in its parent.
            let (parent, last) = name.rsplit_once('.').unwrap_or(("", &name));
            let block = match headers.iter().rev().find(|header| header.start < own.start && header.name == parent) {
                Some(header) => line_end(text, header.start)..own.start,
                None if parent.is_empty() => 0..headers.first().map_or(own.start, |header| header.start),
                None => return None,
            };
            return Some(Twice::Key { name: last.to_owned(), first: key_before(text, block, last)? });
        };
        return Some(if first.list == own.list {
            Twice::Table { name, first: first.start }
        } else {
            Twice::Mixed { name, first: first.start }
        });
    }
    if last.is_some_and(|header| !header.list && before(header).is_some()) {
        return Some(Twice::Consequence);
    }
    let block = last.map_or(0, |header| line_end(text, header.start));
    let first = key_before(text, block..line_start, key).or_else(|| key_in_line(text, line_start..span.start, key))?;
    Some(Twice::Key { name: key.trim_matches(['"', '\'']).to_owned(), first })
}

fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |end| at + end)
}

fn headers(text: &str) -> Vec<Header> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if let Some(rest) = trimmed.strip_prefix('[') {
            let (list, rest) = rest.strip_prefix('[').map_or((false, rest), |rest| (true, rest));
            if let Some((name, _)) = rest.rsplit_once(']').filter(|(name, _)| !name.contains([',', '='])) {
                let name = name.split(']').next().unwrap_or_default().split('.').map(str::trim).collect::<Vec<_>>().join(".");
                found.push(Header { start, name, list });
            }
        }
        start += line.len();
    }
    found
}

fn key_before(text: &str, block: Range<usize>, key: &str) -> Option<usize> {
    let mut start = block.start;
    for line in text.get(block)?.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        if is_key(&line[indent..], key) {
            return Some(start + indent);
        }
        start += line.len();
    }
    None
}

fn key_in_line(text: &str, before: Range<usize>, key: &str) -> Option<usize> {
    let line = text.get(before.clone())?;
    line.match_indices(key).find(|(at, _)| is_key(&line[*at..], key)).map(|(at, _)| before.start + at)
}

fn is_key(text: &str, key: &str) -> bool {
    text.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, second: &str) -> Option<Twice> {
        let at = text.rfind(second).expect("it stands there");
        twice(text, &(at..at + second.len()))
    }

    #[test]
    fn the_first_of_two_is_found() {
        assert_eq!(of("a = 1\nuser = 1\nuser = 2\n", "user"), Some(Twice::Key { name: "user".into(), first: 6 }));
        assert_eq!(of("[app.web]\nx = 1\n[b]\n[app.web]\ny = 1\n", "web"), Some(Twice::Table { name: "app.web".into(), first: 0 }));
        assert_eq!(of("[[site]]\nx = 1\n[site]\n", "site"), Some(Twice::Mixed { name: "site".into(), first: 0 }));
        assert_eq!(of("[app.web]\nx = 1\n[app.web]\nx = 2\n", "x"), Some(Twice::Consequence));
        assert_eq!(of("[[site]]\nhost = 1\n[[site]]\nhost = 2\nhost = 3\n", "host"), Some(Twice::Key { name: "host".into(), first: 27 }));
        let table = "[[site]]\ntls = \"off\"\n[site.tls]\ncert = 1\n";
        assert_eq!(of(table, "tls"), Some(Twice::Key { name: "tls".into(), first: 9 }));
        assert_eq!(of("a = { b = 1, b = 2 }", "b"), Some(Twice::Key { name: "b".into(), first: 6 }));
    }

    #[test]
    fn any_text_is_survived() {
        for text in ["", "[", "[[", "]", "[a", "ä = 1\nä", "[x]\n[x", "a.b.c"] {
            for start in 0..=text.len() {
                for end in start..=text.len() + 1 {
                    drop(twice(text, &(start..end)));
                }
            }
        }
    }
}
