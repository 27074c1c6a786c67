//! Where certificates come from that nobody has to look after.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::vocab::Secret;

/// `email` and `[tls] ca, challenges, profile`
///
/// Shape: `cas` and `challenges` are not empty and hold nothing twice; both in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acme {
    pub email: Option<String>,
    pub cas: Vec<Ca>,
    pub challenges: Vec<Challenge>,
    /// Asked for where the CA offers it.
    pub profile: Option<String>,
}

/// A certificate authority, by its ACME directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ca {
    /// For status and logs: "letsencrypt", or the host of its directory. Unique.
    pub name: String,
    pub directory: String,
    /// Where a failed validation is rehearsed until it passes, so that it costs nothing of the CA's rate limits.
    pub staging: Option<String>,
    /// PEM of the root that the directory's own certificate leads to. `None`: the public ones.
    pub root: Option<PathBuf>,
    pub eab: Option<Eab>,
}

/// External account binding.
///
/// Source: RFC 8555 §7.3.4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eab {
    pub kid: String,
    /// The HMAC key, decoded.
    pub key: Secret<Vec<u8>>,
}

/// How a name is proven to be ours.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Challenge {
    /// On the https listeners (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// On the http listeners (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
}

impl Challenge {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

#[cfg(test)]
impl Acme {
    /// For plans in whose tests no certificate is ordered.
    pub fn none() -> Self {
        Self { email: None, cas: Vec::new(), challenges: Vec::new(), profile: None }
    }
}
