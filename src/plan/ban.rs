//! `[ban]`: clients that misbehave are shut out.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Shape: `points` holds an offence with points above zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// What an offence counts; what is not here counts nothing.
    pub points: BTreeMap<Offence, u16>,
    /// So many points within `find_time` are a ban.
    pub max: NonZeroU32,
    pub find_time: Duration,
    pub ban_time: Duration,
    /// Twice as long each time, up to [`LONGEST`].
    pub grow: bool,
    /// Never banned. Nor are trusted proxies.
    pub ignore: Vec<IpNet>,
    pub mode: BanMode,
}

/// How far a ban may grow; one that begins longer stays as it is.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum BanMode {
    /// Counts, lets pass. Bans by hand are kept all the same.
    Observe,
    Enforce,
}

/// What points are given for: a filter, a zone or a login that refused a request, or the status of its answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Offence {
    BadUri,
    BadMethod,
    ScannerUa,
    Zone,
    /// A refusal of a zone that comes after many others, and nothing else between them.
    ZoneRow,
    Auth,
    /// A path that only somebody asks for who looks for what is not there, and it was not there. Each path once.
    Probe,
    /// What a filter recognised and let pass.
    Observed,
    /// 4 or 5: every status of the class that has no points of its own.
    Class(u8),
    /// 400 to 599.
    Status(u16),
}

/// What counts where the file does not say: what honest people never do, whatever an app answers them.
#[must_use]
pub fn usual() -> BTreeMap<Offence, u16> {
    [(Offence::BadUri, 3), (Offence::Probe, 2), (Offence::ZoneRow, 1), (Offence::Auth, 1)].into()
}

/// Why a word is no offence.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum OffenceError {
    #[error("{0:?} is no status that points can be given for: write one from 400 to 599, \"4xx\" or \"5xx\"")]
    Status(String),
    #[error("{0:?} is nothing that points can be given for")]
    Unknown(String),
}

impl Offence {
    /// The words; any status from 400 to 599 is one too.
    pub const WORDS: [&str; 10] = ["bad-uri", "bad-method", "scanner-ua", "zone", "zone-row", "auth", "probe", "observed", "4xx", "5xx"];

    /// Whether good conduct makes no difference: what an enforced filter refuses nobody sends by chance.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        matches!(self, Self::BadUri | Self::BadMethod | Self::ScannerUa)
    }

    /// Errors: [`OffenceError`]
    pub fn parse(text: &str) -> Result<Self, OffenceError> {
        Ok(match text {
            "bad-uri" => Self::BadUri,
            "bad-method" => Self::BadMethod,
            "scanner-ua" => Self::ScannerUa,
            "zone" => Self::Zone,
            "zone-row" => Self::ZoneRow,
            "auth" => Self::Auth,
            "probe" => Self::Probe,
            "observed" => Self::Observed,
            "4xx" => Self::Class(4),
            "5xx" => Self::Class(5),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                let status = text.parse().ok().filter(|status| text.len() == 3 && (400..600).contains(status));
                Self::Status(status.ok_or_else(|| OffenceError::Status(text.to_owned()))?)
            }
            _ => return Err(OffenceError::Unknown(text.to_owned())),
        })
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUri => f.write_str("bad-uri"),
            Self::BadMethod => f.write_str("bad-method"),
            Self::ScannerUa => f.write_str("scanner-ua"),
            Self::Zone => f.write_str("zone"),
            Self::ZoneRow => f.write_str("zone-row"),
            Self::Auth => f.write_str("auth"),
            Self::Probe => f.write_str("probe"),
            Self::Observed => f.write_str("observed"),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

impl TryFrom<String> for Offence {
    type Error = OffenceError;

    fn try_from(text: String) -> Result<Self, OffenceError> {
        Self::parse(&text)
    }
}

impl From<Offence> for String {
    fn from(offence: Offence) -> Self {
        offence.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offence_is_read_as_it_is_written_and_nothing_else_is_one() {
        for word in Offence::WORDS.into_iter().chain(["400", "404", "599"]) {
            assert_eq!(Offence::parse(word).expect(word).to_string(), word);
        }
        for bad in ["", "200", "399", "600", "0404", "4041", "4x", "+404", "manual", "Zone"] {
            assert!(Offence::parse(bad).is_err(), "{bad:?}");
        }
    }
}
