//! The house rules that a compiler cannot know: who may import whom, where `unsafe` may stand, which files are pure.
//!
//! Reads the tokens of `src/**.rs` (tests and comments left out) and fails with file, line and the rule. The floors are those of `src/lib.rs`.
//! Every rule has a test below that shows it failing: a checker that cannot fail checks nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

// ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Rooms by floor. An import points to a lower number, or stays in its room; rooms of equal number never import each other.
const FLOORS: [(&str, u8); 16] = [
    ("main", 100),
    ("cli", 50),
    ("boot", 40),
    ("admin", 30),
    ("master", 20),
    ("edge", 20),
    ("acme", 15),
    ("config", 10),
    ("ipc", 10),
    ("store", 10),
    ("telemetry", 10),
    ("demo", 10),
    // Above the floor from which shapes may be named, for the bytes of a pair are one; below everyone who asks about a certificate.
    ("pki", 4),
    ("rules", 3),
    ("plan", 2),
    ("vocab", 1),
];

/// Files of a higher room that are pure shapes, and may be imported as if they lay on the ground floor.
const SHAPES: [&[&str]; 3] = [&["ipc", "message"], &["ipc", "control"], &["ipc", "why"]];

/// P: no tokio, I/O, clock, dice, logging. A prefix of the path under `src/`.
const PURE: [&str; 15] = [
    "pki/",
    "rules/",
    "plan/",
    "vocab/",
    "config/file",
    "config/compile",
    "config/defaults",
    "config/complaint",
    "ipc/message",
    "ipc/control",
    "ipc/why",
    "ipc/codec",
    "telemetry/access.rs",
    "acme/explain",
    "acme/standing",
];

/// What a pure file may not name: a path that starts with, or a call that ends in, one of these.
const IMPURE_ROOTS: [&str; 14] = [
    "tokio",
    "tokio_util",
    "nix",
    "libc",
    "socket2",
    "rand",
    "fastrand",
    "getrandom",
    "tracing",
    "tracing_subscriber",
    "log",
    "hyper",
    "pingora",
    "sysinfo",
];
const IMPURE_PATHS: [&[&str]; 13] = [
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "io", "stdin"],
    &["std", "io", "stdout"],
    &["std", "io", "stderr"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "os", "unix", "net"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];
const IMPURE_CALLS: [[&str; 2]; 4] = [["Instant", "now"], ["SystemTime", "now"], ["Timestamp", "now"], ["Zoned", "now"]];
const IMPURE_MACROS: [&str; 5] = ["println", "eprintln", "print", "eprint", "dbg"];

/// U: the only files where `unsafe` may stand, each with its reason; every use needs a `SAFETY:` comment.
const UNSAFE: [(&str, &str); 2] = [
    ("ipc/fds.rs", "turns numbers received by SCM_RIGHTS into owned descriptors"),
    ("master/child.rs", "pre_exec: setsid, PR_SET_PDEATHSIG, descriptors placed between fork and exec"),
];

