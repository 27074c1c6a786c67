//! `filters`: what the screen looks for, and what a hit does.

use serde::{Deserialize, Serialize};

use crate::vocab::ByteSize;

/// What every filter does on a route.
///
/// Shape: `bad-uri` is the modes of all families at once; a family that is named has its own.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    pub families: FamilyModes,
    pub bad_method: FilterMode,
    pub scanner_ua: FilterMode,
    /// The families look at header fields too.
    pub headers: bool,
    /// The families look at the first so many bytes of a form or of JSON; a body waits until it has been looked at.
    pub body: Option<ByteSize>,
    /// Patterns of the user's own, for the normal form of the target; each compiles: checked at load.
    pub patterns: Vec<String>,
}

impl Filters {
    /// Every family in one mode, header fields included.
    #[must_use]
    pub const fn new(bad_uri: FilterMode, bad_method: FilterMode, scanner_ua: FilterMode) -> Self {
        Self { families: FamilyModes::all(bad_uri), bad_method, scanner_ua, headers: true, body: None, patterns: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum FilterMode {
    Off,
    /// Counts, lets pass.
    Observe,
    Enforce,
}

/// What a request can be taken for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Family {
    /// A way up, in the path.
    Traversal,
    /// A hidden or backup file, or one that only a server itself reads.
    DotFile,
    /// A program of another kind of server.
    Extension,
    /// A path that is asked for to learn whether something is there.
    Probe,
    Sql,
    /// Script, or markup that runs or loads.
    Xss,
    /// A command of a shell.
    Command,
    /// An expression of a template engine, or a lookup such as JNDI.
    Template,
    /// Code or an object of PHP, Java, Python, Node.
    Code,
    /// A file or scheme in a parameter.
    Inclusion,
    /// Line ends that would begin a header, and zero bytes.
    Splitting,
    /// One of the user's own patterns.
    Own,
}

impl Family {
    pub const ALL: [Self; 12] = [
        Self::Traversal,
        Self::DotFile,
        Self::Extension,
        Self::Probe,
        Self::Sql,
        Self::Xss,
        Self::Command,
        Self::Template,
        Self::Code,
        Self::Inclusion,
        Self::Splitting,
        Self::Own,
    ];

    /// As the configuration and the metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traversal => "traversal",
            Self::DotFile => "dot-file",
            Self::Extension => "extension",
            Self::Probe => "probe",
            Self::Sql => "sql",
            Self::Xss => "xss",
            Self::Command => "command",
            Self::Template => "template",
            Self::Code => "code",
            Self::Inclusion => "inclusion",
            Self::Splitting => "splitting",
            Self::Own => "own",
        }
    }
}

/// A mode for each family.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FamilyModes([FilterMode; Family::ALL.len()]);

impl FamilyModes {
    #[must_use]
    pub const fn all(mode: FilterMode) -> Self {
        Self([mode; Family::ALL.len()])
    }

    #[must_use]
    pub fn of(&self, family: Family) -> FilterMode {
        self.0[family as usize]
    }

    pub fn set(&mut self, family: Family, mode: FilterMode) {
        self.0[family as usize] = mode;
    }

    /// Those that are not off.
    #[must_use]
    pub fn watched(&self) -> Families {
        Family::ALL.into_iter().filter(|family| self.of(*family) != FilterMode::Off).fold(Families::NONE, Families::with)
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Families(u16);

impl Families {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << Family::ALL.len()) - 1);

    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        Self(self.0 | 1 << family as u16)
    }

    #[must_use]
    pub const fn without(self, family: Family) -> Self {
        Self(self.0 & !(1 << family as u16))
    }

    #[must_use]
    pub const fn has(self, family: Family) -> bool {
        self.0 & 1 << family as u16 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
