//! Screen rule: which targets, methods and agents only an attacker has.
//!
//! Pure. A target is brought to a normal form ([`normalise`]: every layer of encoding off), its path judged by segments, and the whole matched in one pass of each
//! `RegexSet` that its bytes could match at all. SQL and script are known by structure, never by a lone word: `/select-your-plan?sort=updated--desc;x` is an
//! honest address.
//!
//! Shape: a target of plain bytes alone is only looked at segment by segment and costs no pass, no allocation. Whatever comes, the time is linear in its length:
//!        the decoder is a stack, the engine never backtracks.
//! Units: bytes as received; nothing here assumes UTF-8.

use std::sync::LazyLock;

use http::Method;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

mod code;
mod decode;
mod path;
mod sqli;
mod xss;

#[cfg(test)]
mod corpus;

pub use decode::normalise;

/// What a hit was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// A way up, in the path.
    Traversal,
    /// A hidden or backup file, or one that only a server itself reads.
    Hidden,
    /// A program of another kind of server.
    Extension,
    SqlInjection,
    /// Script.
    CrossSite,
    Command,
    Template,
    /// A file or scheme in a parameter.
    Inclusion,
    /// Line ends that would begin a header.
    Splitting,
    /// A zero byte.
    Null,
}

impl Family {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traversal => "traversal",
            Self::Hidden => "hidden",
            Self::Extension => "extension",
            Self::SqlInjection => "sql",
            Self::CrossSite => "script",
            Self::Command => "command",
            Self::Template => "template",
            Self::Inclusion => "inclusion",
            Self::Splitting => "splitting",
            Self::Null => "null",
        }
    }
}

/// Why a target was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hit {
    pub family: Family,
}

/// The compiled patterns: one for the process.
#[derive(Debug)]
pub struct Screen {
    sets: Box<[Set]>,
}

/// Patterns that are looked for in one pass.
///
/// Shape: few patterns to a set that can be half matched at the same time: the engine builds a state for each combination that it meets.
#[derive(Debug)]
struct Set {
    /// No pattern of it matches a text that has none of these traits.
    needs: u8,
    regexes: RegexSet,
    /// The family of each.
    families: Box<[Family]>,
}

impl Set {
    fn new(needs: u8, tables: &[(Family, &[&str])]) -> Self {
        let rows = || tables.iter().flat_map(|(family, patterns)| patterns.iter().map(|pattern| (*family, *pattern)));
        let regexes = RegexSetBuilder::new(rows().map(|(_, pattern)| spell_out(pattern)))
            .unicode(false)
            .dot_matches_new_line(true)
            .dfa_size_limit(4 << 20)
            .build()
            .expect("the patterns are right because a test builds them");
        Self { needs, regexes, families: rows().map(|(family, _)| family).collect() }
    }

    /// The first match ends the pass; which pattern it was is asked of hits alone.
    fn judge(&self, text: &[u8]) -> Option<Family> {
        if !self.regexes.is_match(text) {
            return None;
        }
        self.regexes.matches(text).iter().next().map(|at| self.families[at])
    }
}

impl Screen {
    #[must_use]
    pub fn new() -> Self {
        let sets = [
            Set::new(SQL, &[(Family::SqlInjection, sqli::PATTERNS)]),
            Set::new(SCRIPT, &[(Family::CrossSite, xss::PATTERNS)]),
            Set::new(SHELL, &[(Family::Command, code::COMMAND)]),
            Set::new(
                ANY,
                &[
                    (Family::Template, code::TEMPLATE),
                    (Family::Inclusion, code::INCLUSION),
                    (Family::Splitting, code::SPLITTING),
                    (Family::Command, code::BARE),
                ],
            ),
        ];
        Self { sets: sets.into() }
    }

    /// The first family that recognises `target`: path and query as received. `extensions` are the route's own, lower case, without the dot.
    #[must_use]
    pub fn judge(&self, target: &[u8], extensions: &[String]) -> Option<Hit> {
        let family = self.family(target, extensions)?;
        Some(Hit { family })
    }

