//! Screen rule: which targets, header fields, bodies, methods and agents only an attacker has.
//!
//! Pure. A target is brought to a normal form ([`normalise`]: every layer of encoding off), its path judged by segments, and the whole matched in one pass of each
//! `RegexSet` that its bytes could match at all. SQL and script are known by structure, never by a lone word: `/select-your-plan?sort=updated--desc;x` is an
//! honest address.
//!
//! Shape: a target of plain bytes alone is only looked at segment by segment and costs no pass, no allocation. Whatever comes, the time is linear in its length:
//!        the decoder is a stack, the engine never backtracks.
//! Units: bytes as received; nothing here assumes UTF-8.

use std::sync::LazyLock;

use http::HeaderName;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::plan::{Certainty, Families, Family, HeaderFields, Hit};

mod address;
mod agent;
mod body;
mod code;
mod decode;
mod field;
mod honest;
mod path;
mod probe;
mod prose;
mod sqli;
mod xss;

#[cfg(test)]
mod corpus;

pub use agent::{METHODS, bad_method, scanner};
pub use body::BodyKind;
pub use decode::normalise;
use honest::Honest;

/// What a route watches for in targets.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    pub families: Families,
    /// Extensions of the route's own, lower case, without the dot.
    pub extensions: &'a [String],
    /// Patterns of the user's own, for the normal form.
    pub own: Option<&'a RegexSet>,
}

/// The compiled patterns: one for the process.
#[derive(Debug)]
pub struct Screen {
    sets: Box<[Set]>,
    honest: Honest,
}

/// Patterns that are looked for in one pass.
///
/// Shape: at most [`AT_ONCE`] patterns: the engine builds a state for each combination of half matches that it meets. No pattern counts far: a count is as many
///        half matches as its bound.
#[derive(Debug)]
struct Set {
    /// No pattern of it matches a text that has none of these traits.
    needs: u8,
    regexes: RegexSet,
    /// What a match of each is.
    hits: Box<[Hit]>,
}

/// Measured: with twice as many, a target of random pieces of SQL takes the engine ten times as long.
const AT_ONCE: usize = 11;
/// Of a set and a thread, for the states that it has met; when it is full, the engine begins anew.
const STATES: usize = 1 << 20;

