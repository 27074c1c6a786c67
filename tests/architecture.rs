//! The house rules that a compiler cannot know: who may import whom, where `unsafe` may stand, which files are pure.
//!
//! Reads the tokens of `src/**.rs` (tests and comments left out) and fails with file, line and the rule. The floors are those of `src/lib.rs`.
//! Every rule has a test below that shows it failing: a checker that cannot fail checks nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The floors within the two large rooms, from the ground up. An import points to a lower one, or stays in its file and what lies below it.
const INNER: [(&str, &[&[&str]]); 2] = [
    (
        "master",
        &[
            // What it holds and knows: words, tables, descriptors, what the kernel tells.
            &["bag", "cgroup", "clock", "kin", "ports", "releases", "sockets", "switches", "table", "tickets", "usage", "whose", "words"],
            &["output"],
            // One child, and what is told of the ended.
            &["child", "guard", "herald", "obituary", "score"],
            // All children; who they are to be; what is in the way of an upgrade.
            &["as_user", "nursery", "obstacle", "outfit"],
            // Kinds of children.
            &["elders", "errand", "places"],
            &["edge_link", "launch"],
            // The actors.
            &["jobs", "materials", "status", "supervisor"],
            // What is done with them: releases, upgrades, reloads.
            &["deploy", "handoff"],
            &["upgrade"],
            &["reload"],
            // Whom people reach.
            &["handle"],
            &["control", "shutdown"],
        ],
    ),
    (
        "edge",
        &[
            &["blackbox", "proxy_protocol", "refused", "tls", "upstream", "warden"],
            &["forward", "reply", "witness"],
            &["conn", "gate"],
            &["access"],
            // What is in force.
            &["live"],
            // The way of a request, from the listener down.
            &["exchange"],
            &["intake"],
            &["engine"],
            &["listen"],
        ],
    ),
];

/// Files of a higher room that are pure shapes, and may be imported as if they lay on the ground floor.
const SHAPES: [&[&str]; 3] = [&["ipc", "message"], &["ipc", "control"], &["ipc", "why"]];

/// P: no tokio, I/O, clock, dice, logging. A file is pure that says so: a line of its module doc begins with "Pure". What lies below a pure file is pure too.
/// "Pure but for …" is an honest word of one that is not.
const SAYS: &str = "//! Pure";
const BUT: &str = "//! Pure but";

/// Rooms that are pure from end to end, and whose first file must say so.
const GROUND: [&str; 4] = ["pki", "rules", "plan", "vocab"];

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
const UNSAFE: [(&str, &str); 3] = [
    ("ipc/fds.rs", "turns numbers received by SCM_RIGHTS into owned descriptors"),
    ("master/child.rs", "pre_exec: setsid, PR_SET_PDEATHSIG, descriptors placed between fork and exec"),
    ("master/guard.rs", "forks a process that makes system calls alone"),
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
    ("rustix", &["edge/access", "master/as_user.rs", "master/kin", "master/guard"]),
    // A pace that is a pace and nothing else; the zones have more to decide (D27).
    ("governor", &["telemetry/seldom", "admin/door", "edge/witness"]),
];

/// Helpers that are the one way to do a thing, and the words that would do it by hand.
const ONE_WAY: [(&str, &[&str], &str); 2] = [
    ("vocab/chain.rs", &[".", "source", "(", ")"], "causes walked by hand; vocab::chain and vocab::story tell them"),
    ("vocab/lock.rs", &["PoisonError"], "a poisoned lock decided upon here; vocab::lock takes it"),
];

/// Lines of a file, and of a function from its name to its last brace.
const FILE_LINES: usize = 500;
const FN_LINES: usize = 60;