/// Which files may name an outside crate: prefixes of the path under `src/`.
const OWNERS: [(&str, &[&str]); 26] = [
    ("pingora", &["edge/conn", "edge/engine", "edge/listen", "edge/content"]),
    ("toml", &["config/"]),
    ("schemars", &["config/"]),
    ("strsim", &["config/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("comfy_table", &["cli/"]),
    ("indicatif", &["cli/"]),
    // Descriptors, signals, users; the end of a wait for an upstream; reading a file that may be a pipe; waiting for the log pipe; free disk; a patient's vices.
    (
        "nix",
        &[
            "master/",
            "ipc/",
            "store/",
            "boot/",
            "cli/",
            "config/load",
            "edge/upstream/waits",
            "telemetry/accesslog",
            "telemetry/node",
            "demo/",
        ],
    ),
    ("libc", &["master/", "ipc/", "store/", "boot/", "config/load"]),
    // Handshakes in both directions, the CA's orders among them; `pki` has only what reads certificates and keys.
    ("rustls", &["edge/", "acme/", "pki/"]),
    ("tokio_rustls", &["edge/", "acme/"]),
    ("rcgen", &["edge/", "acme/"]),
    // A pair's facts; the subject of a client.
    ("x509_parser", &["pki/", "edge/tls/mutual"]),
    ("instant_acme", &["acme/"]),
    ("aws_lc_rs", &["edge/tls", "edge/access", "edge/gate/maintenance", "acme/account"]),
    ("prometheus", &["telemetry/"]),
    ("sysinfo", &["telemetry/"]),
    ("postcard", &["ipc/"]),
    ("bcrypt", &["rules/password"]),
    ("argon2", &["rules/password"]),
    ("sha_crypt", &["rules/password"]),
    ("sha1", &["rules/password"]),
    ("subtle", &["rules/", "edge/"]),
    ("rustix", &["edge/access", "master/as_user.rs"]),
    // A pace that is a pace and nothing else; the zones have more to decide (D27).
    ("governor", &["telemetry/seldom", "admin/door", "edge/witness"]),
];

fn complaints(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for file in &tree.files {
        imports(file, &mut out);
        purity(file, &mut out);
        owners(file, &mut out);
        words(file, &mut out);
    }
    out
}

/// Imports point down only.
fn imports(file: &File, out: &mut Vec<String>) {
    let Some(own) = floor(file.room()) else {
        out.push(format!("{}: room {:?} stands on no floor; give it one in src/lib.rs and here", file.name, file.room()));
        return;
    };
    for path in &file.paths {
        let Some(target) = file.resolve(path) else { continue };
        let Some(room) = target.first() else { continue };
        if room == file.room() {
            continue;
        }
        if SHAPES.iter().any(|shape| target.starts_with(&shape.map_owned())) && own > 3 {
            continue;
        }
        match floor(room) {
            Some(other) if other < own => {}
            Some(other) => {
                let way = if other == own { "sibling" } else { "upward" };
                out.push(file.at(path.line, &format!("{way} import of crate::{}", target.join("::"))));
            }
            // A macro or an item at the crate root: nothing lives there but rooms.
            None => out.push(file.at(path.line, &format!("crate::{} is no room", target.join("::")))),
        }
    }
}

fn purity(file: &File, out: &mut Vec<String>) {
    if !PURE.iter().any(|pure| file.name.starts_with(pure)) {
        return;
    }
    for path in &file.paths {
        let words: Vec<&str> = path.words.iter().map(String::as_str).collect();
        let root = words.len() > 1 && IMPURE_ROOTS.contains(&words[0]) && !file.declares(words[0]);
        let path_in = IMPURE_PATHS.iter().any(|bad| words.starts_with(bad));
        let call = IMPURE_CALLS.iter().any(|bad| words.ends_with(bad));
        if root || path_in || call {
            out.push(file.at(path.line, &format!("{} in a pure file", words.join("::"))));
        }
    }
    for pair in file.tokens.windows(2) {
        if pair[1].text == "!" && IMPURE_MACROS.contains(&pair[0].text.as_str()) {
            out.push(file.at(pair[0].line, &format!("{}! in a pure file", pair[0].text)));
        }
    }
}

fn owners(file: &File, out: &mut Vec<String>) {
    for path in &file.paths {
        let first = path.words[0].as_str();
        if path.words.len() < 2 || file.declares(first) {
            continue;
        }
        for (name, places) in OWNERS {
            let named = first == name || (name == "pingora" && first.starts_with("pingora_"));
            if named && !places.iter().any(|place| file.name.starts_with(place)) {
                out.push(file.at(path.line, &format!("{} belongs to {}", path.words.join("::"), places.join(", "))));
            }
        }
    }
}

fn words(file: &File, out: &mut Vec<String>) {
    let may_be_unsafe = UNSAFE.iter().any(|(name, _reason)| *name == file.name);
    for (i, token) in file.tokens.iter().enumerate() {
        let next = |n: usize| file.tokens.get(i + n).map_or("", |t| t.text.as_str());
        match token.text.as_str() {
            "unsafe" if !may_be_unsafe => out.push(file.at(token.line, "unsafe outside the files that may (UNSAFE)")),
            "unsafe" if !file.explained(token.line) => out.push(file.at(token.line, "unsafe without a SAFETY: comment above it")),
            "." if next(1) == "unwrap" && next(2) == "(" && next(3) == ")" => {
                out.push(file.at(token.line, "unwrap outside a test; say why it cannot fail with expect(\"… because …\")"));
            }
            "#" if (next(1) == "[" && next(2) == "allow") || (next(1) == "!" && next(2) == "[" && next(3) == "allow") => {
                out.push(file.at(token.line, "allow; use #[expect(lint, reason = \"…\")]"));
            }
            "todo" | "unimplemented" if next(1) == "!" => out.push(file.at(token.line, "unfinished work")),
            _ => {}
        }
    }
    for path in &file.paths {
        let words: Vec<&str> = path.words.iter().map(String::as_str).collect();
        if words.ends_with(&["tokio", "spawn"]) || words.ends_with(&["tokio", "task", "spawn"]) {
            out.push(file.at(path.line, "bare tokio::spawn; every task sits in a JoinSet or TaskTracker"));
        }
        if words[0] == "anyhow" {
            out.push(file.at(path.line, "anyhow outside a test"));
        }
    }
    for (i, line) in file.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        if let Some(mark) = words.find(|word| ["TODO", "FIXME", "XXX"].contains(word)) {
            out.push(file.at(i + 1, &format!("{mark}: unfinished work")));
        }
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

struct Tree {
    files: Vec<File>,
}

struct File {
    /// Under `src/`, with `/`.
    name: String,
    text: String,
    tokens: Vec<Token>,
    paths: Vec<Import>,
    /// `#[cfg(test)] mod NAME;`
    test_modules: BTreeSet<String>,
}

#[derive(Clone)]
struct Token {
    text: String,
    line: usize,
    word: bool,
}

/// A path as it stands in the code; a `use` tree is one for each leaf.
struct Import {
    words: Vec<String>,
    line: usize,
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}
impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|&s| s.to_owned()).collect()
    }
}

