//! What is wrong with a configuration, where, and how to cure it.
//!
//! Pure. Every fault of every file is gathered here before anything is said, so that one run of `gateway check` shows all of them.
//! Shape: `error[code] FILE:LINE:COLUMN: message`, the offending line with a caret, a cure; closed by the number of errors.
//!        A value that may be a secret is never part of a message and is masked in the line that is shown.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// At most so many are shown; the closing line counts all.
const SHOWN: usize = 100;
/// Characters of an offending line that are shown.
const WIDTH: usize = 120;

/// Where a word of a configuration stands.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Index of the file in the order of reading.
    pub file: usize,
    /// Byte offsets.
    pub start: usize,
    pub end: usize,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// The stable name of a kind of fault: scripts and documentation may rely on it.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    BadAddress = "bad-address",
    /// An interpreter that a script names and that is not there.
    BadInterpreter = "bad-interpreter",
    /// A file that holds no certificate that can be used, or no key for it.
    BadCertificate = "bad-certificate",
    BadCommand = "bad-command",
    BadGlob = "bad-glob",
    BadHeader = "bad-header",
    BadHost = "bad-host",
    BadMail = "bad-mail",
    BadMethod = "bad-method",
    BadName = "bad-name",
    /// A file of users with a line that cannot be used.
    BadPassword = "bad-password",
    BadPath = "bad-path",
    BadPlaceholder = "bad-placeholder",
    BadRegex = "bad-regex",
    BadRoute = "bad-route",
    BadUnit = "bad-unit",
    BadUrl = "bad-url",
    BadValue = "bad-value",
    /// Two keys that exclude each other.
    Conflict = "conflict",
    DuplicateHost = "duplicate-host",
    DuplicateKey = "duplicate-key",
    DuplicateName = "duplicate-name",
    DuplicateRoute = "duplicate-route",
    DuplicateServer = "duplicate-server",
    EmptyValue = "empty-value",
    IncludeCycle = "include-cycle",
    IncludeDepth = "include-depth",
    /// A file that others may read or write and may not.
    InsecureFile = "insecure-file",
    MissingDirectory = "missing-directory",
    MissingKey = "missing-key",
    /// A site needs a listener that `[listen]` does not have.
    MissingListener = "missing-listener",
    MissingPort = "missing-port",
    /// A program that is not there, or that its user may not run.
    MissingProgram = "missing-program",
    MissingToken = "missing-token",
    MissingUnit = "missing-unit",
    MissingVariable = "missing-variable",
    /// Words that only a shell would read.
    NoShell = "no-shell",
    /// In the contract, not built yet.
    NotSupported = "not-supported",
    OverlappingListener = "overlapping-listener",
    OverlappingPorts = "overlapping-ports",
    PortTaken = "port-taken",
    /// Written by us, and read-only under the unit that starts us.
    ReadOnly = "read-only",
    RunsAsRoot = "runs-as-root",
    Syntax = "syntax",
    TooLarge = "too-large",
    TooManyFiles = "too-many-files",
    UnknownApp = "unknown-app",
    UnknownGroup = "unknown-group",
    UnknownKey = "unknown-key",
    UnknownUpstream = "unknown-upstream",
    UnknownUser = "unknown-user",
    UnknownWord = "unknown-word",
    UnknownZone = "unknown-zone",
    /// A host that the certificate authority of its site does not sign for.
    UnsignableHost = "unsignable-host",
    /// A directory that whoever needs it may not enter or write.
    Unreachable = "unreachable",
    UnreadableFile = "unreadable-file",
    WrongType = "wrong-type",
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub code: Code,
    /// `None` where no line is to blame, as for a file that cannot be read.
    pub place: Option<Place>,
    pub message: String,
    /// What to write instead, or where to look.
    pub cure: Option<String>,
}

/// A file as it was read.
#[derive(Clone, Debug)]
struct Source {
    name: PathBuf,
    text: String,
    /// Byte ranges that may hold secrets.
    masked: Vec<Range<usize>>,
}

/// All faults of all files; [`Display`](fmt::Display) is the whole report.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    sources: Vec<Source>,
    list: Vec<Complaint>,
    incomplete: bool,
}

impl std::error::Error for Complaints {}

impl Complaints {
    /// Registers a file; its number is what a [`Place`] of it says.
    pub fn source(&mut self, name: &Path, text: &str) -> usize {
        self.sources.push(Source { name: name.into(), text: text.into(), masked: Vec::new() });
        self.sources.len() - 1
    }

    /// The directory that relative paths in this file start from.
    #[must_use]
    pub fn dir(&self, file: usize) -> &Path {
        self.sources.get(file).and_then(|source| source.name.parent()).unwrap_or_else(|| Path::new(""))
    }

