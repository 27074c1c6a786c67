//! `cors` of a site or a route.

use std::time::Duration;

use http::{HeaderName, Method};

use super::{Context, methods::methods};
use crate::{
    config::{
        complaint::Code,
        file,
        shape::{At, Either, Field, OneOrMore, OrOff},
        tree::Text,
        value::Origins,
    },
    plan,
    vocab::OriginPattern,
};

/// How long a browser may remember, where the configuration does not say.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What a page may ask with, where the configuration does not say.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// As it may be written.
pub type Written = OrOff<Either<OneOrMore<Origins>, file::Cors>>;

/// `None`: it is not said here. `Some(None)`: it is nobody's business but the app's.
#[expect(clippy::option_option, reason = "a route that says off is not one that says nothing")]
pub fn cors(field: Field<Written>, c: &mut Context<'_>) -> Option<Option<plan::Cors>> {
    let At { value, place } = field.given()?;
    let table = match value {
        OrOff::Off => return Some(None),
        OrOff::On(Either::That(table)) => table,
        OrOff::On(Either::This(origins)) => {
            let mut table = file::Cors::empty(place);
            table.origins = Field::Given(At { value: origins, place });
            table
        }
    };
    let file::Cors { place, origins, methods, headers, credentials, max_age, expose } = table;
    let origins = origins.required("cors names no origin", place, "add origins = [\"https://app.example.com\"]", c.out);
    let own = self::methods(methods, c);
    let credentials = credentials.or(false);
    let headers = names(headers, credentials, c);
    let expose = names(expose, credentials, c);
    let At { value: OneOrMore(listed), place } = origins?;
    if listed.is_empty() {
        c.out.add(Code::EmptyValue, place, "cors names no origin: list some, or take it out");
    }
    let mut origins: Vec<OriginPattern> = Vec::new();
    for At { value, place } in listed {
        if value.0 == OriginPattern::Any && credentials {
            let cure = "list the origins that may send cookies and passwords, as in \"https://*.example.com\"";
            c.out.add_with_cure(
                Code::Conflict,
                place,
                "every origin, and with credentials: any page could act as whoever looks at it",
                cure,
            );
        }
        if !origins.contains(&value.0) {
            origins.push(value.0);
        }
    }
    let methods = if own.is_empty() { METHODS.to_vec() } else { own };
    Some(Some(plan::Cors { origins, methods, headers, credentials, max_age: max_age.value().map_or(MAX_AGE, |age| age.0), expose }))
}

fn names(field: Field<OneOrMore<Text>>, credentials: bool, c: &mut Context<'_>) -> Vec<HeaderName> {
    let mut all: Vec<HeaderName> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        match HeaderName::try_from(value.value.as_str()) {
            Ok(_) if value.value == "*" && credentials => {
                c.out.add(Code::Conflict, place, "\"*\" means nothing to a browser where credentials come along: name the headers");
            }
            Ok(name) if !all.contains(&name) => all.push(name),
            Ok(_) => {}
            Err(_) => c.out.add(Code::BadHeader, place, format!("{} is not the name of a header", value.shown())),
        }
    }
    all
}
