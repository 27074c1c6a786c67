//! Attacks: payloads as a tester types them (`attacks/*.txt`), times places, times disguises that some backend takes off again.
//!
//! Shape: a line of a file is one payload; `␊ ␍ ␉ ␀ ␠` stand for what a line cannot hold. A line `@ places | disguises` says where the payloads below it are put
//!        besides bare. `target` and `raw…` payloads are bytes of the wire and taken as they are.
//!        A fifth of the payloads is held out: fixed by a hash of the payload, so that a new one moves no other.

use std::collections::HashSet;

use super::{
    Body, Request,
    dice::Dice,
    disguise::{self, Disguise},
    wire::{self, Style},
};

/// One attack. Only the part of `request` that `place` names is hostile.
#[derive(Debug)]
pub struct Attack {
    pub family: &'static str,
    pub held_out: bool,
    pub payload: String,
    pub place: Place,
    pub request: Request,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Place {
    /// The whole target, or the whole query, as typed.
    Target,
    Query,
    Name,
    Path,
    Form,
    Multipart,
    Json,
    Header,
    Agent,
    Method,
}

const FAMILIES: [(&str, &str); 16] = [
    ("traversal", include_str!("attacks/traversal.txt")),
    ("probe", include_str!("attacks/probe.txt")),
    ("sqli", include_str!("attacks/sqli.txt")),
    ("nosql", include_str!("attacks/nosql.txt")),
    ("ldap-xpath-graphql", include_str!("attacks/ldap_xpath_graphql.txt")),
    ("xss", include_str!("attacks/xss.txt")),
    ("command", include_str!("attacks/command.txt")),
    ("template", include_str!("attacks/template.txt")),
    ("include-ssrf", include_str!("attacks/include.txt")),
    ("code", include_str!("attacks/code.txt")),
    ("split", include_str!("attacks/split.txt")),
    ("xxe-ssi-esi", include_str!("attacks/xxe_ssi_esi.txt")),
    ("prototype", include_str!("attacks/prototype.txt")),
    ("exploit", include_str!("attacks/exploit.txt")),
    ("scanner", include_str!("attacks/scanner.txt")),
    ("method", include_str!("attacks/method.txt")),
];

/// All attacks, none twice.
pub fn all() -> Vec<Attack> {
    let mut seen = HashSet::new();
    let mut attacks = Vec::new();
    for (family, text) in FAMILIES {
        let mut dice = Dice::new(hash(family));
        let payloads = payloads(text);
        let each = (2400 / payloads.len()).clamp(8, 16);
        for (section, payload) in &payloads {
            for turn in 0..each {
                let (place, disguise) = section.choose(turn, &mut dice);
                let Some(request) = put(family, payload, place, disguise, &mut dice) else { continue };
                let place = if matches!(request.body, Body::Parts(_)) { Place::Multipart } else { spot(place) };
                let attack = Attack { family, held_out: hash(payload).is_multiple_of(5), payload: (*payload).clone(), place, request };
                if seen.insert(attack.request.clone()) {
                    attacks.push(attack);
                }
            }
        }
    }
    attacks
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone)]
struct Section {
    places: Vec<&'static str>,
    disguises: Vec<Disguise>,
}

impl Section {
    /// First bare in the first place, then what the dice say.
    fn choose(&self, turn: usize, dice: &mut Dice) -> (&'static str, Disguise) {
        let bare = turn == 0 || self.disguises.is_empty() || dice.chance(30);
        let place = if turn == 0 { self.places[0] } else { dice.pick(&self.places) };
        (place, if bare { Disguise::Bare } else { self.disguises[dice.below(self.disguises.len())] })
    }
}

fn payloads(text: &'static str) -> Vec<(Section, String)> {
    let mut section = None;
    let mut payloads = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let head = line.strip_prefix("@ ").filter(|head| head.chars().all(|c| c.is_ascii_alphanumeric() || " |!:-.".contains(c)));
        if let Some(head) = head {
            let (places, disguises) = head.split_once('|').unwrap_or((head, ""));
            let disguises = disguises.split_whitespace().map(disguise::parse).collect();
            section = Some(Section { places: places.split_whitespace().collect(), disguises });
        } else {
            let payload = line.replace('␊', "\n").replace('␍', "\r").replace('␉', "\t").replace('␀', "\0").replace('␠', " ");
            payloads.push((section.clone().expect("a file begins with its places"), payload));
        }
    }
    payloads
}

