//! What went wrong with an order, in words that one understands at three in the morning, and what to do about it.
//!
//! Pure: from the CA's problem document, or from how the CA was not reached. What a CA wrote is quoted: bounded, and without anything that a terminal would obey.
//!
//! Shape: a text goes on after "could not order a certificate for …: ".
//! Source: RFC 8555 §6.7, RFC 9773 §5 (alreadyReplaced), draft-ietf-acme-profiles (invalidProfile); wordings of Boulder and Pebble.

use jiff::Timestamp;

use crate::{plan::Challenge, rules::renewal::Failure};

/// Of the CA's own words, in characters as they are shown.
const QUOTED_MAX: usize = 300;
/// As much of a detail is looked at.
const READ_MAX: usize = 8 * 1024;
const URN: &str = "urn:ietf:params:acme:error:";

/// A problem document (RFC 7807), of an answer or of a challenge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Problem<'a> {
    /// `urn:ietf:params:acme:error:…`; may be empty.
    pub kind: &'a str,
    pub detail: &'a str,
    pub status: Option<u16>,
    /// The name that it is about.
    pub identifier: Option<&'a str>,
    /// Of the challenge that failed.
    pub challenge: Option<Challenge>,
}

/// Why nothing was heard from the CA, or nothing that makes sense. The text is of whoever noticed it.
#[derive(Clone, Copy, Debug)]
pub enum Silence<'a> {
    /// Its name was not resolved.
    Dns(&'a str),
    Refused,
    Timeout,
    /// Its certificate is not trusted, or the handshake failed.
    Tls(&'a str),
    /// An answer without a problem document.
    Status(u16),
    /// An answer that is not understood.
    Garbage(&'a str),
    /// Of any other kind.
    Broken(&'a str),
}

/// In words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    pub text: String,
    pub advice: Option<String>,
    pub failure: Failure,
    /// The moment that the text of the CA names, in Unix seconds.
    pub retry_after: Option<i64>,
}

/// What the CA said.
#[must_use]
pub fn problem(problem: &Problem) -> Explained {
    let detail = head(problem.detail);
    let low = detail.to_ascii_lowercase();
    let retry_after = moment(detail);
    let about = About { name: &name(problem.identifier), low: &low, port: port(problem, &low), until: retry_after };
    let Cause { text, advice, failure } = cause(problem, &about);
    let said = if detail.trim().is_empty() { String::new() } else { format!(" (the CA said: \"{}\")", quoted(detail)) };
    Explained { text: text + &said, advice, failure, retry_after }
}

/// How the CA at `host` was not reached.
#[must_use]
pub fn silence(host: &str, silence: &Silence) -> Explained {
    let host = quoted(host);
    let advice_way = "look whether this machine reaches the internet: name servers, routes, a firewall for outgoing connections";
    let Cause { text, advice, failure } = match silence {
        Silence::Dns(why) => cause_of(
            format!("the name of the CA, {host}, was not resolved{}", because(why)),
            "look at the name servers of this machine (/etc/resolv.conf)",
            Failure::Unreachable,
        ),
        Silence::Refused => cause_of(format!("the CA at {host} refuses connections"), advice_way, Failure::Unreachable),
        Silence::Timeout => cause_of(format!("the CA at {host} did not answer in time"), advice_way, Failure::Unreachable),
        Silence::Tls(why) => cause_of(
            format!("the connection to the CA at {host} is not to be trusted{}", because(why)),
            "a private CA needs `root` in [tls] ca; else look at the clock of this machine, and at what stands between it and the CA",
            Failure::Unreachable,
        ),
        Silence::Status(status) => {
            let failure = by_status(Some(*status));
            Cause { text: format!("the CA at {host} answered {status}"), advice: None, failure }
        }
        Silence::Garbage(why) => cause_of(
            format!("the CA at {host} answered what is not understood{}", because(why)),
            "look whether [tls] ca names the CA's directory, and whether a proxy answers in its place",
            Failure::Broken,
        ),
        Silence::Broken(why) => {
            Cause { text: format!("the CA at {host} was of no use{}", because(why)), advice: None, failure: Failure::Broken }
        }
    };
    Explained { text, advice, failure, retry_after: None }
}

/// What the words are made of.
struct About<'a> {
    name: &'a str,
    /// The detail in lower case.
    low: &'a str,
    port: Option<u16>,
    until: Option<i64>,
}

impl About<'_> {
    fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.low.contains(word))
    }

    fn port_text(&self) -> String {
        self.port.map_or_else(|| "ports 80 and 443".to_owned(), |port| format!("port {port}"))
    }
}

