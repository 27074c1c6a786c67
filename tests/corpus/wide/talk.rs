//! What people say and search for: prose in more than a hundred languages, and searches that are also words of SQL, of shells, of code.
//!
//! Source: the words of `honest/tongues.txt` are names of months, days, countries, languages and lengths of time out of Unicode's CLDR (`honest/LICENSE.tongues`).

use super::{pick, post};
use crate::corpus::{
    Body, Request,
    attack::held_out,
    dice::Dice,
    honest::Honest,
    wire::{self, Style},
};

const TONGUES: &str = include_str!("../honest/tongues.txt");
const QUERIES: &str = include_str!("../honest/queries.txt");

const QUOTES: &[(&str, &str)] = &[
    ("“", "”"),
    ("«", "»"),
    ("« ", " »"),
    ("„", "“"),
    ("「", "」"),
    ("\"", "\""),
    ("'", "'"),
    ("‘", "’"),
    ("‹", "›"),
    ("(", ")"),
    ("[", "]"),
    ("`", "`"),
];

/// So many pieces of prose, one language after the other.
pub fn tongues(count: usize) -> Vec<Honest> {
    let mut dice = Dice::new(0x10297);
    let languages: Vec<_> = TONGUES.lines().filter_map(|line| line.split_once('|')).collect();
    let mut all = Vec::new();
    for turn in 0..count {
        let (tag, words) = languages[turn % languages.len()];
        let words: Vec<_> = words.split('|').collect();
        let request = said(tag, &prose(tag, &words, &mut dice), &mut dice);
        all.push(Honest { kind: "languages", held_out: held_out(tag), request });
    }
    all
}

/// One to four sentences with the signs of their language and those of every keyboard.
fn prose(tag: &str, words: &[&str], dice: &mut Dice) -> String {
    let blank = if matches!(tag, "zh" | "ja" | "yue" | "th" | "lo" | "km" | "my") { "" } else { " " };
    let mut text = String::new();
    for _ in 0..dice.range(1, 4) {
        let mut sentence = String::new();
        for at in 0..dice.range(2, 12) {
            if at > 0 {
                sentence.push_str(dice.pick(&["", "", "", "", "", ",", ";", ":", " –", " -", " &", " /", "…", "!", " +", " ="]));
                sentence.push_str(blank);
            }
            let word = dice.pick(words);
            match dice.below(14) {
                0 => {
                    let (open, close) = QUOTES[dice.below(QUOTES.len())];
                    sentence.push_str(&format!("{open}{word}{close}"));
                }
                1 => sentence.push_str(&format!("{}'{word}", dice.pick(&["l", "d", "qu", "n", "O", "dell", "'"]))),
                2 => sentence.push_str(&format!("{} {word}", dice.range(1, 2030))),
                3 => sentence.push_str(&format!("{word} ({})", dice.pick(words))),
                4 => sentence.push_str(dice.pick(&[
                    "or", "and", "y", "o", "et", "ou", "und", "oder", "и", "или", "ve", "e", "#1", "@bob", ":-)", "<3", "100%", "5€", "☕",
                    "🙂",
                ])),
                _ => sentence.push_str(word),
            }
        }
        text.push_str(&sentence);
        text.push_str(dice.pick(&[". ", "? ", "! ", "。", "؟ ", "।", "…\n", ".\n\n", "; "]));
    }
    text.trim_end().to_owned()
}

