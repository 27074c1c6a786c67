//! Honest requests: what browsers, apps, bots and tools send to real-looking sites, the ugly included.
//!
//! Shape: `honest/*.txt` hold lines of a small language. `‹x›` is something random: a number (`n`), so many letters (`hex:8`), one out of a list (`slug`, `ugly`),
//!        from 1 to 9 (`1-9`). What stands in `⟦ ⟧` is encoded as a value of a query, in `⟪ ⟫` as part of a path, in `⟬ ⟭` as a string of JSON.
//!        Every line of `targets.txt` comes in turn, in the share of its section; every line of `ugly.txt` in turn too.

use super::{
    Body, Request,
    dice::Dice,
    wire::{self, Style},
};

/// An honest request and what kind of site it is for.
#[derive(Debug)]
pub struct Honest {
    pub kind: &'static str,
    /// Nobody sees what of it is refused: only figures are printed.
    pub held_out: bool,
    pub request: Request,
}

/// Some `count` requests without a body and a twentieth as many forms, pieces of JSON and uploads each.
pub fn all(count: usize) -> Vec<Honest> {
    let mut site = Site::new(0x5eed);
    let sections = sections(TARGETS);
    let shares: usize = sections.iter().map(|section| section.share).sum();
    let mut all = Vec::new();
    for section in &sections {
        for turn in 0..count * section.share / shares {
            let line = section.lines[turn % section.lines.len()];
            let request = Request::get(site.target(line));
            all.push(Honest { kind: section.kind, held_out: false, request: site.dress(request) });
        }
    }
    for turn in 0..count / 20 {
        let form = Body::Form(site.fill(pick(FORMS, turn), Text::Lines));
        let json = Body::Json(site.fill(pick(JSONS, turn), Text::Lines));
        let parts = Body::Parts(site.upload());
        for (kind, body) in [("form", form), ("json", json), ("multipart", parts)] {
            let request = Request { method: "POST".into(), body, ..Request::get("/submit") };
            all.push(Honest { kind, held_out: false, request: site.dress(request) });
        }
    }
    all
}

/// What honest people type, as it stands in the lists.
pub fn texts() -> impl Iterator<Item = &'static str> {
    [UGLY, SEARCH, I18N].into_iter().flat_map(str::lines)
}

const TARGETS: &str = include_str!("honest/targets.txt");
const FORMS: &str = include_str!("honest/forms.txt");
const JSONS: &str = include_str!("honest/jsons.txt");
const UGLY: &str = include_str!("honest/ugly.txt");
const SEARCH: &str = include_str!("honest/search.txt");
const SLUGS: &str = include_str!("honest/slugs.txt");
const I18N: &str = include_str!("honest/i18n.txt");
const AGENTS: &str = include_str!("honest/agents.txt");
const COOKIES: &str = include_str!("honest/cookies.txt");
const REFERERS: &str = include_str!("honest/referers.txt");

const WORDS: &[&str] = &[
    "acme", "web", "alpha", "data", "river", "north", "select", "order", "union", "table", "index", "admin", "script", "house", "garden",
    "blue", "node", "core", "team", "photo", "update", "drop", "echo", "system", "report", "group",
];
const HOSTS: &[&str] = &[
    "example.com",
    "www.example.org",
    "shop.example.net",
    "app.beispiel.de",
    "xn--bcher-kva.example",
    "sub-domain.example.co.uk",
    "a1.example",
];
const NAMES: &[&str] = &[
    "Bob",
    "O'Brien",
    "Anne-Marie",
    "D'Arcy",
    "Jean-Luc Müller",
    "李小龍",
    "Иван",
    "José",
    "Null",
    "Jane \"JJ\" Doe",
    "Smith & Sons",
    "van 't Hoff",
    "Ng",
    "Åsa",
    "St. John",
];
const EMAILS: &[&str] = &[
    "bob@example.com",
    "bob+news@example.com",
    "o'brien@example.ie",
    "first.last@sub.example.co.uk",
    "a_b-c%d@example.org",
    "select@example.com",
    "\"quoted name\"@example.com",
    "x=y/z@example.com",
    "user!tag@example.net",
    "jürgen@bücher.example",
];
const CITIES: &[&str] =
    &["Berlin", "München", "Saint-Étienne", "L'Aquila", "Coeur d'Alene", "New York", "東京", "São Paulo", "Xi'an", "Winston-Salem"];