    fn family(&self, target: &[u8], extensions: &[String]) -> Option<Family> {
        if is_plain(target) {
            let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
            return path::judge(&target[..end], extensions);
        }
        let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let mut text = Vec::with_capacity(target.len());
        decode::normalise_into(&target[..query], &mut text);
        let path = text.len();
        if query < target.len() {
            // The mark itself stands between, so no escape reaches across.
            decode::normalise_into(&target[query..], &mut text);
        }
        if text.contains(&0) {
            return Some(Family::Null);
        }
        if text[..path].contains(&b'\n') {
            return Some(Family::Splitting);
        }
        if let Some(family) = path::judge(&text[..path], extensions) {
            return Some(family);
        }
        let text = decode::squash(&text);
        let traits = traits(&text, target);
        self.sets.iter().filter(|set| set.needs & traits != 0).find_map(|set| set.judge(&text))
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts in what `§` (a gap that SQL sees, or none) and `¶` (a gap) stand for, inside a class as well: after [`squash`] a gap is one byte.
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

/// Whether no byte of the target can be part of anything but names, numbers and their separators; and no pair of bytes of one of the few words that are known
/// without other bytes (`__proto__`, `=.env`, `classloader`, `=ro0ab`).
fn is_plain(target: &[u8]) -> bool {
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    let plain = path.iter().fold(true, |plain, byte| plain & (CLASS[usize::from(*byte)] & PATH != 0));
    plain
        && query.iter().skip(1).fold(true, |plain, byte| plain & (CLASS[usize::from(*byte)] & QUERY != 0))
        && !query.windows(2).any(|two| matches!(two, b"__" | b"=." | [b's' | b'S', b'l' | b'L'] | [b'o' | b'O', b'0']))
}

/// What of a text the sets ask for: an honest one has few, and most sets are never run on it.
fn traits(text: &[u8], target: &[u8]) -> u8 {
    let mut traits = text.iter().fold(ANY, |traits, byte| traits | CLASS[usize::from(*byte)]) & (SQL | SCRIPT | SHELL | ANY | SCHEME);
    let next = text.get(1..).unwrap_or_default();
    let pair = |wanted: u8| text.iter().zip(next).fold(false, |found, (&a, &b)| found | ((a == wanted) & (b == wanted)));
    if pair(b'-') {
        traits |= SQL;
    }
    // An ampersand that was encoded, or doubled, is more than a divider of parameters.
    let ampersands = |of: &[u8]| of.iter().filter(|byte| **byte == b'&').count();
    if ampersands(text) > ampersands(target) || pair(b'&') {
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
            b'\n' | b';' | b'|' | b'$' => SQL | SHELL,
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

/// The methods of ordinary traffic.
pub const METHODS: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Whether a method is none of [`METHODS`]: TRACE, CONNECT, DEBUG, WebDAV's, anything made up. A route that wants one lists it.
#[must_use]
pub fn bad_method(method: &Method) -> bool {
    !METHODS.contains(method)
}

/// Whether a user agent is that of a scanner, by the names that scanners give themselves. None at all is honest: many small clients send none.
#[must_use]
pub fn scanner(agent: &[u8]) -> bool {
    SCANNERS.is_match(agent)
}

static SCANNERS: LazyLock<Regex> = LazyLock::new(|| {
    let names = [
        "acunetix",
        "appscan",
        "arachni",
        "bbscan",
        "brutus",
        "burpsuite",
        "burp suite",
        "cgichk",
        "commix",
        "dalfox",
        "dirbuster",
        "dirsearch",
        "fimap",
        "feroxbuster",
        "ffuf",
        "fuzz faster",
        "gobuster",
        "golismero",
        "grabber",
        "grendel-scan",
        "havij",
        "joomscan",
        "jorgee",
        "l9explore",
        "l9tcpid",
        "leakix",
        "masscan",
        "morfeus",
        "muieblackcat",
        "nessus",
        "netsparker",
        "invicti",
        "nikto",
        "nmap",
        "nsauditor",
        "nuclei",
        "openvas",
        "owasp zap",
        "zaproxy",
        "pangolin",
        "paros/",
        "projectdiscovery",
        "qualys was",
        "rustscan",
        "skipfish",
        "sqlmap",
        "sqlninja",
        "sqlsus",
        "thc-hydra",
        r"\(hydra\)",
        "w3af",
        "webinspect",
        "webscarab",
        "wfuzz",
        "whatweb",
        "wpscan",
        "xsser",
        "xsstrike",
        "xspider",
        "zgrab",
        "zmeu",
        r"\$\{jndi",
        r"\(\) *\{",
    ];
    RegexBuilder::new(&names.join("|"))
        .unicode(false)
        .case_insensitive(true)
        .build()
        .expect("the names are right because a test builds them")
});
