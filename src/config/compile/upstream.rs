//! `[upstream.NAME]`: servers, probes, retries, timeouts.

use std::num::NonZeroU16;

use super::{Blocks, Context, listener::count, log::share};
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Either, Field, List, Named, OneOrMore, not_yet},
        tree::Text,
        value::{Peer, ProbePath, Status},
    },
    plan,
    vocab::{AppName, UpstreamName},
};

pub fn compile(
    field: Field<Named<file::Upstream>>,
    apps: &Blocks<AppName, plan::App>,
    c: &mut Context<'_>,
) -> Blocks<UpstreamName, plan::Upstream> {
    let mut upstreams = Blocks::new();
    for (name, table) in field.value().map(|named| named.0).unwrap_or_default() {
        match UpstreamName::parse(&name.value) {
            Ok(parsed) => {
                if apps.contains_key(name.value.as_str()) {
                    let message = format!("upstream {:?} has the name of an app, and an app is an upstream of its own name", name.value);
                    c.out.add_with_cure(Code::DuplicateName, name.place, message, "give one of them another name");
                }
                let upstream = table.value().and_then(|table| upstream(&name.value, table, c));
                upstreams.insert(parsed, upstream);
            }
            Err(error) => c.out.add(Code::BadName, name.place, format!("upstream {:?}: {error}", name.value)),
        }
    }
    upstreams
}

fn upstream(name: &str, table: file::Upstream, c: &mut Context<'_>) -> Option<plan::Upstream> {
    let file::Upstream { place, servers, balance, sticky, health, passive, retry, timeouts, slow_start, tls, http } = table;
    sticky.not_yet("sticky", "take it out; let the servers share their sessions", c.out);
    slow_start.not_yet("slow_start", "take it out", c.out);
    tls.not_yet("TLS to an upstream", "take it out, and reach the server over a private network or a tunnel", c.out);
    let balance = self::balance(balance, c);
    let health = health.given().map(|at| self::health(at, c));
    let passive = self::passive(passive);
    let retry = self::retry(retry, c);
    let timeouts = self::timeouts(timeouts);
    let http = match http.given() {
        Some(At { value: file::HttpWord::V2, .. }) => plan::UpstreamHttp::V2,
        Some(At { value: file::HttpWord::Auto, place }) => {
            not_yet(place, "http = \"auto\"", "write \"1\" or \"2\"", c.out);
            plan::UpstreamHttp::V1
        }
        Some(At { value: file::HttpWord::V1, .. }) | None => plan::UpstreamHttp::V1,
    };
    let cure = "list them, as in servers = [\"10.0.0.5:8000\"]";
    let servers = servers.required(&format!("upstream {name:?} has no servers"), place, cure, c.out);
    let servers = servers.and_then(|at| self::servers(name, at, c))?;
    Some(plan::Upstream { servers, balance, health: health.flatten(), passive, retry, timeouts, http })
}

fn servers(name: &str, at: At<OneOrMore<Either<Peer, file::Server>>>, c: &mut Context<'_>) -> Option<Vec<plan::Server>> {
    let mut all: Vec<plan::Server> = Vec::new();
    let mut whole = true;
    for At { value, place } in at.value.0 {
        let server = match value {
            Either::This(addr) => Some(plan::Server { addr: addr.0, weight: NonZeroU16::MIN, backup: false, max_conns: None }),
            Either::That(table) => self::server(table, c),
        };
        match server {
            Some(server) if all.iter().any(|other| other.addr == server.addr) => {
                let message = format!("upstream {name:?} lists the server {} twice", server.addr);
                c.out.add_with_cure(Code::DuplicateServer, place, message, "give it a weight instead, as in { addr = \"…\", weight = 2 }");
            }
            Some(server) => all.push(server),
            None => whole = false,
        }
    }
    if whole && all.is_empty() {
        c.out.add(Code::EmptyValue, at.place, format!("upstream {name:?} has no servers"));
    } else if whole && all.iter().all(|server| server.backup) {
        c.out.add(Code::BadValue, at.place, format!("upstream {name:?} has only backup servers: nothing would be asked before them"));
    }
    (whole && !all.is_empty()).then_some(all)
}