const TITLES: &[&str] = &[
    "What's new?",
    "10 Tips & Tricks",
    "\"Best\" of 2024",
    "C++ in 24 hours",
    "Foo (bar)",
    "Select your plan",
    "Union; or not",
    "Café – Menü",
    "Q1/Q2 report",
    "50% off!",
    "Bob's Burgers",
    "Drop-in union guide",
    "From A to Z",
    "Rock 'n' Roll",
    "a < b",
    "Black Friday -- last chance",
];
const URLS: &[&str] = &[
    "https://‹host›/",
    "https://‹host›/‹slug›?id=‹n›&x=y",
    "https://‹host›/cb?code=‹hex:8›#frag",
    "http://‹host›:8080/a/b.html",
    "https://‹host›/search?q=it%27s+here&sort=price--desc",
    "https://‹host›/?next=%2Fa%3Fb%3Dc",
    "https://user@‹host›/x;y=1/z",
    "//‹host›/img/a.png",
    "/account?tab=orders",
    "/a/../b",
    "https://‹host›/index.php?id=‹n›",
    "https://‹host›/‹slug›/",
    "https://‹host›/a,b;c=d/(e)/'f'",
    "myapp://open?id=‹n›",
    "intent://scan/#Intent;scheme=zxing;package=com.example;S.browser_fallback_url=https%3A%2F%2F‹host›;end",
];

/// May a text have several lines?
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Text {
    Line,
    Lines,
}

struct Section {
    kind: &'static str,
    share: usize,
    lines: Vec<&'static str>,
}

fn sections(text: &'static str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((kind, share)) = line.strip_prefix("@ ").and_then(|head| head.split_once(' ')) {
            sections.push(Section { kind, share: share.parse().expect("a share is a number"), lines: Vec::new() });
        } else {
            sections.last_mut().expect("a file begins with a section").lines.push(line);
        }
    }
    sections
}