impl Set {
    fn divide(needs: u8, tables: &[(Family, Certainty, &[&'static str])]) -> Vec<Self> {
        let rows: Vec<_> = tables
            .iter()
            .flat_map(|&(family, certainty, patterns)| patterns.iter().map(move |pattern| (Hit { family, certainty }, *pattern)))
            .collect();
        let each = rows.len().div_ceil(rows.len().div_ceil(AT_ONCE));
        rows.chunks(each).map(|rows| Self::new(needs, rows)).collect()
    }

    fn new(needs: u8, rows: &[(Hit, &str)]) -> Self {
        let regexes = RegexSetBuilder::new(rows.iter().map(|(_, pattern)| spell_out(pattern)))
            .unicode(false)
            .dot_matches_new_line(true)
            .dfa_size_limit(STATES)
            .build()
            .expect("the patterns are right because a test builds them");
        Self { needs, regexes, hits: rows.iter().map(|(hit, _)| *hit).collect() }
    }

    fn has_of(&self, families: Families) -> bool {
        self.hits.iter().any(|hit| families.sees(*hit))
    }

    /// The first match ends the pass; which pattern it was is asked of hits alone.
    fn judge(&self, text: &[u8], families: Families) -> Option<Hit> {
        if !self.regexes.is_match(text) {
            return None;
        }
        self.regexes.matches(text).iter().map(|at| self.hits[at]).find(|hit| families.sees(*hit))
    }
}

impl Screen {
    #[must_use]
    pub fn new() -> Self {
        use Certainty::{Certain, Likely};
        let sets = [
            Set::divide(SQL, &[(Family::Sql, Certain, sqli::CERTAIN), (Family::Sql, Likely, sqli::LIKELY)]),
            Set::divide(SCRIPT, &[(Family::Xss, Certain, xss::CERTAIN), (Family::Xss, Likely, xss::LIKELY)]),
            Set::divide(SHELL, &[(Family::Command, Certain, code::COMMAND), (Family::Command, Likely, code::LIKELY_COMMAND)]),
            Set::divide(SHELL, &[(Family::Code, Certain, code::CODE), (Family::Code, Likely, code::LIKELY_CODE)]),
            Set::divide(
                ANY,
                &[
                    (Family::Template, Certain, code::TEMPLATE),
                    (Family::Inclusion, Certain, code::INCLUSION),
                    (Family::Splitting, Certain, code::SPLITTING),
                    (Family::Command, Certain, code::BARE_COMMAND),
                    (Family::Code, Certain, code::BARE_CODE),
                    (Family::Template, Likely, code::LIKELY_TEMPLATE),
                    (Family::Inclusion, Likely, code::LIKELY_INCLUSION),
                    (Family::Splitting, Likely, code::LIKELY_SPLITTING),
                    (Family::Command, Likely, code::LIKELY_BARE_COMMAND),
                ],
            ),
        ]
        .into_iter()
        .flatten();
        Self { sets: sets.collect(), honest: Honest::new() }
    }

    /// The first of all families that recognises `target`: path and query as received. `extensions` are the route's own, lower case, without the dot.
    #[must_use]
    pub fn judge(&self, target: &[u8], extensions: &[String]) -> Option<Family> {
        self.judge_target(target, &Watch { families: Families::ALL, extensions, own: None }).map(|hit| hit.family)
    }

    /// As [`Screen::judge`], with what a route watches for.
    #[must_use]
    pub fn judge_target(&self, target: &[u8], watch: &Watch<'_>) -> Option<Hit> {
        let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        if watch.own.is_none() && is_plain(&target[..query], &target[query..]) {
            return path::judge(&target[..query], watch);
        }
        let mut text = Vec::with_capacity(target.len());
        decode::normalise_into(&target[..query], &mut text);
        let path = text.len();
        if query < target.len() {
            // The mark itself stands between, so no escape reaches across.
            decode::normalise_into(&target[query..], &mut text);
        }
        if watch.families.sees(SPLIT) && (text.contains(&0) || text[..path].contains(&b'\n')) {
            return Some(SPLIT);
        }
        if let Some(hit) = path::judge(&text[..path], watch) {
            return Some(hit);
        }
        if watch.own.is_some_and(|own| own.is_match(&text)) {
            return Some(Hit { family: Family::Own, certainty: Certainty::Certain });
        }
        self.judge_text(&text, watch.families)
    }

    /// The first family that recognises the value of a header field.
    #[must_use]
    pub fn judge_field(&self, name: &HeaderName, value: &[u8], families: Families) -> Option<Family> {
        self.judge_value(field::Kind::of(name), value, families).map(|hit| hit.family)
    }

    /// The first pattern that recognises the value of a header field; `fields` says which are looked at how.
    #[must_use]
    pub fn judge_header(&self, name: &HeaderName, value: &[u8], families: Families, fields: HeaderFields) -> Option<Hit> {
        match fields {
            HeaderFields::None => None,
            HeaderFields::Unusual if field::is_browsers(name) => self.judge_value(field::Kind::Usual, value, families.meet(LOOKUPS)),
            HeaderFields::Unusual | HeaderFields::All => self.judge_value(field::Kind::of(name), value, families),
        }
    }

    fn judge_value(&self, kind: field::Kind, value: &[u8], families: Families) -> Option<Hit> {
        if !kind.is_suspect(value) || self.honest.knows(kind, value, families) {
            return None;
        }
        let laid_out = kind.lay_out(value);
        let text = normalise(&laid_out);
        let found = if families.sees(SPLIT) && text.contains(&0) { Some(SPLIT) } else { self.find(&text, families) };
        if found.is_none() {
            self.honest.learn(kind, value, families);
        }
        found
    }

    /// The first family that recognises the beginning of a body.
    #[must_use]
    pub fn judge_body(&self, kind: &BodyKind, body: &[u8], families: Families) -> Option<Family> {
        self.judge_content(kind, body, families).map(|hit| hit.family)
    }

    /// The first pattern that recognises the beginning of a body.
    #[must_use]
    pub fn judge_content(&self, kind: &BodyKind, body: &[u8], families: Families) -> Option<Hit> {
        let laid_out = body::lay_out(kind, body);
        // Files may have zero bytes, and JSON writes them in another way.
        if families.sees(SPLIT) && *kind == BodyKind::Form && laid_out.windows(3).any(|at| at == b"%00") {
            return Some(SPLIT);
        }
        let text = normalise(&laid_out);
        self.judge_text(&decode::unfence(&text).unwrap_or(text), families)
    }

    /// `text` is in the normal form, its parameters divided as in a query. What only prose holds is likely at most.
    fn judge_text(&self, text: &[u8], families: Families) -> Option<Hit> {
        let mut families = families;
        loop {
            let hit = self.find(text, families)?;
            if hit.certainty == Certainty::Likely || !self.is_in_prose_alone(text, hit) {
                return Some(hit);
            }
            let likely = Hit { certainty: Certainty::Likely, ..hit };
            if families.sees(likely) {
                return Some(likely);
            }
            families = families.without(hit);
        }
    }

    fn is_in_prose_alone(&self, text: &[u8], hit: Hit) -> bool {
        prose::without(text).is_some_and(|rest| self.find(&rest, Families::NONE.with_hit(hit)).is_none())
    }

    fn find(&self, text: &[u8], families: Families) -> Option<Hit> {
        let text = decode::squash(text);
        let traits = traits(&text);
        let all = |text: &[u8], only: Families, traits: u8| {
            self.sets.iter().filter(|set| set.needs & traits != 0 && set.has_of(only)).find_map(|set| set.judge(text, only))
        };
        if let Some(hit) = all(&text, families, traits) {
            return Some(hit);
        }
        if families.has(Family::Inclusion) && traits & SCHEME != 0 {
            let hit = address::inward(&text).map(|certainty| Hit { family: Family::Inclusion, certainty });
            if let Some(hit) = hit.filter(|hit| families.sees(*hit)) {
                return Some(hit);
            }
        }
        let seen_as = |family: Family, view: fn(&[u8]) -> Option<Vec<u8>>, needs: u8| {
            if !families.has(family) || traits & needs == 0 {
                return None;
            }
            all(&view(&text)?, families.meet(Families::NONE.with(family)), needs)
        };
        seen_as(Family::Command, decode::unquote, SHELL).or_else(|| seen_as(Family::Sql, decode::uncomment, SQL))
    }
}

/// A zero byte or a line end where none can be.
const SPLIT: Hit = Hit { family: Family::Splitting, certainty: Certainty::Certain };
/// What a field that every browser sends is looked at for: a look-up that a log runs, a function that a shell runs.
const LOOKUPS: Families = Families::NONE
    .with_hit(Hit { family: Family::Template, certainty: Certainty::Certain })
    .with_hit(Hit { family: Family::Command, certainty: Certainty::Certain });

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Patterns of a user's own, as they are matched: together, without regard to case.
///
/// Errors: together they are too big, or one does not compile.
pub fn own_patterns(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).case_insensitive(true).size_limit(16 << 20).dfa_size_limit(4 << 20).build()
}

/// Puts in what `§` (a gap that SQL sees, or none), `¶` (a gap) and `¤` (an encoded ampersand) stand for, inside a class as well, and the lists of `«…»`: after
/// [`squash`] a gap is one byte.
fn spell_out(pattern: &str) -> String {
    let mut class = false;
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '[' => class = true,
            ']' => class = false,
            '¤' => {
                out.push_str(r"\x02");
                continue;
            }
            '«' => {
                let name: String = chars.by_ref().take_while(|c| *c != '»').collect();
                out.push_str(code::words(&name));
                continue;
            }
            '§' | '¶' if class => {
                out.push_str(r" \n");
                continue;
            }
            '§' => {
                out.push_str(r"[ \n]?");
                continue;
            }
            '¶' => {
                out.push_str(r"[ \n]");
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Whether no byte of the target can be part of anything but names, numbers and their separators, and its query has none of [`WORDS`].
fn is_plain(path: &[u8], query: &[u8]) -> bool {
    let plain = path.iter().fold(true, |plain, byte| plain & (CLASS[usize::from(*byte)] & PATH != 0));
    plain
        && query.iter().skip(1).fold(true, |plain, byte| plain & (CLASS[usize::from(*byte)] & QUERY != 0))
        && !(query.len() > 1 && WORDS.is_match(query))
}

/// What is known without another byte than those of names and numbers.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let words = [
        "__",
        r"=\.",
        "classloader",
        "=ro0ab",
        "=gasv",
        "=aced0005",
        "=aaeaaad",
        "wp-config",
        "=id_",
        "prototype",
        r"\.template",
        r"ognl\.",
        r"@java\.",
        r"@org\.",
        "invokefunction",
        r"com\.sun\.",
        r"commons\.collections",
        "proxycommand",
        "=--?[a-z]",
        "=metadata",
    ];
    RegexBuilder::new(&words.join("|"))
        .unicode(false)
        .case_insensitive(true)
        .build()
        .expect("the words are right because a test builds them")
});

/// What of a text the sets ask for: an honest one has few, and most sets are never run on it.
fn traits(text: &[u8]) -> u8 {
    let mut traits = text.iter().fold(ANY, |traits, byte| traits | CLASS[usize::from(*byte)]) & (SQL | SCRIPT | SHELL | ANY | SCHEME);
    let next = text.get(1..).unwrap_or_default();
    let pair = |wanted: u8| text.iter().zip(next).fold(false, |found, (&a, &b)| found | ((a == wanted) & (b == wanted)));
    if pair(b'-') {
        traits |= SQL;
    }
    // Doubled, it is more than a divider of parameters.
    if pair(b'&') {
        traits |= SQL | SHELL;
    }
    let has = |word: &[u8]| text.windows(word.len()).any(|at| at == word);
    if traits & SCHEME != 0 && (traits & SQL != 0 || has(b"script") || has(b"data")) {
        traits |= SCRIPT;
    }
    traits
}

const PATH: u8 = 1;
const QUERY: u8 = 2;
/// Bytes without which nothing breaks out of SQL, script or a shell's word.
const SQL: u8 = 4;
const SCRIPT: u8 = 8;
const SHELL: u8 = 16;
/// `:`, which may end a scheme.
const SCHEME: u8 = 32;
const ANY: u8 = 64;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b',' | b'@' => PATH | QUERY,
            b'/' => PATH,
            b'&' | b'=' => QUERY,
            b'\'' | b'"' | b'`' | b'(' => SQL | SCRIPT | SHELL,
            b' ' | b'[' | b'*' => SQL,
            b'\n' | b';' | b'|' | b'$' | decode::AMPERSAND => SQL | SHELL,
            b'#' => SQL | SCRIPT,
            b'<' => SCRIPT | SHELL,
            b'>' | b'{' | b'\\' => SHELL,
            b')' | b']' | b'}' => SCRIPT,
            b':' => SCHEME,
            _ => 0,
        };
        byte += 1;
    }
    class
};
