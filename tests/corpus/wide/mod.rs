//! The second corpus of honest requests: what the first did not think of. Products of forty kinds, protocols, posts with code, a hundred languages, searches,
//! thirty thousand user agents.
//!
//! Shape: each request comes of one source: a line of a list, a snippet, a language, a kind of client. A fifth of the sources is held out, by a hash of their
//!        text; of those only figures are ever printed.

pub mod agents;
pub mod posts;
pub mod talk;

use super::{
    Body, Request,
    attack::held_out,
    dice::Dice,
    honest::{Honest, Site, Text},
};

const SITES: &str = include_str!("../honest/sites.txt");

/// All of them, some 66,000.
pub fn all() -> Vec<Honest> {
    let mut all = sites(17);
    all.extend(posts::all(10_000));
    all.extend(talk::tongues(7_000));
    all.extend(talk::searches(7_000));
    all.extend(clients(30_000));
    all
}

/// Every line of `sites.txt` so many times.
fn sites(times: usize) -> Vec<Honest> {
    let mut site = Site::new(0x51735);
    let mut kind = "";
    let mut all = Vec::new();
    for line in SITES.lines().filter(|line| !line.is_empty()) {
        if let Some(head) = line.strip_prefix("@ ") {
            kind = head.split(' ').next().unwrap_or(head);
            continue;
        }
        let (method, target) = line.split_once(' ').expect("a line has a method and a target");
        for turn in 0..times {
            let target = site.target(target);
            let request = if turn % 5 == 4 {
                // The page's own style sheet: browsers send the page's address along.
                let page = [b"https://example.com".as_slice(), &target].concat();
                Request::get("/static/app.css").header("referer", page)
            } else {
                Request { method: method.to_owned(), ..Request::get(target) }
            };
            all.push(Honest { kind, held_out: held_out(line), request });
        }
    }
    all
}

fn clients(count: usize) -> Vec<Honest> {
    let mut dice = Dice::new(0xa9e27);
    let client = |turn| {
        let (agent, source) = agents::agent(turn, &mut dice);
        Honest { kind: "agent", held_out: held_out(&source), request: Request::get("/").header("user-agent", agent) }
    };
    (0..count).map(client).collect()
}

/// A post of a body with a type of its own.
fn post(path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Request {
    Request { method: "POST".into(), body: Body::Typed(Some(kind.to_owned()), body.into()), ..Request::get(path) }
}

/// The `turn`th line, over and over.
fn pick<'a>(lines: &[&'a str], turn: usize) -> &'a str {
    lines[turn % lines.len()]
}

fn fill(site: &mut Site, line: &str) -> String {
    String::from_utf8_lossy(&site.fill(line, Text::Lines)).into_owned()
}
