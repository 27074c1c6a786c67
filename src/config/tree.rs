//! One TOML text as a tree in which every word knows its place; placeholders are filled in on the way.
//!
//! Pure: what a variable or a file holds is asked of [`Outside`].

use std::path::Path;

use super::{
    complaint::{Code, Complaint, Complaints, Place},
    twice::{Twice, twice},
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(Text),
    /// `None`: beyond 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Bool(bool),
    Date,
    Array(Vec<Node>),
    /// In file order.
    Table(Vec<Entry>),
    /// A placeholder in it could not be filled in, and its complaint is filed.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

/// A string with its placeholders filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Text {
    pub value: String,
    /// What stands in the file, when that is something else.
    pub written: Option<String>,
    /// The key says that this is a secret.
    pub secret: bool,
}

impl Text {
    /// What a message may say of it: never what a variable or a file holds.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.written, self.secret) {
            (Some(written), _) => format!("{written:?}"),
            (None, true) => "…".into(),
            (None, false) => format!("{:?}", self.value),
        }
    }

    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.written.is_some() || self.secret
    }
}

impl Node {
    /// What it is, with its article.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a decimal number",
            Value::Bool(_) => "true or false",
            Value::Date => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Broken => "nothing",
        }
    }
}

/// What a configuration may refer to.
pub trait Outside {
    fn variable(&self, name: &str) -> Option<String>;
    /// What a small text file holds.
    ///
    /// Errors: why not, as a fragment.
    fn file(&self, path: &std::path::Path) -> Result<String, String>;
    /// The same, of a file whose lines never stand in a configuration.
    ///
    /// Errors: why not, as a fragment.
    fn secrets(&self, path: &std::path::Path) -> Result<String, String>;
    /// Whether a file is there and may be read.
    ///
    /// Errors: why not, as a fragment.
    fn facts(&self, path: &std::path::Path) -> Result<Facts, String>;
    /// Whether a file holds certificates in PEM.
    ///
    /// Errors: why not, as a sentence without its end.
    fn certificates(&self, path: &std::path::Path) -> Result<(), String>;
    /// Whether files of certificates and keys are taken as they are, there or not.
    fn takes_any_certificate(&self) -> bool {
        false
    }
    /// Whether a certificate and its key can be served now. Both may be read.
    ///
    /// Errors: [`PairFault`] says which of the two is at fault.
    fn pair(&self, cert: &std::path::Path, key: &std::path::Path) -> Result<(), PairFault>;
}

/// What is to be known of a file that the plan names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    pub kind: Kind,
    /// Its mode lets every user read it.
    pub open_to_all: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    File,
    Directory,
    /// A device, a pipe, a socket.
    Other,
}

/// Why a certificate and its key cannot be served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairFault {
    pub half: Half,
    /// A sentence without its end.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Half {
    Cert,
    Key,
}

/// Reads one text; the tree is `None` where the syntax is broken.
pub fn parse(file: usize, text: &str, outside: &dyn Outside, out: &mut Complaints) -> Option<Vec<Entry>> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut reader = Reader { file, outside, out };
        return Some(reader.table(table.into_inner(), Secrecy::Open));
    }
    // What the recovery made of it may put values anywhere: strings of a broken file are masked where their line looks like a secret.
    mask_by_line(file, text, out);
    let mut lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let place = Place { file, start: span.start, end: span.end };
        match twice(text, &span).filter(|_| error.message().contains("duplicate key")) {
            Some(twice) => complain_twice(twice, place, out),
            None => {
                // What follows on the line is confused by the first.
                let line = text.get(..span.start).map(|before| before.matches('\n').count());
                if lines.contains(&line) {
                    continue;
                }
                lines.push(line);
                let cure = syntax_cure(text, &span, error.message());
                out.push(Complaint {
                    code: Code::Syntax,
                    place: Some(place),
                    message: format!("this is not TOML: {}", error.message()),
                    cure,
                });
            }
        }
    }
    out.incomplete();
    None
}

/// For those who come from other languages.
fn syntax_cure(text: &str, span: &std::ops::Range<usize>, message: &str) -> Option<String> {
    let found = text.get(span.clone())?;
    let line = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line..span.start)?.trim();
    if message.contains("must be quoted") {
        // Never the value: it may be a secret.
        let key = before.trim_end_matches('=').trim();
        return Some(format!("put the value into quotes: {key} = \"…\""));
    }
    if found == ":" && !before.is_empty() && !before.contains(['=', '"', '\'']) {
        return Some(format!("write {before} = \"…\": a key and its value are divided by `=`"));
    }
    None
}

fn complain_twice(twice: Twice, place: Place, out: &mut Complaints) {
    let at = |first: usize| {
        let line = out.line_and_column(Place { file: place.file, start: first, end: first }).map_or(1, |(line, _)| line);
        format!("first in {}:{line}", out.files().nth(place.file).unwrap_or(Path::new("?")).display())
    };
    match twice {
        Twice::Table { name, first } => {
            let (message, cure) =
                (format!("the table [{name}] stands twice: {}", at(first)), "put both into one, or give one of them another name");
            out.add_with_cure(Code::DuplicateName, place, message, cure);
        }
        Twice::Mixed { name, first } => {
            let message = format!("{name} is a list of tables and one table: {}", at(first));
            out.add_with_cure(Code::DuplicateName, place, message, format!("write [[{name}]] in both places"));
        }
        Twice::Key { name, first } => {
            let (message, cure) = (format!("the key {name:?} is set twice: {}", at(first)), "take one of them out");
            out.add_with_cure(Code::DuplicateKey, place, message, cure);
        }
        Twice::Consequence => {}
    }
}

/// Which values under a key are secrets.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Secrecy {
    Open,
    /// `key` here names what is counted or a file.
    Plain,
    /// Every value.
    All,
}

