//! `[zone.NAME]`: a rate limit, in nginx's words.

use std::num::NonZeroU32;

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::vocab::Pace;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    pub key: ZoneKey,
    pub rate: Pace,
    /// Requests admitted at once beyond the pace (`nodelay`): `rate` 10r/s with `burst` 20 admits 21 at once.
    pub burst: u32,
    #[serde(with = "status")]
    pub status: StatusCode,
    /// Cells kept at most; the state of a key that is still limited is never given up for a new one.
    pub max_keys: NonZeroU32,
}

/// What is counted apart. An empty or missing value falls back to the client's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ZoneKey {
    /// IPv6 by /64.
    Ip,
    Header(#[serde(with = "header_name")] HeaderName),
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
