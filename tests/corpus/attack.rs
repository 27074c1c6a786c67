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
    /// A body of another type than the three: plain text, XML, none at all, …
    Typed,
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

/// The second corpus: a row of the table, the family that its payloads are disguised as, and the payloads.
const KINDS: [(&str, &str, &str); 23] = [
    ("command: lone / or .", "command", include_str!("attacks/kinds/command_bare.txt")),
    ("command: everyday", "command", include_str!("attacks/kinds/command_everyday.txt")),
    ("command: nested", "command", include_str!("attacks/kinds/command_nested.txt")),
    ("command: variables", "command", include_str!("attacks/kinds/command_variable.txt")),
    ("command: globs, IFS", "command", include_str!("attacks/kinds/command_globs.txt")),
    ("command: after text", "command", include_str!("attacks/kinds/command_after_text.txt")),
    ("sql: quotes", "sqli", include_str!("attacks/kinds/sql_quotes.txt")),
    ("sql: identifiers", "sqli", include_str!("attacks/kinds/sql_identifiers.txt")),
    ("sql: joined numbers", "sqli", include_str!("attacks/kinds/sql_joined.txt")),
    ("sql: brackets", "sqli", include_str!("attacks/kinds/sql_brackets.txt")),
    ("sql: union", "sqli", include_str!("attacks/kinds/sql_union.txt")),
    ("sql: functions", "sqli", include_str!("attacks/kinds/sql_functions.txt")),
    ("sql: split, stacked", "sqli", include_str!("attacks/kinds/sql_split.txt")),
    ("script: indirect", "xss", include_str!("attacks/kinds/script_indirect.txt")),
    ("script: junk, old", "xss", include_str!("attacks/kinds/script_junk.txt")),
    ("paths", "include-ssrf", include_str!("attacks/kinds/paths_absolute.txt")),
    ("code and templates", "code", include_str!("attacks/kinds/code_calls.txt")),
    ("ssrf: odd hosts", "include-ssrf", include_str!("attacks/kinds/ssrf_odd.txt")),
    ("agent", "command", include_str!("attacks/kinds/agent_command.txt")),
    ("probe: files", "probe", include_str!("attacks/kinds/probe_files.txt")),
    ("gadgets, entities", "code", include_str!("attacks/kinds/java_gadgets.txt")),
    ("bodies", "code", include_str!("attacks/kinds/body_mix.txt")),
    ("exploits", "exploit", include_str!("attacks/kinds/cve_targets.txt")),
];

/// All attacks of the first corpus, none twice.
pub fn all() -> Vec<Attack> {
    made(FAMILIES.into_iter().map(|(family, text)| (family, family, text)))
}

/// Those of the second.
pub fn wide() -> Vec<Attack> {
    made(KINDS.into_iter())
}

/// Whether a text is one of the fifth that nobody sees.
pub fn held_out(text: &str) -> bool {
    hash(text).is_multiple_of(5)
}

