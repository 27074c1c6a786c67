//! Schedule rule: when a job is due next.
//!
//! Pure. `master::jobs` brings the clock and starts the job.
//!
//! Shape: what is due lies after the moment asked about; a time that a change of clocks skips is moved on, one that comes twice is used once.
//! Errors: [`CronError`] says which part is wrong.
//! Source: crontab(5) and its `@` words; time zones of the IANA list.

use cronexpr::{FallbackTimezoneOption, ParseOptions};
use jiff::Timestamp;
use thiserror::Error;

/// Why a text is no schedule.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct CronError {
    what: String,
}

/// A schedule in its time zone.
#[derive(Clone, Debug)]
pub struct Crontab(cronexpr::Crontab);

impl Crontab {
    /// `zone` `None`: the zone of the machine.
    pub fn parse(cron: &str, zone: Option<&str>) -> Result<Self, CronError> {
        let cron = cron.trim();
        let fields = match cron {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if fields.split_ascii_whitespace().count() != 5 {
            return Err(CronError { what: "it has not five fields".to_owned() });
        }
        let mut options = ParseOptions::default();
        let text = match zone {
            Some(zone) => format!("{fields} {zone}"),
            None => {
                options.fallback_timezone_option = FallbackTimezoneOption::System;
                fields.to_owned()
            }
        };
        // The library's message draws the text with a mark under the fault, over several lines: its last says what it is.
        let story =
            |error: cronexpr::Error| error.to_string().lines().last().unwrap_or_default().trim().trim_start_matches('^').trim().to_owned();
        cronexpr::parse_crontab_with(&text, options).map(Self).map_err(|error| CronError { what: story(error) })
    }

    /// The next time after `after`; `None`: never again.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.0.find_next(after).ok().map(|zoned| zoned.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn what_is_due_lies_after_now_in_the_zone_of_the_schedule() {
        let nightly = Crontab::parse("0 2 * * *", Some("Europe/Rome")).expect("good");
        assert_eq!(nightly.next(at("2026-11-27T00:00:00Z")), Some(at("2026-11-27T01:00:00Z")));
        assert_eq!(nightly.next(at("2026-11-27T01:00:00Z")), Some(at("2026-11-28T01:00:00Z")));
        assert_eq!(nightly.next(at("2026-07-01T12:00:00Z")), Some(at("2026-07-02T00:00:00Z")));
        let weekly = Crontab::parse("@weekly", Some("UTC")).expect("good");
        assert_eq!(weekly.next(at("2026-11-27T00:00:00Z")), Some(at("2026-11-29T00:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_its_reason() {
        for bad in ["", "* * * *", "61 * * * *", "* * * * * *", "@often", "0 2 * * * Europe/Rome"] {
            let error = Crontab::parse(bad, None).expect_err(bad).to_string();
            assert!(!error.is_empty(), "{bad}");
        }
        assert!(Crontab::parse("0 2 * * *", Some("Mars/Olympus")).is_err());
    }
}
