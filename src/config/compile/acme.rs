//! `email` and `[tls] ca, challenges, profile`, and which hosts a CA signs for.
//!
//! Source: RFC 8555 (ACME), RFC 6761 and RFC 6762 (names that nobody registers), CA/Browser Forum Baseline Requirements §4.2.2 (internal names and reserved addresses).

use std::net::IpAddr;

use super::{Context, certificates::certificates};
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Either, Field, List, OneOrMore},
        value::{Mail, Profile, host_of},
    },
    plan,
    vocab::{Host, HostPattern},
};

/// Hosts of directories whose certificates every browser trusts (or would, but for their staging ones).
const PUBLIC: [&str; 5] = [
    "acme-v02.api.letsencrypt.org",
    "acme-staging-v02.api.letsencrypt.org",
    "acme.zerossl.com",
    "dv.acme-v02.api.pki.goog",
    "acme.ssl.com",
];
/// Top levels that nobody can own.
const RESERVED: [&str; 8] = ["local", "internal", "test", "localhost", "invalid", "example", "onion", "alt"];
/// What a profile must be called for a public CA to sign for an address.
const SHORT_LIVED: &str = "shortlived";
/// Names that one certificate holds at most.
const NAMES: usize = 100;

pub fn policy(
    email: Field<Mail>,
    ca: Field<OneOrMore<Either<file::CaWord, file::Ca>>>,
    challenges: Field<List<file::Challenge>>,
    profile: Field<Profile>,
    c: &mut Context<'_>,
) -> plan::Acme {
    plan::Acme {
        email: email.value().map(|mail| mail.0),
        cas: cas(ca, c),
        challenges: self::challenges(challenges, c),
        profile: profile.value().map(|profile| profile.0),
    }
}

fn cas(field: Field<OneOrMore<Either<file::CaWord, file::Ca>>>, c: &mut Context<'_>) -> Vec<plan::Ca> {
    let list = match field {
        Field::Absent => return vec![defaults::letsencrypt()],
        Field::Bad(_) => return Vec::new(),
        Field::Given(list) => list,
    };
    if list.value.0.is_empty() {
        c.out.add_with_cure(
            Code::EmptyValue,
            list.place,
            "no certificate authority is listed",
            "write ca = \"letsencrypt\", or take it out",
        );
    }
    let mut all: Vec<plan::Ca> = Vec::new();
    for At { value, place } in list.value.0 {
        let Some(ca) = one_ca(value, place, c) else { continue };
        if let Some(other) = all.iter().find(|other| other.directory.eq_ignore_ascii_case(&ca.directory)) {
            c.out.add(Code::DuplicateName, place, format!("this directory is the one of {:?}, which is listed already", other.name));
        } else if all.iter().any(|other| other.name == ca.name) {
            let cure = "give one of them another name: { name = \"…\", directory = \"…\" }";
            c.out.add_with_cure(Code::DuplicateName, place, format!("two certificate authorities are called {:?}", ca.name), cure);
        } else {
            all.push(ca);
        }
    }
    all
}

fn one_ca(value: Either<file::CaWord, file::Ca>, place: Place, c: &mut Context<'_>) -> Option<plan::Ca> {
    match value {
        Either::This(file::CaWord::LetsEncrypt) => Some(defaults::letsencrypt()),
        Either::This(file::CaWord::LetsEncryptStaging) => Some(defaults::letsencrypt_staging()),
        Either::This(file::CaWord::ZeroSsl) => {
            no_account("\"zerossl\"", place, c);
            None
        }
        Either::That(table) => ca_table(table, c),
    }
}

