//! `[zone.NAME]`

use http::{HeaderName, StatusCode};

use super::{Blocks, Context, listener::count};
use crate::{
    config::{
        complaint::Code,
        defaults, file,
        shape::{At, Either, Field, Named, OneOrMore},
        tree::Text,
    },
    plan,
    vocab::ZoneName,
};

pub fn compile(field: Field<Named<file::Zone>>, c: &mut Context<'_>) -> Blocks<ZoneName, plan::Zone> {
    let mut zones = Blocks::new();
    for (name, table) in field.value().map(|named| named.0).unwrap_or_default() {
        match ZoneName::parse(&name.value) {
            Ok(parsed) => {
                let zone = table.value().and_then(|table| zone(&name.value, table, c));
                zones.insert(parsed, zone);
            }
            Err(error) => c.out.add(Code::BadName, name.place, format!("zone {:?}: {error}", name.value)),
        }
    }
    zones
}

fn zone(name: &str, table: file::Zone, c: &mut Context<'_>) -> Option<plan::Zone> {
    let file::Zone { place, key, rate, burst, nodelay, delay, concurrent, status, count: statuses, mode, headers, max_keys } = table;
    if let Field::Given(At { value: Either::This(false) | Either::That(_), place }) = nodelay {
        super::super::shape::not_yet(
            place,
            "a zone that makes requests wait",
            "write nodelay = true: what is beyond the burst is answered at once",
            c.out,
        );
    }
    delay.not_yet("delay", "take it out: what is beyond the burst is answered at once", c.out);
    concurrent.not_yet("a limit of requests at once", "take it out, or limit the pace with `rate`", c.out);
    statuses.not_yet("counting by status", "take it out: every request counts", c.out);
    mode.not_yet("mode", "take it out: a zone enforces", c.out);
    headers.not_yet("a choice of RateLimit headers", "take it out: Retry-After is always sent", c.out);
    let key = self::key(key, c);
    let cure = "add a pace, as in rate = \"10r/s\"";
    let rate = rate.required(&format!("zone {name:?} has no rate"), place, cure, c.out);
    Some(plan::Zone {
        key: key?,
        rate: rate?.value.0,
        burst: burst.value().map_or(0, |burst| burst.0),
        status: status.value().map_or(StatusCode::TOO_MANY_REQUESTS, |status| status.0),
        max_keys: count(max_keys.value().map(|keys| keys.0), defaults::MAX_KEYS),
    })
}

fn key(field: Field<OneOrMore<Text>>, c: &mut Context<'_>) -> Option<plan::ZoneKey> {
    let At { value: mut keys, place } = match field {
        Field::Given(keys) => keys,
        Field::Absent => return Some(plan::ZoneKey::Ip),
        Field::Bad(_) => return None,
    };
    if keys.0.len() > 1 {
        super::super::shape::not_yet(place, "a key of several parts", "write one of \"ip\" or \"header:NAME\"", c.out);
        return None;
    }
    let Some(At { value: key, place }) = keys.0.pop() else {
        c.out.add(Code::EmptyValue, place, "a key may not be empty: write \"ip\" or \"header:NAME\"");
        return None;
    };
    match key.value.split_once(':') {
        None if key.value == "ip" => Some(plan::ZoneKey::Ip),
        Some(("header", name)) => match HeaderName::try_from(name) {
            Ok(name) => Some(plan::ZoneKey::Header(name)),
            Err(_) => {
                c.out.add(Code::BadHeader, place, format!("{} does not name a header", key.shown()));
                None
            }
        },
        None if matches!(key.value.as_str(), "path" | "site") => {
            super::super::shape::not_yet(place, &format!("the key {:?}", key.value), "write \"ip\" or \"header:NAME\"", c.out);
            None
        }
        Some(("cookie" | "query", _)) => {
            super::super::shape::not_yet(place, "a key from a cookie or the query", "write \"ip\" or \"header:NAME\"", c.out);
            None
        }
        _ => {
            super::super::shape::unknown_word(&key, place, &["ip", "header:NAME"], c.out);
            None
        }
    }
}