    /// Every file that was read, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.name.as_path())
    }

    /// Never shows these bytes of a file.
    pub fn mask(&mut self, place: Place) {
        if let Some(source) = self.sources.get_mut(place.file) {
            source.masked.push(place.start..place.end);
        }
    }

    pub fn add(&mut self, code: Code, place: Place, message: impl Into<String>) {
        self.push(Complaint { code, place: Some(place), message: message.into(), cure: None });
    }

    pub fn add_with_cure(&mut self, code: Code, place: Place, message: impl Into<String>, cure: impl Into<String>) {
        self.push(Complaint { code, place: Some(place), message: message.into(), cure: Some(cure.into()) });
    }

    /// One fault is told once, though `[defaults]` may bring it up for every site.
    pub fn push(&mut self, complaint: Complaint) {
        let same = |c: &&Complaint| c.place.is_some() && c.place == complaint.place && c.code == complaint.code;
        if self.list.iter().any(|c| same(&c)) {
            return;
        }
        self.list.push(complaint);
    }

    /// A file could not be read or parsed: names that seem to be missing may stand there.
    pub fn incomplete(&mut self) {
        self.incomplete = true;
    }

    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// In the order of files and lines.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Complaint> {
        let mut all: Vec<&Complaint> = self.list.iter().collect();
        all.sort_by_key(|c| (c.place.is_some(), c.place, c.code));
        all
    }

    /// Line and column, from 1; columns count characters.
    #[must_use]
    pub fn line_and_column(&self, place: Place) -> Option<(usize, usize)> {
        let source = self.sources.get(place.file)?;
        let (line, start, _) = line_at(&source.text, place.start);
        Some((line, source.text.get(start..floor(&source.text, place.start))?.chars().count() + 1))
    }

    /// The report, coloured for a terminal when asked.
    #[must_use]
    pub fn report(&self, colours: Colours) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, Grade::Error, colours);
        out
    }

    /// The same of what is no error: the configuration is good, and yet something of it would not work here and now.
    #[must_use]
    pub fn warnings(&self, colours: Colours) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out, Grade::Warning, colours);
        out
    }

    fn write(&self, f: &mut impl fmt::Write, grade: Grade, colours: Colours) -> fmt::Result {
        let (red, bold, blue, off) = match (colours, grade) {
            (Colours::Off, _) => ("", "", "", ""),
            (Colours::On, Grade::Error) => ("\x1b[1;31m", "\x1b[1m", "\x1b[1;34m", "\x1b[0m"),
            (Colours::On, Grade::Warning) => ("\x1b[1;33m", "\x1b[1m", "\x1b[1;34m", "\x1b[0m"),
        };
        let name = grade.as_str();
        for complaint in self.sorted().into_iter().take(SHOWN) {
            let Complaint { code, place, message, cure } = complaint;
            write!(f, "{red}{name}[{}]{off} ", code.as_str())?;
            if let Some((place, source)) = place.and_then(|p| Some((p, self.sources.get(p.file)?))) {
                let (line, column) = self.line_and_column(place).unwrap_or((1, 1));
                writeln!(f, "{bold}{}:{line}:{column}{off}: {}", source.name.display(), printable(message))?;
                let shown = excerpt(source, place);
                let number = line.to_string();
                writeln!(f, " {blue}{number} |{off} {}", shown.line)?;
                writeln!(
                    f,
                    " {:w$} {blue}|{off} {:indent$}{red}{:^<carets$}{off}",
                    "",
                    "",
                    "",
                    w = number.len(),
                    indent = shown.indent,
                    carets = shown.carets
                )?;
            } else {
                writeln!(f, "{}", printable(message))?;
            }
            if let Some(cure) = cure {
                writeln!(f, " {blue}help:{off} {}", printable(cure))?;
            }
        }
        if self.list.len() > SHOWN {
            writeln!(f, "… and {} more", self.list.len() - SHOWN)?;
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        match grade {
            Grade::Error => write!(f, "{} error{plural}; nothing was changed", self.list.len()),
            Grade::Warning => write!(f, "{} warning{plural}", self.list.len()),
        }
    }
}

/// What a report is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Grade {
    Error,
    Warning,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Whether a report is for a terminal that shows colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colours {
    On,
    Off,
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Grade::Error, Colours::Off)
    }
}

/// The nearest of some known words, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |candidate: &str| strsim::osa_distance(&lower, &candidate.to_lowercase());
    let near = |candidate: &&str| {
        let longest = word.chars().count().max(candidate.chars().count());
        let within = |a: &str, b: &str| a.len() >= 3 && (b.starts_with(a) || b.ends_with(a));
        let small = candidate.to_lowercase();
        distance(candidate) <= (longest / 3).max(1) || within(&lower, &small) || within(&small, &lower)
    };
    let likeness = |candidate: &str| strsim::jaro_winkler(&lower, &candidate.to_lowercase());
    // The shortest way first; among equals the one that looks most like it.
    known.into_iter().filter(near).min_by(|a, b| distance(a).cmp(&distance(b)).then(likeness(b).total_cmp(&likeness(a))))
}

