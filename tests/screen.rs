//! The screen against two corpora that do not know its rules, and against the clock: whatever is sent, the time is linear in its length.

mod corpus;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use corpus::{
    Body, Request,
    attack::{self, Attack, Place},
    honest::{self, Honest},
    wide,
};
use gateway::{
    plan::{Families, Family, FilterMode, Filters, HeaderFields, Hit},
    rules::screen::{BodyKind, Screen, Watch, bad_method, scanner},
};
use http::{HeaderName, Method};

/// The share of attacks that must be seen, in percent.
const SEEN: f64 = 95.0;
/// The share of honest requests that may be refused, in percent.
const REFUSED: f64 = 0.1;

/// The same of the second corpus, held out or not, a little worse than measured: of attacks at least so many percent are refused by balanced, and seen by strict;
/// of the honest at most so many are refused by balanced, and by strict. They are no aims: whoever mends the rules moves them.
const WIDE_ATTACKS: (f64, f64) = (29.5, 54.0);
const WIDE_HONEST: (f64, f64) = (0.15, 13.0);

/// Fragments of attacks in an order that `seed` fixes.
fn fragments(parts: &[&str], length: usize, mut seed: u64) -> Vec<u8> {
    let mut target = b"/?q=".to_vec();
    while target.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        target.extend_from_slice(parts[(seed >> 33) as usize % parts.len()].as_bytes());
    }
    target.truncate(length);
    target
}

/// The mean of twenty targets that the engine has not seen: it builds its tables as it goes, and the first time is the dearest.
fn took(screen: &Screen, parts: &[&str], length: usize) -> Duration {
    let targets: Vec<_> = (0..20).map(|seed| fragments(parts, length, seed)).collect();
    let start = Instant::now();
    for target in &targets {
        let _ = screen.judge(target, &[]);
    }
    start.elapsed() / 20
}

#[test]
fn a_long_hostile_target_takes_bounded_time() {
    let start = Instant::now();
    let screen = Screen::new();
    println!("built in {:?}", start.elapsed());
    let repeated = [
        "%25",
        "%2525",
        "'",
        "' or ",
        "(",
        "((select",
        "<a ",
        "<a b=",
        "a'b\"c`",
        ";cat ",
        "../",
        "..%2f",
        "%27%20or%20",
        "{{",
        "${",
        "union ",
        "/*",
        "*/",
        "&#x",
        ";",
        "%c0%ae",
        "x=1 and ",
        "select(",
        "%00%",
        "a b c ",
        "<on",
        "\u{e9}",
        "case when ",
        "from ",
        "select 1,",
        "a,",
        "`a`.`b`,",
        "<a/",
        "/a=",
        "data:",
        "\n a-b",
    ];
    let mixed: [&[&str]; 2] = [
        &[
            "union ", "select(", "from ", "a'b ", "\"c ", "(x ", "<y ", "on=z", ";w ", "{{v ", "${u ", "..t/", "or 1 ", "case ", "when ",
            "then ", "/*s", "*/r", "=q", "&p=", "--o ", "java ", "data: ", "php:", "like ", "and (", "char(", "|n ", "\\m", "%0al ",
        ],
        &["a", "e", "i", "o", "s", "l", "t", "c", "u", "n", " ", "'", "(", "=", ",", "1"],
    ];
    for parts in repeated.iter().map(std::slice::from_ref).chain(mixed) {
        let (short, long) = (took(&screen, parts, 2048), took(&screen, parts, 8192));
        println!("{short:>12?} {long:>12?} {:?}", parts[0]);
        // In release some 100 µs; loose because test machines are busy and the build is not optimised. A quadratic step would take a second.
        assert!(long < Duration::from_millis(50), "{parts:?} took {long:?}");
    }
}

/// Shares of what was hit, family by family.
#[derive(Default)]
struct Tally(BTreeMap<String, (usize, usize)>);

impl Tally {
    fn count(&mut self, row: &str, hit: bool) {
        let (hits, all) = self.0.entry(row.to_owned()).or_default();
        *hits += usize::from(hit);
        *all += 1;
    }

