//! Who may come in: `auth` of a site or a route.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::wire;
use crate::vocab::{Secret, ServerAddr};

/// What a client has to prove before it is answered. A route without one is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Auth {
    Basic(Basic),
    Forward(Forward),
}

/// A name and a password (RFC 7617).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basic {
    /// A key of [`Plan::users`](super::Plan::users).
    pub file: PathBuf,
    /// Visible ASCII and spaces.
    pub realm: String,
}

/// Another server says who may come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    pub server: ServerAddr,
    /// The `Host` that it is asked with.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Of its answer, for the app; a client's own of these names never get there.
    #[serde(serialize_with = "wire::names_out", deserialize_with = "wire::names_in")]
    pub headers: Vec<HeaderName>,
    /// Above zero.
    pub timeout: Duration,
}

/// One line of an htpasswd file.
///
/// Shape: the hash is one that [`Stored::parse`](crate::rules::password::Stored::parse) takes; names are not empty and unique in their file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub hash: Secret<String>,
}