fn ca_table(table: file::Ca, c: &mut Context<'_>) -> Option<plan::Ca> {
    let file::Ca { place, name, directory, staging, root, eab_kid, eab_key } = table;
    let directory = directory.required(
        "a certificate authority has no directory",
        place,
        "add directory = \"https://…\", the URL of its ACME directory",
        c.out,
    );
    let staging = staging.given();
    if let (Some(directory), Some(staging)) = (&directory, &staging)
        && directory.value.0.eq_ignore_ascii_case(&staging.value.0)
    {
        let cure = "take staging out: it is another directory, for rehearsals";
        c.out.add_with_cure(Code::Conflict, staging.place, "staging is the directory itself", cure);
    }
    // One that is there but bad has its complaint already.
    let alone = |has: Option<Place>, other: Option<Place>| has.filter(|_| other.is_none());
    if let Some(at) = alone(eab_kid.place(), eab_key.place()) {
        c.out.add_with_cure(Code::MissingKey, at, "eab_kid has no eab_key", "add eab_key = \"{file:…}\": the CA gives both at once");
    }
    if let Some(at) = alone(eab_key.place(), eab_kid.place()) {
        c.out.add_with_cure(Code::MissingKey, at, "eab_key has no eab_kid", "add eab_kid = \"…\": the CA gives both at once");
    }
    let unbound = eab_kid.is_absent() && eab_key.is_absent();
    let kid = c.text(eab_kid, "eab_kid");
    let eab = kid.zip(eab_key.value()).map(|(kid, key)| plan::Eab { kid, key: key.0 });
    let root = root.given().and_then(|at| certificates(at, c));
    let directory = directory?;
    if unbound && directory.value.0 == defaults::ZEROSSL {
        no_account("ZeroSSL", directory.place, c);
    }
    let name = name.value().map_or_else(|| host_of(&directory.value.0), |name| name.0);
    Some(plan::Ca { name, directory: directory.value.0, staging: staging.map(|staging| staging.value.0), root, eab })
}

fn no_account(who: &str, place: Place, c: &mut Context<'_>) {
    let cure = format!("write {{ directory = {:?}, eab_kid = \"…\", eab_key = \"{{file:…}}\" }}", defaults::ZEROSSL);
    c.out.add_with_cure(
        Code::MissingKey,
        place,
        format!("{who} signs only for an account of its own: eab_kid and eab_key are missing"),
        cure,
    );
}

fn challenges(field: Field<List<file::Challenge>>, c: &mut Context<'_>) -> Vec<plan::Challenge> {
    let list = match field {
        Field::Absent => return defaults::CHALLENGES.to_vec(),
        Field::Bad(_) => return Vec::new(),
        Field::Given(list) => list,
    };
    if list.value.0.is_empty() {
        let cure = "write challenges = [\"tls-alpn-01\", \"http-01\"], or take it out";
        c.out.add_with_cure(Code::EmptyValue, list.place, "no challenge is listed, and without one no name can be proven", cure);
    }
    let mut all = Vec::new();
    for At { value, place } in list.value.0 {
        let challenge = match value {
            file::Challenge::TlsAlpn01 => plan::Challenge::TlsAlpn01,
            file::Challenge::Http01 => plan::Challenge::Http01,
            file::Challenge::Dns01 => {
                crate::config::shape::not_yet(place, "dns-01", "use tls-alpn-01 or http-01", c.out);
                continue;
            }
        };
        if all.contains(&challenge) {
            c.out.add(Code::DuplicateName, place, format!("the challenge {:?} is listed twice", challenge.as_str()));
        } else {
            all.push(challenge);
        }
    }
    all
}

/// Whether a CA can sign for every host of a site that wants it to.
///
/// Shape: `asked` are the hosts and aliases as they are written; without `tls` of a good plan nothing follows from a fault that is told already.
pub fn signable(name: &str, tls: &plan::SiteTls, asked: &[At<HostPattern>], policy: &plan::Acme, c: &mut Context<'_>) {
    let on_demand = match tls {
        plan::SiteTls::Acme => false,
        plan::SiteTls::OnDemand { .. } => true,
        plan::SiteTls::Off | plan::SiteTls::Internal | plan::SiteTls::Files { .. } | plan::SiteTls::Directory { .. } => return,
    };
    for At { value, place } in asked {
        if let Some((code, message, cure)) = fault(name, value, on_demand, policy) {
            c.out.add_with_cure(code, *place, message, cure);
        }
    }
    if let Some(beyond) = asked.get(NAMES).filter(|_| !on_demand) {
        let message = format!("site {name:?} has {} names, and one certificate holds at most {NAMES}", asked.len());
        c.out.add_with_cure(Code::TooLarge, beyond.place, message, "divide them among several sites");
    }
}

