//! Headers that are set and removed: those of a site over the strict set, and those of a route.

use http::{HeaderName, HeaderValue};

use super::Context;
use crate::{
    config::{
        complaint::Code,
        file,
        shape::{At, Either, Field, Named},
        tree::Text,
    },
    plan::HeaderEdit,
    rules::header::strict,
};

/// Headers that belong to one connection or to the framing of a message: nobody but the engine may set them.
pub const FRAMING: [&str; 9] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"];

/// `"strict"`, `"off"`, or a table laid over the strict set.
pub fn headers(field: Field<Either<file::HeadersWord, Named<Text>>>, c: &mut Context<'_>) -> Vec<HeaderEdit> {
    match field.value() {
        None | Some(Either::This(file::HeadersWord::Strict)) => strict().to_vec(),
        Some(Either::This(file::HeadersWord::Off)) => Vec::new(),
        Some(Either::That(table)) => {
            let mut all = strict().to_vec();
            for edit in edits(table, c) {
                match all.iter_mut().find(|other| other.name == edit.name) {
                    Some(other) => *other = edit,
                    None => all.push(edit),
                }
            }
            all
        }
    }
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
