//! Bodies: forms and JSON, laid out as parameters of a query.
//!
//! Shape: what is cut off at the end is read as far as it goes. One pass, no recursion: a deep document costs what a flat one does.
//! Source: WHATWG URL (application/x-www-form-urlencoded), RFC 8259, RFC 7578.

use regex::bytes::RegexBuilder;

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
            b"multipart/form-data" => Some(Self::Multipart(boundary(content_type).unwrap_or_default())),
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

/// The boundary of a multipart body, quoted or not.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let name = b"boundary";
    let at = content_type.windows(name.len()).position(|at| at.eq_ignore_ascii_case(name))?;
    let value = content_type[at + name.len()..].trim_ascii_start();
    let value = value.strip_prefix(b"=")?.trim_ascii_start();
    let value = match value {
        [b'"', rest @ ..] => rest.split(|byte| *byte == b'"').next(),
        _ => value.split(|byte| *byte == b';' || byte.is_ascii_whitespace()).next(),
    }?;
    (!value.is_empty() && value.len() <= 200).then(|| value.to_vec())
}

/// `&name=value` for each field, `&name=filename` for each file: what is in a file is its own business.
///
/// Shape: what is no part as it should be is looked at as a value: some readers are kinder than others.
fn multipart(boundary: &[u8], body: &[u8], out: &mut Vec<u8>) {
    let delimiter: String = b"--".iter().chain(boundary).map(|byte| format!("\\x{byte:02x}")).collect();
    let finder = RegexBuilder::new(&delimiter).unicode(false).build();
    let mut value = |name: &[u8], content: &[u8]| {
        out.push(b'&');
        out.extend(name.iter().map(|byte| whole(*byte)));
        out.push(b'=');
        out.extend(content.iter().map(|byte| whole(*byte)));
    };
    // Without a boundary that fits, all of it is one value.
    let Some(finder) = finder.ok().filter(|finder| !boundary.is_empty() && finder.is_match(body)) else { return value(b"", body) };
    let mut parts = finder.split(body);
    let before = parts.next().unwrap_or_default();
    if !before.trim_ascii().is_empty() {
        value(b"", before);
    }
    for part in parts {
        let Some((head, content)) = divide(part) else {
            if part.trim_ascii() != b"--" {
                value(b"", part);
            }
            continue;
        };
        let disposition = head.split(|byte| *byte == b'\n').find(|line| {
            let field = b"content-disposition:";
            line.get(..field.len()).is_some_and(|start| start.eq_ignore_ascii_case(field))
        });
        let parameter = |name: &[u8]| disposition.and_then(|line| parameter(line, name));
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        value(parameter(b"name").unwrap_or_default(), parameter(b"filename").filter(|file| !file.is_empty()).unwrap_or(content));
    }
}

/// The head of a part and what follows the empty line.
fn divide(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut start = 0;
    loop {
        let end = start + part[start..].iter().position(|byte| *byte == b'\n')?;
        if start > 0 && part[start..end].trim_ascii().is_empty() {
            return Some((&part[..start], &part[end + 1..]));
        }
        start = end + 1;
    }
}

/// The value of a parameter of a field, quoted or not; what is within quotes is no parameter.
fn parameter<'a>(field: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = field;
    loop {
        let next = rest.iter().position(|byte| *byte == b';')?;
        rest = rest[next + 1..].trim_ascii_start();
        let equals = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        if rest[equals] == b';' {
            rest = &rest[equals..];
            continue;
        }
        let name = rest[..equals].trim_ascii();
        let (value, after) = match &rest[equals + 1..] {
            [b'"', quoted @ ..] => {
                let end = quoted.iter().position(|byte| *byte == b'"').unwrap_or(quoted.len());
                (&quoted[..end], &quoted[(end + 1).min(quoted.len())..])
            }
            bare => {
                let end = bare.iter().position(|byte| *byte == b';' || byte.is_ascii_whitespace()).unwrap_or(bare.len());
                (&bare[..end], &bare[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
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
        // What kinder readers take: another header with a name in it, quotes around a semicolon, lines that end in LF, a boundary that is not there.
        for (kind, body, text) in [
            ("x", "--x\r\nX: y; filename=\"a\"\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n--x--", "?&n=v"),
            ("x", "--x\r\nContent-Disposition: form-data; name=\"a; filename=\"\r\n\r\nv\r\n--x--", "?&a; filename==v"),
            ("x", "--x\nContent-Disposition: form-data; name=n\n\nv\n--x--\n", "?&n=v"),
            ("\"a;b\"", "--a;b\r\nContent-Disposition: form-data; name=n\r\n\r\nv\r\n--a;b--", "?&n=v"),
            ("y", "no part at all", "?&=no part at all"),
            ("x", "--x\r\nno head", "?&=\r\nno head"),
            ("", "--x\r\n", "?&=--x\r\n"),
            (" x", "--x\nContent-Disposition: form-data; name=n; filename=\"\"\n\nv\n--x--\n", "?&n=v"),
        ] {
            assert_eq!(laid_out(&format!("multipart/form-data; boundary={kind}"), body), text, "{body}");
        }
    }

    #[test]
    fn other_bodies_are_left_alone() {
        for kind in ["", "text/plain", "image/png", "application/octet-stream"] {
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