fn made(kinds: impl Iterator<Item = (&'static str, &'static str, &'static str)>) -> Vec<Attack> {
    let mut seen = HashSet::new();
    let mut attacks = Vec::new();
    for (row, family, text) in kinds {
        let mut dice = Dice::new(hash(row));
        let payloads = payloads(text);
        let each = (2400 / payloads.len()).clamp(8, 16);
        for (section, payload) in &payloads {
            for turn in 0..each {
                let (place, disguise) = section.choose(turn, &mut dice);
                let Some(request) = put(family, payload, place, disguise, &mut dice) else { continue };
                let place = match request.body {
                    Body::Parts(_) => Place::Multipart,
                    Body::Typed(..) => Place::Typed,
                    _ => spot(place),
                };
                let attack = Attack { family: row, held_out: held_out(payload), payload: (*payload).clone(), place, request };
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
        "text" | "none" | "odd" | "xml" | "graphql" | "ndjson" | "typedpart" | "filename" | "formasjson" | "jsonasform" | "utf16" => {
            let body = typed(family, &text, place, style, dice)?;
            Request { method: "POST".into(), body, ..Request::get(dice.pick(PATHS)) }
        }
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

/// A body of a type that says little or the wrong thing.
fn typed(family: &str, text: &[u8], place: &str, style: Style, dice: &mut Dice) -> Option<Body> {
    let name = dice.pick(names(family));
    let json = |text: &[u8]| [b"{\"id\":7,\"".as_slice(), name.as_bytes(), b"\":", &wire::json(text, false), b"}"].concat();
    let plain = |text: &[u8]| wire::replace(&wire::replace(text, b"&", b"&amp;"), b"<", b"&lt;");
    let of = |kind: &str, body: Vec<u8>| Some(Body::Typed(Some(kind.to_owned()), body));
    match place {
        "text" => match dice.below(3) {
            0 => of("text/plain;charset=UTF-8", json(text)),
            1 => of("text/plain", [name.as_bytes(), b"=", text].concat()),
            _ => of("text/plain", text.to_vec()),
        },
        "none" => {
            let value = wire::value(text, style, dice);
            Some(Body::Typed(None, if dice.chance(50) { json(text) } else { pairs(family, &value, dice) }))
        }
        "odd" => of(
            dice.pick(&[
                "application/octet-stream",
                "application/vnd.example+json",
                "text/json",
                "application/x-www-form-urlencoded-x",
                "*/*",
                "application/csp-report",
            ]),
            json(text),
        ),
        "xml" => {
            let head = b"<?xml version=\"1.0\"?>";
            let body = if text.starts_with(b"<") && dice.chance(50) {
                text.to_vec()
            } else {
                [b"<r><a>1</a><".as_slice(), name.as_bytes(), b">", &plain(text), b"</", name.as_bytes(), b"></r>"].concat()
            };
            of(dice.pick(&["application/xml", "text/xml; charset=utf-8", "application/soap+xml"]), [head.as_slice(), &body].concat())
        }
        "graphql" => {
            let query = [b"{ find(".as_slice(), name.as_bytes(), b": ", &wire::json(text, false), b") { id } }"].concat();
            if dice.chance(50) {
                of("application/graphql", query)
            } else {
                of("application/json", [b"{\"query\":".as_slice(), &wire::json(&query, false), b"}"].concat())
            }
        }
        "ndjson" => of("application/x-ndjson", [b"{\"index\":{}}\n".as_slice(), &json(text), b"\n"].concat()),
        "typedpart" => {
            let part = [
                format!(
                    "--{}\r\ncontent-disposition: form-data; name=\"{name}\"\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n",
                    wire::BOUNDARY
                )
                .as_bytes(),
                text,
                b"\r\n",
                &wire::last(),
            ]
            .concat();
            Some(Body::Parts(part))
        }
        "filename" => {
            let file = std::str::from_utf8(text).ok()?;
            Some(Body::Parts([wire::part("upload", Some((file, "image/png")), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), wire::last()].concat()))
        }
        "formasjson" => {
            let value = wire::value(text, style, dice);
            of("application/json", pairs(family, &value, dice))
        }
        "jsonasform" => of("application/x-www-form-urlencoded", json(text)),
        _ => {
            let text = String::from_utf8(json(text)).ok()?;
            let mark = if dice.chance(50) { [0xfe, 0xff] } else { [0xff, 0xfe] };
            let unit = |unit: u16| if mark[0] == 0xfe { unit.to_be_bytes() } else { unit.to_le_bytes() };
            of("application/json; charset=utf-16", mark.into_iter().chain(text.encode_utf16().flat_map(unit)).collect())
        }
    }
}

/// `name=value` between honest neighbours.
fn pairs(family: &str, value: &[u8], dice: &mut Dice) -> Vec<u8> {
    let before = dice.pick(&["", "", "", "page=1&", "lang=en&view=list&", "token=8f3a9c&"]);
    let after = dice.pick(&["", "", "", "&submit=Go", "&sort=price&order=asc", "&utm_source=mail"]);
    let name = dice.pick(names(family));
    [before.as_bytes(), name.as_bytes(), b"=", value, after.as_bytes()].concat()
}