/// Files that are larger, and why they are not split yet. Nothing comes onto this list; what is split goes off it.
const LARGE_FILES: [(&str, &str); 12] = [
    ("admin/view.rs", "the shapes of one answer"),
    ("cli/render.rs", "one function for each command's table, with its snapshots"),
    ("config/compile/app.rs", "the keys of one table"),
    ("config/show.rs", "the whole configuration, written as it is read"),
    ("ipc/message.rs", "the wire between master and edge, one message after the other"),
    ("master/ports.rs", "what the kernel tells of a listener, and what is made of it"),
    ("master/supervisor.rs", "one actor: what it hears and what it does about it"),
    ("edge/conn.rs", "takes the bytes of a connection; the engine that it feeds is to be replaced, and it with it"),
    ("master/child.rs", "what happens between fork and exec is read from top to bottom"),
    ("master/deploy.rs", "one deploy from the order to its end"),
    ("master/jobs.rs", "one actor and its runs"),
    ("master/output.rs", "the threads that write, and how they are told"),
];

/// Functions that are longer, by file and name, and why they are not cut yet.
const LONG_FNS: [(&str, &str, &str); 24] = [
    ("acme/explain.rs", "cause", "a table of the CA's problems, a line each"),
    ("boot/edge.rs", "serve", "the composition root names every part once"),
    ("cli/mod.rs", "dispatch", "one arm for each command"),
    ("config/compile/probe.rs", "probes", "one line for each key"),
    ("config/compile.rs", "compile", "one line for each table of the file"),
    ("config/compile/app.rs", "app", "one line for each key"),
    ("config/compile/filter.rs", "table", "one line for each filter"),
    ("config/compile/route.rs", "route", "one line for each key"),
    ("config/show.rs", "app", "one line for each key"),
    ("config/show.rs", "effective", "one line for each table"),
    ("edge/gate/limit.rs", "walk", "holds the cells of all zones, and lets go of them in one place"),
    ("edge/intake.rs", "drive", "the steps of a request in their order"),
    ("edge/tls.rs", "build", "one arm for each kind of certificate"),
    ("master/child.rs", "spawn", "what happens between fork and exec is read from top to bottom"),
    ("master/control.rs", "converse", "one arm for each request of the control socket"),
    ("master/edge_link/hear.rs", "hear", "one arm for each message of the edge"),
    ("master/edge_link/running.rs", "launch", "the descriptors of one start, each placed once"),
    ("master/launch.rs", "start", "what a process is given, in the order it is made"),
    ("master/output.rs", "read_one", "one buffer that is filled and emptied"),
    ("master/supervisor/report.rs", "report", "one arm for each report, in the words of log and waiter"),
    ("rules/restart.rs", "step", "one arm for each event"),
    ("rules/screen/path.rs", "judge_segment", "one line for each kind of segment"),
    ("telemetry/access.rs", "write_json", "one line for each field"),
    ("telemetry/exposition.rs", "facts", "one line for each figure"),
];

/// Files that import each other in a ring all the same.
const RINGS: [(&[&str], &str); 3] = [
    (
        &[
            "edge/gate/address",
            "edge/gate/compiled",
            "edge/gate/cors",
            "edge/gate/maintenance",
            "edge/gate/method",
            "edge/gate/misdirected",
        ],
        "a gate judges by what is compiled for all gates, and each compiles its own part",
    ),
    (&["edge/upstream/hold", "edge/upstream/pool"], "whoever waits asks the pool that took the place of his own"),
    (
        &["rules/restart/blame", "rules/restart/cell", "rules/restart/recycle", "rules/restart/succession", "rules/restart/view"],
        "a cell holds the state of the rules that change it",
    ),
];

fn complaints(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    let pure: BTreeSet<Vec<String>> = tree.files.iter().filter(|file| file.says_that_it_is_pure()).map(File::module).collect();
    for file in &tree.files {
        imports(file, &mut out);
        if is_pure(file, &pure) {
            purity(file, &mut out);
        }
        owners(file, &mut out);
        words(file, &mut out);
        one_way(file, &mut out);
        sizes(file, &mut out);
    }
    out.extend(
        circles(tree)
            .into_iter()
            .filter(|ring| !is_known(ring))
            .map(|ring| format!("src/{}: import each other in a ring; what they share belongs into a file below them", ring.join(", "))),
    );
    out
}

fn is_pure(file: &File, pure: &BTreeSet<Vec<String>>) -> bool {
    let module = file.module();
    (1..=module.len()).any(|n| pure.contains(&module[..n]))
}

