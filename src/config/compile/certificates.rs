//! Files of certificates and keys, as they lie there.

use std::path::PathBuf;

use super::Context;
use crate::config::{
    complaint::Code,
    shape::At,
    tree::{Facts, Kind},
    value::FilePath,
};

/// A file that holds certificates.
pub fn certificates(at: At<FilePath>, c: &mut Context<'_>) -> Option<PathBuf> {
    let place = at.place;
    if c.outside.takes_any_certificate() {
        return Some(c.absolute(&at.value.0));
    }
    let path = file_of(at, Kind::File, c)?;
    match c.outside.certificates(&path) {
        Ok(()) => Some(path),
        Err(reason) => {
            let message = format!("could not use {}: {reason}", path.display());
            c.out.add(Code::BadCertificate, place, message);
            None
        }
    }
}

pub fn file_of(at: At<FilePath>, wanted: Kind, c: &mut Context<'_>) -> Option<PathBuf> {
    let path = c.absolute(&at.value.0);
    match c.outside.facts(&path) {
        Ok(Facts { kind, .. }) if kind == wanted => Some(path),
        Ok(_) => {
            let what = if wanted == Kind::Directory { "a directory" } else { "a file" };
            c.out.add(Code::BadPath, at.place, format!("{} is not {what}", path.display()));
            None
        }
        Err(reason) => {
            c.out.add(Code::UnreadableFile, at.place, format!("could not read {}: {reason}", path.display()));
            None
        }
    }
}
