//! Finds the configuration, reads it with all it includes, and has it compiled.
//!
//! Shape: every file is read whole before anything is compiled; tables merge, arrays of tables append, a name defined twice is an error.
//! Errors: [`Complaints`] holds every fault of every file; the bounds below keep a mistaken glob or a device from being read without end.

use std::{
    cell::RefCell,
    fs,
    io::Read as _,
    num::NonZeroUsize,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    compile::{Surroundings, compile},
    complaint::{Code, Complaint, Complaints, Place},
    file,
    index::Index,
    shape::{Field, read},
    tree::{self, Entry, Facts, Half, Kind, Node, Outside, PairFault, Value},
};
use crate::{
    pki::{self, Pair, PairError},
    plan::Plan,
};

/// Where a configuration is looked for when nobody names one.
pub const PLACES: [&str; 2] = ["./gateway.toml", "/etc/gateway/gateway.toml"];
/// Of one file, whether configuration, environment or secret.
const FILE_SIZE: u64 = 1 << 20;
const FILES: usize = 256;
/// Includes of includes.
const DEPTH: usize = 8;
/// Tables whose keys are names that users give.
const NAMED: [&str; 3] = ["app", "upstream", "zone"];

/// No configuration was named and none was found.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("find a configuration: looked for {}", .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "))]
pub struct NotFound {
    pub looked: Vec<PathBuf>,
}

impl NotFound {
    /// How to get a first one.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "`gateway init` writes a first ./gateway.toml; `-c FILE` names another one"
    }
}

/// Whether a glob in a command would match anything in the directory that it is run in.
#[must_use]
pub fn matches_any(dir: &Path, pattern: &str) -> bool {
    let whole = if Path::new(pattern).is_absolute() {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", glob::Pattern::escape(&dir.display().to_string()))
    };
    // A whole tree is not searched for a warning.
    !pattern.contains("**") && glob::glob(&whole).is_ok_and(|mut found| found.next().is_some())
}

/// The configuration that is meant: the one that was named, whether it exists or not, else the first that exists.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, NotFound> {
    if let Some(path) = explicit {
        return Ok(path.into());
    }
    let looked: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    looked.iter().find(|path| path.exists()).cloned().ok_or(NotFound { looked })
}

/// Reads and compiles for the process that we are.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, Complaints> {
    load_in(path, env, &surroundings())
}

