//! Durations and sizes as people write them: `250ms`, `30s`, `1h`, `1y`; `512MB`, `16KB`.
//!
//! Units: sizes are binary (1 KB = 1024 bytes), as in nginx; a year is 365 days.
//! Errors: a bare number is refused by name, nothing is rounded or clamped in silence.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a quantity was refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum UnitError {
    #[error("{text:?} has no unit: write one of {units}, for example {example:?}")]
    Bare { text: String, units: &'static str, example: String },
    #[error("{text:?} has an unknown unit {unit:?}: known are {units}")]
    Unknown { text: String, unit: String, units: &'static str },
    #[error("{0:?} is not a whole number with a unit, such as \"30s\" or \"512MB\"")]
    Number(String),
    #[error("{0:?} is too large")]
    Large(String),
}

const DURATION_UNITS: &str = "ms, s, m, h, d, w, y";
const BYTE_UNITS: &str = "B, KB, MB, GB";

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (size, unit) in [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads `250ms`, `30s`, `5m`, `1h`, `12h`, `1d`, `2w`, `1y`.
///
/// Errors: [`UnitError`]; `"0s"` is a duration, whether it is meaningful is the caller's question.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "y" => 31_536_000_000,
        "" => return Err(UnitError::Bare { text: text.into(), units: DURATION_UNITS, example: format!("{number}s") }),
        _ => return Err(UnitError::Unknown { text: text.into(), unit: unit.into(), units: DURATION_UNITS }),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| UnitError::Large(text.into()))
}

/// Reads `16KB`, `10MB`, `1GB`, `512B`.
///
/// Errors: [`UnitError`].
pub fn parse_bytes(text: &str) -> Result<ByteSize, UnitError> {
    let (number, unit) = split(text)?;
    let size = match unit {
        "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "" => return Err(UnitError::Bare { text: text.into(), units: BYTE_UNITS, example: format!("{number}MB") }),
        _ => return Err(UnitError::Unknown { text: text.into(), unit: unit.into(), units: BYTE_UNITS }),
    };
    number.checked_mul(size).map(ByteSize).ok_or_else(|| UnitError::Large(text.into()))
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::Number(text.into()));
    }
    let number = digits.parse().map_err(|_| UnitError::Large(text.into()))?;
    Ok((number, unit.trim_start()))
}

/// Writes a duration so that [`parse_duration`] reads it back.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (size, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_says_which_unit_it_lacks() {
        let error = parse_duration("30").expect_err("no unit");
        assert_eq!(error.to_string(), "\"30\" has no unit: write one of ms, s, m, h, d, w, y, for example \"30s\"");
        assert!(matches!(parse_bytes("10"), Err(UnitError::Bare { .. })));
    }

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1y"), Ok(Duration::from_secs(31_536_000)));
        assert_eq!(parse_bytes("16KB"), Ok(ByteSize(16384)));
        assert!(matches!(parse_bytes("99999999999999999GB"), Err(UnitError::Large(_))));
        assert!(matches!(parse_duration("5 parsecs"), Err(UnitError::Unknown { .. })));
        assert!(matches!(parse_duration("soon"), Err(UnitError::Number(_))));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 250, 1000, 90_000, 3_600_000, 86_400_000, 86_400_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }
    }
}
