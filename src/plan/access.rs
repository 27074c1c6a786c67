//! Who may come in: `auth` of a site or a route.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Plan, Site, SiteTls};
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
    #[serde(serialize_with = "names_out", deserialize_with = "names_in")]
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

/// Sites whose users tell their passwords to everybody on the way: without TLS, where others than this machine can come.
pub fn in_the_clear(plan: &Plan) -> impl Iterator<Item = &Site> {
    let public = plan.listen.http.iter().any(|address| !address.ip().is_loopback());
    let asks = |site: &&Site| site.routes.iter().any(|route| matches!(route.auth, Some(Auth::Basic(_))));
    plan.sites.iter().filter(move |site| public && site.tls == SiteTls::Off).filter(asks)
}

pub(super) fn names_out<S: Serializer>(names: &[HeaderName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(names.iter().map(HeaderName::as_str))
}

pub(super) fn names_in<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeaderName>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.into_iter().map(|name| HeaderName::try_from(name).map_err(D::Error::custom)).collect()
}