/// The text in one of the places where people's words stand.
fn said(tag: &str, text: &str, dice: &mut Dice) -> Request {
    let style = [Style::Browser, Style::Component, Style::Strict][dice.below(3)];
    let line = text.replace('\n', " ");
    match dice.below(7) {
        0 => Request::get([b"/search?lang=".as_slice(), tag.as_bytes(), b"&q=", &wire::value(line.as_bytes(), style, dice)].concat()),
        1 => Request::get([b"/wiki/".as_slice(), &wire::segment(line.replace(['/', '?', '#'], "-").as_bytes(), style)].concat()),
        2 => {
            let value = wire::value(text.as_bytes(), style, dice);
            Request {
                method: "POST".into(),
                body: Body::Form([b"name=x&comment=".as_slice(), &value].concat()),
                ..Request::get("/comment")
            }
        }
        3 => {
            let value = wire::json(text.as_bytes(), dice.chance(20));
            post("/api/comments", "application/json", [b"{\"lang\":\"".as_slice(), tag.as_bytes(), b"\",\"text\":", &value, b"}"].concat())
        }
        4 => post("/note", "text/plain; charset=utf-8", text),
        5 => {
            let page = [b"https://example.org/suche?q=".as_slice(), &wire::value(line.as_bytes(), style, dice)].concat();
            Request::get("/style.css").header("referer", page)
        }
        _ => {
            let name: String = line.chars().take(40).collect();
            let parts = [
                wire::part("text", None, text.as_bytes()),
                wire::part("f", Some((&format!("{name}.txt"), "text/plain")), b"x"),
                wire::last(),
            ]
            .concat();
            Request { method: "POST".into(), body: Body::Parts(parts), ..Request::get("/upload") }
        }
    }
}

/// So many searches: every line alone, and with the words that people put around it.
pub fn searches(count: usize) -> Vec<Honest> {
    let mut dice = Dice::new(0x5ea7c);
    let queries: Vec<_> = QUERIES.lines().filter(|line| !line.is_empty()).collect();
    let names = [
        "Patrick O'Brien",
        "Renée d'Arc",
        "Seán O'Neill",
        "Jean-Luc L'Hôte",
        "Ng'ang'a",
        "Mc'Donald & Sons",
        "\"Big\" Jim",
        "St. John's",
        "Ke$ha",
        "Al; Bo; Cy",
    ];
    let mut all = Vec::new();
    for turn in 0..count {
        let line = pick(&queries, turn);
        let other = dice.pick(&queries);
        let text = match if turn < queries.len() { 0 } else { dice.below(14) } {
            0..5 => line.to_owned(),
            5 => format!(
                "how to use {line} in {}",
                dice.pick(&["mysql", "bash", "excel", "php", "python", "a sentence", "sql server", "word"])
            ),
            6 => format!("{line} tutorial"),
            7 => format!("what is {line}?"),
            8 => format!("\"{line}\""),
            9 => format!("{line} vs {other}"),
            10 => format!(
                "{line} {}",
                dice.pick(&[
                    "example",
                    "not working",
                    "meaning",
                    "near me",
                    "2024",
                    "pdf",
                    "-pinterest",
                    "site:example.com",
                    "in stock",
                    "für Anfänger"
                ])
            ),
            11 => format!("{} {line}", dice.pick(&names)),
            12 => format!("({line}) or ({other})"),
            _ => format!("{}, {line}", dice.digits(3)),
        };
        let held = held_out(line);
        all.push(Honest { kind: "searches", held_out: held, request: searched(&text, &mut dice) });
    }
    all
}

fn searched(text: &str, dice: &mut Dice) -> Request {
    let style = [Style::Browser, Style::Component, Style::Strict][dice.below(3)];
    let value = wire::value(text.as_bytes(), style, dice);
    let name = dice.pick(&["q", "q", "q", "s", "query", "search", "keywords", "term", "text", "filter[q]", "k", "searchterm"]);
    let path = dice.pick(&["/search", "/", "/suche", "/catalogsearch/result/", "/api/search", "/search.php", "/en/find"]);
    let tail = dice.pick(&["", "", "", "&page=2", "&sort=price", "&type=all", "&ie=UTF-8&oe=UTF-8"]);
    let target = [format!("{path}?{name}=").as_bytes(), &value, tail.as_bytes()].concat();
    match dice.below(6) {
        0 => Request::get("/assets/app.css").header("referer", [b"https://shop.example".as_slice(), &target].concat()),
        1 => {
            let json = wire::json(text.as_bytes(), false);
            post("/api/search", "application/json", [b"{\"query\":".as_slice(), &json, b",\"from\":0,\"size\":20}"].concat())
        }
        _ => Request::get(target),
    }
}