/// ` (did you mean "api-v1"?)`, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default()
}

struct Excerpt {
    line: String,
    indent: usize,
    carets: usize,
}

/// The offending line, masked, without control characters, cut around the place if it is very long.
fn excerpt(source: &Source, place: Place) -> Excerpt {
    let text = &source.text;
    let (_, start, end) = line_at(text, place.start);
    let from = floor(text, place.start.clamp(start, end));
    let to = floor(text, place.end.clamp(from, end)).max(from);
    let mut line = String::new();
    let (mut caret, mut caret_end) = (None, None);
    let mut at = start;
    while at < end {
        if at >= from && caret.is_none() {
            caret = Some(line.chars().count());
        }
        if at >= to && caret_end.is_none() {
            caret_end = Some(line.chars().count());
        }
        if let Some(mask) = source.masked.iter().find(|mask| mask.contains(&at)) {
            if !line.ends_with('…') {
                line.push('…');
            }
            // A place inside a mask points at the mask.
            if mask.contains(&from) && caret.is_none() {
                caret = Some(line.chars().count() - 1);
            }
            at = ceil(text, mask.end.min(end)).max(at + 1);
            continue;
        }
        let Some(c) = text[at..end].chars().next() else { break };
        line.push(if c.is_control() { ' ' } else { c });
        at += c.len_utf8();
    }
    let length = line.chars().count();
    let caret = caret.unwrap_or(length);
    let carets = caret_end.unwrap_or(length).saturating_sub(caret).max(1);
    let skip = if caret + carets.min(40) > WIDTH { caret.saturating_sub(WIDTH / 2) } else { 0 };
    let mut shown: String = line.chars().skip(skip).take(WIDTH).collect();
    if length > skip + WIDTH {
        shown.push('…');
    }
    let indent = caret - skip;
    Excerpt { line: shown.trim_end().to_owned(), indent, carets: carets.min(WIDTH.saturating_sub(indent)).max(1) }
}

/// Number of the line that holds an offset, where it starts, and where it ends without its line break.
fn line_at(text: &str, offset: usize) -> (usize, usize, usize) {
    let offset = floor(text, offset);
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |i| offset + i);
    (before.matches('\n').count() + 1, start, end)
}

fn floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

fn ceil(text: &str, offset: usize) -> usize {
    (offset..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len())
}

/// A configuration may come from anyone: no control character reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_points_at_the_word() {
        let mut all = Complaints::default();
        let file = all.source(Path::new("conf/gateway.toml"), "a = 1\nupstream = \"api\"\n");
        all.add(Code::UnknownUpstream, Place { file, start: 17, end: 22 }, "no such upstream");
        assert_eq!(
            all.to_string(),
            "error[unknown-upstream] conf/gateway.toml:2:12: no such upstream\n 2 | upstream = \"api\"\n   |            ^^^^^\n1 error; nothing was changed"
        );
    }

    #[test]
    fn a_masked_value_does_not_show() {
        let mut all = Complaints::default();
        let text = "token = \"hush\" # ä\n";
        let file = all.source(Path::new("g.toml"), text);
        let place = Place { file, start: 8, end: 14 };
        all.mask(place);
        all.add(Code::BadValue, place, "no good");
        let report = all.to_string();
        assert!(!report.contains("hush"), "{report}");
        assert!(report.contains("token = … # ä\n"), "{report}");
    }

    #[test]
    fn any_place_is_survived() {
        let text = "ä\u{1f600}x\n\tß = 1";
        for start in 0..20 {
            for end in 0..20 {
                let mut all = Complaints::default();
                let file = all.source(Path::new("g.toml"), text);
                all.mask(Place { file, start: end, end: start });
                all.add(Code::Syntax, Place { file, start, end }, "x");
                assert!(all.report(Colours::On).contains("nothing was changed"));
            }
        }
    }

    #[test]
    fn a_near_word_is_meant_and_a_far_one_is_not() {
        assert_eq!(nearest("api", ["api-v1", "web"]), Some("api-v1"));
        assert_eq!(nearest("upstrem", ["upstream", "app"]), Some("upstream"));
        assert_eq!(nearest("zzz", ["upstream", "app"]), None);
        assert_eq!(nearest("sate", ["site", "state"]), Some("state"));
        assert_eq!(nearest("SIGTERM", ["TERM", "INT"]), Some("TERM"));
    }
}
