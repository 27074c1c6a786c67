//! `[zone.NAME]`: a limit of requests, in nginx's words.

use std::{fmt, num::NonZeroU32};

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::vocab::Pace;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Never empty; several are one key together.
    pub key: Vec<ZoneKey>,
    /// `None`: `concurrent` alone is the limit.
    pub rate: Option<Pace>,
    /// Requests admitted beyond the pace: `rate` 10r/s with `burst` 20 admits 21 at one moment.
    pub burst: u32,
    /// So many of the burst go on at once, the others when it is their turn; `burst` itself: nobody waits (`nodelay`).
    pub delay: u32,
    /// Requests of a key at once.
    pub concurrent: Option<NonZeroU32>,
    #[serde(with = "status")]
    pub status: StatusCode,
    /// Only answers with these spend of the rate; empty: every request does.
    #[serde(with = "statuses")]
    pub count: Vec<StatusCode>,
    pub mode: ZoneMode,
    /// What answers say of what is left.
    pub headers: Option<RateHeaders>,
    /// Cells kept at most; the state of a key that is still limited is never given up for a new one.
    pub max_keys: NonZeroU32,
}

/// What is counted apart. An empty or missing value falls back to the client's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ZoneKey {
    /// IPv6 by /64.
    Ip,
    Header(#[serde(with = "header_name")] HeaderName),
    Cookie(String),
    Query(String),
    /// In its normal form, without the query.
    Path,
    /// The site that the request is for.
    Site,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ZoneMode {
    Enforce,
    /// Counts what would be refused, and lets it pass.
    Observe,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum RateHeaders {
    /// `RateLimit-Policy` and `RateLimit`.
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
}

/// As the configuration writes it.
impl fmt::Display for ZoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path => f.write_str("path"),
            Self::Site => f.write_str("site"),
        }
    }
}

impl ZoneMode {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

impl RateHeaders {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Legacy => "legacy",
        }
    }
}

mod statuses {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(all: &[StatusCode], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(StatusCode::as_u16))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<StatusCode>, D::Error> {
        Vec::<u16>::deserialize(from)?.into_iter().map(|one| StatusCode::from_u16(one).map_err(D::Error::custom)).collect()
    }
}

pub(super) mod status {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.as_u16())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(from)?).map_err(D::Error::custom)
    }
}

pub(super) mod header_name {
    use http::HeaderName;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
        HeaderName::try_from(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