    fn sum(&self) -> (usize, usize) {
        self.0.values().fold((0, 0), |(hits, all), row| (hits + row.0, all + row.1))
    }

    fn print(&self, title: &str) {
        println!("\n{title}");
        for (row, &(hits, all)) in self.0.iter().chain([(&"all".to_owned(), &self.sum())]) {
            println!("  {row:<22} {hits:>6} of {all:<6} {:>6.2} %", share((hits, all)));
        }
    }
}

fn share((hits, all): (usize, usize)) -> f64 {
    100.0 * hits as f64 / all.max(1) as f64
}

/// `GATEWAY_SCREEN_VERBOSE`: 1 lists what went wrong, 2 the misses among the held-out payloads too.
fn verbose() -> u8 {
    std::env::var("GATEWAY_SCREEN_VERBOSE").ok().and_then(|level| level.parse().ok()).unwrap_or(0)
}

/// Whether the hostile part of an attack is seen.
fn seen(screen: &Screen, attack: &Attack) -> bool {
    let Request { method, target, headers, body } = &attack.request;
    match attack.place {
        Place::Target | Place::Query | Place::Name | Place::Path => screen.judge(target, &[]).is_some(),
        Place::Form | Place::Multipart | Place::Json | Place::Typed => in_body(screen, body).is_some(),
        Place::Header => headers.iter().any(|(name, value)| in_field(screen, name, value).is_some()),
        Place::Agent => headers.iter().any(|(_, value)| scanner(value)),
        Place::Method => bad_method(&Method::from_bytes(method.as_bytes()).expect("a token")),
    }
}

fn in_field(screen: &Screen, name: &str, value: &[u8]) -> Option<Family> {
    screen.judge_field(&HeaderName::from_bytes(name.as_bytes()).expect("a name"), value, Families::ALL)
}

fn in_body(screen: &Screen, body: &Body) -> Option<Family> {
    let (kind, body) = body.read()?;
    screen.judge_body(&BodyKind::of(kind.as_bytes())?, body, Families::ALL)
}

/// What the screen takes offence at in an honest request.
fn offence(screen: &Screen, request: &Request) -> Option<String> {
    let Request { target, headers, body, .. } = request;
    if let Some(family) = screen.judge(target, &[]) {
        return Some(format!("{} target {}", family.as_str(), target.escape_ascii()));
    }
    for (name, value) in headers {
        if name == "user-agent" && scanner(value) {
            return Some(format!("scanner {}", value.escape_ascii()));
        }
        if let Some(family) = in_field(screen, name, value) {
            return Some(format!("{} {name} {}", family.as_str(), value.escape_ascii()));
        }
    }
    let family = in_body(screen, body)?;
    let (kind, body) = body.read()?;
    Some(format!("{} {kind} {}", family.as_str(), body.escape_ascii()))
}

#[test]
fn attacks_are_seen() {
    let screen = Screen::new();
    let (mut known, mut held, mut places) = (Tally::default(), Tally::default(), Tally::default());
    let mut missed = Vec::new();
    for attack in attack::all() {
        let seen = seen(&screen, &attack);
        let tally = if attack.held_out { &mut held } else { &mut known };
        tally.count(attack.family, seen);
        places.count(&format!("{:?}", attack.place), seen);
        if !seen && verbose() > u8::from(attack.held_out) {
            missed.push(attack);
        }
    }
    for attack in &missed {
        let Request { method, target, headers, body } = &attack.request;
        let header = headers.first().map_or(String::new(), |(name, value)| format!("{name}: {}", value.escape_ascii()));
        let body = body.read().map_or(String::new(), |(_, body)| body.escape_ascii().to_string());
        println!(
            "missed {} {:?} {} | {method} {} {header} {body}",
            attack.family,
            attack.place,
            attack.payload.escape_debug(),
            target.escape_ascii()
        );
    }
    known.print("attacks seen, payloads that the rules may be tuned on");
    held.print("attacks seen, payloads held out");
    places.print("attacks seen by place");
    let sum = (known.sum().0 + held.sum().0, known.sum().1 + held.sum().1);
    println!("\nattacks seen: {} of {}, {:.2} %", sum.0, sum.1, share(sum));
    assert!(sum.1 >= 2000, "only {} attacks", sum.1);
    assert!(share(sum) >= SEEN, "{:.2} % of the attacks are seen", share(sum));
}