fn fault(site: &str, host: &HostPattern, on_demand: bool, policy: &plan::Acme) -> Option<(Code, String, String)> {
    let named = match (host, on_demand) {
        (HostPattern::Any, true) => return None,
        (HostPattern::Exact(host), true) => {
            let cure = "give it a [[site]] of its own with tls = \"acme\"";
            return Some((
                Code::Conflict,
                format!("on_demand is for names that are not known before, and {:?} is known", host.as_str()),
                cure.into(),
            ));
        }
        (HostPattern::Any | HostPattern::Wildcard(_), false) => {
            let cure = "list the names, or write tls = { on_demand = \"http://…\" } or { cert, key }; a wildcard would need dns-01, which is not built yet";
            return Some((
                Code::UnsignableHost,
                format!("site {site:?} gets its certificate by ACME, which signs for no pattern: {:?}", host.to_string()),
                cure.into(),
            ));
        }
        (HostPattern::Exact(host) | HostPattern::Wildcard(host), _) => host,
    };
    if named.as_str().contains('_') {
        let cure = "take it out, or write tls = { cert, key } or \"internal\" on a site of its own";
        return Some((
            Code::UnsignableHost,
            format!("no CA signs for {:?}: a name in a certificate has no '_'", host.to_string()),
            cure.into(),
        ));
    }
    let public = policy.cas.first().filter(|ca| is_public(ca))?;
    let never = |why: &str| {
        let cure = "write tls = \"internal\" (our own CA), { cert, key }, or name a CA of your own in [tls] ca";
        Some((Code::UnsignableHost, format!("{} never signs for {:?}: {why}", public.name, host.to_string()), cure.to_owned()))
    };
    if let Ok(ip) = named.as_str().parse::<IpAddr>() {
        if !is_global(ip) {
            return never("it is no address of the internet");
        }
        if policy.profile.as_deref() != Some(SHORT_LIVED) {
            let cure = format!("add profile = {SHORT_LIVED:?} to [tls], or list names alone");
            return Some((
                Code::UnsignableHost,
                format!("{} signs for the address {named} in the profile {SHORT_LIVED:?} alone", public.name),
                cure,
            ));
        }
        return None;
    }
    if is_reserved(named) {
        return never("nobody can own it");
    }
    let single = !named.as_str().contains('.') && matches!(host, HostPattern::Exact(_));
    if single { never("it is no name of the internet, but of one network") } else { None }
}

fn is_public(ca: &plan::Ca) -> bool {
    PUBLIC.contains(&host_of(&ca.directory).as_str())
}

fn is_reserved(host: &Host) -> bool {
    let last = host.as_str().rsplit('.').next().unwrap_or_default();
    RESERVED.contains(&last) || host.as_str() == "home.arpa" || host.as_str().ends_with(".home.arpa")
}

/// Whether the address can be reached from everywhere.
///
/// Source: the IANA registries of special-purpose addresses, of IPv4 and of IPv6.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation() || ip.is_multicast();
            !(special || shared || benchmark || a == 0 || a >= 240)
        }
        IpAddr::V6(ip) => {
            let documentation = ip.segments()[..2] == [0x2001, 0xdb8];
            let mapped = ip.to_ipv4_mapped().is_some();
            let special =
                ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_multicast();
            !(special || documentation || mapped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(ca: plan::Ca, profile: Option<&str>) -> plan::Acme {
        plan::Acme { email: None, cas: vec![ca], challenges: defaults::CHALLENGES.to_vec(), profile: profile.map(str::to_owned) }
    }

    fn own() -> plan::Ca {
        plan::Ca { name: "own".into(), directory: "https://ca.lan/dir".into(), staging: None, root: None, eab: None }
    }

    fn refused(host: &str, policy: &plan::Acme) -> bool {
        fault("s", &HostPattern::parse(host).expect("a host"), false, policy).is_some()
    }

    #[test]
    fn a_public_ca_signs_for_names_of_the_internet_alone() {
        let public = policy(defaults::letsencrypt(), None);
        for bad in
            ["localhost", "nas", "printer.local", "db.internal", "a.test", "a.localhost", "a.invalid", "a.example", "router.home.arpa"]
        {
            assert!(refused(bad, &public), "{bad}");
            assert!(!refused(bad, &policy(own(), None)), "{bad} of an own CA");
        }
        for good in ["example.com", "a-b.example.org", "xn--mnchen-3ya.de", "test.de"] {
            assert!(!refused(good, &public), "{good}");
        }
    }

    #[test]
    fn a_public_ca_signs_for_public_addresses_for_a_short_time() {
        let short = policy(defaults::letsencrypt(), Some("shortlived"));
        for ip in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1", "2001:db8::1"] {
            assert!(refused(ip, &short), "{ip}");
            assert!(!refused(ip, &policy(own(), None)), "{ip} of an own CA");
        }
        for ip in ["9.9.9.9", "2620:fe::fe"] {
            assert!(!refused(ip, &short), "{ip}");
            assert!(refused(ip, &policy(defaults::letsencrypt(), None)), "{ip} for long");
        }
    }

    #[test]
    fn nobody_signs_for_a_pattern_or_an_underscore() {
        for bad in ["_", "*.example.com", "a_b.example.com"] {
            assert!(refused(bad, &policy(own(), None)), "{bad}");
        }
    }
}