struct Cause {
    text: String,
    advice: Option<String>,
    failure: Failure,
}

fn cause_of(text: impl Into<String>, advice: impl Into<String>, failure: Failure) -> Cause {
    Cause { text: text.into(), advice: Some(advice.into()), failure }
}

fn cause(problem: &Problem, about: &About) -> Cause {
    let name = about.name;
    match problem.kind.strip_prefix(URN).or_else(|| problem.kind.strip_prefix("urn:acme:error:")).unwrap_or(problem.kind) {
        "caa" => caa(about),
        "dns" => dns(about).unwrap_or_else(|| lookup(about)),
        "connection" => dns(about).or_else(|| connection(about)).unwrap_or_else(|| unreached(about, "the CA could not connect to")),
        "tls" => connection(about).unwrap_or_else(|| wrong_tls(about)),
        "incorrectResponse" => wrong(about).unwrap_or_else(|| wrong_http(about)),
        "unauthorized" => unauthorized(problem, about),
        "rateLimited" => rate_limited(about),
        "accountDoesNotExist" => cause_of(
            "the CA does not know our account",
            "it is made anew at the next try; if this goes on, look whether STATE/edge is kept and [tls] ca is the CA it was made at",
            Failure::Refused,
        ),
        "externalAccountRequired" => cause_of(
            "the CA wants an account that it knows already (external account binding)",
            "get a key id and a key on the CA's website, and set `eab_kid` and `eab_key` in [tls] ca",
            Failure::Refused,
        ),
        "userActionRequired" => cause_of(
            "the CA wants something of you first, often consent to new terms",
            "follow the address that it names; after that `gateway certs renew HOST` tries at once",
            Failure::Refused,
        ),
        "invalidContact" | "unsupportedContact" => {
            cause_of("the CA does not take our email address", "set `email` to an address that exists, or leave it out", Failure::Refused)
        }
        "rejectedIdentifier" => cause_of(
            format!("the CA signs nothing for {name}"),
            "its own rules forbid it: the name is on a list, no public name, or misspelt; name another CA in [tls] ca, or use tls = \"internal\"",
            Failure::Refused,
        ),
        "unsupportedIdentifier" => cause_of(
            format!("the CA does not sign for names of the kind of {name}"),
            "address literals and wildcards need a CA that offers them",
            Failure::Refused,
        ),
        "badCSR" => cause_of(
            "the CA does not like what we asked it to sign",
            "look whether the site's hosts are names that can be in a certificate, none too long and not too many",
            Failure::Refused,
        ),
        "invalidProfile" => cause_of(
            "the CA does not offer the profile that is asked for",
            "take `profile` out of [tls], or name one of those that the CA's directory lists",
            Failure::Refused,
        ),
        "alreadyReplaced" => Cause {
            text: "the CA says that this certificate was replaced already".to_owned(),
            advice: Some("nothing has to be done, unless a second gateway looks after the same names".to_owned()),
            failure: Failure::Refused,
        },
        "badPublicKey" | "badSignatureAlgorithm" => {
            cause_of("the CA does not take keys of our kind (ECDSA P-256)", "name another CA in [tls] ca", Failure::Refused)
        }
        "alreadyRevoked" | "badRevocationReason" => plain("the CA does not revoke that certificate", Failure::Refused),
        "badNonce" => plain("the CA refused our nonce again and again", Failure::Broken),
        "orderNotReady" => plain("the CA says that the order is not ready yet", Failure::Broken),
        "malformed" => plain("the CA did not understand us", Failure::Broken),
        "compound" => plain("the CA found several faults", Failure::Validation),
        "serverInternal" => plain("the CA has a fault of its own, or is down for maintenance", Failure::Unreachable),
        _ => match (about.says(&["service busy"]), problem.status) {
            (true, _) => plain("the CA is busy", Failure::RateLimited),
            (false, Some(429)) => rate_limited(about),
            (false, Some(500..)) => plain("the CA has a fault of its own, or is down for maintenance", Failure::Unreachable),
            (false, _) if problem.challenge.is_some() => validation(about),
            (false, status) => plain("the CA refused", by_status(status)),
        },
    }
}