fn is_known(ring: &[String]) -> bool {
    RINGS.iter().any(|(known, _reason)| ring.iter().all(|module| known.contains(&module.as_str())))
}

fn one_way(file: &File, out: &mut Vec<String>) {
    for (home, words, why) in ONE_WAY {
        if file.name == home {
            continue;
        }
        let found =
            file.tokens.windows(words.len()).find(|window| window.iter().map(|token| token.text.as_str()).eq(words.iter().copied()));
        if let Some(window) = found {
            out.push(file.at(window[0].line, why));
        }
    }
}

/// What one can keep in mind.
fn sizes(file: &File, out: &mut Vec<String>) {
    let lines = file.text.lines().count();
    if lines > FILE_LINES && !LARGE_FILES.iter().any(|(name, _)| *name == file.name) {
        out.push(file.at(lines, &format!("a file of {lines} lines, more than {FILE_LINES}: split it by noun")));
    }
    for (name, line, lines) in file.functions() {
        if lines > FN_LINES && !LONG_FNS.iter().any(|(place, known, _)| *place == file.name && *known == name) {
            out.push(file.at(line, &format!("fn {name} has {lines} lines, more than {FN_LINES}: give its parts names")));
        }
    }
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
            if let Some(complaint) = within(file, &target) {
                out.push(file.at(path.line, &complaint));
            }
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

/// What is wrong with an import within a room that has inner floors.
fn within(file: &File, target: &[String]) -> Option<String> {
    let (room, floors) = INNER.iter().find(|(room, _)| *room == file.room())?;
    let module = file.module();
    // The room's own file only names its parts; what it re-exports is found where it stands.
    let (from, to) = (module.get(1)?, target.get(1)?);
    let floor = |name: &String| floors.iter().position(|floor| floor.contains(&name.as_str()));
    let Some(own) = floor(from) else { return Some(format!("{room}/{from} stands on no inner floor of {room}; give it one in INNER")) };
    let other = floor(to)?;
    (from != to && other >= own).then(|| {
        let way = if other == own { "sibling" } else { "upward" };
        format!("{way} import of crate::{} within {room}", target.join("::"))
    })
}

fn purity(file: &File, out: &mut Vec<String>) {
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

/// Files of a room that import each other in a ring: at every level, the modules of one parent, each with all that lies below it.
fn circles(tree: &Tree) -> Vec<Vec<String>> {
    let whole = |file: &File| (1..=file.module().len()).map(|n| file.module()[..n].to_vec()).collect::<Vec<_>>();
    let modules: BTreeSet<Vec<String>> = tree.files.iter().flat_map(whole).collect();
    let aliases: BTreeMap<(Vec<String>, String), String> = tree.files.iter().flat_map(|file| file.reexports(&modules)).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for file in &tree.files {
        let own = file.module();
        for target in file.paths.iter().filter_map(|path| file.resolve(path)) {
            let shared = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if shared == 0 || own.len() == shared || target.len() == shared {
                continue;
            }
            let parent = own[..shared].to_vec();
            let mut other = target[..=shared].to_vec();
            if !modules.contains(&other) {
                // An item of the parent: it may stand there for one of a child's.
                let Some(child) = aliases.get(&(parent.clone(), target[shared].clone())) else { continue };
                other = [parent, vec![child.clone()]].concat();
            }
            let from = own[..=shared].to_vec();
            if from != other {
                edges.entry(from).or_default().insert(other);
            }
        }
    }
    rings(&edges)
}

/// The strongly connected parts of more than one.
fn rings(edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<Vec<String>> {
    let reach = |from: &Vec<String>| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for to in edges.get(at).into_iter().flatten() {
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = edges.keys().map(|from| (from, reach(from))).collect();
    let mut out = BTreeSet::new();
    for (from, there) in &reached {
        if there.contains(from) {
            let ring = there.iter().filter(|to| reached.get(*to).is_some_and(|back| back.contains(from)));
            out.insert(ring.map(|module| module.join("/")).collect::<Vec<_>>());
        }
    }
    out.into_iter().collect()
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

    /// Names that stand in this module for those of a module below it: `pub use event::Event`.
    fn reexports(&self, modules: &BTreeSet<Vec<String>>) -> Vec<((Vec<String>, String), String)> {
        let own = self.module();
        let below = |word: &String| modules.contains(&[own.clone(), vec![word.clone()]].concat());
        let named = self.paths.iter().filter_map(|path| {
            let words = path.words.strip_prefix(&["self".to_owned()][..]).unwrap_or(&path.words);
            let (first, last) = (words.first()?, words.last()?);
            (words.len() > 1 && below(first)).then(|| ((own.clone(), last.clone()), first.clone()))
        });
        named.collect()
    }

    fn says_that_it_is_pure(&self) -> bool {
        let mut head = self.text.lines().take_while(|line| line.starts_with("//!"));
        head.any(|line| line.starts_with(SAYS) && !line.starts_with(BUT))
    }

    /// Each function with a body: its name, where it stands, how many lines.
    fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut out = Vec::new();
        for (i, pair) in self.tokens.windows(2).enumerate() {
            if pair[0].text != "fn" || !pair[1].word {
                continue;
            }
            let mut depth = 0_usize;
            for token in &self.tokens[i..] {
                match token.text.as_str() {
                    // A declaration without a body.
                    ";" if depth == 0 => break,
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 && token.text == "}" {
                    out.push((pair[1].text.clone(), pair[0].line, token.line - pair[0].line + 1));
                    break;
                }
            }
        }
        out
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
    let named = |name: &str| tree.files.iter().find(|file| file.name == name);
    for (name, reason) in LARGE_FILES {
        let large = named(name).is_some_and(|file| file.text.lines().count() > FILE_LINES);
        assert!(large, "src/{name} may be large ({reason}) but is not: take it off the list");
    }
    for (name, function, reason) in LONG_FNS {
        let long = named(name).is_some_and(|file| file.functions().iter().any(|(known, _, lines)| known == function && *lines > FN_LINES));
        assert!(long, "{function} of src/{name} may be long ({reason}) but is not: take it off the list");
    }
    let rings = circles(&tree);
    for (known, reason) in RINGS {
        let there = rings.iter().any(|ring| ring.iter().all(|module| known.contains(&module.as_str())));
        assert!(there, "{} may be a ring ({reason}) but are none: take them off the list", known.join(", "));
    }
}

#[test]
fn the_ground_floor_says_that_it_is_pure() {
    let tree = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for room in GROUND {
        let first = tree.files.iter().find(|file| file.name == format!("{room}/mod.rs")).unwrap_or_else(|| panic!("src/{room}/mod.rs"));
        assert!(first.says_that_it_is_pure(), "src/{room}/mod.rs does not say that it is pure");
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

/// A pure file, as it says itself.
fn pure(text: &str) -> String {
    format!("//! Something.\n//!\n//! Pure.\n{text}")
}

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
        refused("rules/limit.rs", &pure(text), "in a pure file");
        refused("config/compile/app.rs", &pure(text), "in a pure file");
        accepted_but_for_words("edge/live.rs", text);
        accepted_but_for_words("edge/live.rs", &format!("//! Pure but for the clock.\n{text}"));
    }
    accepted("edge/live.rs", "use std::{fs, time::Instant}; fn f() { tracing::info!(\"x\"); tokio::time::sleep(d); }");
    accepted("rules/limit.rs", &pure("use std::net::{IpAddr, SocketAddr}; use std::time::Duration; use std::path::Path;"));
}

fn accepted_but_for_words(name: &str, text: &str) {
    let found = complaints(&Tree::of(&[(name, text)]));
    assert!(!found.iter().any(|line| line.contains("in a pure file")), "{name}: {text:?}: {found:?}");
}

#[test]
fn what_lies_below_a_pure_file_is_pure() {
    let below = "fn f() { let t = Instant::now(); }";
    for (first, other) in [("rules/mod.rs", "rules/limit.rs"), ("config/compile.rs", "config/compile/app/port.rs")] {
        let found = complaints(&Tree::of(&[(first, &pure("")), (other, below)]));
        assert!(found.iter().any(|line| line.contains(other) && line.contains("in a pure file")), "{found:?}");
    }
    let beside = complaints(&Tree::of(&[("config/compile.rs", &pure("")), ("config/load.rs", below)]));
    assert!(beside.is_empty(), "{beside:?}");
}

#[test]
fn within_a_large_room_an_import_points_down_too() {
    refused("master/output.rs", "use super::supervisor::Message;", "upward import of crate::master::supervisor");
    refused("master/supervisor/track.rs", "fn f() { crate::master::jobs::f() }", "sibling import of crate::master::jobs");
    refused("edge/gate/mod.rs", "use crate::edge::engine::Engine;", "upward import of crate::edge::engine");
    refused("master/newcomer.rs", "use super::output::Output;", "stands on no inner floor of master");
    accepted("master/supervisor/track.rs", "use crate::master::output::Tail; use super::waiter::Waiter;");
}

#[test]
fn a_ring_of_files_is_refused_however_it_is_closed() {
    let ring =
        |files: &[(&str, &str)]| complaints(&Tree::of(files)).into_iter().filter(|line| line.contains("in a ring")).collect::<Vec<_>>();
    let (a, b) = ("use super::b::B; pub struct A;", "use super::a::A; pub struct B;");
    assert_eq!(ring(&[("edge/a.rs", a), ("edge/b.rs", b)]).len(), 1);
    assert_eq!(ring(&[("edge/a.rs", a), ("edge/b.rs", "fn f() { crate::edge::a::f() }")]).len(), 1, "by a whole path");
    assert_eq!(ring(&[("edge/a/x.rs", "use super::super::b;"), ("edge/b/y.rs", "use crate::edge::a::x;")]).len(), 1, "by files below");
    let through = [("edge/mod.rs", "mod a; mod b; pub use a::A;"), ("edge/a.rs", "use super::b::B;"), ("edge/b.rs", "use super::A;")];
    assert_eq!(ring(&through).len(), 1, "by a name that the parent lends");
    let three = [("edge/a.rs", "use super::b;"), ("edge/b.rs", "use super::c;"), ("edge/c.rs", "use super::a;")];
    assert_eq!(ring(&three).len(), 1, "of three");
    assert!(ring(&[("edge/a.rs", "use super::b;"), ("edge/b.rs", "use super::c;"), ("edge/c.rs", "")]).is_empty());
    assert!(ring(&[("edge/a.rs", "mod x; use x::X;"), ("edge/a/x.rs", "use super::Y;")]).is_empty(), "a file and its own parts are one");
    assert!(
        ring(&[("edge/a.rs", a), ("edge/b.rs", "#[cfg(test)] mod tests { use super::super::a::A; }")]).is_empty(),
        "tests are not judged"
    );
}

#[test]
fn what_has_one_way_is_not_done_by_hand() {
    refused("edge/live.rs", "fn f() { while let Some(e) = error.source() {} }", "vocab::chain");
    refused("edge/live.rs", "use std::sync::PoisonError;", "vocab::lock");
    accepted("vocab/lock.rs", "use std::sync::PoisonError;");
    accepted("edge/live.rs", "fn f() { self.source; source(); x.source(1); }");
}

#[test]
fn what_nobody_can_keep_in_mind_is_refused() {
    let long = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    refused("edge/live.rs", &long(FN_LINES + 1), "fn f has 61 lines");
    refused("edge/live.rs", &format!("impl A {{\n{}}}", long(FN_LINES + 1)), "fn f has 61 lines");
    accepted("edge/live.rs", &long(FN_LINES));
    accepted("edge/live.rs", "trait A { fn f(&self); fn g(); }");
    accepted("edge/live.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}", long(FN_LINES + 1)));
    refused("edge/live.rs", &"struct A;\n".repeat(FILE_LINES + 1), "a file of 501 lines");
    accepted("edge/live.rs", &"struct A;\n".repeat(FILE_LINES));
}

#[test]
fn tests_comments_and_strings_are_not_judged() {
    accepted(
        "rules/limit.rs",
        "//! Pure. Instant::now stands in the shell\n/* use tokio::x; */ const A: &str = \"crate::edge::live unsafe .unwrap()\";\n\
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
