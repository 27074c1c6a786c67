//! Headers that are set and removed: those of a site over a set, and those of a route.

use http::{HeaderName, HeaderValue};

use super::Context;
use crate::{
    config::{
        complaint::{Code, did_you_mean},
        file,
        shape::{At, Either, Field, Named},
        tree::Text,
    },
    plan::{HeaderBase, HeaderEdit, HeaderSet},
};

/// Headers that belong to one connection or to the framing of a message: nobody but the engine may set them.
pub const FRAMING: [&str; 9] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"];

/// The key of a table of headers that names what it is laid over; no header has this name.
const BASE: &str = "base";

/// `"standard"`, `"strict"`, `"off"`, or a table laid over one of them.
pub fn headers(field: Field<Either<file::HeadersWord, Named<Text>>>, c: &mut Context<'_>) -> HeaderSet {
    match field.value() {
        None | Some(Either::This(file::HeadersWord::Standard)) => HeaderBase::Standard.into(),
        Some(Either::This(file::HeadersWord::Strict)) => HeaderBase::Strict.into(),
        Some(Either::This(file::HeadersWord::Off)) => HeaderBase::Off.into(),
        Some(Either::That(Named(mut table))) => {
            let base = table.iter().position(|(name, _)| name.value == BASE).map(|at| table.remove(at).1);
            let base = base.and_then(Field::given).and_then(|word| self::base(&word, c)).unwrap_or_default();
            HeaderSet { base, own: edits(Named(table), c) }
        }
    }
}

fn base(word: &At<Text>, c: &mut Context<'_>) -> Option<HeaderBase> {
    let all = [HeaderBase::Standard, HeaderBase::Strict, HeaderBase::Off];
    let found = all.into_iter().find(|base| base.as_str() == word.value.value);
    if found.is_none() {
        let meant = if word.value.is_hidden() { String::new() } else { did_you_mean(&word.value.value, all.map(HeaderBase::as_str)) };
        c.out.add(
            Code::UnknownWord,
            word.place,
            format!("{} is no set of headers: \"standard\", \"strict\" or \"off\"{meant}", word.value.shown()),
        );
    }
    found
}

/// A table of header = value; `""` removes.
pub fn edits(table: Named<Text>, c: &mut Context<'_>) -> Vec<HeaderEdit> {
    let mut all: Vec<HeaderEdit> = Vec::new();
    for (name, value) in table.0 {
        let Some(At { value, place }) = value.given() else { continue };
        let Ok(header) = HeaderName::try_from(name.value.as_str()) else {
            c.out.add(Code::BadHeader, name.place, format!("{:?} is not the name of a header", name.value));
            continue;
        };
        if FRAMING.contains(&header.as_str()) {
            c.out.add(Code::BadHeader, name.place, format!("the header {:?} belongs to the connection and cannot be set", name.value));
            continue;
        }
        if all.iter().any(|other| other.name == header) {
            c.out.add(Code::DuplicateKey, name.place, format!("the header {:?} is set twice", name.value));
            continue;
        }
        // Visible ASCII only: what travels to the edge and back must stay the same.
        let printable = value.value.bytes().all(|b| (b' '..=b'~').contains(&b) || b == b'\t');
        match HeaderValue::try_from(value.value.as_str()) {
            Ok(_) if value.value.is_empty() => all.push(HeaderEdit::new(header, None)),
            Ok(text) if printable => all.push(HeaderEdit::new(header, Some(text))),
            _ => c.out.add(Code::BadHeader, place, format!("{} cannot be the value of a header: visible ASCII only", value.shown())),
        }
    }
    all
}
