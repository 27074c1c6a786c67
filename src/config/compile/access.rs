//! `auth` of a site or a route.

use std::path::{Path, PathBuf};

use super::Context;
use crate::{
    config::{
        complaint::{Code, Place},
        file,
        shape::{At, Field, OrOff},
        tree::Text,
        value::FilePath,
    },
    plan,
    rules::htpasswd,
    vocab::Secret,
};

/// What a browser asks with where the configuration does not say.
const REALM: &str = "Restricted";
/// Of a file with many bad lines, so many are told.
const TOLD: usize = 5;

/// `None`: it is not said here. `Some(None)`: everyone comes in.
#[expect(clippy::option_option, reason = "a route that says off is not one that says nothing")]
pub fn auth(field: Field<OrOff<file::Auth>>, c: &mut Context<'_>) -> Option<Option<plan::Auth>> {
    let At { value, place } = field.given()?;
    let file::Auth { place: _, basic, realm, forward } = match value {
        OrOff::Off => return Some(None),
        OrOff::On(table) => table,
    };
    forward.not_yet("auth by another server", "take it out, or let the app ask", c.out);
    let realm = self::realm(realm, c);
    let basic = basic.required("auth says nothing of who may come in", place, "add basic = \"users.htpasswd\"", c.out)?;
    let file = users(basic, c)?;
    Some(Some(plan::Auth::Basic(plan::Basic { file, realm })))
}

fn realm(field: Field<Text>, c: &mut Context<'_>) -> String {
    let Some(At { value, place }) = field.given() else { return REALM.to_owned() };
    let good = !value.value.is_empty() && value.value.len() <= 256 && value.value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if !good {
        c.out.add(Code::BadValue, place, format!("{} is not a realm: 1 to 256 ASCII characters", value.shown()));
    }
    value.value
}

/// Reads the file, once for all who name it. Its users are in the context from then on.
fn users(at: At<FilePath>, c: &mut Context<'_>) -> Option<PathBuf> {
    let path = c.absolute(&at.value.0);
    if !c.users.contains_key(&path) {
        let read = read_users(&path, at.place, c);
        c.users.insert(path.clone(), read);
    }
    c.users.get(&path)?.is_some().then_some(path)
}

fn read_users(path: &Path, place: Place, c: &mut Context<'_>) -> Option<Vec<plan::User>> {
    let text = match c.outside.secrets(path) {
        Ok(text) => text,
        Err(reason) => {
            c.out.add(Code::UnreadableFile, place, format!("could not read {}: {reason}", path.display()));
            return None;
        }
    };
    let (good, bad) = htpasswd::read(&text);
    if let Some((_, first)) = bad.first() {
        let mut told: Vec<_> = bad.iter().take(TOLD).map(|(line, error)| format!("{}:{line} {error}", path.display())).collect();
        told.extend((bad.len() > TOLD).then(|| format!("{} lines more are bad", bad.len() - TOLD)));
        c.out.add_with_cure(Code::BadPassword, place, told.join("; "), first.cure());
        return None;
    }
    if good.is_empty() {
        let message = format!("{} names nobody: nobody could come in", path.display());
        c.out.add_with_cure(Code::EmptyValue, place, message, "add a user with `htpasswd -B FILE NAME`");
        return None;
    }
    let user = |line: &htpasswd::Line<'_>| plan::User { name: line.name.to_owned(), hash: Secret::new(line.hash.to_owned()) };
    Some(good.iter().map(user).collect())
}
