//! `headers` of a site: a set, and what the user lays over it.

use serde::{Deserialize, Serialize};

use super::route::HeaderEdit;

/// Shape: what the fields of a set are says `rules::header`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeaderSet {
    pub base: HeaderBase,
    /// The user's own, each once; they win over the base.
    pub own: Vec<HeaderEdit>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum HeaderBase {
    /// Breaks no honest site.
    #[default]
    Standard,
    Strict,
    Off,
}

impl HeaderBase {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Strict => "strict",
            Self::Off => "off",
        }
    }
}

impl From<HeaderBase> for HeaderSet {
    fn from(base: HeaderBase) -> Self {
        Self { base, own: Vec::new() }
    }
}