fn server(table: file::Server, c: &mut Context<'_>) -> Option<plan::Server> {
    let file::Server { place, addr, weight, backup, max_conns } = table;
    let addr = addr.required("a server has no addr", place, "add addr = \"10.0.0.5:8000\"", c.out);
    let weight = weight.value().map_or(1, |weight| weight.0);
    Some(plan::Server {
        addr: addr?.value.0,
        weight: u16::try_from(weight).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
        backup: backup.or(false),
        max_conns: max_conns.value().map(|most| count(Some(most.0), 1)),
    })
}

fn balance(field: Field<Either<file::BalanceWord, file::BalanceTable>>, c: &mut Context<'_>) -> plan::Balance {
    let instead = "write \"round_robin\", \"least_conn\" or \"p2c\"";
    match field.given() {
        None => plan::Balance::RoundRobin,
        Some(At { value: Either::This(word), place }) => match word {
            file::BalanceWord::RoundRobin => plan::Balance::RoundRobin,
            file::BalanceWord::LeastConn => plan::Balance::LeastConn,
            file::BalanceWord::P2c => plan::Balance::P2c,
            file::BalanceWord::Hash | file::BalanceWord::Random => {
                not_yet(place, "this way of balancing", instead, c.out);
                plan::Balance::RoundRobin
            }
        },
        Some(At { value: Either::That(file::BalanceTable { place: _, hash }), place }) => {
            if hash.is_absent() {
                c.out.add_with_cure(Code::EmptyValue, place, "this says nothing of how to balance", instead);
            }
            hash.not_yet("balancing by hash", instead, c.out);
            plan::Balance::RoundRobin
        }
    }
}

pub fn health(at: At<Either<ProbePath, file::Health>>, c: &mut Context<'_>) -> Option<plan::Health> {
    let table = match at.value {
        Either::This(path) => {
            let mut table = file::Health::empty(at.place);
            table.path = Field::Given(At { value: path, place: at.place });
            table
        }
        Either::That(table) => table,
    };
    let file::Health { place, path, host, interval, timeout, fail, pass, expect, kind } = table;
    let http = match kind.given() {
        Some(At { value: file::ProbeWord::Grpc, place }) => {
            not_yet(place, "a gRPC probe", "write type = \"tcp\", or a path for HTTP", c.out);
            return None;
        }
        Some(At { value: file::ProbeWord::Tcp, .. }) => false,
        Some(At { value: file::ProbeWord::Http, .. }) | None => true,
    };
    let kind = if http {
        let path = path.required("a health check over HTTP has no path", place, "add path = \"/healthz\", or type = \"tcp\"", c.out);
        let host = host_header(host, c);
        let expect = expect.given().map_or(Some(vec![defaults::PROBE_EXPECT]), |at| self::expect(at, c));
        plan::HealthKind::Http { path: path?.value.0, host, expect: expect? }
    } else {
        for (key, at) in [("path", path.place()), ("host", host.place()), ("expect", expect.place())] {
            if let Some(place) = at {
                c.out.add(Code::Conflict, place, format!("a tcp health check only connects: it has no {key}"));
            }
        }
        plan::HealthKind::Tcp
    };
    let interval = interval.value().map_or(defaults::PROBE_INTERVAL, |time| time.0);
    let timeout = timeout.value().map_or(defaults::PROBE_TIMEOUT, |time| time.0);
    Some(plan::Health {
        kind,
        interval,
        timeout,
        fail: count(fail.value().map(|n| n.0), defaults::PROBE_FAIL),
        pass: count(pass.value().map(|n| n.0), defaults::PROBE_PASS),
    })
}