/// The `turn`th line, over and over.
fn pick(text: &'static str, turn: usize) -> &'static str {
    text.lines().nth(turn % text.lines().count()).expect("no list is empty")
}

pub struct Site {
    pub dice: Dice,
    ugly: usize,
}

impl Site {
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), ugly: 0 }
    }

    fn line(&mut self, text: &'static str) -> &'static str {
        let turn = self.dice.below(text.lines().count());
        pick(text, turn)
    }

    /// A target as a client would send it: no fragment, nothing that ends the request line.
    pub fn target(&mut self, line: &str) -> Vec<u8> {
        let mut target = self.fill(line, Text::Line);
        if let Some(fragment) = target.iter().position(|&byte| byte == b'#') {
            target.truncate(fragment);
        }
        wire::line(&target)
    }

    pub fn fill(&mut self, line: &str, text: Text) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = line;
        while let Some(at) = rest.find(['‹', '⟦', '⟪', '⟬', '␊', '␍']) {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let open = rest[at..].chars().next().expect("found just now");
            let inner = &rest[at + open.len_utf8()..];
            let close = match open {
                '‹' => '›',
                '⟦' => '⟧',
                '⟪' => '⟫',
                '⟬' => '⟭',
                control => {
                    out.push(if control == '␊' { b'\n' } else { b'\r' });
                    rest = inner;
                    continue;
                }
            };
            let end = inner.find(close).unwrap_or_else(|| panic!("{open} is not closed in {line}"));
            let style = [Style::Browser, Style::Component, Style::Strict][self.dice.below(3)];
            match open {
                '‹' => out.extend_from_slice(&self.word(&inner[..end], text)),
                '⟦' => {
                    let value = self.fill(&inner[..end], text);
                    out.extend_from_slice(&wire::value(&value, style, &mut self.dice));
                }
                '⟪' => {
                    let value = self.fill(&inner[..end], text);
                    out.extend_from_slice(&wire::segment(&value, style));
                }
                _ => {
                    let value = wire::json(&self.fill(&inner[..end], text), false);
                    out.extend_from_slice(&value[1..value.len() - 1]);
                }
            }
            rest = &inner[end + close.len_utf8()..];
        }
        out.extend_from_slice(rest.as_bytes());
        out
    }

    fn word(&mut self, name: &str, text: Text) -> Vec<u8> {
        let dice = &mut self.dice;
        if let Some((low, high)) = name.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?))) {
            return dice.range(low, high).to_string().into_bytes();
        }
        let (kind, length) = name.split_once(':').unwrap_or((name, ""));
        let length = length.parse().unwrap_or(8);
        match kind {
            "n" => dice.range(1, 99_999).to_string(),
            "digits" => dice.digits(length),
            "hex" => dice.hex(length),
            "HEX" => dice.hex(length).to_ascii_uppercase(),
            "id" => dice.id(length),
            "ID" => dice.id(length).to_ascii_uppercase(),
            "b64" => dice.base64(length),
            "b64u" => dice.base64url(length),
            "uuid" => dice.uuid(),
            "jwt" => format!("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{}.{}", dice.base64url(180), dice.base64url(342)),
            "ts" => format!("17{}", dice.digits(8)),
            "tsms" => format!("17{}", dice.digits(11)),
            "year" => dice.range(2005, 2026).to_string(),
            "mm" => format!("{:02}", dice.range(1, 12)),
            "dd" => format!("{:02}", dice.range(1, 28)),
            "date" => format!("{}-{:02}-{:02}", dice.range(2005, 2026), dice.range(1, 12), dice.range(1, 28)),
            "iso" => format!("2024-{:02}-{:02}T{:02}:{:02}:00.000Z", dice.range(1, 12), dice.range(1, 28), dice.below(24), dice.below(60)),
            "price" => format!("{}.{}", dice.range(1, 999), dice.digits(2)),
            "lang" => dice.pick(&["en", "de", "fr-CA", "pt-BR", "zh-Hans", "ja"]).to_owned(),
            "color" => dice.pick(&["red", "navy%20blue", "gr%C3%BCn", "black/white", "%23ff0000"]).to_owned(),
            "word" => dice.pick(WORDS).to_owned(),
            "host" => dice.pick(HOSTS).to_owned(),
            "name" => dice.pick(NAMES).to_owned(),
            "email" => dice.pick(EMAILS).to_owned(),
            "city" => dice.pick(CITIES).to_owned(),
            "title" => dice.pick(TITLES).to_owned(),
            "password" => match dice.below(4) {
                0 => format!("{}-{}-{}", dice.pick(WORDS), dice.pick(WORDS), dice.pick(WORDS)),
                1 => format!("It's{}!;--\"<3>", dice.digits(3)),
                _ => (0..dice.range(10, 24)).map(|_| char::from(33 + dice.below(94) as u8)).collect(),
            },
            "url" => {
                let url = dice.pick(URLS);
                return self.fill(url, text);
            }
            "slug" => self.line(SLUGS).to_owned(),
            "search" => self.line(SEARCH).to_owned(),
            "i18n" => self.line(I18N).to_owned(),
            "ugly" => self.ugly(text),
            "ugly2" => self.ugly(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            other => panic!("nothing is called ‹{other}›"),
        }
        .into_bytes()
    }

    /// The next ugly text.
    fn ugly(&mut self, text: Text) -> String {
        loop {
            self.ugly += 1;
            let line = pick(UGLY, self.ugly);
            if text == Text::Lines || !line.contains(['␊', '␍']) {
                return line.replace('␊', "\n").replace('␍', "\r");
            }
        }
    }

    /// A multipart form: some values and a file.
    fn upload(&mut self) -> Vec<u8> {
        let name = self.fill("‹slug›", Text::Line);
        let name = String::from_utf8_lossy(&name).into_owned();
        let title = self.fill("‹title›", Text::Line);
        let text = self.fill("‹ugly›", Text::Lines);
        let (file, kind, content): (String, &str, Vec<u8>) = match self.dice.below(6) {
            0 => (
                format!("{name}.png"),
                "image/png",
                [b"\x89PNG\r\n\x1a\n".to_vec(), (0..600).map(|_| self.dice.roll() as u8).collect()].concat(),
            ),
            1 => (format!("C:\\Users\\bob\\Pictures\\{name} (1).jpg"), "image/jpeg", (0..600).map(|_| self.dice.roll() as u8).collect()),
            2 => (
                "Bob's résumé & CV; final.pdf".into(),
                "application/pdf",
                b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n".to_vec(),
            ),
            3 => ("list.csv".into(), "text/csv", self.fill("id;name;note␍␊1;\"‹name›\";‹ugly›␍␊2;\"‹name›\";‹search›␍␊", Text::Lines)),
            4 => ("notes.txt".into(), "text/plain", self.fill("‹ugly›␊‹ugly›␊", Text::Lines)),
            _ => (String::new(), "application/octet-stream", Vec::new()),
        };
        let parts = [
            wire::part("title", None, &title),
            wire::part("comment", None, &text),
            wire::part("file", Some((&file, kind)), &content),
            wire::part("tags[]", None, b"a,b; c"),
        ];
        [parts.concat(), wire::last()].concat()
    }

    /// The headers that go with it.
    fn dress(&mut self, request: Request) -> Request {
        let agent = self.line(AGENTS);
        let mut request = request.header("user-agent", self.fill(agent, Text::Line));
        if self.dice.chance(50) {
            let referer = self.line(REFERERS);
            request = request.header("referer", self.fill(referer, Text::Line));
        }
        if self.dice.chance(50) {
            let cookie: Vec<_> = (0..self.dice.range(1, 3)).map(|_| self.line(COOKIES)).collect();
            request = request.header("cookie", self.fill(&cookie.join("; "), Text::Line));
        }
        for (name, values) in HEADERS {
            if self.dice.chance(20) {
                let value = self.dice.pick(values);
                request = request.header(name, self.fill(value, Text::Line));
            }
        }
        request
    }
}