/// As [`load`], for a gateway that runs: whether a pair of certificate and key can be served is left to its edge, which may have that very pair in service.
pub fn load_running(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, Complaints> {
    load_from(path, &System { pairs: Pairs::LeftToEdge, ..System::new(env) }, &surroundings())
}

/// As [`load`], for a gateway that starts: certificates that cannot be used are their site's misfortune, and keep no other from being served. The edge tells of them.
pub fn load_to_start(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, Complaints> {
    load_from(path, &System { pairs: Pairs::Whatever, ..System::new(env) }, &surroundings())
}

/// As [`load`], with what `{env.NAME}` and `{file:/path}` were filled with, which is not to be shown.
pub fn load_to_show(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Plan, Vec<String>), Complaints> {
    let outside = System::new(env);
    let plan = load_from(path, &outside, &surroundings())?;
    Ok((plan, outside.filled.into_inner()))
}

/// A good configuration, and what is needed to say where something of it would not work.
#[derive(Debug)]
pub struct Checked {
    pub plan: Plan,
    /// What `{env.NAME}` and `{file:/path}` were filled with, which is not to be shown.
    pub filled: Vec<String>,
    pub index: Index,
    /// Of its files, without a complaint yet.
    pub out: Complaints,
}

/// As [`load`], for whoever goes on to look whether it would work.
pub fn load_to_check(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Complaints> {
    let outside = System::new(env);
    let mut out = Complaints::default();
    let mut index = Index::default();
    match load_into(path, &outside, &surroundings(), &mut out, Some(&mut index)) {
        Some(plan) => Ok(Checked { plan, filled: outside.filled.into_inner(), index, out }),
        None => Err(out),
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        root: nix::unistd::geteuid().is_root(),
        cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
    }
}

/// Reads and compiles for surroundings of the caller's choice.
pub fn load_in(path: &Path, env: &dyn Fn(&str) -> Option<String>, here: &Surroundings) -> Result<Plan, Complaints> {
    load_from(path, &System::new(env), here)
}

fn load_from(path: &Path, outside: &System<'_>, here: &Surroundings) -> Result<Plan, Complaints> {
    let mut out = Complaints::default();
    load_into(path, outside, here, &mut out, None).ok_or(out)
}

fn load_into(path: &Path, outside: &System<'_>, here: &Surroundings, out: &mut Complaints, index: Option<&mut Index>) -> Option<Plan> {
    let mut reading = Reading { outside, out, seen: Vec::new(), full: false };
    let mut merged = Vec::new();
    reading.file(path, None, &mut Vec::new(), &mut merged);
    if let Some(index) = index {
        *index = Index::of(&merged);
    }
    let place = Place::default();
    match read::<file::Root>(Node { place, value: Value::Table(merged) }, out) {
        Field::Given(root) => compile(root.value, here, outside, out),
        Field::Absent | Field::Bad(_) => None,
    }
}

struct Reading<'a> {
    outside: &'a dyn Outside,
    out: &'a mut Complaints,
    /// Real paths, so that one file by two names is one file.
    seen: Vec<PathBuf>,
    full: bool,
}

impl Reading<'_> {
    /// Reads one file and, after it, what it includes.
    fn file(&mut self, path: &Path, named: Option<Place>, open: &mut Vec<PathBuf>, merged: &mut Vec<Entry>) {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        if open.contains(&real) {
            self.complain(Code::IncludeCycle, named, format!("{} includes itself", path.display()));
            return;
        }
        if self.seen.contains(&real) {
            return;
        }
        if self.seen.len() >= FILES {
            if !self.full {
                self.complain(Code::TooManyFiles, named, format!("more than {FILES} files are included"));
            }
            self.full = true;
            return;
        }
        self.seen.push(real.clone());
        let text = match read_text(path) {
            Ok(text) => text,
            Err(reason) => {
                self.complain(Code::UnreadableFile, named, format!("could not read {}: {reason}", path.display()));
                self.out.incomplete();
                return;
            }
        };
        let file = self.out.source(path, &text);
        let Some(mut entries) = tree::parse(file, &text, self.outside, self.out) else { return };
        let include = entries.iter().position(|entry| entry.key == "include").map(|at| entries.remove(at));
        merge(merged, entries, Level::Root, self.out);
        if let Some(include) = include {
            open.push(real);
            self.include(include.node, open, merged);
            open.pop();
        }
    }

    fn include(&mut self, node: Node, open: &mut Vec<PathBuf>, merged: &mut Vec<Entry>) {
        let Field::Given(list) = read::<super::shape::OneOrMore<tree::Text>>(node, self.out) else { return };
        for pattern in list.value.0 {
            let place = pattern.place;
            if open.len() > DEPTH {
                self.out.add(Code::IncludeDepth, place, format!("includes are nested more than {DEPTH} deep"));
                return;
            }
            let text = &pattern.value.value;
            let base = self.out.dir(place.file).to_path_buf();
            if !text.contains(['*', '?', '[']) {
                self.file(&base.join(text), Some(place), open, merged);
                continue;
            }
            for path in self.matches(&base, text, place) {
                // A glob that matches the file it stands in does not mean that file.
                if fs::canonicalize(&path).is_ok_and(|real| open.last() != Some(&real)) {
                    self.file(&path, Some(place), open, merged);
                }
            }
        }
    }

    fn matches(&mut self, base: &Path, text: &str, place: Place) -> Vec<PathBuf> {
        if text.contains("**") {
            self.out.add_with_cure(
                Code::BadGlob,
                place,
                "\"**\" would search a whole tree of directories",
                "name each directory, as in \"sites/*.toml\"",
            );
            return Vec::new();
        }
        let pattern = if Path::new(text).is_absolute() {
            text.to_owned()
        } else {
            format!("{}/{text}", glob::Pattern::escape(&base.display().to_string()))
        };
        let pattern = pattern.strip_prefix('/').filter(|_| base.as_os_str().is_empty() && !text.starts_with('/')).unwrap_or(&pattern);
        match glob::glob(pattern) {
            Ok(paths) => paths.filter_map(Result::ok).take(FILES + 1).collect(),
            Err(error) => {
                self.out.add(Code::BadGlob, place, format!("{text:?} is not a glob: {}", error.msg));
                Vec::new()
            }
        }
    }

    fn complain(&mut self, code: Code, place: Option<Place>, message: String) {
        self.out.push(Complaint { code, place, message, cure: None });
    }
}

/// How deep a table stands: names may be given once, settings may be spread over files.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Level {
    Root,
    /// Directly under `app`, `upstream` or `zone`.
    Names,
    Inner,
}