fn spot(place: &str) -> Place {
    match place {
        "target" | "rawquery" => Place::Target,
        "query" => Place::Query,
        "name" => Place::Name,
        "path" => Place::Path,
        "form" | "rawform" => Place::Form,
        "json" | "rawjson" => Place::Json,
        "agent!" => Place::Agent,
        "method" => Place::Method,
        _ => Place::Header,
    }
}

/// The request that brings `payload`, or `None` where it cannot stand there.
fn put(family: &str, payload: &str, place: &str, disguise: Disguise, dice: &mut Dice) -> Option<Request> {
    let text = disguise::mutate(family, &lead(family, payload, dice), disguise, dice).into_bytes();
    let style = Style::any(dice);
    let wired = |plain: Vec<u8>, dice: &mut Dice| match disguise {
        Disguise::Full => wire::full(&text, dice),
        Disguise::Double => wire::double(&text),
        Disguise::Unicode => wire::unicode(&text),
        Disguise::Overlong => wire::overlong(&text),
        _ => plain,
    };
    let request = match place {
        "target" => Request::get(wire::line(payload.as_bytes())),
        "rawquery" => Request::get(wire::line(format!("{}?{payload}", dice.pick(PATHS)).as_bytes())),
        "query" => {
            let plain = wire::value(&text, style, dice);
            let value = wired(plain, dice);
            Request::get([dice.pick(PATHS).as_bytes(), b"?", &pairs(family, &value, dice)].concat())
        }
        "name" => {
            let plain = wire::name(&text, style);
            Request::get([dice.pick(PATHS).as_bytes(), b"?page=2&", &wired(plain, dice), b"=1"].concat())
        }
        "path" => {
            let plain = wire::segment(&text, style);
            let wired = wired(plain, dice);
            let tail: &[u8] = if dice.chance(30) { b"/edit" } else { b"" };
            Request::get([dice.pick(&["/", "/item/", "/news/2024/", "/api/v1/users/", "/files/"]).as_bytes(), &wired, tail].concat())
        }
        "form" if dice.chance(25) && !disguise.is_of_the_wire() => {
            Request { method: "POST".into(), body: Body::Parts(parts(family, &text, dice)), ..Request::get(dice.pick(PATHS)) }
        }
        "form" => {
            let plain = wire::value(&text, style, dice);
            let value = wired(plain, dice);
            let body = Body::Form(pairs(family, &value, dice));
            Request { method: "POST".into(), body, ..Request::get(dice.pick(PATHS)) }
        }
        "rawform" => Request { method: "POST".into(), body: Body::Form(payload.into()), ..Request::get(dice.pick(PATHS)) },
        "json" => {
            let value = wire::json(&text, matches!(disguise, Disguise::Full | Disguise::Unicode));
            let name = dice.pick(names(family));
            let body = match dice.below(3) {
                0 => [b"{\"".as_slice(), name.as_bytes(), b"\":", &value, b"}"].concat(),
                1 => [b"{\"page\": 1, \"filter\": {\"".as_slice(), name.as_bytes(), b"\": ", &value, b"}, \"ok\": true}"].concat(),
                _ => [b"{\"items\":[{\"id\":7,\"".as_slice(), name.as_bytes(), b"\":[\"a\",", &value, b"]}]}"].concat(),
            };
            Request { method: "POST".into(), body: Body::Json(body), ..Request::get(dice.pick(PATHS)) }
        }
        "rawjson" => Request { method: "POST".into(), body: Body::Json(payload.into()), ..Request::get(dice.pick(PATHS)) },
        "cookie" => {
            let plain = wire::cookie(&text, style);
            let value = wired(plain, dice);
            let session = dice.hex(16);
            let name = dice.pick(&["theme", "lang", "user", "cart", "TrackingId", "last_seen"]);
            Request::get("/").header("cookie", [format!("session={session}; {name}=").as_bytes(), &value, b"; seen=1"].concat())
        }
        "referer" => {
            let plain = wire::value(&text, style, dice);
            let value = wired(plain, dice);
            let host = dice.pick(&["https://shop.example/search?q=", "https://www.google.com/?q=", "http://news.example/?p=3&ref="]);
            let bare = dice.chance(30) && header_text(&text);
            Request::get("/").header("referer", if bare { text.clone() } else { [host.as_bytes(), &value].concat() })
        }
        "agent" => Request::get("/").header("user-agent", [dice.pick(&["", "Mozilla/5.0 ", "x "]).as_bytes(), &text].concat()),
        "agent!" => Request::get("/").header("user-agent", payload),
        "forwarded" => {
            let name = dice.pick(&["x-forwarded-for", "x-real-ip", "true-client-ip", "x-client-ip", "x-forwarded-host", "forwarded"]);
            Request::get("/").header(name, [dice.pick(&["", "", "203.0.113.9, "]).as_bytes(), &text].concat())
        }
        "apiversion" => {
            Request::get("/").header(dice.pick(&["x-api-version", "x-requested-with", "x-request-id", "if-none-match"]), text.clone())
        }
        "accept" => {
            let lead = dice.pick(&["", "", "en-GB,"]).as_bytes();
            Request::get("/").header(dice.pick(&["accept-language", "accept", "origin", "authorization"]), [lead, &text].concat())
        }
        "method" => Request { method: payload.to_owned(), ..Request::get("/") },
        other => {
            let name = other.strip_prefix("header:").expect("a place is one of the above");
            Request::get("/").header(&name.to_ascii_lowercase(), payload)
        }
    };
    request.headers.iter().all(|(_, value)| header_text(value)).then_some(request)
}

