//! `[zone.NAME]`

use std::num::NonZeroU32;

use http::{HeaderName, StatusCode};

use super::{Blocks, Context, Names, listener::count};
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Field, List, Named, OneOrMore, Whole},
        tree::Text,
        value::Status,
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
    let key = self::key(key, c);
    if rate.is_absent() {
        if concurrent.is_absent() {
            let cure = "add a pace, as in rate = \"10r/s\", or a number of requests at once, as in concurrent = 10";
            c.out.add_with_cure(Code::MissingKey, place, format!("zone {name:?} limits nothing"), cure);
        }
        for (key, place) in [("burst", burst.place()), ("nodelay", nodelay.place()), ("delay", delay.place()), ("count", statuses.place())]
        {
            let Some(place) = place else { continue };
            let cure = format!("add a pace, as in rate = \"10r/s\", or take {key} out");
            c.out.add_with_cure(Code::Conflict, place, format!("zone {name:?} has {key}, but no rate that it is about"), cure);
        }
    }
    let burst = burst.value().map_or(0, |burst| burst.0);
    let delay = self::delay(name, burst, nodelay, delay, c);
    let statuses = self::statuses(name, burst, delay, statuses, c);
    Some(plan::Zone {
        key: key?,
        rate: rate.value().map(|rate| rate.0),
        burst,
        delay,
        concurrent: concurrent.value().and_then(|most| NonZeroU32::new(most.0)),
        status: status.value().map_or(StatusCode::TOO_MANY_REQUESTS, |status| status.0),
        count: statuses,
        headers: headers.value().map(|headers| match headers {
            file::RateHeaders::Draft => plan::RateHeaders::Draft,
            file::RateHeaders::Legacy => plan::RateHeaders::Legacy,
        }),
        mode: match mode.value() {
            Some(file::Mode::Observe) => plan::ZoneMode::Observe,
            Some(file::Mode::Enforce) | None => plan::ZoneMode::Enforce,
        },
        max_keys: count(max_keys.value().map(|keys| keys.0), defaults::MAX_KEYS),
    })
}

/// How many of the burst go on at once.
fn delay(name: &str, burst: u32, nodelay: Field<bool>, delay: Field<Whole<0, 1_000_000>>, c: &mut Context<'_>) -> u32 {
    let nodelay = nodelay.given();
    match (delay.given(), nodelay) {
        (Some(At { place, .. }), Some(At { value: true, .. })) => {
            let cure = "keep nodelay = true: nobody waits; or delay: the first of the burst do not";
            c.out.add_with_cure(Code::Conflict, place, format!("zone {name:?} has both nodelay and delay"), cure);
            burst
        }
        (Some(At { value: Whole(delay), place }), _) if delay > burst => {
            let cure = format!("write a burst of at least {delay}, or nodelay = true: then nobody waits");
            c.out.add_with_cure(Code::BadValue, place, format!("delay = {delay} is more than the whole burst of {burst}"), cure);
            burst
        }
        (Some(At { value, .. }), _) => value.0,
        (None, Some(At { value: false, .. })) => 0,
        (None, Some(At { value: true, .. }) | None) => burst,
    }
}

/// Which answers spend.
fn statuses(name: &str, burst: u32, delay: u32, statuses: Field<List<Status<100, 599>>>, c: &mut Context<'_>) -> Vec<StatusCode> {
    let Some(At { value: List(statuses), place }) = statuses.given() else { return Vec::new() };
    if statuses.is_empty() {
        c.out.add_with_cure(
            Code::EmptyValue,
            place,
            "count may not be empty",
            "write the statuses that spend, as in [401, 403], or take it out",
        );
    }
    if delay < burst {
        let cure = "write nodelay = true, or take count out";
        c.out.add_with_cure(
            Code::Conflict,
            place,
            format!("zone {name:?} knows by the answer alone what is spent: nobody can wait for his turn"),
            cure,
        );
    }
    statuses.into_iter().map(|status| status.value.0).collect()
}

/// All parts of a key; one bad part does not hide the others.
fn key(field: Field<OneOrMore<Text>>, c: &mut Context<'_>) -> Option<Vec<plan::ZoneKey>> {
    let At { value: keys, place } = match field {
        Field::Given(keys) => keys,
        Field::Absent => return Some(vec![plan::ZoneKey::Ip]),
        Field::Bad(_) => return None,
    };
    if keys.0.is_empty() {
        c.out.add_with_cure(Code::EmptyValue, place, "a key may not be empty", "write \"ip\", or whatever is to be counted apart");
        return None;
    }
    let mut parts: Vec<plan::ZoneKey> = Vec::new();
    let mut whole = true;
    for At { value, place } in keys.0 {
        match part(&value, place, c) {
            Some(part) if parts.contains(&part) => {
                c.out.add(Code::Conflict, place, format!("{} stands in this key twice", value.shown()));
                whole = false;
            }
            Some(part) => parts.push(part),
            None => whole = false,
        }
    }
    whole.then_some(parts)
}

fn part(key: &Text, place: Place, c: &mut Context<'_>) -> Option<plan::ZoneKey> {
    let (kind, name) = key.value.split_once(':').map_or((key.value.as_str(), None), |(kind, name)| (kind, Some(name)));
    match (kind, name) {
        ("ip", None) => Some(plan::ZoneKey::Ip),
        ("path", None) => Some(plan::ZoneKey::Path),
        ("site", None) => Some(plan::ZoneKey::Site),
        ("header", Some(name)) => match HeaderName::try_from(name) {
            Ok(name) => Some(plan::ZoneKey::Header(name)),
            Err(_) => {
                c.out.add(Code::BadHeader, place, format!("{} does not name a header", key.shown()));
                None
            }
        },
        ("cookie", Some(name)) => match HeaderName::try_from(name) {
            // Cookies are named by the same tokens, but mind their case.
            Ok(_) => Some(plan::ZoneKey::Cookie(name.to_owned())),
            Err(_) => {
                c.out.add(Code::BadValue, place, format!("{} does not name a cookie", key.shown()));
                None
            }
        },
        ("query", Some(name)) if !name.is_empty() => Some(plan::ZoneKey::Query(name.to_owned())),
        ("query", Some(_)) => {
            c.out.add(Code::BadValue, place, format!("{} does not name a parameter", key.shown()));
            None
        }
        _ => {
            super::super::shape::unknown_word(key, place, &KEYS, c.out);
            None
        }
    }
}

const KEYS: [&str; 6] = ["ip", "header:NAME", "cookie:NAME", "query:NAME", "path", "site"];

/// The zones that must admit a request; every name exists.
pub fn zones(field: Field<OneOrMore<Text>>, who: &str, names: &Names, c: &mut Context<'_>) -> Option<Vec<ZoneName>> {
    let mut zones: Vec<ZoneName> = Vec::new();
    for At { value, place } in field.value()?.0 {
        if !names.zones.contains(&value.value) {
            c.dangling(Code::UnknownZone, place, &format!("{who} wants the zone"), &value, names.zones.iter().map(String::as_str));
        } else if let Ok(zone) = ZoneName::parse(&value.value)
            && !zones.contains(&zone)
        {
            zones.push(zone);
        }
    }
    Some(zones)
}
