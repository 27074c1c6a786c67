//! What proves that a process of an app is ready and alive: `ready`, `live`, `health`.

use super::{Context, listener::count};
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Either, Field},
        tree::Text,
        value::ProbePath,
    },
    plan,
    vocab::AppName,
};

/// `listens`: whether it has a port or socket; `None` where its command is bad.
pub fn probes(
    name: &AppName,
    listens: Option<bool>,
    ready: Field<Either<ProbePath, file::Ready>>,
    live: Field<Either<ProbePath, file::Live>>,
    health: Field<Either<ProbePath, file::Health>>,
    c: &mut Context<'_>,
) -> (Option<plan::Ready>, Option<plan::Live>) {
    let deaf = |what: &str, place: Place, c: &mut Context<'_>| {
        if listens == Some(false) {
            let cure = "name the app in a site, put {port} or {socket} into its command, or set `port`";
            c.out.add_with_cure(Code::MissingPort, place, format!("{what} of app {name} needs a port or a socket, and it has none"), cure);
        }
    };
    if let Some(at) = health.given() {
        for (other, key) in [(ready.place(), "ready"), (live.place(), "live")] {
            if let Some(place) = other {
                c.out.add_with_cure(
                    Code::Conflict,
                    place,
                    format!("app {name} has both health and {key}"),
                    "health is short for ready.http and live.http",
                );
            }
        }
        deaf("health", at.place, c);
        return short(at, c);
    }
    let ready = match ready {
        Field::Given(At { value: Either::This(path), place }) => {
            deaf("ready.http", place, c);
            Some(plan::Ready::Http { path: path.0, host: None, timeout: defaults::READY_TIMEOUT })
        }
        Field::Given(At { value: Either::That(table), .. }) => self::ready(name, listens.unwrap_or(true), table, &deaf, c),
        Field::Absent if listens.unwrap_or(true) => Some(plan::Ready::Tcp { timeout: defaults::READY_TIMEOUT }),
        Field::Absent => Some(plan::Ready::Started),
        Field::Bad(_) => None,
    };
    let live = live.given().and_then(|at| {
        deaf("live", at.place, c);
        let table = match at.value {
            Either::This(path) => {
                let mut table = file::Live::empty(at.place);
                table.http = Field::Given(At { value: path, place: at.place });
                table
            }
            Either::That(table) => table,
        };
        let file::Live { place, http, host, interval, timeout, fail, pass } = table;
        let path = http.required("live has no path", place, "add http = \"/healthz\"", c.out)?;
        Some(plan::Live {
            path: path.value.0,
            host: self::host(host, c),
            interval: interval.value().map_or(defaults::PROBE_INTERVAL, |time| time.0),
            timeout: timeout.value().map_or(defaults::PROBE_TIMEOUT, |time| time.0),
            fail: count(fail.value().map(|n| n.0), defaults::PROBE_FAIL),
            pass: count(pass.value().map(|n| n.0), defaults::PROBE_PASS),
        })
    });
    (ready, live)
}

/// `health`: ready.http and live.http in one.
fn short(at: At<Either<ProbePath, file::Health>>, c: &mut Context<'_>) -> (Option<plan::Ready>, Option<plan::Live>) {
    if let Either::That(table) = &at.value {
        let foreign = [("expect", table.expect.place()), ("type", table.kind.place())];
        for (key, place) in foreign {
            if let Some(place) = place {
                let cure = "take it out: a process is healthy when its path answers 2xx or 3xx";
                c.out.add_with_cure(Code::Conflict, place, format!("{key} has no meaning in the health of an app"), cure);
            }
        }
    }
    let table = match at.value {
        Either::This(path) => {
            let mut table = file::Health::empty(at.place);
            table.path = Field::Given(At { value: path, place: at.place });
            table
        }
        Either::That(table) => table,
    };
    let file::Health { place, path, host, interval, timeout, fail, pass, expect: _, kind: _ } = table;
    let Some(path) = path.required("health has no path", place, "add path = \"/healthz\"", c.out) else {
        return (None, None);
    };
    let host = self::host(host, c);
    let live = plan::Live {
        path: path.value.0.clone(),
        host: host.clone(),
        interval: interval.value().map_or(defaults::PROBE_INTERVAL, |time| time.0),
        timeout: timeout.value().map_or(defaults::PROBE_TIMEOUT, |time| time.0),
        fail: count(fail.value().map(|n| n.0), defaults::PROBE_FAIL),
        pass: count(pass.value().map(|n| n.0), defaults::PROBE_PASS),
    };
    (Some(plan::Ready::Http { path: path.value.0, host, timeout: defaults::READY_TIMEOUT }), Some(live))
}

/// What a probe asks for, as it stands in a header.
fn host(field: Field<Text>, c: &mut Context<'_>) -> Option<String> {
    let place = field.place()?;
    let text = c.text(field, "a host")?;
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    if !good {
        c.out.add_with_cure(
            Code::BadValue,
            place,
            format!("{text:?} is no host"),
            "write a name, as in host = \"example.com\", with a port if it has one",
        );
    }
    good.then_some(text)
}

fn ready(
    name: &AppName,
    listens: bool,
    table: file::Ready,
    deaf: &impl Fn(&str, Place, &mut Context<'_>),
    c: &mut Context<'_>,
) -> Option<plan::Ready> {
    let file::Ready { place, http, host, log, notify, tcp, timeout } = table;
    let timeout = timeout.value().map_or(defaults::READY_TIMEOUT, |time| time.0);
    let given: Vec<_> = [("http", http.place()), ("log", log.place()), ("notify", notify.place()), ("tcp", tcp.place())]
        .into_iter()
        .filter_map(|(key, place)| Some((key, place?)))
        .collect();
    if let [(first, _), (second, place), ..] = given[..] {
        c.out.add_with_cure(
            Code::Conflict,
            place,
            format!("ready of app {name} has both {first} and {second}"),
            "one proof is enough: keep one of them",
        );
    }
    for at in [notify.as_ref(), tcp.as_ref()].into_iter().flatten().filter(|at| !at.value) {
        c.out.add(Code::BadValue, at.place, "false says nothing here: take the key out");
    }
    if let Some(place) = http.place() {
        deaf("ready.http", place, c);
        let host = self::host(host, c);
        return Some(plan::Ready::Http { path: http.value()?.0, host, timeout });
    }
    if let Some(place) = host.place() {
        c.out.add_with_cure(
            Code::Conflict,
            place,
            format!("ready.host of app {name} is for ready.http, which is not there"),
            "add http = \"/healthz\", or take it out",
        );
    }
    if let Some(place) = tcp.place() {
        deaf("ready.tcp", place, c);
        return Some(plan::Ready::Tcp { timeout });
    }
    if !log.is_absent() {
        return Some(plan::Ready::Log { pattern: log.value()?.0, timeout });
    }
    if !notify.is_absent() {
        return Some(plan::Ready::Notify { timeout });
    }
    if !listens {
        let message = format!("ready of app {name} does not say what proves that a worker is ready");
        c.out.add_with_cure(Code::MissingKey, place, message, "add log = \"regex\" or notify = true, or take ready out");
        return None;
    }
    Some(plan::Ready::Tcp { timeout })
}
