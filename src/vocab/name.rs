//! Names that users give to apps, upstreams and zones.
//!
//! Shape: 1 to 63 of `a-z 0-9 _ -`, first a letter or digit; so a name is safe as a file name, a metric label and an environment value.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a name was refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum NameError {
    #[error("a name may not be empty")]
    Empty,
    #[error("a name may have at most 63 characters, this one has {0}")]
    Long(usize),
    #[error("a name starts with a letter or a digit, not with {0:?}")]
    Start(char),
    #[error("a name consists of a-z, 0-9, '_' and '-': {0:?} is not allowed")]
    Char(char),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.len() > 63 {
        return Err(NameError::Long(text.chars().count()));
    }
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')) {
        return Err(NameError::Char(bad));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Start(first));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Errors: [`NameError`] says which character or length is wrong.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A supervised program, `[app.NAME]`.
    AppName
}
name! {
    /// Servers to balance over, `[upstream.NAME]`; an app with a port or socket is an upstream of its own name.
    UpstreamName
}
name! {
    /// A rate limit, `[zone.NAME]`.
    ZoneName
}

impl From<&AppName> for UpstreamName {
    fn from(app: &AppName) -> Self {
        Self(app.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names_and_labels() {
        assert_eq!(AppName::parse("web-1").expect("valid").as_str(), "web-1");
        assert_eq!(AppName::parse(""), Err(NameError::Empty));
        assert_eq!(AppName::parse("-web"), Err(NameError::Start('-')));
        assert_eq!(AppName::parse("../x"), Err(NameError::Char('.')));
        assert_eq!(AppName::parse("Web"), Err(NameError::Char('W')));
        assert_eq!(AppName::parse(&"a".repeat(64)), Err(NameError::Long(64)));
    }
}