impl Tree {
    fn read(src: &Path) -> Self {
        let mut names = Vec::new();
        list(src, &mut names);
        names.sort();
        let files: Vec<File> = names
            .iter()
            .map(|path| {
                let name = path.strip_prefix(src).expect("listed under src").to_string_lossy().replace('\\', "/");
                File::parse(&name, &fs::read_to_string(path).expect("source is readable"))
            })
            .collect();
        let tests: BTreeSet<String> = files
            .iter()
            .flat_map(|file| {
                let dir = file.module().join("/");
                file.test_modules.iter().map(move |name| if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") })
            })
            .collect();
        let is_test = |file: &File| tests.iter().any(|t| file.name == format!("{t}.rs") || file.name.starts_with(&format!("{t}/")));
        Self { files: files.into_iter().filter(|file| !is_test(file)).collect() }
    }

    fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(name, text)| File::parse(name, text)).collect() }
    }
}

impl File {
    fn parse(name: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut tokens = Vec::new();
        let mut test_modules = BTreeSet::new();
        flatten(stream, &mut tokens, &mut test_modules);
        let paths = paths(&tokens);
        Self { name: name.into(), text: text.into(), tokens, paths, test_modules }
    }

    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// `edge/gate/mod.rs` → `[edge, gate]`, `edge/live.rs` → `[edge, live]`, `lib.rs` → `[]`.
    fn module(&self) -> Vec<String> {
        let path = self.name.strip_suffix(".rs").unwrap_or(&self.name);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
    }

    /// The path from the crate root, if it leads into this crate.
    fn resolve(&self, import: &Import) -> Option<Vec<String>> {
        let mut words = import.words.as_slice();
        let mut at = match words.first()?.as_str() {
            "crate" | "gateway" if words.len() > 1 => Vec::new(),
            "super" => {
                let mut at = self.module();
                at.pop();
                at
            }
            _ => return None,
        };
        words = &words[1..];
        while words.first().is_some_and(|word| word == "super") {
            at.pop();
            words = &words[1..];
        }
        at.extend(words.iter().cloned());
        Some(at)
    }

    /// A module of its own by that name hides the outside crate (`plan::log`).
    fn declares(&self, name: &str) -> bool {
        self.tokens.windows(2).any(|pair| pair[0].text == "mod" && pair[1].text == name)
    }

    fn explained(&self, line: usize) -> bool {
        let first = line.saturating_sub(8);
        self.text.lines().skip(first).take(line - first).any(|text| text.contains("SAFETY:"))
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line}: {what}", self.name)
    }
}

fn list(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            list(&path, out);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("lib.rs") {
            out.push(path);
        }
    }
}

/// Groups become their brackets; items under `#[cfg(test)]` are left out.
fn flatten(stream: TokenStream, out: &mut Vec<Token>, test_modules: &mut BTreeSet<String>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut i = 0;
    while i < trees.len() {
        if is_cfg_test(&trees[i..]) {
            i = skip_item(&trees, i + 2, test_modules);
            continue;
        }
        match &trees[i] {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                out.push(Token { text: open.into(), line: group.span_open().start().line, word: false });
                flatten(group.stream(), out, test_modules);
                out.push(Token { text: close.into(), line: group.span_close().start().line, word: false });
            }
            TokenTree::Ident(word) => out.push(Token { text: word.to_string(), line: word.span().start().line, word: true }),
            TokenTree::Punct(punct) => out.push(Token { text: punct.as_char().into(), line: punct.span().start().line, word: false }),
            // What a literal says is no code; a doc comment is one too.
            TokenTree::Literal(literal) => out.push(Token { text: "\"\"".into(), line: literal.span().start().line, word: false }),
        }
        i += 1;
    }
}

