//! Bodies: forms and JSON, laid out as parameters of a query.
//!
//! Shape: what is cut off at the end is read as far as it goes. One pass, no recursion: a deep document costs what a flat one does.
//! Source: WHATWG URL (application/x-www-form-urlencoded), RFC 8259, RFC 7578.

use super::field::whole;

/// What a body says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BodyKind {
    Form,
    Json,
    /// With its boundary.
    Multipart(Vec<u8>),
}

impl BodyKind {
    /// `None`: nothing that is looked at.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next()?.to_ascii_lowercase();
        match &kind[..] {
            b"application/x-www-form-urlencoded" => Some(Self::Form),
            b"application/json" | b"text/json" => Some(Self::Json),
            b"multipart/form-data" => {
                let boundary = parts.find_map(|part| {
                    let (name, value) = part.split_at_checked(9)?;
                    name.eq_ignore_ascii_case(b"boundary=").then_some(value)
                })?;
                let boundary = boundary.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(boundary);
                (!boundary.is_empty() && boundary.len() <= 70).then(|| Self::Multipart(boundary.to_vec()))
            }
            _ if kind.starts_with(b"application/") && kind.ends_with(b"+json") => Some(Self::Json),
            _ => None,
        }
    }
}

pub(super) fn lay_out(kind: &BodyKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    out.push(b'?');
    match kind {
        BodyKind::Form => out.extend_from_slice(body),
        BodyKind::Json => json(body, &mut out),
        BodyKind::Multipart(boundary) => multipart(boundary, body, &mut out),
    }
    out
}

/// `&key=value` for each pair of strings, `&=value` for one that stands alone.
fn json(body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    let mut keyed = false;
    while let Some(open) = rest.iter().position(|byte| *byte == b'"') {
        rest = &rest[open + 1..];
        if !keyed {
            out.push(b'&');
        }
        let begin = out.len();
        rest = string(rest, out);
        let key = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if key && !keyed {
            out.push(b'=');
            // A number, a list or another object may follow: then the next string is a key or stands alone.
            let value = rest.iter().position(|byte| *byte == b':').map_or(&b""[..], |at| rest[at + 1..].trim_ascii_start());
            keyed = value.first() == Some(&b'"');
        } else {
            if !keyed {
                out.insert(begin, b'=');
            }
            keyed = false;
        }
    }
}

/// Appends the string that `text` begins with, its escapes off; returns what follows its end.
fn string<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let mut rest = text;
    loop {
        match rest {
            [] | [b'\\'] => return &[],
            [b'"', tail @ ..] => return tail,
            [b'\\', escaped, tail @ ..] => {
                match escaped {
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'b' | b'f' => out.push(b' '),
                    // The normal form takes `\u` off.
                    b'u' => out.extend_from_slice(b"\\u"),
                    other => out.push(whole(*other)),
                }
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(whole(*byte));
                rest = tail;
            }
        }
    }
}

/// `&name=value` for each field, `&name=filename` for each file: what is in a file is its own business.
fn multipart(boundary: &[u8], body: &[u8], out: &mut Vec<u8>) {
    let mut delimiter = b"--".to_vec();
    delimiter.extend_from_slice(boundary);
    let finder = regex::bytes::Regex::new(&regex::escape(&String::from_utf8_lossy(&delimiter)));
    let Ok(finder) = finder else { return };
    for part in finder.split(body).skip(1) {
        let Some(head) = part.windows(4).position(|at| at == b"\r\n\r\n") else { continue };
        let (head, content) = (&part[..head], &part[head + 4..]);
        out.push(b'&');
        out.extend_from_slice(parameter(head, b"name=\"").unwrap_or_default());
        out.push(b'=');
        match parameter(head, b"filename=\"") {
            Some(file) => out.extend_from_slice(file),
            None => out.extend(content.strip_suffix(b"\r\n").unwrap_or(content).iter().map(|byte| whole(*byte))),
        }
    }
}

/// The quoted value of a parameter, whose name must not be the end of another's.
fn parameter<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = head.windows(name.len()).enumerate().find(|(at, found)| {
        found.eq_ignore_ascii_case(name) && at.checked_sub(1).is_none_or(|before| matches!(head[before], b' ' | b';' | b'\t'))
    })?;
    let value = &head[at.0 + name.len()..];
    Some(&value[..value.iter().position(|byte| *byte == b'"')?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn laid_out(kind: &str, body: &str) -> String {
        let kind = BodyKind::of(kind.as_bytes()).expect("a kind that is looked at");
        String::from_utf8_lossy(&lay_out(&kind, body.as_bytes())).into_owned()
    }

    #[test]
    fn strings_of_json_become_parameters() {
        for (body, text) in [
            (r#"{"a": "b", "c": 1, "d": ["e", "f"], "g": {"h": "i\n\"j\""}}"#, "?&a=b&c=&d=&=e&=f&g=&h=i\n\"j\""),
            (r#""alone""#, "?&=alone"),
            (r#"{"a":"cut o"#, "?&a=cut o"),
            (r#"{"$ne":null}"#, "?&$ne="),
            (r#"{"a":"\u003c"}"#, "?&a=\\u003c"),
            ("[]", "?"),
            ("\"\\", "?&="),
        ] {
            assert_eq!(laid_out("application/json; charset=utf-8", body), text, "{body}");
        }
    }

    #[test]
    fn fields_of_forms_become_parameters() {
        assert_eq!(laid_out("application/x-www-form-urlencoded", "a=b&c=d"), "?a=b&c=d");
        let body = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\nc\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"g.txt\"\r\n\
                    Content-Type: text/plain\r\n\r\nwhatever\r\n--x--\r\n";
        assert_eq!(laid_out("multipart/form-data; boundary=x", body), "?&a=b\r\nc&f=g.txt");
        assert_eq!(laid_out("Multipart/Form-Data; Boundary=\"x\"", body), "?&a=b\r\nc&f=g.txt");
    }

    #[test]
    fn other_bodies_are_left_alone() {
        for kind in ["", "text/plain", "image/png", "multipart/form-data", "multipart/form-data; boundary=", "application/octet-stream"] {
            assert_eq!(BodyKind::of(kind.as_bytes()), None, "{kind}");
        }
        assert_eq!(BodyKind::of(b"application/vnd.api+json"), Some(BodyKind::Json));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic_or_grow(body in prop::collection::vec(prop::sample::select(b"\"\\u:{}[],a=&\r\n--x ;name".to_vec()), 0..200)) {
            for kind in [BodyKind::Form, BodyKind::Json, BodyKind::Multipart(b"x".to_vec())] {
                prop_assert!(lay_out(&kind, &body).len() <= body.len() * 2 + 8);
            }
        }
    }
}