#[test]
fn honest_requests_pass() {
    let screen = Screen::new();
    let mut refused = Tally::default();
    for honest in honest::all(24_000) {
        let offence = offence(&screen, &honest.request);
        refused.count(honest.kind, offence.is_some());
        if let Some(offence) = offence.filter(|_| verbose() >= 1) {
            println!("refused {} {offence}", honest.kind);
        }
    }
    refused.print("honest requests refused");
    assert!(refused.sum().1 >= 20_000, "only {} honest requests", refused.sum().1);
    assert!(share(refused.sum()) <= REFUSED, "{:.3} % of the honest requests are refused", share(refused.sum()));
}

/// What a set of filters does with a request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fate {
    Passed,
    Observed,
    Refused,
}

/// What the families do with what `judge` recognises: a hit that is only observed hides none that refuses.
fn fate(filters: &Filters, judge: impl Fn(Families) -> Option<Hit>) -> (Fate, Option<Hit>) {
    let mut watched = filters.families.watched();
    let mut worst = (Fate::Passed, None);
    while let Some(hit) = judge(watched) {
        if filters.families.on(hit) == FilterMode::Enforce {
            return (Fate::Refused, Some(hit));
        }
        worst = (Fate::Observed, Some(hit));
        watched = watched.without(hit);
    }
    worst
}

fn in_target(screen: &Screen, filters: &Filters, target: &[u8], extensions: &[String]) -> (Fate, Option<Hit>) {
    fate(filters, |families| screen.judge_target(target, &Watch { families, extensions, own: None }))
}

fn in_header(screen: &Screen, filters: &Filters, name: &str, value: &[u8]) -> (Fate, Option<Hit>) {
    let as_name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
    let families = fate(filters, |families| match filters.headers {
        HeaderFields::None => None,
        fields => screen.judge_header(&as_name, value, families, fields),
    });
    let agent = if name == "user-agent" && scanner(value) { (simple(filters.scanner_ua), None) } else { (Fate::Passed, None) };
    if agent.0 > families.0 { agent } else { families }
}

fn in_content(screen: &Screen, filters: &Filters, body: &Body) -> (Fate, Option<Hit>) {
    let Some((kind, body)) = body.read() else { return (Fate::Passed, None) };
    let Some(kind) = BodyKind::of(kind.as_bytes()) else { return (Fate::Passed, None) };
    fate(filters, |families| screen.judge_content(&kind, body, families))
}

fn simple(mode: FilterMode) -> Fate {
    match mode {
        FilterMode::Off => Fate::Passed,
        FilterMode::Observe => Fate::Observed,
        FilterMode::Certain | FilterMode::Enforce => Fate::Refused,
    }
}

/// What becomes of the hostile part of an attack.
fn met(screen: &Screen, filters: &Filters, attack: &Attack) -> Fate {
    let Request { method, target, headers, body } = &attack.request;
    match attack.place {
        Place::Target | Place::Query | Place::Name | Place::Path => in_target(screen, filters, target, &[]).0,
        Place::Form | Place::Multipart | Place::Json | Place::Typed => in_content(screen, filters, body).0,
        Place::Header | Place::Agent => {
            headers.iter().map(|(name, value)| in_header(screen, filters, name, value).0).max().unwrap_or(Fate::Passed)
        }
        Place::Method if bad_method(&Method::from_bytes(method.as_bytes()).expect("a token")) => simple(filters.bad_method),
        Place::Method => Fate::Passed,
    }
}

