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
    /// Which header fields the families look at.
    pub headers: HeaderFields,
    /// The families look at the first so many bytes of a form or of JSON; a body waits until it has been looked at.
    pub body: Option<ByteSize>,
    /// Patterns of the user's own, for the normal form of the target; each compiles: checked at load.
    pub patterns: Vec<String>,
}

impl Filters {
    /// What is certain is refused, what is likely observed; the families without certain patterns observe.
    pub const BALANCED: Self = {
        let mut families = FamilyModes::all(FilterMode::Certain);
        families.0[Family::Extension as usize] = FilterMode::Observe;
        families.0[Family::Probe as usize] = FilterMode::Observe;
        families.0[Family::Own as usize] = FilterMode::Enforce;
        let (bad_method, scanner_ua) = (FilterMode::Observe, FilterMode::Observe);
        Self { families, bad_method, scanner_ua, headers: HeaderFields::Unusual, body: None, patterns: Vec::new() }
    };
    /// All that is known is refused.
    pub const STRICT: Self = Self::new(FilterMode::Enforce, FilterMode::Enforce, FilterMode::Enforce);
    /// All that is known is counted, and passes.
    pub const OBSERVE: Self = Self::new(FilterMode::Observe, FilterMode::Observe, FilterMode::Observe);
    pub const OFF: Self = Self::new(FilterMode::Off, FilterMode::Off, FilterMode::Off);

    /// Every family in one mode, all header fields included.
    #[must_use]
    pub const fn new(bad_uri: FilterMode, bad_method: FilterMode, scanner_ua: FilterMode) -> Self {
        let families = FamilyModes::all(bad_uri);
        Self { families, bad_method, scanner_ua, headers: HeaderFields::All, body: None, patterns: Vec::new() }
    }

    /// The name of the set that this is, but for bodies and patterns; `None`: one of the user's own.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        [("balanced", Self::BALANCED), ("strict", Self::STRICT), ("observe", Self::OBSERVE), ("off", Self::OFF)].into_iter().find_map(
            |(name, set)| {
                let same = set.families == self.families && set.bad_method == self.bad_method && set.scanner_ua == self.scanner_ua;
                (same && set.headers == self.headers).then_some(name)
            },
        )
    }
}

/// Which header fields the families look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum HeaderFields {
    None,
    /// Those that no browser sends by itself; the others only for look-ups.
    Unusual,
    All,
}

/// How sure it is that nobody honest sends what a pattern recognises.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Certainty {
    /// An honest text may say it too.
    Likely,
    Certain,
}

/// What the screen has recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hit {
    pub family: Family,
    pub certainty: Certainty,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum FilterMode {
    Off,
    /// Counts, lets pass.
    Observe,
    /// Refuses what is certain, observes what is likely.
    Certain,
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

    /// What is done with a hit: never [`FilterMode::Certain`].
    #[must_use]
    pub fn on(&self, hit: Hit) -> FilterMode {
        match (self.of(hit.family), hit.certainty) {
            (FilterMode::Certain, Certainty::Certain) => FilterMode::Enforce,
            (FilterMode::Certain, Certainty::Likely) => FilterMode::Observe,
            (mode, _) => mode,
        }
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

/// A set of families, each with the certain of its patterns, the likely ones, or both.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Families {
    certain: u16,
    likely: u16,
}

impl Families {
    pub const NONE: Self = Self { certain: 0, likely: 0 };
    pub const ALL: Self = Self { certain: (1 << Family::ALL.len()) - 1, likely: (1 << Family::ALL.len()) - 1 };

    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        Self { certain: self.certain | 1 << family as u16, likely: self.likely | 1 << family as u16 }
    }

    #[must_use]
    pub const fn with_hit(self, hit: Hit) -> Self {
        match hit.certainty {
            Certainty::Certain => Self { certain: self.certain | 1 << hit.family as u16, ..self },
            Certainty::Likely => Self { likely: self.likely | 1 << hit.family as u16, ..self },
        }
    }

    #[must_use]
    pub const fn without(self, hit: Hit) -> Self {
        match hit.certainty {
            Certainty::Certain => Self { certain: self.certain & !(1 << hit.family as u16), ..self },
            Certainty::Likely => Self { likely: self.likely & !(1 << hit.family as u16), ..self },
        }
    }

    /// What is in both.
    #[must_use]
    pub const fn meet(self, other: Self) -> Self {
        Self { certain: self.certain & other.certain, likely: self.likely & other.likely }
    }

    /// Whether any pattern of the family is in it.
    #[must_use]
    pub const fn has(self, family: Family) -> bool {
        (self.certain | self.likely) & 1 << family as u16 != 0
    }

    #[must_use]
    pub const fn sees(self, hit: Hit) -> bool {
        let set = match hit.certainty {
            Certainty::Certain => self.certain,
            Certainty::Likely => self.likely,
        };
        set & 1 << hit.family as u16 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.certain | self.likely == 0
    }
}
