//! `auth` of a site or a route.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, header};

use super::{Context, header::FRAMING};
use crate::{
    config::{
        complaint::{Code, Place},
        file,
        shape::{At, Field, OneOrMore, OrOff},
        tree::Text,
        value::{self, FilePath},
    },
    plan,
    rules::htpasswd,
    vocab::Secret,
};

/// What a browser asks with where the configuration does not say.
const REALM: &str = "Restricted";
/// Within which another server has to say who may come in.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of a file with many bad lines, so many are told.
const TOLD: usize = 5;

/// `None`: it is not said here. `Some(None)`: everyone comes in.
#[expect(clippy::option_option, reason = "a route that says off is not one that says nothing")]
pub fn auth(field: Field<OrOff<file::Auth>>, c: &mut Context<'_>) -> Option<Option<plan::Auth>> {
    let At { value, place } = field.given()?;
    let file::Auth { place: _, basic, realm, forward, headers, timeout } = match value {
        OrOff::Off => return Some(None),
        OrOff::On(table) => table,
    };
    if let Some(other) = forward.place() {
        for (key, at) in [("basic", basic.place()), ("realm", realm.place())] {
            if let Some(at) = at {
                c.out.add_with_cure(Code::Conflict, at.max(other), format!("auth has both {key} and forward"), "keep one way to come in");
            }
        }
        let headers = self::headers(headers, c);
        let value::DoorServer { server, host, path } = forward.value()?.0;
        let timeout = timeout.value().map_or(TIMEOUT, |time| time.0);
        return Some(Some(plan::Auth::Forward(plan::Forward { server, host, path, headers, timeout })));
    }
    for (key, at) in [("headers", headers.place()), ("timeout", timeout.place())] {
        if let Some(at) = at {
            c.out.add(Code::Conflict, at, format!("auth asks no other server: {key} has no meaning here"));
        }
    }
    let realm = self::realm(realm, c);
    let basic = basic.required(
        "auth says nothing of who may come in",
        place,
        "add basic = \"users.htpasswd\" or forward = \"http://127.0.0.1:9000/verify\"",
        c.out,
    )?;
    let file = users(basic, c)?;
    Some(Some(plan::Auth::Basic(plan::Basic { file, realm })))
}

/// Headers of an answer that the app is to get.
fn headers(field: Field<OneOrMore<Text>>, c: &mut Context<'_>) -> Vec<HeaderName> {
    let mut all: Vec<HeaderName> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        match HeaderName::try_from(value.value.as_str()) {
            Ok(name) if FRAMING.contains(&name.as_str()) || name == header::HOST => {
                c.out.add(Code::BadHeader, place, format!("the header {} belongs to the connection and cannot be set", value.shown()));
            }
            // Names with an underscore never reach an app: they would collide in CGI.
            Ok(name) if !name.as_str().contains('_') => {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
            Ok(_) | Err(_) => c.out.add(Code::BadHeader, place, format!("{} is not the name of a header", value.shown())),
        }
    }
    all
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
