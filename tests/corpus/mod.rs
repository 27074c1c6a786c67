//! Corpora for the screen: what attackers send, and what honest people cause. Neither knows the screen's rules; both are the same in every run.
//!
//! Written by hand from the literature of attacks (OWASP's testing guide, PortSwigger's and HackTricks' topics, advisories, manuals of databases, shells and
//! template engines) and from what real sites look like. No test collection of another filter was a source, and no case is here because of a rule.

pub mod attack;
pub mod dice;
pub mod disguise;
pub mod honest;
pub mod wide;
pub mod wire;

/// One request, as far as a screen looks at it. The target and the values are bytes as they stand on the wire.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum Body {
    #[default]
    None,
    Form(Vec<u8>),
    Json(Vec<u8>),
    /// With the boundary [`wire::BOUNDARY`].
    Parts(Vec<u8>),
    /// With a type of its own, or none.
    Typed(Option<String>, Vec<u8>),
}

impl Body {
    /// Its content type, empty where none is sent, and its bytes.
    pub fn read(&self) -> Option<(String, &[u8])> {
        match self {
            Self::None => None,
            Self::Form(body) => Some(("application/x-www-form-urlencoded".into(), body)),
            Self::Json(body) => Some(("application/json; charset=utf-8".into(), body)),
            Self::Parts(body) => Some((format!("multipart/form-data; boundary={}", wire::BOUNDARY), body)),
            Self::Typed(kind, body) => Some((kind.clone().unwrap_or_default(), body)),
        }
    }
}

impl Request {
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self { method: "GET".into(), target: target.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