/// Tables merge, arrays of tables append, anything else may stand once.
fn merge(into: &mut Vec<Entry>, from: Vec<Entry>, level: Level, out: &mut Complaints) {
    for entry in from {
        let Some(old) = into.iter_mut().find(|old| old.key == entry.key) else {
            into.push(entry);
            continue;
        };
        let where_old = out.line_and_column(old.place).map(|(line, _)| line).unwrap_or(1);
        let first = format!("first in {}:{where_old}", out.files().nth(old.place.file).unwrap_or(Path::new("?")).display());
        match (&mut old.node.value, entry.node.value) {
            (Value::Table(_), Value::Table(_)) if level == Level::Names => {
                out.add(Code::DuplicateName, entry.place, format!("the name {:?} is defined twice: {first}", entry.key));
            }
            (Value::Table(old), Value::Table(new)) => {
                let below = if level == Level::Root && NAMED.contains(&entry.key.as_str()) { Level::Names } else { Level::Inner };
                merge(old, new, below, out);
            }
            (Value::Array(old), Value::Array(new)) if level == Level::Root && all_tables(old) && all_tables(&new) => old.extend(new),
            (Value::Array(old), Value::Table(_)) if level == Level::Root && all_tables(old) => {
                let message = format!("{} is a list of tables and one table: {first}", entry.key);
                out.add_with_cure(Code::DuplicateName, entry.place, message, format!("write [[{}]] in both places", entry.key));
            }
            _ => out.add(Code::DuplicateKey, entry.place, format!("the key {:?} is set twice: {first}", entry.key)),
        }
    }
}

fn all_tables(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node.value, Value::Table(_)))
}

/// The machine itself.
struct System<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    /// What it gave.
    filled: RefCell<Vec<String>>,
    pairs: Pairs,
}

/// Who says whether a certificate and its key can be served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pairs {
    Judged,
    LeftToEdge,
    /// Nobody: what is there is served, a stand-in where nothing is.
    Whatever,
}

impl<'a> System<'a> {
    fn new(env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { env, filled: RefCell::default(), pairs: Pairs::Judged }
    }

    fn note(&self, value: &str) {
        self.filled.borrow_mut().push(value.to_owned());
    }
}

impl Outside for System<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).inspect(|value| self.note(value))
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        read_text(path).inspect(|text| self.note(text.strip_suffix('\n').unwrap_or(text)))
    }

    fn secrets(&self, path: &Path) -> Result<String, String> {
        read_text(path)
    }

    fn facts(&self, path: &Path) -> Result<Facts, String> {
        let meta = fs::metadata(path).map_err(reason)?;
        let kind = match meta.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            _ => Kind::Other,
        };
        // Opening proves that it may be read; a pipe or a device is never opened.
        match kind {
            Kind::File => drop(fs::File::open(path).map_err(reason)?),
            Kind::Directory => drop(fs::read_dir(path).map_err(reason)?),
            Kind::Other => {}
        }
        Ok(Facts { kind, open_to_all: meta.mode() & 0o004 != 0 })
    }

    fn certificates(&self, path: &Path) -> Result<(), String> {
        pki::certificates(&read_bytes(path)?).map(drop).map_err(|error| match error {
            pki::BundleError::Empty => "it holds no certificate in PEM".into(),
            pki::BundleError::Broken(n) => format!("certificate {n} of it is broken"),
        })
    }

    fn takes_any_certificate(&self) -> bool {
        self.pairs == Pairs::Whatever
    }

    fn pair(&self, cert: &Path, key: &Path) -> Result<(), PairFault> {
        match self.pairs {
            Pairs::Judged => {}
            Pairs::LeftToEdge | Pairs::Whatever => return Ok(()),
        }
        let read = |path: &Path, half| read_bytes(path).map_err(|reason| PairFault { half, reason });
        let (chain, secret) = (read(cert, Half::Cert)?, read(key, Half::Key)?);
        let now = jiff::Timestamp::now().as_second();
        Pair::from_pem(&chain, &secret).and_then(|pair| pair.valid(now)).map_err(verdict)
    }
}

fn verdict(error: PairError) -> PairFault {
    let (half, reason) = match error {
        PairError::Unread(reason) => (Half::Cert, reason),
        PairError::NoCertificate => (Half::Cert, "it holds no certificate in PEM".into()),
        PairError::Certificate => (Half::Cert, "the certificate in it cannot be understood".into()),
        PairError::NotYet { from } => (Half::Cert, format!("it is not valid before {}", pki::pair::utc(from))),
        PairError::Expired { since } => (Half::Cert, format!("it expired at {}", pki::pair::utc(since))),
        PairError::NoKey => (Half::Key, "it holds no private key in PEM".into()),
        PairError::Mismatch => (Half::Key, "it is not the key of the certificate".into()),
        PairError::Key(error) => (Half::Key, error.to_string()),
    };
    PairFault { half, reason }
}

/// A regular file of bounded size, as UTF-8.
fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
}

/// A regular file of bounded size.
fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    // Nonblocking, because a pipe of that name would else wait for a writer.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).map_err(reason)?;
    if !file.metadata().map_err(reason)?.is_file() {
        return Err("not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_SIZE + 1).read_to_end(&mut bytes).map_err(reason)?;
    if bytes.len() as u64 > FILE_SIZE {
        return Err("larger than 1MB".into());
    }
    Ok(bytes)
}

/// The same words on every machine.
fn reason(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}
