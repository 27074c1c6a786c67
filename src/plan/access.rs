//! Who may come in: `auth` of a site or a route.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::vocab::Secret;

/// What a client has to prove before it is answered. A route without one is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Auth {
    Basic(Basic),
}

/// A name and a password (RFC 7617).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basic {
    /// A key of [`Plan::users`](super::Plan::users).
    pub file: PathBuf,
    /// Visible ASCII and spaces.
    pub realm: String,
}

/// One line of an htpasswd file.
///
/// Shape: the hash is one that [`Stored::parse`](crate::rules::password::Stored::parse) takes; names are not empty and unique in their file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub hash: Secret<String>,
}