fn is_cfg_test(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = trees else { return false };
    let text = attribute.stream().to_string().replace(' ', "");
    hash.as_char() == '#' && (text == "cfg(test)" || text == "test" || text == "tokio::test" || text.starts_with("cfg(all(test,"))
}

/// The index after the item that starts at `i`: its block, or its semicolon.
fn skip_item(trees: &[TokenTree], mut i: usize, test_modules: &mut BTreeSet<String>) -> usize {
    while i < trees.len() {
        match &trees[i] {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return i + 1,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return i + 1,
            TokenTree::Ident(word) if *word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(_))) = (trees.get(i + 1), trees.get(i + 2)) {
                    test_modules.insert(name.to_string());
                }
            }
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
        i += 1;
    }
    i
}

fn paths(tokens: &[Token]) -> Vec<Import> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i].word {
            i = path(tokens, i, &[], &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// Reads `a::b::{c, d::e}` from `i` and gives the index after it.
fn path(tokens: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<Import>) -> usize {
    let mut words = prefix.to_vec();
    let line = tokens[i].line;
    loop {
        words.push(tokens[i].text.clone());
        i += 1;
        let colons = tokens.get(i).is_some_and(|t| t.text == ":") && tokens.get(i + 1).is_some_and(|t| t.text == ":");
        if !colons {
            break;
        }
        match tokens.get(i + 2) {
            Some(next) if next.word => i += 2,
            Some(next) if next.text == "{" => {
                i += 3;
                while i < tokens.len() && tokens[i].text != "}" {
                    i = if tokens[i].word { path(tokens, i, &words, out) } else { i + 1 };
                }
                return i + 1;
            }
            _ => break,
        }
    }
    out.push(Import { words, line });
    // `a::b as c`: the new name is no path.
    if tokens.get(i).is_some_and(|t| t.text == "as") && !prefix.is_empty() { i + 2 } else { i }
}

// ── the tree ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_tree_keeps_its_rules() {
    let tree = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(tree.files.len() > 20, "only {} files were read", tree.files.len());
    let found = complaints(&tree);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_exception_is_still_needed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let tree = Tree::read(&src);
    for (name, reason) in UNSAFE {
        let used = tree.files.iter().any(|file| file.name == name && file.tokens.iter().any(|token| token.text == "unsafe"));
        assert!(used, "src/{name} may be unsafe ({reason}) but is not: take it off the list");
    }
}

#[test]
fn the_floors_are_those_of_the_map() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    for (room, _) in FLOORS.iter().filter(|(room, _)| *room != "main") {
        assert!(map.contains(&format!("pub mod {room};")), "{room} is not in src/lib.rs");
    }
    for line in map.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let room = line.trim_end_matches(';');
        assert!(floor(room).is_some(), "{room} of src/lib.rs stands on no floor here");
    }
}

// ── the checker can fail ────────────────────────────────────────────────────────────────────────────────────────────

fn refused(name: &str, text: &str, why: &str) {
    let found = complaints(&Tree::of(&[(name, text)]));
    assert!(found.iter().any(|line| line.contains(why)), "{name}: {text:?} should be refused because of {why:?}, but: {found:?}");
}

fn accepted(name: &str, text: &str) {
    let found = complaints(&Tree::of(&[(name, text)]));
    assert!(found.is_empty(), "{name}: {text:?} should pass, but: {found:?}");
}

#[test]
fn an_upward_import_is_refused_however_it_is_written() {
    refused("rules/limit.rs", "use crate::edge::live;", "upward import of crate::edge");
    refused("rules/limit.rs", "use crate::{plan::Zone, config::load};", "upward import of crate::config");
    refused("plan/zone.rs", "fn f() { crate::rules::limit::f() }", "upward import of crate::rules");
    refused("vocab/name.rs", "use super::super::plan::Zone;", "upward import of crate::plan");
    refused("plan/mod.rs", "use super::rules::route;", "upward import of crate::rules");
    refused("edge/live.rs", "use crate::{a::b, boot::edge};", "upward import of crate::boot");
    refused("vocab/name.rs", "macro_rules! m { () => { $crate::cli::run() } }", "upward import of crate::cli");
}

#[test]
fn siblings_never_import_each_other() {
    refused("master/reload.rs", "use crate::edge::live;", "sibling import of crate::edge");
    refused("edge/live.rs", "use crate::master::handle;", "sibling import of crate::master");
    refused("config/load.rs", "use crate::store::atomic;", "sibling import of crate::store");
}