struct Reader<'a> {
    file: usize,
    outside: &'a dyn Outside,
    out: &'a mut Complaints,
}

impl Reader<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { file: self.file, start: span.start, end: span.end }
    }

    fn table(&mut self, table: toml::de::DeTable<'_>, secrecy: Secrecy) -> Vec<Entry> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let read = |(key, value): (toml::Spanned<_>, _)| {
            let place = self.place(key.span());
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            let node = self.node(value, below(&key, secrecy), is_secret(&key, secrecy));
            Entry { key: key.into_owned(), place, node }
        };
        entries.into_iter().map(read).collect()
    }

    fn node(&mut self, value: toml::Spanned<toml::de::DeValue<'_>>, secrecy: Secrecy, secret: bool) -> Node {
        use toml::de::DeValue as V;
        let place = self.place(value.span());
        let value = match value.into_inner() {
            V::String(text) => {
                if secret {
                    self.out.mask(place);
                }
                self.text(&text, place, secret).map_or(Value::Broken, Value::Text)
            }
            V::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
            V::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            V::Boolean(yes) => Value::Bool(yes),
            V::Datetime(_) => Value::Date,
            V::Array(items) => Value::Array(items.into_iter().map(|item| self.node(item, secrecy, secret)).collect()),
            V::Table(table) => Value::Table(self.table(table, secrecy)),
        };
        Node { place, value }
    }

    /// Fills in `{env.NAME}`, `{env.NAME:default}` and `{file:/path}`; every other brace stays as it is.
    fn text(&mut self, text: &str, place: Place, secret: bool) -> Option<Text> {
        let mut value = String::with_capacity(text.len());
        let mut rest = text;
        let (mut filled, mut whole) = (false, true);
        while let Some(at) = rest.find("{env.").into_iter().chain(rest.find("{file:")).min() {
            value.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                self.out.add(Code::BadPlaceholder, place, format!("{} is not closed by a '}}'", shown(&rest[at..], secret)));
                return None;
            };
            let inner = &rest[at + 1..at + end];
            rest = &rest[at + end + 1..];
            filled = true;
            let found = match inner.strip_prefix("env.") {
                Some(variable) => self.variable(variable, place),
                None => self.contents(inner.trim_start_matches("file:"), place),
            };
            match found {
                Some(found) => value.push_str(&found),
                None => whole = false,
            }
        }
        value.push_str(rest);
        whole.then(|| Text { value, written: filled.then(|| text.to_owned()), secret })
    }

    fn variable(&mut self, text: &str, place: Place) -> Option<String> {
        let (name, default) = match text.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (text, None),
        };
        let good = |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
        if name.is_empty() || !name.chars().enumerate().all(good) {
            self.out.add(Code::BadPlaceholder, place, format!("{name:?} is not the name of an environment variable"));
            return None;
        }
        let value = self.outside.variable(name).or_else(|| default.map(str::to_owned));
        if value.is_none() {
            let message = format!("the environment variable {name} is not set");
            self.out.add_with_cure(Code::MissingVariable, place, message, format!("set it, or give a default: {{env.{name}:default}}"));
        }
        value
    }

    fn contents(&mut self, path: &str, place: Place) -> Option<String> {
        let full = self.out.dir(self.file).join(path);
        match self.outside.file(&full) {
            // The line break that editors put at the end of a file is not part of a secret.
            Ok(mut text) => {
                if text.ends_with('\n') {
                    text.pop();
                }
                Some(text)
            }
            Err(reason) => {
                self.out.add(Code::UnreadableFile, place, format!("could not read {path:?}: {reason}"));
                None
            }
        }
    }
}

fn shown(text: &str, secret: bool) -> String {
    if secret { "a placeholder".into() } else { format!("{text:?}") }
}

fn below(key: &str, secrecy: Secrecy) -> Secrecy {
    match (key, secrecy) {
        (_, Secrecy::All) | ("env", _) => Secrecy::All,
        ("zone" | "tls" | "balance" | "hash", _) | (_, Secrecy::Plain) => Secrecy::Plain,
        _ => Secrecy::Open,
    }
}

fn is_secret(key: &str, secrecy: Secrecy) -> bool {
    match secrecy {
        Secrecy::All => true,
        // Under `tls`, and yet no file.
        Secrecy::Plain => key == "eab_key",
        Secrecy::Open => sounds_secret(key),
    }
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "key", "secret", "password", "passwd"]
        .iter()
        .any(|word| key == *word || key.ends_with(&format!("_{word}")) || key.ends_with(&format!("-{word}")))
}

/// For a text without a tree: what stands after a `=` on a line that speaks of secrets, or in an `env` table.
fn mask_by_line(file: usize, text: &str, out: &mut Complaints) {
    let mut start = 0;
    let mut env = false;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            env = trimmed.trim_end_matches(']').ends_with(".env");
        }
        let lower = line.to_ascii_lowercase();
        let speaks = ["token", "key", "secret", "passw", "env"].iter().any(|word| lower.contains(word));
        if let Some(at) = line.find('=').filter(|_| env || speaks) {
            let from = start + at + 1;
            // A string of several lines: up to where it is closed, or to the end.
            let quotes = ["\"\"\"", "'''"].into_iter().find(|quotes| line[at..].contains(quotes));
            let long = quotes.and_then(|quotes| Some((quotes, from + text[from..].find(quotes)? + 3)));
            let end = long.map(|(quotes, inner)| text[inner..].find(quotes).map_or(text.len(), |close| inner + close + 3));
            out.mask(Place { file, start: from, end: end.unwrap_or(start + line.trim_end_matches(['\n', '\r']).len()) });
        }
        start += line.len();
    }
}