fn host_header(field: Field<Text>, c: &mut Context<'_>) -> Option<String> {
    let At { value, place } = field.given()?;
    let good = !value.value.is_empty() && value.value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'@'));
    if !good {
        c.out.add(Code::BadHost, place, format!("{} cannot stand in a Host header", value.shown()));
    }
    good.then_some(value.value)
}

/// `200`, `200-299`, `200,301-308`.
fn expect(at: At<Either<Text, Status<100, 599>>>, c: &mut Context<'_>) -> Option<Vec<(u16, u16)>> {
    let text = match at.value {
        Either::That(status) => return Some(vec![(status.0.as_u16(), status.0.as_u16())]),
        Either::This(text) => text,
    };
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    let range = |part: &str| match part.split_once('-') {
        None => code(part).map(|code| (code, code)),
        Some((from, to)) => Some((code(from)?, code(to)?)).filter(|(from, to)| from <= to),
    };
    let ranges: Option<Vec<_>> = text.value.split(',').map(range).collect();
    if ranges.is_none() {
        let message = format!("{} is not a choice of statuses: write \"200\", \"200-299\" or \"200,301-308\"", text.shown());
        c.out.add(Code::BadValue, at.place, message);
    }
    ranges
}

fn passive(field: Field<file::Passive>) -> plan::Passive {
    let file::Passive { place: _, fails, within, eject } = field.value().unwrap_or_else(|| file::Passive::empty(Place::default()));
    plan::Passive {
        fails: count(fails.value().map(|n| n.0), defaults::PASSIVE_FAILS),
        within: within.value().map_or(defaults::PASSIVE_WITHIN, |time| time.0),
        eject: eject.value().map_or(defaults::PASSIVE_EJECT, |time| time.0),
    }
}

fn retry(field: Field<file::Retry>, c: &mut Context<'_>) -> plan::Retry {
    let file::Retry { place: _, tries, on, budget } = field.value().unwrap_or_else(|| file::Retry::empty(Place::default()));
    plan::Retry {
        tries: count(tries.value().map(|n| n.0), defaults::RETRY_TRIES),
        on: retry_on(on, c),
        budget: share(budget.given(), defaults::RETRY_BUDGET, c),
    }
}

fn retry_on(field: Field<List<Text>>, c: &mut Context<'_>) -> Vec<plan::RetryOn> {
    let Some(list) = field.value() else {
        return vec![
            plan::RetryOn::Connect,
            plan::RetryOn::Timeout,
            plan::RetryOn::Status(502),
            plan::RetryOn::Status(503),
            plan::RetryOn::Status(504),
        ];
    };
    let mut all = Vec::new();
    for At { value, place } in list.0 {
        let on = match value.value.as_str() {
            "connect" => plan::RetryOn::Connect,
            "timeout" => plan::RetryOn::Timeout,
            text => match text.parse::<u16>() {
                Ok(status) if (500..=599).contains(&status) => plan::RetryOn::Status(status),
                _ => {
                    crate::config::shape::unknown_word(&value, place, &["connect", "timeout", "500", "502", "503", "504"], c.out);
                    continue;
                }
            },
        };
        if !all.contains(&on) {
            all.push(on);
        }
    }
    all
}

pub fn timeouts(field: Field<file::UpstreamTimeouts>) -> plan::UpstreamTimeouts {
    let file::UpstreamTimeouts { place: _, connect, read, send, idle } =
        field.value().unwrap_or_else(|| file::UpstreamTimeouts::empty(Place::default()));
    plan::UpstreamTimeouts {
        connect: connect.value().map_or(defaults::CONNECT, |time| time.0),
        read: read.value().map_or(defaults::READ, |time| time.0),
        send: send.value().map_or(defaults::UPSTREAM_SEND, |time| time.0),
        idle: idle.value().map_or(defaults::UPSTREAM_IDLE, |time| time.0),
    }
}
