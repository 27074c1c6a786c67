//! `[listen] [timeouts] [limits] [admin]`

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use super::Context;
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Field, OneOrMore, OrOff},
        value::{Address, Size},
    },
    plan,
    vocab::{ByteSize, Pace, Secret},
};

/// Every port of this machine that somebody listens on, and who.
#[derive(Default)]
pub struct Claims(Vec<Claim>);

struct Claim {
    ip: IpAddr,
    first: u16,
    last: u16,
    who: String,
}

impl Claims {
    /// The earlier claim that this one overlaps, by name; port 0 is any free one and never overlaps.
    pub fn claim(&mut self, ip: IpAddr, first: u16, last: u16, who: String) -> Option<String> {
        if first == 0 {
            return None;
        }
        let clash = |c: &&Claim| overlap(c.ip, ip) && c.first <= last && first <= c.last;
        let found = self.0.iter().find(clash).map(|c| c.who.clone());
        self.0.push(Claim { ip, first, last, who });
        found
    }
}

/// `0.0.0.0` is every IPv4 address; `[::]` is IPv6 alone, as the master binds it.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

pub fn listen(table: file::Listen, nobody_trusted: bool, claims: &mut Claims, c: &mut Context<'_>) -> plan::Listen {
    let file::Listen { place, http, https, proxy_protocol, max_connections, max_connections_per_ip } = table;
    let spoken_at = proxy_protocol.place();
    let proxy_protocol = proxy_protocol.or(false);
    if proxy_protocol && nobody_trusted {
        let message = "the PROXY protocol is believed of trusted_proxies alone, and there are none: every connection would be refused";
        c.out.add_with_cure(
            Code::Conflict,
            spoken_at.unwrap_or(place),
            message,
            "name whoever connects here, as in trusted_proxies = [\"10.0.0.0/8\"]",
        );
    }
    plan::Listen {
        http: addresses(http, place, &defaults::HTTP, "http", claims, c),
        https: addresses(https, place, &defaults::HTTPS, "https", claims, c),
        proxy_protocol,
        max_connections: count(max_connections.value().map(|n| n.0), defaults::MAX_CONNECTIONS),
        max_connections_per_ip: max_connections_per_ip.value().and_then(|n| NonZeroU32::new(n.0)),
    }
}

fn addresses(
    field: Field<OneOrMore<Address>>,
    owner: Place,
    default: &[SocketAddr],
    role: &str,
    claims: &mut Claims,
    c: &mut Context<'_>,
) -> Vec<SocketAddr> {
    let listed: Vec<(SocketAddr, Place)> = match field {
        Field::Given(list) => list.value.0.into_iter().map(|at| (at.value.0, at.place)).collect(),
        Field::Absent => default.iter().map(|addr| (*addr, owner)).collect(),
        // No follow-up complaint that nobody listens.
        Field::Bad(_) => return default.to_vec(),
    };
    for (addr, place) in &listed {
        claim(*addr, *place, format!("{role} on {addr}"), claims, c);
    }
    listed.into_iter().map(|(addr, _)| addr).collect()
}

fn claim(addr: SocketAddr, place: Place, who: String, claims: &mut Claims, c: &mut Context<'_>) {
    if let Some(other) = claims.claim(addr.ip(), addr.port(), addr.port(), who.clone()) {
        c.out.add(Code::OverlappingListener, place, format!("{who} overlaps {other}"));
    }
}

pub fn timeouts(table: file::Timeouts) -> plan::Timeouts {
    let file::Timeouts { place: _, header, idle, body, send, drain } = table;
    plan::Timeouts {
        header: header.value().map_or(defaults::HEADER, |t| t.0),
        idle: idle.value().map_or(defaults::IDLE, |t| t.0),
        body: body.value().map_or(defaults::BODY, |t| t.0),
        send: send.value().map_or(defaults::SEND, |t| t.0),
        drain: drain.value().map_or(defaults::DRAIN, |t| t.0),
    }
}