fn header_text(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// Payloads that break out of a value mostly follow one.
fn lead(family: &str, payload: &str, dice: &mut Dice) -> String {
    let words: &[&str] = match family {
        "sqli" => &["1", "42", "admin", "shoes", "-1", "x"],
        "command" => &["127.0.0.1", "file.txt", "x", "report"],
        "nosql" | "ldap-xpath-graphql" => &["admin", "x"],
        "xss" if payload.starts_with(['\'', '"', '`', '\\']) => &["a", "shoes", "1"],
        _ => &[],
    };
    if words.is_empty() || !payload.starts_with(['\'', '"', '`', ')', ';', '|', '&', '%', '*']) || dice.chance(50) {
        payload.to_owned()
    } else {
        format!("{}{payload}", dice.pick(words))
    }
}

const PATHS: &[&str] = &[
    "/",
    "/search",
    "/item",
    "/api/v1/products",
    "/news",
    "/login",
    "/download",
    "/view",
    "/account/settings",
    "/api/users/42/orders",
    "/index",
];

fn names(family: &str) -> &'static [&'static str] {
    match family {
        "traversal" | "include-ssrf" => &["file", "page", "path", "template", "doc", "url", "lang", "img", "dest", "include"],
        "command" => &["ip", "host", "file", "name", "cmd", "domain", "dir"],
        "split" => &["url", "next", "lang", "redirect", "email", "name"],
        _ => &["id", "q", "name", "user", "category", "sort", "comment", "search", "email", "title"],
    }
}

/// A multipart form with the payload as a value, or as the name of a file.
fn parts(family: &str, text: &[u8], dice: &mut Dice) -> Vec<u8> {
    let as_file = matches!(family, "traversal" | "command" | "template" | "xss") && dice.chance(30);
    let hostile = match std::str::from_utf8(text) {
        Ok(name) if as_file => wire::part("upload", Some((name, "image/png")), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        _ => wire::part(dice.pick(names(family)), None, text),
    };
    [wire::part("token", None, b"8f3a9c"), hostile, wire::part("submit", None, b"Go"), wire::last()].concat()
}

/// `name=value` between honest neighbours.
fn pairs(family: &str, value: &[u8], dice: &mut Dice) -> Vec<u8> {
    let before = dice.pick(&["", "", "", "page=1&", "lang=en&view=list&", "token=8f3a9c&"]);
    let after = dice.pick(&["", "", "", "&submit=Go", "&sort=price&order=asc", "&utm_source=mail"]);
    let name = dice.pick(names(family));
    [before.as_bytes(), name.as_bytes(), b"=", value, after.as_bytes()].concat()
}