/// What becomes of an honest request, place by place, and by what.
fn suffered(screen: &Screen, filters: &Filters, request: &Request, served: &[String]) -> Vec<(Fate, &'static str, Option<Hit>)> {
    let Request { target, headers, body, .. } = request;
    let mut places = vec![("target", in_target(screen, filters, target, served))];
    places.extend(headers.iter().map(|(name, value)| ("header", in_header(screen, filters, name, value))));
    if *body != Body::None {
        places.push(("body", in_content(screen, filters, body)));
    }
    places.into_iter().map(|(place, (fate, hit))| (fate, place, hit)).collect()
}

/// What the honest sites serve, as their configurations say: without it `strict` would refuse every page of a PHP program.
fn served() -> Vec<String> {
    ["php", "cgi", "pl", "jsp", "do", "axd", "aspx", "asp"].map(str::to_owned).to_vec()
}

/// The sets that are measured side by side; what `strict` passes, `balanced` passes too.
const SETS: [(&str, Filters); 2] = [("balanced", Filters::BALANCED), ("strict", Filters::STRICT)];

/// Counts of what each set refused and saw, row by row.
#[derive(Default)]
struct Table(BTreeMap<String, [[usize; 3]; 2]>);

impl Table {
    fn count(&mut self, row: &str, set: usize, fate: Fate) {
        let [refused, seen, all] = &mut self.0.entry(row.to_owned()).or_default()[set];
        *refused += usize::from(fate == Fate::Refused);
        *seen += usize::from(fate != Fate::Passed);
        *all += 1;
    }

    fn sum(&self, set: usize) -> [usize; 3] {
        self.0.values().fold([0; 3], |sum, row| [sum[0] + row[set][0], sum[1] + row[set][1], sum[2] + row[set][2]])
    }

    fn print(&self, title: &str) {
        println!("\n{title:<40} {:>8}  {:>19}  {:>19}", "", "balanced", "strict");
        println!("  {:<38} {:>8}  {:>9} {:>9}  {:>9} {:>9}", "", "all", "refused", "seen", "refused", "seen");
        let sum = [self.sum(0), self.sum(1)];
        for (row, [balanced, strict]) in self.0.iter().chain([(&"all".to_owned(), &sum)]) {
            let [a, b] = [balanced, strict].map(|&[refused, seen, all]| (share((refused, all)), share((seen, all))));
            println!("  {row:<38} {:>8}  {:>7.3} % {:>7.3} %  {:>7.3} % {:>7.3} %", balanced[2], a.0, a.1, b.0, b.1);
        }
    }
}

/// What went wrong and may be looked at, for whoever mends the rules: never of what is held out. `GATEWAY_SCREEN_MISSES` names the file.
#[derive(Default)]
struct Misses(Vec<String>);

impl Misses {
    fn note(&mut self, held_out: bool, line: impl FnOnce() -> String) {
        if !held_out {
            self.0.push(line());
        }
    }

    fn write(&self, what: &str) {
        let Ok(path) = std::env::var("GATEWAY_SCREEN_MISSES") else { return };
        std::fs::write(format!("{path}.{what}"), self.0.join("\n") + "\n").expect("the file can be written");
    }
}

fn shown(request: &Request) -> String {
    let Request { method, target, headers, body } = request;
    let headers: String = headers.iter().map(|(name, value)| format!(" {name}: {}", value.escape_ascii())).collect();
    let body = body.read().map_or(String::new(), |(kind, body)| format!(" [{kind}] {}", body.escape_ascii()));
    format!("{method} {}{headers}{body}", target.escape_ascii())
}