fn plain(text: &str, failure: Failure) -> Cause {
    Cause { text: text.to_owned(), advice: None, failure }
}

fn by_status(status: Option<u16>) -> Failure {
    match status {
        Some(429) => Failure::RateLimited,
        Some(500..) => Failure::Unreachable,
        Some(401 | 403) => Failure::Refused,
        Some(_) | None => Failure::Broken,
    }
}

/// Of a challenge, or of our account: CAs use the one word for both.
fn unauthorized(problem: &Problem, about: &About) -> Cause {
    if problem.challenge.is_some() || problem.identifier.is_some() {
        return validation(about);
    }
    if let Some(cause) = dns(about).or_else(|| connection(about)).or_else(|| wrong(about)) {
        return cause;
    }
    cause_of(
        "the CA does not accept our account",
        "look at `eab_kid` and `eab_key` in [tls] ca where it has them; if the account was closed, put STATE/edge/certs/.accounts aside and restart: a new one is made",
        Failure::Refused,
    )
}

fn validation(about: &About) -> Cause {
    dns(about).or_else(|| connection(about)).or_else(|| wrong(about)).unwrap_or_else(|| {
        cause_of(
            format!("the CA did not find that {} is ours", about.name),
            format!("look whether the name points to this machine, and whether {} of it can be reached from outside", about.port_text()),
            Failure::Validation,
        )
    })
}

fn caa(about: &About) -> Cause {
    if about.says(&["servfail", "timed out", "timeout", "looking up caa"]) && !about.says(&["prevents issuance"]) {
        return lookup(about);
    }
    cause_of(
        format!("a CAA record in the DNS forbids this CA to sign for {}", about.name),
        format!(
            "change the CAA records of {} and the domains above it so that they name this CA, or name one that they allow in [tls] ca",
            about.name
        ),
        Failure::Validation,
    )
}

fn dns(about: &About) -> Option<Cause> {
    let name = about.name;
    if about.says(&["prevents issuance"]) {
        return Some(caa(about));
    }
    if about.says(&[
        "nxdomain",
        "no such host",
        "no valid a records",
        "no valid aaaa records",
        "no valid ip addresses",
        "no ip address",
        "unknownhost",
        "could not resolve url",
    ]) {
        return Some(cause_of(
            format!("{name} has no address in the DNS"),
            format!(
                "add an A or AAAA record that points {name} to this machine; after a change it may take as long as the old answer was valid for"
            ),
            Failure::Validation,
        ));
    }
    about.says(&["servfail", "dnssec", "dns problem", "looking up a", "looking up caa"]).then(|| lookup(about))
}

fn lookup(about: &About) -> Cause {
    cause_of(
        format!("the CA could not look up {} in the DNS", about.name),
        "look at the domain's name servers: one is down, does not answer for the domain, or DNSSEC is broken",
        Failure::Validation,
    )
}

fn connection(about: &About) -> Option<Cause> {
    if about.says(&["redirect"]) {
        return Some(cause_of(
            format!("the CA was sent elsewhere when it asked {} for the challenge", about.name),
            "whatever answers on port 80 of that name redirects /.well-known/acme-challenge/: let it come here",
            Failure::Validation,
        ));
    }
    if about.says(&["timeout after connect", "timeout during read"]) {
        return Some(cause_of(
            format!(
                "the machine that {} points to took the CA's connection on {} and did not answer in time",
                about.name,
                about.port_text()
            ),
            "look whether the name points to this machine, and whether something in between (proxy, load balancer) holds the connection",
            Failure::Validation,
        ));
    }
    for (words, what) in [
        (&["connection refused"][..], "is refused a connection to"),
        (&["timeout", "timed out", "deadline exceeded", "no route to host", "unreachable"], "does not get through to"),
        (&["connection reset", "eof", "broken pipe", "error getting validation data"], "is cut off by"),
        (&["failed to connect to"], "could not connect to"),
    ] {
        if about.says(words) {
            return Some(unreached(about, &format!("the CA {what}")));
        }
    }
    None
}

/// Advice by the port: which it is, and who may close it.
fn unreached(about: &About, what: &str) -> Cause {
    let ports = about.port_text();
    let far = if about.says(&["secondary validation"]) {
        "; it asks from several parts of the world, and a firewall that lets only some of them in is in the way"
    } else {
        ""
    };
    cause_of(
        format!("{what} {ports} of {}", about.name),
        format!(
            "open {ports} to everyone in every firewall (machine, provider, router), and look whether the name points to this machine, by IPv6 too{far}"
        ),
        Failure::Validation,
    )
}

