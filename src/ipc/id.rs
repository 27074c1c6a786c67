//! A request by its id: of any, and of one that is suspected.
//!
//! Pure.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest id that is taken from a trusted peer.
pub const LONGEST_ID: usize = 128;

/// Why a text cannot be the id of a request.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum IdError {
    #[error("an id has 1 to {LONGEST_ID} characters, this one has {0} bytes")]
    Length(usize),
    #[error("an id is visible ASCII without spaces")]
    Byte,
}

/// The id of a request, as in `X-Request-Id`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// Errors: [`IdError`]: no request has such an id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if !(1..=LONGEST_ID).contains(&text.len()) {
            return Err(IdError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdError::Byte);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

/// A request that a process had when its connection broke.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    pub id: String,
    /// Method and path, without the query; escaped, and cut.
    pub request: String,
    /// It had met that before, in another process.
    pub again: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_id_is_refused_at_the_door() {
        assert!(RequestId::parse("4bf92f3577b34da6a3ce929d0e0e4736").is_ok());
        assert_eq!(RequestId::parse(""), Err(IdError::Length(0)));
        assert_eq!(RequestId::parse(&"x".repeat(129)), Err(IdError::Length(129)));
        for bad in ["a b", "a\u{1b}[31m", "größe", "a\0"] {
            assert_eq!(RequestId::parse(bad), Err(IdError::Byte), "{bad:?}");
        }
        assert!(serde_json::from_str::<RequestId>("\"a\\n\"").is_err(), "nor over the socket");
    }
}