#[test]
fn attacks_of_the_second_corpus_are_refused_or_seen() {
    let screen = Screen::new();
    let (mut known, mut held, mut places, mut misses) = (Table::default(), Table::default(), Table::default(), Misses::default());
    let attacks = attack::wide();
    for attack in &attacks {
        let strict = met(&screen, &Filters::STRICT, attack);
        for (set, (name, filters)) in SETS.iter().enumerate() {
            let fate = if set == 1 || strict == Fate::Passed { strict } else { met(&screen, filters, attack) };
            let table = if attack.held_out { &mut held } else { &mut known };
            table.count(attack.family, set, fate);
            places.count(&format!("{:?}", attack.place), set, fate);
            if fate == Fate::Passed || (set == 0 && fate == Fate::Observed) {
                misses.note(attack.held_out, || {
                    format!(
                        "{name} {fate:?} | {} {:?} {} | {}",
                        attack.family,
                        attack.place,
                        attack.payload.escape_debug(),
                        shown(&attack.request)
                    )
                });
            }
        }
    }
    known.print("attacks, not held out");
    held.print("attacks, held out");
    places.print("attacks by place");
    misses.write("attacks");
    assert!(attacks.len() >= 30_000, "only {} attacks", attacks.len());
    let ([refused, _, all], [_, seen, _]) = (places.sum(0), places.sum(1));
    assert!(share((refused, all)) >= WIDE_ATTACKS.0, "balanced refuses {:.2} %", share((refused, all)));
    assert!(share((seen, all)) >= WIDE_ATTACKS.1, "strict sees {:.2} %", share((seen, all)));
}

#[test]
fn honest_requests_of_the_second_corpus_pass() {
    let screen = Screen::new();
    let (mut known, mut held, mut places, mut misses) = (Table::default(), Table::default(), Table::default(), Misses::default());
    let (requests, served) = (wide::all(), served());
    for honest in &requests {
        let strict = suffered(&screen, &Filters::STRICT, &honest.request, &served);
        let clean = strict.iter().all(|(fate, ..)| *fate == Fate::Passed);
        for (set, (name, filters)) in SETS.iter().enumerate() {
            let all = if set == 1 || clean { strict.clone() } else { suffered(&screen, filters, &honest.request, &served) };
            all.iter().for_each(|(fate, place, _)| places.count(place, set, *fate));
            let (fate, place, hit) = all.into_iter().max_by_key(|(fate, ..)| *fate).expect("every request has a target");
            let table = if honest.held_out { &mut held } else { &mut known };
            table.count(honest.kind, set, fate);
            if fate == Fate::Refused {
                misses.note(honest.held_out, || format!("{name} {hit:?} | {} {place} | {}", honest.kind, shown(&honest.request)));
            }
        }
    }
    known.print("honest, not held out");
    held.print("honest, held out");
    places.print("honest by place (a request has several)");
    misses.write("honest");
    assert!(requests.len() >= 60_000, "only {} honest requests", requests.len());
    for (set, most) in [WIDE_HONEST.0, WIDE_HONEST.1].into_iter().enumerate() {
        let (known, held) = (known.sum(set), held.sum(set));
        let refused = share((known[0] + held[0], known[2] + held[2]));
        assert!(refused <= most, "{} refuses {refused:.3} % of the honest requests", SETS[set].0);
    }
}

#[test]
fn the_corpora_are_the_same_in_every_run() {
    let requests = |all: Vec<Attack>| all.into_iter().map(|attack| attack.request).collect::<Vec<_>>();
    assert_eq!(requests(attack::all()), requests(attack::all()));
    let requests = |all: Vec<Honest>| all.into_iter().map(|honest| honest.request).collect::<Vec<_>>();
    assert_eq!(requests(honest::all(1000)), requests(honest::all(1000)));
    assert_eq!(requests(wide::all()), requests(wide::all()));
}

#[test]
fn no_request_is_an_attack_and_honest() {
    let honest: HashSet<_> = honest::all(24_000).into_iter().chain(wide::all()).map(|honest| honest.request.target).collect();
    let texts: HashSet<_> = honest::texts().collect();
    for attack in attack::all().into_iter().chain(attack::wide()) {
        // A command is no attack where somebody searches for it, and one where a browser would say what it is.
        let typed = !matches!(attack.place, Place::Header | Place::Agent);
        assert!(!(typed && texts.contains(attack.payload.as_str())), "{} is honest", attack.payload);
        if matches!(attack.place, Place::Target | Place::Query | Place::Name | Place::Path) {
            let target = attack.request.target;
            assert!(!honest.contains(&target), "{} is honest", target.escape_ascii());
        }
    }
}
