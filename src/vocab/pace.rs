//! A permitted pace.

use std::{fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::units::parse_duration;

/// So many in such a time. Text form: `10r/s`, `600r/m`, `100r/10s`, `10/1h`.
///
/// Units: `count` > 0 and `per` > 0, so a pace can neither divide by zero nor mean "never".
/// Errors: [`PaceError`] names the bad part; nothing is rounded or clamped in silence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(u32, Duration)", into = "(u32, Duration)")]
pub struct Pace {
    count: NonZeroU32,
    per: Duration,
}

/// Why a pace was refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum PaceError {
    #[error("{0:?} is not a pace: write COUNT r/TIME, for example \"10r/s\", \"600r/m\" or \"100r/10s\"")]
    Form(String),
    #[error("{0:?}: the count must be a whole number from 1 to 4294967295")]
    Count(String),
    #[error("{0:?}: the time must be a unit (s, m, h, d) or a duration such as \"10s\"")]
    Time(String),
}

impl Pace {
    /// Errors: [`PaceError`] when `count` or `per` is zero.
    pub fn new(count: u32, per: Duration) -> Result<Self, PaceError> {
        let count = NonZeroU32::new(count).ok_or_else(|| PaceError::Count(count.to_string()))?;
        if per.is_zero() || per.as_nanos() / u128::from(count.get()) == 0 {
            return Err(PaceError::Time(format!("{count}/{per:?}")));
        }
        Ok(Self { count, per })
    }

    pub fn parse(text: &str) -> Result<Self, PaceError> {
        let (count, per) = text.split_once('/').ok_or_else(|| PaceError::Form(text.into()))?;
        let count = count.strip_suffix('r').unwrap_or(count);
        let count = count.parse().map_err(|_| PaceError::Count(text.into()))?;
        let per = match per {
            "s" | "m" | "h" | "d" => parse_duration(&format!("1{per}")),
            _ => parse_duration(per),
        };
        let per = per.map_err(|_| PaceError::Time(text.into()))?;
        Self::new(count, per).map_err(|error| match error {
            PaceError::Count(_) => PaceError::Count(text.into()),
            PaceError::Time(_) | PaceError::Form(_) => PaceError::Time(text.into()),
        })
    }

    #[must_use]
    pub fn count(self) -> NonZeroU32 {
        self.count
    }

    #[must_use]
    pub fn per(self) -> Duration {
        self.per
    }

    /// The time one permit takes to come back; never zero.
    #[must_use]
    pub fn every(self) -> Duration {
        self.per / self.count.get()
    }
}

impl TryFrom<(u32, Duration)> for Pace {
    type Error = PaceError;
    fn try_from((count, per): (u32, Duration)) -> Result<Self, PaceError> {
        Self::new(count, per)
    }
}

impl From<Pace> for (u32, Duration) {
    fn from(pace: Pace) -> Self {
        (pace.count.get(), pace.per)
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}r/{}", self.count, super::units::duration_text(self.per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_reads_as_nginx_writes_it() {
        assert_eq!(Pace::parse("10r/s").map(Pace::every), Ok(Duration::from_millis(100)));
        assert_eq!(Pace::parse("600r/m").map(Pace::every), Ok(Duration::from_millis(100)));
        assert_eq!(Pace::parse("100r/10s").map(Pace::every), Ok(Duration::from_millis(100)));
        assert_eq!(Pace::parse("10/1h").map(Pace::every), Ok(Duration::from_secs(360)));
    }

    #[test]
    fn a_pace_can_neither_divide_by_zero_nor_mean_never() {
        assert!(matches!(Pace::parse("0r/s"), Err(PaceError::Count(_))));
        assert!(matches!(Pace::parse("1r/0s"), Err(PaceError::Time(_))));
        assert!(matches!(Pace::parse("10"), Err(PaceError::Form(_))));
        assert!(matches!(Pace::parse("10r/fortnight"), Err(PaceError::Time(_))));
        assert!(matches!(Pace::parse("xr/s"), Err(PaceError::Count(_))));
    }
}