fn wrong(about: &About) -> Option<Cause> {
    if about.says(&[
        "cannot negotiate alpn",
        "incorrect validation certificate",
        "no certs presented",
        "tls:",
        "tls alert",
        "unrecognized name",
        "handshake",
    ]) {
        return Some(wrong_tls(about));
    }
    about.says(&["invalid response from", "did not match this challenge", "non-200 status"]).then(|| wrong_http(about))
}

fn wrong_tls(about: &About) -> Cause {
    cause_of(
        format!("something else than this gateway answers on port 443 of {}", about.name),
        "the name points to another machine, or a proxy or CDN in front ends TLS itself: let it pass TLS through, or set challenges = [\"http-01\"] in [tls]",
        Failure::Validation,
    )
}

fn wrong_http(about: &About) -> Cause {
    cause_of(
        format!("something else than this gateway answers on port 80 of {}", about.name),
        "the name points to another machine (look at A and AAAA both), or a proxy in front does not pass /.well-known/acme-challenge/ on to here",
        Failure::Validation,
    )
}

fn rate_limited(about: &About) -> Cause {
    let name = about.name;
    let (what, advice) = if about.says(&["failed authorizations", "failed validation"]) {
        (
            format!("too many validations of {name} have failed lately"),
            "mend what made them fail; it is tried again after that time".to_owned(),
        )
    } else if about.says(&["exact set"]) {
        let advice = "keep the state directory between starts: a gateway that begins without its certificates orders them all anew";
        ("it has signed for just these names too often lately".to_owned(), advice.to_owned())
    } else if about.says(&["too many certificates"]) {
        (
            "it has signed too many certificates for the domain lately".to_owned(),
            "nothing has to be done: it is tried again then".to_owned(),
        )
    } else {
        ("we asked too often".to_owned(), "nothing has to be done: it is tried again then".to_owned())
    };
    let until = about.until.and_then(|at| Timestamp::from_second(at).ok());
    let until = until.map(|at| format!(" until {}", at.strftime("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default();
    cause_of(format!("the CA's rate limit holds us off{until}: {what}"), advice, Failure::RateLimited)
}

/// The port of the challenge; by the CA's words where it is not known.
fn port(problem: &Problem, low: &str) -> Option<u16> {
    match problem.challenge {
        Some(Challenge::Http01) => Some(80),
        Some(Challenge::TlsAlpn01) => Some(443),
        None if low.contains("tls-alpn-01") => Some(443),
        None if low.contains("http://") => Some(80),
        None => None,
    }
}

fn name(identifier: Option<&str>) -> String {
    identifier.map_or_else(|| "the name".to_owned(), quoted)
}

/// "retry after 2026-01-05 12:34:56 UTC", and the same as RFC 3339.
fn moment(detail: &str) -> Option<i64> {
    const WORDS: &str = "retry after ";
    let at = detail.to_ascii_lowercase().find(WORDS)? + WORDS.len();
    let mut words = detail.get(at..)?.split_ascii_whitespace().map(|word| word.trim_end_matches([',', '.', ':', ';', ')']));
    let day = words.next()?;
    let stamp = match day.parse::<Timestamp>() {
        Ok(stamp) => stamp,
        Err(_) => format!("{day}T{}Z", words.next()?).parse().ok()?,
    };
    Some(stamp.as_second())
}

fn because(why: &str) -> String {
    let why = head(why).trim();
    if why.is_empty() { String::new() } else { format!(": {}", quoted(why)) }
}

/// The first part of a text that may be of any length.
fn head(text: &str) -> &str {
    let mut end = text.len().min(READ_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text of others: one line, nothing invisible, quotes marked, no longer than [`QUOTED_MAX`].
fn quoted(text: &str) -> String {
    let mut safe = String::new();
    let mut length = 0;
    for c in head(text).trim().chars() {
        let piece: String = if c == '\'' { c.to_string() } else { c.escape_debug().collect() };
        length += piece.chars().count();
        if length > QUOTED_MAX - 1 {
            safe.push('…');
            break;
        }
        safe.push_str(&piece);
    }
    safe
}

#[cfg(test)]
mod tests;