const HEADERS: &[(&str, &[&str])] = &[
    (
        "accept",
        &[
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
            "application/json, text/plain, */*",
            "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
            "application/vnd.github+json; charset=utf-8",
            "application/ld+json; profile=\"https://www.w3.org/ns/activitystreams\"",
            "text/event-stream",
            "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        ],
    ),
    ("accept-language", &["en-US,en;q=0.9", "de,en-US;q=0.7,en;q=0.3", "zh-CN,zh;q=0.9,en-GB;q=0.8", "*", "fr-CH, fr;q=0.9, *;q=0.5"]),
    (
        "x-forwarded-for",
        &["203.0.113.‹1-250›", "203.0.113.‹1-250›, 10.0.0.‹1-250›", "2001:db8::‹hex:4›, 192.168.1.1", "unknown", "198.51.100.7:‹n›"],
    ),
    (
        "forwarded",
        &[
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            "for=\"[2001:db8:cafe::17]:4711\"",
            "for=192.0.2.43, for=\"[2001:db8:cafe::17]\";host=example.com",
        ],
    ),
    ("origin", &["https://‹host›", "null", "chrome-extension://‹id:32›", "http://localhost:3000"]),
    (
        "authorization",
        &[
            "Bearer ‹jwt›",
            "Basic ‹b64:24›==",
            "Token token=\"‹hex:32›\", email=\"bob@example.com\"",
            "Digest username=\"Mufasa\", realm=\"test@host.com\", nonce=\"‹hex:32›\", uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"‹hex:8›\", response=\"‹hex:32›\"",
            "AWS4-HMAC-SHA256 Credential=AKIA‹ID:16›/20240101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=‹hex:64›",
        ],
    ),
    ("if-none-match", &["\"‹hex:32›\"", "W/\"‹hex:8›-‹hex:11›\"", "\"a\", \"b\", W/\"c\""]),
    ("x-requested-with", &["XMLHttpRequest", "com.example.app"]),
    (
        "sec-ch-ua",
        &[
            "\"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"",
            "\" Not;A Brand\";v=\"99\", \"Chromium\";v=\"98\"",
        ],
    ),
    ("x-api-version", &["2024-01-31", "3", "v2.1-beta"]),
    ("x-request-id", &["‹uuid›", "‹hex:32›-000001"]),
    ("traceparent", &["00-‹hex:32›-‹hex:16›-01"]),
    (
        "content-type",
        &[
            "application/json",
            "application/x-www-form-urlencoded; charset=UTF-8",
            "multipart/form-data; boundary=----WebKitFormBoundary‹id:16›",
        ],
    ),
    ("baggage", &["sentry-environment=production,sentry-release=a%401.0,sentry-public_key=‹hex:32›,sentry-trace_id=‹hex:32›"]),
    ("x-csrf-token", &["‹b64:86›=="]),
    ("range", &["bytes=0-", "bytes=0-499, 500-999"]),
    ("via", &["1.1 varnish, 1.1 ‹hex:12›.cloudfront.net (CloudFront)"]),
    ("cf-visitor", &["{\"scheme\":\"https\"}"]),
];