#[test]
fn imports_that_point_down_pass() {
    accepted("edge/live.rs", "use crate::{plan::Plan, rules::route, vocab::Host}; use super::gate; use crate::edge::upstream::Pool;");
    accepted("boot/master.rs", "use crate::{master, config, ipc::message::Hello};");
    accepted("telemetry/metric.rs", "use crate::ipc::message::AppTable;");
    accepted("edge/reply.rs", "use crate::{plan::HeaderEdit, rules::header as rule, vocab::Host as H};");
    accepted("main.rs", "fn main() { gateway::cli::run() }");
    accepted("edge/gate/mod.rs", "use super::reply::Reply;");
}

#[test]
fn a_room_without_a_floor_is_refused() {
    refused("attic/x.rs", "", "stands on no floor");
    refused("edge/live.rs", "use crate::attic::x;", "is no room");
}

#[test]
fn impure_words_are_refused_in_pure_files_only() {
    for text in [
        "use tokio::time::sleep;",
        "fn f() { let t = Instant::now(); }",
        "fn f() { let t = std::time::SystemTime::now(); }",
        "use std::{fs, io};",
        "use std::net::TcpStream;",
        "fn f() { fastrand::u64(..); }",
        "fn f() { tracing::info!(\"x\"); }",
        "fn f() { println!(\"x\"); }",
        "use std::time::Instant;",
        "fn f() { std::env::var(\"X\"); }",
    ] {
        refused("rules/limit.rs", text, "in a pure file");
        refused("config/compile/app.rs", text, "in a pure file");
        refused("ipc/codec.rs", text, "in a pure file");
    }
    accepted("edge/live.rs", "use std::{fs, time::Instant}; fn f() { tracing::info!(\"x\"); tokio::time::sleep(d); }");
    accepted("rules/limit.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; use std::path::Path;");
}

#[test]
fn tests_comments_and_strings_are_not_judged() {
    accepted(
        "rules/limit.rs",
        "//! Instant::now stands in the shell\n/* use tokio::x; */ const A: &str = \"crate::edge::live unsafe .unwrap()\";\n\
         #[cfg(test)]\nmod tests { use crate::edge::live; fn f() { Instant::now(); x.unwrap(); } }",
    );
    refused("rules/limit.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { x.unwrap(); }", "unwrap");
    refused("rules/limit.rs", "#[cfg(test)]\nuse a::b;\nfn g() { x.unwrap(); }", "unwrap");
}

#[test]
fn an_outside_crate_stays_in_its_room() {
    refused("edge/gate/limit.rs", "use pingora::http::RequestHeader;", "belongs to edge/conn");
    refused("edge/live.rs", "use pingora_proxy::Session;", "belongs to edge/conn");
    refused("cli/check.rs", "fn f() { toml::from_str(t); }", "belongs to config/");
    refused("edge/live.rs", "use nix::sys::signal;", "belongs to master/");
    refused("edge/live.rs", "fn f() { libc::getpid(); }", "belongs to master/");
    refused("admin/server.rs", "use prometheus::Counter;", "belongs to telemetry/");
    accepted("edge/engine.rs", "use pingora::proxy::ProxyHttp;");
    accepted("config/load.rs", "use toml::de;");
}

#[test]
fn unsafe_stands_in_its_files_and_is_explained() {
    refused("edge/live.rs", "fn f() { unsafe { g() } }", "unsafe outside");
    refused("ipc/fds.rs", "fn f() { unsafe { g() } }", "without a SAFETY");
    accepted("ipc/fds.rs", "fn f() {\n    // SAFETY: we own it\n    unsafe { g() }\n}");
}

#[test]
fn words_that_end_badly_are_refused() {
    refused("edge/live.rs", "fn f() { x.unwrap(); }", "unwrap");
    refused("edge/live.rs", "#[allow(dead_code)] fn f() {}", "allow");
    refused("edge/live.rs", "#![allow(dead_code)]", "allow");
    refused("edge/live.rs", "fn f() { tokio::spawn(g()); }", "tokio::spawn");
    refused("edge/live.rs", "use tokio::task::spawn;", "tokio::spawn");
    refused("edge/live.rs", "fn f() { todo!() }", "unfinished");
    refused("edge/live.rs", "// TODO: later", "unfinished");
    refused("edge/live.rs", "use anyhow::Result;", "anyhow");
    accepted("edge/live.rs", "/// Written as \\uXXXX.");
    accepted("edge/live.rs", "#[expect(dead_code, reason = \"x\")] fn f() { x.unwrap_or(1); tokio::task::spawn_local(g()); }");
}