pub fn limits(table: file::Limits, c: &mut Context<'_>) -> plan::Limits {
    let file::Limits { place: _, headers, header_count, uri, body, buffer, buffers, streams, resets, underscores } = table;
    let headers = headers.given();
    let uri = uri.given();
    let most = headers.as_ref().map_or(defaults::HEADERS, |at| at.value.0);
    let longest = uri.as_ref().map_or(defaults::URI, |at| at.value.0);
    if longest > most
        && let Some(place) = uri.as_ref().or(headers.as_ref()).map(|at| at.place)
    {
        c.out.add(
            Code::Conflict,
            place,
            format!("limits.uri {longest} is more than limits.headers {most}, which counts the request line too"),
        );
    }
    if let Some(at) = headers.as_ref().filter(|at| at.value.0.0 > 1 << 20) {
        c.out.add(Code::BadValue, at.place, format!("{} is too large for headers: at most 1MB", at.value.0));
    }
    // What is longer than 65534 bytes is no address to the parser, whatever we say.
    if let Some(at) = uri.as_ref().filter(|at| at.value.0.0 > 60 << 10) {
        c.out.add(Code::BadValue, at.place, format!("{} is too large for a uri: at most 60KB", at.value.0));
    }
    if let Field::Given(at) = &buffers
        && at.value.0 < defaults::BUFFER
    {
        c.out.add(
            Code::BadValue,
            at.place,
            format!("limits.buffers {} does not hold even one body: at least {}", at.value.0, defaults::BUFFER),
        );
    }
    plan::Limits {
        headers: most,
        header_count: count(header_count.value().map(|n| n.0), defaults::HEADER_COUNT),
        uri: longest,
        body: body.value().map_or(defaults::BODY_LIMIT, |size| size.0),
        buffer: self::buffer(buffer, c).unwrap_or(Some(defaults::BUFFER)),
        buffers: buffers.value().map(|size| size.0),
        streams: count(streams.value().map(|n| n.0), defaults::STREAMS),
        resets: resets.value().map_or_else(|| pace(defaults::RESETS), |rate| rate.0),
        underscores: match underscores.value() {
            Some(file::UnderscoresWord::Pass) => plan::Underscores::Pass,
            Some(file::UnderscoresWord::Drop) | None => plan::Underscores::Drop,
        },
    }
}

/// How much of a body is held back; `None`: it is not said here.
pub fn buffer(field: Field<OrOff<Size>>, c: &mut Context<'_>) -> Option<Option<ByteSize>> {
    let At { value, place } = field.given()?;
    let size = match value {
        OrOff::Off => return Some(None),
        OrOff::On(Size(size)) => size,
    };
    if size > defaults::BUFFER {
        let cure = "a larger body streams on when so much of it is there";
        c.out.add_with_cure(
            Code::TooLarge,
            place,
            format!("{size} of a body are more than can be sent again: at most {}", defaults::BUFFER),
            cure,
        );
        return None;
    }
    Some(Some(size))
}

pub fn admin(table: file::Admin, claims: &mut Claims, c: &mut Context<'_>) -> Option<plan::Admin> {
    let file::Admin { place, listen, token } = table;
    let has_token = !token.is_absent();
    let token = c.text(token, "a token").map(Secret::new);
    let (addr, at) = match listen {
        Field::Given(At { value: OrOff::On(addr), place }) => (addr.0, place),
        Field::Given(At { value: OrOff::Off, .. }) | Field::Bad(_) => return None,
        Field::Absent => (defaults::ADMIN, place),
    };
    claim(addr, at, format!("admin on {addr}"), claims, c);
    if !addr.ip().is_loopback() && !has_token {
        let cure = "add token = \"{env.GATEWAY_TOKEN}\" to [admin], or listen on 127.0.0.1";
        c.out.add_with_cure(Code::MissingToken, at, format!("admin on {addr} can be reached from other machines and has no token"), cure);
    }
    Some(plan::Admin { listen: addr, token })
}

/// A count that its shape keeps above zero.
pub fn count(written: Option<u32>, default: u32) -> NonZeroU32 {
    NonZeroU32::new(written.unwrap_or(default)).unwrap_or(NonZeroU32::MIN)
}

pub fn pace((count, per): (u32, std::time::Duration)) -> Pace {
    Pace::new(count, per).expect("every default pace is above zero because it is written so in defaults.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_pace_is_one() {
        for default in [defaults::RESETS, defaults::RESTART_BUDGET] {
            assert!(!pace(default).every().is_zero());
        }
    }

    #[test]
    fn any_address_overlaps_each_of_its_family() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(overlap(ip("0.0.0.0"), ip("127.0.0.1")));
        assert!(!overlap(ip("0.0.0.0"), ip("::")));
        assert!(!overlap(ip("10.0.0.1"), ip("127.0.0.1")));
    }
}
