//! Schedule rule: when a job is due next.
//!
//! Pure. `master::jobs` brings the clock and starts the job.
//!
//! Shape: what is due lies after the moment asked about. A schedule that names its hours is one of the clock on the wall: an hour that a change of
//!        clocks skips is moved on, one that comes twice is used once. One of every hour (`*`, `*/2`) goes by the time that passes.
//! Errors: [`CronError`] says which part is wrong.
//! Source: crontab(5) and its `@` words; cron(8) on daylight saving; time zones of the IANA list.

use cronexpr::{FallbackTimezoneOption, ParseOptions};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use thiserror::Error;

/// Why a text is no schedule.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct CronError {
    what: String,
}

/// A schedule in its time zone.
#[derive(Clone, Debug)]
pub struct Crontab {
    times: cronexpr::Crontab,
    /// `times` are those of a clock on the wall here, read as if it were UTC; `None`: they know their zone.
    wall: Option<TimeZone>,
}

/// No change of clocks is as large.
const CHANGE: SignedDuration = SignedDuration::from_hours(3);
/// Times of the wall clock within [`CHANGE`], and more than enough.
const TRIES: usize = 1000;

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
        let times = cronexpr::parse_crontab_with(&text, options).map_err(|error| CronError { what: story(error) })?;
        if fields.split_ascii_whitespace().nth(1).is_some_and(|hours| hours.starts_with('*')) {
            return Ok(Self { times, wall: None });
        }
        let wall = match zone {
            Some(zone) => TimeZone::get(zone).map_err(|error| CronError { what: error.to_string() })?,
            None => TimeZone::system(),
        };
        let times = cronexpr::parse_crontab(&format!("{fields} UTC")).map_err(|error| CronError { what: story(error) })?;
        Ok(Self { times, wall: Some(wall) })
    }

    /// Whether it comes at all: the 30th of February does not. Leap days are at most eight years apart.
    #[must_use]
    pub fn comes(&self) -> bool {
        self.next(Timestamp::UNIX_EPOCH).is_some()
    }

    /// The next time after `after`; `None`: never again.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let Some(zone) = &self.wall else { return self.times.find_next(after).ok().map(|zoned| zoned.timestamp()) };
        let before = after.checked_sub(CHANGE).ok()?;
        let calm = zone.to_offset(before) == zone.to_offset(after);
        let mut wall = zone.to_datetime(if calm { after } else { before });
        for _ in 0..TRIES {
            let as_utc = TimeZone::UTC.to_timestamp(wall).ok()?;
            wall = self.times.find_next(as_utc).ok()?.datetime();
            // A time that is skipped is taken for one as much later, one that comes twice for the first of both.
            let at = zone.to_timestamp(wall).ok()?;
            if at > after {
                return Some(at);
            }
        }
        None
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

    /// Everything due from `from` on, up to `to`.
    fn all(cron: &str, from: &str, to: &str) -> Vec<String> {
        let crontab = Crontab::parse(cron, Some("Europe/Rome")).expect("good");
        let mut found = Vec::new();
        let mut last = at(from);
        while let Some(next) = crontab.next(last).filter(|next| *next <= at(to)) {
            found.push(next.to_string());
            last = next;
        }
        found
    }

    #[test]
    fn an_hour_that_is_skipped_in_spring_is_moved_on() {
        // At 01:00 UTC clocks go from 02:00 to 03:00.
        let night = |cron| all(cron, "2026-03-28T22:00:00Z", "2026-03-29T10:00:00Z");
        assert_eq!(night("30 2 * * *"), ["2026-03-29T01:30:00Z"]);
        assert_eq!(night("30 2,3 * * *"), ["2026-03-29T01:30:00Z"]);
        assert_eq!(night("0 4 * * *"), ["2026-03-29T02:00:00Z"]);
        let rome = Crontab::parse("45 2 * * *", Some("Europe/Rome")).expect("good");
        assert_eq!(rome.next(at("2026-03-29T01:20:00Z")), Some(at("2026-03-29T01:45:00Z")), "asked in the very hour");
        assert_eq!(all("0 * * * *", "2026-03-28T23:30:00Z", "2026-03-29T02:00:00Z").len(), 3);
    }

    #[test]
    fn an_hour_that_comes_twice_in_autumn_is_used_once() {
        // At 01:00 UTC clocks go from 03:00 back to 02:00.
        let night = |cron| all(cron, "2026-10-24T22:00:00Z", "2026-10-25T10:00:00Z");
        assert_eq!(night("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
        assert_eq!(night("0 3 * * *"), ["2026-10-25T02:00:00Z"]);
        assert_eq!(all("*/30 * * * *", "2026-10-24T23:59:00Z", "2026-10-25T02:00:00Z").len(), 5, "a job of every half hour goes on");
    }

    #[test]
    fn a_day_that_no_month_has_never_comes() {
        for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "*/5 * 30-31 2 *", "0 12 31 4 *"] {
            assert!(!Crontab::parse(never, None).expect(never).comes(), "{never}");
        }
        for rare in ["0 0 29 2 *", "0 0 31 1-4 *", "0 0 * * *", "@yearly", "0 0 30 2 1", "30 2 29 2 *"] {
            assert!(Crontab::parse(rare, Some("Europe/Rome")).expect(rare).comes(), "{rare}");
        }
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
